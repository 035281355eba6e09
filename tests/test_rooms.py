"""The rooms of reprolib: no import runs up, no two files import each other, no room or file overflows.

Imports are read from the text, those inside functions and under TYPE_CHECKING too: what a file must
know of another to be read counts, not only what is loaded with it.
"""

import ast
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1] / "reprolib"
# Lowest first; those of one row may not import each other. Any import of the package runs its
# __init__, so that must need no more than data
ORDER = (
    ("checks", "files"),
    ("metrics",),
    ("data",),
    ("__init__",),
    ("kernels", "networks"),
    ("graph",),
    ("training",),
    ("methods",),
    ("studies",),
    ("experiments",),
    ("report",),
    ("bench",),
    ("__main__",),
)
LEVEL = {room: level for level, rooms in enumerate(ORDER) for room in rooms}
LINES, TOP_ROW, ROOM = 400, 7, 18


def module_of(path: Path) -> str:
    """Dotted name under reprolib: "data.load", "methods", "__init__"."""
    parts = list(path.relative_to(ROOT).with_suffix("").parts)
    if parts[-1] == "__init__" and len(parts) > 1:
        parts.pop()
    return ".".join(parts)


FILES = {module_of(path): path for path in sorted(ROOT.rglob("*.py"))}


def imports(text: str) -> set[str]:
    """Files of reprolib that a source text imports from, anywhere in it."""
    asked = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            asked |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, "relative imports are not read here"
            asked |= {f"{node.module}.{alias.name}" for alias in node.names}
    found = set()
    for name in asked:
        if name.split(".")[0] == "reprolib":
            parts = name.split(".")[1:]
            while parts and ".".join(parts) not in FILES:
                parts.pop()
            found.add(".".join(parts) or "__init__")
    return found


GRAPH = {name: imports(path.read_text()) - {name} for name, path in FILES.items()}


def room(name: str) -> str:
    return name.split(".")[0]


def runs_up(importer: str, imported: str) -> bool:
    below, here = LEVEL[room(imported)], LEVEL[room(importer)]
    return room(imported) != room(importer) and below >= here


def reachable(start: str) -> set[str]:
    seen, ahead = set(), [start]
    while ahead:
        for name in GRAPH[ahead.pop()] - seen:
            seen.add(name)
            ahead.append(name)
    return seen


def test_every_room_has_a_place():
    assert {room(name) for name in FILES} == set(LEVEL)


def test_no_import_runs_up():
    found = {(a, b) for a, asked in GRAPH.items() for b in asked if runs_up(a, b)}
    assert found == set()


def test_no_circle_between_files():
    assert {name for name in FILES if name in reachable(name)} == set()


@pytest.mark.parametrize("name", FILES)
def test_no_file_overflows(name):
    assert len(FILES[name].read_text().splitlines()) <= LINES


def test_no_room_overflows():
    counts = Counter(path.parent.name for path in FILES.values())
    assert counts.pop(ROOT.name) <= TOP_ROW
    assert {name: count for name, count in counts.items() if count > ROOM} == {}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("import reprolib.data.load", {"data.load"}),
        ("from reprolib.data import load, made", {"data.load", "data.made"}),
        ("from reprolib.data.load import load", {"data.load"}),
        ("def f():\n    from reprolib import metrics, load", {"metrics", "__init__"}),
        ("if TYPE_CHECKING:\n    from reprolib.methods import JULE", {"methods"}),
        ("import numpy\nfrom torch import nn", set()),
    ],
)
def test_imports_are_read(text, expected):
    assert imports(text) == expected
