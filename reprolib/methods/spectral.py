"""Spectral clustering on a graph: SC-NJW and N-Cuts of paper 002, Table 3, and what SC-ST shares.

Paper 002 names no graph, and Table 3 has two values for SC-NJW, SC-ST and N-Cuts: a re-run, whose released code
takes the graph of all pairs, and one quoted from papers, which k-NN graphs come near. So each has
`graph="knn"`, equation 4 without direction, and `graph="full"`, all pairs, as close to the code as it allows.
"""

from typing import ClassVar, Literal

import numpy as np
import scipy.linalg
from scipy import sparse
from scipy.sparse.csgraph import connected_components
from scipy.sparse.linalg import LinearOperator, eigsh

# not public: scikit-learn's SpectralClustering reaches it only through an eigensolver whose sparse
# factorisation fills up on k-NN graphs of images
from sklearn.cluster._spectral import discretize
from sklearn.metrics import pairwise_distances_argmin, pairwise_distances_chunked
from sklearn.metrics.pairwise import euclidean_distances
from sklearn.preprocessing import normalize

from reprolib.checks import check_memory
from reprolib.graph.digraph import knn_digraph
from reprolib.graph.strays import cluster_means, join_disconnected
from reprolib.methods.base import Count, Seed
from reprolib.methods.classical import ClassicalEstimator, kmeans_labels

Array, Sparse = np.ndarray, sparse.csr_array
Affinity = Array | Sparse
BLOCK_MIB = 64  # of distances at a time, where not all fit
FEWER = 'use graph="knn" or fewer images'


def knn_affinity(features: Array, n_neighbors: int = 20, bandwidth: float = 1.0) -> Sparse:
    """Paper 002, equation 4, without direction: (W + W^T) / 2 of features (n, d), sparse float64 (n, n)."""
    directed = knn_digraph(features, n_neighbors, bandwidth).to_csr()
    affinity = sparse.csr_array((directed + directed.T) / 2)
    affinity.eliminate_zeros()  # a weight that underflows is no edge
    return affinity


def all_squared_distances(features: Array) -> Array:
    """Squared distances of all pairs, dense float64 (n, n); MemoryError where that does not fit."""
    n = len(features)
    check_memory(8 * n**2, f"the graph of all pairs of {n} images", FEWER)
    return euclidean_distances(features.astype(np.float64), squared=True)


def full_affinity(features: Array, scale: float = 0.05) -> Array:
    """exp(-d^2 / (scale * mean d^2)) for all pairs, zero diagonal: dense float64 (n, n).

    The code released with paper 002 (SC-NJW), with its 0.05, leaves ones on the diagonal, against step 1 of Ng
    et al. (2002): images far from all others then take up the leading eigenvectors.
    """
    affinity = all_squared_distances(features)
    affinity /= -scale * (affinity.mean() or 1.0)  # 0 where images differ in brightness only
    np.exp(affinity, out=affinity)
    np.fill_diagonal(affinity, 0.0)
    return affinity


def radius_affinity(features: Array, scale: float = 0.05) -> Sparse:
    """exp(-(d^2 / (scale * max d^2))^2), less than 1e-6 left out: sparse float64 (n, n), unit diagonal.

    From the N-Cuts toolbox (Cour, Yu and Shi, 2004) as released with paper 002, which squares what are squared
    distances already. Time O(n^2 d), twice, in blocks of rows; MemoryError where the weights do not fit.
    """
    x = features.astype(np.float64)
    asked = {"metric": "euclidean", "squared": True, "working_memory": BLOCK_MIB}
    width = scale * max(block.max() for block in pairwise_distances_chunked(x, **asked)) or 1.0
    parts, n_weights = [], 0
    for squared in pairwise_distances_chunked(x, **asked):
        weights = np.exp(-((squared / width) ** 2))
        parts.append(sparse.csr_array(np.where(weights < 1e-6, 0.0, weights)))
        n_weights += parts[-1].nnz
        # bytes of the copy that joins the blocks
        check_memory(12 * n_weights, f"the graph of all near pairs of {len(x)} images", FEWER)
    return sparse.vstack(parts, format="csr")


def leading_vectors(
    affinity: Affinity, n_vectors: int, random_state: int = 0, *, offset: float = 0.0
) -> tuple[Array, Array]:
    """Eigenvectors of D^-1/2 A D^-1/2 with the largest eigenvalues (n, n_vectors), and the degrees D (n,).

    `affinity` A (n, n): symmetric, not negative, and in at most `n_vectors` connected parts if sparse. Float64,
    orthonormal; a sample without edges has degree 1. `offset` o > 0 regularises as the N-Cuts toolbox does: A +
    o I, and D + 2 o I. A connected part C has eigenvalue 1 with the vector D^1/2 1_C: these are set directly,
    first, and their eigenvalue becomes -2, below all others. The rest follow by falling eigenvalue, from ARPACK
    (start by `random_state`), or a dense solver for n <= 10 n_vectors. O(weights + n n_vectors) an iteration.
    """
    n = affinity.shape[0]
    degrees = np.asarray(affinity.sum(axis=1), dtype=np.float64).ravel() + 2.0 * offset
    degrees[degrees == 0.0] = 1.0
    scale = 1.0 / np.sqrt(degrees)
    known = np.empty((n, 0))
    if not offset:
        parts = np.zeros(n, dtype=np.int64)
        if sparse.issparse(affinity):
            parts = connected_components(affinity, directed=False)[1]
        known = np.zeros((n, parts.max() + 1))  # (n, c)
        known[np.arange(n), parts] = np.sqrt(degrees)
        known /= np.linalg.norm(known, axis=0)
    n_more = n_vectors - known.shape[1]
    if n_more < 1:
        return known, degrees

    def product(vector: Array) -> Array:
        vector = vector.ravel()
        scaled = scale * vector
        return scale * (affinity @ scaled + offset * scaled) - known @ (3.0 * (known.T @ vector))

    matrix = LinearOperator((n, n), matvec=product, dtype=np.float64)
    if n <= 10 * n_vectors:
        found = scipy.linalg.eigh(matrix @ np.eye(n), subset_by_index=(n - n_more, n - 1))[1]
        return np.hstack([known, found[:, ::-1]]), degrees
    start = np.random.default_rng(random_state).standard_normal(n)
    # to the last digit: a looser process sees one vector of a repeated eigenvalue
    options = {"ncv": min(n, max(2 * n_more + 1, 80)), "tol": 0.0}
    values, found = eigsh(matrix, n_more, which="LA", v0=start, **options)
    return np.hstack([known, found[:, np.argsort(-values)]]), degrees


class SpectralEstimator(ClassicalEstimator):
    """Affinity of unit vectors, its leading eigenvectors, labels from them: what the methods share.

    A method gives `_affinity(features)` (n, n) on `graph`, and `_labels(vectors, degrees, seed)` int (n,),
    below 0 for a sample that is zero in all of them, which joins the nearest mean. A k-NN graph of `n_clusters`
    parts or more needs no eigenvectors: its parts are the clusters, and a surplus is joined by means, with a
    `DisconnectedGraphWarning`. There may be fewer labels than `n_clusters`.
    """

    n_neighbors: Count = 20  # K_s, paper 002, equation 4
    graph: Literal["knn", "full"] = "knn"
    random_state: Seed = 0
    FULL_OFFSET: ClassVar[float] = 0.0

    def _cluster(self, features: Array) -> Array:
        seed, affinity, full = self.seed(), self._affinity(features), self.graph == "full"
        if not full:
            n_parts, parts = connected_components(affinity, directed=False)
            if n_parts >= self.n_clusters:
                return join_disconnected(features, parts, self.n_clusters)
        offset = self.FULL_OFFSET if full else 0.0
        vectors, degrees = leading_vectors(affinity, self.n_clusters, seed, offset=offset)
        labels = self._labels(vectors, degrees, seed)
        reached = labels >= 0
        labels[reached] = np.unique(labels[reached], return_inverse=True)[1]
        if not reached.all():
            means = cluster_means(features[reached], labels[reached])  # (c, d)
            labels[~reached] = pairwise_distances_argmin(features[~reached], means)
        return labels


class SCNJW(SpectralEstimator):
    """Spectral clustering of Ng, Jordan and Weiss (2002; paper 002, Table 3, SC-NJW).

    K-means on the rows of the leading eigenvectors of D^-1/2 A D^-1/2, scaled to unit length; "full" is
    `full_affinity`. Ng et al. search the bandwidth by the distortion of k-means; here it is fixed. Time O(n^2
    d) for the graph; memory O(n n_neighbors), "full": 8 n^2 bytes.
    """

    bandwidth: float = 1.0  # a, paper 002, equation 4; for graph="knn"
    FULL: ClassVar = staticmethod(full_affinity)

    def _affinity(self, features: Array) -> Affinity:
        if self.graph == "full":
            return self.FULL(features)
        return knn_affinity(features, self.n_neighbors, self.bandwidth)

    def _labels(self, vectors: Array, degrees: Array, seed: int) -> Array:
        return kmeans_labels(normalize(vectors), self.n_clusters, seed)


class NCuts(SCNJW):
    """Normalised cuts into n_clusters parts (Shi and Malik 2000; paper 002, Table 3, N-Cuts).

    Generalised eigenvectors of (A, D), rounded to the nearest partition (Yu and Shi 2003). "full" is
    `radius_affinity`, regularised by 0.5 as in that toolbox. Images without a near one are then zero in all
    eigenvectors: the toolbox labels them by rounding errors, here they join the nearest mean. Time O(n^2 d) for
    the graph; memory O(n n_neighbors), "full": 12 bytes a weight of at least 1e-6.
    """

    FULL: ClassVar = staticmethod(radius_affinity)
    FULL_OFFSET: ClassVar[float] = 0.5

    def _labels(self, vectors: Array, degrees: Array, seed: int) -> Array:
        # the eigenvectors are known to about this
        reached = np.linalg.norm(vectors, axis=1) > 1e-6  # (n,)
        generalised = vectors[reached] / np.sqrt(degrees[reached])[:, None]
        labels = np.full(len(vectors), -1)
        labels[reached] = discretize(generalised, random_state=seed)
        return labels
