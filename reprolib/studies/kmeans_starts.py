"""How far the k-means start decides what DCSS finds.

k-means keeps the best of 20 starts by its inertia. Here each single start, from one pretrained autoencoder, is
followed to the end of both phases, with the same batches and the same first MNet: what differs is the start.
"""

from typing import Any, ClassVar

import numpy as np
import torch
from sklearn.cluster import KMeans

from reprolib.methods.autoencoder import Pairs, Pretrain, latent_vectors
from reprolib.methods.base import Count
from reprolib.methods.dcss import DCSS, PerCluster
from reprolib.training.trainer import Run, Stage, as_numpy, under


class OneStart:
    """What both phases tell of the start that they follow; no reports, which would count epochs over all starts."""

    report_every = 0

    def __init__(self, run: Run, epochs: int, start: int) -> None:
        super().__init__(run, epochs)
        self.start_number = start
        self.result = f"{self.result}-{start:02}"

    def row(self) -> dict[str, Any]:
        """With the start, from 1, and the inertia of its k-means."""
        return super().row() | {"start": self.start_number, "inertia": self.run.numbers["inertia"]}


class FromOneStart(OneStart, PerCluster):
    """Phase 1 from the pretrained network and one start of k-means."""

    def build(self) -> None:
        if "mnet" in self.run.modules:  # that of the start before
            del self.run.modules["mnet"]
        super().build()

    @torch.no_grad()
    def begin(self) -> None:
        """Go back to the end of the pretraining, where the first start has kept it."""
        run, weights = self.run, self.run.modules["network"].state_dict()
        if not under(run.tensors, "pretrained."):
            run.tensors |= {f"pretrained.{name}": value.clone() for name, value in weights.items()}
            run.tensors["order"] = run.generator.get_state()
        for name, value in under(run.tensors, "pretrained.").items():
            weights[name].copy_(value)
        run.generator.set_state(run.tensors["order"].cpu())
        means = KMeans(self.model.n_clusters, n_init=1, random_state=self.start_number)
        found = means.fit(as_numpy(latent_vectors(run)))
        self.centers.copy_(torch.from_numpy(found.cluster_centers_))
        run.tensors[f"labels.ae-{self.start_number:02}"] = torch.from_numpy(found.labels_.astype(np.int32))
        run.numbers["inertia"] = float(found.inertia_)


class PairsOfOneStart(OneStart, Pairs):
    """Phase 2 after it."""


class DCSSByStart(DCSS):
    """DCSS from `n_starts` single starts of k-means, one after the other: results "ae-01", "u-01", "q-01" and on."""

    n_starts: Count = 7
    behaviours: ClassVar = ("DCSS/paper",)

    def stages(self, run: Run, X: Any = None) -> list[Stage]:
        """One pretraining, then both phases of every start."""
        stages = [Pretrain(run, self.pretrain_epochs)]
        for start in range(1, self.n_starts + 1):
            stages += [FromOneStart(run, self.phase1_epochs, start), PairsOfOneStart(run, self.phase2_epochs, start)]
        return stages

    def finish(self, run: Run) -> dict[str, np.ndarray]:
        """The labels of k-means and of both phases, by start."""
        super().finish(run)
        labels = under(run.tensors, "labels.")
        # a restored run has its tensors in another order
        return {name: as_numpy(labels[name]) for name in sorted(labels, key=lambda name: name.split("-")[::-1])}
