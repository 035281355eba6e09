"""One way to compare scores: with the paper's numbers, with another method, with a changed setting."""

from collections.abc import Iterable, Mapping, Sequence
from itertools import product
from typing import Any

import pandas as pd

from reprolib.checks import check_name, unknown_name
from reprolib.experiments.paper import Paper, defaults
from reprolib.report import verdicts
from reprolib.report.measured import groups, measured
from reprolib.report.verdicts import FAILS, HOLDS, NOT_RUN, UNKNOWN

PROFILES = ("paper", "cpu")  # a smoke run says nothing; where the paper's scale was run, it goes first
VERDICTS = ("above", "reached", UNKNOWN, "below", "one seed", NOT_RUN)


def scores(rows: pd.DataFrame, metric: str) -> verdicts.Scores:
    """Scores by seed of rows of `measured` of one setting; one number where the method takes no seed."""
    exact = len(rows) == 1 and "random_state" not in defaults(rows["method"].iloc[0])
    return float(rows[metric].iloc[0]) if exact else rows[metric]


def verdict(found: verdicts.Difference) -> str:
    """How a mean stands to the paper's number, from their difference: one of VERDICTS.

    "above": the whole interval is more than MARGIN over the paper's; "reached" and "below": see `verdicts.reaches`.
    """
    if found.n == 1:
        return "one seed"
    if found.low > verdicts.MARGIN:
        return "above"
    return {HOLDS: "reached", FAILS: "below", UNKNOWN: UNKNOWN}[verdicts.reaches(found)]


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

    metric: by default the paper's headline; profile: whose records to take, by default "paper", else "cpu" where there
    are none (never "smoke"); datasets: which columns, by default all. Keys: row, method, dataset, paper, reported,
    scores (by seed), mean, std, n_seeds, profile, reduced (against the paper, from profiles.yml), devices, stale,
    verdict. Cells without a record have mean None and verdict "not run", without a number of the paper "not in paper".
    Raises ValueError for an unknown data set or profile.
    """
    columns, entries = dict.fromkeys(d for row in rows for d in row["values"]), paper.profiles["profiles"]
    for dataset in datasets:
        check_name("data set of these rows", dataset, columns)
    if profile is not None and profile not in entries:
        raise unknown_name("profile", profile, entries)
    pairs = product(rows, datasets or columns)
    return [_cell(paper, row, d, metric or paper.headline, profile) for row, d in pairs if d in row["values"]]


def _cell(paper: Paper, row: Mapping[str, Any], dataset: str, metric: str, profile: str | None) -> dict[str, Any]:
    printed, reported = row["values"][dataset], row.get("reported", {}).get(dataset)
    cell = {"row": row["name"], "method": row.get("method"), "dataset": dataset, "paper": printed, "reported": reported}
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
        "verdict": "not in paper" if printed is None else verdict(verdicts.difference(ours, printed)),
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


def effects(paper: Paper, tags: Sequence[str], *, base: str = "main") -> list[dict[str, Any]]:
    """What each tag changes against `base` in the paper's headline metric.

    One dict a tag, data set, profile and result: these four, the `difference` over the seeds that both have, `changed`
    (parameter -> value in base, value here; the variant's name apart) and stale. Tags without a record beside one of
    the base give none.
    """
    place = ["dataset", "profile", "result"]
    rows = settings(paper, [base, *tags])
    starts = dict(iter(rows[rows["tag"] == base].groupby(place, sort=False)))
    found = []
    for (tag, *key), here in rows[rows["tag"] != base].groupby(["tag", *place], sort=False):
        if tuple(key) not in starts:
            continue
        start = starts[tuple(key)]
        gap = verdicts.difference(here[paper.headline], start[paper.headline], paired=True)
        before, after = (side["parameters"].iloc[0] for side in (start, here))
        pairs = {k: (before.get(k), after.get(k)) for k in {**before, **after} if k != "variant"}
        effect = {"tag": tag, **dict(zip(place, key, strict=True)), "difference": gap}
        effect["changed"] = {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}
        found.append(effect | {"stale": bool(here["stale"].any() or start["stale"].any())})
    return found
