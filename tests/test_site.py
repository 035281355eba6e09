"""The built book: links, outside resources, typeset mathematics, console, narrow screens.

Skips when the book is not built, or when no browser is installed. REPROLIB_REQUIRE_BROWSER=1
(`make site-test`, .ci/run) turns every such skip into a failure.
"""

import json
import os
import re
import shutil
from urllib.parse import urlsplit

import nbformat
import numpy as np
import pytest
from made_pictures import numbered, write

from reprolib.report.explorer import explorer
from reprolib.report.pictures import Pictured
from tools import browser, notebooks, site

HTML = notebooks.ROOT / "_build" / "html"
REQUIRED = os.environ.get("REPROLIB_REQUIRE_BROWSER") == "1"
NARROW = 390  # pixels: a telephone held upright


def unavailable(reason: str) -> None:
    if REQUIRED:
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture(scope="module")
def built() -> site.Site:
    index = HTML / "index.html"
    if not index.is_file():
        unavailable("the book is not built; run `make book` first")
    newest = max((notebooks.ROOT / "book").rglob("*.md"), key=lambda path: path.stat().st_mtime)
    if newest.stat().st_mtime > index.stat().st_mtime:
        unavailable(f"the built book is older than {newest.name}; run `make book` first")
    return site.Site(HTML)


@pytest.fixture(scope="module")
def program() -> str:
    found = browser.find_browser()
    if found is None:
        unavailable(f"none of {', '.join(browser.NAMES)} is installed")
    return found


@pytest.fixture(scope="module")
def reports(built, program) -> list[browser.PageReport]:
    return browser.visit(HTML, built.names(), program=program)


def test_no_broken_internal_link(built):
    assert built.names()
    assert built.broken_links() == []


def test_every_notebook_page_offers_its_executed_notebook(built):
    for page in notebooks.pages():
        html = HTML / page.with_suffix(".html")
        links = [link for link in built.pages[html.resolve()].links if link.endswith(".ipynb")]
        assert len(links) == 1, page
        download = nbformat.read((html.parent / links[0]).resolve(), as_version=4)
        assert any(cell.get("execution_count") for cell in download.cells), page


def test_every_picture_has_words(built):
    named = {path.name: page.unnamed for path, page in built.pages.items() if page.unnamed}
    assert named == {}


def test_a_picture_without_words_is_found(tmp_path):
    hashed = f"_images/{'0f' * 32}.png"
    pictures = f'<img src="a.png" alt="{hashed}"><img src="b.png"><img src="c.png" alt="c.png"><img src="d" alt="Up.">'
    (page,) = (p for p in write_site(tmp_path / "site", pictures).pages.values() if p.unnamed)
    assert page.unnamed == ["a.png", "b.png", "c.png"]


def test_code_stands_beside_what_names_it(built):
    named = re.compile(r"Code:\s`(reprolib[\w.]+)`")
    for page in notebooks.pages():
        anchors = built.pages[(HTML / page.with_suffix(".html")).resolve()].anchors
        for name in named.findall((notebooks.ROOT / page).read_text()):
            assert f"source-{name.replace('.', '-').lower()}" in anchors, f"{page} shows no lines of {name}"


def test_nothing_is_loaded_from_outside(built):
    assert built.outside_resources() == []


def test_no_request_leaves_the_machine(reports):
    asked = {(report.path, url) for report in reports for url in report.requests}
    assert len(asked) > len(reports)
    schemes = {"data", "blob", "about"}
    hosts = {urlsplit(url).hostname for _, url in asked if urlsplit(url).scheme not in schemes}
    assert hosts == {"127.0.0.1"}


def test_no_console_error(reports):
    assert {report.path: report.console_errors for report in reports if report.console_errors} == {}


def test_mathematics_is_typeset(reports):
    assert sum(report.probe["formulas"] for report in reports) > 0
    for report in reports:
        assert report.probe["untypeset"] == [], report.path
        assert report.probe["math_errors"] == [], report.path


def test_tables_can_be_scrolled_by_keyboard(reports):
    assert sum(report.probe["tables"] for report in reports) > 0
    for report in reports:
        assert report.probe["unreachable_tables"] == 0, report.path


def test_pictures_load(reports):
    for report in reports:
        assert report.probe["broken_images"] == [], report.path


def test_every_map_to_look_into_has_come_to_life(reports):
    for report in reports:
        assert report.probe["idle_maps"] == 0, report.path


def test_one_search_field(reports):
    pages = [report for report in reports if report.path.startswith("book/")]
    assert pages
    for report in pages:
        assert report.probe["search_fields"] == 1, report.path


def test_no_page_scrolls_sideways_on_a_narrow_screen(built, program):
    for report in browser.visit(HTML, built.names(), program=program, width=NARROW):
        assert report.probe["overflow"] <= 0, report.path


def write_site(folder, body: str) -> site.Site:
    folder.mkdir(exist_ok=True)
    (folder / "other.html").write_text('<h1 id="here">x</h1>')
    (folder / "index.html").write_text(f"<body>{body}</body>")
    return site.Site(folder)


def test_checker_passes_a_sound_page(tmp_path):
    body = '<a href="other.html#here">a</a><a href="https://example.com/x">b</a><img src="data:,">'
    sound = write_site(tmp_path / "site", body)
    assert sound.broken_links() == []
    assert sound.outside_resources() == []


@pytest.mark.parametrize(
    "body",
    [
        '<a href="no.html">x</a>',
        '<a href="other.html#gone">x</a>',
        '<a href="#gone">x</a>',
        '<meta http-equiv="refresh" content="0; url=no.html">',
    ],
)
def test_checker_finds_a_broken_link(tmp_path, body):
    assert len(write_site(tmp_path / "site", body).broken_links()) == 1


@pytest.mark.parametrize(
    "body",
    [
        '<script src="https://example.com/a.js"></script>',
        '<link rel="stylesheet" href="//example.com/a.css">',
        "<style>@import 'https://example.com/a.css';</style>",
        '<p style="background: url(http://example.com/a.png)">x</p>',
    ],
)
def test_checker_finds_an_outside_resource(tmp_path, body):
    assert len(write_site(tmp_path / "site", body).outside_resources()) == 1


def test_browser_reports_errors_and_wide_pages(tmp_path, program):
    body = (
        '<div style="width: 3000px">wide</div><span class="math">x</span>'
        '<script>console.error("first"); missing_function();</script><img src="gone.png">'
    )
    write_site(tmp_path / "site", body)
    (report,) = browser.visit(tmp_path / "site", ["index.html"], program=program, width=NARROW)
    said = "\n".join(report.console_errors)
    assert "first" in said and "missing_function" in said and "404" in said
    assert report.probe["overflow"] > 0
    assert report.probe["untypeset"] == ["x"]
    assert len(report.probe["broken_images"]) == 1


#: A reader with keyboard and mouse; what the map then shows comes back as one line of the console. `browser.visit`
#: waits for the promise of MathJax, so this takes its place
READER = """
let map, canvas, figure;
const told = {}, key = (name) => canvas.dispatchEvent(new KeyboardEvent("keydown", { key: name, cancelable: true }));
const at = (i) => {
  const box = canvas.getBoundingClientRect(), [x, y] = map.pixel(i);
  return { clientX: box.left + x, clientY: box.top + y, pointerType: "mouse" };
};
const wait = (ms) => new Promise((done) => setTimeout(done, ms));
const read = async () => {
  await new Promise((done) => addEventListener("load", done));
  figure = document.querySelector("figure.explorer"), map = figure.explorer, canvas = map.canvas;
  await wait(700);
  told.first = map.current;
  told.live = figure.querySelector("[aria-live]").textContent;
  for (let k = 0; k < 9; k++) key("ArrowLeft");
  told.walk = [map.current];
  for (let k = 0; k < 5; k++) { key("ArrowRight"); told.walk.push(map.current); }
  told.text = figure.querySelector(".explorer-text").innerText;
  canvas.dispatchEvent(new PointerEvent("pointermove", at(0)));
  told.held = map.current;
  key("Escape");
  canvas.dispatchEvent(new PointerEvent("pointermove", at(0)));
  told.hovered = map.current;
  canvas.dispatchEvent(new MouseEvent("click", at(2)));
  told.clicked = map.current;
  key("Enter");
  told.neighbour = map.current;
  told.buttons = figure.querySelectorAll(".explorer-near button").length;
  figure.querySelector(".explorer-near button:last-child").click();
  told.button = map.current;
  key("PageUp");
  told.stage = [map.slider.value, map.stageName.textContent];
  key("PageUp");
  told.stage.push(map.slider.value);
  await wait(700);
  map.only.click();
  told.mistakes = [0, 1, 2, 3, 4].filter((i) => map.seen(i));
  document.documentElement.dataset.theme = "dark";
  await wait(50);
  const pixels = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
  told.drawn = pixels.some((value) => value > 0);
  told.image = map.picture.style.backgroundImage.slice(0, 20);
  told.stills = figure.querySelectorAll("img").length;
  console.error(JSON.stringify(told));
};
window.MathJax = { startup: { promise: read() } };
"""


def test_explorer_follows_keys_and_mouse(tmp_path, program):
    places = np.array([3.0, 0.0, 10.0, 3.4, 0.3])
    vectors = np.stack([places, np.zeros(5), np.zeros(5)], axis=1)
    images = numbered([0, 0, 1, 1, 0])
    labels = np.array([0, 0, 1, 0, 0])
    arrays = {
        "points": np.arange(5),
        "pca_0": vectors,
        "clusters_0": np.arange(5),
        "pca_1": vectors,
        "clusters_1": labels,
    }
    history = [{"period": 0, "n_clusters": 5}, {"period": 1, "n_clusters": 2}]
    packed = explorer(Pictured(write(tmp_path, images, {"SF": labels}, arrays, history), images=images))
    (tmp_path / "site").mkdir()
    for name in ("explorer.js", "explorer.css"):
        shutil.copy(notebooks.ROOT / "book" / "_static" / name, tmp_path / "site")
    style, script = (
        '<meta charset="utf-8"><link rel="stylesheet" href="explorer.css">',
        '<script src="explorer.js"></script>',
    )
    write_site(tmp_path / "site", f"{style}{packed._repr_html_()}{script}<script>{READER}</script>")
    (report,) = browser.visit(tmp_path / "site", ["index.html"], program=program, width=NARROW)
    assert report.probe["idle_maps"] == 0
    (line,) = [line for line in report.console_errors if "favicon" not in line]
    told, order = json.loads(line), np.argsort(places).tolist()
    assert report.probe["overflow"] <= 0
    assert told["walk"] in ([*order, order[-1]], [*order[::-1], order[0]])
    assert told["first"] == 3 and "Image 3, class 1." in told["live"] and "wrong" in told["live"]
    end = told["walk"][-1]
    assert f"Image {end}" in told["text"] and ("✓" in told["text"]) == (end != 3)
    assert told["held"] == end and told["hovered"] == 0 and told["clicked"] == 2
    assert told["neighbour"] == 3 and told["buttons"] == 4 and told["button"] == 2
    assert told["stage"] == ["0", "5 clusters of pixels", "0"] and told["mistakes"] == []
    assert told["drawn"] and told["image"] == 'url("data:image/png;' and told["stills"] == 0
