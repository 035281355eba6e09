"""Tables, effects of a changed setting and verdicts on claims, from records made for the test."""

import math
import re

import matplotlib
import numpy as np
import pytest
from made_records import NAMES, cell

from reprolib.experiments import records
from reprolib.report import ablations, charts, claims, compare, tables

matplotlib.use("Agg")


def nmi(folder, tag, result="SF"):
    found = records.load_records("jule", root=folder, tag=tag, method="JULE")
    return [entry["metrics"][result]["nmi_geometric"] for entry in found]


def test_a_table_is_html_that_scrolls_and_text_that_aligns():
    table = tables.Table(["", "a<b"], [["one", "x\ny & z"], ["three", ""]], "caption")
    html = table._repr_html_()
    assert html.startswith('<div class="book-table"><table class="table"><caption>caption')
    assert '<th scope="col">a&lt;b</th>' in html and "<td>x<br>y &amp; z</td>" in html
    assert '<th scope="row">three</th>' in html
    assert '<td class="long">' in tables.Table(["", ""], [["", "text " * 30]])._repr_html_()
    assert repr(table).splitlines() == ["caption", "       a<b", "one    x; y & z", "three"]
    with pytest.raises(ValueError, match="1 cells in a row, 2 in the head"):
        tables.Table(["a", "b"], [["alone"]])


def test_a_number_and_its_spread_never_break_apart():
    text = tables.spread(0.9134, 0.0041)
    assert text == "0.913\u00a0±\u00a00.004" and " " not in text
    assert tables.spread(0.9134, None) == "0.913"
    assert tables.spread(None, None) == "not run"
    assert tables.spread(0.5, None, stale=True).endswith("(stale)")
    assert tables.signed(0.0123, 0.004) == "+0.012\u00a0±\u00a00.004"
    assert tables.signed(-0.05, None) == "−0.050"


@pytest.mark.parametrize("verdict", [*compare.VERDICTS, "not in paper", *claims.VERDICTS])
def test_every_verdict_can_be_shown(verdict):
    assert tables.marked(verdict).endswith(verdict)


def test_a_comparison_has_every_row_and_column_of_the_paper():
    ours = dict(mean=0.95, std=0.01, n_seeds=3, stale=False, verdict="above")
    cells = [
        cell("A", "digits", **ours),
        cell("A", "usps", paper=None, reported=0.8),
        cell("B", "usps", **ours | {"n_seeds": 1, "std": None, "stale": True}),
    ]
    table = tables.comparison(cells, NAMES)
    assert table.head == ["", "Digits", "USPS"]
    plain = [[c.replace("\u00a0", " ") for c in row] for row in table.rows]
    assert plain[0] == ["A", "0.900\nhere 0.950 ± 0.010\n3 seeds, ▲ above", "– / 0.800"]
    assert plain[1] == ["B", "–", "0.900\nhere 0.950 (stale)\n1 seed, ▲ above"]


def test_the_papers_table_stands_complete_without_any_record(tmp_path):
    printed = next(t for t in compare.published("jule") if t["id"] == "table-3")
    names = compare.dataset_names("jule")
    table = tables.comparison(compare.table("jule", "table-3", root=tmp_path), names)
    assert [row[0] for row in table.rows] == [row["name"] for row in printed["rows"]]
    shown = " ".join(cell for row in table.rows for cell in row)
    for row in printed["rows"]:
        for value in [*row["values"].values(), *row.get("reported", {}).values()]:
            assert value is None or f"{value:.3f}" in shown
    assert "here" not in shown
    assert (
        tables.scales([], names).rows[0][0] == tables.scores([], {}, names).rows[0][0] == "not run"
    )
    assert tables.cost([], names).rows[0][0] == "not run"


def test_other_printed_tables_keep_their_digits_and_refuse_ragged_rows(monkeypatch):
    found = compare.other_tables("jule")
    assert set(found) == {"table-1", "table-2", "table-7", "table-8"}
    assert tables.as_printed(found["table-8"]).rows[0] == [
        *("5k", "0.6281", "0.6305", "0.6310", "0.6350")
    ]
    blank = found["table-7"] | {"rows": [{"name": "r", "values": [0.5, None, None, None, None]}]}
    assert tables.as_printed(blank).rows[0][-1] == "–"
    ragged = dict(
        id="t", title="t", source="s", columns=["a"], rows=[dict(name="r", values=[1, 2])]
    )
    monkeypatch.setattr(compare, "load_yaml", lambda path: {"others": [ragged]})
    with pytest.raises(ValueError, match="row 'r': 2 values for 1 columns"):
        compare.other_tables("jule")


def test_data_sets_and_settings_come_from_the_records(folder):
    runs = records.load_records("jule", root=folder, tag="main", method="JULE")
    printed = {
        "columns": ["digits", "usps", "ytf"],
        "rows": [{"values": v} for v in ([1797, 11000, 5], [10, 10, 2], [8, 16, 3], [8, 16, 3])],
    }
    rows = tables.data_sets(printed, runs, {"usps": 10}, NAMES).rows
    assert [row[0] for row in rows] == ["Digits", "USPS", "ytf"]
    assert [row[3] for row in rows] == ["same", "differs, not run", "cannot be loaded"]
    assert rows[1][2] == "9,298 images of 16×16\n10 categories"
    table_2 = compare.other_tables("jule")["table-2"]
    shown = {row[0]: row[1:] for row in tables.settings(table_2, runs, NAMES).rows}
    assert shown["η, unrolling_rate"] == ["0.9 or 0.2", "0.9"]
    assert shown["K_s, n_neighbors"] == ["20", "20"]
    everything = records.load_records("jule", root=folder, method="JULE")
    both = tables.in_force("unrolling_rate", everything, NAMES)
    assert both == "0.9: Digits\n0.5: Digits"
    assert tables.in_force("unrolling_rate", [], NAMES) == "not run"


def test_cost_is_the_mean_over_seeds(folder):
    rows = tables.cost(records.load_records("jule", root=folder, tag="main"), NAMES).rows
    assert [row[:5] for row in rows] == [
        ["Digits", "JULE", "cpu", rows[0][3], "2.0"],
        ["Digits", "KMeans", "cpu", rows[0][3], "0.05"],
    ]


def test_an_effect_is_a_difference_of_means_with_both_spreads(folder):
    (effect,) = (
        e for e in ablations.effects("jule", ["worse"], root=folder) if e["result"] == "SF"
    )
    main, worse = nmi(folder, "main"), nmi(folder, "worse")
    assert effect["difference"] == pytest.approx(np.mean(worse) - np.mean(main))
    both = math.sqrt(np.var(main, ddof=1) + np.var(worse, ddof=1))
    assert effect["std"] == pytest.approx(both)
    assert effect["n_seeds"] == (2, 3)
    assert effect["changed"] == {"local_weight": (1.0, 0.0), "unrolling_rate": (0.9, 0.5)}
    assert all(e["std"] is None for e in ablations.effects("jule", ["single"], root=folder))
    assert ablations.effects("jule", ["absent"], root=folder) == []
    assert ablations.effects("jule", ["worse"], base="absent", root=folder) == []


def test_an_ablation_says_what_differs_and_what_was_not_run(folder):
    table = ablations.table("jule", ["worse", "absent"], NAMES, root=folder)
    main, worse, absent = table.rows
    assert main[2] == "–" and "\n" not in main[3]
    mean, change = worse[3].split("\n")
    assert mean.startswith(f"{np.mean(nmi(folder, 'worse')):.3f}") and change.startswith("−")
    assert worse[2].split("\n")[0] == "local_weight 1.0\u00a0→\u00a00.0"
    assert absent[:2] == ["absent", "not run"]
    assert list(table.head[3:]) == ["SF", "RC", "seeds"]
    # without anything to compare the base, which was run, has no row
    (absent,) = ablations.table("jule", ["absent"], NAMES, root=folder).rows
    assert absent[0] == "absent"
    many = {f"p{i}": (0, 1) for i in range(5)}
    assert ablations.differences(many) == "5 parameters: p0, p1, p2, p3, p4"


def test_a_base_is_shown_only_where_something_is_compared_with_it(folder):
    assert ablations.measured("jule", ["main", "absent"], root=folder) == []
    tags = [row["tag"] for row in ablations.measured("jule", ["main", "worse"], root=folder)]
    assert tags == ["main", "main", "worse", "worse"]


def test_a_record_without_its_base_is_not_called_not_run(folder, monkeypatch):
    entry = dict(id="d", topic="T", paper="p", released="r", ours="o", why="w", runs=["worse"])
    monkeypatch.setattr(
        compare, "load_yaml", lambda path: {"deviations": [entry | {"base": "absent"}]}
    )
    ((*_, effect),) = ablations.deviations("jule", NAMES, root=folder).rows
    assert effect == "worse: no record of absent beside it"


def test_deviations_carry_the_measured_effect(folder, monkeypatch):
    entry = dict(id="d", topic="T", paper="p", released="r", ours="λ {local_weight}", why="w")
    listed = [entry | {"runs": ["worse", "absent"]}, entry | {"effect": "none by design"}]
    monkeypatch.setattr(compare, "load_yaml", lambda path: {"deviations": listed})
    first, second = ablations.deviations("jule", NAMES, root=folder).rows
    assert first[1] == "Paper: p\nReleased code: r\nHere: λ 1.0\nWhy: w"
    assert second[-1] == "none by design"
    lines = first[-1].split("\n")
    assert lines[0] == "worse against main:" and lines[2] == "absent: not run"
    assert re.fullmatch(r"Digits SF\s−0\.\d{3}\s±\s0\.\d{3}, RC\s−0\.\d{3}\s±\s0\.\d{3}", lines[1])


@pytest.mark.parametrize(
    "changed, message",
    [
        ({"ours": "{gama}"}, "Did you mean 'gamma'"),
        ({"runs": None, "effect": None}, "give `runs`"),
        ({"efect": "x"}, "Did you mean 'effect'"),
        ({"released": 500}, "released must be text"),
    ],
)
def test_a_wrong_deviation_is_named(monkeypatch, changed, message):
    entry = dict(id="d", topic="T", paper="p", released="r", ours="o", why="w", effect="e")
    entry = {k: v for k, v in {**entry, **changed}.items() if v is not None}
    monkeypatch.setattr(compare, "load_yaml", lambda path: {"deviations": [entry]})
    with pytest.raises(ValueError, match=message):
        compare.deviations("jule")


def test_figures_are_drawn_from_records_and_say_when_there_are_none(folder):
    runs = records.load_records("jule", root=folder, tag="main", method="JULE")
    figure = charts.stages(runs[0])
    assert [axes.get_title().split("\n")[0] for axes in figure.axes] == [
        "30 clusters",
        "10 clusters",
    ]
    assert len(charts.paths(runs, NAMES).axes[0].get_lines()) == len(runs)
    measured = ablations.measured("jule", ["main", "worse"], root=folder)
    (axes,) = charts.dots(measured, ["main", "worse"], NAMES).axes
    assert [label.get_text() for label in axes.get_yticklabels()] == ["main", "worse"]
    bars = charts.sizes(runs[:1]).axes[0].patches
    assert sum(bar.get_height() for bar in bars) == 1797
    empty = [charts.stages(None), charts.paths([], NAMES), charts.sizes([])]
    empty += [charts.growth(None), charts.methods_over_n(None)]
    empty.append(charts.dots([], ["main", "absent"], NAMES))
    assert all("not run" in figure.axes[0].texts[0].get_text() for figure in empty)
    matplotlib.pyplot.close("all")


def test_a_final_cluster_keeps_its_colour_on_earlier_panels():
    final = np.array([0, 0, 0, 1, 1])
    earlier = np.array([4, 4, 2, 3, 3])  # 4 and 2 become 0, 3 becomes 1
    last, before = charts.ancestor_colors(final, final), charts.ancestor_colors(earlier, final)
    assert before[:2] == last[:2] and before[3:] == last[3:]
    assert before[2] not in last


def test_gaps_are_signed_and_marked_where_they_are_small():
    cells = [
        cell("R [1]", "digits", paper=0.5, mean=0.52, std=0.01),
        cell("R [1]", "usps", paper=0.5, mean=0.4, std=None),
        cell("S [2]", "usps", paper=None, mean=0.4, std=None),
        cell("S [2]", "digits", paper=0.5, mean=None, std=None),
    ]
    found = tables.gaps(cells, NAMES, near=0.03)
    space = tables.SPACE
    assert found.rows == [["R [1]", f"●{space}+0.020{space}±{space}0.010", "−0.100"]]
    assert list(found.head) == ["", NAMES["digits"], NAMES["usps"]]


def test_the_chart_of_methods_draws_what_was_run():
    entry = {"seconds": 1.0, "peak_mb": 5.0}
    rows = {
        "AC-GDL": {"10": entry, "20": entry | {"seconds": 3.0}},
        "spectral clustering, scikit-learn": {"10": entry, "20": {"left_out": "half took long"}},
    }
    figure = charts.methods_over_n({"results": {"growth": rows}})
    ours, peer = figure.axes[0].lines
    assert list(ours.get_xdata()) == [10, 20] and list(ours.get_ydata()) == [1.0, 3.0]
    assert list(peer.get_xdata()) == [10] and peer.get_linestyle() == "--"
    many = {f"M{i}{', peer' * (i % 2)}": {"10": entry} for i in range(12)}
    panels = charts.methods_over_n({"results": {"growth": many}}).axes
    assert [len(axes.lines) for axes in panels] == [12, 12]
