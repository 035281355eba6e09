"""Pretrain an autoencoder, then train on while clustering its latent vectors: what DCSS and its kin share."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import numpy as np
import torch
from sklearn.cluster import KMeans
from sklearn.utils.validation import check_is_fitted
from torch import nn

from reprolib.data.images import (
    as_features,
    as_pixels,
    check_features,
    is_features,
    to_float_images,
)
from reprolib.kernels.soft_assignment import squared_distances
from reprolib.methods.base import (
    BatchSize,
    Count,
    Natural,
    Positive,
    TrainedEstimator,
    check_counts,
    parameters,
)
from reprolib.networks.autoencoders import SIDES, Centers, build_autoencoder
from reprolib.training.monitor import Report
from reprolib.training.trainer import ROWS, Run, Stage, as_numpy

PRETRAIN, PHASE_1, PHASE_2 = "pretrain", "phase 1", "phase 2"
STARTS = 20  # of k-means on latent vectors; paper 004 names no number


def as_inputs(X: Any, *, to_cluster: bool = True) -> torch.Tensor:
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


@parameters
class AutoencoderMethod(TrainedEstimator):
    """An autoencoder trained by its reconstruction, then by a method's own stage from k-means centers.

    After `fit`: `results_` the labels at the end of each stage, those of k-means as "ae"; `embedding_` float32
    (n, latent_dim) the latent vectors u; `centers_` float32 (n_clusters, latent_dim).
    """

    latent_dim: Count = 10
    pretrain_epochs: Natural = 200
    pretrain_rate: Positive = 1e-3
    batch_size: BatchSize = 256
    phase1_epochs: Natural = 150

    RESULTS: ClassVar = {"ae": "AE + k-means", "u": "u", "q": "q"}
    STAGE: ClassVar[type[Stage]]  # the method's own

    def inputs(self, X: Any) -> torch.Tensor:
        """Gray images of 16 to 32 pixels a side for convolutions, all else as rows: `as_inputs`."""
        inputs = as_inputs(X)
        check_counts(len(inputs), self.n_clusters, 1)
        return inputs

    def stages(self, run: Run, X: Any = None) -> list[Stage]:
        """Pretraining, then the method's own stage."""
        return [Pretrain(run, self.pretrain_epochs), self.STAGE(run, self.phase1_epochs)]

    def finish(self, run: Run) -> dict[str, np.ndarray]:
        """Keep latent vectors and centers; the labels that each stage has left."""
        self.embedding_ = as_numpy(latent_vectors(run))
        self.centers_ = as_numpy(run.modules["centers"].values)
        # by the list of stages: restored tensors might hold more
        names = [stage.result for stage in run.stages]
        return {name: as_numpy(run.tensors[f"labels.{name}"]) for name in names}

    @torch.no_grad()
    def transform(self, X: Any) -> np.ndarray:
        """Latent vectors float32 (n, latent_dim) of data of the fitted shape."""
        check_is_fitted(self, "embedding_")
        inputs = as_inputs(X, to_cluster=False)
        if tuple(inputs.shape[1:]) != self.input_shape_:
            raise ValueError(
                f"X has {inputs.shape[1:].numel()} features, but {type(self).__name__} is expecting "
                f"{math.prod(self.input_shape_)} features as input: it was fitted on inputs of shape "
                f"{self.input_shape_}, got {tuple(inputs.shape[1:])}"
            )
        network = self.modules_["network"].eval()
        device = next(network.parameters()).device
        parts = [network.encode(part.to(device)).cpu() for part in inputs.split(ROWS)]
        return torch.cat(parts).numpy()

    def predict(self, X: Any) -> np.ndarray:
        """Labels int32 (n,) of data of the fitted shape, by MNet where there is one."""
        check_is_fitted(self, "embedding_")
        latent = torch.from_numpy(self.transform(X)).to(self.modules_["centers"].values.device)
        return as_numpy(self.assign(self.modules_, latent)).astype(np.int32)

    @staticmethod
    @torch.no_grad()
    def assign(modules: dict[str, nn.Module], latent: torch.Tensor) -> torch.Tensor:
        """Labels (n,) of latent vectors (n, latent_dim): MNet's, else those of the nearest centers."""
        if "mnet" in modules:
            return soft_assignments(modules, latent).argmax(1)
        return squared_distances(latent, modules["centers"].values).argmin(1)


def encode(run: Run, inputs: torch.Tensor) -> torch.Tensor:
    """Latent vectors u float32 (b, latent_dim) of inputs, in the precision of the run."""
    with run.autocast():
        return run.modules["network"].encode(inputs).float()


def reconstruct(run: Run, inputs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Latent vectors (b, latent_dim) and reconstructions of inputs, float32."""
    with run.autocast():
        latent, decoded = run.modules["network"](inputs)
    return latent.float(), decoded.float()


def latent_vectors(run: Run) -> torch.Tensor:
    """Latent vectors u float32 (n, latent_dim) of all samples, running statistics, on the device."""
    return run.over_all(lambda inputs: encode(run, inputs))


@torch.no_grad()
def soft_assignments(modules: dict[str, nn.Module], latent: torch.Tensor) -> torch.Tensor:
    """MNet's q (n, n_clusters) of latent vectors (n, latent_dim), running statistics."""
    mnet = modules["mnet"].eval()
    return torch.cat([mnet(part) for part in latent.split(ROWS)])


class Pretrain(Stage):
    """Reconstruction alone: the first stage of every autoencoder method (paper 004, section 6)."""

    name, result = PRETRAIN, "ae"
    report_every = 0
    shared = (
        "latent_dim",
        "pretrain_epochs",
        "pretrain_rate",
        "batch_size",
        "precision",
        "random_state",
    )

    def build(self) -> None:
        run, model = self.run, self.model
        shape = tuple(run.inputs.shape[1:])
        network = run.module("network", build_autoencoder(shape, model.latent_dim, run.generator))
        adam = torch.optim.Adam(network.parameters(), lr=model.pretrain_rate)
        run.optimizers = {PRETRAIN: adam}

    def step(self, batch: torch.Tensor) -> dict[str, torch.Tensor]:
        inputs = self.run.batch(batch)
        _, decoded = reconstruct(self.run, inputs)
        loss = nn.functional.mse_loss(decoded, inputs)
        self.run.descend(PRETRAIN, loss)
        return {"loss": loss.detach()}


class Clustering(Stage):
    """A stage that works on latent vectors and centers mu, and leaves labels."""

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
        return Report(
            self.name if period else PRETRAIN,
            period,
            as_numpy(self.model.assign(modules, latent)),
            as_numpy(latent),
            as_numpy(soft_assignments(modules, latent)) if "mnet" in modules else None,
            getattr(self.model, "zeta", Report.similarity),
        )


class FromKMeans(Clustering):
    """A method's own stage: it begins with k-means centers of the pretrained latent vectors."""

    name, result = PHASE_1, "u"

    def optimizer(self) -> torch.optim.Optimizer:
        """What the stage trains with."""
        raise NotImplementedError

    def build(self) -> None:
        model = self.model
        self.run.module("centers", Centers(model.n_clusters, model.latent_dim))
        self.run.optimizers = {PHASE_1: self.optimizer()}

    @torch.no_grad()
    def begin(self) -> None:
        means = KMeans(self.model.n_clusters, n_init=STARTS, random_state=self.run.seed)
        found = means.fit(as_numpy(latent_vectors(self.run)))
        self.centers.copy_(torch.from_numpy(found.cluster_centers_))
        self.run.tensors["labels.ae"] = torch.from_numpy(found.labels_.astype(np.int32))
        self.start(found.labels_)
        self.run.tell(self)

    def start(self, labels: np.ndarray) -> None:
        """What a method keeps beside the centers, from the labels (n,) of k-means."""
