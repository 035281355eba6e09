"""Effects of a changed setting: records of one tag against those of another, on the same data set."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from reprolib.experiments import records
from reprolib.experiments.paper import profiles
from reprolib.report import compare
from reprolib.report.tables import NOT_RUN, SPACE, Table, plain, signed, spread

# A smoke run says nothing about a setting
PROFILES = ("paper", "cpu")
FEW = 3
PARTS = {"paper": "Paper", "released": "Released code", "ours": "Here", "why": "Why"}


def measured(paper: str, tags: Sequence[str], *, root: Path | None = None) -> list[dict]:
    """Rows of `records.aggregate` for the paper's own method under these tags, in their order.

    The first tag is the base: its rows are kept for data sets that another tag has too. Smoke records
    are left out. Each row also holds `values`, by metric one number a seed, and `parameters`, those
    of the first record. root: folder of the records.
    """
    method = profiles(paper)["method"]
    found = records.load_records(
        paper, root=root, method=method, tag=list(tags), profile=list(PROFILES)
    )
    tried = {entry["dataset"]["name"] for entry in found if entry["tag"] != tags[0]}
    found = [entry for entry in found if entry["dataset"]["name"] in tried]
    rows = []
    for row in records.aggregate(found):
        same = [e for e in found if _group(e) == _group(row) and row["result"] in e["metrics"]]
        scores = [entry["metrics"][row["result"]] for entry in same]
        row["values"] = {m: [score[m] for score in scores] for m in row["mean"]}
        row["parameters"] = same[0]["parameters"]
        rows.append(row)
    return sorted(rows, key=lambda row: list(tags).index(row["tag"]))


def effects(
    paper: str,
    tags: Sequence[str],
    *,
    base: str = "main",
    root: Path | None = None,
) -> list[dict]:
    """What each tag changes against `base` in the paper's headline metric.

    One row a tag, data set, profile and result.

    Keys: tag, dataset, profile, result, n_seeds (of tag and base), mean, base_mean, `difference` of
    the means, its `std` (root of the sum of both variances over seeds; None unless both have two
    seeds or more), `changed` (parameter -> value in base, value here) and stale. Tags without a record
    beside one of the base give no row.
    """
    metric = compare.headline(paper)
    rows = measured(paper, [base, *tags], root=root)
    starts = {_place(row): row for row in rows if row["tag"] == base}
    found = []
    for row in rows:
        start = starts.get(_place(row))
        if row["tag"] == base or start is None:
            continue
        spreads = [row["std"][metric], start["std"][metric]]
        found.append(
            {key: row[key] for key in ("tag", "dataset", "profile", "result")}
            | {
                "n_seeds": (row["n_seeds"], start["n_seeds"]),
                "mean": row["mean"][metric],
                "base_mean": start["mean"][metric],
                "difference": row["mean"][metric] - start["mean"][metric],
                "std": None if None in spreads else math.hypot(*spreads),
                "changed": changed(start["parameters"], row["parameters"]),
                "stale": row["stale"] or start["stale"],
            }
        )
    return found


def changed(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Parameters that differ between two records, as (before, after); the variant's name apart."""
    names = [k for k in {**before, **after} if k != "variant"]
    pairs = {name: (before.get(name), after.get(name)) for name in names}
    return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}


def table(
    paper: str,
    tags: Sequence[str],
    names: Mapping[str, str],
    *,
    base: str = "main",
    root: Path | None = None,
) -> Table:
    """The headline metric of the tags beside the base: a row a tag and data set, changes below means.

    names: data sets as printed, by our name. A tag without a record has one row that says so.
    """
    rows = measured(paper, [base, *tags], root=root)
    against = effects(paper, tags, base=base, root=root)
    columns = list(dict.fromkeys(row["result"] for row in rows)) or ["score"]
    lines = []
    for tag in [base, *tags]:
        same = [row for row in rows if row["tag"] == tag]
        for place in dict.fromkeys((row["dataset"], row["profile"]) for row in same):
            here = [row for row in same if (row["dataset"], row["profile"]) == place]
            change = [e for e in against if (e["tag"], e["dataset"], e["profile"]) == (tag, *place)]
            where = names.get(place[0], place[0])
            lines.append(_line(tag, where, here, change, columns, compare.headline(paper)))
        if not same and (rows or tag != base):
            lines.append([tag, NOT_RUN, *["–"] * (2 + len(columns))])
    return Table(["setting", "data set", "what differs", *columns, "seeds"], lines)


def _line(
    tag: str,
    dataset: str,
    here: Sequence[Mapping[str, Any]],
    change: Sequence[Mapping[str, Any]],
    columns: Sequence[str],
    metric: str,
) -> list[str]:
    cells = {row["result"]: spread(row["mean"][metric], row["std"][metric]) for row in here}
    for row in change:
        cells[row["result"]] += f"\n{signed(row['difference'], row['std'])}"
    stale = f"{SPACE}(stale)" if any(row["stale"] for row in here) else ""
    what = differences(change[0]["changed"]) if change else "–"
    scores = [cells.get(name, "–") for name in columns]
    return [tag + stale, dataset, what, *scores, str(here[0]["n_seeds"])]


def differences(changed: Mapping[str, tuple[Any, Any]]) -> str:
    """Changed parameters as text, one a line: "gamma 2.0 → 1.0"; of many, how many and which."""
    if len(changed) > FEW:
        return f"{len(changed)} parameters: {', '.join(changed)}"
    return "\n".join(
        f"{name} {plain(before)}{SPACE}→{SPACE}{plain(after)}"
        for name, (before, after) in changed.items()
    )


def deviations(paper: str, names: Mapping[str, str], *, root: Path | None = None) -> Table:
    """`results.deviations` as a table, with the effects that the records measured."""
    rows = []
    for entry in compare.deviations(paper):
        base = entry.get("base", "main")
        found = effects(paper, entry["runs"], base=base, root=root) if entry["runs"] else []
        parts = [f"{label}: {entry[key].strip()}" for key, label in PARTS.items()]
        there = {e["tag"] for e in records.load_records(paper, root=root, tag=entry["runs"])}
        lines = []
        for tag in entry["runs"]:
            known = tag in there
            lines += _effect(tag, base, found, names) or [
                f"{tag}: no record of {base} beside it" if known else f"{tag}: {NOT_RUN}"
            ]
        lines += [entry["effect"].strip()] if "effect" in entry else []
        rows.append([entry["topic"], "\n".join(parts), "\n".join(lines)])
    metric = compare.METRICS[compare.headline(paper)].split()[0]
    return Table(["what", "who says what", f"effect on {metric}"], rows)


def _effect(
    tag: str, base: str, found: Sequence[Mapping[str, Any]], names: Mapping[str, str]
) -> list[str]:
    rows = [row for row in found if row["tag"] == tag]
    if not rows:
        return []
    lines = [f"{tag} against {base}" + (" (stale):" if any(r["stale"] for r in rows) else ":")]
    for dataset in dict.fromkeys(row["dataset"] for row in rows):
        changes = [
            f"{row['result']}{SPACE}{signed(row['difference'], row['std'])}"
            for row in rows
            if row["dataset"] == dataset
        ]
        lines.append(f"{names.get(dataset, dataset)} {', '.join(changes)}")
    return lines


def _group(entry: Mapping[str, Any]) -> tuple:
    dataset = entry["dataset"]
    name = dataset if isinstance(dataset, str) else dataset["name"]
    return (name, *(entry[k] for k in ("variant", "profile", "tag")))


def _place(row: Mapping[str, Any]) -> tuple:
    return (row["dataset"], row["profile"], row["result"])
