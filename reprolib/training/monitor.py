"""What a fit tells while it goes on, and a log that scores it and keeps what the figures need."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.decomposition import PCA

from reprolib import metrics
from reprolib.training.checkpoint import load_checkpoint, save_checkpoint

POINTS = 2000
COMPONENTS = 3  # paper 002, Figure 1
BLOCK_ROWS = 2048
DIGITS = 6  # significant digits of losses


@dataclass(frozen=True)
class Report:
    """What a monitor sees: copies, so that it cannot influence the run.

    stage: name of the stage that it ends or lies in; period: 0 is the start of clustering, then it counts
    what the method counts, epochs or merges; labels int32 (n,); embedding float32 (n, d); q float32
    (n, n_clusters) the soft assignments, if there are any, and `similarity` the inner product of two rows
    of it from which on the samples are similar.
    """

    stage: str
    period: int
    labels: np.ndarray
    embedding: np.ndarray
    q: np.ndarray | None = None
    similarity: float = 0.8

    @property
    def n_clusters(self) -> int:
        """Number of clusters in use."""
        return len(np.unique(self.labels))

    def row(self) -> dict[str, Any]:
        """What a log says of this report beside the scores."""
        row = {"period": self.period, "n_clusters": self.n_clusters, "stage": self.stage}
        return row if self.q is None else row | {"isolated": isolated(self.q, self.similarity)}

    def arrays(self, points: np.ndarray) -> dict[str, np.ndarray]:
        """What a figure needs of some points (m,): both spaces, and the largest q of all samples."""
        found = {f"u_{self.stage}": self.embedding[points].astype(np.float16)}
        if self.q is not None:
            found["q_points"] = self.q[points].astype(np.float16)
            found["q_max"] = self.q.max(1).astype(np.float16)
        return found


class Merged(Report):
    """The report of a method that merges clusters: `n_clusters` falls with each period."""

    def row(self) -> dict[str, Any]:
        """Without a stage: the period is its name."""
        return {"period": self.period, "n_clusters": self.n_clusters}

    def arrays(self, points: np.ndarray) -> dict[str, np.ndarray]:
        """The first three principal components (paper 002, Figure 1), and the clusters."""
        dimensions = min(COMPONENTS, *self.embedding.shape)
        plane = PCA(dimensions, svd_solver="covariance_eigh").fit(self.embedding)
        return {
            f"pca_{self.period}": plane.transform(self.embedding[points]).astype(np.float16),
            f"clusters_{self.period}": self.labels[points].astype(np.int32),
        }


class Log:
    """Score the clusters of every report; pass it as `monitor`.

    images: the `Images` of the fit; their labels are copied here, before it, and without labels only counts
    are kept; path: file that survives a kill together with the method's checkpoint; figure: also keep the
    `arrays` of the reports for at most 2,000 `points` evenly spaced. After the fit: `rows`, what goes into
    the record, and `arrays`.
    """

    def __init__(self, images: Any, *, path: Path | None = None, figure: bool = False) -> None:
        self.images, self.path, self.figure = images, path, figure
        self.labels = images.labels
        self.reports: list[dict[str, Any]] = []
        self.arrays: dict[str, np.ndarray] = {}
        if path is not None and path.exists():
            tensors, self.reports = load_checkpoint(path)
            self.arrays = {name: tensor.numpy() for name, tensor in tensors.items()}

    def __call__(self, report: Report) -> None:
        row = report.row()
        if self.labels is not None:
            row |= metrics.summary(self.labels, report.labels)
        # a run killed between two files reports a stage again
        self.reports = [r for r in self.reports if r["period"] != report.period] + [row]
        if self.figure:
            n = len(report.labels)
            m = min(n, POINTS)
            points = np.arange(m) * n // m  # (m,)
            self.arrays |= {"points": points.astype(np.int32)} | report.arrays(points)
            self._keep_samples()
        if self.path is not None:
            tensors = {name: torch.from_numpy(array) for name, array in self.arrays.items()}
            save_checkpoint(self.path, tensors, self.reports)

    def rows(self, history: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """What the record of a fit holds, from the method's `history_`.

        One row for each epoch, with its losses and, where it was reported, its scores; for a method that
        merges one row for each report, with the `seconds` of training since the one before and its last loss.
        """
        if any("period" in epoch for epoch in history):
            return [row | _since(row["period"], history) for row in self.reports]
        scored = {row["period"]: row for row in self.reports}
        # period 0 is the last epoch before clustering
        before = sum(epoch["stage"] == history[0]["stage"] for epoch in history)
        joined = [dict(e) | scored.get(i + 1 - before, {}) for i, e in enumerate(history)]
        return [
            {k: float(f"{v:.{DIGITS}g}") if isinstance(v, float) else v for k, v in row.items()}
            for row in joined
        ]

    def _keep_samples(self) -> None:
        """One gray image of each cluster with its q, for paper 004's Figure 7."""
        if "q_points" not in self.arrays or self.images.shape[1] != 1:
            return
        q = self.arrays["q_points"]
        _, first = np.unique(q.argmax(1), return_index=True)
        chosen = self.images.pixels[self.arrays["points"][first], 0]  # (m, h, w)
        self.arrays |= {"samples": chosen, "samples_q": q[first]}


def seconds_by_stage(history: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Seconds of training in each stage, from a method's `history_`; reports are not counted."""
    found: dict[str, float] = {}
    for epoch in history:
        found[epoch["stage"]] = found.get(epoch["stage"], 0.0) + epoch["seconds"]
    return found


def isolated(q: np.ndarray, similarity: float) -> int:
    """Count the rows of q (n, K) whose inner product with every other row is at most `similarity`.

    Paper 004, figure 13. Blocks of rows, O(n^2 K) time.
    """
    n, count = len(q), 0
    q = np.ascontiguousarray(q, dtype=np.float32)
    for start in range(0, n, BLOCK_ROWS):
        products = q[start : start + BLOCK_ROWS] @ q.T  # (block, n)
        own = np.arange(len(products))
        products[own, start + own] = 0.0
        count += int((products.max(1) <= similarity).sum())
    return count


def _since(period: int, history: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Seconds and the last loss of the training that led to the report of a period."""
    epochs = [epoch for epoch in history if epoch["period"] == period - 1]
    seconds = round(sum(epoch["seconds"] for epoch in epochs), 3)
    return {"seconds": seconds, "loss": round(epochs[-1]["loss"], 6) if epochs else None}
