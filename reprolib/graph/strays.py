"""Clusters that hardly any affinity reaches: joined before the merges, or left over after them.

The affinity of graph degree linkage counts edges that go both ways. A few images far from all others point at some
cluster, but little or nothing points back: they outlive real clusters, and each that is left costs two real clusters a
merge.
"""

import warnings
from typing import Any

import numpy as np
from scipy.cluster.hierarchy import fcluster, linkage
from sklearn.metrics import pairwise_distances_argmin

from reprolib.checks import check_name
from reprolib.graph.digraph import Digraph
from reprolib.graph.linkage import Linkage, affinities, graph_degree_linkage

STRAY_RULES = ("leftover", "isolated", "never")
LEFTOVER_BELOW = 20  # a leftover is this many times smaller than the average cluster
ISOLATED_ABOVE = 20  # JULE.torch joins isolated clusters while there are more than this many times the target


class DisconnectedGraphWarning(UserWarning):
    """The graph fell apart into more components than clusters were asked for."""


def cluster_means(features: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Mean feature vector of each cluster, float64 (c, d), of features (n, d) and labels 0..c-1."""
    counts = np.bincount(labels)
    sums = np.zeros((len(counts), features.shape[1]))
    np.add.at(sums, labels, features)
    return sums / counts[:, None]


def join_strays(features: np.ndarray, labels: np.ndarray, strays: np.ndarray, n_kept: int) -> np.ndarray:
    """Join each stray cluster to the one with the nearest mean among the others.

    `features` (n, d), `labels` int (n,) in 0..c-1, `strays` int (m,) ids, of which the first are taken while at least
    `n_kept` clusters stay. Returns labels without gaps, or unchanged if none is joined.
    """
    n_found = int(labels.max()) + 1
    strays = strays[: max(n_found - max(n_kept, 1), 0)]
    if len(strays) == 0:
        return labels
    means, target = cluster_means(features, labels), np.arange(n_found)
    kept = np.delete(target, strays)
    target[strays] = kept[pairwise_distances_argmin(means[strays], means[kept])]
    return np.unique(target[labels], return_inverse=True)[1].astype(np.int32)


def leftovers(merged: np.ndarray, labels: np.ndarray, n_neighbors: int) -> np.ndarray:
    """Ids in `labels` of the clusters that make up the leftovers of `merged`, smallest first: int (m,).

    `labels` int (n,) before the merges, `merged` int (n,) after them. A leftover has at most K_s = `n_neighbors`
    images, so that each has neighbours outside, and less than a twentieth of the average.
    """
    size = np.bincount(merged)
    small = (size <= n_neighbors) & (size * LEFTOVER_BELOW < size.mean())
    owner = np.empty(int(labels.max()) + 1, np.int64)
    owner[labels] = merged
    ids = np.flatnonzero(small[owner])
    return ids[np.argsort(size[owner[ids]], kind="stable")]


def linkage_without_strays(
    features: np.ndarray,
    digraph: Digraph,
    labels: np.ndarray,
    target: int,
    *,
    rule: str,
    n_clusters: int,
    **options: Any,
) -> Linkage:
    """Graph degree linkage of `labels` down to `target` clusters, with strays joined to nearest means.

    `rule` "leftover": merge, join what was left over (`leftovers`) before the merges, and merge again until nothing
    is. "isolated": before the merges join every cluster without any affinity, while there are more than 20 times the
    final `n_clusters`, as JULE.torch does. "never", as paper 002: none. `features` (n, d) for the means; `options`
    of `graph_degree_linkage`. The merges count joined clusters.
    """
    check_name("strays", rule, STRAY_RULES)
    if rule == "isolated" and int(labels.max()) + 1 > ISOLATED_ABOVE * n_clusters:
        isolated = np.flatnonzero(affinities(digraph, labels).sum(axis=1) == 0.0)
        labels = join_strays(features, labels, isolated, target)
    while True:
        result = graph_degree_linkage(digraph, labels, target, **options)
        if rule != "leftover" or int(labels.max()) + 1 <= target:
            return result
        found = leftovers(result.labels, labels, digraph.indices.shape[1])
        if len(found) == 0:
            return result
        labels = join_strays(features, labels, found, target)


def join_disconnected(features: np.ndarray, labels: np.ndarray, n_clusters: int) -> np.ndarray:
    """Join clusters by average linkage of their means until `n_clusters` remain, with a warning.

    Called when no edge is left between clusters, so that the affinity is zero for all. `features` (n, d), `labels`
    int32 (n,). The papers say nothing here; JULE.torch also turns to mean features.
    """
    n_found = int(labels.max()) + 1
    if n_found <= n_clusters:
        return labels
    warnings.warn(
        f"the k-NN graph has {n_found} parts that no edges join, but {n_clusters} clusters were asked "
        "for: the rest was joined by the distance of their means. Raise n_neighbors for a connected graph",
        DisconnectedGraphWarning,
        stacklevel=4,
    )
    tree = linkage(cluster_means(features, labels), "average")
    return (fcluster(tree, n_clusters, "maxclust") - 1).astype(np.int32)[labels]
