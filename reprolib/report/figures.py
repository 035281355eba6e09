"""One look for every figure of the book: palettes, style, and small helpers that draw, never compute."""

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes

# Okabe and Ito's colours first, which colour-blind readers can tell apart, then two more
PALETTE10 = tuple("#0072B2 #E69F00 #009E73 #CC79A7 #56B4E9 #D55E00 #F0E442 #000000 #882255 #999999".split())
# the ten, then a lighter or darker neighbour of each
PALETTE20 = PALETTE10 + tuple("#88CCEE #F5C710 #44AA99 #E8B4D2 #332288 #F4A582 #DDCC77 #555555 #AA4499 #CCCCCC".split())
MARKERS = ("o", "s", "^", "D", "v")


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
