r"""Soft assignment of samples to centers: fuzzy memberships, Student-t assignment, the DEC loss.

With $d_{ik} = \lVert u_i - \mu_k \rVert^2$, every assignment here is a softmax over $k$:

- fuzzy memberships (paper 004, equation 2): logits $-\log d_{ik} / (m - 1)$;
- Student-t (DEC: Xie, Girshick and Farhadi 2016, equation 1): logits $-\frac{\alpha + 1}{2} \log(1 + d_{ik} / \alpha)$.

Plain PyTorch on every device: fusing by hand was no faster at the sizes of the papers.
"""

import torch
from torch.nn import functional as F


def squared_distances(u: torch.Tensor, centers: torch.Tensor) -> torch.Tensor:
    """Squared Euclidean distances (n, K) between `u` (n, d) and `centers` (K, d), never negative.

    float32 or float64, differentiable in both. Sums squared differences, so it is accurate for rows close to a center
    and far from the origin, where the expanded product cancels. Raises ValueError (shapes), TypeError (dtypes).
    """
    if u.ndim != 2 or centers.ndim != 2 or u.shape[1] != centers.shape[1] or not centers.numel():
        raise ValueError(
            "u and centers must be 2-D with the same number of features and at least one center, "
            f"got shapes {tuple(u.shape)} and {tuple(centers.shape)}"
        )
    if u.dtype != centers.dtype or u.dtype not in (torch.float32, torch.float64):
        raise TypeError(f"u and centers must both be float32 or both float64, got {u.dtype} and {centers.dtype}")
    # cdist takes differences without an (n, K, d) temporary, and has gradient 0 at distance 0
    return torch.cdist(u, centers, compute_mode="donot_use_mm_for_euclid_dist").square()


@torch.no_grad()
def fuzzy_memberships(u: torch.Tensor, centers: torch.Tensor, m: float = 1.5) -> torch.Tensor:
    """Fuzzy c-means memberships p (n, K), rows sum to one: d_ik^(-1/(m-1)) by row, d_ik squared.

    `u` (n, d), `centers` (K, d) as in `squared_distances`. A sample on one or more centers is shared equally by
    exactly those, the limit. Carries no gradient: the paper weights its losses with constants. Raises ValueError when
    m is not above 1, or infinite. Source: paper 004, equation 2, with its default m.
    """
    if not 1 < m < float("inf"):
        raise ValueError(f"m must be above 1 and finite, got {m}")
    squared = squared_distances(u, centers)  # (n, K)
    nearest = squared.amin(1, keepdim=True)
    # Ratios to the nearest are at least 1, so no m overflows the power; 0 / 0 counts as nearest
    weights = torch.where(squared == nearest, 1.0, squared / nearest).pow(-1.0 / (m - 1.0))
    return weights / weights.sum(1, keepdim=True)


def student_t(u: torch.Tensor, centers: torch.Tensor, alpha: float = 1.0) -> torch.Tensor:
    """Student-t assignment q (n, K) with `alpha` degrees of freedom; rows sum to one.

    `u` (n, d), `centers` (K, d) as in `squared_distances`, differentiable in both. Raises ValueError when alpha is not
    positive. Source: DEC (Xie, Girshick and Farhadi 2016), equation 1; paper 001, equation 2.
    """
    return _logits(u, centers, alpha).softmax(1)


def _logits(u: torch.Tensor, centers: torch.Tensor, alpha: float) -> torch.Tensor:
    if not 0 < alpha < float("inf"):
        raise ValueError(f"alpha must be positive and finite, got {alpha}")
    return torch.log1p(squared_distances(u, centers) / alpha) * (-(alpha + 1.0) / 2.0)


@torch.no_grad()
def target_distribution(q: torch.Tensor) -> torch.Tensor:
    """Sharpened assignment p (n, K): q_ik^2 / f_k normalised by row, with f_k = sum_i q_ik.

    `q` (n, K), rows that sum to one. A cluster without mass stays without mass. No gradient: DEC holds its target
    constant. Raises ValueError (shape). Source: DEC (Xie, Girshick and Farhadi 2016) and paper 001, equation 3 each.
    """
    if q.ndim != 2:
        raise ValueError(f"q must be 2-D (samples, clusters), got shape {tuple(q.shape)}")
    frequency = q.sum(0).clamp_min(torch.finfo(q.dtype).tiny)  # (K,)
    weights = q * (q / frequency)  # the square alone would underflow
    return weights / weights.sum(1, keepdim=True)


def dec_loss(u: torch.Tensor, centers: torch.Tensor, target: torch.Tensor, alpha: float = 1.0) -> torch.Tensor:
    """KL divergence from `student_t(u, centers)` to `target`: sum over clusters, mean over samples.

    `target` (n, K) is not negative, of the dtype of `u`, and held constant. Returns a scalar, differentiable in u and
    centers. Raises ValueError (shapes, no samples, alpha not positive), TypeError (dtypes).

    Source: DEC (Xie, Girshick and Farhadi 2016), equations 2, 4 and 5; DEC sums over samples; paper 001, equation 4.
    """
    logits = _logits(u, centers, alpha)
    if target.shape != logits.shape or len(u) == 0:
        raise ValueError(f"target must have shape {tuple(logits.shape)} with samples, got {tuple(target.shape)}")
    if target.dtype != u.dtype:
        raise TypeError(f"target is {target.dtype} and u is {u.dtype}; convert one of them")
    return F.kl_div(logits.log_softmax(1), target.detach(), reduction="batchmean")
