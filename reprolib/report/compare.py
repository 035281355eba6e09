"""The paper's numbers as data, and tables that put ours beside them with a computed verdict."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from reprolib.checks import check_keys, unknown_name
from reprolib.experiments import records
from reprolib.experiments.paper import load_yaml, paper_folder, profiles, signature

# Numbers in the papers carry two or three digits: a gap below this says nothing
TOLERANCE = 0.01
METRICS = {
    "acc": "ACC",
    "nmi_geometric": "NMI (geometric)",
    "nmi_arithmetic": "NMI (arithmetic)",
    "nmi_max": "NMI (max)",
}
VERDICTS = ("above", "reached", "within spread", "below", "not run")


def published(paper: str) -> list[dict]:
    """Read book/<paper>/published.yml: the paper's tables as a list.

    A table has `id`, `title`, `source` (where in the paper), `metric` (a key of `metrics.summary`)
    and `rows`; a row has `name` (as printed), `values` {data set: number or None} and, where we run
    the same, `method` and `result` ("SF", "RC", "labels"), optionally `variant` and `tag`;
    `reported` holds numbers that the table quotes from other papers. Raises ValueError, naming the
    row, when a key is missing, unknown or holds no number.
    """
    path = paper_folder(paper) / "published.yml"
    tables = load_yaml(path)["tables"]
    for entry in tables:
        where = f"{path.name}, {entry.get('id', 'no id')}"
        check_keys(where, entry, {"id", "title", "source", "metric", "rows"}, {"note"})
        for row in entry["rows"]:
            row_where = f"{where}, row {row.get('name')!r}"
            check_keys(row_where, row, {"name", "values"}, ROW_OPTIONS)
            for dataset, value in [*row["values"].items(), *row.get("reported", {}).items()]:
                if value is not None and not isinstance(value, int | float):
                    raise ValueError(f"{row_where}: {dataset} holds {value!r}, not a number.")
    return tables


def other_tables(paper: str) -> dict[str, dict]:
    """Read the printed tables that compare no method on a data set, by id (`others`).

    Each has `title`, `source`, `columns` and `rows` of `name` and `values` (one a column, None where
    the paper prints none), a row optionally the `parameter` that it sets. Raises ValueError, naming
    the row, for missing or unknown keys and for a row of another length.
    """
    path = paper_folder(paper) / "published.yml"
    found = {}
    for entry in load_yaml(path).get("others", []):
        where = f"{path.name}, {entry.get('id', 'no id')}"
        check_keys(where, entry, {"id", "title", "source", "columns", "rows"}, {"note"})
        for row in entry["rows"]:
            check_keys(f"{where}, row {row.get('name')!r}", row, {"name", "values"}, {"parameter"})
            if len(row["values"]) != len(entry["columns"]):
                raise ValueError(
                    f"{where}, row {row['name']!r}: {len(row['values'])} values for "
                    f"{len(entry['columns'])} columns."
                )
        found[entry["id"]] = entry
    return found


def dataset_names(paper: str) -> dict[str, str]:
    """Names of the data sets as the paper prints them, in its order, by our name."""
    return dict(load_yaml(paper_folder(paper) / "published.yml").get("names", {}))


def headline(paper: str) -> str:
    """The metric, a key of METRICS, by which a paper's pages tell what a setting changes.

    `headline` of published.yml, by default "nmi_geometric". Raises ValueError for an unknown one.
    """
    found = load_yaml(paper_folder(paper) / "published.yml").get("headline", "nmi_geometric")
    if found not in METRICS:
        raise unknown_name(f"headline in {paper}/published.yml", found, METRICS)
    return found


def deviations(paper: str) -> list[dict]:
    """Read book/<paper>/deviations.yml: where paper, released code and this book differ.

    Each has `id`, `topic`, `paper`, `released`, `ours` and `why`; then `effect` (known otherwise, or
    why it was not measured), or `runs`: tags whose records measure it against those of the tag
    `base`, by default "main". {name} in `ours` stands for a parameter of the method as the variant
    "paper" and the profiles' defaults set it. Raises ValueError when a key is missing or unknown.
    """
    path = paper_folder(paper) / "deviations.yml"
    declared = profiles(paper)
    settings = signature(declared["method"]) | declared["default"]
    entries = []
    for entry in load_yaml(path)["deviations"]:
        where = f"{path.name}, {entry.get('id', 'no id')}"
        keys = {"id", "topic", "paper", "released", "ours", "why"}
        check_keys(where, entry, keys, {"effect", "runs", "base"})
        if wrong := [key for key in keys if not isinstance(entry[key], str)]:
            raise ValueError(f"{where}: {', '.join(sorted(wrong))} must be text; quote it.")
        if not ("runs" in entry or "effect" in entry):
            raise ValueError(f"{where}: give `runs`, tags that measure it, or `effect`, in words.")
        try:
            entries.append({"runs": [], **entry, "ours": entry["ours"].format(**settings)})
        except KeyError as error:
            raise unknown_name(f"parameter in {where}", error.args[0], settings) from None
    return entries


def verdict(paper: float | None, mean: float | None, std: float | None) -> str:
    """Compare a mean over seeds with the paper's number, both in [0, 1].

    "not run": no mean. "above": more than max(0.01, 2 std) over the paper's. "reached": at least
    the paper's minus 0.01. "within spread": at least the paper's minus 2 std. "below": anything
    else. std is None for a single seed, and then counts as 0. Without a paper's number: "not in
    paper".
    """
    if mean is None:
        return "not run"
    if paper is None:
        return "not in paper"
    spread = 2 * (std or 0.0)
    gap = round(mean - paper, records.DECIMALS)
    if gap > max(TOLERANCE, spread):
        return "above"
    if gap >= -TOLERANCE:
        return "reached"
    return "within spread" if gap >= -spread else "below"


def table(
    paper: str,
    table_id: str,
    *,
    profile: str | None = None,
    datasets: Iterable[str] | None = None,
    root: Path | None = None,
) -> list[dict]:
    """Put one published table beside the records: a dict for each row and data set of the paper.

    table_id: "table-3", say; profile: whose records to take, by default "paper", else "cpu"
    where there are none (never "smoke"); datasets: which columns, by default all; root: folder of
    records. Keys: row, method, result, dataset, metric, paper, reported, mean, std, n_seeds,
    seconds, profile, reduced (against the paper, from profiles.yml), devices, stale, verdict. Cells
    without a record have mean None and verdict "not run". Raises ValueError for an unknown table,
    data set or profile.
    """
    chosen = {entry["id"]: entry for entry in published(paper)}
    if table_id not in chosen:
        raise unknown_name("table", table_id, chosen)
    printed = chosen[table_id]
    columns = list(dict.fromkeys(d for row in printed["rows"] for d in row["values"]))
    for dataset in datasets or ():
        if dataset not in columns:
            raise unknown_name(f"data set of {table_id}", dataset, columns)
    entries = profiles(paper)["profiles"]
    if profile is not None and profile not in entries:
        raise unknown_name("profile", profile, entries)
    measured = records.aggregate(records.load_records(paper, root=root))
    return [
        _cell(printed, row, dataset, measured, [profile] if profile else ["paper", "cpu"], entries)
        for row in printed["rows"]
        for dataset in (datasets or columns)
        if dataset in row["values"]
    ]


ROW_OPTIONS = {"method", "result", "variant", "tag", "reported", "note"}


def _cell(
    printed: Mapping[str, Any],
    row: Mapping[str, Any],
    dataset: str,
    measured: list[dict],
    wanted: list[str],
    entries: Mapping[str, Mapping],
) -> dict:
    metric = printed["metric"]
    cell = {
        "row": row["name"],
        "method": row.get("method"),
        "result": row.get("result"),
        "dataset": dataset,
        "metric": metric,
        "paper": row["values"][dataset],
        "reported": row.get("reported", {}).get(dataset),
    }
    found = _pick(measured, row, dataset, wanted)
    mean = found["mean"][metric] if found else None
    std = found["std"][metric] if found else None
    cell |= {"mean": mean, "std": std, "n_seeds": found["n_seeds"] if found else 0}
    for key in ("seconds", "profile", "devices", "stale"):
        cell[key] = found[key] if found else None
    entry = entries.get(cell["profile"], {}).get(dataset, {})
    cell["reduced"] = entry.get("reduced") if found else None
    return cell | {"verdict": verdict(cell["paper"], mean, std)}


def _pick(
    measured: list[dict], row: Mapping[str, Any], dataset: str, wanted: list[str]
) -> dict | None:
    """The aggregate of the first wanted profile that has one for this row and data set."""
    key = {
        "method": row.get("method"),
        "result": row.get("result"),
        "variant": row.get("variant", "paper"),
        # a representation of the data set itself is named after it
        "tag": row.get("tag", "main").replace("{dataset}", dataset),
        "dataset": dataset,
    }
    same = [m for m in measured if all(m[k] == v for k, v in key.items())]
    return next((m for profile in wanted for m in same if m["profile"] == profile), None)


def text(paper: str, *, profile: str | None = None, root: Path | None = None) -> str:
    """Write the paper's tables beside the records, then all records, as plain text columns.

    Arguments as for `table`. Numbers of the paper that were not run are only counted.
    """
    known = profiles(paper)["profiles"]
    if profile is not None and profile not in known:
        raise unknown_name("profile", profile, known)
    parts = []
    if (paper_folder(paper) / "published.yml").is_file():
        for entry in published(paper):
            cells = table(paper, entry["id"], profile=profile, root=root)
            lines = [_published_line(cell) for cell in cells if cell["mean"] is not None]
            head = ("row", "data set", "paper", "here", "seeds", "profile", "verdict")
            title = f"{entry['source']}: {entry['title']} ({entry['metric']})"
            title += f"; {len(cells) - len(lines)} of {len(cells)} numbers not run"
            parts.append(_columns(title, [head, *lines]) if lines else title)
    rows = records.aggregate(records.load_records(paper, root=root))
    rows = [row for row in rows if profile in (None, row["profile"])]
    head = ("run", "result", "seeds", "NMI (geometric)", "ACC", "seconds", "")
    lines = [_record_line(row) for row in rows] or [("none", "", "", "", "", "", "")]
    return "\n\n".join([*parts, _columns("Records", [head, *lines])])


def _published_line(cell: Mapping[str, Any]) -> tuple[str, ...]:
    printed = "-" if cell["paper"] is None else f"{cell['paper']:.3f}"
    stale = " (stale)" if cell["stale"] else ""
    return (
        cell["row"],
        cell["dataset"],
        printed,
        _spread(cell["mean"], cell["std"]),
        str(cell["n_seeds"]),
        cell["profile"] or "-",
        cell["verdict"] + stale,
    )


def _record_line(row: Mapping[str, Any]) -> tuple[str, ...]:
    return (
        "-".join(row[k] for k in ("method", "dataset", "profile", "tag")),
        row["result"],
        str(row["n_seeds"]),
        _spread(row["mean"]["nmi_geometric"], row["std"]["nmi_geometric"]),
        _spread(row["mean"]["acc"], row["std"]["acc"]),
        f"{row['seconds']:.0f}",
        "stale" if row["stale"] else "",
    )


def _spread(mean: float | None, std: float | None) -> str:
    if mean is None:
        return "-"
    return f"{mean:.3f}" if std is None else f"{mean:.3f} ± {std:.3f}"


def _columns(title: str, lines: list[tuple[str, ...]]) -> str:
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    padded = ["  ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)) for line in lines]
    return "\n".join([title, *(line.rstrip() for line in padded)])
