"""Losses of the five papers; here the weighted triplet loss of paper 002, equation 11."""

from typing import NamedTuple

import torch
from torch.nn import functional as F

TRIPLET_LOSSES = ("hinge", "linear", "affinity")
NEGATIVES = ("random", "nearest")


class Triplets(NamedTuple):
    """Index arrays int64: anchors and positives (p,), and the negatives of each pair (p, q)."""

    anchor: torch.Tensor
    positive: torch.Tensor
    negative: torch.Tensor


def squared_distances(unit_vectors: torch.Tensor, others: torch.Tensor) -> torch.Tensor:
    """Squared Euclidean distances (a, b) between unit vectors (a, d) and (b, d), in [0, 4]."""
    return (2.0 - 2.0 * unit_vectors @ others.T).clamp(0.0, 4.0)


def sample_triplets(
    labels: torch.Tensor,
    n_negatives: int,
    *,
    negatives: str = "nearest",
    distances: torch.Tensor | None = None,
    ordered: bool = True,
    generator: torch.Generator | None = None,
) -> Triplets:
    """Triplets within a batch for equation 11 (paper 002, section 3.5.2).

    `labels` int64 (b,) cluster ids. Positives: every pair of one cluster, in both orders if `ordered`.
    Negatives: "nearest" takes the `n_negatives` samples of other clusters nearest to the anchor by
    `distances` (b, b), as the paper says; "random" draws them without replacement and at most one less
    than there are clusters in the batch, as the released codes do. Fewer are taken when the batch has
    fewer samples outside a cluster; none when it has no pair, or one cluster only.
    """
    same = labels[:, None] == labels[None, :]  # (b, b)
    pairs = same.triu(1) if not ordered else same ^ torch.eye(len(labels), dtype=torch.bool)
    anchor, positive = torch.nonzero(pairs, as_tuple=True)  # (p,)
    q = min(n_negatives, int((~same).sum(1).min()))
    if negatives == "random":
        q = min(q, len(torch.unique(labels)) - 1)
    if q == 0 or len(anchor) == 0:
        return Triplets(anchor[:0], positive[:0], anchor[:0].reshape(0, 0))
    if negatives == "nearest":
        order = distances.detach().masked_fill(same, torch.inf).topk(q, largest=False).indices
        return Triplets(anchor, positive, order[anchor])  # (p, q)
    keys = torch.rand(len(anchor), len(labels), generator=generator)
    return Triplets(anchor, positive, keys.masked_fill(same[anchor], -1.0).topk(q).indices)


def weighted_triplet_loss(
    distances: torch.Tensor,
    triplets: Triplets,
    *,
    kind: str = "linear",
    gamma: float = 2.0,
    margin: float = 0.0,
    sigma2: float = 1.0,
) -> torch.Tensor:
    """Mean over triplets of the weighted triplet loss (paper 002, equations 10 and 11), a scalar.

    `distances` (b, b) squared, `gamma` the weight of the positive pair. The affinity of two samples is
    exp(-d^2 / `sigma2`) in "affinity", as in equation 4, and -d^2, its first order, in "linear":
    gamma d^2(i, j) - d^2(i, k). "hinge" is the released code's max(0, linear + `margin`).
    """
    near = distances[triplets.anchor, triplets.positive][:, None]  # (p, 1)
    far = distances[triplets.anchor[:, None], triplets.negative]  # (p, q)
    if kind == "affinity":
        return (torch.exp(-far / sigma2) - gamma * torch.exp(-near / sigma2)).mean()
    linear = gamma * near - far
    return F.relu(linear + margin).mean() if kind == "hinge" else linear.mean()
