"""The training loop of JULE: periods of CNN updates and merges, with everything a resume needs."""

from __future__ import annotations

import hashlib
import json
import math
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from tqdm import tqdm

from reprolib.checks import pick_device
from reprolib.data.images import to_float_images
from reprolib.graph.digraph import Digraph, knn_digraph, one_link_clusters
from reprolib.graph.strays import join_disconnected, linkage_without_strays
from reprolib.methods.base import unit_rows
from reprolib.methods.losses import sample_triplets, squared_distances, weighted_triplet_loss
from reprolib.networks.embedding import ConvEmbedding
from reprolib.training.checkpoint import (
    CheckpointError,
    inverse_decay,
    load_checkpoint,
    save_checkpoint,
)

if TYPE_CHECKING:
    from reprolib.methods.jule import JULE


@dataclass(frozen=True)
class Stage:
    """What a monitor sees after each clustering: copies, so that it cannot influence the run.

    `period` counts from 0 (the initial clusters); `embedding` float32 (n, d): unit pixels at period 0,
    CNN features later.
    """

    period: int
    n_clusters: int
    labels: np.ndarray
    embedding: np.ndarray


def period_lengths(n_initial: int, n_clusters: int, unrolling_rate: float) -> list[int]:
    """Numbers of clusters at the end of each period (paper 002, section 3.6), n_initial first.

    A period merges ceil(eta * n_c) times but never below the target: 1762, 176, 17, 10 for eta 0.9.
    """
    if not 0.0 < unrolling_rate <= 1.0:
        raise ValueError(f"unrolling_rate must be in (0, 1], got {unrolling_rate}")
    counts = [n_initial]
    while counts[-1] > n_clusters:
        merged = math.ceil(unrolling_rate * counts[-1])
        counts.append(max(counts[-1] - merged, n_clusters))
    return counts


EMBED_ROWS = 1000


@torch.no_grad()
def embed(
    network: ConvEmbedding,
    images: torch.Tensor,
    *,
    batch_size: int = EMBED_ROWS,
    statistics: str = "running",
) -> np.ndarray:
    """Unit embedding float32 (n, d) of float images (n, c, h, w), in order (paper 002, equation 5a).

    `statistics="batch"` normalises each block of `batch_size` images by its own mean and variance,
    as JULE.torch does between periods; the running statistics stay as they were.
    """
    network.train(statistics == "batch")
    momentum = [norm.momentum for norm in network.norms]
    for norm in network.norms:
        norm.momentum = 0.0
    device = next(network.parameters()).device
    parts = [network(block.to(device)).cpu() for block in images.split(batch_size)]
    for norm, value in zip(network.norms, momentum, strict=True):
        norm.momentum = value
    return torch.cat(parts).numpy()


def _count(labels: np.ndarray) -> int:
    return int(labels.max()) + 1


class Run:
    """State of one fit: everything that a checkpoint must restore."""

    def __init__(
        self,
        model: JULE,
        pixels: np.ndarray,
        monitor: Callable[[Stage], None] | None,
        checkpoint: str | os.PathLike | None,
    ) -> None:
        self.model, self.settings = model, model.settings()
        self.monitor, self.checkpoint = monitor, checkpoint
        self.device = pick_device(model.device)
        self.images = to_float_images(pixels)
        self.generator = torch.Generator().manual_seed(model.random_state)
        self.network = ConvEmbedding(
            pixels.shape[1:],
            model.embedding_dim,
            model.channels,
            self.settings["scale_init"],
            self.generator,
        ).to(self.device)
        self.optimizer = torch.optim.SGD(
            self.network.parameters(),
            lr=model.learning_rate,
            momentum=model.momentum,
            dampening=self.settings["dampening"],
            weight_decay=model.weight_decay,
        )
        self.period, self.epoch, self.step = 0, 0, 0
        self.sigma2 = 1.0
        self.history: list[dict[str, Any]] = []
        self.fingerprint = self._fingerprint(pixels)
        raw = unit_rows(pixels)
        nearest = knn_digraph(raw, model.n_neighbors, model.bandwidth).indices[:, 0]
        self.labels = one_link_clusters(nearest)
        self.counts = period_lengths(
            self._checked_initial(), model.n_clusters, model.unrolling_rate
        )
        if checkpoint is not None and os.path.exists(checkpoint):
            self._restore()
        if self.period == 0 and self.epoch == 0:
            self._report(raw)

    def _checked_initial(self) -> int:
        n_initial = _count(self.labels)
        if self.model.n_clusters > n_initial:
            raise ValueError(
                f"n_clusters={self.model.n_clusters} is more than the {n_initial} initial clusters that "
                f"{len(self.labels)} images give: ask for at most {n_initial}"
            )
        return n_initial

    def train(self) -> None:
        """Alternate CNN updates and merges until the target is reached.

        Source: paper 002, Algorithm 1 and equations 2, 6 and 9.
        """
        total = (len(self.counts) - 1) * self.model.n_epochs
        done = self.period * self.model.n_epochs + self.epoch
        with tqdm(total=total, initial=done, unit="epoch", disable=not self.model.verbose) as bar:
            while self.period < len(self.counts) - 1:
                if self.epoch == 0:
                    self.sigma2 = self._feature_sigma2()
                while self.epoch < self.model.n_epochs:
                    entry = self._train_epoch()
                    self.epoch += 1
                    self.history.append(entry)
                    self._save()
                    bar.set_postfix(
                        period=f"{self.period + 1}/{len(self.counts) - 1}",
                        clusters=self.counts[self.period],
                        loss=f"{entry['loss']:.4f}",
                    )
                    bar.update()
                self._merge()

    def _feature_sigma2(self) -> float:
        if self.settings["triplet_loss"] != "affinity":
            return 1.0
        model = self.model
        sigma2 = knn_digraph(self.embed(), model.n_neighbors, model.bandwidth).sigma2
        return sigma2 if sigma2 > 0 else 1.0

    def _train_epoch(self) -> dict[str, Any]:
        began = time.perf_counter()
        if self.settings["decay_restarts"] and self.epoch == 0:
            self.step = 0
        self.network.train()
        labels = torch.from_numpy(self.labels.astype(np.int64))
        loss_sum, n_triplets, n_batches = 0.0, 0, 0
        order = torch.randperm(len(self.images), generator=self.generator)
        for batch in order.split(self.model.batch_size):
            if len(batch) < 2:  # batch statistics of one image are undefined
                continue
            loss, count = self._train_step(batch, labels[batch])
            loss_sum += loss * count
            n_triplets += count
            n_batches += 1
        return dict(
            period=self.period,
            epoch=self.epoch,
            n_clusters=self.counts[self.period],
            loss=loss_sum / max(n_triplets, 1),
            n_triplets=n_triplets,
            n_batches=n_batches,
            seconds=time.perf_counter() - began,
        )

    def _train_step(self, batch: torch.Tensor, labels: torch.Tensor) -> tuple[float, int]:
        s, model = self.settings, self.model
        rate = inverse_decay(self.step, model.learning_rate, model.decay, model.power)
        self.optimizer.param_groups[0]["lr"] = rate
        self.step += 1
        half = model.precision == "bfloat16"
        with torch.autocast(self.device.type, torch.bfloat16, enabled=half):
            x = self.network(self.images[batch].to(self.device)).float()  # (b, d)
        others = x
        if s["gradient"] == "released":
            # its in-place arithmetic leaves the other two gradients scaled by gamma - 1
            others = x.detach() + (s["gamma"] - 1.0) * (x - x.detach())
        distances = squared_distances(x, others)  # (b, b)
        triplets = sample_triplets(
            labels,
            s["n_negatives"],
            negatives=s["negatives"],
            distances=distances.cpu(),
            ordered=s["ordered_pairs"],
            generator=self.generator,
        )
        count = triplets.negative.numel()
        self.optimizer.zero_grad(set_to_none=False)
        value = 0.0
        if count:
            loss = weighted_triplet_loss(
                distances,
                triplets,
                kind=s["triplet_loss"],
                gamma=s["gamma"],
                margin=s["margin"],
                sigma2=self.sigma2,
            )
            (s["loss_scale"] * loss).backward()
            value = float(loss.detach())
            if not math.isfinite(value):
                raise FloatingPointError(
                    f"the loss became {value} in period {self.period}, epoch {self.epoch}: lower learning_rate"
                )
        self.optimizer.step()
        return value, count

    def embed(self) -> np.ndarray:
        """Representation X of all images under the variant's statistics of the normalisation."""
        statistics = self.settings["feature_statistics"]
        size = self.model.batch_size if statistics == "batch" else EMBED_ROWS
        return embed(self.network, self.images, batch_size=size, statistics=statistics)

    def _link(self, features: np.ndarray, digraph: Digraph, labels: np.ndarray) -> np.ndarray:
        """The merges of one period on one representation: labels int32 (n,) in and out."""
        model = self.model
        target = period_lengths(_count(labels), model.n_clusters, model.unrolling_rate)[1]
        labels = linkage_without_strays(
            features,
            digraph,
            labels,
            target,
            rule=self.settings["strays"],
            n_clusters=model.n_clusters,
            local_weight=model.local_weight,
            n_neighbor_clusters=model.n_neighbor_clusters,
            mode=self.settings["linkage_mode"],
        ).labels
        return join_disconnected(features, labels, target)

    def _merge(self) -> None:
        features = self.embed()
        digraph = knn_digraph(features, self.model.n_neighbors, self.model.bandwidth)
        self.labels = self._link(features, digraph, self.labels)
        self.period, self.epoch = self.period + 1, 0
        # before the checkpoint: killed in between, the stage is reported twice rather than never
        self._report(features)
        self._save()

    def cluster_again(self, features: np.ndarray) -> np.ndarray:
        """OURS-RC: the initial clusters and all merges anew on the final representation."""
        digraph = knn_digraph(features, self.model.n_neighbors, self.model.bandwidth)
        labels = one_link_clusters(digraph.indices[:, 0])
        while _count(labels) > self.model.n_clusters:
            labels = self._link(features, digraph, labels)
        return labels

    def _report(self, embedding: np.ndarray) -> None:
        if self.monitor is not None:
            stage = Stage(self.period, _count(self.labels), self.labels.copy(), embedding.copy())
            self.monitor(stage)

    def _fingerprint(self, pixels: np.ndarray) -> str:
        parameters = self.model.get_params() | self.settings
        for irrelevant in ("device", "verbose"):
            parameters.pop(irrelevant)
        digest = hashlib.sha256(json.dumps(parameters, sort_keys=True).encode())
        digest.update(str((pixels.shape, pixels.dtype)).encode())
        digest.update(pixels.tobytes())
        return digest.hexdigest()

    def _save(self) -> None:
        if self.checkpoint is None:
            return
        tensors = {f"network.{k}": v for k, v in self.network.state_dict().items()}
        for name, parameter in self.network.named_parameters():
            buffer = self.optimizer.state[parameter].get("momentum_buffer")
            if buffer is not None:
                tensors[f"momentum.{name}"] = buffer
        tensors["labels"] = torch.from_numpy(self.labels)
        tensors["generator"] = self.generator.get_state()
        state = dict(
            fingerprint=self.fingerprint,
            period=self.period,
            epoch=self.epoch,
            step=self.step,
            sigma2=self.sigma2,
            history=self.history,
        )
        save_checkpoint(self.checkpoint, tensors, state)

    def _restore(self) -> None:
        tensors, state = load_checkpoint(self.checkpoint)
        if state.get("fingerprint") != self.fingerprint:
            raise CheckpointError(
                f"{self.checkpoint} was written with other images or parameters: delete it, or name another"
            )
        weights = {k[8:]: v for k, v in tensors.items() if k.startswith("network.")}
        self.network.load_state_dict(weights)
        for name, parameter in self.network.named_parameters():
            buffer = tensors.get(f"momentum.{name}")
            if buffer is not None:
                self.optimizer.state[parameter]["momentum_buffer"] = buffer.to(self.device)
        self.labels = tensors["labels"].numpy()
        self.generator.set_state(tensors["generator"])
        self.period, self.epoch, self.step = state["period"], state["epoch"], state["step"]
        self.sigma2, self.history = state["sigma2"], state["history"]
