"""Verdicts on claims, from records made for the test."""

import json
import re
from types import SimpleNamespace

import pandas as pd
import pytest

from reprolib.experiments import records
from reprolib.experiments.paper import Paper, claimed
from reprolib.report import claims, tables
from reprolib.report.compare import FAILS, HOLDS, NOT_RUN, UNKNOWN


def test_the_evidence_sorts_comparisons_by_their_answer():
    found = claims.decide([("a +0.1", HOLDS), ("b −0.1", FAILS), ("c +0.0", UNKNOWN), ("d +0.2", HOLDS)])
    assert found["verdict"] == "holds in part"
    assert found["evidence"].split("\n") == [
        "2 of 4 hold",
        "holds: a +0.1; d +0.2",
        "does not hold: b −0.1",
        "cannot tell: c +0.0",
    ]
    assert claims.decide([])["verdict"] == "not run"
    many = claims.decide([(f"x{i}", HOLDS) for i in range(claims.MOST + 2)])
    assert many["evidence"].endswith("; and 2 more")


def test_what_the_schedule_cannot_test_is_no_failure():
    found = claims.decide([("a", FAILS)], reduced="six epochs")
    assert found["verdict"] == "at reduced scale" and found["evidence"].startswith("six epochs\n")
    assert claims.decide([("a", UNKNOWN)], reduced="six epochs")["verdict"] == "at reduced scale"
    assert claims.decide([("a", HOLDS)], reduced="six epochs")["verdict"] == "holds"
    assert claims.decide([], reduced="six epochs")["verdict"] == "not run"


def judge(book, **check):
    """The verdict, and the names of what was compared by answer, without the numbers."""
    book.claims = [{"claim": "c", "where": "w", "check": check, "note": "told"}]
    (row,) = claims.judged(book)
    first, *lines, note = row["evidence"].split("\n")
    assert note == "told" and (first == "no record" or first.endswith(" hold"))
    found = {}
    for line in lines:
        answer, names = line.split(": ", 1)
        found[answer] = [re.split(r" [+−]", name)[0] for name in names.split("; ")]
    return row["verdict"], found


def test_methods_are_compared_with_the_best_of_the_others(book):
    better = dict(kind="better", first=["JULE/RC"], than=["JULE/SF"], datasets=["digits"])
    assert judge(book, **better, paired=True) == ("holds", {HOLDS: ["JULE RC on Digits"]})
    worse = better | {"first": ["JULE/SF"], "than": ["JULE/RC"]}
    assert judge(book, **worse) == ("does not hold", {FAILS: ["JULE SF on Digits"]})
    # RC is above SF, but not above the best of the two
    both = better | {"than": ["JULE/SF", "JULE/RC@main"]}
    assert judge(book, **both)[0] == "does not hold"
    # a rival under another tag
    assert judge(book, **better | {"than": ["JULE/SF@worse"]})[0] == "holds"
    assert judge(book, **better | {"first": ["JULE/SF@worse"], "than": ["JULE/SF"]})[0] == "does not hold"
    # one seed of k-means decides nothing
    one = better | {"than": ["KMeans/labels"]}
    assert judge(book, **one) == ("cannot tell", {UNKNOWN: ["JULE RC on Digits"]})
    assert judge(book, **better | {"datasets": ["usps"]})[0] == "not run"


def test_settings_are_compared_with_the_main_one(book):
    settings = dict(kind="settings", tags=["worse"])
    assert judge(book, **settings) == ("holds", {HOLDS: ["SF on Digits", "RC on Digits"]})
    assert judge(book, **settings, result="RC") == ("holds", {HOLDS: ["RC on Digits"]})
    assert judge(book, kind="settings", tags=["absent"])[0] == "not run"
    assert judge(book, kind="settings", tags=["worse", "absent"])[1] == {
        HOLDS: ["worse SF on Digits", "worse RC on Digits"]
    }
    told = judge(book, kind="settings", rule="alike", tags=["worse", "absent"], result="RC")
    assert told == ("does not hold", {FAILS: ["worse on Digits"]})


def test_phases_are_compared_within_runs(book):
    for entry in book.select(tag="main", method="JULE", profile=None):
        assert entry["metrics"]["RC"]["acc"] > entry["metrics"]["SF"]["acc"]
    check = dict(kind="phases", methods=["JULE"], datasets=["digits", "usps"])
    assert judge(book, **check, first="RC", than="SF") == ("holds", {HOLDS: ["JULE on Digits"]})
    mean = judge(book, **check, first="RC", than="SF", average=True)
    assert mean == ("holds", {HOLDS: ["mean of 1 pairs of method and data set"]})
    assert judge(book, **check, first="SF", than="RC") == ("does not hold", {FAILS: ["JULE on Digits"]})
    assert judge(book, **check, first="SF", than="labels") == ("not run", {})


def test_the_numbers_of_clusters_are_looked_up(book):
    stages = dict(kind="stages", dataset="digits", clusters=[30, 17, 11])
    found = {HOLDS: ["30 clusters", "17 clusters"], FAILS: ["11 clusters"]}
    assert judge(book, **stages) == ("holds in part", found)
    assert judge(book, **stages | {"dataset": "usps"})[0] == "not run"


def printed(book, **rows):
    """A table "t" of the paper for runs of the test, each given as (method, result, tag, number)."""
    made = []
    for name, (method, result, tag, number) in rows.items():
        run = {"method": method, "result": result, "tag": tag}
        made.append({"name": name.replace("_", " "), "values": {"digits": number}} | run)
    entry = {"title": "t", "source": "s", "metrics": ["nmi_geometric"], "rows": made}
    book.published = {**book.__dict__.get("published", {}), "t": entry}
    return made


def test_cells_follow_the_printed_table(book):
    rows = printed(
        book, low=("JULE", "SF", "main", 0.1), high=("JULE", "SF", "main", 0.99), no=("JULE", "SF", "main", None)
    )
    rows[0]["name"] = "low [1]"
    cells = dict(kind="cells", table="t", rows=["low [1]", "high", "no"])
    assert judge(book, **cells) == ("holds in part", {HOLDS: ["low on Digits"], FAILS: ["high on Digits"]})
    told = judge(book, **cells, at_most=True)
    assert told == ("holds in part", {HOLDS: ["high on Digits"], FAILS: ["low on Digits"]})
    assert judge(book, **cells | {"rows": []})[0] == "not run"


def test_likeness_asks_for_no_less(book, tmp_path, folder):
    for path in [*folder.glob("*.json"), *folder.glob("*.npz")]:
        (tmp_path / path.name).write_bytes(path.read_bytes())
    for path in folder.glob("JULE-digits-cpu-worse-*.json"):
        text = path.read_text().replace('"name": "digits"', '"name": "usps"')
        (tmp_path / f"usps-{path.name}").write_text(text.replace('"tag": "worse"', '"tag": "main"'))
    book.root = tmp_path
    (row,) = printed(book, R=("JULE", "SF", "main", 0.9))
    row["values"]["usps"] = 0.9
    alike = dict(kind="alike", table="t", rows=["R"], datasets=["digits", "usps"])
    assert judge(book, **alike)[0] == "holds"  # better is no failure
    assert judge(book, **alike | {"datasets": ["usps", "digits"]})[0] == "does not hold"
    assert judge(book, **alike | {"rows": ["absent"]})[0] == "not run"


def test_gains_are_over_another_table_or_over_the_row_of_pixels(book):
    rc, sf = ("JULE", "RC", "main", 0.9), ("JULE", "SF", "main", 0.9)
    rows = printed(book, A=rc, B=sf, C=("JULE", "SF", "absent", 0.9))
    rows[0]["name"] = "A [1]"
    learned = book.published["t"]
    pixels = printed(book, A=sf, B=sf, C=sf)
    pixels[0]["name"] = "A [1]"
    book.published = {"learned": learned, "pixels": book.published["t"]}
    over = judge(book, kind="gains", table="learned", over="pixels")
    assert over == ("holds in part", {HOLDS: ["A on Digits"], UNKNOWN: ["B on Digits"]})
    rows = printed(book, x=sf, y=rc, z=("JULE", "SF", "worse", 0.9))
    for row, name in zip(rows, ("x → y, data", "x → y, ip", "x → y, top-1"), strict=True):
        row["name"] = name
    within = judge(book, kind="gains", table="t")
    assert within[1] == {HOLDS: ["x → y, ip on Digits"], FAILS: ["x → y, top-1 on Digits"]}
    assert judge(book, kind="gains", table="t", most=True)[0] == "holds in part"


def test_codes_are_compared_seed_by_seed_where_the_paper_prints_both(book):
    def run(name, seed, scores):
        found = {f"n{n}": {"accuracy": a} for n, a in scores.items()}
        made = book.select(tag="main", method="JULE", profile=None)[0]
        return made | {"tag": name, "random_state": seed, "metrics": found}

    runs = [run("whitened", 0, {10: 0.5, 20: 0.6}), run("whitened", 1, {10: 0.7, 20: 0.8})]
    runs += [run("conv1", 0, {10: 0.52, 20: 0.6}), run("conv1", 1, {10: 0.721, 20: 0.9})]
    book.select = lambda task, profile, tag: runs
    rows = [{"name": "10", "values": [0.61, 0.62]}, {"name": "20", "values": [0.7, 0.72]}]
    book.others = {"t8": {"columns": ["conv1", "K"], "rows": rows}}
    check = dict(
        kind="codes", profile="cpu", code="conv1", than="whitened", table="t8", sizes={"n10": "10", "n20": "20"}
    )
    check["columns"] = {"conv1": "conv1", "whitened": "K"}
    found = {HOLDS: ["conv1 from 10"], UNKNOWN: ["conv1 from 20"]}
    assert judge(book, **check) == ("holds in part", found)
    assert judge(book, **check | {"sizes": {"n10": "10"}})[0] == "holds"
    runs.clear()
    assert judge(book, **check) == ("not run", {})


# three seeds whose starts differ by more than what is compared
STARTS, LIFTED = pd.Series([0.70, 0.80, 0.75]), pd.Series([0.721, 0.819, 0.771])


def test_shared_starts_are_compared_seed_by_seed(book, monkeypatch):
    scores = {"A/f": LIFTED, "A/t": STARTS, "B/f": LIFTED[:1], "B/t": STARTS[:1]}
    monkeypatch.setattr(claims, "_scores", lambda paper, dataset, one: scores.get(one))
    better = dict(kind="better", first=["A/f"], than=["A/t"], datasets=["digits"])
    assert judge(book, **better)[0] == "cannot tell"
    assert judge(book, **better, paired=True)[0] == "holds"
    # "does not improve" is a claim of its own: as good, and not better, is enough
    scores["A/f"] = STARTS + pd.Series([-0.001, 0.002, -0.002])
    assert judge(book, **better, paired=True)[0] == "does not hold"
    assert judge(book, **better, paired=True, rule="reaches")[0] == "holds"
    scores["A/f"] = LIFTED
    phases = dict(kind="phases", methods=["A", "B"], first="f", than="t", datasets=["digits"])
    assert judge(book, **phases) == ("holds in part", {HOLDS: ["A on Digits"], UNKNOWN: ["B on Digits"]})
    # a pair with one seed alone is no part of the mean
    told = judge(book, **phases, average=True)
    assert told == ("holds", {HOLDS: ["mean of 1 pairs of method and data set"]})

    def rows(tag, scores):
        about = {"tag": tag, "dataset": "digits", "profile": "cpu", "result": "SF"}
        return pd.DataFrame({book.headline: scores}).assign(**about)

    found = pd.concat([rows("main", LIFTED), rows("less", STARTS)])
    monkeypatch.setattr(claims.compare, "settings", lambda paper, tags: found)
    assert judge(book, kind="settings", tags=["less"])[0] == "holds"


def test_the_papers_own_gain_decides_what_no_gain_means(book, monkeypatch):
    def cell(row, paper, scores):
        return {"row": row, "dataset": "digits", "paper": paper, "scores": scores, "mean": scores.mean()}

    start, gained = pd.Series([0.5] * 3), pd.Series([0.51, 0.50, 0.52])  # by 0.01, between -0.015 and 0.035
    for printed, answer in ((0.06, "does not hold"), (0.02, "cannot tell")):
        cells = [cell("x, data", 0.5, start), cell("x, ip", 0.5 + printed, gained)]
        monkeypatch.setattr(claims.compare, "table", lambda *_, cells=cells: cells)
        assert judge(book, kind="gains", table="t")[0] == answer
        about = book.select(tag="main", method="JULE", profile=None)[0]
        pairs = [(t, seed, a) for t, scores in (("k", start), ("c", gained)) for seed, a in scores.items()]
        runs = [about | {"tag": t, "random_state": seed, "metrics": {"n10": {"accuracy": a}}} for t, seed, a in pairs]
        book.others = {"t8": {"columns": ["C", "K"], "rows": [{"name": "10", "values": [0.5 + printed, 0.5]}]}}
        check = dict(
            kind="codes",
            profile="cpu",
            code="c",
            than="k",
            table="t8",
            sizes={"n10": "10"},
            columns={"c": "C", "k": "K"},
        )
        monkeypatch.setattr(claims.Paper, "select", lambda self, runs=runs, **_: runs)
        assert judge(book, **check)[0] == answer
        monkeypatch.undo()


def test_a_wrong_check_names_its_claim(book):
    with pytest.raises(ValueError, match="claims.yml, jule, 'c'.*Did you mean 'better'"):
        judge(book, kind="beter")
    with pytest.raises(ValueError, match="claims.yml, jule, 'c': clusters missing"):
        judge(book, kind="stages", dataset="digits")
    with pytest.raises(ValueError, match="Did you mean 'clusters'"):
        judge(book, kind="stages", dataset="digits", clusters=[], cluster=1)


def test_what_is_not_checked_says_why(book):
    book.claims = [{"claim": "a", "where": "w", "open": "no data"}, {"claim": "b", "where": "w"}]
    told = [(row["verdict"], row["evidence"]) for row in claims.judged(book)]
    assert told == [("not run", "no data"), ("not started", "the chapter is not written")]


def test_every_claim_of_every_paper_has_a_verdict():
    for paper in claimed():
        rows = claims.judged(Paper(paper["id"]))
        assert rows and {row["verdict"] for row in rows} <= set(claims.VERDICTS)
        assert len(tables.claims(rows).rows) == len(paper["claims"])


def test_the_note_on_passes_and_lost_clusters_is_what_the_records_say():
    book = Paper("dcss")
    for entry in book.select(dataset=["usps", "fashion-mnist"], tag="main", profile="cpu"):
        given = entry["parameters"]
        if entry["method"] == "DCSS":
            assert given["phase1_epochs"] * given["n_clusters"] == 60
        elif entry["method"] in ("DEC", "IDEC", "DCN", "DKM", "VaDE"):
            assert given["phase1_epochs"] == 20
    dkm = book.select(method="DKM", dataset="usps", tag="main", profile="cpu")
    used = [len(set(records.load_arrays(entry)["u"].tolist())) for entry in dkm]
    assert used == [9, 9, 9]


@pytest.mark.parametrize(
    ("ends", "verdict"),
    [
        ({0: [1, 1, 1], 3: [0.5, 0.6, 0.7]}, HOLDS),
        ({0: [1, 1, 1, 1], 3: [1, 1, 0.8, 1, 1, 1]}, FAILS),  # the paper's difference is excluded
        ({0: [1, 1, 1]}, NOT_RUN),
        ({}, NOT_RUN),
    ],
)
def test_gaussians_compare_shares_of_runs_that_end_right(ends, verdict, tmp_path):
    common = {"learning_rate": 0.001, "penalty": 1.0}
    rows = [common | {"n_noise": n, "acc": [0.1, acc]} for n, found in ends.items() for acc in found]
    (tmp_path / "gaussians.json").write_text(json.dumps(rows))
    paper = SimpleNamespace(folder=tmp_path)
    found = claims.decide(list(claims.KINDS["gaussians"](paper, [3, 8], 0.99)))
    assert found["verdict"] == verdict, found
    if verdict == HOLDS:
        assert "others less 3 and 8, rate 0.001, lambda 1 +1.000, 3 seeds, in the paper +1" in found["evidence"]


def test_rounds_are_compared_with_the_round_before_seed_by_seed():
    def entry(seed, *rounds):
        rows = [
            {"round": number, "member": member, "stage": stage, "epoch": epoch}
            | ({"acc": acc + 0.1 * member} if epoch else {})
            for number, acc in enumerate(rounds)
            for stage in ("refine" if number else "pretext", "scan", "self-labelling")
            for member in (0, 1)
            for epoch, acc in enumerate((0, acc - (stage == "scan") * 0.3))
        ]
        return {"random_state": seed, "history": rows}

    # the third round of one seed was not begun: what its second left is compared with nothing
    runs = [entry(0, 0.60, 0.70, 0.72), entry(1, 0.50, 0.61, 0.60), entry(2, 0.60, 0.69)]
    paper = SimpleNamespace(name="p", names={}, profiles={"method": "ProFeat"}, select=lambda **_: runs)
    for of in ("features", "clusters"):
        first, second = claims.KINDS["rounds"](paper, of, ["digits"])
        assert first[1] == HOLDS and first[0].startswith("round 2 on digits +0.100\u00a0[")
        assert (
            second[1] == UNKNOWN and second[0].startswith("round 3 on digits +0.005\u00a0[") and "2 seeds" in second[0]
        )
    paper.select = lambda **_: []
    assert claims.decide(list(claims.KINDS["rounds"](paper, "features", ["digits"])))["verdict"] == NOT_RUN
    with pytest.raises(ValueError, match="Did you mean 'features'"):
        list(claims.KINDS["rounds"](paper, "feature", ["digits"]))
