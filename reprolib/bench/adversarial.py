"""Time of one iteration of paper 003 beside the usual way to write it: part of `bench`.

The usual way takes the gradient penalty by second derivatives, and a pass of the generator for each step of critic
and classifier. Both run in turn in one process, on networks of the same shapes; the floor is as in `bench.steps`.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from reprolib.bench import timing
from reprolib.bench.steps import WIDTH, count_flops
from reprolib.methods.precise import Adversarial, PreciseFeature
from reprolib.networks.adversarial import PiecewiseLinear
from reprolib.report.tables import Table
from reprolib.training.trainer import Run

BATCH, SIDE = 100, 28  # of the paper's MNIST
WIDTHS = (8, 64)  # of our small runs, and the paper's
N_ITERATIONS = PreciseFeature.n_iterations
QUICK = {"widths": (2,), "size": 10, "repeats": 1}


def double_backward(critic: PiecewiseLinear, points: Tensor, penalty: float | Tensor) -> tuple[Tensor, Tensor]:
    """As `penalised`, the sum being the penalty itself."""
    points = points.detach().requires_grad_()
    (gradient,) = torch.autograd.grad(critic(points).sum(), points, create_graph=True)
    slopes = gradient.flatten(1).norm(dim=1)
    return penalty * (slopes - 1).square().mean(), slopes


class Usual(Adversarial):
    """The iteration with second derivatives and a pass of G for each step."""

    def penalise(self, points: Tensor) -> tuple[Tensor, Tensor]:
        return double_backward(self.run.modules["D"], points, self.penalty)

    def imagine(self, n_batches: int) -> tuple[Tensor, Tensor]:
        made = [super(Usual, self).imagine(1) for _ in range(n_batches)]
        return torch.cat([fake for fake, _ in made]), torch.cat([y for _, y in made])


def measure(*, widths: tuple[int, ...] = WIDTHS, size: int = BATCH, repeats: int = 5) -> dict[str, Any]:
    """Seconds of an iteration with Algorithm 1's numbers of steps on random images of 28x28 pixels, by width.

    Returns {"batch": size, "rate": FLOP/s of the matrix product, "widths": {width: {"ours": s, "usual": s,
    "flops": of ours}}}, a time the smallest of `repeats`; prints a table. On the CPU, float32.
    """
    found = {"batch": size, "rate": timing.gemm_ceiling(WIDTH, "float32"), "widths": {}}
    images = np.random.default_rng(0).integers(0, 256, (4 * size, SIDE, SIDE), dtype=np.uint8)
    for width in widths:
        model = PreciseFeature(10, width=width, batch_size=size, device="cpu")
        works = {name: iteration(kind, model, images) for name, kind in (("ours", Adversarial), ("usual", Usual))}
        flops = count_flops(works["ours"])
        seconds = {name: entry["seconds"] for name, entry in timing.measure(works, repeats).items()}
        found["widths"][str(width)] = {**seconds, "flops": flops}
    print(f"\n{table(found)}", flush=True)
    return found


def iteration(kind: type[Adversarial], model: PreciseFeature, images: np.ndarray) -> Callable[[], object]:
    """One iteration on images (n, h, w), always of the same real samples."""
    run = Run(model, model.inputs(images))
    stage = kind(run, 1)
    stage.build()
    batch = next(iter(stage.batches()))
    stage.schedule()
    return lambda: stage.step(batch)


def table(found: dict[str, Any]) -> Table:
    """What `measure` found: seconds, the ratio to the usual way, FLOPs, the share of the floor, days of a whole run."""
    rows = []
    for width, row in found["widths"].items():
        share = row["flops"] / found["rate"] / row["ours"]
        times = [f"{row['ours']:.3f}", f"{row['usual']:.3f}", f"{row['usual'] / row['ours']:.2f}"]
        days = N_ITERATIONS * row["ours"] / 86_400
        rows.append([width, *times, f"{row['flops'] / 1e9:.1f}", f"{share:.2f}", f"{days:.1f}"])
    head = ("width", "ours, s", "usual, s", "times ours", "GFLOP", "share of floor", "days of 900,000")
    return Table(head, rows, f"One iteration of {found['batch']} images of {SIDE}x{SIDE} pixels, one core")
