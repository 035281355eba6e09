"""The claims of the papers (book/claims.yml) and a verdict on each, computed from the records."""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from inspect import signature
from itertools import product

import pandas as pd

from reprolib.checks import check_keys, check_name
from reprolib.experiments.paper import Paper
from reprolib.report import compare
from reprolib.report.measured import as_rows
from reprolib.studies import theorems

VERDICTS = ("holds", "holds in part", "does not hold", "not run", "not started")
GOOD = ("above", "reached", "within spread")
Found = Iterator[tuple[str, bool]]  # what was compared, and whether it is as claimed


def judged(paper: Paper) -> list[dict]:
    """Judge a paper's claims: `claim`, `where`, `verdict` (one of VERDICTS) and `evidence` in words.

    A check names one of KINDS and what it compares; `most`: holds when more than half of the comparisons are good.
    Raises ValueError for an unknown paper and, naming the claim, for an unknown kind or option of a check.
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
            row |= decide(list(KINDS[kind](paper, **check)), most=most)
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
    bad = [name for name, fine in comparisons if not fine]
    n_good = len(comparisons) - len(bad)
    partly = "holds in part" if n_good else "does not hold"
    verdict = "holds" if not bad or (most and n_good > len(bad)) else partly
    told = f"; not: {', '.join(bad)}" if bad else ""
    return {"verdict": verdict, "evidence": f"{n_good} of {len(comparisons)}{told}"}


def _cells(
    paper: Paper, table: str, rows: Sequence[str], datasets: Sequence[str] = (), agree: Sequence[str] = GOOD
) -> Found:
    """Numbers of a published table: the verdict is in `agree`, by default at least within our spread."""
    for cell in compare.table(paper, table, datasets=datasets):
        if cell["row"] in rows and cell["mean"] is not None:
            yield _on(paper, cell["row"], cell["dataset"]), cell["verdict"] in agree


def _alike(paper: Paper, table: str, rows: Sequence[str], datasets: Sequence[str]) -> Found:
    """A row on two data sets: no further apart than in the paper, or than two standard deviations."""
    found = [c for c in compare.table(paper, table, datasets=datasets) if c["mean"] is not None]
    for row in rows:
        same = [cell for cell in found if cell["row"] == row]
        if len(same) == 2:
            gap, std = compare.difference(*(cell["scores"] for cell in same))
            theirs = abs(same[0]["paper"] - same[1]["paper"])
            yield row.split(" [")[0], abs(gap) <= theirs or compare.judge(gap, std, "same")


def _better(paper: Paper, first: Sequence[str], than: Sequence[str], datasets: Iterable[str]) -> Found:
    """Each of `first` (method/result) is above the best of `than`, by data set."""
    for dataset in datasets:
        others = [s for s in (_scores(paper, dataset, one) for one in than) if s is not None]
        for one in first if others else ():
            ours = _scores(paper, dataset, one)
            if ours is not None:
                best = max(others, key=lambda scores: (scores.mean(), scores.std()))
                name = one.removesuffix("/labels").replace("/", " ")
                yield _on(paper, name, dataset), compare.judge(*compare.difference(ours, best))


def _phases(paper: Paper, methods: Sequence[str], first: str, than: str, datasets: Sequence[str]) -> Found:
    """One result of each method is above another result of the same runs, seed by seed."""
    for method, dataset in product(sorted(methods), sorted(datasets)):
        one, other = (_scores(paper, dataset, f"{method}/{r}") for r in (first, than))
        if one is not None and other is not None:
            yield _on(paper, method, dataset), compare.judge(*compare.difference(one, other, paired=True))


def _settings(paper: Paper, tags: Sequence[str], rule: str = "above", result: str | None = None) -> Found:
    """The main setting is above that of each tag, or scores the same; `result` leaves others out."""
    for row in compare.effects(paper, tags):
        if result in (None, row["result"]):
            what = row["result"] if len(tags) == 1 else row["tag"]
            yield _on(paper, what, row["dataset"]), compare.judge(-row["difference"], row["std"], rule)


def _gains(paper: Paper, table: str, over: str | None = None) -> Found:
    """A table's numbers are above those of the same row in `over`, or else of the row "<...>, data"."""
    starts = {(cell["row"], cell["dataset"]): cell for cell in compare.table(paper, over or table)}
    for cell in compare.table(paper, table):
        row = cell["row"] if over else f"{cell['row'].rsplit(', ', 1)[0]}, data"
        start = starts.get((row, cell["dataset"]), {"mean": None})
        if None not in (start["mean"], cell["mean"]) and (over or row != cell["row"]):
            good = compare.judge(*compare.difference(cell["scores"], start["scores"]))
            yield _on(paper, cell["row"], cell["dataset"]), good


def _stages(paper: Paper, dataset: str, clusters: Sequence[int]) -> Found:
    """The runs of a data set went through these numbers of clusters."""
    runs = paper.select(dataset=dataset, tag="main")
    if seen := {stage["n_clusters"] for entry in runs for stage in entry["history"]}:
        yield from ((f"{number} clusters", number in seen) for number in clusters)


def _codes(paper: Paper, codes: Sequence[str], than: str) -> Found:
    """Codebooks are more accurate than another, seed by seed: the mean gain exceeds two deviations."""
    rows = as_rows(paper.select(task="classification", tag=[*codes, than]))
    by_code = dict(iter(rows.groupby(["tag", "result"], sort=False)))
    for code in codes:
        for size in [size for tag, size in by_code if tag == code and (than, size) in by_code]:
            gap, std = compare.difference(*(by_code[tag, size]["accuracy"] for tag in (code, than)), paired=True)
            if not math.isnan(std):  # one seed alone says nothing
                yield f"{code} from {int(size[1:]):,}", gap > 2 * std


def _scores(paper: Paper, dataset: str, one: str) -> pd.Series | None:
    """Scores by seed, in the headline metric, of "method/result" in the profile's own setting."""
    found = compare.runs(paper, dataset, dict(zip(("method", "result"), one.split("/"), strict=True)))
    return None if found is None else found[paper.headline]


def _on(paper: Paper, what: str, dataset: str) -> str:
    return f"{what.split(' [')[0]} on {paper.names.get(dataset, dataset)}"


KINDS: dict[str, Callable[..., Found]] = {
    check.__name__.removeprefix("_"): check
    for check in (_cells, _alike, _better, _phases, _settings, _gains, _stages, _codes)
} | {"theorems": lambda paper, zeta: theorems.theorems_on_a_lattice(zeta)}
