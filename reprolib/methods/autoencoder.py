"""Pretrain an autoencoder, cluster its latent vectors in a method's way, then by pairs: DCSS and its kin."""

from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor, nn

from reprolib.data import images
from reprolib.kernels.pairwise import pairwise_loss
from reprolib.kernels.soft_assignment import fuzzy_memberships, squared_distances
from reprolib.methods import base
from reprolib.methods.base import Count, Natural, Positive, Weight
from reprolib.methods.starts import centers_of
from reprolib.networks.autoencoders import SIDES, Centers, MNet, build_autoencoder
from reprolib.training.monitor import Report
from reprolib.training.trainer import ROWS, Run, Stage, as_numpy

PRETRAIN, PHASE_1, PHASE_2 = "pretrain", "phase 1", "phase 2"


def as_inputs(X: Any, *, to_cluster: bool = True) -> Tensor:
    """Network inputs float32: gray images (n, 1, h, w) in [0, 1], anything else as rows (n, d).

    Images of one channel and 16 to 32 pixels a side go through convolutions; other images are flattened, uint8
    divided by 255; features keep their values.
    """
    if images.is_features(X):
        rows = images.as_features(X) if to_cluster else images.check_features(X, min_samples=1)
        return torch.from_numpy(rows)
    found = images.to_float_images(images.as_pixels(X, to_cluster=to_cluster))
    (_, channels, *sides), (low, high) = found.shape, SIDES
    return found if channels == 1 and low <= min(sides) <= max(sides) <= high else found.flatten(1)


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


class Pretrain(Stage):
    """Reconstruction alone: the first stage of every autoencoder method (paper 004, section 6)."""

    name = PRETRAIN
    shared = ("latent_dim", "pretrain_epochs", "pretrain_rate")
    shared += ("batch_size", "precision", "random_state")

    def build(self) -> None:
        run, model = self.run, self.model
        shape = tuple(run.inputs.shape[1:])
        network = run.module("network", model.autoencoder(shape, run.generator))
        adam = run.adam(network.parameters(), lr=model.pretrain_rate)
        run.optimizers = {PRETRAIN: adam}

    def step(self, batch: Tensor) -> dict[str, Tensor]:
        inputs = self.run.batch(batch)
        _, decoded = reconstruct(self.run, inputs)
        loss = nn.functional.mse_loss(decoded, inputs)
        self.run.descend(PRETRAIN, loss)
        return {"loss": loss.detach()}


class Clustering(Stage):
    """A stage that works on latent vectors and centers mu, and leaves labels: `result` names them."""

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
        stage = run.history[-1]["stage"] if period else PRETRAIN
        return Report(stage, period, labels, as_numpy(latent), q, self.model.zeta)


class FromStart(Clustering):
    """A method's own stage, with an `optimizer()`: it begins with the centers of `start` on the latent vectors."""

    name, result, report_every = PHASE_1, "u", 5

    def build(self) -> None:
        self.run.module("centers", Centers(self.model.n_clusters, self.model.latent_dim))
        self.run.optimizers = {PHASE_1: self.optimizer()}

    @torch.no_grad()
    def begin(self) -> None:
        run, kind = self.run, self.model.start
        latent = latent_vectors(run)
        labels, centers = centers_of(kind, as_numpy(latent), self.model.n_clusters, run.seed)
        self.centers.copy_(torch.from_numpy(centers))
        found = torch.from_numpy(labels.astype(np.int32))
        if kind != "kmeans":  # whose labels are those of the nearest centers
            run.tensors[f"labels.{kind}"] = found
            found = squared_distances(latent, self.centers).argmin(1).int()
        run.tensors["labels.ae"] = found
        self.start(labels)
        run.tell(self.report)

    def start(self, labels: np.ndarray) -> None:
        """What a method keeps beside the centers, from the labels (n,) of the start."""


class Pairs(Clustering):
    """Phase 2, on the latent space of any autoencoder method: X + MNet (paper 004, section 3.2).

    Pairs are told similar or dissimilar by the memberships p of the latent space for the first `u_epochs` T_2
    epochs (equation 4), by q itself from then on (equation 5). The encoder is trained along.
    """

    name, result, report_every = PHASE_2, "q", 1

    def build(self) -> None:
        run, m = self.run, self.model
        sizes = (m.latent_dim, m.n_clusters, m.mnet_width, m.mnet_hidden)
        mnet = run.module("mnet", MNet(*sizes, run.generator))
        encoder = run.modules["network"].encoder
        groups = [
            {"params": list(mnet.parameters()), "lr": m.mnet_rate},
            {"params": list(encoder.parameters()), "lr": m.encoder_rate},
        ]
        run.optimizers = {PHASE_2: run.adam(groups)}

    def step(self, batch: Tensor) -> dict[str, Tensor]:
        run, model = self.run, self.model
        latent = encode(run, run.batch(batch))
        q = run.modules["mnet"](latent)  # (b, K)
        similarity = q.detach()
        if self.branch():
            similarity = self.memberships(latent.detach(), batch)
        if model.clip:  # as released: no gradient passes where q is set to 0 or 1
            q = torch.where(q > 1 - model.clip, 1.0, torch.where(q < model.clip, 0.0, q))
        found = pairwise_loss(q, similarity, zeta=model.zeta, gamma=model.gamma)
        run.descend(PHASE_2, found[0])
        names = ("loss", "similar", "dissimilar")
        return {n: v.detach().double() / len(batch) ** 2 for n, v in zip(names, found, strict=True)}

    def memberships(self, latent: Tensor, batch: Tensor) -> Tensor:
        """What tells the pairs of samples `batch` (b,) in the first epochs: p (b, n_clusters) of latent vectors."""
        return fuzzy_memberships(latent, self.centers.detach(), self.model.m)

    def branch(self) -> bool:
        return self.run.epoch < self.model.u_epochs

    def end_epoch(self) -> None:
        if self.run.epoch <= self.model.u_epochs:
            refresh_centers(self.run)


class AutoencoderMethod(base.TrainedEstimator):
    """An autoencoder trained by its reconstruction, by a method's own stage from the centers of `start`, by pairs.

    With `phase2_epochs` MNet is put on top: "X+MNet" of paper 004, Table 3. `start`: the papers' k-means, or this
    book's "gdl" (`reprolib.methods.starts`). After `fit`: `results_` the labels at the end of each stage, those of
    the first centers as "ae", and of the linkage itself as "gdl"; `embedding_` float32 (n, latent_dim) the latent
    vectors u; `centers_` float32 (n_clusters, latent_dim).
    """

    latent_dim: Count = 10
    pretrain_epochs: Natural = 200
    pretrain_rate: Positive = 1e-3
    batch_size: base.BatchSize = 256
    start: Literal["kmeans", "gdl"] = "kmeans"
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
    STAGE: ClassVar[type[Stage]]  # the method's own
    prepare = staticmethod(as_inputs)

    def check_parameters(self) -> None:
        super().check_parameters()
        if not self.gamma <= self.zeta <= 1:
            found = f"gamma={self.gamma}, zeta={self.zeta}"
            raise ValueError(f"thresholds must satisfy gamma <= zeta <= 1, got {found}")

    def autoencoder(self, shape: tuple[int, ...], generator: torch.Generator) -> nn.Module:
        """An untrained `Autoencoder` for inputs of this shape, one sample."""
        return build_autoencoder(shape, self.latent_dim, generator)

    def stages(self, run: Run, X: Any = None) -> list[Stage]:
        """Pretraining, the method's own stage and, if it has epochs, the pairs."""
        first = [Pretrain(run, self.pretrain_epochs), self.STAGE(run, self.phase1_epochs)]
        return first + ([Pairs(run, self.phase2_epochs)] if self.phase2_epochs else [])

    def finish(self, run: Run) -> dict[str, np.ndarray]:
        """Keep latent vectors and centers; the labels that each stage has left."""
        self.embedding_ = as_numpy(latent_vectors(run))
        self.centers_ = as_numpy(run.modules["centers"].values)
        left = {name: run.tensors.get(f"labels.{name}") for name in ("gdl", "ae", "u", "q")}
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
