"""Classification from pooled codes: a linear SVM at several numbers of labelled images.

Paper 002, Table 8, in the pipeline of Coates, Ng and Lee (2011): `reprolib.studies.codes` makes the
features, this module classifies them.
"""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from scipy.optimize import minimize
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.model_selection import GridSearchCV, KFold

from reprolib.checks import unknown_name
from reprolib.data.images import Images, check_features, sealed_labels
from reprolib.studies.codes import PATCH, encode, learn_codebook, whitened_patches
from reprolib.studies.patch_network import LAYERS, PatchEmbedding, layer_representation

WHITENED = "whitened"  # the patches themselves: the column "K-means" of Table 8
REPRESENTATIONS = (WHITENED, *LAYERS)
PATCH_ROWS = 4096  # patches in the CNN at a time
MAX_STEPS = 1000  # of L-BFGS, as in the released code of Coates et al.
TOLERANCE = 1e-6  # of the loss, relative: what float32 resolves
PENALTIES = (0.01, 0.1, 1.0, 10.0, 100.0)  # up to the released code's, which is for 50,000 images
FOLDS = 3
MIN_SIZE = 10  # labelled images


class L2SVM(ClassifierMixin, BaseEstimator):
    """One linear SVM a class with squared hinge, by L-BFGS on the primal.

    Minimises |w|^2 / 2 + C * mean of max(0, 1 - margin)^2 for every class, the bias an entry of w on a
    constant 1: the classifier, and C = 100, of the released code of Coates, Ng and Lee (2011), and
    `LinearSVC(C=C / n)`, whose coordinate descent is slow on dense features by the thousand. After `fit`:
    `classes_`, `coef_` float32 (classes, d), `intercept_` float32 (classes,). O(n d classes) a step.
    """

    def __init__(self, C: float = 100.0) -> None:
        self.C = C

    def fit(self, X: Any, y: Any) -> "L2SVM":
        """Fit features float (n, d) and labels (n,). Raises ValueError for fewer than two classes."""
        X = check_features(X)
        self.classes_, number = np.unique(np.asarray(y), return_inverse=True)
        if number.shape != (len(X),):
            raise ValueError(f"y must hold one label a row, shape ({len(X)},); got {np.shape(y)}")
        if len(self.classes_) < 2:
            raise ValueError("y must hold at least two classes")
        n, d = X.shape
        sign = np.where(number[:, None] == np.arange(len(self.classes_)), 1, -1).astype(np.float32)

        def loss(flat: np.ndarray) -> tuple[float, np.ndarray]:
            weights = flat.reshape(-1, d + 1)  # (classes, d + 1)
            single = weights.astype(np.float32)
            margin = np.maximum(1 - sign * (X @ single[:, :d].T + single[:, d]), 0)
            penalty = np.square(margin).sum(dtype=np.float64) / n
            value = 0.5 * np.vdot(weights, weights) + self.C * penalty
            margin *= sign
            slope = np.hstack([margin.T @ X, margin.sum(0)[:, None]])
            return float(value), (weights - 2 * self.C / n * slope).ravel()

        start = np.zeros(len(self.classes_) * (d + 1))
        options = {"maxiter": MAX_STEPS, "ftol": TOLERANCE}
        found = minimize(loss, start, jac=True, method="L-BFGS-B", options=options)
        weights = found.x.reshape(-1, d + 1).astype(np.float32)
        self.coef_, self.intercept_ = weights[:, :d], weights[:, d]
        return self

    def decision_function(self, X: Any) -> np.ndarray:
        """Signed distances, up to scale, float32 (n, classes)."""
        return check_features(X, min_samples=1) @ self.coef_.T + self.intercept_

    def predict(self, X: Any) -> np.ndarray:
        """Class of the largest decision value (n,)."""
        return self.classes_[self.decision_function(X).argmax(1)]


def standardise(train: np.ndarray, test: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Shift and scale float32 features (n, d) and (m, d) by the mean and deviation of the first.

    The deviation is sqrt(variance + 0.01), as in the released code of Coates, Ng and Lee (2011).
    """
    mean = train.mean(0, dtype=np.float64).astype(np.float32)
    deviation = np.sqrt(train.var(0, ddof=1, dtype=np.float64) + 0.01).astype(np.float32)
    return (train - mean) / deviation, (test - mean) / deviation


def choose_svm(X: np.ndarray, y: np.ndarray) -> L2SVM:
    """`L2SVM` on float32 features (n, d) and labels (n,), refitted with the best of PENALTIES.

    The accuracy of 3-fold cross-validation decides, the smaller penalty in a tie: these images and their
    labels, no others. The rows must be in random order. The weights lie in the span of the rows, so that
    with n < d all fits see n coordinates instead of d.
    """
    basis = None
    if len(X) < X.shape[1]:
        basis, coordinates = np.linalg.qr(X.T)  # (d, n), (n, n)
        X = np.ascontiguousarray(coordinates.T)
    search = GridSearchCV(L2SVM(), {"C": list(PENALTIES)}, cv=KFold(FOLDS))
    svm = search.fit(X, y).best_estimator_
    if basis is not None:
        svm.coef_ = svm.coef_ @ basis.T
    return svm


def classify(
    train: Images,
    test: Images,
    sizes: Sequence[int],
    *,
    representations: Sequence[str] = (WHITENED, "conv1", "conv2", "conv1&2"),
    n_codes: int = 1600,
    n_patches: int = 40_000,
    size: int = PATCH,
    network: PatchEmbedding | None = None,
    random_state: int = 0,
    device: str = "auto",
) -> list[dict[str, Any]]:
    """Accuracy on test images for several numbers of labelled training images (paper 002, Table 8).

    train, test: `Images` with labels; sizes: numbers of training images, each set a part of the next
    larger; representations: "whitened" for a codebook of the whitened patches, or layers of the patch CNN
    (`patch_network.LAYERS`), which then must be given as `network`. Patches and codebook come from all
    training images, without labels, whatever the size. The SVM's C is chosen on the labelled images
    (`choose_svm`): what suits 50,000 of them fits the noise of few.

    Returns a dict for each representation and size: `representation`, `n_train`, `C`, `accuracy` in
    [0, 1], `predicted` (n_test,), `seconds` by step, shared steps in each.
    Raises ValueError for unknown representations, a missing network, sizes out of range and images
    without labels.
    """
    for name in representations:
        if name not in REPRESENTATIONS:
            raise unknown_name("representation", name, REPRESENTATIONS)
        if name in LAYERS and network is None:
            raise ValueError(f"{name!r} is a layer of the patch CNN: pass the network")
    _check_images(train, test, sizes)
    order = np.random.default_rng(random_state).permutation(train.n)[: max(sizes)]
    labelled = train.take(order)
    shape = (train.shape[1], size, size)
    shared: dict[str, float] = {}
    with sealed_labels(), _step(shared, "whitening"):
        whitening, patches = whitened_patches(
            train, n_patches, size=size, random_state=random_state
        )
    rows = []
    for name in representations:
        represent = layer_representation(network, name, shape) if name in LAYERS else None
        seconds = dict(shared)
        with sealed_labels(), _step(seconds, "codebook"):
            vectors = patches
            if represent:
                vectors = torch.cat([represent(part) for part in patches.split(PATCH_ROWS)])
            codes = learn_codebook(vectors, n_codes, random_state=random_state)
        with _step(seconds, "encoding"):
            features, unseen = (
                encode(images, whitening, codes, size=size, represent=represent, device=device)
                for images in (labelled, test)
            )  # (n, 4 n_codes)
        for n_train in sizes:
            with _step(seconds, "svm"):
                first, second = standardise(features[:n_train], unseen)
                svm = choose_svm(first, labelled.labels[:n_train])
                predicted = svm.predict(second)
            rows.append(
                {
                    "representation": name,
                    "n_train": int(n_train),
                    "C": svm.C,
                    "accuracy": float(np.mean(predicted == test.labels)),
                    "predicted": predicted,
                    "seconds": dict(seconds),
                }
            )
    return rows


def _check_images(train: Images, test: Images, sizes: Sequence[int]) -> None:
    for role, images in (("training", train), ("test", test)):
        if images.labels is None:
            raise ValueError(f"the {role} images {images.name!r} have no labels to classify by")
    if train.shape[1:] != test.shape[1:]:
        raise ValueError(
            f"training and test images differ in shape: {train.shape[1:]} and {test.shape[1:]}"
        )
    if not sizes or min(sizes) < MIN_SIZE or max(sizes) > train.n:
        raise ValueError(
            f"sizes must be from {MIN_SIZE} to the {train.n} training images, got {list(sizes)}"
        )


@contextmanager
def _step(seconds: dict[str, float], name: str) -> Iterator[None]:
    began = time.perf_counter()
    yield
    seconds[name] = time.perf_counter() - began
