"""Verdicts on claims, from records made for the test."""

import pytest
from made_records import NAMES, cell

from reprolib.experiments import records
from reprolib.report import claims, compare, tables


@pytest.mark.parametrize(
    "good, most, verdict",
    [
        ([], False, "not run"),
        ([True, True], False, "holds"),
        ([True, False], False, "holds in part"),
        ([False, False], False, "does not hold"),
        ([True, True, False], True, "holds"),
        ([True, False], True, "holds in part"),
    ],
)
def test_a_claim_is_decided_by_its_comparisons(good, most, verdict):
    compared = [(f"c{i}", fine) for i, fine in enumerate(good)]
    found = claims.decide(compared, most=most)
    assert found["verdict"] == verdict
    assert ("not: " in found["evidence"]) == (False in good)


def judge(monkeypatch, folder, **check):
    claim = {"claim": "c", "where": "w", "check": check}
    paper = {"id": "jule", "claims": [claim]}
    monkeypatch.setattr(claims, "papers", lambda: [paper])
    (row,) = claims.judged("jule", root=folder)
    return row["verdict"], row["evidence"]


def test_checks_compare_the_records(monkeypatch, folder):
    monkeypatch.setattr(compare, "dataset_names", lambda paper: NAMES)
    better = dict(kind="better", first=["JULE/SF"], than=["KMeans/labels"], datasets=["digits"])
    assert judge(monkeypatch, folder, **better) == ("holds", "1 of 1")
    worse = better | {"first": ["KMeans/labels"], "than": ["JULE/SF", "JULE/RC"]}
    assert judge(monkeypatch, folder, **worse) == ("does not hold", "0 of 1; not: KMeans on Digits")
    assert judge(monkeypatch, folder, **better | {"datasets": ["usps"]})[0] == "not run"
    stages = dict(kind="stages", dataset="digits", clusters=[30, 17, 11])
    assert judge(monkeypatch, folder, **stages) == ("holds in part", "2 of 3; not: 11 clusters")
    assert judge(monkeypatch, folder, kind="ablation", tags=["worse"])[0] == "holds"
    assert judge(monkeypatch, folder, kind="ablation", tags=["absent"])[0] == "not run"
    told = judge(monkeypatch, folder, kind="ablation", tags=["worse"], result="RC")
    assert told == ("holds", "1 of 1")
    told = judge(monkeypatch, folder, kind="insensitive", tags=["worse", "absent"], result="RC")
    assert told == ("does not hold", "0 of 1; not: worse on Digits")


def test_cells_and_likeness_follow_the_printed_table(monkeypatch, folder):
    def printed(*values):
        cells = [
            cell("R [1]", d, paper=p, mean=m, std=None, verdict=compare.verdict(p, m, None))
            for d, p, m in values
        ]
        monkeypatch.setattr(compare, "table", lambda *args, **kwargs: cells)
        monkeypatch.setattr(compare, "dataset_names", lambda paper: NAMES)

    cells = dict(kind="cells", table="t", rows=["R [1]"])
    alike = dict(kind="alike", table="t", rows=["R [1]"], datasets=["digits", "usps"])
    printed(("digits", 0.9, 0.92), ("usps", 0.85, 0.8))
    assert judge(monkeypatch, folder, **cells) == ("holds in part", "1 of 2; not: R on USPS")
    # 0.12 apart, 0.05 in the paper
    assert judge(monkeypatch, folder, **alike)[0] == "does not hold"
    printed(("digits", 0.9, 0.82), ("usps", 0.85, 0.8))
    assert judge(monkeypatch, folder, **alike)[0] == "holds"
    printed(("digits", 0.9, None), ("usps", 0.85, 0.8))
    assert judge(monkeypatch, folder, **alike)[0] == "not run"


def test_gains_are_over_another_table_or_over_the_row_of_pixels(monkeypatch, folder):
    def scored(row, mean):
        return cell(row, "digits", paper=0.9, mean=mean, std=0.01, verdict="below")

    learned = [scored("A [1]", 0.8), scored("B [2]", 0.6), scored("C", 0.7), scored("D", None)]
    pixels = [scored("A [1]", 0.7), scored("B [2]", 0.6), scored("C", None), scored("D", 0.5)]
    layers = [scored("x → y, data", 0.7), scored("x → y, ip", 0.8), scored("x → y, top-1", 0.72)]
    printed = {"learned": learned, "pixels": pixels, "layers": layers}
    monkeypatch.setattr(compare, "table", lambda paper, table, **kwargs: printed[table])
    monkeypatch.setattr(compare, "dataset_names", lambda paper: NAMES)
    over = judge(monkeypatch, folder, kind="gains", table="learned", over="pixels")
    assert over == ("holds in part", "1 of 2; not: B on Digits")
    within = judge(monkeypatch, folder, kind="gains", table="layers")
    # 0.02 is less than two joint standard deviations
    assert within == ("holds in part", "1 of 2; not: x → y, top-1 on Digits")


def test_every_claim_of_every_paper_has_a_verdict():
    assert [paper["number"] for paper in claims.papers()] == ["002", "001", "003", "000", "004"]
    for paper in claims.papers():
        rows = claims.judged(paper["id"])
        assert rows and {row["verdict"] for row in rows} <= set(claims.VERDICTS)
        assert len(tables.claims(rows).rows) == len(paper["claims"])
    with pytest.raises(ValueError, match="Did you mean 'jule'"):
        claims.judged("jul")


def test_phases_are_compared_within_runs(monkeypatch, folder):
    for entry in records.load_records("jule", root=folder, tag="main", method="JULE"):
        assert entry["metrics"]["RC"]["acc"] > entry["metrics"]["SF"]["acc"]
    check = dict(kind="phases", methods=["JULE"], datasets=["digits"])
    monkeypatch.setattr(claims.results, "dataset_names", lambda paper: {"digits": "Digits"})
    better = judge(monkeypatch, folder, **check, first="RC", than="SF")
    assert better == ("holds", "1 of 1")
    worse = judge(monkeypatch, folder, **check, first="SF", than="RC")
    assert worse == ("does not hold", "0 of 1; not: JULE on Digits")
    absent = judge(monkeypatch, folder, **check, first="SF", than="labels")
    assert absent == ("not run", "no record")


def test_codes_are_compared_seed_by_seed(monkeypatch, folder):
    def run(name, seed, scores):
        found = {f"n{n}": {"accuracy": a} for n, a in scores.items()}
        return {"parameters": {"representation": name}, "random_state": seed, "metrics": found}

    runs = [run("whitened", 0, {10: 0.5, 20: 0.6}), run("whitened", 1, {10: 0.7, 20: 0.8})]
    runs += [run("conv1", 0, {10: 0.52, 20: 0.6}), run("conv1", 1, {10: 0.73, 20: 0.9})]
    monkeypatch.setattr(records, "load_records", lambda paper, **filters: runs)
    check = dict(kind="codes", codes=["conv1", "conv2"], than="whitened")
    # far apart over seeds, but the gain from 10 images is alike in both
    assert judge(monkeypatch, folder, **check) == ("holds in part", "1 of 2; not: conv1 from 20")
    runs.pop()  # one seed alone says nothing
    assert judge(monkeypatch, folder, **check) == ("not run", "no record")
