"""NMF-LP and NMF-D of paper 002, Table 3: factorisations that are not negative, then k-means."""

from functools import partial, reduce
from typing import Literal

import numpy as np
import scipy.sparse as sp
from scipy.sparse import csgraph
from scipy.special import kl_div, xlogy
from sklearn.cluster import KMeans as LloydKMeans
from sklearn.utils import Tags, gen_batches
from sklearn.utils.extmath import randomized_svd

from reprolib.graph.digraph import Digraph
from reprolib.kernels.knn import knn
from reprolib.methods.base import Count, Seed, Weight, unit_rows
from reprolib.methods.classical import ClassicalEstimator, kmeans_labels

Array = np.ndarray
TRIAL_ITERATIONS = 10
BLOCK_ROWS = 2048  # to multiply without a second (n, d) array
_FLOOR = 1e-10
_LOG_FLOOR = 1e-30
_SOLVE_TOLERANCE = 1e-7
_SOLVE_STEPS = 500
_HALVINGS = 30
_inverse = partial(np.linalg.pinv, rcond=1e-10, hermitian=True)


class NMFLP(ClassicalEstimator):
    """Locality preserving NMF (Cai et al., IJCAI 2009; paper 002, Table 3, NMF-LP), then k-means on its V.

    Minimises the generalised Kullback-Leibler divergence of X (n, d) from V U' plus `graph_weight`/2 times the
    sum over components k of v_k' L log v_k, the symmetric divergence between the coefficient rows of
    neighbours. U (d, k) and V (n, k) are not negative; L is the Laplacian of the 0-1 graph that joins samples
    when one is among the other's `n_neighbors` nearest.

    V follows from one system (sum(u_k) I + `graph_weight` L) v_k = y_k a component, as in the authors' public GNMF_KL,
    which writes the regulariser with twice our weight; where the objective would rise the step is halved. Paper 002's
    released script leaves out the graph, as `graph_weight=0` does; its sample weights ("NCW") are left out here.
    `negative="clip"` sets negative features to 0 and normalises again. After `fit` also `embedding_` float32 (n, k),
    `components_` float32 (k, d), `objective_` float. Time O(n d k) a step.
    """

    n_components: int | None = None  # k; None: n_clusters
    n_neighbors: Count = 5  # p
    graph_weight: Weight = 100.0  # lambda; 0 leaves out the graph
    n_init: Count = 10  # starts, each tried for 10 iterations
    max_iter: int = 50
    negative: Literal["raise", "clip"] = "raise"
    random_state: Seed = 0

    def _cluster(self, features: Array) -> Array:
        n, seed = len(features), self.seed()
        if (least := features.min()) < 0:
            if self.negative == "raise":
                raise ValueError(
                    "NMF-LP needs features that are not negative. Negative values in data, the least is "
                    f'{least:.3g}: pass negative="clip" to set them to 0'
                )
            features = unit_rows(np.maximum(features, 0))  # (n, d)
        rank = self.n_clusters if self.n_components is None else self.n_components
        if not 1 <= rank <= n:
            raise ValueError(f"n_components must be from 1 to the {n} samples, got {rank}")
        laplacian = sp.csr_array((n, n))
        if self.graph_weight:
            laplacian = self.graph_weight * neighbor_laplacian(features, self.n_neighbors)
        seeds = np.random.default_rng(seed).integers(2**31, size=self.n_init)
        starts = (self._start(features, rank, laplacian, int(s)) for s in seeds)
        U, V = min(starts, key=lambda start: lp_objective(features, *start, laplacian))
        for _ in range(self.max_iter - TRIAL_ITERATIONS):
            U, V = lp_step(features, U, V, laplacian)
        self.n_iter_, self.objective_ = self.max_iter, lp_objective(features, U, V, laplacian)
        lengths = np.maximum(np.linalg.norm(U, axis=0), _FLOOR)  # (k,)
        self.components_, self.embedding_ = (U / lengths).T, V * lengths
        return kmeans_labels(self.embedding_, self.n_clusters, seed)

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.input_tags.positive_only = self.negative == "raise"
        return tags

    def _start(self, X: Array, rank: int, laplacian: sp.csr_array, seed: int) -> tuple[Array, Array]:
        kmeans = LloydKMeans(rank, init="random", n_init=1, max_iter=10, random_state=seed).fit(X)
        U = np.maximum(kmeans.cluster_centers_.T, 0)  # (d, k); rounding may leave less than 0
        U = U / np.maximum(np.linalg.norm(U, axis=0), _FLOOR)
        V = np.maximum(X @ np.linalg.pinv(U.astype(np.float64)).T, 0)  # (n, k)
        U, V = U.astype(X.dtype), V.astype(X.dtype)
        for _ in range(min(TRIAL_ITERATIONS, self.max_iter)):
            U, V = lp_step(X, U, V, laplacian)
        return U, V


def neighbor_laplacian(features: Array, n_neighbors: int) -> sp.csr_array:
    """Laplacian float64 (n, n), sparse, of the 0-1 graph of neighbours in either direction."""
    _, indices = knn(features, n_neighbors)  # (n, p)
    graph = Digraph(indices, np.ones(indices.shape), sigma2=1.0).to_csr()
    return csgraph.laplacian(graph.maximum(graph.T)).tocsr()


def lp_objective(X: Array, U: Array, V: Array, laplacian: sp.csr_array) -> float:
    """Divergence of X (n, d) from V U' plus half the sum of v' L log v; L (n, n) holds its weight."""
    total = 0.0
    for r in gen_batches(len(X), BLOCK_ROWS):
        total += kl_div(X[r], np.maximum(V[r] @ U.T, _FLOOR)).sum(dtype=np.float64)
    return float(total + _penalty(V, laplacian))


def lp_step(X: Array, U: Array, V: Array, laplacian: sp.csr_array) -> tuple[Array, Array]:
    """One update of V (n, k), then of U (d, k), in the dtype of X; the objective never rises.

    `laplacian` (n, n) holds its weight. Source: GNMF_KL, half steps ours; without edges Lee and Seung (2001).
    """
    shift = np.maximum(U.sum(0, dtype=np.float64), _FLOOR)  # (k,)
    blocks = list(gen_batches(len(X), BLOCK_ROWS))
    Y = np.concatenate([V[r] * (_ratio(X[r], U, V[r]) @ U) for r in blocks])  # (n, k)
    new = Y / shift
    if laplacian.nnz:
        old, Y = V.astype(np.float64), Y.astype(np.float64)

        def auxiliary(V: Array) -> float:
            return float((V @ shift).sum() - xlogy(Y, V).sum() + _penalty(V, laplacian))

        new = np.maximum(_solve(laplacian, shift, Y, old), 0)
        # the auxiliary function bounds the objective from above: where it falls, so does the other,
        # which is looked at only where it does not
        if auxiliary(new) > auxiliary(old):
            limit = lp_objective(X, U, V, laplacian)
            for _ in range(_HALVINGS):
                if lp_objective(X, U, new.astype(X.dtype), laplacian) <= limit:
                    break
                new = (new + old) / 2
            else:
                new = old
    V = new.astype(X.dtype)
    pull = sum(_ratio(X[r], U, V[r]).T @ V[r] for r in blocks)  # (d, k)
    return U * (pull / np.maximum(V.sum(0, dtype=np.float64), _FLOOR)).astype(X.dtype), V


def _solve(laplacian: sp.csr_array, shift: Array, right: Array, start: Array) -> Array:
    # conjugate gradients for all components at once: their systems differ by the shift only
    scale = laplacian.diagonal()[:, None] + shift  # (n, k)
    tiny = np.finfo(float).tiny
    x = start.copy()
    residual = right - laplacian @ x - shift * x
    z = residual / scale
    direction, dot = z, (residual * z).sum(0)
    limit = _SOLVE_TOLERANCE**2 * (right**2).sum(0)
    for _ in range(_SOLVE_STEPS):
        if ((residual**2).sum(0) <= limit).all():
            break
        product = laplacian @ direction + shift * direction
        length = dot / np.maximum((direction * product).sum(0), tiny)
        x += length * direction
        residual -= length * product
        z = residual / scale
        previous, dot = dot, (residual * z).sum(0)
        direction = z + dot / np.maximum(previous, tiny) * direction
    return x


def _penalty(V: Array, laplacian: sp.csr_array) -> float:
    V = V.astype(np.float64, copy=False)
    return (V * (laplacian @ np.log(np.maximum(V, _LOG_FLOOR)))).sum() / 2


def _ratio(X: Array, U: Array, V: Array) -> Array:
    return X / np.maximum(V @ U.T, _FLOOR)


class NMFD(ClassicalEstimator):
    """Deep semi-NMF (Trigeorgis et al., ICML 2014; paper 002, Table 3, NMF-D), then k-means on its H.

    X (n, d) ~ H Z_m' ... Z_1' in Frobenius norm, H (n, k_m) not negative, Z_i of any sign. Layer by layer a
    semi-NMF of the layer before (Ding et al. 2010, H from an NNDSVD of the absolute values), then all factors
    by `descend`. Defaults of paper 002's released script; a layer is no wider than min(n, width before it).
    After `fit` also `embedding_` float32 (n, k_m), `errors_`, the norms of the residual. O(n d k) a step.
    """

    layers: tuple[int, ...] = (160, 160)  # k_1 ... k_m
    max_iter: int = 500  # of each stage
    tol: float = 1e-5  # relative, of the norm of the residual
    random_state: Seed = 0

    def _cluster(self, features: Array) -> Array:
        if not self.layers or min(self.layers) < 1:
            raise ValueError(f"layers must be widths of at least 1, got {self.layers}")
        seed, H, bases = self.seed(), features, []
        for width in self.layers:
            inner = H
            H = nndsvd_coefficients(inner, min(width, *inner.shape), seed)
            one, H, _ = descend(inner, [None], H, self.max_iter, self.tol)
            bases += one
        bases, H, self.errors_ = descend(features, bases, H, self.max_iter, self.tol)
        self.embedding_, self.n_iter_ = H, len(self.errors_)
        return kmeans_labels(H, self.n_clusters, seed)


def nndsvd_coefficients(X: Array, rank: int, seed: int) -> Array:
    """Non-negative H (n, rank) of the NNDSVD of |X| (n, d) (Boutsidis and Gallopoulos 2008)."""
    left, values, right = randomized_svd(np.abs(X), rank, random_state=seed)
    sides, others = ([np.maximum(A, 0), np.maximum(-A, 0)] for A in (left, right.T))
    norms = np.array([np.linalg.norm(side, axis=0) for side in sides])  # (2, rank)
    weights = norms * np.array([np.linalg.norm(other, axis=0) for other in others])
    positive = weights[0] >= weights[1]  # (rank,)
    side, norm = np.where(positive, *sides), np.where(positive, *norms)
    H = np.sqrt(values * weights.max(axis=0)) * side / np.maximum(norm, _FLOOR)
    return np.where(H < _FLOOR, 0, H).astype(X.dtype)


def descend(X: Array, bases: list, H: Array, max_iter: int, tol: float) -> tuple[list[Array], Array, list[float]]:
    """Alternate updates of X (n, d) ~ H Z_m' ... Z_1': every Z_i (k_i-1, k_i), then H (n, k_m) >= 0.

    One layer is semi-NMF; a first Z may be None there. Stops when the norm of the residual falls by `tol` of itself,
    or `tol`, or less. Returns the Z, H, and the norms before each update (Trigeorgis et al. 2014, algorithm 1).
    """
    bases, errors = list(bases), []
    total = float((X.astype(np.float64) ** 2).sum())
    for _ in range(max_iter):
        cross = _cross(X, H)  # (d, k_m)
        gram = _cross(H, H, np.float64)  # (k_m, k_m)
        if bases[-1] is not None:
            whole = reduce(np.matmul, bases)
            square = total - 2 * (cross * whole).sum() + ((whole.T @ whole) * gram).sum()
            errors.append(float(np.sqrt(max(square, 0))))
            if len(errors) > 1 and errors[-2] - errors[-1] <= tol * max(1, errors[-2]):
                break
        for i in range(len(bases)):
            tail = reduce(np.matmul, (Z.T for Z in bases[:i:-1]), np.eye(len(gram)))  # (k_m, k_i)
            target = cross @ tail  # (d, k_i)
            if i:
                before = reduce(np.matmul, bases[:i])  # (d, k_i-1)
                target = _inverse(before.T @ before) @ (before.T @ target)  # (k_i-1, k_i)
            bases[i] = target @ _inverse(tail.T @ gram @ tail)
        whole = reduce(np.matmul, bases)  # (d, k_m)
        A, B = X @ whole.astype(X.dtype), (whole.T @ whole).astype(X.dtype)
        above = np.maximum(A, 0) + H @ np.maximum(-B, 0)
        below = np.maximum(-A, 0) + H @ np.maximum(B, 0)
        H = H * np.sqrt(above / np.maximum(below, _FLOOR))
    return bases, H, errors


def _cross(A: Array, B: Array, dtype: type | None = None) -> Array:
    # float64 sums over blocks: the rounding of one long float32 sum hides the descent
    blocks, dtype = gen_batches(len(A), BLOCK_ROWS), dtype or A.dtype
    return sum((A[r].T.astype(dtype) @ B[r]).astype(np.float64) for r in blocks)
