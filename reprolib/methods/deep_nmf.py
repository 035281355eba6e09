"""NMF-D of paper 002, Table 3: deep semi-NMF, then k-means on its last coefficients."""

from __future__ import annotations

from functools import reduce

import numpy as np
from sklearn.utils import gen_batches
from sklearn.utils.extmath import randomized_svd

from reprolib.methods.base import Seed, parameters
from reprolib.methods.classical import ClassicalEstimator, kmeans_labels
from reprolib.methods.nmf import BLOCK_ROWS

_FLOOR = 1e-10
_RANK_TOLERANCE = 1e-10


@parameters
class NMFD(ClassicalEstimator):
    """Deep semi-NMF (Trigeorgis et al., ICML 2014; paper 002, Table 3, NMF-D).

    X (n, d) ~ H Z_m' ... Z_1' in Frobenius norm, H (n, k_m) not negative, Z_i of any sign. Layer by
    layer a semi-NMF of the layer before (Ding et al. 2010, H from an NNDSVD of the absolute
    values), then all factors in turn: each Z_i by pseudo-inverses, H by the multiplicative
    square-root rule. K-means on the rows of H. The hidden H_i, i < m, only start the next layer:
    the joint updates never read them, so they are not updated.

    The defaults are those of paper 002's released script; a layer is no wider than min(n, width
    before it). After `fit` also `embedding_` float32 (n, k_m), `errors_`, the norm of the residual before
    each joint update. Time O(n d k) an iteration, memory O(n (d + k)).
    """

    layers: tuple[int, ...] = (160, 160)  # k_1 ... k_m
    max_iter: int = 500  # of each stage
    tol: float = 1e-5  # relative, of the norm of the residual
    random_state: Seed = 0

    def _cluster(self, features: np.ndarray) -> np.ndarray:
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


def nndsvd_coefficients(X: np.ndarray, rank: int, seed: int) -> np.ndarray:
    """Non-negative H (n, rank) of the NNDSVD of |X| (n, d) (Boutsidis and Gallopoulos 2008)."""
    left, values, right = randomized_svd(np.abs(X), rank, random_state=seed)
    sides, others = ([np.maximum(A, 0), np.maximum(-A, 0)] for A in (left, right.T))
    norms = np.array([np.linalg.norm(side, axis=0) for side in sides])  # (2, rank)
    weights = norms * np.array([np.linalg.norm(other, axis=0) for other in others])
    positive = weights[0] >= weights[1]  # (rank,)
    side, norm = np.where(positive, *sides), np.where(positive, *norms)
    H = np.sqrt(values * weights.max(axis=0)) * side / np.maximum(norm, _FLOOR)
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


def _cross(A: np.ndarray, B: np.ndarray, dtype: type | None = None) -> np.ndarray:
    # float64 sums over blocks: the rounding of one long float32 sum hides the descent
    blocks, dtype = gen_batches(len(A), BLOCK_ROWS), dtype or A.dtype
    return sum((A[r].T.astype(dtype) @ B[r]).astype(np.float64) for r in blocks)


def _inverse(gram: np.ndarray) -> np.ndarray:
    return np.linalg.pinv(gram, rcond=_RANK_TOLERANCE, hermitian=True)
