"""Numbers side by side: averages over seeds, differences, verdicts and effects of a setting."""

import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from reprolib.experiments import records
from reprolib.experiments.paper import METRICS, Paper, papers
from reprolib.report import claims, compare, tables
from reprolib.report.compare import Difference
from reprolib.report.measured import COLUMNS, as_rows, groups, measured, printed


def nmi(book, tag, result="SF"):
    found = book.select(tag=tag, method="JULE", profile=None)
    return [entry["metrics"][result]["nmi_geometric"] for entry in found]


def test_a_row_is_a_run_and_result(book):
    rows = measured(book)
    assert rows is measured(book), "made once a paper"
    assert len(rows) == 2 * 6 + 2 and set(COLUMNS) < set(rows)
    first, entry = rows.iloc[0], book.records[0]
    assert (first["dataset"], first["n"], first["result"]) == ("digits", 1797, "SF")
    assert first["acc"] == entry["metrics"]["SF"]["acc"]
    assert first["seconds"] == 60.0 and first["parameters"] == entry["parameters"]
    assert not rows["stale"].any()
    assert as_rows([entry | {"behaviours": {"a method that is gone": 1}}])["stale"].all()
    assert list(as_rows([])) == [*COLUMNS, *METRICS]


def test_rows_are_grouped_by_run_and_result(book):
    assert [len(rows) for rows in groups(book).values()] == [3, 3, 1, 1, 2, 2, 1, 1]


@pytest.mark.parametrize(
    ("gap", "low", "high", "n", "expected"),
    [
        (0.03, 0.021, 0.039, 3, "above"),
        (0.03, 0.010, 0.050, 3, "reached"),
        (0.0, -0.019, 0.019, 3, "reached"),
        (-0.01, -0.030, 0.010, 3, "cannot tell"),
        (-0.03, -0.050, -0.010, 3, "below"),
        (0.30, -math.inf, math.inf, 1, "one seed"),
        (-0.021, -0.021, -0.021, 0, "below"),
    ],
)
def test_verdicts(gap, low, high, n, expected):
    assert compare.verdict(Difference(gap, low, high, n)) == expected
    assert expected in compare.VERDICTS


def test_a_method_without_a_seed_has_exact_scores(book):
    rows = compare.runs(book, "digits", {"method": "KMeans", "result": "labels"})
    assert compare.scores(rows, "acc") is not None and len(compare.scores(rows, "acc")) == len(rows)
    exact = compare.scores(rows[:1].assign(method="ACGDL"), "acc")
    assert exact == rows["acc"].iloc[0] and isinstance(exact, float)
    # features of a network differ by seed, so that several runs are no exact number
    assert len(compare.scores(pd.concat([rows, rows]).assign(method="ACGDL"), "acc")) == 2 * len(rows)


@pytest.mark.parametrize("name", papers())
def test_every_published_table_can_be_compared(name):
    paper = Paper(name)
    for table, entry in paper.published.items():
        for metric in entry["metrics"]:
            cells = compare.table(paper, table, metric)
            assert cells and {c["verdict"] for c in cells} <= {*compare.VERDICTS, "not in paper"}


def test_a_measured_cell_stands_beside_the_papers(book):
    rows = [
        {"name": "OURS-SF", "method": "JULE", "result": "SF", "values": {"digits": 0.01}},
        {"name": "k", "method": "KMeans", "result": "labels", "values": {"digits": None}},
        {
            "name": "other",
            "values": {"digits": 0.5},
            "reported": {"digits": 0.6},
            "range": {"digits": [0.4, 0.7]},
            "spread": {"digits": 0.1},
        },
    ]
    ours, kmeans, other = compare.cells(book, rows)
    assert ours["mean"] == pytest.approx(np.mean(nmi(book, "main")))
    assert ours["std"] == pytest.approx(np.std(nmi(book, "main"), ddof=1))
    assert (ours["n_seeds"], ours["verdict"], ours["stale"]) == (3, "above", False)
    assert ours["profile"] == "cpu"
    # a smoke number never stands in for the paper's experiment unasked
    assert (kmeans["verdict"], kmeans["profile"]) == ("not in paper", "cpu")
    (smoke,) = compare.cells(book, rows[1:2], "acc", profile="smoke")
    assert smoke["mean"] > 0.8 > compare.cells(book, rows[1:2], "acc")[0]["mean"]
    assert smoke["reduced"].startswith("built-in 8x8")
    assert (other["verdict"], other["reported"], other["mean"]) == ("not run", 0.6, None)
    assert other["range"] == [0.4, 0.7] and ours["range"] is None
    assert other["spread"] == 0.1 and ours["spread"] is None
    with pytest.raises(ValueError, match="Did you mean 'digits'"):
        compare.cells(book, rows, datasets=["digit"])
    with pytest.raises(ValueError, match="unknown profile 'cpus'"):
        compare.cells(book, rows, profile="cpus")


def test_the_papers_scale_goes_before_the_cpus(tmp_path, folder):
    for path in folder.glob("KMeans-digits-cpu-*"):
        text = path.read_bytes().replace(b'"profile": "cpu"', b'"profile": "paper"')
        (tmp_path / path.name.replace("cpu", "paper")).write_bytes(text)
        (tmp_path / path.name).write_bytes(path.read_bytes())
        text = path.read_bytes().replace(b'"tag": "main"', b'"tag": "on-digits-ip"')
        (tmp_path / path.name.replace("main", "on")).write_bytes(text)
    book = Paper("jule", root=tmp_path)
    row = {"method": "KMeans", "result": "labels"}
    assert set(compare.runs(book, "digits", row)["profile"]) == {"paper"}
    row["tag"] = "on-{dataset}-ip"
    assert set(compare.runs(book, "digits", row)["tag"]) == {"on-digits-ip"}
    assert compare.runs(book, "usps", row) is None


def test_an_effect_is_a_difference_seed_by_seed(book):
    (effect,) = (e for e in compare.effects(book, ["worse"]) if e["result"] == "SF")
    found, gaps = effect["difference"], np.subtract(nmi(book, "worse"), nmi(book, "main")[:2])
    assert found.gap == pytest.approx(np.mean(gaps)) and found.n == len(gaps) == 2
    assert effect["changed"] == {"local_weight": (1.0, 0.0), "unrolling_rate": (0.9, 0.5)}
    assert all(e["difference"].n == 1 for e in compare.effects(book, ["single"]))
    assert compare.effects(book, ["absent"]) == []
    assert compare.effects(book, ["worse"], base="absent") == []


def test_without_a_shared_start_its_luck_is_in_the_interval(book, monkeypatch):
    start, lifted = [0.70, 0.80, 0.75], [0.721, 0.819, 0.771]  # starts differ by more than what is compared

    def run(tag, **scores):
        about = {"tag": tag, "dataset": "digits", "profile": "cpu", "stale": False, "seed": range(3)}
        rows = [pd.DataFrame({book.headline: values, "result": name}) for name, values in scores.items()]
        return pd.concat([one.assign(**about, parameters=[{}] * 3) for one in rows])

    rounded, elsewhere = [0.7004, 0.7996, 0.75], [0.70, 0.80, 0.752]
    for ae, shared in ((start, True), (rounded, True), (elsewhere, False)):
        rows = pd.concat([run("main", ae=start, q=lifted), run("less", ae=ae, q=start)])
        monkeypatch.setattr(compare, "settings", lambda paper, tags, rows=rows: rows)
        (effect,) = (e for e in compare.effects(book, ["less"]) if e["result"] == "q")
        assert effect["shared"] == shared and effect["difference"].gap == pytest.approx(-0.0203, abs=1e-4)
        assert (effect["difference"].high < 0) == shared
        assert ("other starts" in tables.ablation(book, ["less"]).rows[1][2]) != shared
        (judged,) = claims.KINDS["settings"](book, ["less"], result="q")
        assert judged[1] == ("holds" if shared else "cannot tell")


def test_a_base_is_kept_only_where_something_is_compared_with_it(book):
    assert compare.settings(book, ["main", "absent"]).empty
    tags = compare.settings(book, ["worse", "main"])["tag"]
    assert list(tags) == ["worse"] * 4 + ["main"] * 6


def test_what_runs_printed_is_what_their_records_hold(book, tmp_path):
    entries = [e for e in book.records if "acc" in next(iter(e["metrics"].values()), {})]
    lines = [f"{Path(e['path']).stem}: {records.told(e)}, 12 s in all" for e in entries]
    log = tmp_path / "runs.log"
    log.write_text("\n".join(["78 runs", *lines, "failed: JULE-usps-cpu-main-seed0: no", "left, no time"]))
    found, expected = printed(log), as_rows(entries)
    keys = ["method", "dataset", "profile", "tag", "result"]
    assert found[keys].values.tolist() == expected[keys].values.tolist() and list(found.index) == list(expected.index)
    for metric in ("acc", "nmi_geometric"):
        assert (found[metric] - expected[metric]).abs().max() <= 5e-4
