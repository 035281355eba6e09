"""Images of a clustering: a sheet of every cluster, the confusion of classes, the mistakes a method is surest of.

For the record of any method. Where the data set is not given, the thumbnails stored with the book are shown: up to
2,000 of its images, evenly spaced (`python -m tools.thumbs` writes them). Counts are always those of all images.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from PIL import Image

from reprolib import metrics
from reprolib.data.catalogue import TABLE
from reprolib.data.images import Images
from reprolib.experiments.records import check_version, load_arrays
from reprolib.files import BOOK
from reprolib.report.figures import PALETTE10

THUMBS = BOOK / "_static" / "thumbs"
COLUMNS = 40  # images beside each other on a stored sheet
INK = ("mnist", "usps", "digits")  # bright strokes on black, shown as ink on paper
WRONG, WIDTH = PALETTE10[5], 6.8
# What latent vectors of a record belong to: a result, and when they were taken
LATENT = {"u_pretrain": ("ae", "pretrained"), "u_warm-up": ("ae", "after the warm-up")}
LATENT |= {"u_phase 1": ("u", "after phase 1"), "u_phase 2": ("q", "after phase 2")}
LATENT |= {"u_adversarial": ("labels", "logits of the classifier")}
LATENT |= {"u_pretext": ("kmeans", "SimCLR"), "u_self-labelling": ("profeat", "after the last round")}


def sheet(pixels: np.ndarray) -> Image.Image:
    """Images uint8 (m, h, w) or (m, h, w, 3) row by row on one picture, COLUMNS wide; what is left over is black."""
    m, h, w, *colours = pixels.shape
    grid = np.zeros((-(-m // COLUMNS) * COLUMNS, h, w, *colours), np.uint8)
    grid[:m] = pixels
    return Image.fromarray(grid.reshape(-1, COLUMNS, h, w, *colours).swapaxes(1, 2).reshape(-1, COLUMNS * w, *colours))


def manifest() -> dict[str, dict[str, Any]]:
    """The stored sheets by the hash of their data: `dataset`, `images`, `of`, `whole` (numbers), `shape`, `terms`."""
    return {about["data_sha256"]: about for about in json.loads((THUMBS / "manifest.json").read_text())}


def thumbnails(about: Mapping[str, Any]) -> np.ndarray:
    """Cut the stored sheet of an entry of `manifest` into its images: uint8 (m, h, w)."""
    h, w = about["shape"]
    grid = np.asarray(Image.open(THUMBS / f"{about['dataset']}.png")).reshape(-1, h, COLUMNS, w)
    return grid.swapaxes(1, 2).reshape(-1, h, w)[: about["images"]]


@dataclass
class Pictured:
    """One result of a record and the images that can be shown.

    entry: a record; result: one of its results, by default the last; images: its data set, if at hand. ValueError for
    a record without classes, for another data set, and, when images are needed, where none are given or stored.
    """

    entry: Mapping[str, Any]
    result: str = ""
    images: Images | None = None
    arrays: dict[str, np.ndarray] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self.arrays = load_arrays(self.entry)
        if "y" not in self.arrays:
            raise ValueError(f"{self.entry['assignment']} holds no classes, so no image is right or wrong.")
        self.result = self.result or list(self.entry["metrics"])[-1]
        self.labels, self.y = (self.arrays[key].astype(int) for key in (self.result, "y"))  # (n,), (n,)
        if self.images is not None:
            check_version(self.entry, self.images)

    def __str__(self) -> str:
        result = f" ({self.result})" if len(self.entry["metrics"]) > 1 else ""
        return f"{self.entry['method']}{result} on {self.entry['dataset']['name']}, seed {self.entry['random_state']}"

    @cached_property
    def stored(self) -> dict[str, Any]:
        """The entry of `manifest` for the data set."""
        about, known = self.entry["dataset"], manifest()
        if about["sha256"] not in known:
            raise ValueError(f"the book stores no thumbnails of {about['name']!r}: pass images=load(...).")
        return known[about["sha256"]]

    @cached_property
    def shown(self) -> np.ndarray:
        """Numbers (m,) of the images that can be shown, ascending."""
        if self.images is not None:
            return np.arange(len(self.y))
        return np.arange(self.stored["images"]) * self.stored["of"] // self.stored["images"]

    @cached_property
    def pixels(self) -> np.ndarray:
        """Those images, uint8 (m, h, w) or (m, h, w, 3)."""
        if self.images is None:
            return thumbnails(self.stored)
        pixels = np.moveaxis(self.images.pixels, 1, -1)
        return pixels[..., 0] if pixels.shape[-1] == 1 else pixels

    @cached_property
    def names(self) -> list[str]:
        """Names of the classes by their number, the number where none is known."""
        sets = (about for name, about in TABLE.items() if self.entry["dataset"]["name"].startswith(name))
        known = next((about.classes for about in sets if about.classes), ())
        return [*known] or [str(c) for c in range(self.y.max() + 1)]

    @property
    def ink(self) -> bool:
        """Whether black and white are exchanged, so that the images are dark on paper."""
        return self.entry["dataset"]["name"].split("-")[0] in INK

    @cached_property
    def classes(self) -> dict[int, int]:
        """The class of each cluster, one to one as ACC matches them, in the order of the classes.

        A cluster that gets no class, or one of which it has no image, has -1; these come last, the largest first.
        """
        sizes = np.bincount(self.labels)
        found = dict.fromkeys(np.flatnonzero(sizes).tolist(), -1)
        for c, of in metrics.match(self.y, self.labels).items():
            found[c] = of if (self.y[self.labels == c] == of).any() else -1
        return dict(sorted(found.items(), key=lambda pair: (pair[1] < 0, pair[1], -sizes[pair[0]])))

    @cached_property
    def taken(self) -> np.ndarray:
        """The class (n,) of each image's cluster, or -1."""
        return np.array([self.classes[c] for c in self.labels.tolist()])

    def stages(self) -> list[tuple[str, np.ndarray, np.ndarray, np.ndarray]]:
        """The way to the result, as (name, numbers of images (m,), vectors (m, d), clusters (m,)).

        JULE keeps three principal components a period, autoencoders the latent vectors after each phase. Of other
        methods there are the pixels of the images shown, with the result's clusters.
        """
        found, at = [], self.arrays.get("points")
        counts = {row.get("period"): row.get("n_clusters") for row in self.entry["history"]}
        for key, vectors in self.arrays.items():
            if key.startswith("pca_"):
                period = int(key[4:])
                name = f"{counts[period]:,} clusters{f', period {period}' if period else ' of pixels'}"
                found.append((name, at, vectors.astype(float), self.arrays[f"clusters_{period}"]))
            elif key in LATENT:
                result, name = LATENT[key]
                found.append((name, at, vectors.astype(float), self.arrays[result][at]))
        if found:
            return found
        return [("pixels", self.shown, self.pixels.reshape(len(self.pixels), -1) / 255.0, self.labels[self.shown])]

    def mistakes(self, n: int = 20) -> tuple[str, np.ndarray]:
        """Numbers (<= n,) of images in the cluster of another class, those first of which the method is surest.

        Surest by the largest q where the result is q; else, and among equals, by the distance to the mean of their
        cluster, in the last stage, or the last with the result's clusters. The first value says by which.
        """
        stages = self.stages()
        same = [stage for stage in stages if np.array_equal(stage[3], self.labels[stage[1]])]
        name, numbers, vectors, _ = (same or stages)[-1]
        means = {c: vectors[self.labels[numbers] == c].mean(0) for c in self.labels[numbers]}
        far = np.linalg.norm(vectors - [means[c] for c in self.labels[numbers]], axis=1)
        by, sure = f"nearest to the mean of their cluster, {name}", np.zeros(len(numbers))
        if self.result == "q" and "q_max" in self.arrays:
            by, sure = "largest q", self.arrays["q_max"][numbers].astype(float)
        seen = np.isin(numbers, self.shown) & (self.taken != self.y)[numbers]
        return by, numbers[seen][np.lexsort((far[seen], -sure[seen]))][:n]

    def says(self) -> str:
        """What one sees, in one to three sentences."""
        wrong, n = self.taken != self.y, len(self.y)
        text = f"{n - wrong.sum():,} of {n:,} images ({1 - wrong.mean():.1%}) lie in the cluster of their class."
        pairs, counts = np.unique(np.stack([self.y, self.taken])[:, wrong], axis=1, return_counts=True)
        most = []
        for i in np.argsort(-counts, kind="stable")[:2]:
            of, instead = pairs[:, i]
            where = f"the cluster of {self.names[instead]}" if instead >= 0 else "a cluster without class"
            most.append(f"{counts[i]:,} of class {self.names[of]} in {where}")
        text += f" The most frequent mistakes: {', '.join(most)}." if most else ""
        lost = [self.names[c] for c in sorted({*self.y.tolist()} - {*self.classes.values()})]
        return text + (f" No cluster is left for class {', '.join(lost)}." if lost else "")


def contact_sheet(pictured: Pictured, n_right: int = 8, n_wrong: int = 5) -> Figure:
    """A row a cluster: images of its class, then those of another one, framed and with a cross and their class.

    Neither are chosen by a score: they are spread evenly over the cluster's images that can be shown.
    """
    step = 1.0 if max(map(len, pictured.names)) < 4 else 1.4  # a word wants more room than a number
    figure, axes = _canvas(-3.5, n_right + 0.5 + n_wrong * step, 1.25 * len(pictured.classes) - 0.4)
    for row, (c, of) in enumerate(pictured.classes.items()):
        inside = pictured.labels == c
        right = inside & (pictured.y == of)
        mostly = pictured.names[np.bincount(pictured.y[inside]).argmax()]
        title = f"cluster of {pictured.names[of]}" if of >= 0 else f"without class,\nmostly {mostly}"
        told = f"{title}\n{inside.sum():,} image{'s' if inside.sum() > 1 else ''}, {right.sum() / inside.sum():.0%}"
        axes.text(-0.2, 1.25 * row, told, ha="right", va="center", fontsize=9)
        for start, part, most in ((0, right, n_right), (n_right + 0.5, inside & ~right, n_wrong)):
            places = np.flatnonzero(part[pictured.shown])
            few = min(most, len(places))
            for column, place in enumerate(places[np.arange(few) * len(places) // max(few, 1)]):
                mark = f"✗ {pictured.names[pictured.y[pictured.shown[place]]]}" if start else ""
                _tile(axes, pictured, place, start + column * (step if start else 1.0), 1.25 * row, mark)
    axes.text(0, -0.6, "✓ images of the cluster's class", fontsize=10)
    axes.text(n_right + 0.5, -0.6, "✗ of another class", fontsize=10, color=WRONG)
    return figure


def mistakes(pictured: Pictured, n: int = 20, columns: int = 10) -> Figure:
    """The mistakes that the method is surest of, each with its class and the one of its cluster."""
    by, numbers = pictured.mistakes(n)
    figure, axes = _canvas(-0.15, 1.25 * columns - 0.2, 1.6 * max(-(-len(numbers) // columns), 1) - 0.45)
    for i, number in enumerate(numbers):
        of = pictured.taken[number]
        mark = f"✗ {pictured.names[pictured.y[number]]}\nnot {pictured.names[of] if of >= 0 else 'any'}"
        place = np.searchsorted(pictured.shown, number)
        _tile(axes, pictured, place, 1.25 * (i % columns), 1.6 * (i // columns), mark)
    title = f"surest: {by}" if len(numbers) else "no mistake among the images that can be shown"
    axes.text(0, -0.6, title, fontsize=10)
    return figure


def confusion(pictured: Pictured) -> Figure:
    """Images of each class (rows) in each cluster (columns, in the order of their classes), as counts and shares."""
    ids, clusters = np.unique(pictured.y), np.unique(pictured.labels)
    table = metrics.confusion(pictured.y, pictured.labels)  # (n_classes, n_clusters)
    table = table[:, np.searchsorted(clusters, [*pictured.classes])]
    right = ids[:, None] == np.array([*pictured.classes.values()])  # (n_classes, n_clusters)
    share = table / table.sum(1, keepdims=True)
    colours = np.where(right[..., None], plt.get_cmap("Blues")(0.75 * share), plt.get_cmap("Oranges")(0.7 * share**0.5))
    colours[table == 0] = 1
    size = 0.42 if len(ids) <= 20 else 0.25  # inches
    figure, axes = plt.subplots(figsize=(size * table.shape[1] + 1.2, size * len(ids) + 1.0))
    axes.imshow(colours, aspect="auto")
    for row, column in zip(*np.nonzero(table), strict=True):
        look = {"weight": "bold", "color": "white"} if right[row, column] and share[row, column] > 0.5 else {}
        axes.text(column, row, table[row, column], ha="center", va="center", fontsize=18 * size, **look)
    axes.set_xticks(range(table.shape[1]), [pictured.names[of] if of >= 0 else "–" for of in pictured.classes.values()])
    axes.set_yticks(range(len(ids)), [pictured.names[c] for c in ids])
    axes.tick_params(axis="x", rotation=90 * (max(map(len, pictured.names)) > 3))
    axes.set(xlabel="class of the cluster (–: none)", ylabel="class of the images")
    axes.grid(False)
    return figure


def _canvas(left: float, right: float, bottom: float) -> tuple[Figure, Axes]:
    """Axes for tiles, one unit a tile: from `left` to `right`, and from -1 down to `bottom`, WIDTH inches wide."""
    figure = plt.figure(figsize=(WIDTH, WIDTH * (bottom + 1.0) / (right - left)), layout="none")
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(left, right), ylim=(bottom, -1.0), aspect="equal")
    axes.set_axis_off()
    return figure, axes


def _tile(axes: Axes, pictured: Pictured, place: int, x: float, y: float, mark: str) -> None:
    """Draw a shown image from x on and around y, 0.9 wide; one with a mark is framed, the mark below."""
    box, cmap = (x, x + 0.9, y + 0.45, y - 0.45), "gray_r" if pictured.ink else "gray"
    axes.imshow(pictured.pixels[place], cmap=cmap, vmin=0, vmax=255, extent=box, interpolation="nearest")
    if mark:
        axes.add_patch(Rectangle((x, y - 0.45), 0.9, 0.9, fill=False, edgecolor=WRONG, linewidth=1.5))
        axes.text(
            x + 0.45,
            y + 0.48,
            mark,
            ha="center",
            va="top",
            fontsize=8 if max(map(len, mark.split("\n"))) < 8 else 6.5,
            color=WRONG,
        )
