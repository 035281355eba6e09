"""What a reader meets first: in a sentence or a line what was reproduced, from the same verdicts as the tables."""

import html
from collections.abc import Iterable, Mapping
from typing import Any

from reprolib.report.compare import FAILS, HOLDS, NOT_RUN, PARTLY, REDUCED, UNKNOWN
from reprolib.report.tables import MARKS

Rows = Iterable[Mapping[str, Any]]
WORDS = {  # of a claim's verdict
    HOLDS: "reproduced",
    PARTLY: "in part",
    FAILS: "not reproduced",
    UNKNOWN: "cannot tell",
    REDUCED: "could not be tested",
    NOT_RUN: "could not be tested",
    "not started": "not started",
}
STANDS = {  # of a cell's verdict
    "above": "above on",
    "reached": "reached on",
    "below": "below on",
    UNKNOWN: "cannot tell on",
    "one seed": "one seed on",
}


def found(judged: Rows) -> str:
    """The claims of `claims.judged` by WORDS, as Markdown: a paragraph each, how many and which."""
    groups = by_word(judged).items()
    return "\n\n".join(f"**{word.capitalize()}** ({len(what)}): {' '.join(what)}" for word, what in groups)


def chips(title: str, judged: Rows) -> str:
    """A paper's claims counted by WORDS, as a line of HTML; the mark and the word say what the colour says."""
    marks = {word: MARKS.get(verdict, "–") for verdict, word in reversed(WORDS.items())}
    line = f"<b>{html.escape(title)}</b>"
    for word, what in by_word(judged).items():
        line += f' <span class="chip {word.replace(" ", "-")}">{marks[word]} {len(what)} {word}</span>'
    return f'<p class="chips">{line}</p>'


def numbers(cells: Rows, names: Mapping[str, str]) -> str:
    """How rows of `compare.cells` stand to the published numbers: a line of Markdown a row, ours for theirs."""
    rows: dict[str, dict[str, list[str]]] = {}
    for cell in cells:
        if cell["verdict"] in STANDS:
            where = f"{names[cell['dataset']]} ({cell['mean']:.3f} for {cell['paper']:.3f})"
            groups = rows.setdefault(cell["row"], {what: [] for what in STANDS.values()})
            groups[STANDS[cell["verdict"]]].append(where)
    lines = []
    for row, groups in rows.items():
        told = [f"{what} {', '.join(where)}" for what, where in groups.items() if where]
        lines.append(f"**{row}**: {'; '.join(told)}.")
    return "\n\n".join(lines)


def by_word(judged: Rows) -> dict[str, list[str]]:
    """Claims by word, in the order of WORDS."""
    groups: dict[str, list[str]] = {word: [] for word in WORDS.values()}
    for row in judged:
        groups[WORDS[row["verdict"]]].append(row["claim"])
    return {word: what for word, what in groups.items() if what}
