"""Data sets made from others when they are loaded: several in a row, equal classes, or an imbalanced draw of one.

Source: paper 004, sections 4.1 (2MNIST) and 4.8 (imbalanced subsets).
"""

import re
from collections.abc import Sequence

import numpy as np

from reprolib.checks import unknown_name
from reprolib.data.images import Images

SEED = 0
PAPER_RATES = (0.1, 0.2, 0.3, 0.4, 0.5)  # paper 004, section 4.8
RATE = re.compile(r"(.+)-r([+-]?(?:\d+\.?\d*|\.\d+))")


def split_rate(name: str) -> tuple[str, str]:
    """Split NAME-rNUMBER into ("NAME", "NUMBER"), checked by `check_rate` only; any other name into (name, "")."""
    match = RATE.fullmatch(name)
    return (match[1], match[2]) if match else (name, "")


def check_rate(source: str, rate: str) -> float:
    """Return the number r of "SOURCE-rRATE"; ValueError with valid names unless 0 < r <= 1, written as 0.1."""
    value = float(rate)
    if 0 < value <= 1 and rate == f"{value:g}":  # one name for a data set: neither .1 nor 0.10
        return value
    reason = unknown_name("data set", f"{source}-r{rate}", [f"{source}-r{r:g}" for r in (*PAPER_RATES, 1)])
    raise ValueError(f"{reason} Any r above 0 and up to 1 will do, written without trailing zeros.")


def join(sets: Sequence[Images], name: str) -> Images:
    """Put data sets (n_i, c, h, w) one after the other; each numbers its classes on from those before.

    Raises ValueError when the shapes (c, h, w) differ or labels are missing. Source: 2MNIST of paper 004, section 4.1.
    """
    if len({part.shape[1:] for part in sets}) != 1:
        shapes = ", ".join(f"{part.name} {part.shape[1:]}" for part in sets)
        raise ValueError(f"{name!r} needs images of one shape (c, h, w); got {shapes}.")
    labels, n_classes = [], 0
    for part in sets:
        if part.labels is None:
            raise ValueError(f"{name!r} needs the labels of {part.name!r}, which has none.")
        labels.append(part.labels + n_classes)
        n_classes += int(part.labels.max()) + 1
    return Images(np.concatenate([s.pixels for s in sets]), np.concatenate(labels), name=name)


def equal_classes(images: Images, each: int) -> Images:
    """Keep the first `each` images of every class, in the given order; ValueError for a class with fewer."""
    values, classes, sizes = np.unique(images.labels, return_inverse=True, return_counts=True)
    if sizes.min() < each:
        raise ValueError(f"{images.name!r} has a class of {sizes.min()} images; {each} of each are asked for.")
    kept = np.concatenate([np.flatnonzero(classes == c)[:each] for c in range(len(values))])
    few = images.take(np.sort(kept))
    few.transforms["balance"] = f"{few.n} of {images.n}, the first {each} of each class"
    return few


def retention(n_classes: int, r: float) -> np.ndarray:
    """Probabilities float64 (n_classes,) that an image is kept: r + (1 - r) c / (K - 1) for class c.

    r for the first class, 1 for the last (paper 004, section 4.8). ValueError for fewer than two.
    """
    if n_classes < 2:
        raise ValueError(f"an imbalanced draw needs at least two classes; got {n_classes}.")
    # from the end: the last class is kept with exactly 1
    return 1.0 - (1.0 - r) * np.arange(n_classes)[::-1] / (n_classes - 1)


def imbalanced(images: Images, r: float) -> Images:
    """Keep each image with the probability `retention` of its class, in the given order.

    Image i is kept when the i-th of n uniform numbers of `numpy.random.RandomState(0)` is below its probability: the
    same images every time, and a draw with a smaller r is a part of one with a larger r. Classes count from 0 in the
    order of their labels. Raises ValueError when there are no labels, fewer than two classes, or a class would be left
    empty. Source: paper 004, section 4.8; the paper's own draw is not published.
    """
    if images.labels is None:
        raise ValueError(f"an imbalanced draw needs labels; {images.name!r} has none.")
    values, classes = np.unique(images.labels, return_inverse=True)  # (K,), (n,)
    # NumPy promises that RandomState's numbers never change, and promises it of no other generator
    draws = np.random.RandomState(SEED).random_sample(images.n)  # (n,)
    kept = draws < retention(len(values), r)[classes]  # (n,)
    empty = np.setdiff1d(values, images.labels[kept])
    if empty.size:
        raise ValueError(f"r = {r:g} leaves no image of class {empty[0]} of {images.name!r}; take a larger r.")
    few = images.take(np.flatnonzero(kept))
    few.transforms["imbalance"] = f"{few.n} of {images.n}, r = {r:g}, seed {SEED}"
    return few
