"""A monitor of DCSS and the autoencoder methods: scores, and what the figures of paper 004 need."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from reprolib.methods.autoencoder import PRETRAIN
from reprolib.methods.mnet_stage import PHASE_1, PHASE_2
from reprolib.training.monitor import POINTS, StageLog

# results of a record by the stage that ends with them
RESULTS = {PRETRAIN: "ae", PHASE_1: "u", PHASE_2: "q"}
BLOCK_ROWS = 2048
DIGITS = 6  # significant digits of losses


class PhaseLog(StageLog):
    """Score the clusters that a method reports, and keep its spaces u and q; pass it as `monitor`.

    Arguments and `rows` as for `StageLog`, each row with the name of its stage; once there is an MNet
    also with `isolated`, the samples without a similar neighbour (paper 004, figure 13). With `figure`,
    `arrays` holds the latent vectors at the end of each stage, `u_<stage>` float16 (m, d), and the
    last assignments `q_points` float16 (m, K), for at most 2,000 `points` evenly spaced, and the largest
    entry of q of all samples, `q_max` float16 (n,).
    """

    similarity = 0.8  # zeta, from which on two samples are similar; that of paper 004, section 4.10

    def _more(self, stage: Any) -> dict[str, Any]:
        row = {"stage": stage.stage}
        if stage.q is not None:
            row["isolated"] = isolated(stage.q, self.similarity)
        return row

    def _keep_points(self, stage: Any) -> None:
        n = len(stage.labels)
        m = min(n, POINTS)
        points = np.arange(m) * n // m  # (m,)
        self.arrays["points"] = points.astype(np.int32)
        self.arrays[f"u_{stage.stage}"] = stage.embedding[points].astype(np.float16)
        if stage.q is not None:
            self.arrays["q_points"] = stage.q[points].astype(np.float16)
            self.arrays["q_max"] = stage.q.max(1).astype(np.float16)

    def epochs(self, history: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """One row for each epoch of a fit, its losses and, where it was reported, its scores.

        history: the method's `history_`. Period 0 is the last epoch of the pretraining.
        """
        scored = {row["period"]: row for row in self.rows}
        n_before = sum(entry["stage"] == PRETRAIN for entry in history)
        joined = [dict(e) | scored.get(i + 1 - n_before, {}) for i, e in enumerate(history)]
        return [
            {k: float(f"{v:.{DIGITS}g}") if isinstance(v, float) else v for k, v in row.items()}
            for row in joined
        ]


def seconds_by_stage(history: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Seconds of training in each stage, from a method's `history_`; reports are not counted."""
    found: dict[str, float] = {}
    for entry in history:
        found[entry["stage"]] = found.get(entry["stage"], 0.0) + entry["seconds"]
    return found


def samples(images: Any, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """One grey image of each cluster with its q, for figure 7: `samples` (m, h, w), `samples_q` (m, K).

    images: the `Images` of the run; arrays: of a `PhaseLog`. Empty without q and for colour images.
    """
    if "q_points" not in arrays or images.shape[1] != 1:
        return {}
    q = arrays["q_points"]
    _, first = np.unique(q.argmax(1), return_index=True)
    chosen = images.take(arrays["points"][first])
    return {"samples": chosen.pixels[:, 0], "samples_q": q[first]}


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
