"""The claims of the papers (book/claims.yml) and a verdict on each, computed from the records."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from reprolib.checks import check_keys, unknown_name
from reprolib.experiments import records
from reprolib.experiments.paper import BOOK, load_yaml
from reprolib.report import ablations, compare
from reprolib.studies import theorems
from reprolib.studies.classify import gains

VERDICTS = ("holds", "holds in part", "does not hold", "not run", "not started")
GOOD = ("above", "reached", "within spread")
OPTIONS = {
    "cells": ({"table", "rows"}, {"datasets", "agree"}),
    "better": ({"first", "than", "datasets"}, {"most"}),
    "alike": ({"table", "rows", "datasets"}, set()),
    "stages": ({"dataset", "clusters"}, set()),
    "ablation": ({"tags"}, {"result"}),
    "insensitive": ({"tags"}, {"result"}),
    "gains": ({"table"}, {"over", "most"}),
    "codes": ({"codes", "than"}, {"most"}),
    "phases": ({"methods", "first", "than", "datasets"}, {"most"}),
    "theorems": ({"zeta"}, set()),
}


def papers() -> list[dict]:
    """Read book/claims.yml: papers with `id`, `number`, `cite`, `title` and `claims`.

    Raises ValueError, naming the claim, for missing or unknown keys.
    """
    path = BOOK / "claims.yml"
    found = load_yaml(path)["papers"]
    for paper in found:
        for entry in paper["claims"]:
            where = f"{path.name}, {paper['id']}, {entry.get('claim', '?')!r}"
            check_keys(where, entry, {"claim", "where"}, {"check", "open"})
            if check := entry.get("check"):
                if check.get("kind") not in OPTIONS:
                    raise unknown_name(f"kind of check in {where}", check.get("kind"), OPTIONS)
                needed, optional = OPTIONS[check["kind"]]
                check_keys(where, check, needed | {"kind"}, optional)
    return found


def judged(paper: str, *, root: Path | None = None) -> list[dict]:
    """Judge a paper's claims: `claim`, `where`, `verdict` (one of VERDICTS) and `evidence` in words.

    root: folder of the records. A check counts comparisons, each as `results.verdict` does:

    - cells: numbers of a published table; good when the verdict is in `agree`, by default at least
      within the spread of the paper's
    - better: each of `first` (method/result) against the best of `than`, by data set; good when above;
      `most`: holds when more than half are
    - alike: a row of a table on two data sets; good when they differ by no more than the paper's own
      numbers do, or by two standard deviations
    - stages: the numbers of clusters that the records of a data set went through
    - ablation: the records tagged "main" against those of a tag; good when main is above; `result`
      leaves the others out, those for one that the changed setting comes after
    - insensitive: the same records; good when the means differ by no more than 0.01 or two standard
      deviations of their difference
    - gains: every number of a table against that of the same row in the table `over` or, without one,
      of the data set's row "<...>, data" in the table itself; good when above
    - codes: accuracies of codebooks (`classify.gains`) against that of `than`, seed by seed for each number
      of labelled images; good when the mean gain is more than two of its standard deviations

    - phases: one result of each method against another result of the same runs, seed by seed on each data
      set; good when the mean gain is more than two of its standard deviations, or 0.01 if that is more

    Raises ValueError for an unknown paper.
    """
    known = {entry["id"]: entry for entry in papers()}
    if paper not in known:
        raise unknown_name("paper", paper, known)
    rows = []
    for entry in known[paper]["claims"]:
        row = {"claim": entry["claim"], "where": entry["where"]}
        if check := entry.get("check"):
            options = {k: v for k, v in check.items() if k not in ("kind", "most")}
            found = CHECKS[check["kind"]](paper, root=root, **options)
            row |= decide(found, most=check.get("most", False))
        elif "open" in entry:
            row |= {"verdict": "not run", "evidence": entry["open"]}
        else:
            row |= {"verdict": "not started", "evidence": "the chapter is not written"}
        rows.append(row)
    return rows


def decide(comparisons: Sequence[tuple[str, bool]], *, most: bool = False) -> dict[str, str]:
    """Verdict and evidence from comparisons (what was compared, whether it is good)."""
    if not comparisons:
        return {"verdict": "not run", "evidence": "no record"}
    good = [name for name, fine in comparisons if fine]
    bad = [name for name, fine in comparisons if not fine]
    if not bad or (most and len(good) > len(bad)):
        verdict = "holds"
    else:
        verdict = "holds in part" if good else "does not hold"
    evidence = f"{len(good)} of {len(comparisons)}"
    if bad:
        evidence += f"; not: {', '.join(bad)}"
    return {"verdict": verdict, "evidence": evidence}


def _cells(
    paper: str,
    *,
    table: str,
    rows: Sequence[str],
    datasets: Sequence[str] | None = None,
    agree: Sequence[str] = GOOD,
    root: Path | None,
) -> list[tuple[str, bool]]:
    cells = compare.table(paper, table, datasets=datasets, root=root)
    run = [c for c in cells if c["row"] in rows and c["mean"] is not None]
    names = compare.dataset_names(paper)
    return [(f"{_short(c['row'])} on {names[c['dataset']]}", c["verdict"] in agree) for c in run]


def _better(
    paper: str,
    *,
    first: Sequence[str],
    than: Sequence[str],
    datasets: Sequence[str],
    root: Path | None,
) -> list[tuple[str, bool]]:
    scores = _main_scores(paper, root)
    names = compare.dataset_names(paper)
    found = []
    for dataset in datasets:
        others = [scores[o, dataset] for o in than if (o, dataset) in scores]
        for one in first:
            if others and (one, dataset) in scores:
                mean, std = scores[one, dataset]
                best, spread = max(others)
                joint = (std**2 + spread**2) ** 0.5
                name = f"{one.removesuffix('/labels').replace('/', ' ')}"
                name += f" on {names.get(dataset, dataset)}"
                found.append((name, compare.verdict(best, mean, joint) == "above"))
    return found


def _alike(
    paper: str, *, table: str, rows: Sequence[str], datasets: Sequence[str], root: Path | None
) -> list[tuple[str, bool]]:
    cells = compare.table(paper, table, datasets=datasets, root=root)
    found = []
    for row in rows:
        one, other = (c for c in cells if c["row"] == row)
        if one["mean"] is None or other["mean"] is None:
            continue
        spread = 2 * ((one["std"] or 0) ** 2 + (other["std"] or 0) ** 2) ** 0.5
        allowed = max(abs(one["paper"] - other["paper"]), spread, compare.TOLERANCE)
        found.append((_short(row), abs(one["mean"] - other["mean"]) <= allowed))
    return found


def _stages(
    paper: str, *, dataset: str, clusters: Sequence[int], root: Path | None
) -> list[tuple[str, bool]]:
    runs = records.load_records(paper, root=root, dataset=dataset, tag="main")
    seen = {stage["n_clusters"] for entry in runs for stage in entry["history"]}
    return [(f"{number} clusters", number in seen) for number in clusters] if seen else []


def _ablation(
    paper: str, *, tags: Sequence[str], result: str | None = None, root: Path | None
) -> list[tuple[str, bool]]:
    return [
        (name, compare.verdict(row["mean"], row["base_mean"], row["std"]) == "above")
        for name, row in _effects(paper, tags, result, root)
    ]


def _insensitive(
    paper: str, *, tags: Sequence[str], result: str | None = None, root: Path | None
) -> list[tuple[str, bool]]:
    return [
        (name, abs(row["difference"]) <= max(compare.TOLERANCE, 2 * (row["std"] or 0.0)))
        for name, row in _effects(paper, tags, result, root)
    ]


def _effects(
    paper: str, tags: Sequence[str], result: str | None, root: Path | None
) -> list[tuple[str, dict]]:
    """Rows of `ablations.effects` with a name each; the tag is told where there is more than one."""
    names = compare.dataset_names(paper)
    found = []
    for row in ablations.effects(paper, tags, root=root):
        if result in (None, row["result"]):
            what = row["result"] if len(tags) == 1 else row["tag"]
            found.append((f"{what} on {names.get(row['dataset'], row['dataset'])}", row))
    return found


def _theorems(paper: str, *, zeta: float, root: Path | None) -> list[tuple[str, bool]]:
    return theorems.theorems_on_a_lattice(zeta)


def _gains(
    paper: str, *, table: str, over: str | None = None, root: Path | None
) -> list[tuple[str, bool]]:
    names = compare.dataset_names(paper)
    starts = {
        (cell["row"], cell["dataset"]): cell
        for cell in compare.table(paper, over or table, root=root)
        if cell["mean"] is not None
    }
    found = []
    for cell in compare.table(paper, table, root=root):
        row = cell["row"] if over else f"{cell['row'].rsplit(', ', 1)[0]}, data"
        start = starts.get((row, cell["dataset"]))
        if start is None or cell["mean"] is None or (not over and row == cell["row"]):
            continue
        joint = ((cell["std"] or 0) ** 2 + (start["std"] or 0) ** 2) ** 0.5
        good = compare.verdict(start["mean"], cell["mean"], joint) == "above"
        found.append((f"{_short(cell['row'])} on {names[cell['dataset']]}", good))
    return found


def _codes(
    paper: str, *, codes: Sequence[str], than: str, root: Path | None
) -> list[tuple[str, bool]]:
    runs = records.load_records(paper, task="classification", tag=[*codes, than], root=root)
    found = []
    for name in codes:
        for n, gain in gains(runs, name, than).items():
            if len(gain) > 1:
                found.append((f"{name} from {n:,}", gain.mean() > 2 * gain.std(ddof=1)))
    return found


def _phases(
    paper: str,
    *,
    methods: Sequence[str],
    first: str,
    than: str,
    datasets: Sequence[str],
    root: Path | None,
) -> list[tuple[str, bool]]:
    metric, names = compare.headline(paper), compare.dataset_names(paper)
    runs = records.load_records(
        paper, root=root, tag="main", profile=["paper", "cpu"], method=list(methods)
    )
    gains: dict[tuple[str, str], list[float]] = {}
    for entry in runs:
        scores, place = entry["metrics"], (entry["method"], entry["dataset"]["name"])
        if {first, than} <= set(scores) and place[1] in datasets:
            gains.setdefault(place, []).append(scores[first][metric] - scores[than][metric])
    return [
        (
            f"{method} on {names[dataset]}",
            compare.verdict(0.0, np.mean(gain), np.std(gain, ddof=1) if len(gain) > 1 else None)
            == "above",
        )
        for (method, dataset), gain in sorted(gains.items())
    ]


def _main_scores(paper: str, root: Path | None) -> dict[tuple[str, str], tuple[float, float]]:
    """Mean and std (0 for one seed) of the headline metric by (method/result, data set), paper first."""
    found, metric = {}, compare.headline(paper)
    rows = records.aggregate(
        records.load_records(paper, root=root, tag="main", profile=["paper", "cpu"])
    )
    for row in sorted(rows, key=lambda row: row["profile"]):  # "cpu" first: "paper" replaces it
        key = f"{row['method']}/{row['result']}", row["dataset"]
        found[key] = row["mean"][metric], row["std"][metric] or 0.0
    return found


def _short(row: str) -> str:
    return row.split(" [")[0]


CHECKS = {
    "cells": _cells,
    "better": _better,
    "alike": _alike,
    "stages": _stages,
    "ablation": _ablation,
    "insensitive": _insensitive,
    "gains": _gains,
    "codes": _codes,
    "phases": _phases,
    "theorems": _theorems,
}
