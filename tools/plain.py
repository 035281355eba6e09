"""MyST text as plain Markdown that any Jupyter renders.

Blocks come from MyST's own parser. Roles are rewritten in the text between them, where code is left alone. What has
no plain form here is an error, so that no page can show its markup in a notebook.
"""

import re
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from urllib.parse import quote

import yaml
from markdown_it import MarkdownIt
from markdown_it.renderer import RendererHTML
from markdown_it.token import Token
from myst_parser.config.main import MdParserConfig
from myst_parser.parsers.mdit import create_md_parser
from pybtex.database import BibliographyData, parse_file
from pybtex.plugin import find_plugin

from tools import notebooks, sources

ROOT = notebooks.ROOT
DIRECTIVE = re.compile(r"\{([\w:-]+)\}\s*(.*)")
INLINE = re.compile(
    r"\{(?P<role>[\w:]+)\}(?P<tick>`+)(?P<body>.+?)(?P=tick)"
    r"|(?P<code>`+)(?!`).+?(?<!`)(?P=code)(?!`)"
    r"|\[(?P<words>[^\]]*)\]\((?P<target>[^)\s#]*\.md(?:#[\w-]+)?|#[\w-]+)\)",
    re.DOTALL,
)
BOXES = {"note", "tip", "hint", "important", "warning", "caution", "seealso"}
SEE = "see the page"


@dataclass(frozen=True)
class Piece:
    """A part of a page's text: kind text, stub (code to be completed), exercise, solution or end (of either)."""

    kind: str
    text: str = ""


@dataclass
class Page:
    """What the text of a page refers to; `cited` fills while it is read."""

    path: Path  # book/jule/method.md
    glued: dict[str, str] = field(default_factory=dict)
    root: Path = ROOT
    cited: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Labels:
    """What a label of the book names: the page and heading, or the page and number of an equation."""

    headings: dict[str, tuple[Path, str]]
    equations: dict[str, tuple[Path, int]]
    titles: dict[Path, str]  # of pages, as in the sidebar


@cache
def parser(root: Path = ROOT) -> MarkdownIt:
    """MyST's parser with the extensions of the book."""
    extensions = yaml.safe_load((root / "_config.yml").read_text())["parse"]["myst_enable_extensions"]
    return create_md_parser(MdParserConfig(enable_extensions=set(extensions)), RendererHTML)


def directive(token: Token) -> tuple[str, str, dict[str, str], str] | None:
    """Name, argument, options and body of a fence that is a directive."""
    found = DIRECTIVE.fullmatch(token.info.strip()) if token.type in ("fence", "colon_fence") else None
    if found is None:
        return None
    lines, options = token.content.splitlines(), {}
    while lines and (option := re.fullmatch(r":([\w-]+):\s*(.*)", lines[0])):
        options[option[1]] = option[2]
        lines.pop(0)
    return found[1], found[2], options, "\n".join(lines).strip("\n")


def exercise_heading(title: str) -> str:
    """Heading of an exercise; title: "JULE 3: cross terms"."""
    return f"Exercise {title}"


@cache
def labels(root: Path = ROOT) -> Labels:
    """Labels and titles of all pages of the book."""
    found = Labels({}, {}, {})
    for path in sorted((root / "book").rglob("*.md")):
        page, count, heading, target = path.relative_to(root), 0, "", ""
        tokens = parser(root).parse(path.read_text())
        for before, token in zip([None, *tokens], tokens, strict=False):
            name, argument, options, _ = directive(token) or ("", "", {}, "")
            if token.type == "myst_target":
                target = token.content
            elif token.type in ("inline", "fence"):
                heading = token.content if before.type == "heading_open" else heading
                if target:
                    found.headings[target], target = (page, heading), ""
            if name in ("exercise", "exercise-start"):
                found.headings[options["label"]] = (page, exercise_heading(argument))
            elif token.type == "math_block_label" or (name == "math" and "label" in options):
                count += 1
                found.equations[options.get("label", token.info)] = (page, count)
    toc = yaml.safe_load((root / "_toc.yml").read_text())
    chapters = [toc, *(chapter for part in toc["parts"] for chapter in part["chapters"])]
    for entry in (entry for chapter in chapters for entry in (chapter, *chapter.get("sections", []))):
        page = Path(entry.get("file") or entry["root"]).with_suffix(".md")
        found.titles[page] = entry.get("title", "front page")
    return found


@cache
def references(root: Path = ROOT) -> BibliographyData:
    """The book's bibliography."""
    return parse_file(root / "book" / "references.bib")


def reference_list(keys: list[str], root: Path = ROOT) -> str:
    """The works with these keys as a Markdown list."""
    style = find_plugin("pybtex.style.formatting", "plain")()
    backend = find_plugin("pybtex.backends", "markdown")()
    entries = style.format_bibliography(references(root), keys)
    return "\n".join("- " + entry.text.render(backend).replace("\n", " ") for entry in entries)


def cite(page: Page, keys: str, *, in_text: bool) -> str:
    """Author (year) in a sentence, or (author, year)."""
    works = []
    for key in map(str.strip, keys.split(",")):
        entry = references(page.root).entries[key]
        names = [" ".join(person.last_names).strip("{}") for person in entry.persons["author"]]
        names = [f"{names[0]} et al."] if len(names) > 2 else [" and ".join(names)]
        works.append((names[0], entry.fields.get("year")))
        if key not in page.cited:
            page.cited.append(key)
    if in_text:
        return ", ".join(f"{names} ({year})" if year else names for names, year in works)
    return "(" + "; ".join(f"{names}, {year}" if year else names for names, year in works) + ")"


def link(page: Page, words: str, target: str) -> str:
    """A link to another notebook or to a heading; words alone where there is nothing to open."""
    found = labels(page.root)
    file, _, label = target.partition("#")
    if label:
        at, heading = found.headings[label]
        words = words or heading
    else:
        # paths may climb: ../rerun.md
        at, heading = (page.root / page.path.parent / file).resolve().relative_to(page.root.resolve()), ""
        words = words or found.titles[at]
    # Jupyter's anchor of a heading is its text with dashes
    place = "#" + quote(heading.replace(" ", "-")) if heading else ""
    if at == page.path:
        return f"[{words}]({place or notebooks.reference(at).name})"
    if at not in notebooks.pages(page.root):
        return f"{words} (page *{found.titles[at]}*)"
    return f"[{words}]({notebooks.reference(at).name}{place})"


def role(page: Page, name: str, body: str) -> str:
    """An inline role without its markup. Raises ValueError for a name that is not known here."""
    titled = re.fullmatch(r"(.*?)\s*<(.+)>", body, re.DOTALL)
    words, target = titled.groups() if titled else ("", body)
    if name == "math":
        return f"${body}$"
    if name in ("cite", "cite:p", "cite:t"):
        return cite(page, body, in_text=name == "cite:t")
    if name == "eq":
        at, number = labels(page.root).equations[body]
        return f"({number})" if at == page.path else f"({number}) of {link(page, '', at.name)}"
    if name in ("ref", "numref"):
        return link(page, words, f"#{target}")
    if name == "doc":
        return link(page, words, f"{target}.md")
    if name == "glue:text":
        key, _, form = body.partition(":")
        value = page.glued.get(key)
        return f"({SEE})" if value is None else format(float(value), form) if form else value
    raise ValueError(f"{page.path}: no plain form of the role {{{name}}}; write one in {Path(__file__).name}")


def inline(page: Page, text: str) -> str:
    """Text between blocks without roles, and with links that lead to notebooks."""

    def plain(found: re.Match[str]) -> str:
        if found["role"]:
            return role(page, found["role"], found["body"])
        return found[0] if found["code"] else link(page, found["words"], found["target"])

    return INLINE.sub(plain, text)


def mathematics(body: str, number: int | None) -> str:
    """A displayed equation, numbered by hand: Jupyter counts per cell."""
    tag = f" \\tag{{{number}}}" if number else ""
    return f"$$\n{body.strip()}{tag}\n$$"


def box(title: str, body: str) -> str:
    """An admonition as a block quote. Mathematics stays on a line, or the quote's marks would get into it."""
    body = re.sub(r"(\$\$?)(.+?)\1", lambda found: found[0].replace("\n", " "), body, flags=re.DOTALL)
    return textwrap.indent(f"**{title}**\n\n{body}", "> ", lambda line: True).replace("> \n", ">\n")


def block(page: Page, token: Token) -> list[Piece] | None:
    """A block without its markup; None for one that is plain already. Raises ValueError for an unknown directive."""
    equations = labels(page.root).equations
    if token.type == "math_block_label":
        return [Piece("text", mathematics(token.content, equations[token.info][1]))]
    if token.type in ("myst_target", "myst_line_comment"):
        return []
    if (found := directive(token)) is None:
        return None
    name, argument, options, body = found
    if name == "math":
        return [Piece("text", mathematics(body, equations.get(options.get("label", ""), (0, None))[1]))]
    if name in ("exercise", "exercise-start"):
        start = Piece("exercise", exercise_heading(argument))
        return [start, *pieces(page, body), Piece("end")] if name == "exercise" else [start]
    if name in ("solution", "solution-start"):
        start = Piece("solution", "Solution of " + labels(page.root).headings[argument][1].split(":")[0])
        return [start, *pieces(page, body), Piece("end")] if name == "solution" else [start]
    if name in ("exercise-end", "solution-end"):
        return [Piece("end")]
    if name in ("admonition", "dropdown", *BOXES):
        title, body = (name.capitalize(), f"{argument}\n{body}") if name in BOXES else (argument, body)
        return [Piece("text", box(inline(page, title), "\n\n".join(piece.text for piece in pieces(page, body))))]
    if name in ("figure", "image", "nb-exec-table"):
        return [Piece("text", f"*{options.get('alt') or inline(page, body) or 'Table of pages'} ({SEE})*")]
    if name == "bibliography":
        return [Piece("text", reference_list(list(references(page.root).entries), page.root))]
    raise ValueError(f"{page.path}: no plain form of the directive {{{name}}}; write one in {Path(__file__).name}")


def code_behind(text: str) -> str:
    """The sources that a paragraph names after "Code:", folded; empty without."""
    _, found, names = text.partition("Code:")
    shown = []
    for name in re.findall(rf"`({sources.NAME.pattern})`", names) if found else []:
        path, lines = sources.lines_of(name[0])
        summary = f"<summary><code>{name[0]}</code>, {path.as_posix()}</summary>"
        shown.append(f"<details>{summary}\n\n```python\n{lines}\n```\n\n</details>")
    return "\n\n".join(shown)


def pieces(page: Page, text: str) -> Iterator[Piece]:
    """The plain parts of a MyST text, in order."""
    lines, at = text.split("\n"), 0

    def between(end: int) -> Iterator[Piece]:
        plain = inline(page, "\n".join(lines[at:end])).strip("\n")
        if plain:
            yield Piece("text", plain)

    for token in parser(page.root).parse(text):
        if token.map is None or token.map[0] < at:
            continue
        start, end = token.map
        if token.type == "paragraph_open":
            if token.level == 0 and (code := code_behind("\n".join(lines[start:end]))):
                yield from between(end)
                yield Piece("text", code)
                at = end
            continue
        if token.type not in ("fence", "colon_fence", "code_block", "math_block_label") and "myst" not in token.type:
            continue
        found = block(page, token)
        yield from between(start)
        margin = lines[start][: len(lines[start]) - len(lines[start].lstrip())] if token.level else ""
        if found is None:
            is_stub = token.info == "python" and token.content.rstrip().endswith("...")
            yield Piece("stub", token.content) if is_stub else Piece("text", "\n".join(lines[start:end]))
        for piece in found or []:
            yield Piece(piece.kind, textwrap.indent(piece.text, margin))
        at = end
    yield from between(len(lines))
