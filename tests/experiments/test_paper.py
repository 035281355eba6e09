"""A paper's files: each read once, and every mistake in them named."""

import pytest

from reprolib import checks
from reprolib.experiments import paper as papers
from reprolib.experiments import records
from reprolib.experiments.paper import METRICS, Paper, estimators

TABLE = {"id": "t", "title": "T", "source": "Table 0", "metrics": ["acc", "nmi_max"]}
ROW = {"name": "r", "values": {"digits": [0.5, 0.4], "usps": None}}


def with_printed(**printed):
    made = Paper("jule")
    made._printed = printed
    return made


def test_files_are_read_once_and_again_by_a_new_paper(folder, monkeypatch):
    read, found = [], Paper("jule", root=folder)
    monkeypatch.setattr(records, "read", lambda path, read_one=records.read: read.append(path) or read_one(path))
    assert len(found.records) == len(found.select(profile=None, tag=None)) == 8
    assert len(found.select(tag="main", method="JULE", profile=None)) == 3
    assert len(found.select(profile=["cpu"], dataset="digits", tag=None)) == 7
    assert len(read) == 8
    assert len(Paper("jule", root=folder).records) == 8 and len(read) == 16
    with pytest.raises(ValueError, match="Did you mean 'dataset'"):
        found.select(datset="usps", profile=None, tag=None)


def test_yaml_is_read_again_when_it_has_changed(tmp_path):
    path = tmp_path / "a.yml"
    path.write_text("a: 1")
    assert papers.load_yaml(path) is papers.load_yaml(path)
    path.write_text("a: 20")
    assert papers.load_yaml(path) == {"a": 20}
    path.write_text("a: [")
    with pytest.raises(ValueError, match="a.yml is not valid YAML"):
        papers.load_yaml(path)


def test_a_table_gives_the_numbers_of_one_of_its_metrics():
    made = with_printed(tables=[TABLE | {"rows": [ROW]}])
    assert made.printed("t") == [ROW | {"values": {"digits": 0.5, "usps": None}}]
    assert made.printed("t", "nmi_max")[0]["values"] == {"digits": 0.4, "usps": None}
    with pytest.raises(ValueError, match="unknown metric of t 'nmi'"):
        made.printed("t", "nmi")
    with pytest.raises(ValueError, match="unknown table 's'"):
        made.printed("s")
    ranged = with_printed(tables=[TABLE | {"rows": [ROW | {"range": {"digits": [[0.4, 0.6], [0.3, 0.5]]}}]}])
    assert [ranged.printed("t", m)[0]["range"] for m in ("acc", "nmi_max")] == [
        {"digits": x} for x in ([0.4, 0.6], [0.3, 0.5])
    ]
    spread = with_printed(tables=[TABLE | {"rows": [ROW | {"spread": {"digits": [0.01, 0.02]}}]}])
    assert [spread.printed("t", m)[0]["spread"] for m in ("acc", "nmi_max")] == [{"digits": x} for x in (0.01, 0.02)]
    plain = with_printed(tables=[TABLE | {"metrics": ["acc"], "rows": [ROW | {"values": {"usps": 1}}]}])
    assert plain.printed("t")[0]["values"] == {"usps": 1}


# Keys of an entry in the files: those it needs, and those it may have
KEYS = {
    "tables": ("id title source metrics rows", "note"),
    # what comes last in a row names a run of ours to compare with
    "row of tables": ("name values", "note reported range spread method result variant tag"),
    "others": ("id title source columns rows", "note"),
    "row of others": ("name values", "parameter"),
    "deviation": ("id topic paper released ours why", "effect runs base"),
    "claim": ("claim where", "check open note reduced"),
}


def check(kind, where, entry):
    checks.check_keys(where, entry, *(set(keys.split()) for keys in KEYS[kind]))


def check_tables(printed):
    """Raise ValueError, naming the place, for a table of published.yml that is not as `Paper` tells."""
    for kind, columns in (("tables", "metrics"), ("others", "columns")):
        for entry in printed.get(kind, []):
            check(kind, entry.get("id"), entry)
            for row in entry["rows"]:
                place, n = f"{entry['id']}, row {row.get('name')!r}", len(entry[columns])
                check(f"row of {kind}", place, row)
                if kind == "others" and len(row["values"]) != n:
                    raise ValueError(f"{place}: {len(row['values'])} values for {n} columns")
                parts = [row["values"], row.get("reported", {})] if kind == "tables" else []
                for dataset, value in [pair for part in parts for pair in part.items()]:
                    each = value if isinstance(value, list) else [value] * n
                    if len(each) != n or not all(isinstance(x, int | float | None) for x in each):
                        raise ValueError(f"{place}: {dataset} holds {value!r}, not {n} numbers")
                for dataset, found in row.get("spread", {}).items():
                    if len(found) != n or not all(0 < x < 1 for x in found) or None in row["values"][dataset]:
                        raise ValueError(f"{place}: {dataset} has the spread {found!r}, not {n} standard deviations")
                for dataset, pairs in row.get("range", {}).items():
                    middle = row["values"].get(dataset)
                    fits = isinstance(middle, list) and len(pairs) == n
                    if not (fits and all(low <= x <= high for (low, high), x in zip(pairs, middle, strict=True))):
                        raise ValueError(f"{place}: {dataset} holds {middle}, not {n} numbers in the ranges {pairs}")


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"values": {"digits": [0.5]}}, r"row 'r': digits holds \[0.5\], not 2 numbers"),
        ({"values": {"digits": [0.5, "high"]}}, "holds .*high.*, not 2 numbers"),
        ({"reported": {"digits": "x"}}, "holds 'x', not 2 numbers"),
        ({"range": {"digits": [[0.4, 0.6]]}}, "not 2 numbers in the ranges"),
        ({"range": {"digits": [[0.4, 0.6], [0.41, 0.5]]}}, r"holds \[0.5, 0.4\], not 2 numbers in the ranges"),
        ({"range": {"usps": [[0.4, 0.6], [0.3, 0.5]]}}, "holds None, not 2 numbers in the ranges"),
        ({"spread": {"digits": [0.01]}}, r"digits has the spread \[0.01\], not 2 standard deviations"),
        ({"spread": {"digits": [0.01, 2.0]}}, "not 2 standard deviations"),
        ({"metod": "JULE"}, "Did you mean 'method'"),
    ],
)
def test_a_wrong_row_is_named(changed, message):
    with pytest.raises(ValueError, match=message):
        check_tables({"tables": [TABLE | {"rows": [ROW | changed]}]})
    other = dict(id="t", title="t", source="s", columns=["a"])
    with pytest.raises(ValueError, match="row 'r': 2 values for 1 columns"):
        check_tables({"others": [other | {"rows": [dict(name="r", values=[1, 2])]}]})


@pytest.mark.parametrize("name", papers.papers())
def test_the_files_of_a_paper_hold_what_they_must(name):
    paper = Paper(name)
    check_tables(paper._printed)
    assert paper.headline in METRICS
    for entry in paper.published.values():
        assert set(entry["metrics"]) <= set(METRICS)
    for entry in paper.deviations:
        check("deviation", f"deviations.yml, {entry.get('id')}", entry)
        assert entry["runs"] or "effect" in entry, entry["id"]
        needed = KEYS["deviation"][0].split()
        assert all(isinstance(entry[key], str) for key in needed), entry["id"]
    assert set(paper.profiles["profiles"]) == {"smoke", "cpu", "paper"}
    for profile, entries in paper.profiles["profiles"].items():
        for dataset, entry in entries.items():
            assert entry["source"] and entry["n_clusters"], (profile, dataset)


def test_the_claims_hold_what_they_must():
    for paper in papers.claimed():
        for entry in paper["claims"]:
            check("claim", f"claims.yml, {paper['id']}, {entry.get('claim')!r}", entry)
    assert set(Paper("jule").others) == {"table-1", "table-2", "table-7", "table-8"}


@pytest.mark.parametrize("name", papers.papers())
def test_published_rows_name_methods_of_the_paper(name):
    for entry in Paper(name).published.values():
        for row in entry["rows"]:
            assert "method" not in row or row["method"] in estimators()
            assert "method" not in row or row["method"] in papers.methods(name)


def test_a_paper_without_a_chapter_has_claims_only(monkeypatch):
    numbered = {paper["number"]: paper["id"] for paper in papers.claimed()}
    assert [*numbered] == ["002", "001", "003", "000", "004"] and set(numbered.values()) == set(papers.papers())
    with pytest.raises(ValueError, match="Did you mean 'jule'"):
        assert Paper("jul").claims
    monkeypatch.setattr(papers, "claimed", lambda: [{"id": "new", "claims": [{"claim": "c", "where": "w"}]}])
    assert Paper("new").claims and Paper("new").records == []
    with pytest.raises(ValueError, match="unknown paper 'new'"):
        assert Paper("new").published


def test_deviations_are_told_with_the_settings_of_the_code(monkeypatch):
    entry = dict(id="d", topic="T", paper="p", released="r", ours="λ {local_weight}", why="w")
    profiles = Paper("jule").profiles

    def deviations(changed):
        made = Paper("jule")
        made.profiles = profiles
        listed = {k: v for k, v in {**entry, "effect": "e", **changed}.items() if v is not None}
        monkeypatch.setattr(papers, "load_yaml", lambda path: {"deviations": [listed]})
        return made.deviations

    (told,) = deviations({})
    assert (told["ours"], told["runs"], told["base"]) == ("λ 1.0", [], "main")
    with pytest.raises(ValueError, match="Did you mean 'gamma'"):
        deviations({"ours": "{gama}"})
