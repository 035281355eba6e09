"""Static check of a built site: links and anchors resolve, nothing comes from outside."""

import re
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

#: (tag, attribute) pairs that the browser loads by itself
LOADED = {
    ("audio", "src"),
    ("embed", "src"),
    ("iframe", "src"),
    ("img", "src"),
    ("image", "href"),
    ("input", "src"),
    ("object", "data"),
    ("script", "src"),
    ("source", "src"),
    ("use", "href"),
    ("video", "src"),
}
#: <link rel=...> values that load nothing
POINTERS = {"alternate", "author", "canonical", "index", "license", "next", "prev", "search"}
#: What a builder writes as alt text by itself: a file's name, mostly a hash
FILE_NAME = re.compile(r"\S*[0-9a-f]{16,}\S*|\S*\.\w{3,4}")
CSS_ADDRESS = re.compile(r"""(?:url\(\s*|@import\s+)["']?([^"')\s;]+)""")


@dataclass
class Page:
    """Anchors and addresses of one HTML file, and its pictures without words for a reader who cannot see them."""

    anchors: set[str] = field(default_factory=set)
    links: list[str] = field(default_factory=list)
    loaded: list[str] = field(default_factory=list)
    unnamed: list[str] = field(default_factory=list)
    redirects: bool = False


class _Reader(HTMLParser):
    def __init__(self):
        super().__init__()
        self.page = Page()
        self.in_style = False

    def handle_starttag(self, tag, attrs):
        attributes = {name: value or "" for name, value in attrs}
        for name in ("id", "name"):
            if name in attributes and (name == "id" or tag == "a"):
                self.page.anchors.add(attributes[name])
        for name, value in attributes.items():
            if (tag, name) in LOADED:
                self.page.loaded.append(value)
        if "srcset" in attributes:
            candidates = attributes["srcset"].split(",")
            self.page.loaded += [candidate.split()[0] for candidate in candidates]
        if tag == "a" and "href" in attributes:
            self.page.links.append(attributes["href"])
        if tag == "img" and not says_something(attributes.get("alt", "")):
            self.page.unnamed.append(attributes.get("src", "")[:80])
        if tag == "link" and "href" in attributes:
            relations = set(attributes.get("rel", "").lower().split())
            target = self.page.links if relations <= POINTERS else self.page.loaded
            target.append(attributes["href"])
        if tag == "meta" and attributes.get("http-equiv", "").lower() == "refresh":
            self.page.redirects = True
            self.page.links.append(attributes["content"].partition("url=")[2].strip())
        self.page.loaded += CSS_ADDRESS.findall(attributes.get("style", ""))
        self.in_style = tag == "style"

    def handle_endtag(self, tag):
        self.in_style = False

    def handle_data(self, data):
        if self.in_style:
            self.page.loaded += CSS_ADDRESS.findall(data)


def read_page(path: Path) -> Page:
    """Parse one HTML file."""
    reader = _Reader()
    reader.feed(path.read_text(encoding="utf-8"))
    return reader.page


def says_something(alt: str) -> bool:
    """Whether an alt text is one: neither empty nor the name of a file."""
    return bool(alt.strip()) and not FILE_NAME.fullmatch(alt.strip())


def is_outside(address: str) -> bool:
    """Whether an address leaves the site: it has a host, or a scheme other than data."""
    parts = urlsplit(address)
    return bool(parts.netloc) or parts.scheme not in ("", "data")


class Site:
    """A built site in a folder; every problem is a line of text."""

    def __init__(self, folder: Path):
        self.folder = folder.resolve()
        found = sorted(self.folder.rglob("*.html"))
        # _static/ holds templates of the theme that are no pages
        readable = [path for path in found if path.relative_to(self.folder).parts[0][0] != "_"]
        self.pages = {path: read_page(path) for path in readable}

    def names(self) -> list[str]:
        """Paths relative to the site of all pages that stay where they are when opened."""
        shown = [path for path, page in self.pages.items() if not page.redirects]
        return [path.relative_to(self.folder).as_posix() for path in shown]

    def _problem(self, source: Path, address: str) -> str | None:
        parts = urlsplit(address)
        target = source
        if parts.path:
            start = self.folder if parts.path.startswith("/") else source.parent
            target = (start / unquote(parts.path).lstrip("/")).resolve()
            if target.is_dir():
                target /= "index.html"
        name = source.relative_to(self.folder)
        if not target.is_relative_to(self.folder) or not target.is_file():
            return f"{name}: {address} leads to no file"
        anchor = unquote(parts.fragment)
        if anchor and target in self.pages and anchor not in self.pages[target].anchors:
            return f"{name}: {address} has no such anchor"
        return None

    def broken_links(self) -> list[str]:
        """Internal links, scripts, styles and pictures that lead nowhere."""
        problems = set()
        for source, page in self.pages.items():
            for address in page.links + page.loaded:
                if address and not address.startswith("data:") and not is_outside(address):
                    problems.add(self._problem(source, address))
        return sorted(problems - {None})

    def outside_resources(self) -> list[str]:
        """What a page or a style sheet would load from another host."""
        problems = set()
        for source, page in self.pages.items():
            problems |= {(source, address) for address in page.loaded if is_outside(address)}
        for source in self.folder.rglob("*.css"):
            found = CSS_ADDRESS.findall(source.read_text(encoding="utf-8"))
            problems |= {(source, address) for address in found if is_outside(address)}
        return sorted(f"{path.relative_to(self.folder)}: {address}" for path, address in problems)
