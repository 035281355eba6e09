"""A linear SVM on pooled codes (`reprolib.studies.codes`) at several numbers of labelled images: paper 002, Table 8."""

import hashlib
import json
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import torch
from scipy.optimize import minimize
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.model_selection import GridSearchCV, KFold

from reprolib.checks import check_name
from reprolib.data.images import Images, check_features, sealed_labels
from reprolib.data.load import load
from reprolib.methods.jule import JULE
from reprolib.studies.codes import PATCH, encode, learn_codebook, whitened_patches
from reprolib.studies.patch_network import LAYERS, PatchEmbedding, layer_representation, learn_patch_network
from reprolib.training.checkpoint import load_checkpoint, save_checkpoint

WHITENED = "whitened"  # the patches themselves: the column "K-means" of Table 8
REPRESENTATIONS = (WHITENED, *LAYERS)
PATCH_ROWS = 4096  # patches in the CNN at a time
MAX_STEPS = 1000  # of L-BFGS, as in the released code of Coates et al.
TOLERANCE = 1e-6  # of the loss, relative: what float32 resolves
PENALTIES = (0.01, 0.1, 1.0, 10.0, 100.0)  # up to the released code's, which is for 50,000 images
FOLDS = 3
MIN_SIZE = 10  # labelled images
SIZES = [5000, 10_000, 25_000, 50_000]  # of Table 8
# random, as in JULE.torch: with the nearest, which the text asks for, the embedding of patches collapses
NETWORK = {"negatives": "random", "n_negatives": 20}


class L2SVM(ClassifierMixin, BaseEstimator):
    """One linear SVM a class with squared hinge, by L-BFGS on the primal.

    Minimises |w|^2 / 2 + C * mean of max(0, 1 - margin)^2 for every class, the bias an entry of w on a constant 1, as
    the released code of Coates, Ng and Lee (2011), and `LinearSVC(C=C / n)`, which is slow on dense features by the
    thousand. After `fit`: `classes_`, `coef_` float32 (classes, d), `intercept_` float32 (classes,).
    """

    def __init__(self, C: float = 100.0) -> None:
        self.C = C

    def fit(self, X: Any, y: Any) -> Self:
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

    def predict(self, X: Any) -> np.ndarray:
        """Class of the largest signed distance, up to scale (n,)."""
        values = check_features(X, min_samples=1) @ self.coef_.T + self.intercept_  # (n, classes)
        return self.classes_[values.argmax(1)]


def standardise(train: np.ndarray, test: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Shift and scale float32 features (n, d) and (m, d) by the mean and deviation of the first.

    The deviation is sqrt(variance + 0.01), as in the released code of Coates, Ng and Lee (2011).
    """
    mean = train.mean(0, dtype=np.float64).astype(np.float32)
    deviation = np.sqrt(train.var(0, ddof=1, dtype=np.float64) + 0.01).astype(np.float32)
    return (train - mean) / deviation, (test - mean) / deviation


def choose_svm(X: np.ndarray, y: np.ndarray) -> L2SVM:
    """`L2SVM` on float32 features (n, d) and labels (n,), rows in random order, with the best of PENALTIES.

    The accuracy of 3-fold cross-validation decides, the smaller penalty in a tie. The weights lie in the span of the
    rows, so that with n < d all fits see n coordinates instead of d.
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
    unseen: Images,
    sizes: Sequence[int],
    *,
    representation: str = WHITENED,
    n_codes: int = 1600,
    n_patches: int = 40_000,
    network: PatchEmbedding | None = None,
    random_state: int = 0,
    device: str = "auto",
) -> list[dict[str, Any]]:
    """Predict the classes of unseen images from several numbers of labelled ones (paper 002, Table 8).

    train: `Images` with labels; sizes: numbers of them, each set a part of the next larger; representation: "whitened"
    for a codebook of the whitened patches, or a layer of the patch CNN (`patch_network.LAYERS`), given as `network`.
    Patches and codebook come from all of `train`, the SVM's C from the labelled images. Returns a dict a size:
    `representation`, `n_train`, `C`, `predicted` (n_unseen,), `seconds` by step. Raises ValueError for an unknown
    representation, a missing network, sizes out of range, images without labels and shapes that differ.
    """
    check_name("representation", representation, REPRESENTATIONS)
    if representation in LAYERS and network is None:
        raise ValueError(f"{representation!r} is a layer of the patch CNN: pass the network")
    if train.labels is None:
        raise ValueError(f"the images {train.name!r} have no labels to classify by")
    if train.shape[1:] != unseen.shape[1:]:
        raise ValueError(f"labelled and unseen images differ in shape: {train.shape[1:]} and {unseen.shape[1:]}")
    if not sizes or min(sizes) < MIN_SIZE or max(sizes) > train.n:
        raise ValueError(f"sizes must be from {MIN_SIZE} to the {train.n} training images, got {list(sizes)}")
    order = np.random.default_rng(random_state).permutation(train.n)[: max(sizes)]
    labelled, labels = train.take(order), train.labels[order]
    shape = (train.shape[1], PATCH, PATCH)
    represent = layer_representation(network, representation, shape) if network else None
    seconds: dict[str, float] = {}
    rows = []
    with sealed_labels():
        with _step(seconds, "whitening"):
            whitening, patches = whitened_patches(train, n_patches, random_state=random_state)
        with _step(seconds, "codebook"):
            parts = patches.split(PATCH_ROWS)
            vectors = torch.cat([represent(p) for p in parts]) if represent else patches
            codes = learn_codebook(vectors, n_codes, random_state=random_state)
        with _step(seconds, "encoding"):
            features, others = (
                encode(images, whitening, codes, represent=represent, device=device) for images in (labelled, unseen)
            )  # (n, 4 n_codes)
        for n_train in sizes:
            with _step(seconds, "svm"):
                first, second = standardise(features[:n_train], others)
                svm = choose_svm(first, labels[:n_train])
                predicted = svm.predict(second)
            row = {"representation": representation, "n_train": int(n_train), "C": svm.C}
            rows.append(row | {"predicted": predicted, "seconds": dict(seconds)})
    return rows


class PatchCodes(BaseEstimator):
    """`classify` as an experiment: the classes of images, from the labelled images of a data set `train`.

    `n_clusters` and `network` are parameters of the JULE that learns the CNN of patches. After `fit`: `results_`, the
    predicted class of each image for each number of labelled ones, as in {"n625": int32 (n,)}, and `history_`, a row a
    step.
    """

    VARIANTS: ClassVar[dict[str, dict[str, Any]]] = {"paper": {}}
    trains = True
    task = "classification"
    behaviours = ("codes", "JULE/paper")

    def __init__(
        self,
        n_clusters: int = 10,
        *,
        train: str = "",
        sizes: list[int] = SIZES,
        representation: str = WHITENED,
        n_codes: int = 1600,
        n_patches: int = 40_000,
        network: dict[str, Any] = NETWORK,
        random_state: int = 0,
        device: str = "auto",
    ) -> None:
        self.n_clusters, self.network = n_clusters, network
        self.train, self.sizes, self.representation = train, sizes, representation
        self.n_codes, self.n_patches = n_codes, n_patches
        self.random_state, self.device = random_state, device

    def fit(self, X: Images, *, monitor: Any = None, checkpoint: Any = None, shared: Any = None) -> Self:
        """Learn from `train`, and predict the classes of X.

        shared: folder where a CNN of the same patches is found, or left. Raises ValueError as `classify` and without a
        `train`.
        """
        if not self.train:
            raise ValueError("name the data set of labelled images, as in train='cifar10-train'")
        train, network, learned = load(self.train), None, []
        if self.representation != WHITENED:
            network, about = self._patch_network(train, shared)
            learned = [{"stage": "network"} | about]
        names = ("representation", "n_codes", "n_patches", "random_state", "device")
        options = {name: getattr(self, name) for name in names}
        rows = classify(train, X, self.sizes, network=network, **options)
        about = {"name": self.train, "n": train.n, "shape": train.shape, "sha256": train.sha256}
        told = [("whitening", rows[0], {"train": about})]
        told += [(step, rows[0], {}) for step in ("codebook", "encoding")]
        told += [("svm", row, {k: row[k] for k in ("n_train", "C")}) for row in rows]
        steps = [{"stage": s, "seconds": row["seconds"][s]} | more for s, row, more in told]
        self.history_ = learned + steps
        self.results_ = {f"n{r['n_train']}": r["predicted"].astype(np.int32) for r in rows}
        return self

    def _patch_network(self, train: Images, shared: Any) -> tuple[PatchEmbedding, dict[str, Any]]:
        """The CNN of patches, with `seconds` and the mean `losses` of its epochs: found, or learned."""
        seed = {"n_clusters": self.n_clusters, "random_state": self.random_state}
        model = JULE(**self.network, **seed, device=self.device, verbose=True)
        setting = [train.sha256, self.n_patches, self.network | seed]
        key = hashlib.sha256(json.dumps(setting, sort_keys=True).encode()).hexdigest()[:16]
        path = Path(shared) / f"patches-{key}.safetensors" if shared else None
        shape = (train.shape[1], PATCH, PATCH)
        if path and path.exists():
            tensors, state = load_checkpoint(path)
            network = PatchEmbedding(shape, model.embedding_dim, model.channels)
            network.load_state_dict(tensors)
            return network.eval(), state["about"]
        began = time.perf_counter()
        _, patches = whitened_patches(train, self.n_patches, random_state=self.random_state)
        network, epochs = learn_patch_network(patches.view(-1, *shape).numpy(), model)
        losses = [round(epoch["loss"], 5) for epoch in epochs]
        about = {"seconds": round(time.perf_counter() - began, 3), "losses": losses}
        if path:
            save_checkpoint(path, network.state_dict(), {"about": about})
        return network, about


@contextmanager
def _step(seconds: dict[str, float], name: str) -> Iterator[None]:
    began = time.perf_counter()
    yield
    seconds[name] = time.perf_counter() - began
