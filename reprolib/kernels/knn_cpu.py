"""The CPU path of the exact k-NN search: blocked matrix products and numba selection.

`reprolib.kernels.knn` holds the mathematics, the checks and the public function. Working memory is one centred copy of
the features and one block of products, whatever n.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import numba as nb
import numpy as np
import torch

UNIT = 2.0**-24  # unit roundoff of float32
UNIT_BF16 = 2.0**-8
# Tensor cores may truncate where IEEE arithmetic rounds, and align sums before adding them.
TENSOR_CORE_UNIT = 8 * UNIT
# Products come back in bfloat16 too: |p| (1 + u) is the largest value that rounds to p.
LOSS = {"float32": np.float32(0), "bfloat16": np.float32(2 * UNIT_BF16 * (1 + 2 * UNIT_BF16))}
BLOCK_ROWS, BLOCK_COLUMNS = 2048, 2048
# Candidates beyond k. Fewer send more rows to the second pass, more cost insertions.
SPARE = {"float32": 6, "tf32": 12, "bfloat16": 16}
CHUNK = 32  # scores tested against the running bound at once
EMPTY = 0x7F800000 << 32  # key of an infinite score
FAST = {"reassoc", "contract", "nsz"}  # not nnan, ninf: lists start at infinity


class Bounds(NamedTuple):
    """Lower bound bias_j - 2 p_ij - loss |p_ij| + offset_i of the distance between rounded rows.

    `slack_i` is how much longer than those the true distances of row i can be made by rounding.
    """

    bias: np.ndarray  # float32 (n,)
    offset: np.ndarray  # float64 (n,)
    slack: np.ndarray  # float64 (n,)
    loss: np.float32


def default_precision(n: int, d: int) -> str:
    """Precision of the products: bfloat16 where tile instructions make it fast, else float32."""
    # Older torch cannot tell, and then float32 is right everywhere.
    tiles = getattr(torch.cpu, "get_capabilities", dict)().get("amx_bf16", False)
    # oneDNN leaves small products to loops of its own that need not sum in float32.
    return "bfloat16" if tiles and n >= 2048 and d >= 16 else "float32"


@contextmanager
def torch_threads() -> Iterator[None]:
    """Let numba's loops take as many threads as torch has, and leave torch with that number.

    numba's OpenMP layer sets the number of threads of the whole process; idle threads that spin slow both.
    """
    threads, before = torch.get_num_threads(), nb.get_num_threads()
    nb.set_num_threads(min(threads, nb.config.NUMBA_NUM_THREADS))
    try:
        yield
    finally:
        nb.set_num_threads(before)
        torch.set_num_threads(threads)


@torch_threads()
def knn_cpu(
    x: np.ndarray, k: int, block_rows: int = BLOCK_ROWS, *, rows: np.ndarray | None = None, precision: str | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """k nearest other rows of each row of finite, contiguous float32 `x` (n, d), as in `knn`.

    `rows` int (m,), the rows that ask (default: all); `precision` of the products, "float32" or "bfloat16", changes
    the time and not the result. Returns squared distances float32 (m, k) and indices int64 (m, k).
    """
    n, d = x.shape
    precision = precision or default_precision(n, d)
    z, *parts = prepare(torch.from_numpy(x), precision)
    bounds = Bounds(*(part.numpy() for part in parts), LOSS[precision])
    rows = np.arange(n) if rows is None else rows
    n_kept = min(k + SPARE[precision], n - 1)
    squared, indices = np.empty((rows.size, k), np.float32), np.empty((rows.size, k), np.int64)
    finished = np.zeros(rows.size, np.bool_)

    for start in range(0, rows.size, block_rows):
        part = slice(start, start + block_rows)
        ids = rows[part]
        keys = np.full((ids.size, n_kept), EMPTY, np.int64)
        for first, products, shift in _product_blocks(z, z[ids]):
            _keep_smallest(products, shift, first, ids, bounds, keys)
        _rerank(x, ids, keys, bounds, squared[part], indices[part], finished[part])

    pending = np.flatnonzero(~finished)
    for start in range(0, pending.size, block_rows):
        part = pending[start : start + block_rows]
        ids = rows[part]
        reach = np.sqrt(squared[part, -1] * (1 + 4 * UNIT), dtype=np.float64) + bounds.slack[ids]
        limits = reach**2 * (1 + 1e-12) - bounds.offset[ids]
        exact, found = np.full((ids.size, k), np.inf, np.float32), np.full((ids.size, k), n, np.int64)
        for first, products, shift in _product_blocks(z, z[ids]):
            _rescan(x, products, shift, first, ids, bounds, limits, exact, found)
        squared[part], indices[part] = exact, found
    return squared, indices


def prepare(x: torch.Tensor, precision: str) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Centred rows in the precision of the products; bias, offset and slack of `Bounds`. All on x's device.

    x: float32 (n, d); precision "tf32": float32 rows whose products TF32 does not change.
    """
    n, d = x.shape
    tf32 = precision == "tf32"
    gamma = (d + 8) * (TENSOR_CORE_UNIT if tf32 else UNIT)
    gamma /= 1 - gamma
    centre = x.mean(0, dtype=torch.float64).float()
    z = torch.empty_like(x, dtype=torch.float32 if tf32 else getattr(torch, precision))
    norms, errors = torch.empty(2, n, dtype=torch.float64, device=x.device)
    block = 16_384 if x.is_cuda else 128  # few enough for the cache
    for rows, out, norm, error in zip(*(part.split(block) for part in (x, z, norms, errors)), strict=True):
        out.copy_(rows - centre)
        if tf32:  # 10 bits, to nearest
            out.view(torch.int32).add_(0x1000).bitwise_and_(-0x2000)
        rounded = out.double()
        torch.linalg.vecdot(rounded, rounded, out=norm)
        torch.linalg.vector_norm(rows.double().sub_(centre).sub_(rounded), dim=1, out=error)
    # The last term stands for underflow: tile instructions flush factors and sums to zero.
    offset = norms * (1 - gamma) - (d + 8) * 2.0**-124 * (1 + norms.max().sqrt())
    return z, (norms * (1 - 2 * gamma)).float(), offset, errors + errors.max()


def _product_blocks(z: torch.Tensor, block: torch.Tensor) -> Iterator[tuple[int, np.ndarray, int]]:
    """Yield (first column, products as the high bits of a float32, shift that puts them there).

    Float32 goes through numpy, since torch may be told to round float32 products to bfloat16.
    """
    buffer = torch.empty(len(block) * BLOCK_COLUMNS, dtype=z.dtype)
    for first in range(0, len(z), BLOCK_COLUMNS):
        columns = z[first : first + BLOCK_COLUMNS]
        out = buffer[: len(block) * len(columns)].view(len(block), len(columns))
        if z.dtype == torch.bfloat16:
            torch.mm(block, columns.T, out=out)
            yield first, out.view(torch.uint16).numpy(), 16
        else:
            np.matmul(block.numpy(), columns.numpy().T, out=out.numpy())
            yield first, out.numpy().view(np.uint32), 0


@nb.njit(inline="always")
def _squared_distance(x, i, j):
    total = 0.0
    for c in range(x.shape[1]):
        difference = np.float64(x[i, c]) - np.float64(x[j, c])
        total += difference * difference
    return np.float32(total)


@nb.njit(inline="never", fastmath=FAST)
def _scores(products, shift, first, bounds):
    """Scores of one row of products, float32."""
    bias, loss = bounds.bias[first : first + products.size], bounds.loss
    words = np.empty(products.size, np.uint32)
    for t in range(products.size):
        words[t] = np.uint32(products[t]) << np.uint32(shift)
    values = words.view(np.float32)
    for t in range(products.size):
        p = values[t]
        values[t] = bias[t] - (np.float32(2.0) * p + loss * abs(p))
    return values


@nb.njit(inline="never", fastmath=FAST)
def _count_below(values, limit):
    count = 0
    for t in range(values.size):
        count += np.int32(values[t] < limit)
    return count


@nb.njit(inline="always")
def _insert(distances, neighbors, distance, j):
    """Insert (distance, j) into a list sorted by (distance, index); the last entry falls out."""
    slot = distances.size - 1
    if (distance, j) > (distances[slot], neighbors[slot]):
        return
    while slot > 0 and (distances[slot - 1], neighbors[slot - 1]) > (distance, j):
        distances[slot], neighbors[slot] = distances[slot - 1], neighbors[slot - 1]
        slot -= 1
    distances[slot], neighbors[slot] = distance, j


@nb.njit(inline="always")
def _score_of(key):
    bits = key >> 32
    return np.int32(bits ^ 0x7FFFFFFF if bits < 0 else bits).view(np.float32)


@nb.njit(parallel=True, cache=True, fastmath=FAST)
def _keep_smallest(products, shift, first, ids, bounds, keys):
    """Merge a block of products (rows, columns) into each row's sorted list of smallest scores.

    A key is one integer that sorts like (score, index): the bits of the score above the index.
    """
    n_columns, last = products.shape[1], keys.shape[1] - 1
    for r in nb.prange(ids.size):
        values = _scores(products[r], shift, first, bounds)
        if first <= ids[r] < first + n_columns:
            values[ids[r] - first] = np.inf
        row = keys[r]
        worst = _score_of(row[last])
        for begin in range(0, n_columns, CHUNK):
            chunk = values[begin : begin + CHUNK]
            if _count_below(chunk, worst) == 0:
                continue
            for t in range(chunk.size):
                if chunk[t] < worst:
                    bits = np.int64(np.float32(chunk[t]).view(np.int32))
                    bits = bits ^ 0x7FFFFFFF if bits < 0 else bits
                    key = (bits << 32) | (first + begin + t)
                    slot = last
                    while slot > 0 and row[slot - 1] > key:
                        row[slot] = row[slot - 1]
                        slot -= 1
                    row[slot] = key
                    worst = _score_of(row[last])


@nb.njit(parallel=True, cache=True, fastmath=FAST)
def _rerank(x, ids, keys, bounds, squared, indices, finished):
    """Exact distances of the kept candidates; mark rows that no other row can change."""
    n, k, n_kept = len(x), squared.shape[1], keys.shape[1]
    for r in nb.prange(ids.size):
        i = ids[r]
        squared[r], indices[r], finished[r] = np.inf, n, n_kept == n - 1
        # Scores ascend: one beyond the reach of the k-th distance ends the search.
        for slot in range(n_kept + 1):
            key = keys[r, min(slot, n_kept - 1)]
            reach = math.sqrt(np.float64(squared[r, k - 1]) * (1 + 4 * UNIT)) + bounds.slack[i]
            if np.float64(_score_of(key)) + bounds.offset[i] > reach * reach * (1 + 1e-12):
                finished[r] = True
                break
            if slot < n_kept:
                j = key & 0x7FFFFFFF
                _insert(squared[r], indices[r], _squared_distance(x, i, j), j)


@nb.njit(parallel=True, cache=True, fastmath=FAST)
def _rescan(x, products, shift, first, ids, bounds, limits, squared, indices):
    """Exact distance of every row whose score is within the limit, in the order of the index."""
    k = squared.shape[1]
    for r in nb.prange(ids.size):
        i = ids[r]
        # k duplicates with smaller indices: nothing later can enter.
        if squared[r, k - 1] == 0.0:
            continue
        values = _scores(products[r], shift, first, bounds)
        for t in range(values.size):
            j = first + t
            if values[t] <= limits[r] and j != i:
                _insert(squared[r], indices[r], _squared_distance(x, i, j), j)
                if squared[r, k - 1] == 0.0:
                    break
