"""Figures of paper 004's results, drawn from run records; without a record each says so."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from sklearn.manifold import TSNE

from reprolib.experiments.records import load_arrays
from reprolib.methods.autoencoder import PHASE_1, PHASE_2, PRETRAIN
from reprolib.report.charts import missing
from reprolib.report.compare import METRICS
from reprolib.report.figures import MARKERS, PALETTE10, image_row, scatter

LOSSES = {"loss": "total", "reconstruction": "reconstruction", "centering": "centring, before α"}
SPACES = {
    f"u_{PRETRAIN}": "u, pretrained (AE + k-means)",
    f"u_{PHASE_1}": "u after phase 1",
    f"u_{PHASE_2}": "u after phase 2",
    "q_points": "q",
}
SYMBOLS = {"alpha": "α", "center_interval": "T₁", "u_epochs": "T₂", "zeta": "ζ"}
SHOWN = 1000  # points of a t-SNE map
DODGE = 0.006  # of retention rates


def phase_1_losses(runs: Sequence[Mapping[str, Any]], names: Mapping[str, str]) -> Figure:
    """Figure 4: the losses of phase 1 over its epochs, an image and summed over the K runs.

    Runs of a single epoch have no line and are left out.
    """
    panels = _by_dataset([e for e in runs if len(_rows(e, PHASE_1)) > 1], names, PHASE_1)
    if not panels:
        return missing("phase 1 of DCSS")
    figure, grid = _panels(len(panels))
    for axes, (dataset, same) in zip(grid, panels.items(), strict=False):
        for number, entry in enumerate(same):
            rows = _rows(entry, PHASE_1)
            per_image = entry["parameters"]["batch_size"] / entry["parameters"]["n_clusters"]
            for (key, label), color in zip(LOSSES.items(), PALETTE10, strict=False):
                # the rows hold sums over a batch, and means over the K runs
                values = np.array([row[key] for row in rows]) / per_image
                axes.plot(values, color=color, lw=1.3, label=None if number else label, marker=".")
        axes.set(title=names[dataset], xlabel="epoch of phase 1", yscale="log")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    grid[0].set_ylabel("loss an image")
    grid[0].legend()
    return figure


def over_phase_2(
    runs: Sequence[Mapping[str, Any]], names: Mapping[str, str], keys: Sequence[str], label: str
) -> Figure:
    """Figures 5, 10(a) and 13: what the records' rows of phase 2 hold, over its epochs.

    keys: "loss" (a pair), "similar" and "dissimilar" (shares of pairs), "isolated" (images); several are
    added up.
    """
    panels = _by_dataset(runs, names, PHASE_2)
    if not panels:
        return missing("phase 2 of DCSS")
    figure, axes = plt.subplots()
    for place, (dataset, same) in enumerate(panels.items()):
        for number, entry in enumerate(same):
            values = [sum(row[key] for key in keys) for row in _rows(entry, PHASE_2)]
            axes.plot(
                np.arange(1, len(values) + 1),
                values,
                color=PALETTE10[place],
                marker=MARKERS[place % len(MARKERS)],
                markersize=4,
                label=None if number else names[dataset],
            )
    switch = {entry["parameters"]["u_epochs"] for same in panels.values() for entry in same}
    for epoch in switch:
        axes.axvline(epoch + 0.5, color="0.5", ls="--", lw=1)
    axes.set(xlabel="epoch of phase 2; dashed: from p to q (T₂)", ylabel=label)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend()
    return figure


def spaces(entry: Mapping[str, Any] | None, title: str) -> Figure:
    """Figure 3: t-SNE maps of u after each phase and of q, coloured by the true class."""
    if entry is None:
        return missing(title)
    stored = load_arrays(entry)
    chosen = np.arange(min(SHOWN, len(stored["points"])))
    if len(stored["points"]) > SHOWN:
        chosen = np.arange(SHOWN) * len(stored["points"]) // SHOWN
    y = stored["y"][stored["points"][chosen]]
    shown = {key: label for key, label in SPACES.items() if key in stored}
    figure, grid = plt.subplots(2, 2, figsize=(8, 8))
    for axes in grid.flat:
        axes.set_axis_off()
    for axes, (key, label) in zip(grid.flat, shown.items(), strict=False):
        vectors = stored[key][chosen].astype(np.float32)
        axes.set_axis_on()
        scatter(axes, TSNE(random_state=0).fit_transform(vectors), y, size=7)
        axes.set_title(label)
    figure.suptitle(title, x=0.02, ha="left")
    return figure


def assignments(entry: Mapping[str, Any] | None, n_shown: int = 10) -> Figure:
    """Figure 7: images, one of each cluster, each with its q."""
    stored = {} if entry is None else load_arrays(entry)
    if "samples" not in stored:
        return missing("images with their q")
    images, q = stored["samples"][:n_shown], stored["samples_q"][:n_shown].astype(float)
    columns = 5
    lines = -(-len(images) // columns)
    figure, grid = plt.subplots(2 * lines, columns, figsize=(8, 2.9 * lines), squeeze=False)
    for axes in grid.flat:
        axes.set_axis_off()
    for i, (image, row) in enumerate(zip(images, q, strict=True)):
        above, below = grid[2 * (i // columns) : 2 * (i // columns) + 2, i % columns]
        above.set_axis_on()
        below.set_axis_on()
        image_row([above], [image])
        below.bar(np.arange(len(row)), row, color=PALETTE10[0])
        below.set(ylim=(0, 1.02), xticks=np.arange(0, len(row), 3))
        below.set_yticks([0, 1])
        below.grid(False)
    return figure


def residuals(entries: Sequence[Mapping[str, Any]], names: Mapping[str, str]) -> Figure:
    """Figure 8: how far q is from its one-hot vector, h = 2 (1 - max q), for all images."""
    stored = {e["dataset"]["name"]: load_arrays(e) for e in entries}
    found = {name: arrays["q_max"] for name, arrays in stored.items() if "q_max" in arrays}
    if not found:
        return missing("q of all images")
    figure, grid = _panels(len(found))
    for axes, (dataset, largest) in zip(grid, found.items(), strict=False):
        h = 2 * (1 - largest.astype(float))
        axes.hist(h, bins=np.linspace(0, 2, 41), color=PALETTE10[0])
        near = np.mean(h < 0.1)
        axes.set(title=f"{names[dataset]}\n{near:.0%} below 0.1", xlabel="h", yscale="log")
    grid[0].set_ylabel("images")
    return figure


def sensitivity(
    runs: Sequence[Mapping[str, Any]],
    parameter: str,
    result: str,
    names: Mapping[str, str],
    metrics: Sequence[str] = ("acc", "nmi_max"),
) -> Figure:
    """Figures 9 and 10(b): scores over a parameter, a ring a seed and a line through the means."""
    found: dict[str, dict[Any, list[Mapping[str, float]]]] = {}
    for entry in runs:
        if result in entry["metrics"]:
            at = found.setdefault(entry["dataset"]["name"], {})
            value = entry["parameters"][parameter]
            at.setdefault(value, []).append(entry["metrics"][result])
    found = {dataset: at for dataset, at in found.items() if len(at) > 1}
    if not found:
        return missing(f"other values of {parameter}")
    figure, grid = _panels(len(found))
    for axes, (dataset, at) in zip(grid, found.items(), strict=False):
        values = sorted(at)
        places = np.arange(len(values))
        for metric, color, marker in zip(metrics, PALETTE10, MARKERS, strict=False):
            means = [np.mean([score[metric] for score in at[value]]) for value in values]
            axes.plot(places, means, color=color, marker=marker, label=METRICS[metric])
            for place, value in zip(places, values, strict=True):
                seeds = [score[metric] for score in at[value]]
                axes.plot([place] * len(seeds), seeds, marker, mfc="none", mec=color, ms=9)
        label = SYMBOLS.get(parameter, parameter)
        axes.set(title=names[dataset], xlabel=label, xticks=places, xticklabels=values)
    grid[0].legend()
    return figure


def imbalance(
    rows: Sequence[Mapping[str, Any]], base: str, metric: str, labels: Mapping[tuple, str]
) -> Figure:
    """Figure 6: a score over the retention rate of the first class.

    rows: of `records.aggregate`; base: the data set that was thinned, its copies are `<base>-r<rate>`;
    labels: which (method, result) to draw, and how they are called.
    """
    figure, axes = plt.subplots()
    drawn = False
    for place, (key, label) in enumerate(labels.items()):
        color, marker = PALETTE10[place], MARKERS[place % len(MARKERS)]
        points = {}
        for row in rows:
            name = row["dataset"]
            if (row["method"], row["result"]) == key and name.startswith(f"{base}-r"):
                rate = float(name.removeprefix(f"{base}-r"))
                points[rate] = row["mean"][metric], row["std"][metric] or 0.0
        if points:
            drawn = True
            rates = sorted(points)
            means, spreads = zip(*(points[rate] for rate in rates), strict=True)
            beside = np.array(rates) + DODGE * (
                place - (len(labels) - 1) / 2
            )  # bars would hide bars
            axes.errorbar(
                beside, means, spreads, color=color, marker=marker, capsize=2, label=label
            )
    if not drawn:
        plt.close(figure)
        return missing("imbalanced sets")
    axes.set(xlabel="retention rate r of the first class", ylabel=METRICS[metric])
    figure.legend(loc="outside lower center", ncols=4)
    return figure


def _rows(entry: Mapping[str, Any], stage: str) -> list[Mapping[str, Any]]:
    return [row for row in entry["history"] if row["stage"] == stage]


def _by_dataset(
    runs: Sequence[Mapping[str, Any]], names: Mapping[str, str], stage: str
) -> dict[str, list[Mapping[str, Any]]]:
    with_stage = [entry for entry in runs if _rows(entry, stage)]
    found = {d: [e for e in with_stage if e["dataset"]["name"] == d] for d in names}
    return {dataset: same for dataset, same in found.items() if same}


def _panels(n: int) -> tuple[Figure, Sequence[Any]]:
    columns = 2 if n == 4 else min(n, 3)
    lines = -(-n // columns)
    figure, grid = plt.subplots(
        lines, columns, figsize=(max(3.0 * columns, 4.5), 3.2 * lines), squeeze=False
    )
    for axes in grid.flat[n:]:
        axes.set_axis_off()
    return figure, grid.flatten()
