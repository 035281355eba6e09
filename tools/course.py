"""Notebooks for a course: the book's pages as any Jupyter shows them, with the exercises' solutions or without.

    python -m tools.course      course/student/*.ipynb without solutions, course/teacher/*.ipynb with them

The download button of a page gives its student copy (tools/download.py).
"""

import argparse
import ast
import hashlib
import os
import re
import sys
from contextlib import suppress
from pathlib import Path

import nbformat
from jupyter_cache import get_cache
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell

from tools import notebooks, plain

ROOT = notebooks.ROOT
COPIES = {"student": False, "teacher": True}
#: What a tag of the book means to Jupyter
HIDDEN = {
    "hide-input": ["source_hidden"],
    "remove-input": ["source_hidden"],
    "hide-output": ["outputs_hidden"],
    "remove-output": ["outputs_hidden"],
    "hide-cell": ["source_hidden", "outputs_hidden"],
    "remove-cell": ["source_hidden", "outputs_hidden"],
}
CHECK = re.compile(r"^check_\w+\(.*\)$", re.MULTILINE)


def glued(notebook: NotebookNode) -> dict[str, str]:
    """Values that an executed page glues into its text, by name; strings without their quotes."""
    found = {}
    for output in (output for cell in notebook.cells for output in cell.get("outputs", [])):
        name = output.get("metadata", {}).get("scrapbook", {}).get("name")
        for kind, value in output.get("data", {}).items() if name else []:
            if kind.endswith("text/plain"):
                found[name] = str(ast.literal_eval(value)) if value[0] in "\"'" else value
    return found


def executed(notebook: NotebookNode, root: Path = ROOT) -> NotebookNode:
    """The notebook with the outputs of the last build; as it is where there are none."""
    cache = root / "_build" / ".jupyter_cache"
    # KeyError: the page has changed since, or is never executed
    with suppress(KeyError):
        if cache.is_dir():
            _, notebook = get_cache(cache).merge_match_into_notebook(notebook)
    return notebook


def code_cell(cell: NotebookNode, *, folded: bool = False) -> NotebookNode:
    """A copy of a page's cell that Jupyter folds as the book does, or altogether."""
    tags = cell.metadata.get("tags", [])
    metadata = {"tags": tags} if tags else {}
    if hidden := {key: True for tag in (*tags, *["hide-cell"] * folded) for key in HIDDEN.get(tag, [])}:
        metadata["jupyter"] = hidden
    return new_code_cell(
        cell.source, metadata=metadata, outputs=cell.outputs, execution_count=cell.get("execution_count")
    )


def convert(notebook: NotebookNode, page: Path, *, solutions: bool, root: Path = ROOT) -> NotebookNode:
    """A page's notebook without MyST: stubs of exercises are cells, solutions folded or left out.

    page: relative to `root`, book/<folder>/<page>.md. Without solutions cells that call the checks end each
    exercise; they may fail without stopping "run all". Raises ValueError where a page has markup without a plain
    form.
    """
    source = plain.Page(page, glued(notebook), root)
    made, texts, checks, inside = [], [], [], ""

    def close() -> None:
        if texts:
            metadata = {"jupyter": {"source_hidden": True}} if inside == "solution" else {}
            made.append(new_markdown_cell("\n\n".join(texts), metadata=metadata))
            texts.clear()

    for cell in notebook.cells:
        if cell.cell_type != "markdown":
            if inside == "solution":
                checks += CHECK.findall(cell.source)
            if solutions or inside != "solution":
                close()
                made.append(code_cell(cell, folded=inside == "solution"))
            continue
        for piece in plain.pieces(source, cell.source):
            if piece.kind != "text":
                close()
            if piece.kind in ("exercise", "solution"):
                inside = piece.kind
                if inside == "exercise" or solutions:
                    made.append(new_markdown_cell(f"### {piece.text}"))
            elif piece.kind == "end":
                for call in dict.fromkeys(checks) if not solutions else ():
                    made.append(new_code_cell(call, metadata={"tags": ["raises-exception"]}))
                inside, checks = "", []
            elif inside == "solution" and not solutions:
                continue
            elif piece.kind == "stub":
                made.append(new_code_cell(piece.text.strip(), metadata={"tags": ["exercise"]}))
            else:
                texts.append(piece.text)
        close()
    if source.cited:
        made.append(new_markdown_cell("## References\n\n" + plain.reference_list(source.cited, root)))
    for number, cell in enumerate(made):
        cell.id = f"cell-{number}"
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    return nbformat.v4.new_notebook(cells=made, metadata={"kernelspec": kernel})


def without_outputs(notebook: NotebookNode) -> NotebookNode:
    """Clear the outputs, in place."""
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    return notebook


def digest(notebook: NotebookNode) -> str:
    """sha256 of what stands in the cells, outputs aside."""
    return hashlib.sha256("\0".join(cell.source for cell in notebook.cells).encode()).hexdigest()


def is_edited(path: Path) -> bool:
    """Whether somebody has written into a copy since it was made."""
    notebook = nbformat.read(path, as_version=4)
    return notebook.metadata.get("written") != digest(notebook)


def write(folder: Path, root: Path = ROOT) -> list[Path]:
    """Write both copies of every page under `folder`; a copy that somebody has edited stays, and is named."""
    written = []
    for page in notebooks.pages(root):
        run = executed(notebooks.convert(page, root), root)
        for copy, solutions in COPIES.items():
            notebook = convert(run, page, solutions=solutions, root=root)
            path = folder / copy / notebooks.reference(page).name
            path.parent.mkdir(parents=True, exist_ok=True)
            if path.is_file() and is_edited(path):
                print(f"{path} has been edited and is kept; rename it to get a new one", file=sys.stderr)
                continue
            notebook.metadata["written"] = digest(notebook)
            temporary = path.with_suffix(".tmp")
            nbformat.write(notebook if solutions else without_outputs(notebook), temporary)
            os.replace(temporary, path)
            written.append(path)
    return written


def main(arguments: list[str] | None = None) -> int:
    """Write the notebooks of a course from the pages: students' without solutions, teachers' with them."""
    parser = argparse.ArgumentParser(prog="python -m tools.course", description=main.__doc__)
    parser.add_argument("folder", nargs="?", type=Path, default=ROOT / "course", help="default: course")
    folder = parser.parse_args(arguments).folder
    written = write(folder)
    unbuilt = sum(plain.SEE in path.read_text() for path in written) // len(COPIES)
    if unbuilt:
        print(f'{unbuilt} pages say "{plain.SEE}" where the book has a number: `make book`, then this again')
    for copy in COPIES:
        print(f"{sum(path.parent.name == copy for path in written)} notebooks in {folder / copy}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
