"""Tables of the book, as HTML and as text: the paper's number, ours with its spread, the verdict."""

import html
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from reprolib.experiments.paper import METRICS, Paper
from reprolib.report import compare
from reprolib.report.compare import NOT_RUN
from reprolib.report.measured import KEYS, measured

SPACE = "\u00a0"  # does not break: a number and its spread stay on one line
MARKS = {"above": "▲", "reached": "●", "cannot tell": "?", "below": "▼", "one seed": "·"}
MARKS |= {"holds": "●", "holds in part": "◐", "does not hold": "▼", "at reduced scale": "○"}
FEW = 3  # changed parameters that are told with their values
PARTS = {"paper": "Paper", "released": "Released code", "ours": "Here", "why": "Why"}
LINK = re.compile(r"\[([^\]]+)\]\((\S+)\.md(#[\w-]+)?\)")  # to a page of the same chapter, as the pages write it
LONG = 100  # characters: a cell of text wants a wide column


@dataclass(frozen=True)
class Table:
    """Head, rows of text cells (a line break in a cell is "\\n") and a caption.

    In a notebook it shows as HTML that scrolls inside itself on a narrow screen, its first column fixed; `str` gives
    aligned text. [words](page.md) is a link. Raises ValueError for a row of another length than the head.
    """

    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    caption: str = ""

    def __post_init__(self) -> None:
        for row in self.rows:
            if len(row) != len(self.head):
                raise ValueError(f"{len(row)} cells in a row, {len(self.head)} in the head: {row}")

    def _repr_html_(self) -> str:
        def cell(text: str, tag: str) -> str:
            lines = LINK.sub(r'<a href="\2.html\3">\1</a>', html.escape(text)).replace("\n", "<br>")
            return f"<{tag}>{lines}</{tag.split()[0]}>"

        head = "".join(cell(text, 'th scope="col"') for text in self.head)
        body = ""
        for row in self.rows:
            tags = ['th scope="row"', *('td class="long"' if len(text) > LONG else "td" for text in row[1:])]
            body += f"<tr>{''.join(map(cell, row, tags))}</tr>"
        caption = cell(self.caption, "caption") if self.caption else ""
        table = f"{caption}<thead><tr>{head}</tr></thead><tbody>{body}</tbody>"
        return f'<div class="book-table"><table class="table">{table}</table></div>'

    def __repr__(self) -> str:
        lines = [[LINK.sub(r"\1", cell).replace("\n", "; ") for cell in row] for row in [self.head, *self.rows]]
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        text = ["  ".join(map(str.ljust, line, widths)).rstrip() for line in lines]
        return "\n".join([*filter(None, [self.caption]), *text])


def spread(mean: float | None, std: float | None, *, stale: bool = False) -> str:
    """A mean and its standard deviation: "0.913 ± 0.004", with spaces that do not break.

    std None or NaN, as of one seed: the mean alone; mean None or NaN: "not run"; stale: with a remark.
    """
    if pd.isna(mean):
        return NOT_RUN
    text = f"{mean:.3f}" if pd.isna(std) else f"{mean:.3f}{SPACE}±{SPACE}{std:.3f}"
    return f"{text}{SPACE}(stale)" if stale else text


def signed(difference: float | None, std: float | None) -> str:
    """A difference with its sign and standard deviation: "+0.012 ± 0.004", "−0.031"; else as `spread`."""
    return NOT_RUN if pd.isna(difference) else ("+" if difference >= 0 else "−") + spread(abs(difference), std)


def marked(verdict: str) -> str:
    """A verdict with its sign: "▲ above", "● reached", "▼ below"."""
    return f"{MARKS[verdict]}{SPACE}{verdict}" if verdict in MARKS else verdict


def comparison(cells: Sequence[Mapping[str, Any]], names: Mapping[str, str], caption: str = "") -> Table:
    """Put the cells of `compare.table` in the paper's layout: methods by data sets.

    A cell holds the paper's number with its spread, what it quotes after a slash and its range in brackets; then, if
    run, ours with its spread and number of seeds; then the verdict. names: data sets as printed, by our name.
    """
    found = {(cell["row"], cell["dataset"]): _compared(cell) for cell in cells}
    columns = list(dict.fromkeys(dataset for _, dataset in found))
    return Table(["", *(names.get(c, c) for c in columns)], _laid_out(found, columns, "–"), caption)


def gaps(cells: Iterable[Mapping[str, Any]], names: Mapping[str, str], near: float) -> Table:
    """Ours less the paper's number, with our standard deviation: methods by data sets, "●" if within `near`.

    cells: of `compare.table`; those without a number of ours or of the paper are left out.
    """
    found = {}
    for cell in cells:
        if None not in (cell["mean"], cell["paper"]):
            gap = cell["mean"] - cell["paper"]
            mark = f"{MARKS['reached']}{SPACE}" if abs(gap) <= near else ""
            found[cell["row"], cell["dataset"]] = mark + signed(gap, cell["std"])
    columns = [name for name in names if any(name == dataset for _, dataset in found)]
    return Table(["", *(names[name] for name in columns)], _laid_out(found, columns, NOT_RUN))


def _laid_out(found: Mapping[tuple[str, str], str], columns: Sequence[str], blank: str) -> list[list[str]]:
    """Texts by row and data set as rows of cells."""
    return [[row, *(found.get((row, c), blank) for c in columns)] for row in dict.fromkeys(row for row, _ in found)]


def scales(cells: Iterable[Mapping[str, Any]], names: Mapping[str, str]) -> Table:
    """At which scale the cells of `compare.table` that were run were measured, by data set."""
    found: dict[tuple[str, str, str], set[str]] = {}
    for cell in cells:
        if cell["mean"] is not None:
            key = names.get(cell["dataset"], cell["dataset"]), cell["profile"], cell["reduced"] or "nothing"
            found.setdefault(key, set()).update(cell["devices"])
    rows = [[*key, ", ".join(sorted(devices))] for key, devices in found.items()]
    return _filled(["data set", "profile", "reduced or different", "device"], rows)


def scores(rows: pd.DataFrame, columns: Mapping[str, str], names: Mapping[str, str]) -> Table:
    """Several metrics, averaged over seeds; rows: of `measured`; columns: heading by metric."""
    lines = []
    for (method, _, dataset, *_, result), same in _in_order(rows, names).groupby(KEYS, sort=False):
        name = method if result == "labels" else f"{method} {result}"
        cells = [spread(same[m].mean(), same[m].std(), stale=same["stale"].any()) for m in columns]
        lines.append([f"{names.get(dataset, dataset)}, {name}", *cells, str(len(same))])
    return _filled(["data set, result", *columns.values(), "seeds"], lines)


def cost(rows: pd.DataFrame, names: Mapping[str, str]) -> Table:
    """Minutes a seed (mean) and peak memory (maximum) by data set, method, profile and device.

    rows: of `measured`; the results of a run are one run.
    """
    keys = ["dataset", "method", "profile", "device"]
    runs = rows.drop_duplicates([*keys, "variant", "tag", "seed"])
    runs = _in_order(runs.sort_values(keys[1:], kind="stable"), names)
    lines = []
    for (dataset, *key), same in runs.groupby(keys, sort=False):
        numbers = minutes(same["seconds"].mean()), f"{same['memory'].max() / 1024:.1f}"
        lines.append([names.get(dataset, dataset), *key, *numbers, str(len(same))])
    return _filled(["data set", *keys[1:], "minutes a seed", "memory, GiB", "seeds"], lines)


def minutes(seconds: float | None) -> str:
    """A duration in minutes with a sensible number of digits; "not run" for None or NaN."""
    return NOT_RUN if pd.isna(seconds) else f"{seconds / 60:.{2 if seconds < 60 else 1}f}"


def as_printed(printed: Mapping[str, Any]) -> Table:
    """A table of `Paper.others` as the paper prints it; fractions of a row have the decimals of its longest."""
    rows = []
    for row in printed["rows"]:
        digits = max((len(str(v).partition(".")[2]) for v in row["values"] if isinstance(v, float)), default=0)
        rows.append([row["name"], *(plain(v, f".{digits}f" * isinstance(v, float)) for v in row["values"])])
    return Table(["", *printed["columns"]], rows, f"{printed['source']}: {printed['title']}")


def claims(judged: Iterable[Mapping[str, Any]]) -> Table:
    """Claims with where they stand, the evidence of our records and the verdict."""
    rows = [[row["claim"], row["where"], marked(row["verdict"]), row["evidence"]] for row in judged]
    return Table(["claim", "in the paper", "verdict", "our evidence"], rows)


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
            what += "\nother starts" if found and not found[0]["shared"] else ""
            stale = f"{SPACE}(stale)" if here["stale"].any() else ""
            scores = here.groupby("result")[paper.headline]
            cells = {result: spread(one.mean(), one.std()) for result, one in scores}
            for effect in found:
                cells[effect["result"]] += f"\n{effect['difference'].interval}"
            told = [cells.get(name, "–") for name in columns]
            lines.append([tag + stale, paper.names.get(dataset, dataset), what, *told, str(here["seed"].nunique())])
        if same.empty and (len(rows) or tag != base):
            lines.append([tag, NOT_RUN, *["–"] * (2 + len(columns))])
    return Table(["setting", "data set", "what differs", *columns, "seeds"], lines)


def differences(changed: Mapping[str, tuple[Any, Any]]) -> str:
    """Changed parameters as text, one a line: "gamma 2.0 → 1.0"; of many, how many and which."""
    if len(changed) > FEW:
        return f"{len(changed)} parameters: {', '.join(changed)}"
    return "\n".join(f"{name} {plain(old)}{SPACE}→{SPACE}{plain(new)}" for name, (old, new) in changed.items())


def deviations(paper: Paper) -> Table:
    """Where paper, released code and book differ, with the effects that the records measured."""
    rows, known = [], set(measured(paper)["tag"])
    for entry in paper.deviations:
        parts = [f"{label}: {entry[key].strip()}" for key, label in PARTS.items()]
        base, lines = entry["base"], []
        effects = compare.effects(paper, entry["runs"], base=base)
        for tag in entry["runs"]:
            same = [effect for effect in effects if effect["tag"] == tag]
            if not same:
                lines.append(f"{tag}: {f'no record of {base} beside it' if tag in known else NOT_RUN}")
                continue
            stale = " (stale)" if any(effect["stale"] for effect in same) else ""
            starts = "" if all(effect["shared"] for effect in same) else ", from other starts"
            lines.append(f"{tag} against {base}{starts}{stale}:")
            told: dict[str, list[str]] = {}
            for e in same:
                change = f"{e['result']}{SPACE}{e['difference'].interval}"
                told.setdefault(paper.names.get(e["dataset"], e["dataset"]), []).append(change)
            lines += [f"{dataset} {', '.join(changes)}" for dataset, changes in told.items()]
        lines += [entry["effect"].strip()] if "effect" in entry else []
        rows.append([entry["topic"], "\n".join(parts), "\n".join(lines)])
    return Table(["what", "who says what", f"effect on {METRICS[paper.headline].split()[0]}"], rows)


def overview(paper: Paper, profile: str | None = None) -> list[Table | str]:
    """What `reprolib results` prints: the paper's tables where they were run, then all records.

    profile: whose records, by default as for `compare.cells`. Raises ValueError for an unknown one.
    """
    found: list[Table | str] = []
    for table_id, entry in paper.published.items():
        for metric in entry["metrics"]:
            cells = compare.table(paper, table_id, metric, profile=profile)
            lines = [
                [c["row"], c["dataset"], plain(c["paper"], ".3f"), spread(c["mean"], c["std"], stale=c["stale"])]
                + [str(c["n_seeds"]), c["profile"], c["verdict"]]
                for c in cells
                if c["n_seeds"]
            ]
            missing = f"{len(cells) - len(lines)} of {len(cells)} numbers not run"
            title = f"{entry['source']}: {entry['title']} ({metric}); {missing}"
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


def plain(value: Any, form: str = "") -> str:
    """A value of a parameter or of a printed table as text, in this format; "–" for None."""
    return "–" if value is None else format(value, form)


def _compared(cell: Mapping[str, Any]) -> str:
    printed = plain(cell["paper"], ".3f")
    if cell["reported"] is not None:
        printed += f"{SPACE}/{SPACE}{cell['reported']:.3f}"
    if cell["spread"] is not None:
        printed = spread(cell["paper"], cell["spread"])
    if cell["range"] is not None:
        printed += "{0}({1:.3f}{0}to{0}{2:.3f})".format(SPACE, *cell["range"])
    if cell["mean"] is None:
        return printed
    seeds = "" if cell["verdict"] == "one seed" else f"{cell['n_seeds']}{SPACE}seed{'s'[: cell['n_seeds'] - 1]}, "
    here = spread(cell["mean"], cell["std"], stale=cell["stale"])
    return f"{printed}\nhere{SPACE}{here}\n{seeds}{marked(cell['verdict'])}"


def _in_order(rows: pd.DataFrame, names: Mapping[str, str]) -> pd.DataFrame:
    """Sort rows by data set as `names` has them; others come last, all else stays in order."""
    place = {dataset: i for i, dataset in enumerate(names)}
    return rows.sort_values("dataset", key=lambda column: column.map(place), kind="stable")


def _filled(head: Sequence[str], rows: Sequence[Sequence[str]], caption: str = "") -> Table:
    """A table that says "not run" where it has no rows."""
    return Table(head, rows or [[NOT_RUN, *["–"] * (len(head) - 1)]], caption)
