r"""The pairwise similarity loss of DCSS, without a B x B temporary kept or saved.

With $w_{ij}$ = -1 for a similar pair, 1 for a dissimilar one, 0 for the rest, and $h_i = \sum_j w_{ij} q_j$, the loss
is the number of similar pairs $+ \sum_i q_i^\top h_i$, and its gradient $2 h_i$: one pass over blocks of $s$ gives the
counts, the loss and the gradient. The loss carries the rounding of its terms, $10^{-7}$ of the similar pairs.
"""

import numpy as np
import torch

BLOCK_ROWS = 256  # handled at once
DEVICE_ROWS = 512  # the same on a GPU, where launches bind: a batch of training is one block


def pairwise_loss(
    q: torch.Tensor, similarity: torch.Tensor | None = None, *, zeta: float = 0.8, gamma: float = 0.2
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Sum over ordered pairs of 1 - q_i.q_j where similar and q_i.q_j where dissimilar.

    `q` (B, K), rows of a softmax, float32 or float64; `similarity` (B, K), the vectors whose inner products decide,
    similar from `zeta` up, else dissimilar up to `gamma`: the memberships of the u space (equation 4), or None for q
    itself (equation 5). Either way the decision carries no gradient. O(B^2 K) time, O(B) memory.

    Returns the scalar loss, differentiable once in q, and the numbers of ordered pairs, i = j too, that are similar
    and dissimilar (Figure 10a). Nothing waits for the device: a value that is not finite makes the loss NaN. Raises
    ValueError (shapes; not 0 <= gamma <= zeta <= 1), TypeError (dtypes). Source: paper 004, equations 4 and 5.
    """
    vectors = q if similarity is None else similarity
    if q.ndim != 2 or q.numel() == 0 or vectors.shape != q.shape:
        raise ValueError(
            f"q and similarity must be 2-D, not empty and of one shape, got {tuple(q.shape)} and {tuple(vectors.shape)}"
        )
    if q.dtype != vectors.dtype or q.dtype not in (torch.float32, torch.float64):
        raise TypeError(f"q and similarity must both be float32 or float64, got {q.dtype}, {vectors.dtype}")
    if not 0 <= gamma <= zeta <= 1:
        raise ValueError(f"thresholds must satisfy 0 <= gamma <= zeta <= 1, got {gamma}, {zeta}")
    # a pair at thresholds that meet, in this dtype, is similar (definition A.1), not both
    number = np.float32 if q.dtype == torch.float32 else np.float64
    gamma = min(gamma, float(np.nextafter(number(zeta), number(-np.inf))))
    with torch.no_grad(), torch.autocast(q.device.type, enabled=False):  # rounded products would decide otherwise
        loss, gradient, n_similar, n_dissimilar = _pairwise_blocks(q, vectors, zeta, gamma)
    linear = torch.dot(gradient.ravel(), q.ravel())  # has the known gradient, and adds nothing
    return loss + (linear - linear.detach()), n_similar, n_dissimilar


def _pairwise_blocks(
    q: torch.Tensor, vectors: torch.Tensor, zeta: float, gamma: float
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Loss, gradient (B, K), both counts."""
    half = torch.zeros_like(q)  # (B, K)
    counts = torch.zeros(2, dtype=torch.int64, device=q.device)
    rows = BLOCK_ROWS if q.device.type == "cpu" else DEVICE_ROWS
    for start in range(0, len(q), rows):
        stop = min(start + rows, len(q))
        own = stop - start
        # Pairs of this block with itself and, for both orders at once, with later rows
        s = vectors[start:stop] @ vectors[start:].T  # (own, B - start)
        masks = s >= zeta, s <= gamma
        counts += torch.stack([2 * m.count_nonzero() - m[:, :own].count_nonzero() for m in masks])
        signs = (masks[1].to(torch.int8) - masks[0].to(torch.int8)).to(q.dtype)
        half[start:stop] += signs @ q[start:]
        half[stop:] += signs[:, own:].T @ q[start:stop]
    loss = counts[0] + (q.double() * half.double()).sum()
    # pairs with NaN are told neither way: 0 times the values keeps what is not finite
    loss = loss + 0.0 * (q.sum() + vectors.sum())
    return loss.to(q.dtype), 2.0 * half, *counts
