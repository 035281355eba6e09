"""A monitor that scores each stage of a run and keeps what the figure of its stages needs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.decomposition import PCA

from reprolib import metrics
from reprolib.training.checkpoint import load_checkpoint, save_checkpoint

POINTS = 2000
COMPONENTS = 3  # paper 002, Figure 1


class StageLog:
    """Score the clusters of every stage that a method reports; pass it as `monitor`.

    labels: true classes int (n,), read before the fit, or None (then only counts are kept); path:
    file that survives a kill together with the method's checkpoint; figure: also keep the first
    three principal components of the representation, for at most 2,000 images evenly spaced. After
    the fit: `rows`, one dict a stage (period, n_clusters, metrics); `arrays`, for the record:
    `points` (indices), `pca_<period>` float16 (m, 3), `clusters_<period>` (m,).
    """

    def __init__(
        self, labels: np.ndarray | None, *, path: Path | None = None, figure: bool = False
    ) -> None:
        self.labels, self.path, self.figure = labels, path, figure
        self.rows: list[dict[str, Any]] = []
        self.arrays: dict[str, np.ndarray] = {}
        if path is not None and path.exists():
            tensors, self.rows = load_checkpoint(path)
            self.arrays = {name: tensor.numpy() for name, tensor in tensors.items()}

    def __call__(self, stage: Any) -> None:
        row = {"period": stage.period, "n_clusters": stage.n_clusters} | self._more(stage)
        if self.labels is not None:
            row |= metrics.summary(self.labels, stage.labels)
        # a run killed between two files reports a stage again
        self.rows = [r for r in self.rows if r["period"] != stage.period] + [row]
        if self.figure:
            self._keep_points(stage)
        if self.path is not None:
            tensors = {name: torch.from_numpy(array) for name, array in self.arrays.items()}
            save_checkpoint(self.path, tensors, self.rows)

    def _more(self, stage: Any) -> dict[str, Any]:
        """What a kind of method adds to a stage's row, before it is written."""
        return {}

    def _keep_points(self, stage: Any) -> None:
        n = len(stage.labels)
        m = min(n, POINTS)
        points = np.arange(m) * n // m  # (m,)
        dimensions = min(COMPONENTS, *stage.embedding.shape)
        plane = PCA(dimensions, svd_solver="covariance_eigh").fit(stage.embedding)
        self.arrays["points"] = points.astype(np.int32)
        self.arrays[f"pca_{stage.period}"] = plane.transform(stage.embedding[points]).astype(
            np.float16
        )
        self.arrays[f"clusters_{stage.period}"] = stage.labels[points].astype(np.int32)

    def timed(self, history: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """Return the rows with `seconds` of CNN training since the stage before, and its last loss.

        history: the method's, one dict an epoch with period, loss and seconds.
        """
        timed = []
        for row in self.rows:
            epochs = [e for e in history if e["period"] == row["period"] - 1]
            seconds = round(sum(e["seconds"] for e in epochs), 3)
            loss = round(epochs[-1]["loss"], 6) if epochs else None
            timed.append({**row, "seconds": seconds, "loss": loss})
        return timed
