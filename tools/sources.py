"""Sphinx extension: the lines behind a page's "Code: `reprolib.module.function`".

Below the paragraph that names a function or class first stands its source, folded; a page's later mentions lead
there. The lines are found by name at every build, so that they cannot go stale.
"""

import ast
import re
from pathlib import Path

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.transforms import SphinxTransform

ROOT = Path(__file__).resolve().parents[1]
NAME = re.compile(r"reprolib(\.\w+)+")


def lines_of(name: str, root: Path = ROOT) -> tuple[Path, str]:
    """File, relative to `root`, and source of a function, a class or a method by its dotted name.

    What a module imports from another one of reprolib is found there. Raises LookupError where there is none.
    """
    parts = name.split(".")
    for cut in range(len(parts) - 1, 0, -1):
        module = Path(*parts[:cut])
        path = module / "__init__.py" if (root / module).is_dir() else module.with_suffix(".py")
        if not (root / path).is_file():
            continue
        text = (root / path).read_text()
        scope: ast.AST = ast.parse(text)
        for depth, part in enumerate(parts[cut:], start=cut):
            for node in ast.iter_child_nodes(scope):
                if isinstance(node, ast.ImportFrom) and part in {alias.asname or alias.name for alias in node.names}:
                    return lines_of(".".join([node.module or "", *parts[depth:]]), root)
                if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name == part:
                    scope = node
                    break
            else:
                raise LookupError(f"{name}: no {part} in {path}")
        first = min([scope.lineno, *(node.lineno for node in scope.decorator_list)])
        return path, "\n".join(text.splitlines()[first - 1 : scope.end_lineno])
    raise LookupError(f"{name}: no such module")


class BesideCode(SphinxTransform):
    """Put the sources below the paragraphs that name them."""

    default_priority = 500

    def apply(self, **_: object) -> None:
        """Change the page in place; a name without lines is a warning."""
        shown: set[str] = set()
        for paragraph in list(self.document.findall(nodes.paragraph)):
            text = paragraph.astext()
            if not re.search(r"\bCode:\s", text):
                continue
            place = text.index("Code:")
            blocks: list[nodes.Node] = []
            for literal in list(paragraph.findall(nodes.literal)):
                name = literal.astext()
                if not NAME.fullmatch(name) or text.find(name, place) < 0:
                    continue
                anchor = f"source-{name.replace('.', '-').lower()}"
                if name not in shown:
                    shown.add(name)
                    try:
                        blocks += self.block(name, anchor)
                    except LookupError as error:
                        self.document.reporter.warning(str(error), base_node=paragraph)
                        continue
                literal.replace_self(nodes.reference("", "", literal.deepcopy(), refid=anchor, internal=True))
            parent, at = paragraph.parent, paragraph.parent.index(paragraph) + 1
            parent[at:at] = blocks

    def block(self, name: str, anchor: str) -> list[nodes.Node]:
        """The folded lines of a name."""
        path, lines = lines_of(name)
        self.env.note_dependency(str(ROOT / path))
        block = nodes.literal_block(lines, lines, language="python")
        summary = f"<summary><code>{name}</code>, {path.as_posix()}</summary>"
        start = nodes.raw("", f'<details class="source" id="{anchor}">{summary}', format="html")
        return [start, block, nodes.raw("", "</details>", format="html")]


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the transform."""
    app.add_transform(BesideCode)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
