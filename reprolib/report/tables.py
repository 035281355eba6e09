"""Tables of the book, as HTML and as text: the paper's number, ours with its spread, the verdict."""

from __future__ import annotations

import html
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from reprolib.checks import unknown_name
from reprolib.experiments.paper import METRICS, Paper
from reprolib.report import compare
from reprolib.report.measured import means, measured

SPACE = "\u00a0"  # does not break: a number and its spread stay on one line
MARKS = {"above": "▲", "reached": "●", "within spread": "≈", "below": "▼"}
MARKS |= {"holds": "●", "holds in part": "≈", "does not hold": "▼"}
NOT_RUN = "not run"
FEW = 3  # changed parameters that are told with their values
PARTS = {"paper": "Paper", "released": "Released code", "ours": "Here", "why": "Why"}
LONG = 100  # characters: a cell of text wants a wide column


@dataclass(frozen=True)
class Table:
    """Head, rows of text cells (a line break in a cell is "\\n") and a caption.

    In a notebook it shows as HTML that scrolls inside itself on a narrow screen, its first column
    fixed; `str` gives aligned text. Raises ValueError for a row of another length than the head.
    """

    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    caption: str = ""

    def __post_init__(self) -> None:
        for row in self.rows:
            if len(row) != len(self.head):
                raise ValueError(f"{len(row)} cells in a row, {len(self.head)} in the head: {row}")

    def _repr_html_(self) -> str:
        head = "".join(f'<th scope="col">{_html(cell)}</th>' for cell in self.head)
        body = "".join(f"<tr>{_html_row(row)}</tr>" for row in self.rows)
        caption = f"<caption>{_html(self.caption)}</caption>" if self.caption else ""
        return (
            '<div class="book-table"><table class="table">'
            f"{caption}<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
        )

    def __repr__(self) -> str:
        lines = [[cell.replace("\n", "; ") for cell in row] for row in [self.head, *self.rows]]
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        text = ["  ".join(map(str.ljust, line, widths)).rstrip() for line in lines]
        return "\n".join([*filter(None, [self.caption]), *text])


def spread(mean: float | None, std: float | None, *, digits: int = 3, stale: bool = False) -> str:
    """A mean and its standard deviation: "0.913 ± 0.004", with spaces that do not break.

    std None or NaN, as of one seed: the mean alone; mean None or NaN: "not run"; stale: with a remark.
    """
    if _absent(mean):
        return NOT_RUN
    text = f"{mean:.{digits}f}"
    if not _absent(std):
        text += f"{SPACE}±{SPACE}{std:.{digits}f}"
    return f"{text}{SPACE}(stale)" if stale else text


def signed(difference: float | None, std: float | None, *, digits: int = 3) -> str:
    """A difference with its sign and standard deviation: "+0.012 ± 0.004", "−0.031"; else as `spread`."""
    if _absent(difference):
        return NOT_RUN
    return ("+" if difference >= 0 else "−") + spread(abs(difference), std, digits=digits)


def marked(verdict: str) -> str:
    """A verdict with its sign: "▲ above", "● reached", "≈ within spread", "▼ below"."""
    return f"{MARKS[verdict]}{SPACE}{verdict}" if verdict in MARKS else verdict


def comparison(
    cells: Sequence[Mapping[str, Any]], names: Mapping[str, str], caption: str = ""
) -> Table:
    """Put the cells of `compare.table` in the paper's layout: methods by data sets.

    A cell holds the paper's number, with what it quotes after a slash; then, if run, ours with its
    spread and number of seeds; then the verdict. names: data sets as printed, by our name.
    """
    columns = dict.fromkeys(cell["dataset"] for cell in cells)
    found: dict[str, dict[str, str]] = {}
    for cell in cells:
        found.setdefault(cell["row"], {})[cell["dataset"]] = _compared(cell)
    rows = [[name, *(at.get(column, "–") for column in columns)] for name, at in found.items()]
    return Table(["", *(names.get(c, c) for c in columns)], rows, caption)


def gaps(
    cells: Iterable[Mapping[str, Any]], names: Mapping[str, str], near: float, caption: str = ""
) -> Table:
    """Ours less the paper's number, with our standard deviation: methods by data sets, "●" if within `near`.

    cells: of `compare.table`; those without a number of ours or of the paper are left out.
    """
    found: dict[str, dict[str, str]] = {}
    for cell in cells:
        if None not in (cell["mean"], cell["paper"]):
            gap = cell["mean"] - cell["paper"]
            mark = f"{MARKS['reached']}{SPACE}" if abs(gap) <= near else ""
            found.setdefault(cell["row"], {})[cell["dataset"]] = mark + signed(gap, cell["std"])
    columns = [name for name in names if any(name in row for row in found.values())]
    rows = [[row, *(at.get(name, NOT_RUN) for name in columns)] for row, at in found.items()]
    return Table(["", *(names[name] for name in columns)], rows, caption)


def scales(
    cells: Iterable[Mapping[str, Any]], names: Mapping[str, str], caption: str = ""
) -> Table:
    """At which scale the cells of `compare.table` that were run were measured, by data set."""
    found: dict[tuple[str, str], tuple[str, set[str]]] = {}
    for cell in cells:
        if cell["mean"] is not None:
            key = cell["dataset"], cell["profile"]
            found.setdefault(key, (cell["reduced"] or "nothing", set()))[1].update(cell["devices"])
    rows = [
        [names.get(dataset, dataset), profile, reduced, ", ".join(sorted(devices))]
        for (dataset, profile), (reduced, devices) in found.items()
    ]
    return _filled(["data set", "profile", "reduced or different", "device"], rows, caption)


def scores(
    rows: pd.DataFrame, columns: Mapping[str, str], names: Mapping[str, str], caption: str = ""
) -> Table:
    """Several metrics, averaged over seeds; rows: of `measured`; columns: heading by metric."""
    lines = []
    for _, row in _in_order(means(rows), names).iterrows() if len(rows) else ():
        dataset, method, result = (row[key, ""] for key in ("dataset", "method", "result"))
        name = method if result == "labels" else f"{method} {result}"
        cells = [spread(*row[metric], stale=row["stale", "any"]) for metric in columns]
        lines.append([f"{names.get(dataset, dataset)}, {name}", *cells, str(row["seed", "count"])])
    return _filled(["data set, result", *columns.values(), "seeds"], lines, caption)


def cost(rows: pd.DataFrame, names: Mapping[str, str], caption: str = "") -> Table:
    """Minutes a seed (mean) and peak memory (maximum) by data set, method, profile and device.

    rows: of `measured`; the results of a run are one run.
    """
    keys = ["dataset", "method", "profile", "device"]
    runs = rows.drop_duplicates([*keys, "variant", "tag", "seed"])
    lines = []
    for key, same in _in_order(runs.sort_values(keys[1:], kind="stable"), names).groupby(
        keys, sort=False
    ):
        numbers = minutes(same["seconds"].mean()), f"{same['memory'].max() / 1024:.1f}"
        lines.append([names.get(key[0], key[0]), *key[1:], *numbers, str(len(same))])
    head = ["data set", "method", "profile", "device", "minutes a seed", "memory, GiB", "seeds"]
    return _filled(head, lines, caption)


def minutes(seconds: float | None) -> str:
    """A duration in minutes with a sensible number of digits; "not run" for None or NaN."""
    if _absent(seconds):
        return NOT_RUN
    return f"{seconds / 60:.2f}" if seconds < 60 else f"{seconds / 60:.1f}"


def in_force(parameter: str, records: Iterable[Mapping[str, Any]], names: Mapping[str, str]) -> str:
    """The values of one parameter in the records; with data sets where they are not all the same."""
    found: dict[str, dict[str, None]] = {}
    for entry in records:
        if parameter in entry["parameters"]:
            value, dataset = plain(entry["parameters"][parameter]), entry["dataset"]["name"]
            found.setdefault(value, {})[names.get(dataset, dataset)] = None
    if len(found) < 2:
        return next(iter(found), NOT_RUN)
    return "\n".join(f"{value}: {', '.join(on)}" for value, on in found.items())


def as_printed(printed: Mapping[str, Any]) -> Table:
    """A table of `Paper.others` as the paper prints it."""
    values = [value for row in printed["rows"] for value in row["values"]]
    digits = max((len(str(v).partition(".")[2]) for v in values if isinstance(v, float)), default=0)
    rows = [
        [row["name"], *("–" if v is None else f"{v:.{digits}f}" for v in row["values"])]
        for row in printed["rows"]
    ]
    return Table(["", *printed["columns"]], rows, f"{printed['source']}: {printed['title']}")


def claims(judged: Iterable[Mapping[str, Any]], caption: str = "") -> Table:
    """Claims with where they stand, the evidence of our records and the verdict."""
    rows = [[row["claim"], row["where"], marked(row["verdict"]), row["evidence"]] for row in judged]
    return Table(["claim", "in the paper", "verdict", "our evidence"], rows, caption)


def ablation(paper: Paper, tags: Sequence[str], *, base: str = "main") -> Table:
    """The headline metric of the tags beside the base: a row a tag and data set, changes below means.

    A tag without a record has one row that says so.
    """
    rows, effects = compare.settings(paper, [base, *tags]), compare.effects(paper, tags, base=base)
    columns = list(dict.fromkeys(rows["result"])) or ["score"]
    lines = []
    for tag in [base, *tags]:
        same = rows[rows["tag"] == tag]
        for (dataset, profile), here in same.groupby(["dataset", "profile"], sort=False):
            place = tag, dataset, profile
            found = [e for e in effects if (e["tag"], e["dataset"], e["profile"]) == place]
            what = differences(found[0]["changed"]) if found else "–"
            stale = f"{SPACE}(stale)" if here["stale"].any() else ""
            scores = {r: one[paper.headline] for r, one in here.groupby("result", sort=False)}
            cells = {r: spread(s.mean(), s.std()) for r, s in scores.items()}
            for effect in found:
                cells[effect["result"]] += f"\n{signed(effect['difference'], effect['std'])}"
            told = [cells.get(name, "–") for name in columns]
            n = str(len(next(iter(scores.values()))))
            lines.append([tag + stale, paper.names.get(dataset, dataset), what, *told, n])
        if same.empty and (len(rows) or tag != base):
            lines.append([tag, NOT_RUN, *["–"] * (2 + len(columns))])
    return Table(["setting", "data set", "what differs", *columns, "seeds"], lines)


def differences(changed: Mapping[str, tuple[Any, Any]]) -> str:
    """Changed parameters as text, one a line: "gamma 2.0 → 1.0"; of many, how many and which."""
    if len(changed) > FEW:
        return f"{len(changed)} parameters: {', '.join(changed)}"
    return "\n".join(
        f"{name} {plain(before)}{SPACE}→{SPACE}{plain(after)}"
        for name, (before, after) in changed.items()
    )


def deviations(paper: Paper) -> Table:
    """Where paper, released code and book differ, with the effects that the records measured."""
    rows, known = [], set(measured(paper)["tag"])
    for entry in paper.deviations:
        parts = [f"{label}: {entry[key].strip()}" for key, label in PARTS.items()]
        base = entry["base"]
        effects = compare.effects(paper, entry["runs"], base=base) if entry["runs"] else []
        lines = []
        for tag in entry["runs"]:
            same = [effect for effect in effects if effect["tag"] == tag]
            if not same:
                without = f"no record of {base} beside it" if tag in known else NOT_RUN
                lines.append(f"{tag}: {without}")
                continue
            stale = " (stale)" if any(effect["stale"] for effect in same) else ""
            lines.append(f"{tag} against {base}{stale}:")
            for dataset in dict.fromkeys(effect["dataset"] for effect in same):
                told = [
                    f"{e['result']}{SPACE}{signed(e['difference'], e['std'])}"
                    for e in same
                    if e["dataset"] == dataset
                ]
                lines.append(f"{paper.names.get(dataset, dataset)} {', '.join(told)}")
        lines += [entry["effect"].strip()] if "effect" in entry else []
        rows.append([entry["topic"], "\n".join(parts), "\n".join(lines)])
    head = ["what", "who says what", f"effect on {METRICS[paper.headline].split()[0]}"]
    return Table(head, rows)


def overview(paper: Paper, profile: str | None = None) -> list[Table | str]:
    """What `reprolib results` prints: the paper's tables where they were run, then all records.

    profile: whose records, by default as for `compare.cells`. Raises ValueError for an unknown one.
    """
    known = paper.profiles["profiles"]
    if profile is not None and profile not in known:
        raise unknown_name("profile", profile, known)
    found: list[Table | str] = []
    for table_id, entry in paper.published.items():
        for metric in entry["metrics"]:
            cells = compare.table(paper, table_id, metric, profile=profile)
            lines = [_told(cell) for cell in cells if cell["mean"] is not None]
            title = f"{entry['source']}: {entry['title']} ({metric})"
            title += f"; {len(cells) - len(lines)} of {len(cells)} numbers not run"
            head = ["row", "data set", "paper", "here", "seeds", "profile", "verdict"]
            found.append(Table(head, lines, title) if lines else title)
    rows = measured(paper)
    rows = rows[rows["profile"] == profile] if profile else rows
    keys = ["method", "dataset", "profile", "tag", "result"]
    lines = [
        ["-".join(key[:-1]), key[-1], str(len(same))]
        + [spread(same[m].mean(), same[m].std()) for m in ("nmi_geometric", "acc")]
        + [f"{same['seconds'].mean():.0f}", "stale" if same["stale"].any() else ""]
        for key, same in rows.groupby(keys, sort=False)
    ]
    head = ["run", "result", "seeds", METRICS["nmi_geometric"], METRICS["acc"], "seconds", ""]
    return [*found, _filled(head, lines, "Records")]


def plain(value: Any) -> str:
    """A value of a parameter or of a printed table as short text; "–" for None."""
    if value is None:
        return "–"
    if isinstance(value, float) and value == int(value):
        return f"{value:.1f}"
    return str(value)


def _told(cell: Mapping[str, Any]) -> list[str]:
    printed = "–" if cell["paper"] is None else f"{cell['paper']:.3f}"
    here = spread(cell["mean"], cell["std"], stale=cell["stale"])
    place = [cell["row"], cell["dataset"], printed, here]
    return [*place, str(cell["n_seeds"]), cell["profile"], cell["verdict"]]


def _compared(cell: Mapping[str, Any]) -> str:
    printed = "–" if cell["paper"] is None else f"{cell['paper']:.3f}"
    if cell["reported"] is not None:
        printed += f"{SPACE}/{SPACE}{cell['reported']:.3f}"
    if cell["mean"] is None:
        return printed
    seeds = f"{cell['n_seeds']}{SPACE}seed{'s' if cell['n_seeds'] > 1 else ''}"
    here = spread(cell["mean"], cell["std"], stale=bool(cell["stale"]))
    return f"{printed}\nhere{SPACE}{here}\n{seeds}, {marked(cell['verdict'])}"


def _in_order(rows: pd.DataFrame, names: Mapping[str, str]) -> pd.DataFrame:
    """Sort rows by data set as `names` has them; others come last, all else stays in order."""
    place = {dataset: i for i, dataset in enumerate(names)}
    order = rows["dataset"].map(lambda dataset: place.get(dataset, len(place)))
    return rows.iloc[order.argsort(kind="stable")]


def _filled(head: Sequence[str], rows: Sequence[Sequence[str]], caption: str) -> Table:
    """A table that says "not run" where it has no rows."""
    return Table(head, rows or [[NOT_RUN, *["–"] * (len(head) - 1)]], caption)


def _absent(number: float | None) -> bool:
    return number is None or math.isnan(number)


def _html(cell: str) -> str:
    return html.escape(cell).replace("\n", "<br>")


def _html_row(row: Sequence[str]) -> str:
    cells = [f'<th scope="row">{_html(row[0])}</th>']
    for cell in row[1:]:
        kind = ' class="long"' if len(cell) > LONG else ""
        cells.append(f"<td{kind}>{_html(cell)}</td>")
    return "".join(cells)
