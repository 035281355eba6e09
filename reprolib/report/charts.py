"""Five kinds of figure for measured numbers; each takes plain numbers, so that a page says what it draws.

Panels are given by title, and what stands in them by label, which has one colour and marker in all panels.
"""

from collections.abc import Collection, Mapping, Sequence
from functools import partial
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from reprolib.experiments.paper import METRICS
from reprolib.report.compare import UNKNOWN, difference
from reprolib.report.figures import MARKERS, PALETTE10, scatter

Names = Mapping[str, str]
Pairs = Mapping[str, tuple[np.ndarray, Any]]  # by title
LOOKS = {  # of a verdict: colour and marker
    "above": (PALETTE10[0], "^"),
    "reached": (PALETTE10[2], "o"),
    UNKNOWN: (PALETTE10[1], "D"),
    "below": (PALETTE10[5], "v"),
    "one seed": (PALETTE10[9], "s"),
}


def missing(what: str) -> Figure:
    """A figure that says what was not run."""
    figure, axes = plt.subplots(figsize=(7, 1.4))
    axes.text(0.5, 0.5, f"not run: {what}", ha="center", va="center", color="0.35")
    axes.set_axis_off()
    return figure


def curves(
    panels: Mapping[str, Mapping[str, Sequence[tuple[Any, ...]]]],
    x: str,
    y: str = "",
    *,
    what: str = "",
    log: str = "",
    looks: Mapping[str, Mapping[str, Any]] | None = None,
    legend: str = "best",
    ncols: int = 1,
    **shape: Any,
) -> Figure:
    """Lines in panels {title: {label: lines}}, a line (x, y) or (x, y, std); those of a label look alike.

    x, y: labels of the axes, y only at the left; what: said to be missing where no panel has a line; log: axes with a
    logarithmic scale, "x", "y" or "xy"; looks: keywords of `Axes.plot` by label; legend: where, in the first panel or
    "outside ..."; shape: `size` (inches) and `columns` of the figure.
    """
    panels = {title: lines for title, lines in panels.items() if any(lines.values())}
    if not panels:
        return missing(what)
    figure, grid = _panels(panels, **shape)
    labels = list(dict.fromkeys(label for lines in panels.values() for label in lines))
    for axes, lines in zip(grid, panels.values(), strict=False):
        for label, same in lines.items():
            place = labels.index(label)
            look = {"color": PALETTE10[place % 10], "marker": MARKERS[place % len(MARKERS)]}
            look |= {"markersize": 5, "linewidth": 1.3} | (looks or {}).get(label, {})
            for number, (at, values, *std) in enumerate(same):
                draw = partial(axes.errorbar, yerr=std[0], capsize=2) if std else axes.plot
                draw(at, values, label=None if number else label, **look)
        axes.set(xlabel=x, **{f"{axis}scale": "log" for axis in log})
    grid[0].set_ylabel(y)
    handles = grid[0].get_legend_handles_labels()
    (figure if "outside" in legend else grid[0]).legend(*handles, loc=legend, ncols=ncols)
    return figure


def dots(rows: pd.DataFrame, names: Names, metric: str = "nmi_geometric", labels: Names | None = None) -> Figure:
    """Each seed as a ring, mean and standard deviation as a filled mark: settings by data sets.

    rows: of `compare.settings`, the tags from top to bottom, the base first; labels: names of results.
    """
    labels = labels or {"SF": "JULE-SF", "RC": "JULE-RC"}
    rows = rows[rows["result"].isin(list(labels))]
    shown = list(dict.fromkeys(rows["tag"]))
    if len(shown) < 2:
        return missing("another setting beside the base")
    panels = {names[d]: rows[rows["dataset"] == d] for d in names if d in set(rows["dataset"])}
    columns = min(len(panels), 2)
    height = -(-len(panels) // columns) * (1.3 + 0.5 * len(shown)) + 0.4
    figure, grid = _panels(panels, size=(8, height), columns=columns, sharey=True)
    looks = dict(zip(labels, [(PALETTE10[0], "o", -0.13), (PALETTE10[5], "s", 0.13)], strict=False))
    for axes, here in zip(grid, panels.values(), strict=False):
        for (tag, result), seeds in here.groupby(["tag", "result"], sort=False)[metric]:
            color, marker, shift = looks[result]
            place = shown.index(tag) + shift
            axes.plot(seeds, [place] * len(seeds), marker, mec=color, mfc="none", alpha=0.8, ms=6)
            axes.errorbar(seeds.mean(), place, xerr=seeds.std(), fmt=marker, color=color, ms=7, capsize=3, lw=1.5)
        for place in (place for place, tag in enumerate(shown) if tag not in set(here["tag"])):
            axes.text(
                0.5, place, "not run", transform=axes.get_yaxis_transform(), ha="center", va="center", color="0.35"
            )
        axes.set_xlabel(METRICS[metric])
        axes.locator_params(axis="x", nbins=5)
    grid[0].set_yticks(range(len(shown)), shown)
    grid[0].set_ylim(len(shown) - 0.5, -0.5)
    for result, (color, marker, _) in looks.items():
        grid[0].plot([], [], marker, color=color, label=labels[result])
    figure.legend(loc="outside upper right", ncols=2)
    return figure


def against(cells: Sequence[Mapping[str, Any]], names: Names, x: str) -> Figure:
    """Published numbers as ticks, ours as marks with the 95 % interval of the mean, coloured by verdict.

    cells: of `compare.table`; those that were run have a line each; x: label of the axis.
    """
    shown = [cell for cell in cells if cell["verdict"] in LOOKS]
    if not shown:
        return missing("a row with a published number")
    figure, axes = plt.subplots(figsize=(7.5, 1.5 + 0.34 * len(shown)))
    for place, cell in enumerate(shown):
        color, marker = LOOKS[cell["verdict"]]
        found = difference(cell["scores"])
        if cell["n_seeds"] > 1:
            axes.plot([found.low, found.high], [place, place], color=color, lw=1.5)
        axes.plot(cell["mean"], place, marker, color=color, ms=8)
        axes.plot(cell["paper"], place, "|", color="black", ms=17, mew=2)
    axes.set(xlabel=x, ylim=(len(shown) - 0.4, -0.6))
    axes.set_yticks(range(len(shown)), [f"{c['row'].split(' [')[0]}, {names[c['dataset']]}" for c in shown])
    axes.plot([], [], "|", color="black", ms=12, mew=2, label="published")
    for verdict in (v for v in LOOKS if v in {cell["verdict"] for cell in shown}):
        color, marker = LOOKS[verdict]
        axes.plot([], [], marker, color=color, ms=8, label=f"here: {verdict}")
    figure.legend(loc="outside lower center", ncols=3)
    return figure


def bars(panels: Pairs, x: str, y: str, *, what: str = "", share: float = 1.0, **shape: Any) -> Figure:
    """Counts on a log scale, {title: (edges (m + 1,), counts (m,))}, bars of a share of the width; else as `curves`."""
    if not panels:
        return missing(what)
    figure, grid = _panels(panels, subplot_kw={"yscale": "log"}, **shape)
    for axes, (edges, counts) in zip(grid, panels.values(), strict=False):
        middle, width = (edges[1:] + edges[:-1]) / 2, np.diff(edges)
        axes.bar(middle, counts, share * width, color=PALETTE10[0])
        axes.set_xlabel(x)
        if axes.get_subplotspec().is_first_col():
            axes.set_ylabel(y)
    return figure


def maps(panels: Pairs, title: str, *, what: str = "", **shape: Any) -> Figure:
    """Points in a plane or, where the rows have three numbers, in the space of principal components.

    panels: {title: (points (m, 2) and their labels (m,))} or (points (m, 3) and their colours); else as `curves`.
    """
    if not panels:
        return missing(what)
    deep = next(iter(panels.values()))[0].shape[1] == 3
    figure, grid = _panels(panels, subplot_kw={"projection": "3d"} if deep else None, **shape)
    for axes, (points, shown) in zip(grid, panels.values(), strict=False):
        if not deep:
            scatter(axes, points, shown, size=7)
            continue
        axes.scatter(*points.T, s=5, c=shown, linewidths=0, depthshade=False)
        axes.set_title(axes.get_title(), y=0.98)
        axes.set(xticklabels=[], yticklabels=[], zticklabels=[])
        for number, axis in enumerate((axes.xaxis, axes.yaxis, axes.zaxis), start=1):
            axis.set_label_text(f"PC {number}")
            axis.labelpad = -10 if number < 3 else -8  # beside the axis, not across it
        axes.set_box_aspect((1, 1, 1), zoom=0.84)
    figure.suptitle(title, **({} if deep else {"x": 0.02, "ha": "left"}))
    return figure


def _panels(titles: Collection[str], size: Any = None, columns: int = 0, **options: Any) -> Any:
    """A figure with titled panels in rows, and its axes (n or more,); those left over are not seen."""
    n = len(titles)
    columns = columns or (2 if n == 4 else min(n, 3))
    lines = -(-n // columns)
    size = size or (max(3.0 * columns, 4.5), 3.2 * lines)
    figure, grid = plt.subplots(lines, columns, figsize=size, squeeze=False, **options)
    for axes, title in zip(grid.flat, titles, strict=False):
        axes.set_title(title)
    for axes in grid.flat[n:]:
        axes.set_axis_off()
    return figure, grid.flatten()
