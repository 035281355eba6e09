"""A map of a run's images to look into: `book/_static/explorer.js` draws what is packed here.

One map a stage of the run: three principal components of its vectors, colours by the class that an image's cluster
stands for, a cross where the image is of another class, the image itself, and its nearest neighbours.
"""

import base64
import html
import io
import json
from dataclasses import dataclass, replace
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from sklearn.decomposition import PCA
from sklearn.neighbors import NearestNeighbors

from reprolib.report import charts
from reprolib.report.figures import PALETTE10, PALETTE20
from reprolib.report.pictures import COLUMNS, Pictured, sheet

NEIGHBOURS, MOST = 5, 2000  # of an image; images on a map
FINE = 65535  # steps of a coordinate


@dataclass(frozen=True)
class Explorer:
    """What the page holds: `data` for the script, and a still picture where no script runs; shows itself as HTML."""

    data: dict[str, Any]
    still: bytes  # PNG

    def _repr_html_(self) -> str:
        data = json.dumps(self.data, ensure_ascii=False, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")
        title = html.escape(self.data["title"], quote=True)
        picture = base64.b64encode(self.still).decode()
        return (
            f'<figure class="explorer" aria-label="{title}"><img alt="{title}: one map of points a stage" '
            f'src="data:image/png;base64,{picture}"><script type="application/json">{data}</script></figure>'
        )

    def __repr__(self) -> str:
        stages = "; ".join(stage["name"] for stage in self.data["stages"])
        return f"{self.data['title']}: {len(self.data['numbers']):,} images, {stages}"


def explorer(pictured: Pictured) -> Explorer:
    """Pack those images of a result that can be shown and have vectors in the record; ValueError as `Pictured`.

    Of more than MOST, these are evenly spaced. Neighbours are found among them in the record's vectors (m, d), not on
    the map. Each stage has its own components, turned by signs alone to resemble the next stage's.
    """
    found, stages, panels, after = pictured.stages(), [], {}, None
    at = np.intersect1d(found[0][1], pictured.shown)
    m = min(len(at), MOST)
    at = at[np.arange(m) * len(at) // m]  # (m,)
    truth = pictured.y[at]
    for name, numbers, vectors, clusters in reversed(found):
        classes = _classes(pictured, numbers, clusters)
        kept = np.isin(numbers, at)
        vectors, clusters = vectors[kept], clusters[kept]
        xyz, share = _components(vectors)
        xyz *= 1 if after is None else np.where((xyz * after).sum(0) < 0, -1, 1)
        after = xyz
        k = min(NEIGHBOURS, m - 1)
        near = NearestNeighbors(n_neighbors=k).fit(vectors).kneighbors(return_distance=False)  # (m, k)
        ids, compact = np.unique(clusters, return_inverse=True)
        stands = [classes[c] for c in ids.tolist()]
        fine = (0.5 + 0.5 * xyz / (np.linalg.norm(xyz, axis=1).max() or 1.0)) * FINE
        arrays = {"xyz": fine.round(), "clusters": compact, "near": near}
        about = {"name": name, "share": share, "ids": ids.tolist(), "stands": stands}
        stages.insert(0, about | {key: pack(array) for key, array in arrays.items()})
        if name in (found[0][0], found[-1][0]):
            panels = {name: (xyz[:, :2], np.array(stands)[compact])} | panels
    about = {"title": str(pictured), "neighbours": k, "names": pictured.names, "truth": pack(truth)}
    about |= {"palette": PALETTE10 if len(pictured.names) <= 10 else PALETTE20, "numbers": at.tolist()}
    figure, stream = charts.maps(panels, str(pictured), size=(8, 4)), io.BytesIO()
    figure.savefig(stream, format="png", dpi=60)
    plt.close(figure)
    return Explorer(about | {"images": _images(pictured, at), "stages": stages}, stream.getvalue())


def pack(array: np.ndarray) -> str:
    """Whole numbers 0..65535 of any shape, row by row, as base64 of little-endian uint16."""
    return base64.b64encode(array.astype("<u2").tobytes()).decode()


def _classes(pictured: Pictured, numbers: np.ndarray, clusters: np.ndarray) -> dict[int, int]:
    """The class that a cluster of a stage stands for: its match if the stage is a result, else its most frequent."""
    for result in pictured.entry["metrics"]:
        if np.array_equal(pictured.arrays[result][numbers], clusters):
            return replace(pictured, result=result).classes
    return {c: int(np.bincount(pictured.y[numbers][clusters == c]).argmax()) for c in np.unique(clusters).tolist()}


def _components(vectors: np.ndarray) -> tuple[np.ndarray, float | None]:
    """Three principal components (m, 3) of vectors (m, d), and their share of the variance, None for d <= 3."""
    pca, xyz = PCA(min(3, *vectors.shape), svd_solver="full"), np.zeros((len(vectors), 3))
    with np.errstate(invalid="ignore"):  # a collapsed embedding has no variance to share
        xyz[:, : pca.n_components] = pca.fit_transform(vectors)
    total = vectors.var(0).sum() or 1.0
    return xyz, round(float(xyz.var(0).sum() / total), 3) if vectors.shape[1] > 3 else None


def _images(pictured: Pictured, at: np.ndarray) -> dict[str, Any]:
    """Where the script finds the images: a sheet of the book's, or one within the page, and their places on it."""
    h, w = pictured.pixels.shape[1:3]
    about = {"columns": COLUMNS, "width": w, "height": h, "ink": pictured.ink}
    places = np.searchsorted(pictured.shown, at)
    if pictured.images is None:
        return about | {"file": f"thumbs/{pictured.stored['dataset']}.png", "places": pack(places)}
    stream = io.BytesIO()
    sheet(pictured.pixels[places]).save(stream, "PNG", optimize=True)
    uri = f"data:image/png;base64,{base64.b64encode(stream.getvalue()).decode()}"
    return about | {"file": uri, "places": pack(np.arange(len(at)))}
