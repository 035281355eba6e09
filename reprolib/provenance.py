"""Which source files determine a result, and their hash without comments and docstrings."""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]

# A record stores the hash of the pixels and labels, and its metrics are recomputed by the tests:
# what loads, checks and scores needs no second guard, and a new download route must not age
# records.
NOT_DETERMINING = {
    "reprolib",
    "reprolib.checks",
    "reprolib.datasets",
    "reprolib.images",
    "reprolib.metrics",
    "reprolib.storage",
}


def source_hash(files: Iterable[str | Path], *, root: Path = REPOSITORY) -> str:
    """Return the sha256 (hex) of the syntax trees of Python files, without docstrings.

    files: paths relative to root (or absolute). Comments, docstrings, formatting, the order of
    `files` and the Python version do not change the hash; code and file names do.
    Raises FileNotFoundError for a missing file, SyntaxError for one that does not parse.
    """
    digest = hashlib.sha256()
    for name in sorted(str(f) for f in files):
        path = Path(root) / name
        digest.update(f"{name}\0{_tree_text(path, path.stat().st_mtime_ns)}\0".encode())
    return digest.hexdigest()


def sources_of(module: str, *, root: Path = REPOSITORY) -> list[str]:
    """List the files of this package that a module's results depend on: itself and all it imports.

    module: dotted name, as in "reprolib.methods.jule". Returns sorted paths relative to root.
    Imports are read from the text, inside functions too; nothing is executed. Modules of
    NOT_DETERMINING are left out. Raises FileNotFoundError when the module has no file.
    """
    found: dict[str, Path] = {}
    waiting = [module]
    while waiting:
        name = waiting.pop()
        path = _module_file(name, root)
        if path is None or name in found or name in NOT_DETERMINING:
            continue
        found[name] = path
        tree = ast.parse(path.read_text(encoding="utf-8"))
        waiting += _imports(tree, name, is_package=path.name == "__init__.py")
    if module not in found:
        raise FileNotFoundError(f"no source file for module {module!r} under {root}.")
    return sorted(p.relative_to(root).as_posix() for p in found.values())


def _module_file(name: str, root: Path) -> Path | None:
    if name.split(".")[0] != "reprolib":
        return None
    base = Path(root).joinpath(*name.split("."))
    for path in (base.with_suffix(".py"), base / "__init__.py"):
        if path.is_file():
            return path
    return None


def _imports(tree: ast.Module, module: str, *, is_package: bool) -> list[str]:
    """Dotted names a module imports, relative imports resolved."""
    package = module.split(".") if is_package else module.split(".")[:-1]
    names: list[str] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            parent = package[: len(package) - node.level + 1] if node.level else []
            base = ".".join([*parent, *filter(None, [node.module])])
            # `from package import x`: x may be a module or a name of the package's own file
            names += [base, *(f"{base}.{alias.name}" for alias in node.names)]
    return names


@lru_cache(maxsize=256)
def _tree_text(path: Path, mtime_ns: int) -> str:
    return _canonical(ast.parse(path.read_text(encoding="utf-8"), filename=str(path)))


def _canonical(node: object) -> str:
    """Write a syntax tree as text, leaving out docstrings and empty fields.

    `ast.dump` prints empty fields in some Python versions and not in others, and new versions add
    fields that are mostly empty; leaving them out keeps one hash for all of them.
    """
    if isinstance(node, list):
        return f"[{','.join(_canonical(item) for item in node)}]"
    if not isinstance(node, ast.AST):
        return repr(node)
    fields = []
    for name, value in ast.iter_fields(node):
        if name in ("ctx", "kind", "type_comment"):
            continue
        if name == "body" and _has_docstring(node):
            value = value[1:]
        if value == [] or (value is None and not isinstance(node, ast.Constant)):
            continue
        fields.append(f"{name}={_canonical(value)}")
    return f"{type(node).__name__}({','.join(fields)})"


def _has_docstring(node: ast.AST) -> bool:
    documented = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
    return isinstance(node, documented) and ast.get_docstring(node, clean=False) is not None
