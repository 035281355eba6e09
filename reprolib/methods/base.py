"""What the estimators share: input without labels, and the join of clusters that no edge connects."""

import warnings

import numpy as np
from scipy.cluster.hierarchy import fcluster, linkage
from sklearn.metrics import pairwise_distances_argmin
from sklearn.preprocessing import normalize

from reprolib.images import as_features


class DisconnectedGraphWarning(UserWarning):
    """The graph fell apart into more components than clusters were asked for."""


def unit_rows(X: object) -> np.ndarray:
    """Float32 features (n, d) of unit length, from images (flattened pixels) or features.

    Paper 002, section 4.1.3 normalises the image intensities so for every algorithm.
    """
    return normalize(as_features(X)).astype(np.float32, copy=False)


def check_counts(n: int, n_clusters: int, n_neighbors: int) -> None:
    """ValueError when `n` samples cannot have `n_clusters` clusters or `n_neighbors` neighbours."""
    if n_clusters < 1:
        raise ValueError(f"n_clusters must be at least 1, got {n_clusters}")
    if n_clusters > n:
        raise ValueError(f"n_clusters={n_clusters} is more than the {n} images: ask for fewer")
    if n_neighbors < 1:
        raise ValueError(f"n_neighbors must be at least 1, got {n_neighbors}")
    if n_neighbors >= n:
        raise ValueError(
            f"n_neighbors={n_neighbors} needs at least {n_neighbors + 1} images, got {n}: "
            f"lower n_neighbors to {n - 1} or less, or add images"
        )


def cluster_means(features: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Mean feature vector of each cluster, float64 (c, d), of features (n, d) and labels 0..c-1."""
    counts = np.bincount(labels)
    sums = np.zeros((len(counts), features.shape[1]))
    np.add.at(sums, labels, features)
    return sums / counts[:, None]


def join_isolated(features: np.ndarray, labels: np.ndarray, isolated: np.ndarray) -> np.ndarray:
    """Join each isolated cluster to the one with the nearest mean among the others.

    `features` (n, d), `labels` int (n,) in 0..c-1, `isolated` bool (c,) as from `isolated_clusters`.
    Returns int32 (n,) labels without gaps; unchanged when no or every cluster is isolated. JULE.torch
    does this before it merges; paper 002 does not mention it.
    """
    if not isolated.any() or isolated.all():
        return labels
    means = cluster_means(features, labels)
    kept = np.flatnonzero(~isolated)
    target = np.arange(len(isolated))
    target[isolated] = kept[pairwise_distances_argmin(means[isolated], means[kept])]
    return np.unique(target[labels], return_inverse=True)[1].astype(np.int32)


def join_disconnected(features: np.ndarray, labels: np.ndarray, n_clusters: int) -> np.ndarray:
    """Join clusters by average linkage of their means until `n_clusters` remain, with a warning.

    Called when no edge is left between clusters, so that the affinity is zero for all. `features`
    (n, d), `labels` int32 (n,). The papers say nothing here; JULE.torch also turns to mean features.
    """
    n_found = int(labels.max()) + 1
    if n_found <= n_clusters:
        return labels
    warnings.warn(
        f"the k-NN graph has {n_found} parts that no edges join, but {n_clusters} clusters were asked "
        "for: the rest was joined by the distance of their means. Raise n_neighbors for a connected graph",
        DisconnectedGraphWarning,
        stacklevel=3,
    )
    tree = linkage(cluster_means(features, labels), "average")
    return (fcluster(tree, n_clusters, "maxclust") - 1).astype(np.int32)[labels]
