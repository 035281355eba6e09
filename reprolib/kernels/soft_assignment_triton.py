"""The CUDA path of the soft assignments: one pass over the samples for each Triton kernel.

`reprolib.kernels.soft_assignment` holds the mathematics. A program holds 64 samples and all centers:
squared differences are summed a few features at a time into a tile of distances in registers, and
the softmax, the loss and the gradients are formed there. The (n, K, d) differences are never written.
Sums over samples (the loss, the gradient of the centers) leave one partial result a program, added
afterwards in a fixed order, so that a run gives the same bits again; atomics would not.

Cost: `reprolib.kernels.soft_assignment.cost`. Below a few thousand samples the launches bind: two
forward, two backward. At n = 70,000 with 10 centers and 10 features on sm_90 the bytes do: expected
share of the bandwidth one third, not measured. With many centers and features the shuffles of the
reductions bind: expected share of the float32 peak one tenth, not measured.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

ROWS = 64


def memberships(u: torch.Tensor, centers: torch.Tensor, m: float) -> torch.Tensor:
    """`fuzzy_memberships` of float32 `u` (n, d), `centers` (K, d), both at most 128 wide."""
    u, centers = u.contiguous(), centers.contiguous()
    (n, d), k = u.shape, len(centers)
    p = torch.empty(n, k, device=u.device)
    fuzzy[(triton.cdiv(n, ROWS),)](u, centers, p, n, d, k, -1.0 / (m - 1.0), **blocks(k))
    return p


def dec_forward(
    u: torch.Tensor, centers: torch.Tensor, target: torch.Tensor, alpha: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """The loss, a scalar, and q (n, K)."""
    u, centers, target = u.contiguous(), centers.contiguous(), target.contiguous()
    (n, d), k = u.shape, len(centers)
    programs = triton.cdiv(n, ROWS)
    q = torch.empty(n, k, device=u.device)
    partial = torch.empty(programs, device=u.device)
    divergence[(programs,)](u, centers, target, q, partial, n, d, k, float(alpha), **blocks(k))
    return partial.sum() / n, q


def dec_backward(
    u: torch.Tensor,
    centers: torch.Tensor,
    target: torch.Tensor,
    q: torch.Tensor,
    alpha: float,
    grad: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Gradients (n, d) of u and (K, d) of the centers, times the scalar `grad`."""
    u, centers, target = u.contiguous(), centers.contiguous(), target.contiguous()
    (n, d), k = u.shape, len(centers)
    programs = triton.cdiv(n, ROWS)
    du = torch.empty(n, d, device=u.device)
    partial = torch.empty(programs, k, d, device=u.device)
    pulls[(programs,)](u, centers, target, q, grad, du, partial, n, d, k, float(alpha), **blocks(k))
    return du, partial.sum(0)


def blocks(k: int) -> dict[str, int]:
    """Tile sizes and warps for k centers: at most 32 differences a thread, 16 with many centers."""
    padded = max(2, triton.next_power_of_2(k))
    features = max(1, min(8, 64 // padded))
    return {"ROWS": ROWS, "K": padded, "F": features, "num_warps": 16 if padded > 32 else 4}


@triton.jit
def differences(u, centers, rows, clusters, c, n, d, k, F: tl.constexpr):
    """u_i - mu_k for features c to c + F: (ROWS, K, F), zero beyond feature d."""
    inner = c + tl.arange(0, F)[None, :]
    own = tl.load(u + rows[:, None] * d + inner, mask=(rows[:, None] < n) & (inner < d), other=0.0)
    there = (clusters[:, None] < k) & (inner < d)
    center = tl.load(centers + clusters[:, None] * d + inner, mask=there, other=0.0)
    return own[:, None, :] - center[None, :, :]


@triton.jit
def squares(
    u, centers, rows, clusters, n, d, k,
    ROWS: tl.constexpr, K: tl.constexpr, F: tl.constexpr,
):  # fmt: skip
    """Squared distances (ROWS, K), summed from differences."""
    total = tl.zeros((ROWS, K), tl.float32)
    for c in range(0, d, F):
        difference = differences(u, centers, rows, clusters, c, n, d, k, F)
        total += tl.sum(difference * difference, 2)
    return total


@triton.jit
def fuzzy(
    u, centers, p, n, d, k, exponent,
    ROWS: tl.constexpr, K: tl.constexpr, F: tl.constexpr,
):  # fmt: skip
    """Memberships of ROWS samples: powers of the ratios to the nearest distance, by row."""
    rows = (tl.program_id(0) * ROWS + tl.arange(0, ROWS)).to(tl.int64)
    clusters = tl.arange(0, K)
    squared = squares(u, centers, rows, clusters, n, d, k, ROWS, K, F)
    squared = tl.where(clusters[None, :] < k, squared, float("inf"))
    nearest = tl.min(squared, 1)[:, None]
    ratio = tl.where(squared == nearest, 1.0, squared / nearest)
    weights = tl.where(clusters[None, :] < k, tl.exp2(exponent * tl.log2(ratio)), 0.0)
    there = (rows[:, None] < n) & (clusters[None, :] < k)
    place = rows[:, None] * k + clusters[None, :]
    tl.store(p + place, weights / tl.sum(weights, 1)[:, None], mask=there)


@triton.jit
def divergence(
    u, centers, target, q, partial, n, d, k, alpha,
    ROWS: tl.constexpr, K: tl.constexpr, F: tl.constexpr,
):  # fmt: skip
    """q of ROWS samples, and the sum of their divergences from the target."""
    rows = (tl.program_id(0) * ROWS + tl.arange(0, ROWS)).to(tl.int64)
    clusters = tl.arange(0, K)
    squared = squares(u, centers, rows, clusters, n, d, k, ROWS, K, F)
    logits = -0.5 * (alpha + 1.0) * tl.log(1.0 + squared / alpha)
    logits = tl.where(clusters[None, :] < k, logits, float("-inf"))
    logits -= tl.max(logits, 1)[:, None]
    weights = tl.exp(logits)
    total = tl.sum(weights, 1)[:, None]
    there = (rows[:, None] < n) & (clusters[None, :] < k)
    place = rows[:, None] * k + clusters[None, :]
    tl.store(q + place, weights / total, mask=there)
    p = tl.load(target + place, mask=there, other=0.0)
    terms = tl.where(p > 0.0, p * (tl.log(p) - logits + tl.log(total)), 0.0)
    tl.store(partial + tl.program_id(0), tl.sum(tl.sum(terms, 1), 0))


@triton.jit
def pulls(
    u, centers, target, q, grad, du, partial, n, d, k, alpha,
    ROWS: tl.constexpr, K: tl.constexpr, F: tl.constexpr,
):  # fmt: skip
    """Gradient of ROWS samples, and what they add to the gradient of the centers."""
    rows = (tl.program_id(0) * ROWS + tl.arange(0, ROWS)).to(tl.int64)
    clusters = tl.arange(0, K)
    squared = squares(u, centers, rows, clusters, n, d, k, ROWS, K, F)
    there = (rows[:, None] < n) & (clusters[None, :] < k)
    place = rows[:, None] * k + clusters[None, :]
    p = tl.load(target + place, mask=there, other=0.0)
    excess = p - tl.load(q + place, mask=there, other=0.0) * tl.sum(p, 1)[:, None]
    scale = tl.load(grad) * (alpha + 1.0) / (alpha * n)
    weights = scale * excess / (1.0 + squared / alpha)
    slab = partial + tl.program_id(0).to(tl.int64) * k * d
    for c in range(0, d, F):
        pull = weights[:, :, None] * differences(u, centers, rows, clusters, c, n, d, k, F)
        inner = c + tl.arange(0, F)[None, :]
        outside = du + rows[:, None] * d + inner
        tl.store(outside, tl.sum(pull, 1), mask=(rows[:, None] < n) & (inner < d))
        shared = slab + clusters[:, None] * d + inner
        tl.store(shared, -tl.sum(pull, 0), mask=(clusters[:, None] < k) & (inner < d))
