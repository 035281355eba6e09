"""Tables of the book, as HTML and as text: the paper's number, ours with its spread, the verdict."""

from __future__ import annotations

import html
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from reprolib.data import catalogue

SPACE = "\u00a0"  # does not break: a number and its spread stay on one line
MARKS = {"above": "▲", "reached": "●", "within spread": "≈", "below": "▼"}
MARKS |= {"holds": "●", "holds in part": "≈", "does not hold": "▼"}
NOT_RUN = "not run"
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

    std None: the mean alone; mean None: "not run"; stale: with a remark.
    """
    if mean is None:
        return NOT_RUN
    text = f"{mean:.{digits}f}"
    if std is not None:
        text += f"{SPACE}±{SPACE}{std:.{digits}f}"
    return f"{text}{SPACE}(stale)" if stale else text


def signed(difference: float, std: float | None, *, digits: int = 3) -> str:
    """A difference with its sign and standard deviation: "+0.012 ± 0.004", "−0.031"."""
    sign = "+" if difference >= 0 else "−"
    text = f"{sign}{abs(difference):.{digits}f}"
    return text if std is None else f"{text}{SPACE}±{SPACE}{std:.{digits}f}"


def marked(verdict: str) -> str:
    """A verdict with its sign: "▲ above", "● reached", "≈ within spread", "▼ below"."""
    return f"{MARKS[verdict]}{SPACE}{verdict}" if verdict in MARKS else verdict


def comparison(
    cells: Sequence[Mapping[str, Any]], names: Mapping[str, str], caption: str = ""
) -> Table:
    """Put the cells of `results.table` in the paper's layout: methods by data sets.

    A cell holds the paper's number, with what it quotes after a slash; then, if run, ours with its
    spread and number of seeds; then the verdict. names: data sets as printed, by our name.
    """
    columns = list(dict.fromkeys(cell["dataset"] for cell in cells))
    rows = []
    for name in dict.fromkeys(cell["row"] for cell in cells):
        found = {cell["dataset"]: cell for cell in cells if cell["row"] == name}
        rows.append([name, *(_compared(found.get(column)) for column in columns)])
    return Table(["", *(names.get(c, c) for c in columns)], rows, caption)


def gaps(
    cells: Iterable[Mapping[str, Any]], names: Mapping[str, str], near: float, caption: str = ""
) -> Table:
    """Ours less the paper's number, with our standard deviation: methods by data sets, "●" if within `near`.

    cells: of `results.table`; those without a number of ours or of the paper are left out.
    """
    found: dict[str, dict[str, str]] = {}
    for cell in cells:
        if cell["mean"] is not None and cell["paper"] is not None:
            gap = cell["mean"] - cell["paper"]
            mark = f"{MARKS['reached']}{SPACE}" if abs(gap) <= near else ""
            found.setdefault(cell["row"], {})[cell["dataset"]] = mark + signed(gap, cell["std"])
    columns = [name for name in names if any(name in row for row in found.values())]
    rows = [[row, *(at.get(name, NOT_RUN) for name in columns)] for row, at in found.items()]
    return Table(["", *(names[name] for name in columns)], rows, caption)


def scales(
    cells: Sequence[Mapping[str, Any]], names: Mapping[str, str], caption: str = ""
) -> Table:
    """At which scale the cells of `results.table` that were run were measured, by data set."""
    found = {}
    for cell in cells:
        if cell["mean"] is not None:
            key = cell["dataset"], cell["profile"]
            found.setdefault(key, (cell["reduced"], set()))[1].update(cell["devices"])
    rows = [
        [names.get(dataset, dataset), profile, reduced or "nothing", ", ".join(sorted(devices))]
        for (dataset, profile), (reduced, devices) in found.items()
    ]
    head = ["data set", "profile", "reduced or different", "device"]
    return Table(head, rows or [_dashes(head)], caption)


def scores(
    rows: Iterable[Mapping[str, Any]],
    columns: Mapping[str, str],
    names: Mapping[str, str],
    caption: str = "",
) -> Table:
    """Rows of `records.aggregate` with several metrics; columns: heading by metric."""
    order = list(names)
    by_place = sorted(
        rows, key=lambda row: order.index(row["dataset"]) if row["dataset"] in order else len(order)
    )
    lines = [
        [
            f"{names.get(row['dataset'], row['dataset'])}, {_result(row)}",
            *(spread(row["mean"][m], row["std"][m], stale=row["stale"]) for m in columns),
            str(row["n_seeds"]),
        ]
        for row in by_place
    ]
    head = ["data set, result", *columns.values(), "seeds"]
    return Table(head, lines or [_dashes(head)], caption)


def cost(
    records: Iterable[Mapping[str, Any]], names: Mapping[str, str], caption: str = ""
) -> Table:
    """Minutes a seed (mean) and peak memory (maximum) by data set, method, profile and device."""
    found: dict[tuple, list[Mapping[str, Any]]] = {}
    for entry in records:
        place = names.get(entry["dataset"]["name"], entry["dataset"]["name"])
        key = place, entry["method"], entry["profile"], entry["device"]
        found.setdefault(key, []).append(entry)
    order = list(names.values())
    lines = []
    for key in sorted(found, key=lambda k: (order.index(k[0]) if k[0] in order else 99, k[1:])):
        seconds = [sum(entry["seconds"].values()) for entry in found[key]]
        memory = max(entry["peak_memory_mb"] for entry in found[key])
        mean = minutes(sum(seconds) / len(seconds))
        lines.append([*key, mean, f"{memory / 1024:.1f}", str(len(seconds))])
    head = ["data set", "method", "profile", "device", "minutes a seed", "memory, GiB", "seeds"]
    return Table(head, lines or [_dashes(head)], caption)


def minutes(seconds: float | None) -> str:
    """A duration in minutes with a sensible number of digits; "not run" for None."""
    if seconds is None:
        return NOT_RUN
    return f"{seconds / 60:.2f}" if seconds < 60 else f"{seconds / 60:.1f}"


def settings(
    printed: Mapping[str, Any],
    records: Iterable[Mapping[str, Any]],
    names: Mapping[str, str],
    caption: str = "",
) -> Table:
    """Hyper-parameters: the paper's beside those in the records, with the data sets that have them.

    printed: an entry of `results.other_tables` whose rows name a `parameter`.
    """
    runs = list(records)
    rows = []
    for row in printed["rows"]:
        papers = " or ".join(dict.fromkeys(map(plain, row["values"])))
        rows.append(
            [f"{row['name']}, {row['parameter']}", papers, in_force(row["parameter"], runs, names)]
        )
    return Table(["hyper-parameter", "paper", "in the records"], rows, caption)


def in_force(parameter: str, records: Iterable[Mapping[str, Any]], names: Mapping[str, str]) -> str:
    """The values of one parameter in the records; with data sets where they are not all the same."""
    found: dict[str, list[str]] = {}
    for entry in records:
        if parameter in entry["parameters"]:
            value, dataset = plain(entry["parameters"][parameter]), entry["dataset"]["name"]
            found.setdefault(value, []).append(names.get(dataset, dataset))
    if len(found) < 2:
        return next(iter(found), NOT_RUN)
    return "\n".join(f"{value}: {', '.join(dict.fromkeys(on))}" for value, on in found.items())


def data_sets(
    printed: Mapping[str, Any],
    records: Iterable[Mapping[str, Any]],
    n_clusters: Mapping[str, int],
    names: Mapping[str, str],
    caption: str = "",
) -> Table:
    """The paper's data sets beside ours: images, size and categories, from the records if any.

    printed: `results.other_tables`' entry with rows samples, categories, height and width; n_clusters:
    by data set, for those without a record; then the images are those of the catalogue.
    """
    runs = {entry["dataset"]["name"]: entry for entry in records}
    values = zip(*(row["values"] for row in printed["rows"]), strict=True)
    rows = []
    for dataset, theirs in zip(printed["columns"], values, strict=True):
        known = catalogue.TABLE.get(dataset)
        if dataset in runs:
            about = runs[dataset]["dataset"]
            ours = (about["n"], runs[dataset]["parameters"]["n_clusters"], *about["shape"][-2:])
        elif known is not None and dataset in n_clusters:
            ours = (known.n, n_clusters[dataset], *known.shape[-2:])
        else:
            ours = None
        remark = "cannot be loaded" if ours is None else "same" if ours == theirs else "differs"
        if ours is not None and dataset not in runs:
            remark += f", {NOT_RUN}"
        rows.append([names.get(dataset, dataset), _size(theirs), _size(ours), remark])
    return Table(["data set", "paper", "here", ""], rows, caption)


def _size(about: Sequence[int] | None) -> str:
    """(samples, categories, height, width) as text."""
    if about is None:
        return "–"
    n, k, height, width = about
    return f"{n:,} images of {height}×{width}\n{k} categories"


def as_printed(printed: Mapping[str, Any]) -> Table:
    """A table of `results.other_tables` as the paper prints it."""
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


def plain(value: Any) -> str:
    """A value of a parameter or of a printed table as short text; "–" for None."""
    if value is None:
        return "–"
    if isinstance(value, float) and value == int(value):
        return f"{value:.1f}"
    return str(value)


def _compared(cell: Mapping[str, Any] | None) -> str:
    if cell is None:
        return "–"
    printed = "–" if cell["paper"] is None else f"{cell['paper']:.3f}"
    if cell["reported"] is not None:
        printed += f"{SPACE}/{SPACE}{cell['reported']:.3f}"
    if cell["mean"] is None:
        return printed
    seeds = f"{cell['n_seeds']}{SPACE}seed{'s' if cell['n_seeds'] > 1 else ''}"
    here = spread(cell["mean"], cell["std"], stale=bool(cell["stale"]))
    return f"{printed}\nhere{SPACE}{here}\n{seeds}, {marked(cell['verdict'])}"


def _result(row: Mapping[str, Any]) -> str:
    return row["method"] if row["result"] == "labels" else f"{row['method']} {row['result']}"


def _dashes(head: Sequence[str]) -> list[str]:
    return [NOT_RUN, *["–"] * (len(head) - 1)]


def _html(cell: str) -> str:
    return html.escape(cell).replace("\n", "<br>")


def _html_row(row: Sequence[str]) -> str:
    cells = [f'<th scope="row">{_html(row[0])}</th>']
    for cell in row[1:]:
        kind = ' class="long"' if len(cell) > LONG else ""
        cells.append(f"<td{kind}>{_html(cell)}</td>")
    return "".join(cells)
