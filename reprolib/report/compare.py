"""One way to compare scores: with the paper's numbers, with another method, with a changed setting.

Each question (is it above zero, does it reach a printed number, is it as good as none?) is read off the interval of
the mean difference by Student's t. One seed has no interval: it decides nothing.
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import stdtrit

from reprolib.checks import check_name
from reprolib.experiments.paper import Paper, defaults
from reprolib.report.measured import groups, measured

CONFIDENCE = 0.95
MARGIN = 0.02  # of ACC, NMI, ARI: a smaller difference is as good as none
STARTS = ("ae", "kmeans")  # results of the k-means that a run starts from
SAME = 0.001  # rounding moves a few samples of it
HOLDS, FAILS, UNKNOWN = ANSWERS = ("holds", "does not hold", "cannot tell")
PARTLY, REDUCED, NOT_RUN = "holds in part", "at reduced scale", "not run"

Scores = pd.Series | float  # by seed; one number for what has no seed: a printed number, an exact method
PROFILES = ("paper", "cpu")  # a smoke run says nothing; where the paper's scale was run, it goes first
VERDICTS = ("above", "reached", UNKNOWN, "below", "one seed", NOT_RUN)


@dataclass(frozen=True)
class Difference:
    """A mean difference, its 95 % interval, and the seeds on the side that has fewer; 0 between two numbers."""

    gap: float
    low: float
    high: float
    n: int

    @property
    def interval(self) -> str:
        """As "+0.012 [−0.003, +0.027]"; the mean alone where there is no interval."""
        told = f"{self.gap:+.3f}"
        if 0 < self.high - self.low < math.inf:
            told += f"\u00a0[{self.low:+.3f},\u00a0{self.high:+.3f}]"
        return told.replace("-", "−")

    def __str__(self) -> str:
        seeds = {0: "", 1: ", one seed"}.get(self.n, f", {self.n} seeds")
        return f"{self.interval}{seeds}"


def difference(ours: Scores, other: Scores = 0.0, *, paired: bool = False) -> Difference:
    """The mean of ours less that of the other, with its interval by Student's t.

    paired: over the seeds that both have; otherwise by Welch. For one seed on a side it is the whole line.
    """
    if paired:
        ours, other = (ours - other).dropna(), 0.0
    sides = [side for side in (ours, other) if isinstance(side, pd.Series)]
    gap = float(np.mean(ours) - np.mean(other))
    n = min(map(len, sides), default=0)
    parts, room = [side.var() / len(side) for side in sides], math.inf if n == 1 else 0.0
    if n > 1 and any(parts):
        freedom = sum(parts) ** 2 / sum(part**2 / (len(side) - 1) for part, side in zip(parts, sides, strict=True))
        room = float(stdtrit(freedom, (1 + CONFIDENCE) / 2)) * math.sqrt(sum(parts))
    return Difference(gap, gap - room, gap + room, n)


def above(found: Difference, printed: float | None = None) -> str:
    """Whether a difference is above zero; no, where its interval ends below the paper's, or MARGIN without one."""
    if found.low > (0 if found.n else MARGIN):  # two exact numbers always differ
        return HOLDS
    return FAILS if found.high < (printed if printed and printed > 0 else MARGIN) else UNKNOWN


def reaches(found: Difference) -> str:
    """Whether a mean, less the printed number, is at least as good up to MARGIN."""
    if found.low > -MARGIN:
        return HOLDS
    return FAILS if found.high < 0 else UNKNOWN


def alike(found: Difference) -> str:
    """Whether a difference is as good as none: the whole interval lies within MARGIN of zero."""
    if -MARGIN < found.low and found.high < MARGIN:
        return HOLDS
    return FAILS if found.low > MARGIN or found.high < -MARGIN else UNKNOWN


def combined(answers: Iterable[str], *, most: bool = False) -> str:
    """The verdict on a claim: all hold, or with `most` more than half; some; else no if at least half say so."""
    answers = list(answers)
    good, bad = answers.count(HOLDS), answers.count(FAILS)
    if not answers:
        return NOT_RUN
    if good == len(answers) or (most and 2 * good > len(answers)):
        return HOLDS
    if good:
        return PARTLY
    return FAILS if 2 * bad >= len(answers) else UNKNOWN


def scores(rows: pd.DataFrame, metric: str) -> Scores:
    """Scores by seed of rows of `measured` of one setting; one number where the method takes no seed."""
    exact = len(rows) == 1 and "random_state" not in defaults(rows["method"].iloc[0])
    return float(rows[metric].iloc[0]) if exact else rows[metric]


def verdict(found: Difference) -> str:
    """How a mean stands to the paper's number, from their difference: one of VERDICTS.

    "above": the whole interval is more than MARGIN over the paper's; "reached" and "below": see `reaches`.
    """
    if found.n == 1:
        return "one seed"
    if found.low > MARGIN:
        return "above"
    return {HOLDS: "reached", FAILS: "below", UNKNOWN: UNKNOWN}[reaches(found)]


def runs(paper: Paper, dataset: str, row: Mapping[str, Any], profile: str | None = None) -> pd.DataFrame | None:
    """Rows of `measured`, by seed, of the run that a published row names; None where there is none.

    profile: by default the first of PROFILES that has it. {dataset} in the tag stands for the data set: a
    representation of the data set itself is named after it.
    """
    tag, result = row.get("tag", "main").format(dataset=dataset), row.get("result")
    about = row.get("method"), row.get("variant", "paper"), dataset
    keys = ((*about, scale, tag, result) for scale in ([profile] if profile else PROFILES))
    return next((groups(paper)[key] for key in keys if key in groups(paper)), None)


def table(paper: Paper, table_id: str, metric: str | None = None, **options: Any) -> list[dict]:
    """Put one published table beside the records; `cells` of its rows, by default in its first metric.

    Raises ValueError for an unknown table or a metric that it does not print.
    """
    rows = paper.printed(table_id, metric)
    return cells(paper, rows, metric or paper.published[table_id]["metrics"][0], **options)


def cells(
    paper: Paper, rows: Sequence[Mapping], metric: str = "", *, profile: str | None = None, datasets: Iterable[str] = ()
) -> list[dict[str, Any]]:
    """Compare rows as `Paper.printed` has them with the records: a dict for each row and data set.

    metric: by default the headline; profile: by default "paper", else "cpu"; datasets: by default all columns. Keys:
    row, method, dataset, paper, reported, range, spread, scores, mean, std, n_seeds, profile, reduced (from
    profiles.yml), devices, stale, verdict, "not run" without a record and "not in paper" without a number of the paper.
    ValueError for unknown names.
    """
    columns, entries = dict.fromkeys(d for row in rows for d in row["values"]), paper.profiles["profiles"]
    for dataset in datasets:
        check_name("data set of these rows", dataset, columns)
    if profile is not None:
        check_name("profile", profile, entries)
    pairs = product(rows, datasets or columns)
    return [_cell(paper, row, d, metric or paper.headline, profile) for row, d in pairs if d in row["values"]]


def _cell(paper: Paper, row: Mapping[str, Any], dataset: str, metric: str, profile: str | None) -> dict[str, Any]:
    printed = row["values"][dataset]
    cell = {"row": row["name"], "method": row.get("method"), "dataset": dataset, "paper": printed}
    cell |= {key: row.get(key, {}).get(dataset) for key in ("reported", "range", "spread")}
    found = runs(paper, dataset, row, profile)
    if found is None:
        empty = dict.fromkeys(("scores", "mean", "std", "profile", "reduced", "devices", "stale"))
        return cell | empty | {"n_seeds": 0, "verdict": NOT_RUN}
    ours, scale, values = scores(found, metric), found["profile"].iloc[0], found[metric]
    cell |= {"scores": ours, "mean": values.mean(), "std": values.std(), "n_seeds": len(values), "profile": scale}
    return cell | {
        "reduced": paper.profiles["profiles"].get(scale, {}).get(dataset, {}).get("reduced"),
        "devices": sorted(set(found["device"])),
        "stale": bool(found["stale"].any()),
        "verdict": "not in paper" if printed is None else verdict(difference(ours, printed)),
    }


def settings(paper: Paper, tags: Sequence[str]) -> pd.DataFrame:
    """Rows of `measured` for the paper's own method under these tags, in their order, smoke left out.

    The first tag is the base: its rows are kept for data sets that another tag has too.
    """
    rows = measured(paper)
    own = rows[rows["method"] == paper.profiles["method"]]
    own = own[own["tag"].isin(list(tags)) & own["profile"].isin(PROFILES)]
    own = own[own["dataset"].isin(own["dataset"][own["tag"] != tags[0]])]
    return own.sort_values("tag", key=lambda tag: tag.map(list(tags).index), kind="stable")


def share_start(one: pd.DataFrame, other: pd.DataFrame, metric: str) -> bool:
    """Whether two settings, rows of `measured` of one data set, start at the same clusters, seed by seed.

    Their k-means has the same score (STARTS, up to SAME). A method without such a result starts by its seed alone.
    """
    gaps = np.subtract(*(rows.loc[rows["result"].isin(STARTS), metric] for rows in (one, other)))
    return bool((gaps.dropna().abs() < SAME).all())


def beside(
    paper: Paper, tags: Sequence[str], base: str = "main"
) -> Iterator[tuple[tuple[str, ...], pd.DataFrame, pd.DataFrame, bool]]:
    """Each of `tags` where `base` was run too: (tag, data set, profile, result), rows of both, `share_start`."""
    place = ["dataset", "profile"]
    rows = settings(paper, [base, *tags])
    starts = dict(iter(rows[rows["tag"] == base].groupby(place, sort=False)))
    for (tag, *key), here in rows[rows["tag"] != base].groupby(["tag", *place], sort=False):
        if (start := starts.get(tuple(key))) is None:
            continue
        shared, others = share_start(here, start, paper.headline), dict(iter(start.groupby("result")))
        for result, one in here.groupby("result", sort=False):
            if result in others:
                yield (tag, *key, result), one, others[result], shared


def effects(paper: Paper, tags: Sequence[str], *, base: str = "main") -> list[dict[str, Any]]:
    """What each tag changes against `base` in the paper's headline metric.

    One dict a tag, data set, profile and result: these four, `shared` (see `share_start`), the `difference`, seed by
    seed if the start is shared and with the luck of starts in its interval if not, `changed` (parameter -> value in
    base, value here; the variant's name apart) and stale; for tags beside the base.
    """
    found = []
    for key, here, start, shared in beside(paper, tags, base):
        gap = difference(here[paper.headline], start[paper.headline], paired=shared)
        before, after = (side["parameters"].iloc[0] for side in (start, here))
        pairs = {k: (before.get(k), after.get(k)) for k in {**before, **after} if k != "variant"}
        effect = dict(zip(("tag", "dataset", "profile", "result"), key, strict=True))
        effect |= {"shared": shared, "difference": gap}
        effect["changed"] = {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}
        found.append(effect | {"stale": bool(here["stale"].any() or start["stale"].any())})
    return found
