"""What a page says stands elsewhere: a link that leads there, never words alone."""

import re

import pytest
import yaml

from tools import notebooks

BOOK = notebooks.ROOT / "book"
TEXTS = sorted([*BOOK.rglob("*.md"), *BOOK.glob("*/deviations.yml"), BOOK / "claims.yml"])
CODE = re.compile(r"^(`{3,}).*?^\1|`[^`\n]+`|<!--.*?-->", re.DOTALL | re.MULTILINE)
LINK = re.compile(r"\[([^\]]*)\]\(([^)\s]+)\)")
ROLE = re.compile(r"\{\w+(?::\w+)?\}`[^`]*`")
LABEL = re.compile(r"^\(([\w-]+)\)=|^:label: ([\w-]+)|\$\$ \(([\w-]+)\)$", re.MULTILINE)
NAMES = "|".join(sorted({path.stem for path in BOOK.rglob("*.md")} | {"front", "next", "last"}))
# words that send somewhere; `a page of its own` does not, and `This page` is here
POINTER = re.compile(rf"\b(?:{NAMES}) page\b|\bpages? (?:of|on) (?!their|its)|\bexercise \d|\bsee the\b", re.IGNORECASE)


def read(path):
    """The words of a page, or of the values of a YAML file."""
    text = path.read_text()
    if path.suffix == ".md":
        return text.split("---\n", 2)[-1]

    def values(node):
        parts = node.values() if isinstance(node, dict) else node if isinstance(node, list) else [str(node)]
        return "\n".join(map(values, parts)) if parts and not isinstance(node, str) else str(node)

    return values(yaml.safe_load(text))


def unlinked(text):
    """Pointers that are no link."""
    words = ROLE.sub("", LINK.sub("", CODE.sub("", text))).split()
    return POINTER.findall(" ".join(words))


def lost(text, path, labels):
    """Targets of links that do not exist, and exercises that a link names without leading to them."""
    found = []
    for words, target in LINK.findall(CODE.sub("", text)):
        page, _, label = target.partition("#")
        if target.startswith("http"):
            continue
        gone = page and not (path.parent / page).is_file() or label and label not in labels
        if gone or ("exercise" in words.lower().split() and not label.startswith("ex-")):
            found.append(f"[{words}]({target})")
    return found


@pytest.fixture(scope="module")
def labels():
    pages = (path.read_text() for path in BOOK.rglob("*.md"))
    return {name for page in pages for found in LABEL.findall(page) for name in found if name}


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: str(path.relative_to(BOOK)))
def test_what_stands_elsewhere_is_a_link_that_leads_there(path, labels):
    text = read(path)
    assert unlinked(text) == [] == lost(text, path, labels)


@pytest.mark.parametrize("path", sorted(BOOK.glob("*/deviations.yml")), ids=lambda path: path.parent.name)
def test_the_list_of_deviations_does_not_speak_of_the_page_it_is_shown_on(path):
    assert not re.search(r"\bthis page\b|\b(?:above|below)\b(?=[,.:;])", read(path))


def test_pointers_of_the_audit_are_found(labels, tmp_path):
    said = ["the method page shows the sizes", "Measured: the page of classification.", "exercise 2 derives it"]
    said += ["the results page makes its tables", "See the\ntable"]
    assert all(map(unlinked, said))
    here = ["[the method page](method.md) shows", "`the run page`", "**This page** runs", "have a page of\ntheir own"]
    assert not any(map(unlinked, here))
    (tmp_path / "method.md").touch()
    for text in ("[a](gone.md)", "[a](method.md#gone)", "[a](#gone)", "[an exercise](method.md)"):
        assert lost(text, tmp_path / "page.md", {"jule-readings", "ex-jule-merged-row"}), text
    for text in ("[a](method.md)", "[a](#jule-readings)", "[exercise](#ex-jule-merged-row)", "[a](https://a.b/c.md)"):
        assert not lost(text, tmp_path / "page.md", {"jule-readings", "ex-jule-merged-row"}), text
    assert {"jule-readings", "ex-jule-merged-row", "kernels-eq-distance"} <= labels
