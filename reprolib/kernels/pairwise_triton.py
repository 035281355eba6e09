"""The CUDA path of the pairwise similarity loss: tiles of rows and columns in one Triton kernel.

`reprolib.kernels.pairwise` holds the mathematics. A program holds a tile of rows and walks over all columns: a tile of
similarities becomes signs and counts in registers, and the product of the signs with q adds to half the gradient, also
in registers. Nothing of size B x B reaches memory. Products are IEEE float32, so that a decision at a threshold does
not depend on tensor cores. Counts and shares of the loss are added afterwards in a fixed order, in float64.

At a few hundred rows launches bind, from ten thousand the products: see the page on kernels.
"""

import torch
import triton
import triton.language as tl


def pairwise_triton(
    q: torch.Tensor, similarity: torch.Tensor | None, zeta: float, gamma: float
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Loss, gradient (B, K), both counts; float32, K <= 128. The loss is NaN if a value is not finite."""
    q = q.contiguous()
    vectors = q if similarity is None else similarity.contiguous()
    b, k = q.shape
    block = blocks(b, k)
    programs = triton.cdiv(b, block["ROWS"])
    gradient = torch.empty(b, k, device=q.device)
    partial = torch.empty(programs, 4, dtype=torch.float64, device=q.device)
    separate = similarity is not None
    pairs[(programs,)](q, vectors, gradient, partial, b, k, float(zeta), float(gamma), SEPARATE=separate, **block)
    n_similar, n_dissimilar, n_bad, dots = partial.sum(0)
    loss = torch.where(n_bad > 0, torch.nan, n_similar + dots).float()
    return loss, gradient, n_similar.long(), n_dissimilar.long()


def blocks(b: int, k: int) -> dict[str, int]:
    """Tile sizes and warps: few rows a program while b would leave SMs idle, or k fill registers."""
    padded = max(16, triton.next_power_of_2(k))
    rows, columns, warps = (64, 64, 8) if b > 8192 and padded == 16 else (16, 32, 4)
    return {"ROWS": rows, "COLUMNS": columns, "K": padded, "num_warps": warps}


@triton.jit
def pairs(
    q, vectors, gradient, partial, b, k, zeta, gamma,
    SEPARATE: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr, K: tl.constexpr,
):  # fmt: skip
    """Gradient of ROWS rows; their similar and dissimilar pairs, values not finite, and q . h."""
    rows = (tl.program_id(0) * ROWS + tl.arange(0, ROWS)).to(tl.int64)
    clusters = tl.arange(0, K)
    place = rows[:, None] * k + clusters[None, :]
    there = (rows[:, None] < b) & (clusters[None, :] < k)
    own = tl.load(q + place, mask=there, other=0.0)  # (ROWS, K)
    left = tl.load(vectors + place, mask=there, other=0.0) if SEPARATE else own
    half = tl.zeros((ROWS, K), tl.float32)
    similar = tl.zeros((ROWS,), tl.int32)
    dissimilar = tl.zeros((ROWS,), tl.int32)
    for start in range(0, b, COLUMNS):
        columns = (start + tl.arange(0, COLUMNS)).to(tl.int64)
        across = (columns[:, None] < b) & (clusters[None, :] < k)
        spot = columns[:, None] * k + clusters[None, :]
        other = tl.load(q + spot, mask=across, other=0.0)  # (COLUMNS, K)
        right = tl.load(vectors + spot, mask=across, other=0.0) if SEPARATE else other
        s = tl.dot(left, tl.trans(right), input_precision="ieee")  # (ROWS, COLUMNS)
        pair = (rows[:, None] < b) & (columns[None, :] < b)
        near = (pair & (s >= zeta)).to(tl.int32)
        far = (pair & (s <= gamma)).to(tl.int32)
        similar += tl.sum(near, 1)
        dissimilar += tl.sum(far, 1)
        half = tl.dot((far - near).to(tl.float32), other, half, input_precision="ieee")
    tl.store(gradient + place, 2.0 * half, mask=there)
    # x - x is 0 for finite x alone
    bad = ((own - own != 0.0) | (left - left != 0.0)).to(tl.int32)
    dot = own.to(tl.float64) * half.to(tl.float64)
    row = partial + tl.program_id(0).to(tl.int64) * 4
    tl.store(row, tl.sum(similar.to(tl.float64), 0))
    tl.store(row + 1, tl.sum(dissimilar.to(tl.float64), 0))
    tl.store(row + 2, tl.sum(tl.sum(bad, 1), 0).to(tl.float64))
    tl.store(row + 3, tl.sum(tl.sum(dot, 1), 0))
