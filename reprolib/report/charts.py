"""Figures of a results page, drawn from run records; without a record each says that it was not run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import cycle
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator, ScalarFormatter

from reprolib.experiments.records import load_arrays
from reprolib.report.compare import METRICS
from reprolib.report.figures import MARKERS, PALETTE10, PALETTE20

NMI = METRICS["nmi_geometric"]


def missing(what: str) -> Figure:
    """A figure that says what was not run."""
    figure, axes = plt.subplots(figsize=(7, 1.4))
    axes.text(0.5, 0.5, f"not run: {what}", ha="center", va="center", color="0.35")
    axes.set_axis_off()
    return figure


def stages(entry: Mapping[str, Any] | None, periods: Sequence[int] | None = None) -> Figure:
    """Three stages of a run in the first principal components (paper 002, Figure 1).

    entry: a record with arrays `pca_<period>` (m, 3) and `clusters_<period>` (m,), as
    `reprolib.training.monitor` writes them; periods: by default the first, the last but one and the last.
    """
    if entry is None:
        return missing("no record with the points of its stages")
    arrays = load_arrays(entry)
    counts = {stage["period"]: stage["n_clusters"] for stage in entry["history"]}
    known = sorted(period for period in counts if f"pca_{period}" in arrays)
    if not known:
        return missing("the record holds no points")
    shown = periods or list(dict.fromkeys([known[0], known[max(len(known) - 2, 0)], known[-1]]))
    final = arrays[f"clusters_{known[-1]}"]
    figure = plt.figure(figsize=(8, 3.5))
    for place, period in enumerate(shown, 1):
        axes = figure.add_subplot(1, len(shown), place, projection="3d")
        points = arrays[f"pca_{period}"].astype(float)
        colors = ancestor_colors(arrays[f"clusters_{period}"], final)
        axes.scatter(*points.T, s=5, c=colors, linewidths=0, depthshade=False)
        what = "pixels" if period == 0 else f"after period {period}"
        axes.set_title(f"{counts[period]:,} clusters\n{what}", y=0.98)
        axes.set(xticklabels=[], yticklabels=[], zticklabels=[])
        axes.set(xlabel="PC 1", ylabel="PC 2", zlabel="PC 3")
        for axis in (axes.xaxis, axes.yaxis, axes.zaxis):
            axis.labelpad = -10
        axes.set_box_aspect((1, 1, 1), zoom=0.88)
    figure.suptitle(
        f"{entry['method']} on {entry['dataset']['name']}, seed {entry['random_state']}"
    )
    return figure


def ancestor_colors(clusters: np.ndarray, final: np.ndarray) -> list[str]:
    """Colour each cluster (n,) so that the same final cluster keeps its colour on every panel.

    The largest part of a final cluster takes its colour, further parts take the colours of the second
    ten in turn; above 20 clusters all 20 repeat, and colours only tell neighbours apart.
    """
    names, compact = np.unique(clusters, return_inverse=True)
    if len(names) > len(PALETTE20):
        return [PALETTE20[c % len(PALETTE20)] for c in compact]
    chosen: dict[int, str] = {}
    spare = 0
    sizes = np.bincount(compact)
    for c in np.argsort(-sizes, kind="stable"):
        home = int(np.bincount(final[compact == c]).argmax())
        color = PALETTE10[home % len(PALETTE10)]
        if color in chosen.values():
            color = PALETTE20[len(PALETTE10) + spare % len(PALETTE10)]
            spare += 1
        chosen[int(c)] = color
    return [chosen[int(c)] for c in compact]


def paths(records: Sequence[Mapping[str, Any]], names: Mapping[str, str]) -> Figure:
    """NMI against the number of clusters along the periods of each run, one colour a data set."""
    runs = [entry for entry in records if entry["history"]]
    if not runs:
        return missing("no record with the metrics of its stages")
    figure, axes = plt.subplots(figsize=(7.5, 4.2))
    order = [d for d in names if any(entry["dataset"]["name"] == d for entry in runs)]
    for place, dataset in enumerate(order):
        same = [entry for entry in runs if entry["dataset"]["name"] == dataset]
        color, marker = PALETTE10[place], MARKERS[place % len(MARKERS)]
        for number, entry in enumerate(same):
            counts = [stage["n_clusters"] for stage in entry["history"]]
            scores = [stage["nmi_geometric"] for stage in entry["history"]]
            label = (
                f"{names[dataset]}, {len(same)} seed{'s' * (len(same) > 1)}" if not number else None
            )
            axes.plot(counts, scores, color=color, marker=marker, markersize=5, lw=1.2, label=label)
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(ScalarFormatter())
    axes.invert_xaxis()
    axes.set(xlabel="clusters left after each period (time runs to the right)", ylabel=NMI)
    axes.set_title("What merging keeps: NMI after each period")
    axes.legend(loc="lower right")
    return figure


def dots(
    measured: Sequence[Mapping[str, Any]],
    tags: Sequence[str],
    names: Mapping[str, str],
    metric: str = "nmi_geometric",
    labels: Mapping[str, str] | None = None,
) -> Figure:
    """Each seed as a ring, mean and standard deviation as a filled mark: settings by data sets.

    measured: rows of `ablations.measured`; tags: the order from top to bottom, the base first; labels:
    which results, and how they are called, by default JULE's.
    """
    labels = labels or {"SF": "OURS-SF", "RC": "OURS-RC"}
    measured = [row for row in measured if row["result"] in labels]
    datasets = [d for d in names if any(row["dataset"] == d for row in measured)]
    shown = [tag for tag in tags if any(row["tag"] == tag for row in measured)]
    if len(shown) < 2:
        return missing(", ".join(tags[1:]))
    columns = min(len(datasets), 2)
    lines = -(-len(datasets) // columns)
    height = lines * (1.3 + 0.5 * len(shown)) + 0.4
    figure, grid = plt.subplots(
        lines, columns, figsize=(8, height), sharey=True, squeeze=False, layout="constrained"
    )
    looks = dict(zip(labels, [(PALETTE10[0], "o", -0.13), (PALETTE10[5], "s", 0.13)], strict=False))
    for axes, dataset in zip(grid.flat, datasets, strict=False):
        for row in (row for row in measured if row["dataset"] == dataset):
            color, marker, shift = looks[row["result"]]
            place = shown.index(row["tag"]) + shift
            values, mean, std = row["values"][metric], row["mean"][metric], row["std"][metric]
            axes.plot(values, [place] * len(values), marker, mfc="none", mec=color, ms=6, alpha=0.8)
            axes.errorbar(mean, place, xerr=std, fmt=marker, color=color, ms=7, capsize=3, lw=1.5)
        axes.set(title=names[dataset], xlabel=METRICS[metric])
        axes.locator_params(axis="x", nbins=5)
    for axes in grid.flat[len(datasets) :]:
        axes.set_axis_off()
    grid[0][0].set_yticks(range(len(shown)), shown)
    grid[0][0].set_ylim(len(shown) - 0.5, -0.5)
    for result, (color, marker, _) in looks.items():
        grid[0][0].plot([], [], marker, color=color, label=labels[result])
    figure.legend(loc="outside upper right", ncols=2)
    figure.suptitle("Rings: seeds; filled: mean ± standard deviation", x=0.02, ha="left")
    return figure


def sizes(entries: Sequence[Mapping[str, Any]]) -> Figure:
    """Images in each cluster of stored assignments, largest first, on a logarithmic scale."""
    if not entries:
        return missing("no record on this data set")
    panels = [(entry, result) for entry in entries for result in entry["metrics"]]
    columns = min(len(panels), 3)
    lines = -(-len(panels) // columns)
    figure, grid = plt.subplots(
        lines, columns, figsize=(2.7 * columns, 2.4 * lines + 0.4), sharey=True, squeeze=False
    )
    for axes, (entry, result) in zip(grid.flat, panels, strict=False):
        counts = np.sort(np.bincount(load_arrays(entry)[result]))[::-1]
        axes.bar(np.arange(1, len(counts) + 1), counts, color=PALETTE10[0])
        name = entry["method"] if result == "labels" else f"{entry['method']} {result}"
        name += "" if entry["tag"] == "main" else f"\n{entry['tag']}"
        axes.set(title=name, xlabel="cluster, by size", yscale="log")
        axes.axhline(counts.sum() / len(counts), color=PALETTE10[5], ls="--", lw=1.5)
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        axes.grid(axis="x", visible=False)
    for axes in grid.flat[len(panels) :]:
        axes.set_axis_off()
    for axes in grid[:, 0]:
        axes.set_ylabel("images")
    figure.suptitle("Images in each cluster")
    return figure


def growth(bench: Mapping[str, Any] | None) -> Figure:
    """Seconds of AC-GDL over n, graph and merges, beside the slope of n log n.

    bench: what `python -m reprolib bench scaling --json` wrote, or None.
    """
    if bench is None:
        return missing("python -m reprolib bench scaling")
    figure, axes = plt.subplots(figsize=(6.5, 4))
    for part, color, marker in zip(("graph", "merges"), PALETTE10, MARKERS, strict=False):
        points = {
            int(key.split("n=")[1]): seconds
            for key, seconds in bench["results"]["scaling"].items()
            if key.startswith(part)
        }
        n, seconds = np.array(sorted(points)), np.array([points[k] for k in sorted(points)])
        axes.plot(n, seconds, marker=marker, color=color, label=part)
    shape = n * np.log(n)
    axes.plot(n, seconds[-1] * shape / shape[-1], "--", color="0.4", label="slope of n log n")
    axes.set(xscale="log", yscale="log", xlabel="images n", ylabel="seconds")
    axes.set_title("AC-GDL on MNIST: one k-NN graph, then all merges")
    axes.legend()
    return figure


def methods_over_n(bench: Mapping[str, Any] | None) -> Figure:
    """Seconds and peak memory of methods over n, ours in colour and solid, public peers gray and dashed.

    bench: what `python -m reprolib bench growth --json` wrote, or None. A line ends where the method was
    left out.
    """
    if bench is None:
        return missing("python -m reprolib bench growth")
    rows = bench["results"]["growth"]
    figure, panels = plt.subplots(1, 2, figsize=(9, 4.6), sharex=True)
    ours = [name for name in rows if "," not in name]
    looks = {name: {"color": color} for name, color in zip(ours, PALETTE10, strict=False)}
    peers = [name for name in rows if name not in looks]
    for name, gray in zip(peers, np.linspace(0.2, 0.65, len(peers)), strict=True):
        looks[name] = {"color": str(gray), "linestyle": "--", "markerfacecolor": "white"}
    for axes, key in zip(panels, ("seconds", "peak_mb"), strict=True):
        for (name, look), marker in zip(looks.items(), cycle(MARKERS), strict=False):
            found = {int(n): entry.get(key) for n, entry in rows[name].items()}
            points = sorted((n, value) for n, value in found.items() if value and value > 0)
            axes.plot(
                [n for n, _ in points],
                [v for _, v in points],
                marker=marker,
                markersize=5,
                label=name,
                **look,
            )
        axes.set(xscale="log", yscale="log", xlabel="images n")
    panels[0].set(title="Seconds", ylabel="seconds")
    panels[1].set(title="Peak memory above the start", ylabel="MiB")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=2)
    return figure


def gains(
    pixels: Sequence[Mapping[str, Any]],
    learned: Sequence[Mapping[str, Any]],
    names: Mapping[str, str],
) -> Figure:
    """What each algorithm gains from a representation: a panel a data set, a line an algorithm.

    pixels, learned: cells of `results.table`; drawn is what has a mean in both.
    """
    before = {(c["dataset"], c["row"]): c["mean"] for c in pixels}
    pairs = [
        (c["dataset"], c["row"].split(" [")[0], before[c["dataset"], c["row"]], c["mean"])
        for c in learned
        if c["mean"] is not None and before.get((c["dataset"], c["row"])) is not None
    ]
    datasets = [name for name in names if any(name == pair[0] for pair in pairs)]
    if not datasets:
        return missing("no algorithm on both pixels and a representation")
    rows = list(dict.fromkeys(pair[1] for pair in pairs))[::-1]
    figure, grid = plt.subplots(
        1,
        len(datasets),
        figsize=(2.6 * len(datasets) + 0.8, 0.32 * len(rows) + 1.4),
        sharey=True,
        sharex=True,
        squeeze=False,
    )
    for axes, dataset in zip(grid.flat, datasets, strict=True):
        for _, row, start, end in (pair for pair in pairs if pair[0] == dataset):
            y = rows.index(row)
            axes.plot([start, end], [y, y], color="0.7", lw=1.5, zorder=1)
            axes.scatter(start, y, marker="o", facecolor="white", edgecolor=PALETTE10[0], zorder=2)
            axes.scatter(end, y, marker="s", color=PALETTE10[5], zorder=3)
        axes.set(title=names[dataset], yticks=range(len(rows)), yticklabels=rows, xlabel=NMI)
    ends = [
        Line2D([], [], ls="", marker="o", markerfacecolor="white", color=PALETTE10[0]),
        Line2D([], [], ls="", marker="s", color=PALETTE10[5]),
    ]
    figure.legend(ends, ["pixels", "representation"], loc="outside lower center", ncols=2)
    return figure
