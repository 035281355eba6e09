"""DCSS: an autoencoder with a loss for each cluster, then pairwise similarities (paper 004)."""

from typing import ClassVar, Literal

import torch
from torch import Tensor

from reprolib.kernels.soft_assignment import fuzzy_memberships
from reprolib.methods import autoencoder
from reprolib.methods.autoencoder import PHASE_1, FromStart, reconstruct, refresh_centers
from reprolib.methods.base import BatchSize, Count, Natural, Positive, Weight

MOMENTUM = 0.9  # of the released code's plain gradient steps
RELEASED = dict(optimizer="sgd", learning_rate=1e-6, memberships="each batch")
RELEASED |= dict(mnet_hidden=2, clip=0.01)


def phase_1_losses(
    inputs: Tensor, decoded: Tensor, latent: Tensor, centers: Tensor, weights: Tensor
) -> tuple[Tensor, Tensor]:
    """Reconstruction and centering loss of each run, (K,) and (K,): paper 004, equations 1b and 1c.

    inputs, decoded (b, ...); latent (b, d); centers (K, d); weights p^m (b, K). Sums over the batch.
    """
    error = (inputs - decoded).flatten(1).square().sum(1)  # (b,)
    distance = (latent[:, None] - centers).square().sum(2)  # (b, K)
    return error @ weights, (weights * distance).sum(0)


class PerCluster(FromStart):
    """Phase 1: K successive passes of a batch, each with the loss of one cluster, or one with their sum."""

    def optimizer(self) -> torch.optim.Optimizer:
        weights, rate = self.run.modules["network"].parameters(), self.model.learning_rate
        if self.model.optimizer == "adam":
            return self.run.adam(weights, lr=rate)
        return torch.optim.SGD(weights, lr=rate, momentum=MOMENTUM)

    def step(self, batch: Tensor) -> dict[str, Tensor]:
        inputs = self.run.batch(batch)
        model, centers = self.model, self.centers.detach()
        joint = model.passes == "joint"
        weights, sums = None, torch.zeros(2, device=inputs.device)
        for k in range(1 if joint else model.n_clusters):
            latent, decoded = reconstruct(self.run, inputs)
            if weights is None or model.memberships == "each run":
                weights = fuzzy_memberships(latent.detach(), centers, model.m) ** model.m  # (b, K)
            of = slice(None) if joint else slice(k, k + 1)
            parts = phase_1_losses(inputs, decoded, latent, centers[of], weights[:, of])
            reconstruction, centering = (part.sum() for part in parts)
            self.run.descend(PHASE_1, reconstruction + model.alpha * centering)
            sums += torch.stack([reconstruction, centering]).detach()
        # means over the passes: Figure 4
        reconstruction, centering = (sums / model.n_clusters).double()
        loss = reconstruction + model.alpha * centering
        return {"loss": loss, "reconstruction": reconstruction, "centering": centering}

    def end_epoch(self) -> None:
        if self.run.epoch % self.model.center_interval == 0:
            refresh_centers(self.run)


class DCSS(autoencoder.AutoencoderMethod):
    """Deep clustering with self-supervision using pairwise data similarities (paper 004).

    Phase 1 trains an autoencoder in K successive passes of a batch, each with the loss of one cluster (equations 1 to
    3); phase 2 trains MNet and the encoder by pairs (equations 4 and 5). `phase2_epochs=0` is DCSS_u, phase 1 alone.
    VARIANTS: "released" is what the authors' code does; "joint" takes K losses in one step, K times cheaper.
    """

    phase1_epochs: Natural = 200  # MaxIter_1
    phase2_epochs: Natural = 20  # MaxIter_2
    batch_size: BatchSize = 500
    alpha: Weight = 0.1  # weight of the centering loss
    center_interval: Count = 2  # T_1
    passes: Literal["successive", "joint"] = "successive"
    optimizer: Literal["adam", "sgd"] = "adam"
    learning_rate: Positive = 1e-5
    memberships: Literal["each run", "each batch"] = "each run"
    STAGE: ClassVar = PerCluster
    VARIANTS: ClassVar = {"paper": {}, "released": RELEASED, "joint": {"passes": "joint"}}
