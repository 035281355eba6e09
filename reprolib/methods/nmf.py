"""Matrix factorisations and k-means on the coefficients: NMF-LP and NMF-D of paper 002, Table 3."""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.sparse as sp
from scipy.sparse import csgraph
from scipy.special import kl_div, xlogy
from sklearn.base import BaseEstimator, ClusterMixin
from sklearn.cluster import KMeans as LloydKMeans
from sklearn.utils.extmath import randomized_svd

from reprolib.checks import unknown_name
from reprolib.images import sealed_labels
from reprolib.kernels.knn import knn
from reprolib.methods.base import check_counts, unit_rows

TRIAL_ITERATIONS = 10
_BLOCK = 2048
_FLOOR = 1e-10
_LOG_FLOOR = 1e-30
_SOLVE_TOLERANCE = 1e-7
_SOLVE_STEPS = 500
_HALVINGS = 30
_RANK_TOLERANCE = 1e-10
NEGATIVE = ("raise", "clip")


class NMFLP(ClusterMixin, BaseEstimator):
    """Locality preserving NMF (Cai et al., IJCAI 2009; paper 002, Table 3, NMF-LP).

    Minimises the generalised Kullback-Leibler divergence of X (n, d) from V U' plus `graph_weight`/2
    times the sum over components k of v_k' L log v_k, which is the symmetric divergence between
    the coefficient rows of neighbours. U (d, k) and V (n, k) are not negative; L is the Laplacian
    of the 0-1 graph that joins samples when one is among the other's `n_neighbors` nearest. Then
    k-means on the rows of V, the columns of U being of unit length.

    V follows from one system (sum(u_k) I + `graph_weight` L) v_k = y_k a component, the authors'
    update. It minimises the auxiliary function only for close neighbours (log a/b ~ 1 - b/a), so
    where the objective would rise the step is halved: it never rises. The authors write the
    regulariser with twice our weight, for which the system is not stationary even then.

    Updates, start and defaults (graph_weight 100, 5 neighbours, 10 k-means starts of 10
    iterations) are those of the authors' public GNMF_KL and constructW; the paper itself could not
    be read in full. Paper 002's released script calls GNMF_KL without the graph, for every data
    set with 10 components and 50 iterations: graph_weight=0, n_components=10. Its sample weights
    ("NCW") are left out, they changed NMI by less than the spread over seeds.

    `n_components` None means `n_clusters`. `negative`: "raise", or "clip" to set negative features
    to 0 and normalise again; paper 002 does not say what it did for learned features.
    After `fit`: `labels_` int32 (n,), `embedding_` float32 (n, k), `components_` float32 (k, d),
    `objective_` float. Time O(n d k) an iteration, memory O(n (d + k)).
    """

    def __init__(
        self,
        n_clusters: int = 10,
        *,
        n_components: int | None = None,
        n_neighbors: int = 5,
        graph_weight: float = 100.0,
        n_init: int = 10,
        max_iter: int = 50,
        negative: str = "raise",
        random_state: int = 0,
    ) -> None:
        self.n_clusters = n_clusters
        self.n_components = n_components
        self.n_neighbors = n_neighbors
        self.graph_weight = graph_weight
        self.n_init = n_init
        self.max_iter = max_iter
        self.negative = negative
        self.random_state = random_state

    def fit(self, X: Any, y: None = None) -> NMFLP:
        """Cluster `Images`, an image array (n, h, w) or (n, c, h, w), or features (n, d).

        Raises ValueError on NaN, constant or too few images, on negative features unless
        `negative` is "clip", and on counts that the samples cannot have.
        """
        with sealed_labels():
            features = _nonnegative(unit_rows(X), self.negative)  # (n, d)
            n, rank = len(features), self._check(len(features))
            laplacian = (
                self.graph_weight * neighbor_laplacian(features, self.n_neighbors)
                if self.graph_weight
                else sp.csr_array((n, n))
            )
            rng = np.random.default_rng(self.random_state)
            U, V = self._best_start(features, rank, laplacian, rng)
            for _ in range(self.max_iter - TRIAL_ITERATIONS):
                U, V = lp_step(features, U, V, laplacian)
            self.objective_ = lp_objective(features, U, V, laplacian)
            lengths = np.maximum(np.linalg.norm(U, axis=0), _FLOOR)  # (k,)
            self.components_, self.embedding_ = (U / lengths).T, V * lengths
            self.labels_ = _kmeans_labels(self.embedding_, self.n_clusters, self.random_state)
        return self

    def _check(self, n: int) -> int:
        rank = self.n_clusters if self.n_components is None else self.n_components
        check_counts(n, self.n_clusters, self.n_neighbors if self.graph_weight else 1)
        if not 1 <= rank <= n:
            raise ValueError(f"n_components must be from 1 to the {n} samples, got {rank}")
        if self.graph_weight < 0 or self.n_init < 1:
            raise ValueError(
                "graph_weight must not be negative and n_init at least 1, got "
                f"{self.graph_weight} and {self.n_init}"
            )
        return rank

    def _best_start(
        self, X: np.ndarray, rank: int, laplacian: sp.csr_array, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        best, least = None, np.inf
        for _ in range(self.n_init):
            U, V = _centroid_start(X, rank, int(rng.integers(2**31)))
            for _ in range(min(TRIAL_ITERATIONS, self.max_iter)):
                U, V = lp_step(X, U, V, laplacian)
            objective = lp_objective(X, U, V, laplacian)
            if best is None or objective < least:
                best, least = (U, V), objective
        return best


class NMFD(ClusterMixin, BaseEstimator):
    """Deep semi-NMF (Trigeorgis et al., ICML 2014; paper 002, Table 3, NMF-D).

    X (n, d) ~ H Z_m' ... Z_1' in Frobenius norm, H (n, k_m) not negative, Z_i of any sign. Layer by
    layer a semi-NMF of the layer before (Ding et al. 2010, H from an NNDSVD of the absolute
    values), then all factors in turn: each Z_i by pseudo-inverses, H by the multiplicative
    square-root rule. K-means on the rows of H. The hidden H_i, i < m, only start the next layer:
    the joint updates never read them, so they are not updated.

    `layers` (160, 160), `max_iter` 500 for each stage and the relative `tol` of the norm of the
    residual are those of paper 002's released script; a layer is no wider than min(n, width
    before it). After `fit`: `labels_` int32 (n,), `embedding_` float32 (n, k_m), `errors_`, the norm
    of the residual before each joint update. Time O(n d k) an iteration, memory O(n (d + k)).
    """

    def __init__(
        self,
        n_clusters: int = 10,
        *,
        layers: tuple[int, ...] = (160, 160),
        max_iter: int = 500,
        tol: float = 1e-5,
        random_state: int = 0,
    ) -> None:
        self.n_clusters = n_clusters
        self.layers = layers
        self.max_iter = max_iter
        self.tol = tol
        self.random_state = random_state

    def fit(self, X: Any, y: None = None) -> NMFD:
        """Cluster `Images`, an image array (n, h, w) or (n, c, h, w), or features (n, d).

        Raises ValueError on NaN, constant or too few images, on no layers or a layer below 1, and
        when n_clusters is not from 1 to the number of samples.
        """
        with sealed_labels():
            features = unit_rows(X)  # (n, d)
            check_counts(len(features), self.n_clusters, 1)
            if not self.layers or min(self.layers) < 1:
                raise ValueError(f"layers must be widths of at least 1, got {self.layers}")
            H, bases = features, []
            for width in self.layers:
                inner = H
                H = nndsvd_coefficients(inner, min(width, *inner.shape), self.random_state)
                one, H, _ = descend(inner, [None], H, self.max_iter, self.tol)
                bases += one
            bases, H, self.errors_ = descend(features, bases, H, self.max_iter, self.tol)
            self.embedding_ = H
            self.labels_ = _kmeans_labels(H, self.n_clusters, self.random_state)
        return self


def neighbor_laplacian(features: np.ndarray, n_neighbors: int) -> sp.csr_array:
    """Laplacian float64 (n, n), sparse, of the 0-1 graph of neighbours in either direction."""
    n = len(features)
    _, indices = knn(features, n_neighbors)  # (n, p)
    ones = np.ones(indices.size)
    graph = sp.csr_array(
        (ones, indices.ravel(), np.arange(0, indices.size + 1, n_neighbors)), (n, n)
    )
    return csgraph.laplacian(graph.maximum(graph.T)).tocsr()


def lp_objective(X: np.ndarray, U: np.ndarray, V: np.ndarray, laplacian: sp.csr_array) -> float:
    """Divergence of X (n, d) from V U' plus half the sum of v' L log v; L (n, n) holds its weight."""
    parts = [
        kl_div(X[rows], np.maximum(V[rows] @ U.T, _FLOOR)).sum(dtype=np.float64)
        for rows in _blocks(len(X))
    ]
    return float(sum(parts) + _penalty(V, laplacian))


def lp_step(
    X: np.ndarray, U: np.ndarray, V: np.ndarray, laplacian: sp.csr_array
) -> tuple[np.ndarray, np.ndarray]:
    """One update of V (n, k), then of U (d, k), in the dtype of X; the objective never rises.

    `laplacian` (n, n) already holds its weight. Source: GNMF_KL; the half steps are ours. Without
    edges both are the multiplicative updates of Lee and Seung (2001).
    """
    shift = np.maximum(U.sum(0, dtype=np.float64), _FLOOR)  # (k,)
    Y = np.concatenate([V[r] * (_ratio(X[r], U, V[r]) @ U) for r in _blocks(len(X))])  # (n, k)
    if laplacian.nnz:
        V = _smooth(X, U, V, Y.astype(np.float64), shift, laplacian)
    else:
        V = (Y / shift).astype(X.dtype)
    pull = sum(_ratio(X[r], U, V[r]).T @ V[r] for r in _blocks(len(X)))  # (d, k)
    return U * (pull / np.maximum(V.sum(0, dtype=np.float64), _FLOOR)).astype(X.dtype), V


def _smooth(
    X: np.ndarray,
    U: np.ndarray,
    V: np.ndarray,
    Y: np.ndarray,
    shift: np.ndarray,
    laplacian: sp.csr_array,
) -> np.ndarray:
    def auxiliary(V: np.ndarray) -> float:
        return float((V @ shift).sum() - xlogy(Y, V).sum() + _penalty(V, laplacian))

    old = V.astype(np.float64)  # (n, k)
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
    return new.astype(X.dtype)


def _solve(
    laplacian: sp.csr_array, shift: np.ndarray, right: np.ndarray, start: np.ndarray
) -> np.ndarray:
    # conjugate gradients for all components at once: their systems differ by the shift only
    scale = laplacian.diagonal()[:, None] + shift  # (n, k)
    x = start.copy()
    residual = right - laplacian @ x - shift * x
    z = residual / scale
    direction, dot = z, (residual * z).sum(0)
    limit = _SOLVE_TOLERANCE**2 * (right**2).sum(0)
    for _ in range(_SOLVE_STEPS):
        if ((residual**2).sum(0) <= limit).all():
            break
        product = laplacian @ direction + shift * direction
        length = dot / np.maximum((direction * product).sum(0), np.finfo(float).tiny)
        x += length * direction
        residual -= length * product
        z = residual / scale
        previous, dot = dot, (residual * z).sum(0)
        direction = z + dot / np.maximum(previous, np.finfo(float).tiny) * direction
    return x


def _penalty(V: np.ndarray, laplacian: sp.csr_array) -> float:
    V = V.astype(np.float64, copy=False)
    return (V * (laplacian @ np.log(np.maximum(V, _LOG_FLOOR)))).sum() / 2


def _ratio(X: np.ndarray, U: np.ndarray, V: np.ndarray) -> np.ndarray:
    return X / np.maximum(V @ U.T, _FLOOR)


def _blocks(n: int) -> list[slice]:
    return [slice(start, start + _BLOCK) for start in range(0, n, _BLOCK)]


def _centroid_start(X: np.ndarray, rank: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    kmeans = LloydKMeans(rank, init="random", n_init=1, max_iter=10, random_state=seed).fit(X)
    U = np.maximum(kmeans.cluster_centers_.T, 0)  # (d, k); rounding may leave less than 0
    U = U / np.maximum(np.linalg.norm(U, axis=0), _FLOOR)
    V = np.maximum(X @ np.linalg.pinv(U.astype(np.float64)).T, 0)  # (n, k)
    return U.astype(X.dtype), V.astype(X.dtype)


def _nonnegative(features: np.ndarray, negative: str) -> np.ndarray:
    if negative not in NEGATIVE:
        raise unknown_name("treatment of negative features", negative, NEGATIVE)
    if features.min() >= 0:
        return features
    if negative == "raise":
        raise ValueError(
            f"NMF-LP needs features that are not negative, the least is {features.min():.3g}: "
            'pass negative="clip" to set them to 0'
        )
    return unit_rows(np.maximum(features, 0))


def nndsvd_coefficients(X: np.ndarray, rank: int, seed: int) -> np.ndarray:
    """Non-negative H (n, rank) of the NNDSVD of |X| (n, d) (Boutsidis and Gallopoulos 2008)."""
    left, values, right = randomized_svd(np.abs(X), rank, random_state=seed)
    right = right.T  # (d, rank)
    plus, minus = np.maximum(left, 0), np.maximum(-left, 0)  # (n, rank)
    norm_plus, norm_minus = np.linalg.norm(plus, axis=0), np.linalg.norm(minus, axis=0)
    weight_plus = norm_plus * np.linalg.norm(np.maximum(right, 0), axis=0)
    weight_minus = norm_minus * np.linalg.norm(np.maximum(-right, 0), axis=0)
    positive = weight_plus >= weight_minus  # (rank,)
    side = np.where(positive, plus, minus)
    norm = np.maximum(np.where(positive, norm_plus, norm_minus), _FLOOR)
    H = np.sqrt(values * np.maximum(weight_plus, weight_minus)) * side / norm
    return np.where(H < _FLOOR, 0, H).astype(X.dtype)


def descend(
    X: np.ndarray, bases: list, H: np.ndarray, max_iter: int, tol: float
) -> tuple[list[np.ndarray], np.ndarray, list[float]]:
    """Alternate updates of X (n, d) ~ H Z_m' ... Z_1': every Z_i (k_i-1, k_i), then H (n, k_m) >= 0.

    One layer is semi-NMF; a first Z may be None there. Stops when the norm of the residual falls
    by `tol` of itself or less (or by `tol`, when it is below 1). Returns the Z, H, and the norms
    before each update. Source: Trigeorgis et al. 2014, algorithm 1.
    """
    bases, errors = list(bases), []
    total = float((X.astype(np.float64) ** 2).sum())
    for _ in range(max_iter):
        cross = _cross(X, H)  # (d, k_m)
        gram = _cross(H, H, np.float64)  # (k_m, k_m)
        if bases[-1] is not None:
            whole = _product(bases)
            square = total - 2 * (cross * whole).sum() + ((whole.T @ whole) * gram).sum()
            errors.append(float(np.sqrt(max(square, 0))))
            if len(errors) > 1 and errors[-2] - errors[-1] <= tol * max(1, errors[-2]):
                break
        for i in range(len(bases)):
            tail = _product([np.eye(len(gram)), *(Z.T for Z in bases[:i:-1])])  # (k_m, k_i)
            target = cross @ tail  # (d, k_i)
            if i:
                before = _product(bases[:i])  # (d, k_i-1)
                target = _inverse(before.T @ before) @ (before.T @ target)  # (k_i-1, k_i)
            bases[i] = target @ _inverse(tail.T @ gram @ tail)
        whole = _product(bases)  # (d, k_m)
        H = _square_root_rule(H, X @ whole.astype(X.dtype), (whole.T @ whole).astype(X.dtype))
    return bases, H, errors


def _square_root_rule(H: np.ndarray, A: np.ndarray, B: np.ndarray) -> np.ndarray:
    above = np.maximum(A, 0) + H @ np.maximum(-B, 0)
    below = np.maximum(-A, 0) + H @ np.maximum(B, 0)
    return H * np.sqrt(above / np.maximum(below, _FLOOR))


def _cross(A: np.ndarray, B: np.ndarray, dtype: type | None = None) -> np.ndarray:
    # float64 sums over blocks: the rounding of one long float32 sum hides the descent
    return sum((A[r].T.astype(dtype or A.dtype) @ B[r]).astype(np.float64) for r in _blocks(len(A)))


def _inverse(gram: np.ndarray) -> np.ndarray:
    return np.linalg.pinv(gram, rcond=_RANK_TOLERANCE, hermitian=True)


def _product(matrices: list[np.ndarray]) -> np.ndarray:
    result = matrices[0]
    for matrix in matrices[1:]:
        result = result @ matrix
    return result


def _kmeans_labels(points: np.ndarray, n_clusters: int, seed: int) -> np.ndarray:
    fitted = LloydKMeans(n_clusters, n_init=10, random_state=seed).fit(points)
    return fitted.labels_.astype(np.int32)
