"""The training loop of DCSS and the autoencoder methods: stages of epochs that survive a kill."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from sklearn.cluster import KMeans
from torch import nn
from tqdm import tqdm

from reprolib.checks import pick_device
from reprolib.data.images import Images, as_features, as_pixels, to_float_images
from reprolib.methods.base import check_counts
from reprolib.methods.run_state import (
    fingerprint,
    read_pretrained,
    restore_state,
    save_state,
    write_pretrained,
)
from reprolib.networks.autoencoders import SIDES, ConvAutoencoder, DenseAutoencoder

PRETRAIN = "pretrain"
EMBED_ROWS = 1000
STARTS = 20  # of k-means on latent vectors; paper 004 names no number
REPORT_INTERVAL = 5
KEPT = "labels at the end of "


@dataclass(frozen=True)
class Stage:
    """What a monitor sees after an epoch: copies, so that it cannot influence the run.

    `stage` is its name; `period` counts epochs after the pretraining, from 0 (the k-means clusters);
    `embedding` float32 (n, latent_dim) are the latent vectors u, `q` float32 (n, n_clusters) the
    assignments of MNet, None before the second phase.
    """

    stage: str
    period: int
    n_clusters: int
    labels: np.ndarray
    embedding: np.ndarray
    q: np.ndarray | None = None


def as_inputs(X: Any) -> torch.Tensor:
    """Network inputs float32: gray images (n, 1, h, w) in [0, 1], anything else as rows (n, d).

    Images of one channel and 16 to 32 pixels a side go through convolutions, channels last; other
    images are flattened, uint8 divided by 255; features keep their values.
    """
    if not isinstance(X, Images) and np.ndim(X) == 2:
        return torch.from_numpy(as_features(X))
    images = to_float_images(as_pixels(X))
    low, high = SIDES
    if images.shape[1] == 1 and all(low <= side <= high for side in images.shape[2:]):
        return images
    return images.flatten(1)


def build_autoencoder(
    shape: tuple[int, ...], latent_dim: int, generator: torch.Generator | None = None
) -> nn.Module:
    """The autoencoder of paper 004 for inputs of this shape, one sample: (1, h, w) or (d,)."""
    if len(shape) == 1:
        return DenseAutoencoder(shape[0], latent_dim, generator)
    return ConvAutoencoder(tuple(shape), latent_dim, generator)


class Centers(nn.Module):
    """Centers of clusters in the latent space, (n_clusters, latent_dim), that a step may train."""

    def __init__(self, n_clusters: int, latent_dim: int) -> None:
        super().__init__()
        self.values = nn.Parameter(torch.zeros(n_clusters, latent_dim))


class AutoencoderRun:
    """State of one fit, and its loop: everything that a checkpoint must restore.

    A method says what happens in its stages by `schedule`, `prepare`, `begin`, `train_batch`,
    `end_epoch` and `assign`. The first stage is always the pretraining of the autoencoder by its
    reconstruction (paper 004, section 6).
    """

    def __init__(
        self,
        model: Any,
        X: Any,
        monitor: Callable[[Stage], None] | None,
        checkpoint: str | os.PathLike | None,
        pretrained: str | os.PathLike | None,
    ) -> None:
        self.model, self.monitor = model, monitor
        self.checkpoint, self.pretrained = checkpoint, pretrained
        self.inputs = as_inputs(X)  # (n, 1, h, w) or (n, d)
        check_counts(len(self.inputs), model.n_clusters, 1)
        self.device = pick_device(model.device)
        self.generator = torch.Generator().manual_seed(model.random_state)
        self.network = build_autoencoder(
            tuple(self.inputs.shape[1:]), model.latent_dim, self.generator
        ).to(self.device)
        self.modules: dict[str, nn.Module] = {
            "network": self.network,
            "centers": Centers(model.n_clusters, model.latent_dim).to(self.device),
        }
        self.optimizers: dict[str, torch.optim.Optimizer] = {}
        self.tensors: dict[str, torch.Tensor] = {}  # of a method, beside its networks
        self.stages = [(PRETRAIN, model.pretrain_epochs), *self.schedule()]
        self.stage, self.epoch = 0, 0
        self.history: list[dict[str, Any]] = []
        self.fingerprint = fingerprint(self.inputs, type(model).__name__, model.get_params())
        if checkpoint is not None and os.path.exists(checkpoint):
            restore_state(self)
        elif pretrained is not None:
            read_pretrained(self)

    # What a method fills in

    def schedule(self) -> list[tuple[str, int]]:
        """Name and number of epochs of each stage after the pretraining."""
        return []

    def prepare(self, stage: str) -> None:
        """Make the networks and optimizers of a stage; called again before a restore."""

    def begin(self, stage: str) -> None:
        """Compute what a stage starts from; not called when it is resumed."""

    def train_batch(self, stage: str, batch: torch.Tensor) -> dict[str, float]:
        """Take the steps of one batch, indices (b,); return the named losses, `loss` among them."""
        raise NotImplementedError

    def begin_epoch(self, stage: str) -> None:
        """Compute what an epoch keeps fixed, from the state alone, so that a resumed run does too."""

    def end_epoch(self, stage: str) -> None:
        """Update what is updated once an epoch."""

    def soft_assignments(self, latent: torch.Tensor) -> torch.Tensor | None:
        """q (n, n_clusters) of latent vectors (n, latent_dim), once there is an MNet."""
        return None

    def assign(self, latent: torch.Tensor) -> np.ndarray:
        """Labels (n,) of latent vectors (n, latent_dim) as things stand."""
        return self.model.assign(self.modules, latent)

    # The loop

    def train(self) -> None:
        """Run all stages from where the run stands; the checkpoint is written after every epoch."""
        total = sum(n_epochs for _, n_epochs in self.stages)
        done = sum(n_epochs for _, n_epochs in self.stages[: self.stage]) + self.epoch
        with tqdm(total=total, initial=done, unit="epoch", disable=not self.model.verbose) as bar:
            while self.stage < len(self.stages):
                stage, n_epochs = self.stages[self.stage]
                self._run_stage(stage, n_epochs, bar)
                if stage != PRETRAIN:
                    self._keep(stage, self.assign(self.embed()))
                self.stage, self.epoch = self.stage + 1, 0
                save_state(self)

    def _run_stage(self, stage: str, n_epochs: int, bar: tqdm) -> None:
        if self.epoch == 0:
            self.make_optimizers(stage)
            if stage != PRETRAIN:
                self.begin(stage)
                if self.stage == 1:
                    self._report(stage)
        bar.set_description(stage)
        while self.epoch < n_epochs:
            if stage != PRETRAIN:
                self.begin_epoch(stage)
            entry = self._train_epoch(stage)
            self.epoch += 1
            self.history.append(entry)
            if stage != PRETRAIN:
                self.end_epoch(stage)
                if self.epoch % self.report_interval(stage) == 0 or self.epoch == n_epochs:
                    self._report(stage)
            save_state(self)
            bar.set_postfix(loss=f"{entry['loss']:.5g}")
            bar.update()
        if stage == PRETRAIN and self.pretrained is not None:
            write_pretrained(self)

    def make_optimizers(self, stage: str) -> None:
        """Make what a stage trains with, the pretraining's included."""
        self.optimizers = {}
        if stage == PRETRAIN:
            self.optimizers["pretrain"] = torch.optim.Adam(
                self.network.parameters(), lr=self.model.pretrain_rate
            )
        else:
            self.prepare(stage)

    def _train_epoch(self, stage: str) -> dict[str, Any]:
        began = time.perf_counter()
        for module in self.modules.values():
            module.train()
        sums: dict[str, float] = {}
        n_batches = 0
        order = torch.randperm(len(self.inputs), generator=self.generator)
        for batch in order.split(self.model.batch_size):
            if len(batch) < 2:  # batch statistics of one sample are undefined
                continue
            step = self._pretrain_batch if stage == PRETRAIN else self.train_batch
            losses = step(stage, batch)
            if not math.isfinite(losses["loss"]):
                raise FloatingPointError(
                    f"the loss became {losses['loss']} in stage {stage!r}, epoch {self.epoch}: lower "
                    "the learning rate"
                )
            n_batches += 1
            for name, value in losses.items():
                sums[name] = sums.get(name, 0.0) + value
        means = {name: value / max(n_batches, 1) for name, value in sums.items()}
        return {
            "stage": stage,
            "epoch": self.epoch,
            **({"loss": float("nan")} if not means else means),
            "seconds": time.perf_counter() - began,
        }

    def _pretrain_batch(self, stage: str, batch: torch.Tensor) -> dict[str, float]:
        inputs = self.inputs[batch].to(self.device)
        _, decoded = self.reconstruct(inputs)
        loss = nn.functional.mse_loss(decoded, inputs)
        self.step("pretrain", loss)
        return {"loss": float(loss.detach())}

    # What methods use

    def reconstruct(self, inputs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Latent vectors (b, latent_dim) and reconstructions of inputs, float32."""
        half = self.model.precision == "bfloat16"
        with torch.autocast(self.device.type, torch.bfloat16, enabled=half):
            latent, decoded = self.network(inputs)
        return latent.float(), decoded.float()

    def encode(self, inputs: torch.Tensor) -> torch.Tensor:
        """Latent vectors (b, latent_dim) of inputs, float32."""
        half = self.model.precision == "bfloat16"
        with torch.autocast(self.device.type, torch.bfloat16, enabled=half):
            return self.network.encode(inputs).float()

    @property
    def centers(self) -> nn.Parameter:
        """Centers mu float32 (n_clusters, latent_dim) in the latent space."""
        return self.modules["centers"].values

    def step(self, optimizer: str, loss: torch.Tensor) -> None:
        """One step of an optimizer along the gradient of a loss."""
        self.optimizers[optimizer].zero_grad(set_to_none=True)
        loss.backward()
        self.optimizers[optimizer].step()

    @torch.no_grad()
    def embed(self) -> torch.Tensor:
        """Latent vectors float32 (n, latent_dim) of all samples, running statistics, on the device."""
        self.network.eval()
        return torch.cat(
            [self.encode(part.to(self.device)) for part in self.inputs.split(EMBED_ROWS)]
        )

    @torch.no_grad()
    def kmeans(self) -> np.ndarray:
        """Set the centers by k-means on the latent vectors; return its labels (n,)."""
        k, seed = self.model.n_clusters, self.model.random_state
        found = KMeans(k, n_init=STARTS, random_state=seed).fit(self.embed().cpu().numpy())
        self.centers.copy_(torch.from_numpy(found.cluster_centers_))
        self._keep(PRETRAIN, found.labels_)
        return found.labels_

    def _keep(self, stage: str, labels: np.ndarray) -> None:
        """Keep the labels that a stage ends with; those of k-means are the pretraining's."""
        self.tensors[f"{KEPT}{stage}"] = torch.from_numpy(np.asarray(labels, dtype=np.int32))

    @property
    def stage_labels(self) -> dict[str, np.ndarray]:
        """Labels int32 (n,) at the end of each stage, by its name."""
        kept = {k.removeprefix(KEPT): v for k, v in self.tensors.items() if k.startswith(KEPT)}
        return {stage: labels.cpu().numpy() for stage, labels in kept.items()}

    # Monitor, checkpoint

    def report_interval(self, stage: str) -> int:
        """Epochs between two reports to the monitor; the last epoch of a stage is always told."""
        return REPORT_INTERVAL

    def _report(self, stage: str) -> None:
        if self.monitor is None:
            return
        latent = self.embed()
        labels, q = self.assign(latent), self.soft_assignments(latent)
        period = sum(entry["stage"] != PRETRAIN for entry in self.history)
        self.monitor(
            Stage(
                PRETRAIN if period == 0 else stage,
                period,
                len(np.unique(labels)),
                labels.copy(),
                latent.cpu().numpy(),
                None if q is None else q.cpu().numpy(),
            )
        )
