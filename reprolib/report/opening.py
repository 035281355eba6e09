"""What a reader meets first: in a sentence or a line what was reproduced, from the same verdicts as the tables."""

import html
from collections.abc import Iterable, Mapping
from typing import Any

from reprolib.report.compare import FAILS, HOLDS, NOT_RUN, PARTLY, REDUCED, UNKNOWN, VERDICTS
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
        if None not in (cell["mean"], cell["paper"]):
            where = f"{names[cell['dataset']]} ({cell['mean']:.3f} for {cell['paper']:.3f})"
            rows.setdefault(cell["row"], {}).setdefault(cell["verdict"], []).append(where)
    told = {row: [f"{v} on {', '.join(at[v])}" for v in VERDICTS if v in at] for row, at in rows.items()}
    return "\n\n".join(f"**{row}**: {'; '.join(what)}." for row, what in told.items())


def by_word(judged: Rows) -> dict[str, list[str]]:
    """Claims by word, in the order of WORDS."""
    groups: dict[str, list[str]] = {word: [] for word in WORDS.values()}
    for row in judged:
        groups[WORDS[row["verdict"]]].append(row["claim"])
    return {word: what for word, what in groups.items() if what}
