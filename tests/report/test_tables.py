"""Tables of the book, from records made for the test."""

import math
import re

import numpy as np
import pandas as pd
import pytest
from made_records import NAMES, cell

from reprolib.experiments.paper import Paper
from reprolib.report import claims, compare, tables
from reprolib.report.measured import as_rows, measured


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
    assert tables.spread(0.9134, math.nan) == "0.913"
    assert tables.spread(None, None) == tables.spread(math.nan, math.nan) == "not run"
    assert tables.spread(0.5, None, stale=True).endswith("(stale)")
    assert tables.signed(0.0123, 0.004) == "+0.012\u00a0±\u00a00.004"
    assert tables.signed(-0.05, None) == "−0.050" and tables.signed(0.0, math.nan) == "+0.000"
    assert tables.signed(None, None) == tables.minutes(math.nan) == "not run"


@pytest.mark.parametrize("verdict", [*compare.VERDICTS, "not in paper", *claims.VERDICTS])
def test_every_verdict_can_be_shown(verdict):
    assert tables.marked(verdict).endswith(verdict)


def test_a_comparison_has_every_row_and_column_of_the_paper():
    ours = dict(mean=0.95, std=0.01, n_seeds=3, stale=False, verdict="above")
    cells = [
        cell("A", "digits", **ours),
        cell("A", "usps", paper=None, reported=0.8),
        cell("C", "digits", range=[0.85, 0.95]),
        cell("C", "usps", spread=0.02),
        cell("B", "usps", **ours | {"n_seeds": 1, "std": None, "stale": True}),
    ]
    table = tables.comparison(cells, NAMES)
    assert table.head == ["", "Digits", "USPS"]
    plain = [[c.replace("\u00a0", " ") for c in row] for row in table.rows]
    assert plain[0] == ["A", "0.900\nhere 0.950 ± 0.010\n3 seeds, ▲ above", "– / 0.800"]
    assert plain[1] == ["C", "0.900 (0.850 to 0.950)", "0.900 ± 0.020"]
    assert plain[2] == ["B", "–", "0.900\nhere 0.950 (stale)\n1 seed, ▲ above"]


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


def test_the_papers_table_stands_complete_without_any_record(tmp_path):
    book = Paper("jule", root=tmp_path)
    printed = book.printed("table-3")
    table = tables.comparison(compare.table(book, "table-3"), book.names)
    assert [row[0] for row in table.rows] == [row["name"] for row in printed]
    shown = " ".join(cell for row in table.rows for cell in row)
    for row in printed:
        for value in [*row["values"].values(), *row.get("reported", {}).values()]:
            assert value is None or f"{value:.3f}" in shown
    assert "here" not in shown
    empty = measured(book)
    filled = [tables.scales([], {}), tables.scores(empty, {"acc": "ACC"}, {})]
    for table in (*filled, tables.cost(empty, {})):
        assert table.rows == [["not run", *["–"] * (len(table.head) - 1)]]


def test_printed_tables_keep_their_digits():
    found = Paper("jule").others
    rows = tables.as_printed(found["table-8"]).rows
    assert rows[0] == ["5k", "0.6281", "0.6305", "0.6310", "0.6350"]
    blank = found["table-7"] | {"rows": [{"name": "r", "values": [0.5, None, None, None, None]}]}
    assert tables.as_printed(blank).rows[0][-1] == "–"
    mixed = {"source": "s", "title": "t", "columns": ["a", "b"]}
    mixed["rows"] = [{"name": "hours", "values": [38, 1.2]}, {"name": "inputs", "values": ["8 to 16", 0.25]}]
    assert tables.as_printed(mixed).rows == [["hours", "38", "1.2"], ["inputs", "8 to 16", "0.25"]]


def test_scores_and_cost_are_means_over_seeds(book):
    main = as_rows(book.select(tag="main", profile="cpu"))
    rows = tables.scores(main, {"nmi_geometric": "NMI"}, NAMES).rows
    assert [(row[0], row[-1]) for row in rows] == [
        *(("Digits, JULE SF", "3"), ("Digits, JULE RC", "3"), ("Digits, KMeans", "1"))
    ]
    scores = [e["metrics"]["SF"]["nmi_geometric"] for e in book.select(tag="main", method="JULE", profile=None)]
    assert rows[0][1] == tables.spread(np.mean(scores), np.std(scores, ddof=1))
    elsewhere = main.assign(dataset="another")
    assert tables.scores(elsewhere, {}, NAMES).rows[0][0] == "another, JULE SF"
    both = pd.concat([elsewhere, main, main.assign(dataset="usps")])
    for table in (tables.scores(both, {}, NAMES), tables.cost(both, NAMES)):
        places = [row[0].split(",")[0] for row in table.rows]
        assert list(dict.fromkeys(places)) == ["Digits", "USPS", "another"]
    rows = tables.cost(main, NAMES).rows
    assert [[*row[:5], row[-1]] for row in rows] == [
        ["Digits", "JULE", "cpu", rows[0][3], "2.0", "3"],
        ["Digits", "KMeans", "cpu", rows[0][3], "0.05", "1"],
    ]


def test_an_ablation_says_what_differs_and_what_was_not_run(book):
    table = tables.ablation(book, ["worse", "absent"])
    main, worse, absent = table.rows
    assert main[2] == "–" and "\n" not in main[3] and (main[-1], worse[-1]) == ("3", "2")
    mean, change = worse[3].split("\n")
    scores = [e["metrics"]["SF"]["nmi_geometric"] for e in book.select(tag="worse", profile=None)]
    assert mean.startswith(f"{np.mean(scores):.3f}") and change.startswith("−")
    assert worse[2].split("\n")[0] == "local_weight 1.0\u00a0→\u00a00.0"
    assert absent[:2] == ["absent", "not run"]
    assert list(table.head[3:]) == ["SF", "RC", "seeds"]
    # without anything to compare the base, which was run, has no row
    (absent,) = tables.ablation(book, ["absent"]).rows
    assert absent[0] == "absent"
    many = {f"p{i}": (0, 1) for i in range(5)}
    assert tables.differences(many) == "5 parameters: p0, p1, p2, p3, p4"


def test_deviations_carry_the_measured_effect(book):
    entry = dict(topic="T", paper="p", released="r", ours="λ 1.0", why="w", base="main")
    listed = [entry | {"runs": ["worse", "absent"]}, entry | {"effect": "by design", "runs": []}]
    book.deviations = [*listed, entry | {"runs": ["worse"], "base": "absent"}]
    first, second, third = tables.deviations(book).rows
    assert first[1] == "Paper: p\nReleased code: r\nHere: λ 1.0\nWhy: w"
    assert second[-1] == "by design"
    lines = first[-1].split("\n")
    assert lines[0] == "worse against main:" and lines[2] == "absent: not run"
    assert re.fullmatch(r"Digits SF\s−0\.\d{3}\s\[.*\], RC\s−0\.\d{3}\s\[.*\]", lines[1])
    # a record without its base is not called not run
    assert third[-1] == "worse: no record of absent beside it"


def test_an_overview_has_the_papers_tables_and_all_records(book):
    row = {"name": "OURS", "method": "JULE", "result": "SF"}
    book.published = {
        "t": {
            "title": "made up",
            "source": "Table 0",
            "metrics": ["acc", "nmi_max"],
            "rows": [row | {"values": {"digits": [0.9, None], "usps": [0.5, 0.4]}}],
        },
        "u": {"title": "u", "source": "Table 1", "metrics": ["acc"], "rows": []},
    }
    acc, nmi, nothing, all_records = tables.overview(book)
    assert acc.caption == "Table 0: made up (acc); 1 of 2 numbers not run"
    assert acc.rows[0][:3] == ["OURS", "digits", "0.900"] and nmi.rows[0][2] == "–"
    assert acc.rows[0][-3:-1] == ["3", "cpu"] and nmi.rows[0][-1] == "not in paper"
    assert nothing == "Table 1: u (acc); 0 of 0 numbers not run"
    assert [line[:3] for line in all_records.rows[:2]] == [
        ["JULE-digits-cpu-main", "SF", "3"],
        ["JULE-digits-cpu-main", "RC", "3"],
    ]
    assert len(all_records.rows) == 8 and all_records.rows[0][5] == "120"
    smoke = tables.overview(book, "smoke")[-1]
    assert [line[0] for line in smoke.rows] == ["KMeans-digits-smoke-main"]
    assert tables.overview(book, "paper")[-1].rows[0][0] == "not run"
    with pytest.raises(ValueError, match="Did you mean 'cpu'"):
        tables.overview(book, "cpus")


def test_a_link_in_a_cell_leads_to_the_built_page_and_reads_as_its_words():
    table = tables.Table(["a", "b"], [["x", "[Priced](ablations.md#dcss-mnet) <1>, [−0.1, 0.2](not a page)"]])
    assert '<a href="ablations.html#dcss-mnet">Priced</a> &lt;1&gt;, [−0.1, 0.2](not a page)' in table._repr_html_()
    assert repr(table).endswith("x  Priced <1>, [−0.1, 0.2](not a page)")
