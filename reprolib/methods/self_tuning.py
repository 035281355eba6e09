"""SC-ST and SC-LS of paper 002, Table 3: spectral clustering with affinities of their own."""

import warnings
from typing import Literal

import numpy as np
import scipy.linalg
from numba import njit
from scipy import sparse
from scipy.optimize import minimize
from sklearn.cluster import KMeans
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import pairwise_distances_chunked
from sklearn.preprocessing import normalize

from reprolib.graph.digraph import Digraph
from reprolib.kernels.knn import knn
from reprolib.methods import spectral
from reprolib.methods.base import Count, Seed
from reprolib.methods.classical import ClassicalEstimator, kmeans_labels
from reprolib.methods.spectral import Affinity, Array, Sparse

SMALLEST_SCALE = 0.004  # squared units of unit vectors
compiled = njit(cache=True, nogil=True)


def scaled_weights(squared: Array, scale: Array, other: Array) -> Array:
    """exp(-d^2 / (sigma_i sigma_j)) of squared distances, in place (Zelnik-Manor and Perona, eq. 1).

    The product of the scales is at least 0.004, as in the authors' code: duplicates (sigma 0) have weights too.
    """
    squared /= -np.maximum(scale * other, SMALLEST_SCALE)
    return np.exp(squared, out=squared)


def local_knn_affinity(features: Array, n_neighbors: int = 20, scale_neighbor: int = 7) -> Sparse:
    """`scaled_weights` of a k-NN graph of features (n, d): sparse float64 (n, n), symmetric, zero diagonal.

    A pair is joined when either is among the `n_neighbors` nearest of the other; sigma_i is the distance to the
    `scale_neighbor`-th, 1 <= `scale_neighbor` <= `n_neighbors`.
    """
    squared, indices = knn(features, n_neighbors)
    squared = squared.astype(np.float64)
    scale = np.sqrt(squared[:, scale_neighbor - 1])  # (n,)
    weights = scaled_weights(squared, scale[:, None], scale[indices])
    directed = Digraph(indices, weights, sigma2=1.0).to_csr()
    affinity = sparse.csr_array(directed.maximum(directed.T))
    affinity.eliminate_zeros()  # a weight that underflows is no edge
    return affinity


def local_full_affinity(features: Array, scale_neighbor: int = 7) -> Array:
    """`scaled_weights` of all pairs, zero diagonal: dense float64 (n, n); MemoryError as for SC-NJW."""
    affinity = spectral.all_squared_distances(features)
    # column 0 of the sorted rows is the sample itself
    scale = np.sqrt([np.partition(row, scale_neighbor)[scale_neighbor] for row in affinity])
    for i, row in enumerate(affinity):
        scaled_weights(row, scale[i], scale)
    np.fill_diagonal(affinity, 0.0)
    return affinity


@compiled
def givens_rotation(angles, k):
    """Product (k, k) of the Givens rotations of the planes (0, 1), (0, 2), ..., (k-2, k-1).

    `angles` float64 (k (k-1) / 2,) in that order; a rotation is [[cos, -sin], [sin, cos]] in its plane.
    """
    rotation = np.eye(k)
    index = 0
    for i in range(k):
        for j in range(i + 1, k):
            _turn_columns(rotation, i, j, angles[index])
            index += 1
    return rotation


@compiled
def _turn_columns(matrix, i, j, angle):
    cos, sin = np.cos(angle), np.sin(angle)
    for row in range(len(matrix)):
        left, right = matrix[row, i], matrix[row, j]
        matrix[row, i] = cos * left + sin * right
        matrix[row, j] = cos * right - sin * left


@compiled
def _angle_gradient(angles, rotation, by_rotation):
    """Derivatives by the angles (k (k-1) / 2,), from those by the entries of the rotation.

    With P and S the products of the rotations before and after one in the plane (i, j), its derivative is tr(M
    U'), where M = S by_rotation^T P and U' is the derivative of its own plane. M changes by two rotations an angle.
    """
    k = len(rotation)
    gradient = np.empty(len(angles))
    transposed = by_rotation @ rotation.T  # M^T, so that both changes of M are of columns or rows
    index = 0
    for i in range(k):
        for j in range(i + 1, k):
            angle = angles[index]
            _turn_columns(transposed, i, j, angle)
            across, along = transposed[j, i] - transposed[i, j], transposed[i, i] + transposed[j, j]
            gradient[index] = np.cos(angle) * across - np.sin(angle) * along
            _turn_columns(transposed.T, i, j, angle)
            index += 1
    return gradient


def rotation_cost(angles: Array, vectors: Array) -> tuple[float, Array]:
    """Mean over samples of sum_j z_ij^2 / max_j z_ij^2 with Z = vectors R(angles), and its gradient.

    `vectors` (n, k) without a row of zeros; `angles` (k (k-1) / 2,). 1 when each row has one entry, k when all
    are alike (Zelnik-Manor and Perona, eq. 3, divided by n). The gradient jumps at ties. Time O(n k^2 + k^3).
    """
    n, k = vectors.shape
    rotation = givens_rotation(angles, k)
    z = vectors @ rotation
    row, largest = np.arange(n), np.abs(z).argmax(axis=1)
    top = z[row, largest]  # (n,)
    ratio = np.sum((z / top[:, None]) ** 2, axis=1)  # (n,)
    by_entry = z / top[:, None] ** 2
    by_entry[row, largest] -= ratio / top
    by_rotation = vectors.T @ by_entry * (2.0 / n)  # (k, k)
    return float(ratio.mean()), _angle_gradient(angles, rotation, by_rotation)


def align(vectors: Array) -> tuple[Array, float]:
    """Rotate columns of `vectors` (n, k) to the axes, by L-BFGS: the rotated ones and their `rotation_cost`."""
    k = vectors.shape[1]
    if k == 1:
        return vectors, 1.0
    start = np.zeros(k * (k - 1) // 2)
    found = minimize(rotation_cost, start, args=(vectors,), jac=True, method="L-BFGS-B")
    return vectors @ givens_rotation(found.x, k), float(found.fun)


class SCST(spectral.SpectralEstimator):
    """Self-tuning spectral clustering (Zelnik-Manor and Perona 2004; paper 002, Table 3, SC-ST).

    A bandwidth for each sample, its distance to the `scale_neighbor`-th neighbour. The leading eigenvectors are
    rotated to the axes by `align`; a sample belongs to the axis of its largest entry. The paper also chooses
    the number of clusters by the cost, `rotation_cost_` after `fit`. The code released with paper 002 has the
    75th neighbour on all pairs and labels as in `SCNJW`: it leaves the rotation unused.
    """

    scale_neighbor: Count = 7  # K

    def _affinity(self, features: Array) -> Affinity:
        k, full = self.scale_neighbor, self.graph == "full"
        name, most = ("n - 1", len(features) - 1) if full else ("n_neighbors", self.n_neighbors)
        if k > most:
            raise ValueError(f"scale_neighbor must be from 1 to {name}={most}, got {k}")
        if full:
            return local_full_affinity(features, k)
        return local_knn_affinity(features, self.n_neighbors, k)

    def _labels(self, vectors: Array, degrees: Array, seed: int) -> Array:
        rotated, self.rotation_cost_ = align(vectors)
        return np.abs(rotated).argmax(axis=1)


def landmark_weights(features: Array, landmarks: Array, n_nearest: int = 5) -> Sparse:
    """Each sample as a mean of its nearest landmarks, weighted by a Gaussian kernel: sparse (n, p).

    Weights exp(-d^2 / (2 h^2)) of the `n_nearest` of the p landmarks, rows summing to 1 (Chen and Cai 2011,
    section 3.2). h is the mean of all squared distances, as in the authors' LSC.m (the paper leaves it open),
    so the weights depend on the scale of the features. Time O(n p d), memory O(n n_nearest).
    """
    n, p = len(features), len(landmarks)

    def kept(block: Array, _: int) -> tuple[Array, ...]:  # of distances (rows, p)
        nearest = np.argpartition(block, n_nearest - 1, axis=1)[:, :n_nearest]
        squared = np.take_along_axis(block, nearest, axis=1).astype(np.float64)
        return nearest, squared, block.sum(axis=1, dtype=np.float64)

    asked = {"reduce_func": kept, "squared": True, "working_memory": spectral.BLOCK_MIB}
    blocks = pairwise_distances_chunked(features, landmarks, **asked)
    nearest, squared, sums = map(np.concatenate, zip(*blocks, strict=True))
    h = sums.sum() / (n * p) or 1.0  # 0 where all images are alike but for brightness
    # the nearest is subtracted: the same weights after normalisation, and never 0 / 0
    weights = np.exp(-(squared - squared.min(axis=1, keepdims=True)) / (2.0 * h**2))
    weights /= weights.sum(axis=1, keepdims=True)
    pointers = np.arange(0, n * n_nearest + 1, n_nearest)
    return sparse.csr_array((weights.ravel(), nearest.ravel(), pointers), shape=(n, p))


def landmark_vectors(weights: Sparse, n_vectors: int) -> Array:
    """Left singular vectors of Z-hat = Z diag(Z^T 1)^-1/2 after the constant one: float64 (n, k).

    `weights` Z (n, p), rows summing to 1, p > k = `n_vectors`. Z-hat Z-hat^T is the affinity; its first
    eigenvector is constant, and LSC.m drops it. Time O(n r^2 + p^3).
    """
    p = weights.shape[1]
    root = np.sqrt(weights.sum(axis=0))  # (p,)
    scaled = weights * np.divide(1.0, root, out=np.zeros(p), where=root > 0)  # Z-hat
    constant = root / np.linalg.norm(root)
    gram = (scaled.T @ scaled).toarray() - np.outer(constant, constant)
    values, right = scipy.linalg.eigh(gram, subset_by_index=(p - n_vectors, p - 1))
    # beyond the rank of Z there is nothing to divide
    kept = values > p * np.finfo(np.float64).eps
    left = np.zeros((weights.shape[0], n_vectors))
    left[:, kept] = (scaled @ right[:, kept]) / np.sqrt(values[kept])
    return left[:, ::-1]


class SCLS(ClassicalEstimator):
    """Landmark-based spectral clustering (Chen and Cai 2011; paper 002, Table 3, SC-LS).

    Defaults of the authors' LSC.m: the centres of 5 k-means iterations from random samples (`landmarks="random"`: the
    samples themselves). The re-run of paper 002 has p = 500. With n <= p, n // 2 landmarks are taken, with a warning;
    `n_landmarks_` tells. There may be fewer labels than `n_clusters`. Time O(n p d + p^3).
    """

    n_landmarks: int = 1000  # p
    n_nearest: Count = 5  # r
    landmarks: Literal["kmeans", "random"] = "kmeans"
    random_state: Seed = 0

    def _cluster(self, features: Array) -> Array:
        n, k, asked, seed = len(features), self.n_clusters, self.n_landmarks, self.seed()
        p = self.n_landmarks_ = asked if asked < n else n // 2
        if p <= k or self.n_nearest > p:
            few = f"{p} landmarks of {n} images are too few for {k} clusters (one more is needed)"
            raise ValueError(f"{few} or n_nearest={self.n_nearest}")
        if p < asked:
            told = f"{asked} landmarks are not fewer than the {n} images: {p} are taken"
            warnings.warn(told, stacklevel=3)
        if self.landmarks == "random":
            landmarks = features[np.random.default_rng(seed).permutation(n)[:p]]
        else:
            with warnings.catch_warnings():  # landmarks may coincide where images do
                warnings.simplefilter("ignore", ConvergenceWarning)
                means = KMeans(p, init="random", n_init=1, max_iter=5, random_state=seed)
                landmarks = means.fit(features).cluster_centers_
        weights = landmark_weights(features, landmarks, self.n_nearest)
        labels = kmeans_labels(normalize(landmark_vectors(weights, k)), k, seed)
        return np.unique(labels, return_inverse=True)[1]
