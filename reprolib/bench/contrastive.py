"""Time and memory of the contrastive loss, forward and backward, beside the usual way to write it: part of `bench`.

The usual way has a matrix of all similarities, which autograd keeps; both need three products of it with N x d. The
floor is their 6 N^2 d operations at the rate of a matrix product. Both run in turn in one process.
"""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from reprolib.bench import timing
from reprolib.kernels.contrastive import contrastive_loss
from reprolib.report.tables import Table

SIZES = (1024, 4096, 8192)  # N = 2b, views of a batch; the paper's is the first
D, TEMPERATURE, MODELS, CLUSTERS = 128, 0.1, 5, 10  # of paper 000, on CIFAR-10
QUICK = {"sizes": (128,), "repeats": 1}

Loss = Callable[[Tensor, Tensor, float], Tensor]


def plain_loss(z: Tensor, votes: Tensor, temperature: float) -> Tensor:
    """As `contrastive_loss`, mean over anchors, by an N x N matrix and autograd."""
    unit = F.normalize(z, dim=1)
    itself = torch.eye(len(z), dtype=torch.bool, device=z.device)
    logits = (unit @ unit.T / temperature).masked_fill(itself, -math.inf)
    label = votes.repeat(2, 1)  # (N, e)
    positive = (label[:, None] == label).all(2) & ~itself
    return -(logits.log_softmax(1).masked_fill(~positive, 0.0).sum(1) / positive.sum(1)).mean()


def measure(*, sizes: tuple[int, ...] = SIZES, repeats: int = timing.REPEATS) -> dict[str, Any]:
    """Seconds and MiB of value and gradient on random float32 vectors (N, 128), by N and by what is positive.

    Returns {"rate": FLOP/s of the matrix product, "sizes": {str(N): {"views" or "clusters": {"ours" or "plain": entry
    of `timing.measure`}}}}: the views of an image alone (NT-Xent), or the images that 5 models put into one of 10
    clusters; prints a table. On the CPU.
    """
    found = {"rate": timing.gemm_ceiling(D, "float32"), "sizes": {}}
    generator = torch.Generator().manual_seed(0)
    for n in sizes:
        z = torch.randn(n, D, generator=generator, requires_grad=True)
        clusters = torch.randint(CLUSTERS, (n // 2, 1), generator=generator).repeat(1, MODELS)
        kinds = {"views": torch.arange(n // 2)[:, None], "clusters": clusters}
        found["sizes"][str(n)] = {
            kind: timing.measure(
                {"ours": step(contrastive_loss, z, votes), "plain": step(plain_loss, z, votes)}, repeats
            )
            for kind, votes in kinds.items()
        }
    print(f"\n{table(found)}", flush=True)
    return found


def step(loss: Loss, z: Tensor, votes: Tensor) -> Callable[[], object]:
    """The work of a value and its gradient."""
    return lambda: torch.autograd.grad(loss(z, votes, TEMPERATURE), z)


def flops(n: int) -> int:
    """Operations of the three products of a loss of n vectors and its gradient."""
    return 6 * n * n * D


def table(found: dict[str, Any]) -> Table:
    """What `measure` found: seconds, their ratio, the share of the floor, MiB."""
    rows = []
    for n, kinds in found["sizes"].items():
        for kind, entry in kinds.items():
            ours, plain = (entry[name]["seconds"] for name in ("ours", "plain"))
            share = flops(int(n)) / found["rate"] / ours
            memory = ["" if e["peak_mb"] is None else f"{e['peak_mb']:.0f}" for e in (entry["ours"], entry["plain"])]
            rows.append(
                [f"{int(n):,}", kind, f"{ours:.4f}", f"{plain:.4f}", f"{plain / ours:.1f}", f"{share:.2f}", *memory]
            )
    head = ("N", "positives", "ours, s", "plain, s", "times ours", "share of floor", "ours, MiB", "plain, MiB")
    return Table(head, rows, f"Contrastive loss of N vectors of {D}, value and gradient, one process")
