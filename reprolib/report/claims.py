"""The claims of the papers (book/claims.yml) and a verdict on each, computed from the records."""

import json
from collections.abc import Callable, Iterator, Sequence
from inspect import signature
from itertools import product
from typing import Any

import numpy as np
import pandas as pd

from reprolib.checks import check_keys, check_name
from reprolib.experiments.paper import Paper
from reprolib.report import compare
from reprolib.report.compare import ANSWERS, FAILS, HOLDS, NOT_RUN, PARTLY, REDUCED, UNKNOWN, difference
from reprolib.report.measured import as_rows, by_round
from reprolib.studies import theorems

VERDICTS = (HOLDS, PARTLY, FAILS, UNKNOWN, REDUCED, NOT_RUN, "not started")
MOST = 8  # comparisons that the evidence names for each answer
Found = Iterator[tuple[str, str]]  # what was compared, with the difference, and one of ANSWERS


def judged(paper: Paper) -> list[dict]:
    """Judge a paper's claims: `claim`, `where`, `verdict` (one of VERDICTS) and `evidence` in words.

    A check names one of KINDS and what it compares; `most`: holds when more than half of the comparisons do. A claim
    with `reduced`, what the schedule here cannot test, is not counted against the paper. Raises ValueError for an
    unknown paper and, naming the claim, for an unknown kind or option of a check.
    """
    rows = []
    for entry in paper.claims:
        row = {"claim": entry["claim"], "where": entry["where"]}
        if "check" in entry:
            check = entry["check"].copy()
            kind, most = check.pop("kind", None), check.pop("most", False)
            where = f"claims.yml, {paper.name}, {entry['claim']!r}"
            check_name(f"kind of check in {where}", kind, KINDS)
            options = list(signature(KINDS[kind]).parameters.values())[1:]  # without the paper
            needed = {option.name for option in options if option.default is option.empty}
            check_keys(where, check, needed, {option.name for option in options})
            row |= decide(list(KINDS[kind](paper, **check)), most=most, reduced=entry.get("reduced", ""))
            row["evidence"] = "\n".join([row["evidence"], *filter(None, [entry.get("note")])])
        elif "open" in entry:
            row |= {"verdict": NOT_RUN, "evidence": entry["open"]}
        else:
            row |= {"verdict": "not started", "evidence": "the chapter is not written"}
        rows.append(row)
    return rows


def decide(found: Sequence[tuple[str, str]], *, most: bool = False, reduced: str = "") -> dict[str, str]:
    """Verdict and evidence from comparisons, each with its answer; the evidence sorts them by it."""
    if not found:
        return {"verdict": NOT_RUN, "evidence": "no record"}
    answers = [answer for _, answer in found]
    verdict = compare.combined(answers, most=most)
    told = [f"{answers.count(HOLDS)} of {len(found)} hold"]
    for answer in ANSWERS:
        if names := [name for name, other in found if other == answer]:
            more = [f"and {len(names) - MOST} more"] if len(names) > MOST else []
            told.append(f"{answer}: {'; '.join(names[:MOST] + more)}")
    if reduced and verdict != HOLDS:
        verdict, told = REDUCED, [reduced, *told]
    return {"verdict": verdict, "evidence": "\n".join(told)}


def _cells(paper: Paper, table: str, rows: Sequence[str], datasets: Sequence[str] = (), at_most: bool = False) -> Found:
    """The printed numbers of a table are reached; at_most: ours are not above them."""
    for cell in compare.table(paper, table, datasets=datasets):
        if cell["row"] in rows and None not in (cell["mean"], cell["paper"]):
            sides = (cell["scores"], cell["paper"])
            yield _told(paper, cell["row"], cell["dataset"], sides[::-1] if at_most else sides, compare.reaches)


def _alike(paper: Paper, table: str, rows: Sequence[str], datasets: Sequence[str]) -> Found:
    """A row of a table is on the first data set as good as on the second."""
    found = {(c["row"], c["dataset"]): c for c in compare.table(paper, table, datasets=datasets)}
    for row in rows:
        one, other = (found.get((row, dataset), {"mean": None}) for dataset in datasets)
        if None not in (one["mean"], other["mean"]):
            yield _told(paper, row, datasets[0], (one["scores"], other["scores"]), compare.reaches)


def _better(
    paper: Paper,
    first: Sequence[str],
    than: Sequence[str],
    datasets: Sequence[str],
    paired: bool = False,
    rule: str = "above",
) -> Found:
    """Each of `first` (method/result, with the tag after @) is above the best of `than`, by data set, or `reaches` it.

    paired: the methods share what a seed starts from.
    """
    for dataset in datasets:
        others = [s for s in (_scores(paper, dataset, one) for one in than) if s is not None]
        for one in first if others else ():
            if (ours := _scores(paper, dataset, one)) is not None:
                best = max(others, key=np.mean)
                name = one.removesuffix("/labels").replace("/", " ")
                yield _told(paper, name, dataset, (ours, best), getattr(compare, rule), paired=paired)


def _phases(
    paper: Paper, methods: Sequence[str], first: str, than: str, datasets: Sequence[str], average: bool = False
) -> Found:
    """One result of each method is above another result of the same runs, seed by seed; or it is on average."""
    gaps = []
    for method, dataset in product(sorted(methods), sorted(datasets)):
        one, other = (_scores(paper, dataset, f"{method}/{r}") for r in (first, than))
        if one is not None and other is not None:
            if average:
                gaps.append(one - other)
            else:
                yield _told(paper, method, dataset, (one, other), compare.above, paired=True)
    if gaps:
        table = pd.concat(gaps, axis=1).dropna(axis=1)  # one seed alone says nothing
        found = difference(table.mean(axis=1))
        yield f"mean of {table.shape[1]} pairs of method and data set {found}", compare.above(found)


def _settings(paper: Paper, tags: Sequence[str], rule: str = "above", result: str | None = None) -> Found:
    """The main setting is above that of each tag, or as good ("alike"); `result` leaves others out."""
    for (tag, dataset, _, name), here, start, shared in compare.beside(paper, tags):
        if result in (None, name):
            sides = (start[paper.headline], here[paper.headline])
            what = name if len(tags) == 1 else tag if result else f"{tag} {name}"
            yield _told(paper, what, dataset, sides, getattr(compare, rule), paired=shared)


def _gains(paper: Paper, table: str, over: str | None = None) -> Found:
    """A table's numbers are above those of the same row in `over`, or else of the row "<...>, data"."""
    starts = {(cell["row"], cell["dataset"]): cell for cell in compare.table(paper, over or table)}
    for cell in compare.table(paper, table):
        row = cell["row"] if over else f"{cell['row'].rsplit(', ', 1)[0]}, data"
        start = starts.get((row, cell["dataset"]), {"mean": None})
        if None not in (start["mean"], cell["mean"]) and (over or row != cell["row"]):
            printed = None if None in (cell["paper"], start["paper"]) else cell["paper"] - start["paper"]
            sides = (cell["scores"], start["scores"])
            yield _told(paper, cell["row"], cell["dataset"], sides, compare.above, printed=printed)


def _stages(paper: Paper, dataset: str, clusters: Sequence[int]) -> Found:
    """The runs of a data set went through these numbers of clusters."""
    runs = paper.select(dataset=dataset, profile=compare.PROFILES, tag="main")
    if seen := {stage["n_clusters"] for entry in runs for stage in entry["history"]}:
        yield from ((f"{number:,} clusters", HOLDS if number in seen else FAILS) for number in clusters)


def _codes(
    paper: Paper, profile: str, code: str, than: str, sizes: dict[str, str], table: str, columns: dict[str, str]
) -> Found:
    """A codebook is more accurate than another, seed by seed, where the paper prints both: {result: row of `table`}."""
    rows = as_rows(paper.select(task="classification", profile=profile, tag=[code, than]))
    by_code = dict(iter(rows.groupby(["tag", "result"], sort=False)))
    printed = paper.others[table]
    places = [printed["columns"].index(columns[name]) for name in (code, than)]
    numbers = {row["name"]: row["values"] for row in printed["rows"]}
    for size, row in sizes.items():
        if (code, size) in by_code and (than, size) in by_code:
            one, other = (by_code[name, size]["accuracy"] for name in (code, than))
            theirs = numbers[row][places[0]] - numbers[row][places[1]]
            found = difference(one, other, paired=True)
            yield f"{code} from {int(size[1:]):,} {found}, in the paper {theirs:+.3f}", compare.above(found, theirs)


def _theorems(paper: Paper, zeta: float) -> Found:
    """Theorems 1 to 3 of paper 004 on a lattice."""
    yield from ((name, HOLDS if good else FAILS) for name, good in theorems.theorems_on_a_lattice(zeta))


def _gaussians(paper: Paper, failing: Sequence[int], right: float) -> Found:
    """All runs of paper 003's study end with an ACC of `right`, but none with so many noise variables: the shares."""
    path = paper.folder / "gaussians.json"  # of reprolib.studies.gaussians
    rows = pd.DataFrame(json.loads(path.read_text()) if path.is_file() else [])
    if len(rows):
        rows["found"] = [float(acc[-1] >= right) for acc in rows["acc"]]
        rows["fails"] = rows["n_noise"].isin(failing)
    for (rate, weight), here in rows.groupby(["learning_rate", "penalty"]) if len(rows) else ():
        if here["fails"].nunique() == 2:
            others, those = (here.loc[here["fails"] == side, "found"].reset_index(drop=True) for side in (False, True))
            found = difference(others, those)
            told = f"others less {' and '.join(map(str, failing))}, rate {rate:g}, lambda {weight:g}"
            yield f"{told} {found}, in the paper +1", compare.above(found, 1.0)


def _rounds(paper: Paper, of: str, datasets: Sequence[str]) -> Found:
    """From round to round of paper 000 "clusters", or k-means on "features", are more accurate, seed by seed."""
    stages = {"clusters": ("scan", "self-labelling"), "features": ("pretext", "refine")}
    check_name("what of rounds", of, stages)
    for dataset in datasets:
        runs = paper.select(dataset=dataset, profile=compare.PROFILES, tag="main", method=paper.profiles["method"])
        found = pd.DataFrame({entry["random_state"]: by_round(entry, stages[of]) for entry in runs}).T
        for number in sorted(found)[1:]:
            sides = found[number], found[number - 1]
            yield _told(paper, f"round {number + 1}", dataset, sides, compare.above, paired=True)


def _scores(paper: Paper, dataset: str, one: str) -> compare.Scores | None:
    """Scores by seed, in the headline metric, of "method/result" or "method/result@tag"."""
    what, _, tag = one.partition("@")
    row = dict(zip(("method", "result"), what.split("/"), strict=True)) | {"tag": tag or "main"}
    found = compare.runs(paper, dataset, row)
    return None if found is None else compare.scores(found, paper.headline)


def _told(
    paper: Paper, what: str, dataset: str, sides: tuple, rule: Callable, paired: bool = False, **printed: Any
) -> tuple[str, str]:
    found = difference(*sides, paired=paired and all(isinstance(side, pd.Series) for side in sides))
    return f"{what.split(' [')[0]} on {paper.names.get(dataset, dataset)} {found}", rule(found, **printed)


KINDS: dict[str, Callable[..., Found]] = {
    check.__name__.removeprefix("_"): check
    for check in (_cells, _alike, _better, _phases, _settings, _gains, _stages, _codes, _theorems, _gaussians, _rounds)
}
