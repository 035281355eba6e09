r"""The contrastive loss of ProFeat, without a 2b x 2b matrix: positives by cluster, NT-Xent as its special case.

Rows i and b + i of the projections are two views of image i, and $s_{kl}$ is their cosine similarity over $\tau$. An
anchor $k$ with $n_k$ positives costs $n_k \log \sum_m e^{s_{km}} - \sum_l s_{kl}$, over its positives $l$; the gradient
in $s_{kl}$ is $n_k$ times the softmax, less 1 at the positives. A block of anchors has all that its rows need: one pass
over blocks gives the loss and the gradient, nothing is computed twice, and only vectors (2b, d) are kept.
"""

import math

import torch
from torch import Tensor

from reprolib.checks import check_name

BLOCK_IMAGES = 128  # handled at once, with their two views
DEVICE_IMAGES = 512  # the same on a GPU, where launches bind: a batch of training is one block
ANCHORS = ("both", "first")
REDUCTIONS = ("anchor", "pair", "sum")


def contrastive_loss(
    z: Tensor,
    votes: Tensor | None,
    temperature: float,
    *,
    agreeing: int | None = None,
    kept: Tensor | None = None,
    anchors: str = "both",
    reduction: str = "anchor",
) -> Tensor:
    """-log(exp(sim(z_i, z_j) / t) / sum of exp(sim(z_i, z_k) / t) over k other than i), of all positive pairs (i, j).

    `z` (2b, d), two views of each image, i and b + i; the cosine is taken in float32, or in float64 if z is; a row of
    zeros has similarity 0 to all. `votes` integers (b, e), the cluster of each image by each of e models: images are
    connected, all their views being positives, where at least `agreeing` (all, by default) of the e agree. None or no
    column: no two are, which is NT-Xent. The views of one image are always positives, all else is negative. `kept` bool
    (b,): the other images are no anchors, no positives, and not in the sum; it holds the positives.
    `anchors`: "both" views, or the "first" alone, as in the released SCAN code. `reduction`: "anchor", the mean over
    anchors of the mean over their positives; "pair", the mean over pairs; "sum", equation 1 as printed.

    Returns a scalar, differentiable once in z; 0 with gradient 0 where none is kept, NaN where z is not finite. Nothing
    waits for the device. O(b^2 (d + e)) time, O(b d) memory and a block's rows of 2b. Raises ValueError (shapes, names,
    ranges), TypeError (dtypes). Source: paper 000, equations 1 and 3, "more than t_e" read as at least; "anchor" is
    L_out of Khosla et al. 2020.
    """
    if z.ndim != 2 or len(z) % 2 or z.numel() == 0:
        raise ValueError(f"z must be (2b, d), the second views below the first, and not empty, got {tuple(z.shape)}")
    if not z.is_floating_point():
        raise TypeError(f"z must be floating point, got {z.dtype}")
    if not 0 < temperature < math.inf:
        raise ValueError(f"temperature must be positive and finite, got {temperature}")
    check_name("anchors", anchors, ANCHORS)
    check_name("reduction", reduction, REDUCTIONS)
    relation = _checked(votes, agreeing, kept, len(z) // 2, z.device)
    with torch.autocast(z.device.type, enabled=False):
        u = z if z.dtype == torch.float64 else z.float()
        norm = torch.linalg.vector_norm(u, dim=1, keepdim=True)
        u = u / norm.where(norm != 0, 1.0)
        wanted = u if u.requires_grad and torch.is_grad_enabled() else None
        with torch.no_grad():
            loss, gradient = _over_blocks(u, *relation, temperature, 1 + (anchors == "both"), reduction, wanted is None)
        if wanted is None:
            return loss
        linear = torch.dot(gradient.ravel(), u.ravel())  # has the known gradient, and adds nothing
        return loss + (linear - linear.detach())


def agreement(votes: Tensor, others: Tensor) -> Tensor:
    """How many of e models put an image of `votes` (a, e) and one of `others` (b, e) together: int16 (a, b).

    Source: paper 000, equation 3. What a model calls a cluster is its own affair.
    """
    found = torch.zeros(len(votes), len(others), dtype=torch.int16, device=votes.device)
    for mine, theirs in zip(votes.T.contiguous(), others.T.contiguous(), strict=True):
        found += mine[:, None] == theirs
    return found


def connections(votes: Tensor, agreeing: int | None = None, kept: Tensor | None = None) -> Tensor:
    """Number of other images that each is connected with, int64 (b,), among the kept ones; of those not kept 0.

    Arguments and errors as of `contrastive_loss`; in blocks, without a wait. Source: paper 000, section 2.4.
    """
    votes, agreeing, kept = _checked(votes, agreeing, kept, len(votes), votes.device)
    blocks = votes.split(_block_size(votes.device))
    counts = torch.cat([((agreement(block, votes) >= agreeing) & kept).sum(1) for block in blocks])
    return (counts - 1) * kept  # each is connected with itself


def well_connected(votes: Tensor, threshold: int, agreeing: int | None = None, kept: Tensor | None = None) -> Tensor:
    """The kept images (b,) bool with at least `threshold` connections, 1 at the least: what section 2.4 leaves in C_x.

    Counted once, before any is discarded: what is left may have fewer. Source: paper 000, section 2.4, t_c.
    """
    return connections(votes, agreeing, kept) >= max(threshold, 1)


def _block_size(device: torch.device) -> int:
    return BLOCK_IMAGES if device.type == "cpu" else DEVICE_IMAGES


def _checked(
    votes: Tensor | None, agreeing: int | None, kept: Tensor | None, b: int, device: torch.device
) -> tuple[Tensor, int, Tensor]:
    """Votes (b, e), each image its own cluster where there are none; how many must agree; kept (b,)."""
    if votes is None or votes.ndim == 2 and votes.shape[1] == 0:
        votes, agreeing = torch.arange(b, device=device)[:, None], None
    kept = torch.ones(b, dtype=torch.bool, device=device) if kept is None else kept
    if votes.ndim != 2 or len(votes) != b or kept.shape != (b,):
        said = f"votes ({b}, e) and kept ({b},)"
        raise ValueError(f"{b} images need {said}, got {tuple(votes.shape)} and {tuple(kept.shape)}")
    if votes.is_floating_point() or votes.is_complex() or kept.dtype != torch.bool:
        raise TypeError(f"votes must be integers and kept bool, got {votes.dtype} and {kept.dtype}")
    e = votes.shape[1]
    agreeing = e if agreeing is None else agreeing
    if not 1 <= agreeing <= e:
        raise ValueError(f"agreeing must be from 1 to the {e} models that vote, got {agreeing}")
    return votes, agreeing, kept


def _over_blocks(
    u: Tensor,
    votes: Tensor,
    agreeing: int,
    kept: Tensor,
    temperature: float,
    views: int,
    reduction: str,
    value_alone: bool,
) -> tuple[Tensor, Tensor]:
    """The loss, and its gradient (2b, d) in the unit vectors u."""
    b, d = len(kept), u.shape[1]
    each = u.view(2, b, d)
    both = each[0] + each[1]  # (b, d)
    # -inf for who is not in the sum; with none kept all stay, for numbers that the weights make 0
    absent = u.new_zeros(b).masked_fill_(~kept & kept.any(), -math.inf).repeat(2)  # (2b,)
    gradient = torch.zeros_like(u)
    loss, n_pairs = u.new_zeros(2)
    size = _block_size(u.device)
    for start in range(0, b, size):
        block = slice(start, start + size)
        x = each[:views, block]  # (views, own, d), the anchors
        s = torch.addmm(absent, x.reshape(-1, d), u.T, alpha=1 / temperature).view(views, -1, 2 * b)
        by_view = s.view(views, -1, 2, b)
        for v in range(views):
            by_view[v, :, v].diagonal(start).fill_(-math.inf)  # itself
        positive = (agreement(votes[block], votes) >= agreeing) & kept[block, None] & kept
        positive = positive.to(u.dtype)  # (own, b), for each pair of views, and for an anchor and itself
        own_kept = kept[block].to(u.dtype)
        n = 2 * positive.sum(1) - own_kept  # (own,)
        weight = 1 / n.clamp_min(1) if reduction == "anchor" else torch.ones_like(n)
        top = s.amax(2)
        total = s.sub_(top[:, :, None]).exp_().sum(2)  # (views, own)
        pulled = (positive @ both * x).sum(2) - own_kept * x.square().sum(2)  # sum of u_k.u_l over the positives l
        loss += (weight * (n * (total.log() + top) - pulled / temperature)).sum()
        n_pairs += n.sum()
        if value_alone:
            continue
        s.mul_((weight * n / total)[:, :, None])
        # the pull of an anchor on itself stays: it is along the unit vector, where the normalisation has no slope
        by_view.sub_((weight[:, None] * positive)[:, None])
        gradient.view(2, b, d)[:views, block] += s @ u
        gradient.addmm_(s.view(-1, 2 * b).T, x.reshape(-1, d))
    if reduction == "sum":
        return loss, gradient / temperature
    n_terms = views * (kept.sum() if reduction == "anchor" else n_pairs).clamp_min(1)
    return loss / n_terms, gradient / n_terms / temperature  # an integer tensor times a number would be float32
