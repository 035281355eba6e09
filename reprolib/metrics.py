"""The one evaluation protocol: every score in the book is computed by a function of this file.

All functions take `y`, the true classes, and `labels`, the clusters: two 1-D integer sequences of the same length with
any ids >= 0. None depends on how clusters or classes are numbered. Page: book/foundations/evaluation.md.
"""

from typing import Any

import numpy as np

from reprolib.checks import check_name

AVERAGES = ("geometric", "arithmetic", "max")  # means of the two entropies by which NMI divides


def _pair(y: Any, labels: Any) -> list[np.ndarray]:
    """Check both sides: integers (n,), none negative."""
    pair = [np.asarray(y), np.asarray(labels)]
    for what, array in zip(("y (the true classes)", "labels (the clusters)"), pair, strict=True):
        if array.ndim != 1 or not array.size:
            raise ValueError(
                f"{what} must be 1-D, one integer a sample, and not empty; got shape {array.shape}. For probabilities "
                "or one-hot rows take argmax(axis=1) first."
            )
        if array.dtype.kind not in "iu":
            raise TypeError(
                f"{what} must hold integers; got dtype {array.dtype}. Convert with .astype(int) if the values are "
                "whole numbers, or with numpy.unique(..., return_inverse=True)."
            )
        if array.min() < 0:
            raise ValueError(
                f"{what} holds the negative id {array.min()}, which usually marks noise or a missing label: drop those "
                "samples, or give them an id of their own, and say which in the report."
            )
    if len(pair[0]) != len(pair[1]):
        sizes = f"y has {len(pair[0])} samples and labels has {len(pair[1])}"
        raise ValueError(f"{sizes}; they must describe the same samples in the same order.")
    return pair


def confusion(y: Any, labels: Any) -> np.ndarray:
    """Samples of each class in each cluster: int64 (n_classes, n_clusters), both in ascending order.

    >>> confusion([0, 0, 1, 1, 2], [7, 7, 7, 3, 3])
    array([[0, 2],
           [1, 1],
           [1, 0]])
    """
    ids, places = zip(*(np.unique(a, return_inverse=True) for a in _pair(y, labels)), strict=True)
    table = np.zeros([len(values) for values in ids], dtype=np.int64)
    np.add.at(table, places, 1)
    return table


def _assigned(table: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows and columns of the best one-to-one map (Hungarian method)."""
    from scipy.optimize import linear_sum_assignment  # who only reads records does not wait

    return linear_sum_assignment(table, maximize=True)


def match(y: Any, labels: Any) -> dict[int, int]:
    """Map cluster ids to class ids, one to one, so that most samples agree; clusters may be left over.

    >>> match([0, 0, 0, 1, 1, 1], [5, 5, 9, 9, 9, 2])
    {5: 0, 9: 1}
    """
    classes, clusters = (np.unique(ids) for ids in _pair(y, labels))
    rows, columns = _assigned(confusion(y, labels))
    return {int(clusters[c]): int(classes[r]) for c, r in sorted(zip(columns, rows, strict=True))}


def accuracy(y: Any, labels: Any) -> float:
    """Clustering accuracy ACC in [0, 1]: agreement under the best one-to-one map to classes.

    Any number of clusters: samples of clusters that get no class count as wrong.

    >>> accuracy([0, 0, 0, 1, 1, 1], [1, 1, 0, 0, 0, 0])
    0.8333333333333334
    """
    table = confusion(y, labels)
    return float(table[_assigned(table)].sum() / table.sum())


def purity(y: Any, labels: Any) -> float:
    """Purity in [0, 1]: agreement when each cluster takes its most frequent class (many to one).

    Never below `accuracy`, and 1 when every sample is its own cluster.

    >>> purity([0, 0, 0, 1, 1, 1], [0, 0, 1, 1, 2, 3])
    0.8333333333333334
    """
    table = confusion(y, labels)
    return float(table.max(axis=0).sum() / table.sum())


def nmi(y: Any, labels: Any, average: str = "geometric") -> float:
    """Normalised mutual information in [0, 1]: I(y; labels) divided by a mean of the two entropies.

    average: "geometric" (JULE), "arithmetic" (SCAN's scikit-learn) or "max" (DCSS). A partition into one block carries
    no information and scores 0, or 1 when both sides are one block. Raises ValueError for an unknown average.

    >>> y, labels = [0, 0, 0, 1, 1, 1], [0, 0, 1, 1, 2, 2]
    >>> [round(nmi(y, labels, average=a), 4) for a in AVERAGES]
    [0.5295, 0.5158, 0.4206]
    """
    check_name("NMI average", average, AVERAGES)
    from sklearn.metrics import normalized_mutual_info_score

    score = normalized_mutual_info_score(*_pair(y, labels), average_method=average)
    return float(np.clip(score, 0.0, 1.0))


def ari(y: Any, labels: Any) -> float:
    """Adjusted Rand index, at most 1: agreement over pairs, 0 on average for random labels.

    >>> round(ari([0, 0, 0, 1, 1, 1], [0, 0, 1, 1, 2, 2]), 4)
    0.2424
    """
    from sklearn.metrics import adjusted_rand_score

    return float(adjusted_rand_score(*_pair(y, labels)))


def summary(y: Any, labels: Any) -> dict[str, float]:
    """Compute what every run record stores: ACC, NMI under its three normalisers, ARI and purity.

    >>> scores = summary([0, 0, 1, 1], [1, 1, 0, 0])
    >>> list(scores), set(scores.values())
    (['acc', 'nmi_geometric', 'nmi_arithmetic', 'nmi_max', 'ari', 'purity'], {1.0})
    """
    means = {f"nmi_{average}": nmi(y, labels, average=average) for average in AVERAGES}
    return {"acc": accuracy(y, labels)} | means | {"ari": ari(y, labels), "purity": purity(y, labels)}


def batch_means(y: Any, labels: Any, size: int = 100) -> dict[str, float]:
    """Average the scores of `summary` over batches of `size` samples in the given order, as paper 003 is evaluated.

    Each batch has its own map of clusters to classes, so ACC and purity are never below those of `summary`; what the
    released code calls accuracy is "purity". It leaves out its loader: that of WGAN-GP, by the same name, shuffles the
    samples before each pass, so shuffle those of a sorted data set first. A last batch of fewer samples counts by its
    number; the released code has none. Raises ValueError for a size below 1.

    >>> batch_means([0, 1, 1, 0], [0, 1, 0, 1], size=2)["acc"], accuracy([0, 1, 1, 0], [0, 1, 0, 1])
    (1.0, 0.5)
    """
    y, labels = _pair(y, labels)
    if size < 1:
        raise ValueError(f"size must be at least 1 sample a batch; got {size}.")
    starts = range(0, len(y), size)
    found = [summary(y[i : i + size], labels[i : i + size]) for i in starts]
    weights = [min(size, len(y) - i) for i in starts]
    return {name: float(np.average([scores[name] for scores in found], weights=weights)) for name in found[0]}
