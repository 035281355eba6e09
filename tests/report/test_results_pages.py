"""Pages of results: numbers come from records, and every deviation shows what measured it."""

import re
import subprocess
import sys
from pathlib import Path

import jupytext
import pytest

from reprolib import methods
from reprolib.experiments import paper as profiles
from reprolib.report import compare, tables

BOOK = profiles.BOOK
PAPERS = [p for p in profiles.papers() if (BOOK / p / "results.md").is_file()]
OF_RESULTS = {"index", "results", "phases", "ablations", "deviations"}
PAGES = [page for paper in PAPERS for page in sorted((BOOK / paper).glob("*.md")) if page.stem in OF_RESULTS]
PAGES += [BOOK / "ledger.md"]


def prose(page: Path) -> str:
    """The page's text without code, roles, inline code, mathematics and link targets."""
    cells = [c.source for c in jupytext.read(page, fmt="md:myst").cells if c.cell_type == "markdown"]
    text = "\n\n".join(cells)
    for pattern in (r"\{[a-z:]+\}`[^`]*`", r"`[^`]*`", r"\$\$.*?\$\$", r"\$[^$\n]+\$", r"\]\([^)]*\)"):
        text = re.sub(pattern, "", text, flags=re.S)
    return text


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.relative_to(BOOK).as_posix())
def test_no_measured_number_is_typed_into_the_prose(page):
    # the rule of the verdicts states its own threshold
    rule = f"{compare.MARGIN:g}"
    typed = [n for n in re.findall(r"(?<![\d.])\d+\.\d+(?![\d.]*\d)", prose(page)) if n != rule]
    assert typed == [], f"computed outputs or glue carry numbers; typed here: {typed}"


def test_a_typed_number_would_be_found(tmp_path):
    page = tmp_path / "page.md"
    header = "---\njupytext:\n  text_representation:\n    format_name: myst\n---\n\n"
    page.write_text(header + "NMI is 0.913, `x = 0.5`, {glue:text}`k:.3f`, $a = 0.2$.\n")
    assert re.findall(r"\d+\.\d+", prose(page)) == ["0.913"]


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.relative_to(BOOK).as_posix())
def test_cells_are_short(page):
    for cell in jupytext.read(page, fmt="md:myst").cells:
        hidden = {"remove-input", "remove-cell"} & set(cell.metadata.get("tags", []))
        if cell.cell_type == "code" and not hidden:
            assert len(cell.source.splitlines()) <= 15, cell.source


@pytest.mark.parametrize("paper", PAPERS)
def test_every_run_of_a_deviation_is_measured_or_said_not_to_be(paper):
    book = profiles.Paper(paper)
    rows = {row[0]: row[-1] for row in tables.deviations(book).rows}
    entries = book.deviations
    assert len({entry["id"] for entry in entries}) == len(entries) == len(rows)
    for entry in entries:
        assert entry["runs"] or entry["effect"].strip()
        for tag in entry["runs"]:
            recorded = book.select(tag=tag, profile=["paper", "cpu"])
            said = f"{tag}: not run" if not recorded else tag
            assert said in rows[entry["topic"]]
            assert recorded == [] or f"{tag}: not run" not in rows[entry["topic"]]


@pytest.mark.parametrize("paper", PAPERS)
def test_what_we_do_is_read_from_the_code(paper):
    variants = profiles.estimator_class(profiles.profiles(paper)["method"]).VARIANTS
    settings = {name for overrides in variants.values() for name in overrides}
    written = (BOOK / paper / "deviations.yml").read_text()
    for name in settings:
        assert f"{{{name}}}" in written, f"no deviation tells how {name} is set"


@pytest.mark.parametrize("method", methods.__all__)
def test_the_text_of_a_class_tells_its_parameters(method):
    read = profiles.defaults(method)
    assert {k: v for k, v in read.items() if k != "random_state"} == profiles.signature(method)


def test_tables_wait_neither_for_torch_nor_for_scikit_learn():
    code = "import sys; from reprolib.report import claims, compare, tables; from reprolib import metrics; "
    code += "from reprolib.experiments.paper import Paper; tables.deviations(Paper('jule')); "
    code += "metrics.accuracy([0, 1], [0, 1]); print({'torch', 'sklearn', 'numba'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
