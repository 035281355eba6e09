r"""Soft assignment of samples to centers: fuzzy memberships, Student-t assignment, the DEC loss.

With $d_{ik} = \lVert u_i - \mu_k \rVert^2$, every assignment here is a softmax over $k$:

- fuzzy memberships (paper 004, equation 2): logits $-\log d_{ik} / (m - 1)$;
- Student-t (DEC: Xie, Girshick and Farhadi 2016, equation 1): logits
  $-\frac{\alpha + 1}{2} \log(1 + d_{ik} / \alpha)$.

On a CUDA device float32 goes to `reprolib.kernels.soft_assignment_triton`, for at most 128 centers
and 128 features. Its DEC loss keeps $q$ alone between its passes; the backward pass computes the
distances again and applies

$$\frac{\partial L}{\partial d_{ik}} = \frac{\alpha + 1}{2 \alpha n}
\frac{p_{ik} - q_{ik} \sum_j p_{ij}}{1 + d_{ik} / \alpha},$$

which gives DEC's equations 4 and 5 with $\partial d_{ik} / \partial u_i = 2 (u_i - \mu_k)$ and
$\sum_j p_{ij} = 1$. Anything else is plain PyTorch, which is faster on a processor than this by hand.
"""

from __future__ import annotations

import os

import torch
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

TRITON_LIMIT = 128  # clusters and features of one tile


def squared_distances(u: torch.Tensor, centers: torch.Tensor) -> torch.Tensor:
    """Squared Euclidean distances (n, K) between `u` (n, d) and `centers` (K, d), never negative.

    float32 or float64, differentiable in both. Sums squared differences, so it is accurate for rows
    close to a center and far from the origin, where the expanded product cancels. O(nKd) time, O(nK)
    memory. Raises ValueError (shapes), TypeError (dtypes).
    """
    _check(u, centers)
    # cdist takes differences without an (n, K, d) temporary, and has gradient 0 at distance 0
    return torch.cdist(u, centers, compute_mode="donot_use_mm_for_euclid_dist").square()


@torch.no_grad()
def fuzzy_memberships(u: torch.Tensor, centers: torch.Tensor, m: float = 1.5) -> torch.Tensor:
    """Fuzzy c-means memberships p (n, K), rows sum to one: d_ik^(-1/(m-1)) by row, d_ik squared.

    `u` (n, d), `centers` (K, d), float32 or float64. A sample on one or more centers is shared equally
    by exactly those, the limit. Carries no gradient: the paper weights its losses with constants.
    Raises ValueError (shapes; m not above 1, or infinite), TypeError (dtypes). O(nKd) time.

    Source: paper 004, equation 2, with its default m.
    """
    _check(u, centers)
    if not 1 < m < float("inf"):
        raise ValueError(f"m must be above 1 and finite, got {m}")
    if takes_triton(u, *centers.shape):
        from reprolib.kernels.soft_assignment_triton import memberships

        return memberships(u, centers, m)
    squared = squared_distances(u, centers)  # (n, K)
    nearest = squared.amin(1, keepdim=True)
    # Ratios to the nearest are at least 1, so no m overflows the power; 0 / 0 counts as nearest
    ratio = torch.where(squared == nearest, 1.0, squared / nearest)
    weights = ratio.pow(-1.0 / (m - 1.0))
    return weights / weights.sum(1, keepdim=True)


def student_t(u: torch.Tensor, centers: torch.Tensor, alpha: float = 1.0) -> torch.Tensor:
    """Student-t assignment q (n, K) with `alpha` degrees of freedom; rows sum to one.

    `u` (n, d), `centers` (K, d), float32 or float64, differentiable in both. Raises ValueError (shapes,
    alpha not positive), TypeError (dtypes). O(nKd) time.

    Source: DEC (Xie, Girshick and Farhadi 2016), equation 1.
    """
    _check_alpha(alpha)
    return F.softmax(_logits(squared_distances(u, centers), alpha), dim=1)


@torch.no_grad()
def target_distribution(q: torch.Tensor) -> torch.Tensor:
    """Sharpened assignment p (n, K): q_ik^2 / f_k normalised by row, with f_k = sum_i q_ik.

    `q` (n, K), rows that sum to one. A cluster without mass stays without mass. No gradient: DEC
    holds its target constant. O(nK). Raises ValueError (shape).

    Source: DEC (Xie, Girshick and Farhadi 2016), equation 3.
    """
    if q.ndim != 2:
        raise ValueError(f"q must be 2-D (samples, clusters), got shape {tuple(q.shape)}")
    frequency = q.sum(0).clamp_min(torch.finfo(q.dtype).tiny)  # (K,)
    weights = q * (q / frequency)  # the square alone would underflow
    return weights / weights.sum(1, keepdim=True)


def dec_loss(
    u: torch.Tensor, centers: torch.Tensor, target: torch.Tensor, alpha: float = 1.0
) -> torch.Tensor:
    """KL divergence from `student_t(u, centers)` to `target`: sum over clusters, mean over samples.

    `u` (n, d), `centers` (K, d), `target` (n, K) not negative and held constant; float32 or float64, one
    dtype. Returns a scalar, differentiable once in u and centers. Raises
    ValueError (shapes, no samples, alpha not positive), TypeError (dtypes). Cost: `cost`.

    Source: DEC (Xie, Girshick and Farhadi 2016), equations 2, 4 and 5; DEC sums over samples.
    """
    _check(u, centers)
    _check_alpha(alpha)
    expected = (len(u), len(centers))
    if tuple(target.shape) != expected or len(u) == 0:
        raise ValueError(
            f"target must have shape {expected} with samples, got {tuple(target.shape)}"
        )
    if target.dtype != u.dtype:
        raise TypeError(f"target is {target.dtype} and u is {u.dtype}; convert one of them")
    if takes_triton(u, *centers.shape):
        return _TritonDecLoss.apply(u, centers, target.detach(), alpha)
    log_q = F.log_softmax(_logits(squared_distances(u, centers), alpha), dim=1)
    return F.kl_div(log_q, target.detach(), reduction="batchmean")


def cost(n: int, d: int, k: int) -> dict[str, float]:
    """FLOPs and float32 bytes of one forward and backward pass of `dec_loss`.

    `flops`: distances twice, 3 n k d each, and the weighted differences summed over samples and over
    centers, 4 n k d. `bytes`: the forward pass reads u and the target and writes q, the backward pass
    reads all three and writes the gradient of u; centers and their gradient count once a pass.
    `memberships_flops` and `memberships_bytes`: `fuzzy_memberships`, which reads u and writes p.
    """
    return {
        "flops": 10.0 * n * k * d,
        "bytes": 4.0 * (3 * n * d + 4 * n * k + 3 * k * d),
        "memberships_flops": 3.0 * n * k * d,
        "memberships_bytes": 4.0 * (n * d + n * k + k * d),
    }


class _TritonDecLoss(torch.autograd.Function):
    @staticmethod
    def forward(ctx, u, centers, target, alpha):
        from reprolib.kernels.soft_assignment_triton import dec_forward

        loss, q = dec_forward(u, centers, target, alpha)
        ctx.save_for_backward(u, centers, target, q)
        ctx.alpha = alpha
        return loss

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        from reprolib.kernels.soft_assignment_triton import dec_backward

        return *dec_backward(*ctx.saved_tensors, ctx.alpha, grad), None, None


def _logits(squared: torch.Tensor, alpha: float) -> torch.Tensor:
    return torch.log1p(squared / alpha) * (-(alpha + 1.0) / 2.0)


def takes_triton(rows: torch.Tensor, *sizes: int) -> bool:
    """Whether these rows go to a Triton kernel: float32 on a device, and the sizes fit one tile."""
    on_device = rows.is_cuda or os.environ.get("TRITON_INTERPRET") == "1"
    return on_device and rows.dtype == torch.float32 and max(sizes) <= TRITON_LIMIT


def _check(u: torch.Tensor, centers: torch.Tensor) -> None:
    if u.ndim != 2 or centers.ndim != 2 or u.shape[1] != centers.shape[1] or not centers.numel():
        raise ValueError(
            "u and centers must be 2-D with the same number of features and at least one center, "
            f"got shapes {tuple(u.shape)} and {tuple(centers.shape)}"
        )
    if u.dtype != centers.dtype or u.dtype not in (torch.float32, torch.float64):
        raise TypeError(
            f"u and centers must both be float32 or both float64, got {u.dtype} and {centers.dtype}"
        )


def _check_alpha(alpha: float) -> None:
    if not 0 < alpha < float("inf"):
        raise ValueError(f"alpha must be positive and finite, got {alpha}")
