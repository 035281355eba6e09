"""What an epoch of the pretraining chosen by its label accuracy would buy: part of `bench`.

The released code of paper 004 keeps the epoch of the pretraining whose k-means clusters agree best with the
true labels. Here the pretraining of our records runs again and k-means looks at every epoch; nothing is chosen.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from sklearn.cluster import KMeans
from tqdm import tqdm

from reprolib import metrics
from reprolib.experiments import run as experiment
from reprolib.methods.autoencoder import STARTS, Pretrain, latent_vectors
from reprolib.report.figures import MARKERS, PALETTE10
from reprolib.report.tables import Table, signed, spread
from reprolib.training.trainer import Run, as_numpy

DATASETS = ("usps", "mnist-test")
SEEDS = 3


class Watched(Pretrain):
    """A pretraining that keeps the labels of k-means after each of its epochs, and takes over no other."""

    shared = ()

    def __init__(self, run: Run, epochs: int) -> None:
        super().__init__(run, epochs)
        self.labels: list[np.ndarray] = []

    def end_epoch(self) -> None:
        means = KMeans(self.model.n_clusters, n_init=STARTS, random_state=self.run.seed)
        self.labels.append(means.fit_predict(as_numpy(latent_vectors(self.run))))


def measure(
    datasets: Sequence[str] = DATASETS, profile: str = "cpu", *, n_seeds: int = SEEDS
) -> dict[str, Any]:
    """ACC of AE + k-means after each epoch of the pretraining, printed as a table.

    Returns {"profile", "acc": {data set: for each seed a list, one number an epoch}}.
    """
    scores: dict[str, list[list[float]]] = {dataset: [] for dataset in datasets}
    for dataset, seed in tqdm(list(product(datasets, range(n_seeds))), unit="run"):
        given = {"dataset": dataset, "profile": profile, "random_state": seed}
        plan = experiment.plan("dcss", given | {"method": "AEKMeans"})
        model, images = plan.estimator(), plan.images()
        run = Run(model, model.inputs(plan.inputs(images)))
        watched = Watched(run, model.pretrain_epochs)
        run.train([watched])
        scores[dataset].append([metrics.accuracy(images.labels, x) for x in watched.labels])
    found = {"profile": profile, "acc": scores}
    print(f"\n{table(found, {})}")
    return found


def table(found: Mapping[str, Any], names: Mapping[str, str]) -> Table:
    """The last epoch, the best one by labels, and their difference: means over seeds."""
    rows = []
    for dataset, runs in found["acc"].items():
        last, best = pd.Series([run[-1] for run in runs]), pd.Series([max(run) for run in runs])
        gain = best - last
        epochs = ", ".join(str(1 + int(np.argmax(run))) for run in runs)
        told = [spread(x.mean(), x.std()) for x in (last, best)]
        told += [signed(gain.mean(), gain.std()), f"{epochs} of {len(runs[0])}"]
        rows.append([names.get(dataset, dataset), *told])
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
