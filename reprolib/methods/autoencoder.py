"""Pretrain an autoencoder, then train on while clustering its latent vectors: what DCSS and its kin share."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import torch
from sklearn.cluster import KMeans
from torch import Tensor, nn

from reprolib.data.images import (
    as_features,
    as_pixels,
    check_features,
    is_features,
    to_float_images,
)
from reprolib.networks.autoencoders import SIDES, Centers, build_autoencoder
from reprolib.training.monitor import Report
from reprolib.training.trainer import ROWS, Run, Stage, as_numpy

PRETRAIN, PHASE_1, PHASE_2 = "pretrain", "phase 1", "phase 2"
STARTS = 20  # of k-means on latent vectors; paper 004 names no number


def as_inputs(X: Any, *, to_cluster: bool = True) -> Tensor:
    """Network inputs float32: gray images (n, 1, h, w) in [0, 1], anything else as rows (n, d).

    Images of one channel and 16 to 32 pixels a side go through convolutions, channels last; other
    images are flattened, uint8 divided by 255; features keep their values.
    """
    if is_features(X):
        return torch.from_numpy(as_features(X) if to_cluster else check_features(X, min_samples=1))
    images = to_float_images(as_pixels(X, to_cluster=to_cluster))
    low, high = SIDES
    if images.shape[1] == 1 and all(low <= side <= high for side in images.shape[2:]):
        return images
    return images.flatten(1)


def encode(run: Run, inputs: Tensor) -> Tensor:
    """Latent vectors u float32 (b, latent_dim) of inputs, in the precision of the run."""
    with run.autocast():
        return run.modules["network"].encode(inputs).float()


def reconstruct(run: Run, inputs: Tensor) -> tuple[Tensor, Tensor]:
    """Latent vectors (b, latent_dim) and reconstructions of inputs, float32."""
    with run.autocast():
        latent, decoded = run.modules["network"](inputs)
    return latent.float(), decoded.float()


def latent_vectors(run: Run) -> Tensor:
    """Latent vectors u float32 (n, latent_dim) of all samples, running statistics, on the device."""
    return run.over_all(lambda inputs: encode(run, inputs))


@torch.no_grad()
def soft_assignments(modules: nn.ModuleDict, latent: Tensor) -> Tensor:
    """MNet's q (n, n_clusters) of latent vectors (n, latent_dim), running statistics."""
    mnet = modules["mnet"].eval()
    return torch.cat([mnet(part) for part in latent.split(ROWS)])


class Pretrain(Stage):
    """Reconstruction alone: the first stage of every autoencoder method (paper 004, section 6)."""

    name, report_every = PRETRAIN, 0
    shared = ("latent_dim", "pretrain_epochs", "pretrain_rate")
    shared += ("batch_size", "precision", "random_state")

    def build(self) -> None:
        run, model = self.run, self.model
        shape = tuple(run.inputs.shape[1:])
        network = run.module("network", build_autoencoder(shape, model.latent_dim, run.generator))
        adam = torch.optim.Adam(network.parameters(), lr=model.pretrain_rate)
        run.optimizers = {PRETRAIN: adam}

    def step(self, batch: Tensor) -> dict[str, Tensor]:
        inputs = self.run.batch(batch)
        _, decoded = reconstruct(self.run, inputs)
        loss = nn.functional.mse_loss(decoded, inputs)
        self.run.descend(PRETRAIN, loss)
        return {"loss": loss.detach()}


class Clustering(Stage):
    """A stage that works on latent vectors and centers mu, and leaves labels: `result` names them."""

    result: ClassVar[str]

    @property
    def centers(self) -> nn.Parameter:
        """Centers mu float32 (n_clusters, latent_dim) in the latent space."""
        return self.run.modules["centers"].values

    def end(self) -> None:
        labels = self.model.assign(self.run.modules, latent_vectors(self.run))
        self.run.tensors[f"labels.{self.result}"] = labels.int()

    def report(self) -> Report:
        run, modules = self.run, self.run.modules
        latent = latent_vectors(run)
        period = sum(row["stage"] != PRETRAIN for row in run.history)
        labels = as_numpy(self.model.assign(modules, latent))
        q = as_numpy(soft_assignments(modules, latent)) if "mnet" in modules else None
        stage = self.name if period else PRETRAIN
        return Report(stage, period, labels, as_numpy(latent), q, self.model.zeta)


class FromKMeans(Clustering):
    """A method's own stage, with an `optimizer()`: it begins with k-means centers of the latent vectors."""

    name, result = PHASE_1, "u"

    def build(self) -> None:
        self.run.module("centers", Centers(self.model.n_clusters, self.model.latent_dim))
        self.run.optimizers = {PHASE_1: self.optimizer()}

    @torch.no_grad()
    def begin(self) -> None:
        means = KMeans(self.model.n_clusters, n_init=STARTS, random_state=self.run.seed)
        found = means.fit(as_numpy(latent_vectors(self.run)))
        self.centers.copy_(torch.from_numpy(found.cluster_centers_))
        self.run.tensors["labels.ae"] = torch.from_numpy(found.labels_.astype(np.int32))
        self.start(found.labels_)
        self.run.tell(self.report)

    def start(self, labels: np.ndarray) -> None:
        """What a method keeps beside the centers, from the labels (n,) of k-means."""
