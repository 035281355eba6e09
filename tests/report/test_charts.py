"""The five kinds of figure: what they draw, and what they say where there is nothing to draw."""

import matplotlib
import numpy as np
import pandas as pd
import pytest
from made_records import NAMES, cell

from reprolib.experiments.paper import METRICS
from reprolib.report import charts, compare
from reprolib.report.figures import MARKERS, PALETTE10

matplotlib.use("Agg")


@pytest.fixture(autouse=True)
def closed():
    yield
    matplotlib.pyplot.close("all")


def titles(figure):
    return [axes.get_title() for axes in figure.axes if axes.axison]


def test_without_numbers_every_figure_says_what_was_not_run(book):
    empty = [
        charts.curves({}, "x", what="it"),
        charts.curves({"one": {}, "two": {"label": []}}, "x", what="it"),
        charts.bars({}, "x", "y", what="it"),
        charts.maps({}, "title", what="it"),
        charts.against([], NAMES, "x"),
    ]
    assert all(figure.axes[0].texts[0].get_text().startswith("not run: ") for figure in empty)
    alone = charts.dots(compare.settings(book, ["main", "absent"]), NAMES)
    assert "not run" in alone.axes[0].texts[0].get_text()


def test_curves_of_a_label_look_alike_in_every_panel():
    line = np.arange(3), np.arange(3) + 1.0
    panels = {"one": {"a": [line], "b": [line, line]}, "none": {"a": []}, "two": {"b": [line]}}
    looks = {"a": {"linestyle": "--"}}
    figure = charts.curves(panels, "x", "y", log="y", looks=looks, size=(5, 3))
    one, two = figure.axes
    assert titles(figure) == ["one", "two"] and tuple(figure.get_size_inches()) == (5, 3)
    assert [line.get_color() for line in one.lines] == [PALETTE10[0], PALETTE10[1], PALETTE10[1]]
    assert [line.get_marker() for line in two.lines] == [MARKERS[1]]
    assert [line.get_linestyle() for line in one.lines] == ["--", "-", "-"]
    assert (one.get_xscale(), one.get_yscale(), one.get_ylabel(), two.get_ylabel()) == (*("linear", "log", "y", ""),)
    assert [text.get_text() for text in one.get_legend().get_texts()] == ["a", "b"]
    assert figure.legends == [] and two.get_legend() is None


def test_curves_can_carry_bars_and_a_legend_outside():
    line = np.arange(3), np.ones(3), np.full(3, 0.1)
    figure = charts.curves({"": {"a": [line]}}, "x", legend="outside lower center", ncols=2)
    (axes,) = figure.axes
    assert len(axes.containers) == 1 and len(figure.legends) == 1
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["a"]


def test_dots_show_every_seed_and_the_mean(book):
    figure = charts.dots(compare.settings(book, ["main", "worse"]), NAMES)
    (axes,) = figure.axes
    assert [label.get_text() for label in axes.get_yticklabels()] == ["main", "worse"]
    assert axes.get_xlabel() == METRICS["nmi_geometric"] and titles(figure) == ["Digits"]
    rings = [line for line in axes.lines if line.get_markerfacecolor() == "none"]
    assert [len(line.get_xdata()) for line in rings] == [3, 3, 2, 2]
    scores = [e["metrics"]["SF"]["nmi_geometric"] for e in book.select(tag="main", method="JULE", profile=None)]
    np.testing.assert_allclose(rings[0].get_xdata(), scores)
    middles = [bar.lines[0].get_xdata()[0] for bar in axes.containers]
    assert middles[0] == pytest.approx(np.mean(scores))
    places = [line.get_ydata()[0] for line in rings]
    assert [round(place) for place in places] == [0, 0, 1, 1] and len(set(places)) == 4
    labels = {"RC": "recomputed"}
    figure = charts.dots(compare.settings(book, ["main", "worse"]), NAMES, "acc", labels)
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["recomputed"]


def test_measured_stands_against_published_with_the_verdict_in_colour_and_form():
    seeds = pd.Series([0.88, 0.9, 0.92])
    near = cell("JULE [1]", "usps", mean=0.9, scores=seeds, n_seeds=3, verdict="reached")
    single = cell("JULE", "digits", mean=0.5, scores=pd.Series([0.5]), n_seeds=1, verdict="one seed")
    figure = charts.against([single, cell("K-means", "usps", verdict="not run"), near], NAMES, "NMI")
    (axes,) = figure.axes
    assert [label.get_text() for label in axes.get_yticklabels()] == ["JULE, Digits", "JULE, USPS"]
    lines = [line for line in axes.lines if len(line.get_xdata())]
    ours, published, interval, *_ = lines
    assert (ours.get_xdata()[0], published.get_xdata()[0]) == (0.5, 0.9) and ours.get_marker() == "s"
    half = 4.303 * 0.02 / np.sqrt(3)  # Student's t with two degrees of freedom
    np.testing.assert_allclose(interval.get_xdata(), [0.9 - half, 0.9 + half], rtol=1e-3)
    assert (interval.get_color(), lines[3].get_marker()) == charts.LOOKS["reached"]
    words = [text.get_text() for text in figure.legends[0].get_texts()]
    assert words == ["published", "here: reached", "here: one seed"]


def test_bars_stand_between_their_edges():
    edges, counts = np.array([0.0, 1.0, 3.0]), np.array([5, 7])
    figure = charts.bars({"a": (edges, counts)}, "x", "y")
    (axes,) = figure.axes
    found = [(bar.get_x(), bar.get_width(), bar.get_height()) for bar in axes.patches]
    assert found == [(0.0, 1.0, 5), (1.0, 2.0, 7)]
    assert axes.get_yscale() == "log" and len(axes.lines) == 0
    panels = {str(i): (edges, counts) for i in range(5)}
    figure = charts.bars(panels, "x", "y", share=0.5, columns=3)
    assert titles(figure) == list("01234")
    assert figure.axes[0].patches[1].get_width() == 1.0
    assert [axes.get_ylabel() for axes in figure.axes[:5]] == ["y", "", "", "y", ""]


def test_maps_are_flat_or_deep_as_the_points_are():
    points, labels = np.random.default_rng(0).random((7, 3)), np.arange(7) % 3
    flat = charts.maps({str(i): (points[:, :2], labels) for i in range(4)}, "title", size=(8, 8))
    assert titles(flat) == list("0123") and flat.get_suptitle() == "title"
    assert len(flat.axes[0].collections[0].get_offsets()) == 7
    (deep,) = charts.maps({"a": (points, ["#000000"] * 7)}, "title").axes
    assert deep.name == "3d" and deep.get_zlabel() == "PC 3"
