"""Data sets made when they are loaded: from others, as catalogue.yml says, or from random numbers.

Several in a row and an imbalanced draw (paper 004, sections 4.1 and 4.8); classes cut to a size, the artifact, faces by
gender and the eight Gaussians (paper 003, section IV).
"""

import re
from collections.abc import Sequence

import numpy as np

from reprolib.checks import unknown_name
from reprolib.data.images import Images

SEED = 0
ARTIFACT_SEED = 1  # another, so that an imbalanced draw of the artifact's classes does not follow its own numbers
PAPER_RATES = (0.1, 0.2, 0.3, 0.4, 0.5)  # paper 004, section 4.8
ARTIFACT = (0.1, 0.5, 0.9)  # of the range of a pixel; paper 003, section IV-D
STEP = 100  # sizes of cut classes are multiples of it; paper 003, section IV-F
# Paper 003, section IV-B, in its order. They lie on the circle of radius sqrt(2), four of them up to rounding
CENTERS = ((1.414, 0), (-1.414, 0), (0, 1.414), (0, -1.414), (1, 1), (-1, 1), (-1, -1), (1, -1))
DEVIATION = 0.014
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
    sizes = np.unique(images.labels, return_counts=True)[1]
    if sizes.min() < each:
        raise ValueError(f"{images.name!r} has a class of {sizes.min()} images; {each} of each are asked for.")
    return _first(images, np.full(len(sizes), each), f"the first {each} of each class")


def capped_classes(images: Images, most: int) -> Images:
    """Keep of every class the first images, in hundreds and at most `most`, in the given order.

    Paper 003, section IV-F: sizes are rounded down to hundreds, then the largest classes are cut again and again to the
    next smaller size. From USPS this gives the five sets of its Figure 5: 1,500, 1,200, 900, 800 and 700 at most. Which
    images the paper kept is lost with its supplement. ValueError for a class that would be left empty.
    """
    sizes = np.minimum(np.unique(images.labels, return_counts=True)[1] // STEP * STEP, most)
    if sizes.min() == 0:
        raise ValueError(f"{images.name!r} has a class of fewer than {STEP} images, which would be left empty.")
    return _first(images, sizes, f"the first of each class, in hundreds, at most {most}")


def _first(images: Images, sizes: np.ndarray, told: str) -> Images:
    """Keep the first sizes[c] images of each class c in the given order, and record it."""
    classes = np.unique(images.labels, return_inverse=True)[1]
    kept = np.concatenate([np.flatnonzero(classes == c)[:size] for c, size in enumerate(sizes)])
    few = images.take(np.sort(kept))
    few.transforms["balance"] = f"{few.n} of {images.n}, {told}"
    return few


def uniformity(labels: np.ndarray) -> float:
    """Uniformity index of classes (paper 003, equation 9): entropy of their shares over its largest value, in [0, 1].

    1 for classes of one size, 0 for a single class. labels: integers (n,).

    >>> round(uniformity(np.array([0, 0, 0, 1])), 3)
    0.811
    """
    shares = np.unique(labels, return_counts=True)[1] / len(labels)  # (K,)
    return float(-(shares * np.log(shares)).sum() / np.log(len(shares))) if len(shares) > 1 else 0.0


def artifact(images: Images) -> Images:
    """Set the first pixel of each image to .1, .5 or .9 of its range, drawn evenly; classes 0, 1, 2 are these values.

    In uint8 they are 26, 128 and 230. Number, order and all other pixels stay: for scores against the digits, the
    labels of the data set it is made from belong to the same images. The i-th of n uniform numbers of
    `numpy.random.RandomState(1)` decides on image i. Source: Artifact-MNIST of paper 003, section IV-D; the paper's own
    draw is not published.
    """
    labels = (len(ARTIFACT) * np.random.RandomState(ARTIFACT_SEED).random_sample(images.n)).astype(np.int64)
    values = np.rint(255 * np.array(ARTIFACT)).astype(np.uint8)
    pixels = images.pixels.copy()
    pixels[:, :, 0, 0] = values[labels][:, None]  # (n, c)
    told = f"first pixel {', '.join(map(str, values))} by class, seed {ARTIFACT_SEED}"
    return Images(pixels, labels, name=images.name, transforms=images.transforms | {"artifact": told})


def two_classes(images: Images, second: Sequence[int]) -> Images:
    """Join classes, counted from 1 in the order of their labels, to two: 1 for those of `second`, 0 for the others.

    Pixels and order stay. ValueError for a number that is no class.
    """
    values, classes = np.unique(images.labels, return_inverse=True)  # (K,), (n,)
    if wrong := sorted(set(second) - set(range(1, len(values) + 1))):
        raise ValueError(f"{images.name!r} has {len(values)} classes, counted from 1; got {wrong[0]}.")
    told = {"classes": f"1 for {', '.join(map(str, second))} of {len(values)}, counted from 1, else 0"}
    labels = np.isin(classes + 1, second).astype(np.int64)
    return Images(images.pixels, labels, name=images.name, transforms=images.transforms | told)


def eight_gaussians(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Draw points float32 (n, 2) and labels int64 (n,) from eight equally likely Gaussians in the plane.

    Class c is round CENTERS[c] with standard deviation DEVIATION: neighbours are 77 of it apart. Another seed gives
    fresh points. Source: paper 003, section IV-B, whose training and test points never end.
    """
    random = np.random.RandomState(seed)
    labels = (len(CENTERS) * random.random_sample(n)).astype(np.int64)
    points = np.array(CENTERS)[labels] + DEVIATION * random.standard_normal((n, 2))
    return points.astype(np.float32), labels


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
