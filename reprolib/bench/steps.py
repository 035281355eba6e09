"""Time of one training step of each autoencoder method, beside ClustPy's: part of `bench`.

Both take the step on copies of one network and on one batch, in turn and in one process, so that noise hits both. The
floor of a step is the FLOPs of its products and convolutions over the rate of the matrix product.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np
import torch

from reprolib.bench import timing
from reprolib.experiments.cost import OperationCounter
from reprolib.methods.autoencoder import PHASE_1, PHASE_2, PRETRAIN
from reprolib.methods.dcss import DCSS
from reprolib.methods.dec import DCN, DEC, DKM, IDEC, AEKMeans
from reprolib.methods.separation import InterClassSeparation
from reprolib.methods.vade import VaDE
from reprolib.report.tables import Table
from reprolib.studies import clustpy
from reprolib.training.trainer import Run, Stage

PRECISIONS = ("float32", "bfloat16")
SIDES = (16, 28)  # pixels: USPS, MNIST
BATCH = 256
BATCHES = 4  # in the data set
WIDTH = 576  # of the product for the floor: what a 3x3 convolution of 64 channels sums over

# name: method, the stage of its step, parameters
MEMBERS: dict[str, tuple[type, str, dict[str, Any]]] = {
    "AE pretraining": (AEKMeans, PRETRAIN, {}),
    "DEC": (DEC, PHASE_1, {}),
    "IDEC": (IDEC, PHASE_1, {}),
    "DCN": (DCN, PHASE_1, {}),
    "DKM": (DKM, PHASE_1, {}),
    "VaDE": (VaDE, PHASE_1, {}),
    "DCSS phase 1, joint": (DCSS, PHASE_1, DCSS.VARIANTS["joint"]),
    "DCSS phase 1, successive": (DCSS, PHASE_1, {}),
    "MNet, phase 2": (DCSS, PHASE_2, {}),
    "inter-class separation": (InterClassSeparation, PHASE_1, {}),
}

QUICK = {"sides": SIDES[:1], "size": 16, "repeats": 1}
OF_FLOOR = "share of floor"
HEAD = ("", "float32, ms", OF_FLOOR, "bfloat16, ms", OF_FLOOR, "ClustPy, ms", "times ours")


def measure(*, sides: tuple[int, ...] = SIDES, size: int = BATCH, repeats: int = 11) -> dict[str, Any]:
    """Seconds of a step of every member on a batch of `size` random images, for each of `sides` pixels.

    Returns {"clustpy": its version or None, "batch": size, "rates": FLOP/s of the matrix product by
    precision, "steps": {"16x16": {name: {"float32": s, "bfloat16": s, "clustpy": s or None, "flops": of
    our step}}}}; a time is the smallest of `repeats`. On the CPU. Prints a table for each of `sides`.
    """
    version = clustpy.version()
    rates = {precision: timing.gemm_ceiling(WIDTH, precision) for precision in PRECISIONS}
    found = {"clustpy": version, "batch": size, "rates": rates, "steps": {}}
    for side in sides:
        pixels = (BATCHES * size, side, side)
        images = np.random.default_rng(0).integers(0, 256, pixels, dtype=np.uint8)
        rows = found["steps"][f"{side}x{side}"] = {}
        for name in MEMBERS:
            rows[name] = _measured(name, images, size, repeats, version is not None)
        print(f"\n{table(found, f'{side}x{side}')}", flush=True)
    return found


def table(found: Mapping[str, Any], shape: str) -> Table:
    """What `measure` found for one shape: milliseconds, shares of the floor, ClustPy over ours in float32."""
    rows = []
    for name, row in found["steps"][shape].items():
        cells = [name]
        for precision in PRECISIONS:
            share = row["flops"] / found["rates"][precision] / row[precision]
            cells += [f"{1e3 * row[precision]:.1f}", f"{share:.2f}"]
        if (theirs := row["clustpy"]) is None:
            rows.append([*cells, "", ""])
        else:
            rows.append([*cells, f"{1e3 * theirs:.1f}", f"{theirs / row['float32']:.2f}"])
    return Table(HEAD, rows, f"One step on {found['batch']} images of {shape} pixels")


def _measured(name: str, images: np.ndarray, size: int, repeats: int, beside: bool) -> dict[str, Any]:
    """The row of one member; `beside`: ClustPy too, where it has the method."""
    batch = torch.arange(size)
    stages = {precision: start(name, images, size, precision) for precision in PRECISIONS}
    works = {p: partial(stage.step, batch) for p, stage in stages.items()}
    if beside and name in clustpy.WEIGHTS:
        works["clustpy"] = clustpy.step(name, stages["float32"], batch)
    flops = count_flops(works["float32"])
    seconds = {k: entry["seconds"] for k, entry in timing.measure(works, repeats).items()}
    return {"clustpy": None, **seconds, "flops": flops}


def start(name: str, images: np.ndarray, size: int, precision: str, device: str = "cpu") -> Stage:
    """The stage of a member's step on images (n, h, w), at its beginning, in training mode."""
    method, wanted, parameters = MEMBERS[name]
    model = method(batch_size=size, precision=precision, device=device, **parameters)
    run = Run(model, model.inputs(images))
    for stage in model.stages(run):
        stage.build()
        stage.begin()
        stage.begin_epoch()
        if stage.name == wanted:
            break
    for module in run.modules.values():
        module.train()
    return stage


def count_flops(work: Callable[[], object]) -> int:
    """FLOPs of the products and convolutions of a call, backward passes included."""
    with OperationCounter() as counter:
        work()
    return counter.flops
