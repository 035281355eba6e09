"""What might keep a good start, where the methods' own training loses it: see the pages on the graph start.

Not the papers': a target of DEC that does not even out the clusters, and pairs that the labels of the start tell.
"""

from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from reprolib.kernels.soft_assignment import student_t
from reprolib.methods.autoencoder import Pairs, latent_vectors
from reprolib.methods.dec import DEC, AEKMeans, Target
from reprolib.training.trainer import Run, Stage


class SharpTarget(Target):
    """DEC's target without its division by the clusters' frequencies, which draws them to one size."""

    @torch.no_grad()
    def begin_epoch(self) -> None:
        squared = student_t(latent_vectors(self.run), self.centers).square()
        self.hold("target", squared / squared.sum(1, keepdim=True))  # (n, K)


class DECSharp(DEC):
    """DEC whose target only sharpens: q^2, normalised by rows."""

    behaviours: ClassVar = ("DEC",)
    STAGE: ClassVar = SharpTarget


class PairsOfStart(Pairs):
    """Phase 2 whose pairs are told by the labels of the start in the first epochs, not by nearness to centers."""

    def begin_epoch(self) -> None:
        kept = self.run.tensors
        labels = kept.get("labels.gdl", kept["labels.ae"]).long().to(self.run.device)
        self.hold("told", F.one_hot(labels, self.model.n_clusters).float())  # (n, K)

    def memberships(self, latent: Tensor, batch: Tensor) -> Tensor:
        return self.told[batch]


class StartPairs(AEKMeans):
    """MNet on a pretrained autoencoder, its first pairs those of the clusters that the start has found."""

    behaviours: ClassVar = ("AEKMeans",)

    def stages(self, run: Run, X: Any = None) -> list[Stage]:
        """As of AE + k-means, with other pairs."""
        return [*super().stages(run, X)[:2], PairsOfStart(run, self.phase2_epochs)]
