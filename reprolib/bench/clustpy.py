"""Accuracy of ClustPy's autoencoder methods, from the starts of ours: part of `bench`.

Each method of ClustPy begins with the pretrained autoencoder and the k-means centers that a record of ours
began with, and takes as many epochs with the same batch size, learning rate and precision. What differs is
ClustPy's step and the order of the images. VaDE is left out: ClustPy's wants a decoder with outputs in [0, 1].
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from reprolib import metrics
from reprolib.bench.steps import clustpy_fit, clustpy_module, clustpy_version
from reprolib.experiments import records
from reprolib.experiments import run as experiment
from reprolib.methods.autoencoder import EMBED_ROWS, AutoencoderRun
from reprolib.report.tables import NOT_RUN, Table, spread

METHODS = ("DEC", "IDEC", "DCN", "DKM")
SEEDS = 3
RESULT = "u"  # a method's own training, without MNet


def measure(
    dataset: str = "usps", profile: str = "cpu", *, n_seeds: int = SEEDS
) -> dict[str, Any] | None:
    """ACC of ClustPy's methods on a data set, a number a seed; None, after a line, without ClustPy.

    Returns {"clustpy": its version, "dataset", "profile", "acc": {method: [ACC of each seed]}}.
    """
    version = clustpy_version()
    if version is None:
        return None
    found: dict[str, list[float]] = {name: [] for name in METHODS}
    with tqdm(total=len(METHODS) * n_seeds, unit="run") as bar:
        for name in METHODS:
            for seed in range(n_seeds):
                bar.set_description(f"{name}, seed {seed}")
                found[name].append(_accuracy(name, dataset, profile, seed))
                bar.update()
    return {"clustpy": version, "dataset": dataset, "profile": profile, "acc": found}


def table(found: dict[str, Any]) -> Table:
    """What `measure` found, beside the records of the same methods on the same data set."""
    rows = []
    for name, scores in found["acc"].items():
        ours = [
            entry["metrics"][RESULT]["acc"]
            for entry in records.load_records(
                "dcss",
                dataset=found["dataset"],
                profile=found["profile"],
                method=name,
                tag="main",
            )
        ]
        rows.append([name, _told(ours), _told(scores)])
    head = ["ACC", "here", f"ClustPy {found['clustpy']}"]
    return Table(head, rows, f"{found['dataset']}, profile {found['profile']}")


def _accuracy(name: str, dataset: str, profile: str, seed: int) -> float:
    given = {"dataset": dataset, "profile": profile, "method": name, "random_state": seed}
    plan = experiment.plan("dcss", given)
    model, images = plan.estimator(), plan.images()
    epochs, model.phase1_epochs, model.phase2_epochs = model.phase1_epochs, 0, 0
    run = model._run(model, plan.inputs(images), None, None, plan.shared)
    run.train()  # no more than the pretraining, or its file, and k-means
    network, module = clustpy_module(name, run)
    half = model.precision == "bfloat16"
    network.encode, network.decode = _cast(network.encode, half), _cast(network.decode, half)
    parameters = [*network.parameters(), *module.parameters()]
    optimizer = torch.optim.Adam(parameters, lr=model.learning_rate)
    loader = _Batches(run, model.batch_size)
    clustpy_fit(name, network, module, loader, epochs, optimizer)
    return metrics.accuracy(images.labels, _labels(network, module, run.inputs))


def _cast(part: Callable[..., torch.Tensor], half: bool) -> Callable[..., torch.Tensor]:
    """As ours: products of a network in bfloat16, what it returns and all losses in float32."""

    def cast(inputs: torch.Tensor) -> torch.Tensor:
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            return part(inputs).float()

    return cast


class _Batches:
    """Shuffled batches as ClustPy reads them, anew each epoch: [indices (b,), inputs (b, ...)]."""

    def __init__(self, run: AutoencoderRun, size: int) -> None:
        self.inputs, self.size, self.generator = run.inputs, size, run.generator

    def __len__(self) -> int:
        return -(-len(self.inputs) // self.size)

    def __iter__(self) -> Iterator[list[torch.Tensor]]:
        order = torch.randperm(len(self.inputs), generator=self.generator)
        return ([batch, self.inputs[batch]] for batch in order.split(self.size))


@torch.no_grad()
def _labels(network: torch.nn.Module, module: torch.nn.Module, inputs: torch.Tensor) -> np.ndarray:
    network.eval()
    latent = torch.cat([network.encode(part) for part in inputs.split(EMBED_ROWS)])
    if not latent.isfinite().all():
        raise FloatingPointError("ClustPy's latent vectors are no numbers: lower the learning rate")
    return module.predict_hard(latent).numpy()


def _told(scores: list[float]) -> str:
    if not scores:
        return NOT_RUN
    return spread(float(np.mean(scores)), float(np.std(scores, ddof=1)) if scores[1:] else None)
