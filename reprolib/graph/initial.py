"""Initial over-clustering: the one-link step shared by papers [62] and [63]."""

import numpy as np
from scipy import sparse
from scipy.sparse.csgraph import connected_components


def one_link_clusters(nearest: np.ndarray) -> np.ndarray:
    """Weakly connected components of the graph that joins each sample to its nearest neighbour.

    `nearest` int (n,): index of the nearest other sample. Returns int32 (n,) labels 0..c-1 in order
    of first appearance. Without ties c is the number of mutual nearest-neighbour pairs
    (paper 002, section 3.6, after Zhang et al. 2013).
    """
    nearest = np.asarray(nearest)
    if nearest.ndim != 1 or not np.issubdtype(nearest.dtype, np.integer):
        raise ValueError(
            f"nearest must be a 1-D integer array, got shape {nearest.shape}, {nearest.dtype}"
        )
    n = len(nearest)
    if n and (nearest.min() < 0 or nearest.max() >= n):
        raise ValueError(f"nearest must hold indices 0..{n - 1}")
    graph = sparse.csr_array((np.ones(n, np.int8), nearest, np.arange(n + 1)), shape=(n, n))
    return connected_components(graph, directed=True, connection="weak")[1].astype(np.int32)
