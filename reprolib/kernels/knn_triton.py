"""The CUDA path of the exact k-NN search: distances and candidate lists in one Triton kernel.

`reprolib.kernels.knn` holds the mathematics. Products of bfloat16 rows run on tensor cores and stay in registers,
where each row keeps a list of its smallest lower bounds: the n x n matrix is never written. A second kernel computes
the candidates' distances again from float32 differences, summed in float64. Rows that the bound cannot settle go to
the CPU path, which is exact for any input.

The product bounds it from d of a few hundred up (`reprolib.kernels.knn.cost`), below that the list of candidates.
"""

import torch
import triton
import triton.language as tl

from reprolib.kernels.knn_cpu import UNIT, knn_cpu, prepare

BLOCK_D = 64
# Tensor cores may truncate where IEEE arithmetic rounds, and align sums before adding them.
TENSOR_CORE_UNIT = 8 * UNIT
INFINITE = tl.constexpr(0x7F800000)  # bits of a float32 infinity


def knn_triton(x: torch.Tensor, k: int) -> tuple[torch.Tensor, torch.Tensor]:
    """k <= 64 nearest other rows of each row of finite, contiguous float32 `x` (n, d) on a GPU.

    Returns squared distances float32 (n, k) and indices int64 (n, k) on the same device.
    """
    n, d = x.shape
    z, bias, offset, slack = whole_tiles(x)
    first, second = candidate_blocks(n, k), rerank_blocks(k)
    if not x.is_cuda:
        second["ROWS"] = 64  # the interpreter's time is the number of programs
    keys = torch.empty(n, first["K"], dtype=torch.int64, device=x.device)
    squared = torch.empty(n, k, device=x.device)
    indices = torch.empty(n, k, dtype=torch.int64, device=x.device)
    # The interpreter computes bfloat16 products wrongly (triton issue 4972), so it gets float32.
    candidates[(triton.cdiv(n, first["BLOCK_N"]),)](z, bias, keys, n, z.shape[1], UPCAST=not x.is_cuda, **first)
    rerank[(triton.cdiv(n, second["ROWS"]),)](x, keys, squared, indices, n, d, k, **second)
    if first["K"] >= n - 1:
        return squared, indices

    reach = (squared[:, -1].double() * (1 + 4 * UNIT)).sqrt() + slack
    bits = (keys.amax(1) >> 32).int()
    score = torch.where(bits < 0, bits ^ 0x7FFFFFFF, bits).view(torch.float32).double()
    settled = score + offset > reach**2 * (1 + 1e-12)
    pending = (~settled).nonzero().ravel()
    if pending.numel():
        rest = knn_cpu(x.cpu().numpy(), k, rows=pending.cpu().numpy())
        squared[pending], indices[pending] = (torch.from_numpy(r).to(x.device) for r in rest)
    return squared, indices


def candidate_blocks(n: int, k: int) -> dict[str, int]:
    """Tile sizes and warps of `candidates`: fewer rows a program when n would leave SMs idle."""
    kept = triton.next_power_of_2(k + 8)
    # The longest list takes the registers of eight warps for 64 rows.
    rows = 128 if n > 32_768 and kept <= 64 else 64
    warps = 8 if kept > 64 else rows // 16
    return {"K": kept, "BLOCK_N": rows, "BLOCK_M": 64, "BLOCK_D": BLOCK_D, "num_warps": warps}


def rerank_blocks(k: int) -> dict[str, int]:
    """Tile sizes and warps of `rerank`: one row a program, a constant number of values at once."""
    kept = triton.next_power_of_2(k + 8)
    return {"K": kept, "ROWS": 1, "BLOCK_D": 1024 // kept, "num_warps": 4}


def whole_tiles(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """`prepare` for `candidates`: bfloat16 rows, padded to whole tiles."""
    return prepare(x, "bfloat16", TENSOR_CORE_UNIT, triton.cdiv(x.shape[1], BLOCK_D) * BLOCK_D)


@triton.jit
def candidates(
    z, bias, keys, n, width,
    K: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_D: tl.constexpr,
    UPCAST: tl.constexpr,
):  # fmt: skip
    """Keys (score bits, index) of the K smallest scores bias_j - 2 z_i . z_j of BLOCK_N rows."""
    rows = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    inner = tl.arange(0, BLOCK_D)
    left = z + rows.to(tl.int64)[:, None] * width + inner[None, :]  # (BLOCK_N, BLOCK_D)
    # Empty slots hold distinct keys, so that exactly one slot is the worst.
    empty = (tl.full((BLOCK_N, K), INFINITE, tl.int64) << 32) | (0x7FFFFFFF - K)
    best = empty + tl.arange(0, K)[None, :]
    worst = tl.max(best, 1)
    for start in range(0, n, BLOCK_M):
        columns = start + tl.arange(0, BLOCK_M)
        right = z + columns.to(tl.int64)[None, :] * width + inner[:, None]  # (BLOCK_D, BLOCK_M)
        product = tl.zeros((BLOCK_N, BLOCK_M), tl.float32)
        for c in range(0, width, BLOCK_D):
            a = tl.load(left + c, mask=rows[:, None] < n, other=0.0)
            b = tl.load(right + c, mask=columns[None, :] < n, other=0.0)
            if UPCAST:
                a = a.to(tl.float32)
                b = b.to(tl.float32)
            product = tl.dot(a, b, product, input_precision="ieee")
        score = tl.load(bias + columns, mask=columns < n, other=0.0)[None, :] - 2.0 * product
        bits = score.to(tl.int32, bitcast=True)
        bits = tl.where(bits < 0, bits ^ 0x7FFFFFFF, bits)  # integers now sort like the scores
        key = (bits.to(tl.int64) << 32) | columns.to(tl.int64)[None, :]
        allowed = (columns[None, :] < n) & (columns[None, :] != rows[:, None])
        key = tl.where(allowed, key, 0x7FFFFFFFFFFFFFFF)
        smallest = tl.min(key, 1)
        while tl.max((smallest < worst).to(tl.int32), 0) > 0:
            entering = (smallest < worst)[:, None] & (best == worst[:, None])
            best = tl.where(entering, smallest[:, None], best)
            key = tl.where(key == smallest[:, None], 0x7FFFFFFFFFFFFFFF, key)
            worst = tl.max(best, 1)
            smallest = tl.min(key, 1)
    slots = keys + rows.to(tl.int64)[:, None] * K + tl.arange(0, K)[None, :]
    tl.store(slots, best, mask=rows[:, None] < n)


@triton.jit
def rerank(
    x, keys, squared, indices, n, d, k,
    K: tl.constexpr, ROWS: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """The k nearest of K candidates by (exact distance, index), for ROWS rows."""
    rows = (tl.program_id(0) * ROWS + tl.arange(0, ROWS)).to(tl.int64)[:, None]  # (ROWS, 1)
    slots = tl.arange(0, K)[None, :]
    inside = rows < n
    key = tl.load(keys + rows * K + slots, mask=inside, other=0x7FFFFFFFFFFFFFFF)  # (ROWS, K)
    present = (key >> 32) < INFINITE
    index = tl.where(present, key & 0x7FFFFFFF, 0)
    total = tl.zeros((ROWS, K), tl.float64)
    for c in range(0, d, BLOCK_D):
        inner = c + tl.arange(0, BLOCK_D)[None, :]
        own = tl.load(x + rows * d + inner, mask=inside & (inner < d), other=0.0)
        there = (present[:, :, None]) & (inner < d)[:, None, :]
        other = tl.load(x + index[:, :, None] * d + inner[:, None, :], mask=there, other=0.0)
        difference = own.to(tl.float64)[:, None, :] - other.to(tl.float64)
        total += tl.sum(difference * difference, 2)
    bits = total.to(tl.float32).to(tl.int32, bitcast=True)  # not negative: sorts like the float
    bits = tl.where(present, bits, INFINITE)
    ranked = tl.sort((bits.to(tl.int64) << 32) | index)
    chosen = inside & (slots < k)
    distance = (ranked >> 32).to(tl.int32).to(tl.float32, bitcast=True)
    tl.store(squared + rows * k + slots, distance, mask=chosen)
    tl.store(indices + rows * k + slots, ranked & 0x7FFFFFFF, mask=chosen)
