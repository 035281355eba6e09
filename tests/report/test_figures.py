"""A figure on a page: its caption, and words for a reader who cannot see it."""

import base64
import html
import io
import re

import matplotlib
import matplotlib.pyplot as plt
import pytest

from reprolib.report import charts, figures

matplotlib.use("Agg")
LINE = [0, 1], [0.25, 0.5]


@pytest.fixture
def shown(monkeypatch):
    found = []
    monkeypatch.setattr("IPython.display.display", found.append)
    with plt.rc_context():
        figures.style()
        yield found
        plt.close("all")


def test_the_words_name_panels_axes_and_what_is_drawn(shown):
    figure = charts.curves({"USPS": {"seed 0": [LINE]}, "ORL": {"seed 0": [LINE], "seed 1": [LINE]}}, "epoch", "ACC")
    figure.suptitle("By seed")
    figure.axes[0].set(xlim=(0, 1), ylim=(0, 1))
    figure.axes[1].text(0, 0, "best\nepoch")
    figure.colorbar(figure.axes[1].scatter(*LINE, c=[0, 1]), label="colour")
    words = figures.described(figure)
    assert words.startswith("By seed. Panels: USPS; ORL. Across: epoch, 0 to 1; ")
    for part in ("Up: ACC, 0 to 1.", "Shown: seed 0; seed 1", "Text: best epoch"):
        assert part in words
    plt.figure()
    plt.subplot(121).set_axis_off()
    assert figures.described(plt.gcf()) == "A figure of 1 pictures."


def test_a_figure_is_shown_once_with_caption_and_words(shown):
    figure, axes = plt.subplots(figsize=(4, 2))
    axes.set(title='a < "b"')
    figures.show("It falls & rises")
    figures.show("Given", alt="A line", figure=charts.missing("it"))
    first, second = shown
    assert plt.get_fignums() == []
    text = first._repr_html_()
    alt = html.unescape(re.search(r'alt="([^"]*)"', text)[1])
    assert alt == first.alt == 'Panels: a < "b".'
    assert "<figcaption>It falls &amp; rises</figcaption>" in text
    png = base64.b64decode(re.search(r"base64,([^\"]*)", text)[1])
    assert png == first.png and plt.imread(io.BytesIO(png)).shape[1] == pytest.approx(800, abs=60)
    assert first.width == pytest.approx(4 * figures.WIDTH, abs=30) and f"width: {first.width}px" in text
    assert repr(second) == "Given\nA line"
