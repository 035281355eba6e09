"""One look for every figure of the book: palettes, style, captions; small helpers that draw, never compute."""

import base64
import html
import io
from dataclasses import dataclass
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

# Okabe and Ito's colours first, which colour-blind readers can tell apart, then two more
PALETTE10 = tuple("#0072B2 #E69F00 #009E73 #CC79A7 #56B4E9 #D55E00 #F0E442 #000000 #882255 #999999".split())
# the ten, then a lighter or darker neighbour of each
PALETTE20 = PALETTE10 + tuple("#88CCEE #F5C710 #44AA99 #E8B4D2 #332288 #F4A582 #DDCC77 #555555 #AA4499 #CCCCCC".split())
MARKERS = ("o", "s", "^", "D", "v")
WIDTH, DPI = 105, 200  # pixels of the page, and of the file, for an inch of a figure


def style() -> None:
    """Set matplotlib's defaults for the book: opaque light face, readable text, colour-blind-safe cycle."""
    plt.style.use(Path(__file__).with_name("book.mplstyle"))
    plt.rcParams["axes.prop_cycle"] = plt.cycler(color=PALETTE10)


def scatter(axes: Axes, points: np.ndarray, labels: np.ndarray, *, size: float = 6.0) -> None:
    """Draw points (n, 2) coloured by labels int (n,), without ticks; more than 20 clusters share colours."""
    palette = PALETTE10 if labels.max() < 10 else PALETTE20
    colors = [palette[c % len(palette)] for c in labels]
    axes.scatter(points[:, 0], points[:, 1], s=size, c=colors, linewidths=0)
    axes.set(xticks=[], yticks=[])


@dataclass(frozen=True)
class Picture:
    """A drawn figure with its caption below, and `alt`, what it shows, for a reader who cannot see it."""

    png: bytes
    width: int  # on the page, in pixels
    caption: str
    alt: str

    def _repr_html_(self) -> str:
        data = base64.b64encode(self.png).decode()
        image = f'<img src="data:image/png;base64,{data}" alt="{html.escape(self.alt)}" style="width: {self.width}px">'
        caption = html.escape(self.caption, quote=False)
        return f'<figure class="book-figure">{image}<figcaption>{caption}</figcaption></figure>'

    def __repr__(self) -> str:
        return f"{self.caption}\n{self.alt}"


def show(caption: str, alt: str = "", figure: Figure | None = None) -> None:
    """Display the current figure of a notebook, or the one given, with a caption, and close it.

    caption: what there is to see, the finding first; alt: by default `described`.
    """
    from IPython.display import display  # tables and charts do without a notebook

    figure = figure or plt.gcf()
    with io.BytesIO() as file:
        figure.savefig(file, format="png", bbox_inches="tight", dpi=DPI)
        png = file.getvalue()
    width = int.from_bytes(png[16:20]) * WIDTH / DPI  # of the header
    display(Picture(png, round(width), caption, alt or described(figure)))
    plt.close(figure)


def described(figure: Figure) -> str:
    """Say in words what a figure is made of: titles, axes with their ranges, what the legends name, texts."""
    panels = [axes for axes in figure.axes if axes.get_label() != "<colorbar>"]
    found: dict[str, dict[str, None]] = {}  # sorts of text, each text once
    for axes in panels:
        told = [("Panels", axes.get_title())]
        if axes.axison:
            for name, side in (("Across", "x"), ("Up", "y")):
                label, (low, high) = getattr(axes, f"get_{side}label")(), getattr(axes, f"get_{side}lim")()
                told += [(name, f"{label}, {low:.3g} to {high:.3g}" if label else "")]
                if isinstance(getattr(axes, f"{side}axis").get_major_formatter(), FuncFormatter):  # names, not numbers
                    told += [("Places", text.get_text()) for text in getattr(axes, f"get_{side}ticklabels")()]
        told += [("Shown", label) for label in axes.get_legend_handles_labels()[1]]
        told += [("Text", text.get_text()) for text in axes.texts]
        for name, text in told:
            if text := " ".join(text.split()):
                found.setdefault(name, {})[text] = None
    parts = [figure.get_suptitle()] if figure.get_suptitle() else []
    parts += [f"{name}: {'; '.join(texts)}" for name, texts in found.items()]
    return ". ".join(parts or [f"A figure of {len(panels)} pictures"]) + "."
