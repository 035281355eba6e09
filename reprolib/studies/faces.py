"""Are two faces the same person's? Paper 002, Table 7, by the restricted protocol of LFW (Huang et al. 2007)."""

import copy
import os
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from scipy.stats import sem
from sklearn.base import clone
from sklearn.preprocessing import normalize
from torch import nn
from torch.nn import functional as F

from reprolib.data.images import Images, as_pixels, sealed_labels, to_float_images
from reprolib.methods.jule import JULE, decay_rate
from reprolib.networks.embedding import ConvEmbedding, embed
from reprolib.training.trainer import Run, Stage

FOLDS = 10
FACE = 125  # pixels a side that are cut from the middle of LFW's 250x250


class Verification(NamedTuple):
    """Accuracy over the folds, its standard error, and of each fold the accuracy and threshold."""

    accuracy: float
    standard_error: float
    fold_accuracies: np.ndarray  # (folds,)
    thresholds: np.ndarray  # (folds,)


class FacePairs(NamedTuple):
    """Pairs of images: uint8 (n, c, h, w) each, whether they show one person, and their folds."""

    first: np.ndarray
    second: np.ndarray
    same: np.ndarray  # bool (n,)
    folds: np.ndarray  # int (n,)


def cosine_similarity(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Cosine float64 (n,) of each row of one array (n, d) with that of the other; 0 for a row of zeros.

    Raises ValueError for shapes that differ or values that are not finite.
    """
    if np.shape(first) != np.shape(second):
        raise ValueError(
            f"features of pairs must be two arrays of one shape (n, d); got {np.shape(first)} and {np.shape(second)}"
        )
    first, second = (normalize(np.asarray(rows, np.float64)) for rows in (first, second))
    return np.einsum("nd,nd->n", first, second)


def best_threshold(scores: np.ndarray, same: np.ndarray) -> float:
    """Threshold of the highest accuracy when pairs with a score above it are called the same.

    scores: float (n,), same: bool (n,). The lowest of equally good ones, between neighbouring scores or beyond.
    """
    order = np.argsort(scores, kind="stable")
    ranked, truth = scores[order], same[order]
    # correct when the k lowest scores are called different, the others the same
    correct = truth.sum() + np.concatenate([[0], np.cumsum(np.where(truth, -1, 1))])
    cuts = np.concatenate([[-np.inf], (ranked[1:] + ranked[:-1]) / 2, [np.inf]])
    possible = np.concatenate([[True], ranked[1:] > ranked[:-1], [True]])
    return float(cuts[np.where(possible, correct, -1).argmax()])


def verify(scores: np.ndarray, same: np.ndarray, folds: np.ndarray) -> Verification:
    """Cross-validated accuracy of "score above the threshold" (paper 002, Table 7).

    scores: float (n,), higher for more alike; same: bool (n,); folds: ids (n,). Each fold is judged by the
    threshold that is best on the others; mean and standard error are over folds (Huang et al. 2007). Raises
    ValueError for lengths that differ, fewer than two folds, scores that are not finite, other values of same.
    """
    scores, same, folds = np.asarray(scores, np.float64), np.asarray(same), np.asarray(folds)
    if not (scores.ndim == 1 and scores.shape == same.shape == folds.shape):
        raise ValueError(
            f"scores, same and folds must be of one length; got shapes {scores.shape}, {same.shape} and {folds.shape}"
        )
    if not np.isfinite(scores).all():
        raise ValueError("scores must be finite")
    if not np.isin(same, (0, 1)).all():
        raise ValueError("same must hold True for pairs of one person and False for others")
    same, ids = same.astype(bool), np.unique(folds)
    if len(ids) < 2:
        raise ValueError(f"at least two folds are needed, got {len(ids)}")
    thresholds = np.array([best_threshold(scores[folds != k], same[folds != k]) for k in ids])
    right = (scores > thresholds[np.searchsorted(ids, folds)]) == same  # (n,)
    accuracies = np.array([right[folds == k].mean() for k in ids])
    return Verification(accuracies.mean(), sem(accuracies), accuracies, thresholds)


def load_lfw_pairs(folder: str | os.PathLike, size: int) -> FacePairs:
    """LFW's 6,000 pairs in 10 folds, colour, cut from the middle and resized to size x size.

    folder: scikit-learn's data home with `lfw_home`, as `sklearn.datasets.fetch_lfw_pairs` leaves it.
    Nothing is downloaded: raises FileNotFoundError where it is not there.
    """
    from sklearn.datasets import fetch_lfw_pairs

    middle = slice((250 - FACE) // 2, (250 - FACE) // 2 + FACE)
    try:
        found = fetch_lfw_pairs(
            subset="10_folds",
            data_home=folder,
            color=True,
            slice_=(middle, middle),
            resize=(size + 0.5) / FACE,  # it takes the whole part
            download_if_missing=False,
        )
    except OSError as error:
        raise FileNotFoundError(
            f"LFW is not in {folder} ({error}). With a network, "
            f"sklearn.datasets.fetch_lfw_pairs(subset='10_folds', data_home={os.fspath(folder)!r}) gets it."
        ) from error
    faces = (255 * found.pairs).round().astype(np.uint8).transpose(0, 1, 4, 2, 3)  # (n, 2, 3, h, w)
    n = len(faces)
    return FacePairs(faces[:, 0], faces[:, 1], found.target == 1, np.arange(n) * FOLDS // n)


def fine_tune(network: ConvEmbedding, images: Any, labels: np.ndarray, model: JULE) -> ConvEmbedding:
    """Train a copy of a network with a softmax layer in the place of the L2 normalisation.

    images: as `JULE.fit` takes them; labels: int (n,), predicted clusters or true classes; model: its epochs,
    batches, rate and seed are used, since paper 002, section 4.2.2, gives none for this step. The softmax
    layer is dropped at the end. Raises ValueError for labels that do not fit.
    """
    pixels = as_pixels(images)
    classes, numbers = np.unique(np.asarray(labels), return_inverse=True)
    if numbers.shape != (len(pixels),) or len(classes) < 2:
        raise ValueError(
            f"labels must hold one of at least two classes an image, ({len(pixels)},); "
            f"got shape {np.shape(labels)} and {len(classes)} classes"
        )
    run = Run(model, to_float_images(pixels))
    run.train([FineTune(run, network, numbers)])
    return run.modules["network"].eval()


class FineTune(Stage):
    """Cross-entropy of a softmax layer on top of the inner product layer (paper 002, section 4.2.2)."""

    name, report_every = "fine-tuning", 0

    def __init__(self, run: Run, network: ConvEmbedding, labels: np.ndarray) -> None:
        super().__init__(run, run.model.n_epochs)
        self.network = network
        self.labels = torch.from_numpy(labels).to(run.device)

    def build(self) -> None:
        run, model = self.run, self.model
        network = run.module("network", copy.deepcopy(self.network))
        head = nn.Linear(network.inner_product.out_features, int(self.labels.max()) + 1)
        nn.init.normal_(head.weight, 0.0, 0.01, generator=run.generator)
        nn.init.zeros_(head.bias)
        weights = [*network.parameters(), *run.module("head", head).parameters()]
        options = {"momentum": model.momentum, "weight_decay": model.weight_decay}
        run.optimizers = {"sgd": run.sgd(weights, **options)}
        run.numbers["step"] = 0

    def schedule(self) -> None:
        decay_rate(self.run)

    def step(self, batch: torch.Tensor) -> dict[str, torch.Tensor]:
        run = self.run
        features = run.modules["network"].features(run.batch(batch))[-1]
        logits = run.modules["head"](features)  # (b, classes)
        loss = F.cross_entropy(logits, self.labels[batch.to(run.device)])
        run.descend("sgd", loss)
        return {"loss": loss.detach()}


def verify_faces(train: Images, pairs: FacePairs, sizes: Sequence[int], model: JULE) -> list[dict[str, Any]]:
    """Verification by JULE's features and by supervised ones of the same CNN (paper 002, Table 7).

    train: faces with labels; sizes: numbers of training images drawn at random, each set a part of the next
    larger; model: an unfitted `JULE`, n_clusters the number of people. "OURS" is fine-tuned on the clusters
    that JULE predicts, "Supervised" trained alike on the true labels. Returns a dict for each row and size:
    `row`, `n_train`, `scores` (n_pairs,) and what `Verification` holds. Raises ValueError for sizes out of
    range, images without labels and pairs of another shape.
    """
    if train.labels is None:
        raise ValueError(f"the images {train.name!r} have no labels for the supervised row")
    if pairs.first.shape[1:] != train.shape[1:] or pairs.first.shape != pairs.second.shape:
        raise ValueError(
            f"pairs of shapes {pairs.first.shape} and {pairs.second.shape} do not fit training images "
            f"of shape {train.shape[1:]}: load both with one size"
        )
    if not sizes or min(sizes) < 2 or max(sizes) > train.n:
        raise ValueError(f"sizes must be from 2 to the {train.n} training images, got {list(sizes)}")
    order = np.random.default_rng(model.random_state).permutation(train.n)
    rows = []
    for n_train in sizes:
        drawn = train.take(order[:n_train])
        for row in ("Supervised", "OURS"):
            if row == "OURS":
                with sealed_labels():
                    fitted = clone(model).fit(drawn)
                start, labels = fitted.network_, fitted.labels_
            else:
                sizes_of = model.embedding_dim, model.channels, model.scale_init
                generator = torch.Generator().manual_seed(model.random_state)
                start = ConvEmbedding(drawn.shape[1:], *sizes_of, generator)
                labels = drawn.labels
            network = fine_tune(start, drawn, labels, model)
            first, second = (embed(network, to_float_images(images)) for images in pairs[:2])
            scores = cosine_similarity(first, second)
            result = verify(scores, pairs.same, pairs.folds)._asdict()
            rows.append({"row": row, "n_train": int(n_train), "scores": scores} | result)
    return rows
