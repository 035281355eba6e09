"""What a fit tells while it goes on, and a log that scores it and keeps what the figures need."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.decomposition import PCA

from reprolib import metrics
from reprolib.checks import pick_device
from reprolib.training.checkpoint import load_checkpoint, save_checkpoint

POINTS = 2000
COMPONENTS = 3  # paper 002, Figure 1
BLOCK_ROWS = 2048


@dataclass(frozen=True)
class Report:
    """What a monitor sees: copies, so that it cannot influence the run.

    stage: name of the stage that it ends or lies in; period: 0 is the start of clustering, then it counts
    epochs or merges; labels int32 (n,); embedding float32 (n, d); q float32 (n, n_clusters) the soft
    assignments, if any, and `similarity` the inner product from which on two rows of q are similar.
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

    def judged(self, labels: np.ndarray) -> dict[str, float]:
        """What the classes (n,) tell of this report beside the scores of its labels."""
        return {}

    def arrays(self, points: np.ndarray) -> dict[str, np.ndarray]:
        """What a figure needs of some points (m,): both spaces, and the largest q of all samples."""
        found = {f"u_{self.stage}": self.embedding[points]}
        if self.q is not None:
            found |= {"q_points": self.q[points], "q_max": self.q.max(1)}
        return {name: values.astype(np.float16) for name, values in found.items()}


class Merged(Report):
    """The report of a method that merges clusters: `n_clusters` falls with each period."""

    def row(self) -> dict[str, Any]:
        """Without a stage: the period is its name."""
        row = {"period": self.period, "n_clusters": self.n_clusters}
        return row | {"directions": round(directions(self.embedding), 3)}

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

    images: the `Images` of the fit; their labels are copied here, before it, and without labels only counts are kept;
    scored: which of them the scores count; path: file that survives a kill together with the method's checkpoint;
    figure: also keep the `arrays` of at most 2,000 `points`.
    """

    def __init__(
        self, images: Any, *, path: Path | None = None, figure: bool = False, scored: slice = slice(None)
    ) -> None:
        self.images, self.path, self.figure, self.scored = images, path, figure, scored
        self.labels = images.labels
        self.reports: list[dict[str, Any]] = []
        self.arrays: dict[str, np.ndarray] = {}
        if path is not None and path.exists():
            tensors, self.reports = load_checkpoint(path)
            self.arrays = {name: tensor.numpy() for name, tensor in tensors.items()}

    def __call__(self, report: Report) -> None:
        row = report.row()
        if self.labels is not None:
            row |= metrics.summary(self.labels[self.scored], report.labels[self.scored])
            row |= report.judged(self.labels)
        # a run killed between two files reports a stage again
        self.reports = [r for r in self.reports if r["period"] != report.period] + [row]
        if self.figure:
            n = len(report.labels)
            m = min(n, POINTS)
            points = np.arange(m) * n // m  # (m,)
            self.arrays |= {"points": points.astype(np.int32)} | report.arrays(points)
            if "q_points" in self.arrays and self.images.shape[1] == 1:
                # one gray image of each cluster with its q: paper 004, Figure 7
                q = self.arrays["q_points"]
                first = np.unique(q.argmax(1), return_index=True)[1]
                samples = self.images.pixels[points[first], 0]  # (clusters, h, w)
                self.arrays |= {"samples": samples, "samples_q": q[first]}
        if self.path is not None:
            tensors = {name: torch.from_numpy(array) for name, array in self.arrays.items()}
            save_checkpoint(self.path, tensors, self.reports)

    def rows(self, history: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """What the record of a fit holds, from the method's `history_`.

        A row for each epoch, with its losses and, where it was reported, its scores; for a method that merges
        one for each report, with the `seconds` of training since the one before and its last loss.
        """
        rows = []
        if any("period" in epoch for epoch in history):
            for row in self.reports:
                epochs = [epoch for epoch in history if epoch["period"] == row["period"] - 1]
                seconds = round(sum(epoch["seconds"] for epoch in epochs), 3)
                loss = round(epochs[-1]["loss"], 6) if epochs else None
                rows.append(row | {"seconds": seconds, "loss": loss})
            return rows
        scored = {row["period"]: row for row in self.reports}
        stages = [epoch["stage"] for epoch in history]
        clustering = {row["stage"] for row in self.reports if row["period"]}
        # period 0 is the last epoch before clustering; a method of one stage clusters from its first epoch on
        before = 0 if clustering.issuperset(stages[:1]) else stages.count(stages[0])
        for i, epoch in enumerate(history):
            row = {**epoch, **scored.get(i + 1 - before, {})}
            floats = {k: float(f"{v:.6g}") for k, v in row.items() if isinstance(v, float)}
            rows.append(row | floats)
        return rows


def directions(embedding: np.ndarray) -> float:
    """Effective number of directions of an embedding (n, d): (sum l)^2 / sum l^2 of its covariance's eigenvalues l.

    K equal clusters, each as far from every other, have K - 1.
    """
    centered = embedding - embedding.mean(0)
    gram = centered.T @ centered if len(embedding) > embedding.shape[1] else centered @ centered.T
    return float(np.trace(gram) ** 2 / np.square(gram).sum()) if gram.any() else 0.0


def seconds_by_stage(history: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Seconds of training in each stage, from a method's `history_`; reports are not counted."""
    found = Counter()
    for epoch in history:
        found[epoch["stage"]] += epoch["seconds"]
    return dict(found)


def isolated(q: np.ndarray, similarity: float) -> int:
    """Count rows of q (n, K) whose products with all others are at most `similarity` (paper 004, figure 13)."""
    count, rows = 0, torch.as_tensor(np.asarray(q, dtype=np.float32), device=pick_device())
    for start in range(0, len(rows), BLOCK_ROWS):
        products = rows[start : start + BLOCK_ROWS] @ rows.T  # (block, n)
        products[:, start:].fill_diagonal_(0.0)  # with itself
        count += (products.amax(1) <= similarity).sum()
    return int(count)
