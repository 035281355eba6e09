"""Five kinds of figure for measured numbers; each takes plain numbers, so that a page says what it draws.

Panels are given by title, and what stands in them by label, which has one colour and marker in all panels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from reprolib.experiments.paper import METRICS
from reprolib.report.figures import MARKERS, PALETTE10, PALETTE20, image_row, scatter

RINGS = {"mfc": "none", "alpha": 0.8}  # of single seeds


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

    x, y: labels of the axes, y only at the left; what: said to be missing where no panel has a line;
    log: axes with a logarithmic scale, "x", "y" or "xy"; looks: keywords of `Axes.plot` by label; legend:
    where, in the first panel or "outside ..."; shape: `size` (inches) and `columns` of the figure.
    """
    panels = {title: lines for title, lines in panels.items() if any(lines.values())}
    if not panels:
        return missing(what)
    figure, grid = _panels(len(panels), **shape)
    labels = list(dict.fromkeys(label for lines in panels.values() for label in lines))
    for axes, (title, lines) in zip(grid, panels.items(), strict=False):
        for label, same in lines.items():
            look = _look(labels.index(label)) | (looks or {}).get(label, {})
            for number, (at, values, *std) in enumerate(same):
                bars = {"yerr": std[0], "capsize": 2} if std else {}
                draw = axes.errorbar if std else axes.plot
                draw(at, values, label=None if number else label, **look, **bars)
        axes.set(title=title, xlabel=x, **{f"{axis}scale": "log" for axis in log})
    grid[0].set_ylabel(y)
    handles = grid[0].get_legend_handles_labels()
    (figure if "outside" in legend else grid[0]).legend(*handles, loc=legend, ncols=ncols)
    return figure


def dots(
    rows: pd.DataFrame,
    names: Mapping[str, str],
    metric: str = "nmi_geometric",
    labels: Mapping[str, str] | None = None,
) -> Figure:
    """Each seed as a ring, mean and standard deviation as a filled mark: settings by data sets.

    rows: of `compare.settings`, the tags from top to bottom, the base first; labels: which results, and
    how they are called, by default JULE's.
    """
    labels = labels or {"SF": "OURS-SF", "RC": "OURS-RC"}
    rows = rows[rows["result"].isin(list(labels))]
    shown = list(dict.fromkeys(rows["tag"]))
    datasets = [dataset for dataset in names if dataset in set(rows["dataset"])]
    if len(shown) < 2:
        return missing("another setting beside the base")
    columns = min(len(datasets), 2)
    height = -(-len(datasets) // columns) * (1.3 + 0.5 * len(shown)) + 0.4
    figure, grid = _panels(len(datasets), size=(8, height), columns=columns, sharey=True)
    looks = dict(zip(labels, [(PALETTE10[0], "o", -0.13), (PALETTE10[5], "s", 0.13)], strict=False))
    for axes, dataset in zip(grid, datasets, strict=False):
        here = rows[rows["dataset"] == dataset]
        for (tag, result), seeds in here.groupby(["tag", "result"], sort=False)[metric]:
            color, marker, shift = looks[result]
            place = shown.index(tag) + shift
            axes.plot(seeds, [place] * len(seeds), marker, mec=color, ms=6, **RINGS)
            look = {"fmt": marker, "color": color, "ms": 7, "capsize": 3, "lw": 1.5}
            axes.errorbar(seeds.mean(), place, xerr=seeds.std(), **look)
        axes.set(title=names[dataset], xlabel=METRICS[metric])
        axes.locator_params(axis="x", nbins=5)
    grid[0].set_yticks(range(len(shown)), shown)
    grid[0].set_ylim(len(shown) - 0.5, -0.5)
    for result, (color, marker, _) in looks.items():
        grid[0].plot([], [], marker, color=color, label=labels[result])
    figure.legend(loc="outside upper right", ncols=2)
    figure.suptitle("Rings: seeds; filled: mean ± standard deviation", x=0.02, ha="left")
    return figure


def bars(
    panels: Mapping[str, tuple[np.ndarray, np.ndarray]],
    x: str,
    y: str,
    *,
    what: str = "",
    even: bool = False,
    **shape: Any,
) -> Figure:
    """Counts on a logarithmic scale, panels {title: (edges (m + 1,), counts (m,))}; else as `curves`.

    even: a dashed line where all bars would end if they were equal.
    """
    if not panels:
        return missing(what)
    figure, grid = _panels(len(panels), subplot_kw={"yscale": "log"}, **shape)
    for axes, (title, (edges, counts)) in zip(grid, panels.items(), strict=False):
        middle, width = (edges[1:] + edges[:-1]) / 2, np.diff(edges)
        axes.bar(middle, counts, 0.8 * width if even else width, color=PALETTE10[0])
        axes.set(title=title, xlabel=x)
        if even:
            axes.axhline(np.mean(counts), color=PALETTE10[5], ls="--", lw=1.5)
            axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
            axes.grid(axis="x", visible=False)
    for axes in grid:
        if axes.get_subplotspec().is_first_col():
            axes.set_ylabel(y)
    return figure


def maps(
    panels: Mapping[str, tuple[np.ndarray, Any]], title: str, *, what: str = "", **shape: Any
) -> Figure:
    """Points in a plane or, where the rows have three numbers, in space.

    panels: {title: (points (m, 2) and their labels (m,))} or (points (m, 3) and their colours); else as
    `curves`.
    """
    if not panels:
        return missing(what)
    deep = next(iter(panels.values()))[0].shape[1] == 3
    figure, grid = _panels(len(panels), subplot_kw={"projection": "3d"} if deep else None, **shape)
    for axes, (name, (points, shown)) in zip(grid, panels.items(), strict=False):
        if deep:
            axes.scatter(*points.T, s=5, c=shown, linewidths=0, depthshade=False)
            _bare(axes)
        else:
            scatter(axes, points, shown, size=7)
        axes.set_title(name, y=0.98 if deep else None)
    figure.suptitle(title, **({} if deep else {"x": 0.02, "ha": "left"}))
    return figure


def gallery(images: np.ndarray, below: np.ndarray, *, what: str = "", columns: int = 5) -> Figure:
    """Grey images (m, h, w), each with its distribution (m, K) as bars below it."""
    if not len(images):
        return missing(what)
    lines = -(-len(images) // columns)
    figure, grid = plt.subplots(2 * lines, columns, figsize=(8, 2.9 * lines), squeeze=False)
    for axes in grid.flat:
        axes.set_axis_off()
    for i, (image, row) in enumerate(zip(images, below, strict=True)):
        upper, lower = grid[2 * (i // columns) : 2 * (i // columns) + 2, i % columns]
        upper.set_axis_on()
        lower.set_axis_on()
        image_row([upper], [image])
        lower.bar(np.arange(len(row)), row, color=PALETTE10[0])
        lower.set(ylim=(0, 1.02), xticks=np.arange(0, len(row), 3), yticks=[0, 1])
        lower.grid(False)
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


def _look(place: int) -> dict[str, Any]:
    look = {"color": PALETTE10[place % 10], "marker": MARKERS[place % len(MARKERS)]}
    return look | {"markersize": 5, "linewidth": 1.3}


def _bare(axes: Axes) -> None:
    """Take the numbers from the axes of a space, and keep their names near."""
    axes.set(xticklabels=[], yticklabels=[], zticklabels=[])
    axes.set(xlabel="PC 1", ylabel="PC 2", zlabel="PC 3")
    for axis in (axes.xaxis, axes.yaxis, axes.zaxis):
        axis.labelpad = -10
    axes.set_box_aspect((1, 1, 1), zoom=0.88)


def _panels(
    n: int, size: tuple[float, float] | None = None, columns: int | None = None, **options: Any
) -> tuple[Figure, np.ndarray]:
    """A figure with n panels in rows, as (n or more,) axes; those that are left over are not seen."""
    columns = columns or (2 if n == 4 else min(n, 3))
    lines = -(-n // columns)
    if size is None:
        size = (max(3.0 * columns, 4.5), 3.2 * lines)
    figure, grid = plt.subplots(lines, columns, figsize=size, squeeze=False, **options)
    for axes in grid.flat[n:]:
        axes.set_axis_off()
    return figure, grid.flatten()
