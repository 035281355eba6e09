"""Time of one training step of each stage of paper 000 beside its floor: part of `bench`.

The floor is as in `bench.steps`: the FLOPs of a step's products and convolutions over the rate of the matrix product.
"""

from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np
import torch

from reprolib.bench import timing
from reprolib.bench.steps import PRECISIONS, WIDTH, count_flops
from reprolib.methods.profeat import ProFeat
from reprolib.report.tables import Table
from reprolib.training.trainer import Run, Stage

# name: shape of the images, views in a step, and the network: of our small runs, and the paper's
NETWORKS = {
    "narrow, 16 channels": ((1, 16, 16), 512, {"network": "narrow", "width": 16, "views": "digits"}),
    "ResNet-18": ((3, 32, 32), 64, {}),
}
QUICK = {"networks": ("narrow, 16 channels",), "repeats": 1}
FEW = {"n_neighbors": 5, "pretext_steps": 1, "scan_steps": 1, "label_steps": 1, "rounds": 1, "device": "cpu"}
HEAD = ("", "views", *(f"{precision}, {what}" for precision in PRECISIONS for what in ("views/s", "share of floor")))


def measure(*, networks: tuple[str, ...] = tuple(NETWORKS), repeats: int = 5) -> dict[str, Any]:
    """Seconds of a step of the pretext, SCAN and self-labelling on random images, for each of NETWORKS named.

    Returns {"rates": FLOP/s of the matrix product by precision, "steps": {network: {stage: {"views": m, "float32": s,
    "bfloat16": s, "flops": of a step}}}}; a time is the smallest of `repeats`. On the CPU. Prints a table each.
    """
    found = {"rates": {p: timing.gemm_ceiling(WIDTH, p) for p in PRECISIONS}, "steps": {}}
    for name in networks:
        stages = {p: started(name, p) for p in PRECISIONS}
        rows = found["steps"][name] = {}
        for stage in stages[PRECISIONS[0]]:
            works = {p: partial(stages[p][stage].step, torch.arange(stages[p][stage].size)) for p in PRECISIONS}
            flops = count_flops(works[PRECISIONS[0]])
            seconds = {p: entry["seconds"] for p, entry in timing.measure(works, repeats).items()}
            rows[stage] = {"views": NETWORKS[name][1], **seconds, "flops": flops}
        print(f"\n{table(found, name)}", flush=True)
    return found


def table(found: Mapping[str, Any], name: str) -> Table:
    """What `measure` found for one network: views a second, and shares of the floor."""
    lines = []
    for stage, row in found["steps"][name].items():
        cells = [stage, str(row["views"])]
        for p in PRECISIONS:
            share = row["flops"] / found["rates"][p] / row[p]
            cells += [f"{row['views'] / row[p]:,.0f}", f"{share:.2f}"]
        lines.append(cells)
    shape = "x".join(map(str, NETWORKS[name][0]))
    return Table(HEAD, lines, f"One step of {name} on images of {shape}")


def started(name: str, precision: str) -> dict[str, Stage]:
    """The stages of a fit by name, each begun and in training mode, with as many views a step."""
    shape, n_views, parameters = NETWORKS[name]
    batches = {"pretext_batch": n_views // 2, "scan_batch": n_views // 2, "label_batch": n_views}
    model = ProFeat(10, precision=precision, **FEW, **batches, **parameters)
    images = np.random.default_rng(0).integers(0, 256, (n_views, *shape), dtype=np.uint8)
    run, found, optimizers = Run(model, model.inputs(images)), {}, {}
    for stage in model.stages(run):
        stage.build()
        stage.begin()
        found[stage.name] = stage
        optimizers |= run.optimizers  # Adam's of SCAN and of self-labelling train the same network
    run.optimizers = optimizers
    run.modules.train()
    return found
