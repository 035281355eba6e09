"""What can be said of a partition without labels: how it cuts the k-NN graph, how tight and how stable it is."""

from collections.abc import Callable

import numpy as np
from scipy import sparse
from sklearn.metrics import adjusted_rand_score, silhouette_score

from reprolib.graph.digraph import Digraph
from reprolib.graph.strays import cluster_means

SHARE, DRAWS = 0.8, 3  # of the samples in each of so many draws, for the stability
SAMPLE = 2000  # samples of the silhouette


def cuts(digraph: Digraph, labels: np.ndarray) -> tuple[float, float]:
    """Modularity and mean conductance of labels int (n,) in 0..c-1 on a k-NN digraph, its edges taken both ways.

    Modularity (Newman and Girvan 2004): the share of edge weight within clusters less that of a random graph of the
    same degrees, higher is better. Conductance: the share of a cluster's weight that leaves it, lower is better.
    """
    n = len(labels)
    member = sparse.csr_array((np.ones(n), labels, np.arange(n + 1)))  # (n, c)
    directed = digraph.to_csr()
    between = (member.T @ (directed + directed.T) @ member).toarray()  # (c, c)
    within, degree = np.diag(between) / between.sum(), between.sum(1) / between.sum()
    return float((within - degree**2).sum()), float((1 - within / degree).mean())


def within_share(points: np.ndarray, labels: np.ndarray) -> float:
    """Sum of squares within clusters over that of all points (n, d): k-means' inertia as a share in [0, 1]."""
    spread = np.square(points - points.mean(0, dtype=np.float64)).sum()
    return float(np.square(points - cluster_means(points, labels)[labels]).sum() / spread)


def silhouette(points: np.ndarray, labels: np.ndarray, seed: int) -> float:
    """Mean silhouette (Rousseeuw 1987) of at most 2,000 of the points (n, d); NaN where they lie in one cluster."""
    chosen = np.random.default_rng(seed).permutation(len(points))[:SAMPLE]
    some = labels[chosen]
    return float(silhouette_score(points[chosen], some)) if len(np.unique(some)) > 1 else float("nan")


def stability(cluster: Callable[[np.ndarray], np.ndarray], points: np.ndarray, labels: np.ndarray, seed: int) -> float:
    """Mean ARI of `labels` (n,) with what `cluster` makes of draws of 80 % of the points (n, d), on these."""
    rng, found = np.random.default_rng(seed), []
    for _ in range(DRAWS):
        drawn = np.sort(rng.permutation(len(points))[: int(SHARE * len(points))])
        found.append(adjusted_rand_score(labels[drawn], cluster(points[drawn])))
    return float(np.mean(found))
