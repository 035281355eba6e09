"""What an epoch of the pretraining chosen by its label accuracy would buy: part of `bench`.

The released code of paper 004 keeps the epoch of the pretraining whose k-means clusters agree best with the
true labels. Here the pretraining of our records runs again and k-means looks at every epoch; nothing is chosen.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from tqdm import tqdm

from reprolib import metrics
from reprolib.experiments import run as experiment
from reprolib.methods.autoencoder import PRETRAIN
from reprolib.methods.dec import AEKMeansRun
from reprolib.report.figures import MARKERS, PALETTE10
from reprolib.report.tables import Table, signed, spread

DATASETS = ("usps", "mnist-test")
SEEDS = 3


class WatchedRun(AEKMeansRun):
    """A pretraining that keeps the labels of k-means after each of its epochs."""

    def __init__(self, *arguments: Any) -> None:
        self.watched: list[np.ndarray] = []
        super().__init__(*arguments)

    def _train_epoch(self, stage: str) -> dict[str, Any]:
        entry = super()._train_epoch(stage)
        if stage == PRETRAIN:
            self.watched.append(self.kmeans())
        return entry


def measure(
    datasets: tuple[str, ...] = DATASETS, profile: str = "cpu", *, n_seeds: int = SEEDS
) -> dict[str, Any]:
    """ACC of AE + k-means after each epoch of the pretraining.

    Returns {"profile", "acc": {data set: for each seed a list, one number an epoch}}.
    """
    found: dict[str, list[list[float]]] = {dataset: [] for dataset in datasets}
    with tqdm(total=len(datasets) * n_seeds, unit="run") as bar:
        for dataset in datasets:
            for seed in range(n_seeds):
                bar.set_description(f"{dataset}, seed {seed}")
                found[dataset].append(_over_epochs(dataset, profile, seed))
                bar.update()
    return {"profile": profile, "acc": found}


def table(found: Mapping[str, Any], names: Mapping[str, str]) -> Table:
    """The last epoch, the best one by labels, and their difference: means over seeds."""
    rows = []
    for dataset, runs in found["acc"].items():
        last, best = (np.array([pick(run) for run in runs]) for pick in (lambda run: run[-1], max))
        epochs = ", ".join(str(1 + int(np.argmax(run))) for run in runs)
        told = [
            form(*_moments(x))
            for form, x in ((spread, last), (spread, best), (signed, best - last))
        ]
        rows.append([names.get(dataset, dataset), *told, f"{epochs} of {len(runs[0])}"])
    head = ["AE + k-means, ACC", "last epoch", "best epoch", "labels would buy", "chosen epochs"]
    return Table(head, rows)


def figure(found: Mapping[str, Any], names: Mapping[str, str]) -> Figure:
    """ACC over the epochs of the pretraining, a line a seed; a ring marks the best epoch."""
    runs_of = found["acc"]
    drawn, grid = plt.subplots(1, len(runs_of), figsize=(4 * len(runs_of), 3.2), squeeze=False)
    for axes, (dataset, runs) in zip(grid[0], runs_of.items(), strict=True):
        for seed, (run, color) in enumerate(zip(runs, PALETTE10, strict=False)):
            axes.plot(np.arange(1, len(run) + 1), run, color=color, lw=1.3, label=f"seed {seed}")
            best = int(np.argmax(run))
            axes.plot(best + 1, run[best], MARKERS[0], mfc="none", mec=color, ms=9)
        axes.set(title=names.get(dataset, dataset), xlabel="epoch of the pretraining")
    grid[0, 0].set_ylabel("ACC of k-means")
    grid[0, 0].legend()
    return drawn


def _over_epochs(dataset: str, profile: str, seed: int) -> list[float]:
    given = {"dataset": dataset, "profile": profile, "method": "AEKMeans", "random_state": seed}
    plan = experiment.plan("dcss", given)
    model, images = plan.estimator(), plan.images()
    model.phase2_epochs = 0
    run = WatchedRun(model, plan.inputs(images), None, None, None)
    run.train()
    return [metrics.accuracy(images.labels, labels) for labels in run.watched]


def _moments(values: np.ndarray) -> tuple[float, float | None]:
    return float(values.mean()), float(values.std(ddof=1)) if len(values) > 1 else None
