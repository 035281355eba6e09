"""The CPU path of the exact k-NN search: blocked matrix products and numba selection.

`reprolib.kernels.knn` holds the mathematics, the checks and the public function. Working memory is
one centred copy of the features and one block of scores, whatever n.
"""

from __future__ import annotations

import math

import numba as nb
import numpy as np
import torch

UNIT = 2.0**-24  # unit roundoff of float32
BLOCK_BYTES = 16 * 2**20
BLOCK_COLUMNS = 4096
SPARE = 8  # candidates beyond k; fewer make more rows need the second pass
CHUNK = 32  # scores tested against the running bound at once
FAST = {"reassoc", "contract", "arcp", "nsz"}  # nnan/ninf are left out: bounds start at infinity


def knn_cpu(x: np.ndarray, k: int, block_rows: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    """k nearest other rows of each row of finite, contiguous float32 `x` (n, d), as `knn` defines it.

    Returns squared distances float32 (n, k) and indices int64 (n, k).
    """
    n, d = x.shape
    gamma = (d + 4) * UNIT / (1 - (d + 4) * UNIT)
    z, norms, errors = _centre(x, x.mean(axis=0, dtype=np.float64).astype(np.float32))
    # The bias carries the column's half of the error bound, so that scores are lower bounds.
    bias = torch.from_numpy((norms * (1 - 2 * gamma)).astype(np.float32))
    # Lower bound of a squared distance = score + offset of its row; the last term is for underflow.
    offset = norms * (1 - gamma) - (d + 4) * 2.0**-146
    slack = errors + errors.max()
    features = torch.from_numpy(z)
    columns = min(n, BLOCK_COLUMNS)
    rows = block_rows or max(64, min(n, BLOCK_BYTES // (4 * columns)))
    n_kept = min(k + SPARE, n - 1)
    squared = np.empty((n, k), np.float32)
    indices = np.empty((n, k), np.int64)
    finished = np.zeros(n, np.bool_)

    for start in range(0, n, rows):
        ids = np.arange(start, min(start + rows, n))
        bounds = np.full((ids.size, n_kept), np.inf, np.float32)
        kept = np.full((ids.size, n_kept), -1, np.int32)
        for first, scores in _score_blocks(features, features[start : start + rows], bias, columns):
            _keep_smallest(scores, first, ids, bounds, kept)
        _rerank(x, ids, bounds, kept, offset, slack, squared, indices, finished)

    pending = np.flatnonzero(~finished)
    for start in range(0, pending.size, rows):
        ids = pending[start : start + rows]
        limits = _score_limits(squared[ids, -1], offset[ids], slack[ids])
        squared[ids], indices[ids] = np.inf, n
        for first, scores in _score_blocks(features, features[ids], bias, columns):
            _rescan(x, scores, first, ids, limits, squared, indices)
    return squared, indices


def _score_blocks(features, block, bias, columns):
    """Yield (first column, scores (rows, columns)) with scores = bias_j - 2 z_i . z_j."""
    n = features.shape[0]
    buffer = torch.empty(block.shape[0] * columns)
    for first in range(0, n, columns):
        last = min(first + columns, n)
        out = buffer[: block.shape[0] * (last - first)].view(block.shape[0], last - first)
        torch.addmm(bias[first:last], block, features[first:last].T, alpha=-2.0, out=out)
        yield first, out.numpy()


def _score_limits(largest: np.ndarray, offset: np.ndarray, slack: np.ndarray) -> np.ndarray:
    """Scores above this belong to rows that are farther than `largest`, after all rounding."""
    reach = np.sqrt(largest.astype(np.float64) * (1 + 4 * UNIT)) + slack
    limits = reach**2 * (1 + 1e-12) - offset
    return np.nextafter(limits.astype(np.float32), np.float32(np.inf))


@nb.njit(parallel=True, cache=True, fastmath=FAST)
def _centre(x, centre):
    """z = x - centre in float32, its squared norms, and the norm of its rounding error."""
    n, d = x.shape
    z = np.empty_like(x)
    norms = np.empty(n)
    errors = np.empty(n)
    for i in nb.prange(n):
        total = 0.0
        lost = 0.0
        for j in range(d):
            exact = np.float64(x[i, j]) - np.float64(centre[j])
            z[i, j] = np.float32(exact)
            rounded = np.float64(z[i, j])
            total += rounded * rounded
            lost += (exact - rounded) ** 2
        norms[i] = total
        errors[i] = math.sqrt(lost)
    return z, norms, errors


@nb.njit(inline="always")
def _squared_distance(x, i, j):
    total = 0.0
    for c in range(x.shape[1]):
        difference = np.float64(x[i, c]) - np.float64(x[j, c])
        total += difference * difference
    return np.float32(total)


@nb.njit(parallel=True, cache=True, fastmath=FAST)
def _keep_smallest(scores, first, ids, bounds, kept):
    """Merge a block of scores (rows, columns) into each row's sorted list of smallest scores."""
    n_rows, n_columns = scores.shape
    n_kept = bounds.shape[1]
    for r in nb.prange(n_rows):
        row = scores[r]
        own = ids[r] - first
        if 0 <= own < n_columns:
            row[own] = np.inf
        worst = bounds[r, n_kept - 1]
        for begin in range(0, n_columns, CHUNK):
            end = min(begin + CHUNK, n_columns)
            smallest = np.float32(np.inf)
            for j in range(begin, end):
                smallest = min(smallest, row[j])
            if smallest >= worst:
                continue
            for j in range(begin, end):
                value = row[j]
                if value < worst:
                    slot = n_kept - 1
                    while slot > 0 and bounds[r, slot - 1] > value:
                        bounds[r, slot] = bounds[r, slot - 1]
                        kept[r, slot] = kept[r, slot - 1]
                        slot -= 1
                    bounds[r, slot] = value
                    kept[r, slot] = first + j
                    worst = bounds[r, n_kept - 1]


@nb.njit(inline="always")
def _insert(distances, neighbors, distance, j):
    """Insert (distance, j) into a list sorted by (distance, index); the last entry falls out."""
    slot = distances.shape[0] - 1
    if distance > distances[slot] or (distance == distances[slot] and j > neighbors[slot]):
        return
    while slot > 0 and (
        distances[slot - 1] > distance
        or (distances[slot - 1] == distance and neighbors[slot - 1] > j)
    ):
        distances[slot] = distances[slot - 1]
        neighbors[slot] = neighbors[slot - 1]
        slot -= 1
    distances[slot] = distance
    neighbors[slot] = j


@nb.njit(parallel=True, cache=True, fastmath=FAST)
def _rerank(x, ids, bounds, kept, offset, slack, squared, indices, finished):
    """Exact distances of the kept candidates; mark rows that no other row can change."""
    n, k = x.shape[0], squared.shape[1]
    n_kept = kept.shape[1]
    for r in nb.prange(ids.size):
        i = ids[r]
        for slot in range(k):
            squared[i, slot] = np.inf
            indices[i, slot] = n
        done = n_kept == n - 1
        for slot in range(n_kept):
            largest = np.float64(squared[i, k - 1])
            reach = math.sqrt(largest * (1 + 4 * UNIT)) + slack[i]
            # A score is a lower bound, and later candidates have larger scores.
            if np.float64(bounds[r, slot]) + offset[i] > reach * reach * (1 + 1e-12):
                done = True
                break
            j = kept[r, slot]
            _insert(squared[i], indices[i], _squared_distance(x, i, j), j)
        if not done:
            largest = np.float64(squared[i, k - 1])
            reach = math.sqrt(largest * (1 + 4 * UNIT)) + slack[i]
            done = np.float64(bounds[r, n_kept - 1]) + offset[i] > reach * reach * (1 + 1e-12)
        finished[i] = done


@nb.njit(parallel=True, cache=True, fastmath=FAST)
def _rescan(x, scores, first, ids, limits, squared, indices):
    """Exact distance of every row whose score is within the limit, in the order of the index."""
    k = squared.shape[1]
    for r in nb.prange(ids.size):
        i = ids[r]
        for column in range(scores.shape[1]):
            # k duplicates with smaller indices: nothing later can enter.
            if squared[i, k - 1] == 0.0:
                break
            j = first + column
            if scores[r, column] <= limits[r] and j != i:
                _insert(squared[i], indices[i], _squared_distance(x, i, j), j)
