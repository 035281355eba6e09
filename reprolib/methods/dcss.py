"""DCSS: an autoencoder with a loss for each cluster, then pairwise similarities (paper 004)."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor, nn

from reprolib.kernels.pairwise import pairwise_loss
from reprolib.kernels.soft_assignment import fuzzy_memberships, squared_distances
from reprolib.methods.autoencoder import (
    PHASE_1,
    PHASE_2,
    Clustering,
    FromKMeans,
    Pretrain,
    as_inputs,
    encode,
    latent_vectors,
    reconstruct,
    soft_assignments,
)
from reprolib.methods.base import (
    BatchSize,
    Count,
    Natural,
    Positive,
    TrainedEstimator,
    Weight,
    parameters,
)
from reprolib.networks.autoencoders import MNet
from reprolib.training.trainer import ROWS, Run, Stage, as_numpy

MOMENTUM = 0.9  # of the released code's plain gradient steps


def phase_1_losses(
    inputs: Tensor, decoded: Tensor, latent: Tensor, centers: Tensor, weights: Tensor
) -> tuple[Tensor, Tensor]:
    """Reconstruction and centering loss of each run, (K,) and (K,): paper 004, equations 1b and 1c.

    inputs, decoded (b, ...); latent (b, d); centers (K, d); weights p^m (b, K). Sums over the batch.
    """
    error = (inputs - decoded).flatten(1).square().sum(1)  # (b,)
    distance = (latent[:, None] - centers).square().sum(2)  # (b, K)
    return error @ weights, (weights * distance).sum(0)


@torch.no_grad()
def refresh_centers(run: Run) -> None:
    """Set the centers to the means of all latent vectors weighted by p^m: paper 004, equation 3."""
    centers, m = run.modules["centers"].values, run.model.m
    latent = latent_vectors(run)
    weights = fuzzy_memberships(latent, centers, m) ** m  # (n, K)
    total = weights.sum(0)[:, None]
    # a center that no sample has weight for stays
    means = weights.T @ latent / total.clamp_min(torch.finfo(latent.dtype).tiny)
    centers.copy_(torch.where(total > 0, means, centers))


class PerCluster(FromKMeans):
    """Phase 1: K successive passes of a batch, each with the loss of one cluster, or one with their sum."""

    def optimizer(self) -> torch.optim.Optimizer:
        weights, rate = self.run.modules["network"].parameters(), self.model.learning_rate
        if self.model.optimizer == "adam":
            return torch.optim.Adam(weights, lr=rate)
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


class Pairs(Clustering):
    """Phase 2, on the latent space of any autoencoder method: X + MNet (paper 004, section 3.2).

    Pairs are told similar or dissimilar by the memberships p of the latent space for the first `u_epochs` T_2
    epochs (equation 4), by q itself from then on (equation 5). The encoder is trained along.
    """

    name, result = PHASE_2, "q"
    report_every = 1

    def build(self) -> None:
        run, m = self.run, self.model
        sizes = (m.latent_dim, m.n_clusters, m.mnet_width, m.mnet_hidden)
        mnet, encoder = (
            run.module("mnet", MNet(*sizes, run.generator)),
            run.modules["network"].encoder,
        )
        groups = [
            {"params": list(mnet.parameters()), "lr": m.mnet_rate},
            {"params": list(encoder.parameters()), "lr": m.encoder_rate},
        ]
        run.optimizers = {PHASE_2: torch.optim.Adam(groups)}

    def step(self, batch: Tensor) -> dict[str, Tensor]:
        run, model = self.run, self.model
        latent = encode(run, run.batch(batch))
        q = run.modules["mnet"](latent)  # (b, K)
        similarity = q.detach()
        if run.epoch < model.u_epochs:
            similarity = fuzzy_memberships(latent.detach(), self.centers.detach(), model.m)
        if model.clip:  # as released: no gradient passes where q is set to 0 or 1
            q = torch.where(q > 1 - model.clip, 1.0, torch.where(q < model.clip, 0.0, q))
        found = pairwise_loss(q, similarity, zeta=model.zeta, gamma=model.gamma)
        run.descend(PHASE_2, found[0])
        names = ("loss", "similar", "dissimilar")
        return {n: v.detach().double() / len(batch) ** 2 for n, v in zip(names, found, strict=True)}

    def end_epoch(self) -> None:
        if self.run.epoch <= self.model.u_epochs:
            refresh_centers(self.run)


@parameters
class AutoencoderMethod(TrainedEstimator):
    """An autoencoder trained by its reconstruction, by a method's own stage from k-means centers, by pairs.

    With `phase2_epochs` MNet is put on its latent space: "X+MNet" of paper 004, Table 3. After `fit`:
    `results_` the labels at the end of each stage, those of k-means as "ae"; `embedding_` float32 (n,
    latent_dim) the latent vectors u; `centers_` float32 (n_clusters, latent_dim).
    """

    latent_dim: Count = 10
    pretrain_epochs: Natural = 200
    pretrain_rate: Positive = 1e-3
    batch_size: BatchSize = 256
    phase1_epochs: Natural = 150  # of the method's own stage
    learning_rate: Positive = 1e-4
    phase2_epochs: Natural = 0  # MaxIter_2
    m: Annotated[float, "above", 1] = 1.5  # fuzziness
    u_epochs: Natural = 5  # T_2: pairs are told by p for so many epochs, then by q
    zeta: float = 0.8  # similar from here on
    gamma: Weight = 0.2  # dissimilar up to here
    mnet_width: Count = 128
    mnet_hidden: Natural = 3
    mnet_rate: Positive = 1e-3
    encoder_rate: Weight = 1e-5
    clip: Weight = 0.0  # of q, to 0 or 1

    RESULTS: ClassVar = {"ae": "AE + k-means", "u": "u", "q": "q"}
    STAGE: ClassVar[type[Stage]]  # the method's own
    prepare = staticmethod(as_inputs)

    def check_parameters(self) -> None:
        super().check_parameters()
        if not self.gamma <= self.zeta <= 1:
            raise ValueError(
                f"thresholds must satisfy gamma <= zeta <= 1, got gamma={self.gamma}, zeta={self.zeta}"
            )

    def stages(self, run: Run, X: Any = None) -> list[Stage]:
        """Pretraining, the method's own stage and, if it has epochs, the pairs."""
        first = [Pretrain(run, self.pretrain_epochs), self.STAGE(run, self.phase1_epochs)]
        return first + ([Pairs(run, self.phase2_epochs)] if self.phase2_epochs else [])

    def finish(self, run: Run) -> dict[str, np.ndarray]:
        """Keep latent vectors and centers; the labels that each stage has left."""
        self.embedding_ = as_numpy(latent_vectors(run))
        self.centers_ = as_numpy(run.modules["centers"].values)
        left = {name: run.tensors.get(f"labels.{name}") for name in self.RESULTS}
        return {name: as_numpy(labels) for name, labels in left.items() if labels is not None}

    @torch.no_grad()
    def transform(self, X: Any) -> np.ndarray:
        """Latent vectors float32 (n, latent_dim) of data of the fitted shape."""
        inputs, network = self._fitting_inputs(X), self.modules_["network"].eval()
        device = next(network.parameters()).device
        parts = [network.encode(part.to(device)).cpu() for part in inputs.split(ROWS)]
        return torch.cat(parts).numpy()

    def predict(self, X: Any) -> np.ndarray:
        """Labels int32 (n,) of data of the fitted shape, by MNet where there is one."""
        latent = torch.from_numpy(self.transform(X)).to(self.modules_["centers"].values.device)
        return as_numpy(self.assign(self.modules_, latent)).astype(np.int32)

    @staticmethod
    @torch.no_grad()
    def assign(modules: nn.ModuleDict, latent: Tensor) -> Tensor:
        """Labels (n,) of latent vectors (n, latent_dim): MNet's, else those of the nearest centers."""
        if "mnet" in modules:
            return soft_assignments(modules, latent).argmax(1)
        return squared_distances(latent, modules["centers"].values).argmin(1)


@parameters
class DCSS(AutoencoderMethod):
    """Deep clustering with self-supervision using pairwise data similarities (paper 004).

    Phase 1 trains an autoencoder in K successive passes of a batch, each with the loss of one cluster
    (equations 1 to 3); phase 2 trains MNet and the encoder by pairs (equations 4 and 5). `phase2_epochs=0` is
    DCSS_u, phase 1 alone. VARIANTS: "released" is what the authors' code does; "joint" takes the losses of
    the K passes in one step, K times cheaper.
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
    VARIANTS: ClassVar = {
        "paper": {},
        "released": dict(
            optimizer="sgd", learning_rate=1e-6, memberships="each batch", mnet_hidden=2, clip=0.01
        ),
        "joint": {"passes": "joint"},
    }
