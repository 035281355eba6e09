"""Triplets within a batch, for the weighted triplet loss of paper 002."""

from typing import NamedTuple

import numpy as np
import torch


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

    `labels` int (b,) cluster ids, on the host. Positives: every pair of one cluster, in both orders if `ordered`.
    Negatives: "nearest" takes the `n_negatives` samples of other clusters nearest to the anchor by `distances` (b, b),
    as the paper says; "random" draws them without replacement and at most one less than there are clusters in the
    batch, as the released codes do. Fewer are taken when the batch has fewer samples outside a cluster; none when it
    has no pair, or one cluster only. The triplets come on the device of `distances`, which is not waited for.
    """
    same = labels[:, None] == labels  # (b, b)
    pairs = same & ~torch.eye(len(labels), dtype=torch.bool) if ordered else same.triu(1)
    anchor, positive = pairs.nonzero(as_tuple=True)  # (p,)
    q = min(n_negatives, int((~same).numpy().sum(1).min()))  # no read of a tensor: it would count as a wait
    if negatives == "random":
        q = min(q, len(np.unique(labels.numpy())) - 1)
    device = labels.device if distances is None else distances.device
    if q == 0 or len(anchor) == 0:
        empty = anchor[:0].to(device)
        return Triplets(empty, empty, empty.reshape(0, 0))
    if negatives == "nearest":
        others = distances.detach().masked_fill(same.to(device), torch.inf)
        order = others.topk(q, largest=False).indices
        anchor = anchor.to(device)
        return Triplets(anchor, positive.to(device), order[anchor])  # (p, q)
    keys = torch.rand(len(anchor), len(labels), generator=generator)
    drawn = keys.masked_fill(same[anchor], -1.0).topk(q).indices
    return Triplets(anchor.to(device), positive.to(device), drawn.to(device))


def triplet_mask(
    labels: torch.Tensor,
    n_negatives: int,
    *,
    negatives: str = "nearest",
    distances: torch.Tensor,
    ordered: bool = True,
    generator: torch.Generator | None = None,
) -> torch.Tensor:
    """The triplets of `sample_triplets` as a mask bool (b, b, b) of (anchor, positive, negative), on one device.

    Nothing depends on the values in shape, so a CUDA graph can replay it; memory of order b^3. `labels` (b,) and
    `generator` on the device of `distances` (b, b).
    """
    same = labels[:, None] == labels  # (b, b)
    itself = torch.eye(len(labels), dtype=torch.bool, device=labels.device)
    pairs = same & ~itself if ordered else same.triu(1)
    q = (~same).sum(1).amin().clamp(max=n_negatives)
    if negatives == "nearest":
        keys = distances.detach().masked_fill(same, torch.inf)  # (b, b)
    else:
        clusters = (~(same & ~itself).tril().any(1)).sum()  # samples that no earlier one shares the cluster of
        q = torch.minimum(q, clusters - 1)
        shape = (len(labels),) * 3
        keys = torch.rand(shape, generator=generator, device=labels.device).masked_fill(same[:, None], torch.inf)
    ranks = keys.argsort(dim=-1, stable=True).argsort(dim=-1, stable=True)
    chosen = ranks < q
    return pairs[:, :, None] & (chosen[:, None] if chosen.ndim == 2 else chosen)
