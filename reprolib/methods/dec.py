"""Methods that DCSS is compared with, on one autoencoder and one loop: AE+k-means, DEC, IDEC, DCN, DKM.

Each may end with MNet (`phase2_epochs`), the "X+MNet" of paper 004, Table 3. Pretraining, networks and
batches are those of DCSS; what is the method's own is its loss and how its centers move.
"""

from __future__ import annotations

import numpy as np
import torch
from torch.nn import functional as F

from reprolib.kernels.soft_assignment import (
    dec_loss,
    squared_distances,
    student_t,
    target_distribution,
)
from reprolib.methods.autoencoder_base import AutoencoderEstimator
from reprolib.methods.mnet_stage import PHASE_1, PHASE_2, MNetRun
from reprolib.networks.autoencoders import MNet


def pixel_error(decoded: torch.Tensor, inputs: torch.Tensor) -> torch.Tensor:
    """Squared error summed over pixels, mean over samples: what DCN and DKM weigh their clustering against.

    decoded, inputs (b, ...). The weights of both papers are for this sum.
    """
    return (decoded - inputs).flatten(1).square().sum(1).mean()


class FamilyRun(MNetRun):
    """Centers from k-means, then one stage with the method's `loss`."""

    moves_centers = False  # by gradient

    def schedule(self) -> list[tuple[str, int]]:
        return [(PHASE_1, self.model.phase1_epochs), *super().schedule()]

    def prepare(self, stage: str) -> None:
        super().prepare(stage)
        if stage == PHASE_1:
            parameters = list(self.network.parameters())
            if self.moves_centers:
                parameters.append(self.centers)
            self.optimizers[PHASE_1] = torch.optim.Adam(parameters, lr=self.model.learning_rate)

    def begin(self, stage: str) -> None:
        if stage == PHASE_1:
            self.start(self.kmeans())

    def start(self, labels: np.ndarray) -> None:
        """What a method keeps beside the centers, from the labels (n,) of k-means."""

    def train_batch(self, stage: str, batch: torch.Tensor) -> dict[str, float]:
        if stage == PHASE_2:
            return super().train_batch(stage, batch)
        losses = self.losses(self.inputs[batch].to(self.device), batch)
        loss = sum(losses.values())
        self.step(PHASE_1, loss)
        self.after_step(batch)
        parts = {name: float(value.detach()) for name, value in losses.items()}
        return {"loss": float(loss.detach())} | parts

    def losses(self, inputs: torch.Tensor, batch: torch.Tensor) -> dict[str, torch.Tensor]:
        """Weighted terms of the loss of inputs (b, ...), samples `batch` (b,)."""
        raise NotImplementedError

    def after_step(self, batch: torch.Tensor) -> None:
        """Move what no gradient moves."""


class AEKMeansRun(FamilyRun):
    """Nothing is trained after the pretraining."""

    def schedule(self) -> list[tuple[str, int]]:
        return [(PHASE_1, 0), *super().schedule()[1:]]


class DECRun(FamilyRun):
    """The target distribution of all samples is fixed for an epoch."""

    moves_centers = True

    @torch.no_grad()
    def begin_epoch(self, stage: str) -> None:
        if stage == PHASE_1:
            self.target = target_distribution(student_t(self.embed(), self.centers))  # (n, K)

    def losses(self, inputs: torch.Tensor, batch: torch.Tensor) -> dict[str, torch.Tensor]:
        target = self.target[batch.to(self.device)]
        return {"clustering": dec_loss(self.encode(inputs), self.centers, target)}


class IDECRun(DECRun):
    """DEC that goes on reconstructing."""

    weight = 0.1

    def losses(self, inputs: torch.Tensor, batch: torch.Tensor) -> dict[str, torch.Tensor]:
        latent, decoded = self.reconstruct(inputs)
        target = self.target[batch.to(self.device)]
        clustering = dec_loss(latent, self.centers, target)
        return {
            "reconstruction": F.mse_loss(decoded, inputs),
            "clustering": self.weight * clustering,
        }


class DCNRun(FamilyRun):
    """Hard assignments; a center is the running mean of all that it was ever given."""

    weight = 0.05

    def start(self, labels: np.ndarray) -> None:
        self.tensors["labels"] = torch.from_numpy(labels.astype(np.int64))
        counts = np.bincount(labels, minlength=self.model.n_clusters)
        self.tensors["counts"] = torch.from_numpy(counts).to(self.device, torch.float32)

    def losses(self, inputs: torch.Tensor, batch: torch.Tensor) -> dict[str, torch.Tensor]:
        latent, decoded = self.reconstruct(inputs)
        self.latent = latent.detach()
        own = self.centers.detach()[self.tensors["labels"][batch].to(self.device)]  # (b, d)
        distance = (latent - own).square().sum(1).mean()
        return {
            "reconstruction": pixel_error(decoded, inputs),
            "clustering": self.weight / 2 * distance,
        }

    @torch.no_grad()
    def after_step(self, batch: torch.Tensor) -> None:
        labels = squared_distances(self.latent, self.centers).argmin(1)
        self.tensors["labels"][batch] = labels.cpu()
        hot = F.one_hot(labels, self.model.n_clusters).to(self.latent)  # (b, K)
        before = self.tensors["counts"]
        after = before + hot.sum(0)
        # one sample after the other, each moving its center by 1 / count, comes to this
        sums = before[:, None] * self.centers + hot.T @ self.latent
        self.centers.copy_(sums / after.clamp_min(1.0)[:, None])
        self.tensors["counts"] = after


class DKMRun(FamilyRun):
    """K-means with a softmax for the nearest center, so that centers move by gradient."""

    moves_centers = True
    weight, inverse_temperature = 1.0, 1000.0

    def losses(self, inputs: torch.Tensor, batch: torch.Tensor) -> dict[str, torch.Tensor]:
        latent, decoded = self.reconstruct(inputs)
        squared = squared_distances(latent, self.centers)  # (b, K)
        nearness = torch.softmax(-self.inverse_temperature * squared, dim=1)
        clustering = (squared * nearness).sum(1).mean()
        return {
            "reconstruction": pixel_error(decoded, inputs),
            "clustering": self.weight * clustering,
        }


class _Family(AutoencoderEstimator):
    """Parameters of the family; `phase1_epochs` of the method's own training, `phase2_epochs` of MNet."""

    def __init__(
        self,
        n_clusters: int = 10,
        *,
        latent_dim: int = 10,
        pretrain_epochs: int = 200,
        pretrain_rate: float = 1e-3,
        phase1_epochs: int = 150,
        learning_rate: float = 1e-4,
        batch_size: int = 256,
        phase2_epochs: int = 0,
        m: float = 1.5,
        u_epochs: int = 5,
        zeta: float = 0.8,
        gamma: float = 0.2,
        mnet_width: int = 128,
        mnet_rate: float = 1e-3,
        encoder_rate: float = 1e-5,
        precision: str = "float32",
        device: str = "auto",
        random_state: int = 0,
        verbose: bool = False,
    ) -> None:
        self.n_clusters = n_clusters
        self.latent_dim = latent_dim
        self.pretrain_epochs = pretrain_epochs
        self.pretrain_rate = pretrain_rate
        self.phase1_epochs = phase1_epochs
        self.learning_rate = learning_rate
        self.batch_size = batch_size
        self.phase2_epochs = phase2_epochs
        self.m = m
        self.u_epochs = u_epochs
        self.zeta = zeta
        self.gamma = gamma
        self.mnet_width = mnet_width
        self.mnet_rate = mnet_rate
        self.encoder_rate = encoder_rate
        self.precision = precision
        self.device = device
        self.random_state = random_state
        self.verbose = verbose

    def _more_modules(self) -> dict[str, torch.nn.Module]:
        if not self.phase2_epochs:
            return {}
        return {"mnet": MNet(self.latent_dim, self.n_clusters, self.mnet_width)}


class AEKMeans(_Family):
    """K-means on the latent vectors of the pretrained autoencoder: the baseline of paper 004, Table 1.

    `phase1_epochs` and `learning_rate` have no effect.
    """

    _run = AEKMeansRun


class DEC(_Family):
    """Deep embedded clustering (Xie, Girshick and Farhadi 2016): KL to a sharpened soft assignment.

    The encoder and the centers minimise the divergence of Student's t assignments from their target
    distribution, which is computed once an epoch. The authors pretrain a denoising autoencoder layer by
    layer; here the pretraining is that of all methods.
    """

    _run = DECRun


class IDEC(_Family):
    """Improved DEC (Guo et al. 2017): reconstruction, a mean over pixels, plus 0.1 of DEC's loss."""

    _run = IDECRun


class DCN(_Family):
    """Deep clustering network (Yang et al. 2017): reconstruction plus the k-means loss, weighted 0.05 / 2.

    The reconstruction is summed over pixels. Assignments are hard; after each batch the samples are
    assigned anew and each center moves to the running mean of what it was given, as by the authors' rate
    1 / count.
    """

    _run = DCNRun


class DKM(_Family):
    """Deep k-means (Fard, Thonet and Gaussier 2020): reconstruction plus a softened k-means loss, weight 1.

    The reconstruction is summed over pixels. Nearness is a softmax of -1000 times the squared distances,
    the constant that the authors take after a pretraining.
    """

    _run = DKMRun
