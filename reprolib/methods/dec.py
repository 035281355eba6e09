"""Methods that DCSS is compared with: AE+k-means, DEC, IDEC, DCN, DKM. They differ in losses and centers."""

from typing import ClassVar

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from reprolib.kernels import soft_assignment
from reprolib.methods import autoencoder
from reprolib.methods.autoencoder import PHASE_1, AutoencoderMethod, FromStart


def pixel_error(decoded: Tensor, inputs: Tensor) -> Tensor:
    """Squared error of decoded and inputs (b, ...) over pixels, which DCN and DKM weigh; mean over samples."""
    return (decoded - inputs).flatten(1).square().sum(1).mean()


class OneLoss(FromStart):
    """A weighted `clustering(latent, batch)` loss, and that of the reconstruction where there is an `error`."""

    moves_centers = False  # by gradient
    error, weight = None, 1.0

    def optimizer(self) -> torch.optim.Optimizer:
        trained = [*self.run.modules["network"].parameters()]
        trained += [self.centers] if self.moves_centers else []
        return self.run.adam(trained, lr=self.model.learning_rate)

    def step(self, batch: Tensor) -> dict[str, Tensor]:
        batch = batch.to(self.run.device)
        losses = self.losses(self.run.batch(batch), batch)
        loss = sum(losses.values())
        self.run.descend(PHASE_1, loss)
        self.after_step(batch)
        return {name: value.detach() for name, value in ({"loss": loss} | losses).items()}

    def losses(self, inputs: Tensor, batch: Tensor) -> dict[str, Tensor]:
        """Weighted terms of the loss of inputs (b, ...), samples `batch` (b,) on the device."""
        if self.error is None:
            return {"clustering": self.clustering(autoencoder.encode(self.run, inputs), batch)}
        latent, decoded = autoencoder.reconstruct(self.run, inputs)
        clustering = self.weight * self.clustering(latent, batch)
        return {"reconstruction": self.error(decoded, inputs), "clustering": clustering}

    def after_step(self, batch: Tensor) -> None:
        """Move what no gradient moves."""


class Target(OneLoss):
    """DEC: the target distribution of all samples is fixed for an epoch."""

    moves_centers = True

    @torch.no_grad()
    def begin_epoch(self) -> None:
        q = soft_assignment.student_t(autoencoder.latent_vectors(self.run), self.centers)
        self.hold("target", soft_assignment.target_distribution(q))  # (n, K)

    def clustering(self, latent: Tensor, batch: Tensor) -> Tensor:
        return soft_assignment.dec_loss(latent, self.centers, self.target[batch])


class TargetAndReconstruction(Target):
    """IDEC: DEC that goes on reconstructing."""

    error, weight = staticmethod(F.mse_loss), 0.1


class RunningMeans(OneLoss):
    """DCN: hard assignments; a center is the running mean of all that it was ever given."""

    error, weight = staticmethod(pixel_error), 0.05 / 2

    def start(self, labels: np.ndarray) -> None:
        counts = np.bincount(labels, minlength=self.model.n_clusters)
        device = self.run.device
        self.run.tensors["assigned"] = torch.from_numpy(labels.astype(np.int64)).to(device)
        self.run.tensors["counts"] = torch.from_numpy(counts).to(device, torch.float32)

    def clustering(self, latent: Tensor, batch: Tensor) -> Tensor:
        self.latent = latent.detach()
        own = self.centers.detach()[self.run.tensors["assigned"][batch]]  # (b, d)
        return (latent - own).square().sum(1).mean()

    @torch.no_grad()
    def after_step(self, batch: Tensor) -> None:
        kept = self.run.tensors
        labels = soft_assignment.squared_distances(self.latent, self.centers).argmin(1)
        kept["assigned"][batch] = labels
        hot = torch.zeros(len(labels), self.model.n_clusters, device=labels.device)  # (b, K)
        hot.scatter_(1, labels[:, None], 1.0)  # F.one_hot would read the labels on the host
        after = kept["counts"] + hot.sum(0)
        # one sample after the other, each moving its center by 1 / count, comes to this
        sums = kept["counts"][:, None] * self.centers + hot.T @ self.latent
        self.centers.copy_(sums / after.clamp_min(1.0)[:, None])
        kept["counts"].copy_(after)


class Softmin(OneLoss):
    """DKM: k-means with a softmax for the nearest center, so that centers move by gradient."""

    moves_centers = True
    error = staticmethod(pixel_error)
    inverse_temperature = 1000.0

    def clustering(self, latent: Tensor, batch: Tensor) -> Tensor:
        squared = soft_assignment.squared_distances(latent, self.centers)  # (b, K)
        nearness = torch.softmax(-self.inverse_temperature * squared, dim=1)
        return (squared * nearness).sum(1).mean()


class AEKMeans(AutoencoderMethod):
    """K-means on the pretrained latent vectors: paper 004, Table 1. `phase1_epochs` has no effect."""

    STAGE: ClassVar = staticmethod(lambda run, _: OneLoss(run, 0))


class DEC(AutoencoderMethod):
    """Deep embedded clustering (Xie, Girshick and Farhadi 2016): KL to a sharpened soft assignment.

    The target distribution of Student's t assignments is computed once an epoch. The authors pretrain a
    denoising autoencoder layer by layer; here the pretraining is that of all methods.
    """

    STAGE: ClassVar = Target


class IDEC(AutoencoderMethod):
    """Improved DEC (Guo et al. 2017): reconstruction, a mean over pixels, plus 0.1 of DEC's loss."""

    STAGE: ClassVar = TargetAndReconstruction


class DCN(AutoencoderMethod):
    """Deep clustering network (Yang et al. 2017): reconstruction plus the k-means loss, weighted 0.05 / 2.

    Assignments are hard; after each batch its samples are assigned anew, and each center moves to the running
    mean of what it was given, the authors' rate 1 / count.
    """

    STAGE: ClassVar = RunningMeans


class DKM(AutoencoderMethod):
    """Deep k-means (Fard, Thonet and Gaussier 2020): reconstruction plus a softened k-means loss, weight 1.

    Nearness is a softmax of -1000 times the squared distances, as the authors take after a pretraining.
    """

    STAGE: ClassVar = Softmin
