"""Reference notebooks for nbval, made from the book's pages.

A page is MyST Markdown. Its reference, `tests/notebooks/<folder>-<page>.ipynb`, holds the same
cells with the outputs that nbval compares. `make notebooks` writes the references; the tests
fail when one differs from its page.
"""

import argparse
import os
import sys
import time
from pathlib import Path

import jupytext
import nbformat
import yaml
from nbclient import NotebookClient
from nbformat import NotebookNode

ROOT = Path(__file__).resolve().parents[1]
REFERENCES = Path("tests/notebooks")
#: The tag of a cell whose output nbval compares
CHECKED = "nbval-check-output"
CELL_TIMEOUT = 300  # seconds, as in _config.yml


def front_matter(text: str) -> dict:
    """The YAML header of a Markdown page; empty without one."""
    if not text.startswith("---\n"):
        return {}
    header, found, _ = text[4:].partition("\n---\n")
    return (yaml.safe_load(header) or {}) if found else {}


def pages(root: Path = ROOT) -> list[Path]:
    """Pages under book/ that are notebooks, relative to `root`, sorted."""
    found = []
    for path in sorted((root / "book").rglob("*.md")):
        header = front_matter(path.read_text()).get("jupytext", {})
        if header.get("text_representation", {}).get("format_name") == "myst":
            found.append(path.relative_to(root))
    return found


def reference(page: Path) -> Path:
    """Where the reference of a page lies: book/jule/run.md -> tests/notebooks/jule-run.ipynb."""
    folders = page.parent.relative_to("book").parts
    return REFERENCES / ("-".join((*folders, page.stem)) + ".ipynb")


def convert(page: Path, root: Path = ROOT) -> NotebookNode:
    """The page as a notebook without outputs."""
    return jupytext.read(root / page, fmt="md:myst")


def cells(notebook: NotebookNode) -> list[tuple[str, str, tuple[str, ...]]]:
    """(type, source, tags) of every cell: what a reference must share with its page."""
    return [(cell.cell_type, cell.source, tuple(sorted(cell.metadata.get("tags", [])))) for cell in notebook.cells]


def is_checked(cell: NotebookNode) -> bool:
    """Whether nbval compares this cell's output."""
    return cell.cell_type == "code" and CHECKED in cell.metadata.get("tags", [])


def strip(notebook: NotebookNode) -> NotebookNode:
    """Remove what differs between two executions of the same cells, in place.

    Outputs of unchecked cells go as well: nbval runs those cells and compares nothing.
    """
    notebook.metadata = nbformat.from_dict(
        {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}}
    )
    for number, cell in enumerate(notebook.cells):
        cell.id = f"cell-{number}"
        tags = cell.metadata.get("tags", [])
        cell.metadata = nbformat.from_dict({"tags": tags} if tags else {})
        if cell.cell_type == "code" and not is_checked(cell):
            cell.outputs = []
    return notebook


def refresh(page: Path, root: Path = ROOT) -> Path:
    """Execute a page and write its reference; an error in a cell is raised, nothing is written."""
    notebook = convert(page, root)
    client = NotebookClient(
        notebook, timeout=CELL_TIMEOUT, kernel_name="python3", resources={"metadata": {"path": str(root / page.parent)}}
    )
    client.execute()
    path = root / reference(page)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".tmp")
    nbformat.write(strip(notebook), temporary)
    os.replace(temporary, path)
    return path


def main(arguments: list[str] | None = None) -> int:
    """Refresh the named pages, or all; references without a page are removed."""
    parser = argparse.ArgumentParser(prog="python -m tools.notebooks", description=main.__doc__)
    parser.add_argument("page", nargs="*", type=Path, help="book/<folder>/<page>.md; default: all")
    chosen = parser.parse_args(arguments).page
    known = pages()
    unknown = [str(page) for page in chosen if page not in known]
    if unknown:
        valid = ", ".join(map(str, known))
        parser.error(f"no notebook page {', '.join(unknown)}; the pages are {valid}")
    for page in chosen or known:
        start = time.perf_counter()
        path = refresh(page)
        print(f"{path.relative_to(ROOT)}  {time.perf_counter() - start:.1f} s", flush=True)
    expected = {ROOT / reference(page) for page in known}
    for orphan in set((ROOT / REFERENCES).glob("*.ipynb")) - expected:
        orphan.unlink()
        print(f"{orphan.relative_to(ROOT)}  removed: it has no page")
    return 0


if __name__ == "__main__":
    sys.exit(main())
