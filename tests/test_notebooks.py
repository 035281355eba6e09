"""References in tests/notebooks: none missing, none out of date, none that checks nothing.

nbval itself runs in `make test`, after these.
"""

import ast
import re
import subprocess
from pathlib import Path

import nbformat
import pytest

from tools import notebooks

PAGES = notebooks.pages()
PAGE = pytest.mark.parametrize("page", PAGES, ids=str)


def stored(page: Path) -> nbformat.NotebookNode:
    path = notebooks.ROOT / notebooks.reference(page)
    assert path.is_file(), f"{path.name} is missing: make notebooks PAGES={page}"
    return nbformat.read(path, as_version=4)


@PAGE
def test_reference_has_the_cells_of_its_page(page):
    assert notebooks.cells(stored(page)) == notebooks.cells(notebooks.convert(page)), (
        f"{page} has changed since its reference was made: make notebooks PAGES={page}"
    )


@PAGE
def test_every_checked_cell_holds_an_output(page):
    checked = [cell for cell in stored(page).cells if notebooks.is_checked(cell)]
    assert checked, f"{page} has no cell tagged {notebooks.CHECKED}: nbval would compare nothing"
    for cell in checked:
        # nbval never compares a cell without an execution count
        assert cell.execution_count is not None, cell.source
        assert cell.outputs, f"a checked cell prints nothing:\n{cell.source}"


@PAGE
def test_no_checked_cell_failed(page):
    kinds = {output.output_type for cell in stored(page).cells for output in cell.get("outputs", [])}
    assert "error" not in kinds


@PAGE
def test_a_figure_is_shown_with_a_caption(page):
    for cell in notebooks.convert(page).cells:
        assert "plt.show(" not in cell.source, f"{page}: figures.show takes the caption that readers need"


# "gradients agree: False" is a failure that passed for a result; "ordered_pairs = False" is a setting
FAILED = re.compile(r"(?<! = )(?<!→\xa0)\bFalse\b")
COMPARISONS = {"all", "allclose", "any", "array_equal", "equal", "isclose", "is_close"}


@PAGE
def test_no_checked_cell_says_false(page):
    for cell in filter(notebooks.is_checked, stored(page).cells):
        texts = [output.get("text") or output.data["text/plain"] for output in cell.outputs]
        assert not FAILED.search("\n".join(texts)), f"a comparison failed:\n{cell.source}"


def is_comparison(value: ast.expr) -> bool:
    """Whether an expression can only be True or False."""
    if isinstance(value, ast.BoolOp):
        return all(map(is_comparison, value.values))
    if isinstance(value, ast.Call):
        return isinstance(value.func, ast.Attribute) and value.func.attr in COMPARISONS
    negated = isinstance(value, ast.UnaryOp) and isinstance(value.op, ast.Not)
    return negated or isinstance(value, ast.Compare)


def printed_comparisons(source: str) -> list[str]:
    """Comparisons whose True or False a print would show, without an assertion behind it."""
    found = []
    calls = (node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call))
    for call in (call for call in calls if ast.unparse(call.func) == "print"):
        fields = [node.value for node in ast.walk(call) if isinstance(node, ast.FormattedValue)]
        found += [ast.unparse(value) for value in (*call.args, *fields) if is_comparison(value)]
    return found


@PAGE
def test_a_page_asserts_what_it_claims(page):
    """A printed comparison says False where an assertion would stop the page with its numbers."""
    for cell in filter(notebooks.is_checked, stored(page).cells):
        shown = printed_comparisons(cell.source)
        assert not shown, f"{page} prints {', '.join(shown)}: assert it, then say what was shown"


def test_the_guards_see_a_false_that_is_printed():
    for said in ("agree: False\n", "float32   True False", "(False, True)"):
        assert FAILED.search(said)
    assert not FAILED.search("  ordered_pairs = False\n  agree: True")
    for printed in ("np.array_equal(a, b)", "a == b", "not a", "(a == b).all()", "a > b and c == d"):
        assert printed_comparisons(f"print('equal', {printed})") == [printed]
        assert printed_comparisons(f"print(f'equal: {{{printed}}}')") == [printed]
    fine = "print('all' if a == b else 'not all', equal(a, b), (a == b).mean(), name or '-')"
    assert printed_comparisons(fine) == []


def test_no_reference_without_a_page():
    found = {path.name for path in (notebooks.ROOT / notebooks.REFERENCES).glob("*.ipynb")}
    assert found <= {notebooks.reference(page).name for page in PAGES}


def test_no_ipynb_is_tracked_under_book():
    listed = subprocess.run(
        ["git", "ls-files", "--", "book/*.ipynb"], cwd=notebooks.ROOT, capture_output=True, text=True, check=True
    )
    assert listed.stdout == ""


def make_page(root: Path, body: str) -> Path:
    page = root / "book" / "part" / "page.md"
    page.parent.mkdir(parents=True)
    page.write_text(
        "---\njupytext:\n  text_representation:\n    extension: .md\n    format_name: myst\n"
        "kernelspec:\n  display_name: Python 3\n  language: python\n  name: python3\n---\n\n" + body
    )
    return page.relative_to(root)


def test_refresh_keeps_checked_outputs_and_only_those(tmp_path):
    page = make_page(
        tmp_path,
        "# Title\n\n```{code-cell} ipython3\nprint('loose')\n```\n\n"
        f"```{{code-cell}} ipython3\n:tags: [{notebooks.CHECKED}]\nprint(6 * 7)\n```\n",
    )
    assert notebooks.pages(tmp_path) == [page]
    path = notebooks.refresh(page, tmp_path)
    assert path == tmp_path / "tests" / "notebooks" / "part-page.ipynb"
    kept = nbformat.read(path, as_version=4)
    assert [len(cell.get("outputs", [])) for cell in kept.cells] == [0, 0, 1]
    assert kept.cells[2].outputs[0].text == "42\n"
    assert notebooks.cells(kept) == notebooks.cells(notebooks.convert(page, tmp_path))
    first = path.read_bytes()
    notebooks.refresh(page, tmp_path)
    assert path.read_bytes() == first, "two refreshes of one page differ"


def test_refresh_of_a_failing_page_writes_nothing(tmp_path):
    page = make_page(tmp_path, "```{code-cell} ipython3\n1 / 0\n```\n")
    with pytest.raises(Exception, match="ZeroDivisionError"):
        notebooks.refresh(page, tmp_path)
    assert not (tmp_path / notebooks.reference(page)).exists()


def test_a_changed_tag_is_a_difference(tmp_path):
    page = make_page(tmp_path, "```{code-cell} ipython3\n:tags: [hide-input]\nx = 1\n```\n")
    before = notebooks.cells(notebooks.convert(page, tmp_path))
    path = tmp_path / page
    path.write_text(path.read_text().replace("hide-input", notebooks.CHECKED))
    assert notebooks.cells(notebooks.convert(page, tmp_path)) != before


def test_unknown_page_names_the_known_ones(capsys):
    with pytest.raises(SystemExit):
        notebooks.main(["book/nothing.md"])
    assert "book/foundations/machine.md" in capsys.readouterr().err
