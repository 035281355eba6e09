"""Verdicts on claims, from records made for the test."""

import pytest

from reprolib.experiments.paper import Paper, claimed
from reprolib.report import claims, tables


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


def judge(book, **check):
    book.claims = [{"claim": "c", "where": "w", "check": check}]
    (row,) = claims.judged(book)
    return row["verdict"], row["evidence"]


def test_methods_are_compared_with_the_best_of_the_others(book):
    better = dict(kind="better", first=["JULE/SF"], than=["KMeans/labels"], datasets=["digits"])
    assert judge(book, **better) == ("holds", "1 of 1")
    worse = better | {"first": ["KMeans/labels"], "than": ["JULE/SF", "JULE/RC"]}
    assert judge(book, **worse) == ("does not hold", "0 of 1; not: KMeans on Digits")
    # SF is above k-means, but not above the best of the two
    both = better | {"than": ["KMeans/labels", "JULE/RC"]}
    assert judge(book, **both) == ("does not hold", "0 of 1; not: JULE SF on Digits")
    assert judge(book, **better | {"datasets": ["usps"]})[0] == "not run"


def test_settings_are_compared_with_the_main_one(book):
    settings = dict(kind="settings", tags=["worse"])
    assert judge(book, **settings) == ("holds", "2 of 2")
    assert judge(book, **settings, result="RC") == ("holds", "1 of 1")
    assert judge(book, kind="settings", tags=["absent"])[0] == "not run"
    told = judge(book, kind="settings", rule="same", tags=["worse", "absent"], result="RC")
    assert told == ("does not hold", "0 of 1; not: worse on Digits")


def test_phases_are_compared_within_runs(book):
    for entry in book.select(tag="main", method="JULE"):
        assert entry["metrics"]["RC"]["acc"] > entry["metrics"]["SF"]["acc"]
    check = dict(kind="phases", methods=["JULE"], datasets=["digits", "usps"])
    assert judge(book, **check, first="RC", than="SF") == ("holds", "1 of 1")
    worse = judge(book, **check, first="SF", than="RC")
    assert worse == ("does not hold", "0 of 1; not: JULE on Digits")
    assert judge(book, **check, first="SF", than="labels") == ("not run", "no record")


def test_the_numbers_of_clusters_are_looked_up(book):
    stages = dict(kind="stages", dataset="digits", clusters=[30, 17, 11])
    assert judge(book, **stages) == ("holds in part", "2 of 3; not: 11 clusters")
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
    rows = printed(book, low=("JULE", "SF", "main", 0.1), high=("JULE", "SF", "main", 0.99))
    rows[0]["name"] = "low [1]"
    cells = dict(kind="cells", table="t", rows=["low [1]", "high"])
    assert judge(book, **cells) == ("holds in part", "1 of 2; not: high on Digits")
    told = judge(book, **cells, agree=["below"])
    assert told == ("holds in part", "1 of 2; not: low on Digits")
    assert judge(book, **cells | {"rows": []})[0] == "not run"


def test_likeness_allows_what_the_paper_shows(book, tmp_path, folder):
    for path in [*folder.glob("*.json"), *folder.glob("*.npz")]:
        (tmp_path / path.name).write_bytes(path.read_bytes())
    for path in folder.glob("JULE-digits-cpu-worse-*.json"):
        text = path.read_text().replace('"name": "digits"', '"name": "usps"')
        (tmp_path / f"usps-{path.name}").write_text(text.replace('"tag": "worse"', '"tag": "main"'))
    book.root = tmp_path
    (row,) = printed(book, R=("JULE", "SF", "main", 0.9))
    alike = dict(kind="alike", table="t", rows=["R"], datasets=["digits", "usps"])
    row["values"]["usps"] = 0.9
    assert judge(book, **alike) == ("does not hold", "0 of 1; not: R")
    row["values"]["usps"] = 0.5
    assert judge(book, **alike) == ("holds", "1 of 1")

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
    assert over == ("holds in part", "1 of 2; not: B on Digits")
    rows = printed(book, x=sf, y=rc, z=("JULE", "SF", "worse", 0.9))
    for row, name in zip(rows, ("x → y, data", "x → y, ip", "x → y, top-1"), strict=True):
        row["name"] = name
    within = judge(book, kind="gains", table="t")
    assert within == ("holds in part", "1 of 2; not: x → y, top-1 on Digits")
    assert judge(book, kind="gains", table="t", most=True)[0] == "holds in part"


def test_codes_are_compared_seed_by_seed(book):
    def run(name, seed, scores):
        found = {f"n{n}": {"accuracy": a} for n, a in scores.items()}
        made = book.select(tag="main", method="JULE")[0]
        return made | {"tag": name, "random_state": seed, "metrics": found}

    runs = [run("whitened", 0, {10: 0.5, 20: 0.6}), run("whitened", 1, {10: 0.7, 20: 0.8})]
    runs += [run("conv1", 0, {10: 0.52, 20: 0.6}), run("conv1", 1, {10: 0.73, 20: 0.9})]
    book.select = lambda task, tag: runs
    check = dict(kind="codes", codes=["conv1", "conv2"], than="whitened")
    # 0.02 and 0.03 from 10 images, 0.0 and 0.1 from 20
    assert judge(book, **check) == ("holds in part", "1 of 2; not: conv1 from 20")
    runs.pop()  # one seed alone says nothing
    assert judge(book, **check) == ("not run", "no record")
    runs.clear()
    assert judge(book, **check) == ("not run", "no record")


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
