"""The k-NN digraph of equation 4 (paper 002, section 3.3), and the clusters that its first edges make."""

from dataclasses import dataclass

import numpy as np
import torch
from scipy import sparse
from scipy.sparse.csgraph import connected_components

from reprolib.kernels.knn import knn


@dataclass(frozen=True)
class Digraph:
    """Directed graph with `k` weighted edges from every sample to its nearest neighbours.

    `indices` int32 (n, k): the neighbours, nearest first; `weights` float64 (n, k) in (0, 1];
    `sigma2`: the bandwidth of equation 4, in squared feature units.
    """

    indices: np.ndarray
    weights: np.ndarray
    sigma2: float

    @property
    def n(self) -> int:
        """Number of samples."""
        return len(self.indices)

    def to_csr(self) -> sparse.csr_array:
        """Affinity matrix W of equation 4 as a sparse float64 (n, n) matrix, zero diagonal."""
        n, k = self.indices.shape
        # copies: sort_indices works in place and would reorder the digraph's own arrays
        entries = self.weights.flatten(), self.indices.flatten(), np.arange(0, n * k + 1, k)
        matrix = sparse.csr_array(entries, shape=(n, n))
        matrix.sort_indices()
        return matrix


def edge_weights(squared_distances: np.ndarray, bandwidth: float = 1.0) -> tuple[np.ndarray, float]:
    """Weights exp(-d^2 / sigma^2) with sigma^2 = a * mean d^2 (paper 002, equation 4).

    `squared_distances` (n, k); `bandwidth` is the paper's a. Returns float64 (n, k), 1 where sigma^2 = 0, and sigma^2.
    """
    if not bandwidth > 0:
        raise ValueError(f"bandwidth must be a positive number, got {bandwidth!r}")
    squared = np.asarray(squared_distances, dtype=np.float64)
    sigma2 = float(bandwidth * squared.mean())
    if sigma2 == 0.0:
        return np.ones_like(squared), 0.0
    return np.exp(-squared / sigma2), sigma2


def knn_digraph(features: np.ndarray | torch.Tensor, n_neighbors: int = 20, bandwidth: float = 1.0) -> Digraph:
    """k-NN digraph of float features (n, d) (paper 002, equation 4; K_s = `n_neighbors`, a = `bandwidth`).

    A tensor is searched on its device. Raises ValueError on NaN, on a wrong shape and when n <= `n_neighbors`, as
    `knn` does.
    """
    squared_distances, indices = (
        part.cpu().numpy() if isinstance(part, torch.Tensor) else part for part in knn(features, n_neighbors)
    )
    weights, sigma2 = edge_weights(squared_distances, bandwidth)
    return Digraph(np.ascontiguousarray(indices, dtype=np.int32), weights, sigma2)


def one_link_clusters(nearest: np.ndarray) -> np.ndarray:
    """Weakly connected components of the graph that joins each sample to its nearest neighbour.

    `nearest` int (n,): index of the nearest other sample. Returns int32 (n,) labels 0..c-1 in order of first
    appearance. Without ties c is the number of mutual nearest-neighbour pairs (paper 002, section 3.6).
    """
    n = len(nearest)
    if n and not 0 <= nearest.min() <= nearest.max() < n:
        raise ValueError(f"nearest must hold indices 0..{n - 1}")
    graph = sparse.csr_array((np.ones(n, np.int8), nearest, np.arange(n + 1)), shape=(n, n))
    return connected_components(graph, directed=True, connection="weak")[1].astype(np.int32)
