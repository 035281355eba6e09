"""SimCLR: an embedding g of images learned from pairs of random views, the first step of SCAN and ProFeat (paper 000).

`SCAN` and `ProFeat` are built on the classes here.
"""

import math
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from sklearn.decomposition import PCA
from sklearn.metrics import pairwise_distances_argmin
from torch import Tensor, nn
from torch.nn import functional as F

from reprolib.data.images import as_pixels
from reprolib.kernels.contrastive import contrastive_loss
from reprolib.kernels.views import RECIPES, draw, views
from reprolib.methods.base import BatchSize, Count, Natural, OfImages, Positive, TrainedEstimator, Weight, check_count
from reprolib.methods.starts import kmeans_start
from reprolib.networks.resnet import Projection, ResNet
from reprolib.training import distributed
from reprolib.training.monitor import Report
from reprolib.training.trainer import ROWS, Run, Stage, as_numpy

PRETEXT = "pretext"
COMPONENTS = 10  # of the features, that a record keeps
DECAY = 0.1**3  # of the rate at the end of its cosine, as released: 0.4 to 0.0004


def cosine(t: int, total: int, rate: float) -> float:
    """Rate of epoch t of `total`: from `rate` along a cosine to a thousandth of it, which epoch `total` would have.

    Source: paper 000, section 3; the curve and its steps, by epochs, from the released SCAN.
    """
    return rate * (DECAY + (1 - DECAY) * (1 + math.cos(math.pi * t / total)) / 2)


class Budgeted(Stage):
    """A stage of `n_steps` steps on whole batches: an epoch is a pass over n images, the last one cut short.

    It is that of a `member` of an ensemble in a `round` of ProFeat, from 0. No round follows one that was stopped.
    """

    unlabelled = False  # whether the images of the pretext alone are among the n

    def __init__(self, run: Run, n_steps: int, batch_size: int, round: int = 0, member: int = 0) -> None:
        self.first = run.model.n_first(len(run.inputs))
        self.n = self.first + (run.model.n_unlabelled if self.unlabelled else 0)
        self.size = max(min(batch_size, self.n), 1)
        self.n_batches, self.n_steps = max(self.n // self.size, 1), n_steps
        self.round, self.member = round, member
        super().__init__(run, -(-n_steps // self.n_batches))

    @property
    def epochs(self) -> int:
        """Passes that it takes, or at which it was called off."""
        return 0 if self.skipped else min(self.planned, self.run.numbers.get("off", {}).get(self.key, self.planned))

    @epochs.setter
    def epochs(self, value: int) -> None:
        self.planned = value

    @property
    def key(self) -> str:
        """What tells this stage from all others of a run."""
        return f"{self.name} {self.round} {self.member}"

    def call_off(self, why: str) -> None:
        """End this stage at this epoch, with a warning; it stays so where the run goes on from a checkpoint."""
        warnings.warn(f"{self.name} of round {self.round}: {why}", stacklevel=2)
        self.run.numbers["off"] = self.run.numbers.get("off", {}) | {self.key: self.run.epoch}

    def stop(self, why: str, last: int) -> None:
        """Let no round follow round `last`, with a warning."""
        warnings.warn(f"{self.name} of round {self.round}: {why}", stacklevel=2)
        self.run.numbers["last round"] = last

    @property
    def skipped(self) -> bool:
        return self.round > self.run.numbers.get("last round", self.round)

    def module(self, kind: str) -> nn.Module:
        """The network of this member: "g", "p" or "f"."""
        return self.run.modules[f"{kind}{self.member}"]

    def batches(self) -> Iterator[Tensor]:
        order = torch.randperm(self.n, generator=self.run.generator)
        order += (order >= self.first) * (len(self.run.inputs) - self.n)  # the unlabelled ones come last
        order = order.to(self.run.inputs.device)
        left = self.n_steps - self.run.epoch * self.n_batches
        return iter(order.split(self.size)[: min(self.n_batches, left)])

    def row(self) -> dict[str, Any]:
        return super().row() | {"round": self.round, "member": self.member}

    def period(self) -> int:
        """Epochs behind the pretexts, which come first."""
        return sum(row["stage"] != PRETEXT for row in self.run.history)

    def views(self, indices: Tensor, recipe: str) -> Tensor:
        """A random view each of images (v, b), float32 (v b, c, h, w); of several processes, of this one's part."""
        run = self.run
        drawn = draw(indices.numel(), run.noise, run.device).unflatten(0, indices.shape)
        images = run.batch(distributed.part(indices, 1).flatten())
        drawn = distributed.part(drawn, 1).flatten(0, 1)
        return views(images, drawn, RECIPES[recipe], *self.model.moments(run))

    @staticmethod
    def whole(made: Tensor, v: int) -> Tensor:
        """What networks made of v views (v b, d), with what all processes did of their parts."""
        return distributed.gathered(made.unflatten(0, (v, -1)), 1).flatten(0, 1)


class Contrast(Budgeted):
    """Steps on two views of each image of a batch along equation 1: every image a cluster of its own."""

    name, unlabelled = PRETEXT, True
    shared = ("n_train", "n_unlabelled", "network", "width", "stem", "views", "pretext_steps", "pretext_batch")
    shared += (
        "pretext_rate",
        "temperature",
        "momentum",
        "weight_decay",
        "anchors",
        "reduction",
        "precision",
        "random_state",
    )

    def __init__(self, run: Run, *options: int) -> None:
        super().__init__(run, *options)
        if self.member:  # behind it a run has more than a model of its own
            self.shared = ()

    @property
    def rate(self) -> float:
        """Rate of the first epoch."""
        return self.model.pretext_rate

    def build(self) -> None:
        run, model, e = self.run, self.model, self.member
        if f"g{e}" not in run.modules:
            embedding = run.module(f"g{e}", model.embedding(run.inputs.shape[1], run.generator))
            run.module(f"p{e}", Projection(embedding.n_features, run.generator))
        weights = [*self.module("g").parameters(), *self.module("p").parameters()]
        sgd = run.sgd(weights, momentum=model.momentum, weight_decay=model.weight_decay)
        run.optimizers = {"sgd": sgd}

    def schedule(self) -> None:
        self.run.set_rate("sgd", cosine(self.run.epoch, self.epochs, self.rate))

    def clusters(self, batch: Tensor) -> dict[str, Any]:
        """Which images of a batch (b,) are one cluster, and which take part, as `contrastive_loss` takes it."""
        return {"votes": None}

    def step(self, batch: Tensor) -> dict[str, Tensor]:
        run, model = self.run, self.model
        batch = batch.to(run.device)
        both = self.views(torch.stack([batch, batch]), model.views)
        with run.autocast():
            z = self.whole(self.module("p")(self.module("g")(both)), 2)  # (2 b, 128)
        clusters = self.clusters(batch)
        options = {"temperature": model.temperature, "anchors": model.anchors, "reduction": model.reduction}
        loss = contrastive_loss(z, **clusters, **options)
        run.descend("sgd", loss)
        kept = clusters.get("kept")
        return {"loss": loss.detach()} | ({} if kept is None else {"kept": kept.double().mean()})


@dataclass(frozen=True)
class Features(Report):
    """A report with the features' nearest neighbours int64 (n, M), whose purity the labels tell."""

    neighbors: np.ndarray | None = None

    def arrays(self, points: np.ndarray) -> dict[str, np.ndarray]:
        """As of all methods, of ten principal components: of hundreds of features a record would be large."""
        few = PCA(min(COMPONENTS, *self.embedding.shape), svd_solver="covariance_eigh")
        return super(Features, replace(self, embedding=few.fit_transform(self.embedding))).arrays(points)

    def judged(self, labels: np.ndarray) -> dict[str, float]:
        """Share of neighbours of the same class."""
        if self.neighbors is None:
            return {}
        return {"purity": float((labels[self.neighbors] == labels[: len(self.neighbors), None]).mean())}


def over_images(run: Run, network: Callable[[Tensor], Tensor], n: int | None = None) -> Tensor:
    """What a network makes of all images, or the first n, as they are: float32 (n, ...), on the device."""
    mean, deviation = run.model.moments(run)

    def made(images: Tensor) -> Tensor:
        with run.autocast():
            return network(standardized(images, mean, deviation)).float()

    return run.over_all(made, n)


def standardized(images: Tensor, mean: Tensor, deviation: Tensor) -> Tensor:
    """Network inputs float32 of images uint8 (b, c, h, w), channels last, by mean and deviation (c,) of a channel."""
    inputs = (images.float() / 255 - mean[:, None, None]) / deviation[:, None, None]
    return inputs.contiguous(memory_format=torch.channels_last)


def unit_features(run: Run, member: int = 0) -> np.ndarray:
    """Features g(x) of unit length (n, d) of all images."""
    return as_numpy(F.normalize(over_images(run, run.modules[f"g{member}"]), dim=1))


class SimCLR(OfImages, TrainedEstimator):
    """Contrastive learning of an embedding g (Chen et al. 2020), and k-means on it.

    The representation step of paper 000, section 2.2, as the released SCAN has it. Budgets are in steps: the paper's
    500 epochs of CIFAR-10 are 48,500. `views`: a recipe of `reprolib.kernels.views`. After `fit`: `labels_` of
    k-means; `embedding_` float32 (n, d), features of unit length; `transform` gives those of new images.
    """

    network: Literal["resnet18", "narrow"] = "resnet18"
    width: Count = 64  # channels of the first convolution; ResNet-18 has 8, the narrow one 4 times as many features
    stem: Literal["plain", "strided", "pooled"] = "plain"
    views: Literal["simclr", "digits", "whole-digits", "fashion"] = "simclr"
    pretext_steps: Count = 48_500
    pretext_batch: BatchSize = 512  # B
    pretext_rate: Positive = 0.4
    temperature: Positive = 0.1  # tau
    momentum: Weight = 0.9
    weight_decay: Weight = 1e-4
    anchors: Literal["both", "first"] = "both"  # views that equation 1 looks from; the released code's are the first
    reduction: Literal["anchor", "pair", "sum"] = "anchor"  # of equation 1, printed as a sum
    n_train: Natural = 0  # the first images, to learn from; the others are assigned alone, and scored. 0 for all
    n_unlabelled: Natural = 0  # the last images, which the pretext has too, and no score
    VARIANTS: ClassVar = {"paper": {}, "released": {"anchors": "first"}}

    @staticmethod
    def prepare(X: Any, *, to_cluster: bool = True) -> Tensor:
        """uint8 images (n, c, h, w), channels last; ValueError for images of floats outside [0, 1]."""
        pixels = as_pixels(X, to_cluster=to_cluster)
        if pixels.dtype != np.uint8:
            if (low := pixels.min()) < 0 or pixels.max() > 1:
                raise ValueError(
                    f"float images must lie in [0, 1], as views are made of 256 levels; got {low:.4g} to "
                    f"{pixels.max():.4g}: divide by the range, or pass uint8"
                )
            pixels = np.rint(255 * pixels).astype(np.uint8)
        return torch.from_numpy(pixels).contiguous(memory_format=torch.channels_last)

    def inputs(self, X: Any) -> Tensor:
        inputs = super().inputs(X)
        if self.n_train + self.n_unlabelled > len(inputs):
            said = f"n_train={self.n_train} and n_unlabelled={self.n_unlabelled} are more than the {len(inputs)} images"
            raise ValueError(f"{said}: 0 takes all, and none")
        check_count(self.n_first(len(inputs)), self.n_clusters)
        return inputs

    def n_first(self, n: int) -> int:
        """How many of n images, the first ones, are clustered while it learns."""
        return self.n_train or n - self.n_unlabelled

    def embedding(self, channels: int, generator: torch.Generator | None = None) -> ResNet:
        """An untrained g."""
        return ResNet(channels, self.network, self.width, self.stem, generator)

    def moments(self, run: Run) -> tuple[Tensor, Tensor]:
        """Mean and deviation (c,) of the images by channel, in [0, 1], kept with the run."""
        if "mean" not in run.tensors:
            images = run.inputs[: self.n_first(len(run.inputs))]
            count, blocks = images[:, 0].numel(), images.split(ROWS)
            mean = sum(block.double().sum((0, 2, 3)) for block in blocks) / (255 * count)  # (c,)
            square = sum(block.double().square().sum((0, 2, 3)) for block in blocks) / (255**2 * count)
            deviation = (square - mean.square()).clamp_min(1e-12).sqrt()
            run.tensors |= {"mean": mean.float().to(run.device), "deviation": deviation.float().to(run.device)}
        return run.tensors["mean"], run.tensors["deviation"]

    def stages(self, run: Run, X: Any = None) -> list[Stage]:
        """The pretext."""
        return [Contrast(run, self.pretext_steps, self.pretext_batch)]

    def finish(self, run: Run) -> dict[str, np.ndarray]:
        """Keep the features; their clusters by k-means."""
        self.keep(run)
        return {"kmeans": self.by_kmeans(self.embedding_, run.seed)}

    def by_kmeans(self, latent: np.ndarray, seed: int) -> np.ndarray:
        """Labels int32 (n,) of features (n, d), by the nearest center of k-means on those to learn from."""
        _, centers = kmeans_start(latent[: self.n_first(len(latent))], self.n_clusters, seed)
        return pairwise_distances_argmin(latent, centers).astype(np.int32)

    def keep(self, run: Run) -> None:
        """Keep the features, and what images are standardised by."""
        self.moments_ = [as_numpy(each).tolist() for each in self.moments(run)]
        self.embedding_ = unit_features(run)

    def transform(self, X: Any) -> np.ndarray:
        """Features float32 (n, d) of unit length of images of the fitted shape."""
        return as_numpy(F.normalize(self._made("g0", X), dim=1))

    @torch.no_grad()
    def _made(self, name: str, X: Any) -> Tensor:
        images, network = self._fitting_inputs(X), self.modules_[name].eval()
        device = next(network.parameters()).device
        moments = [torch.tensor(each, device=device) for each in self.moments_]
        return torch.cat([network(standardized(part.to(device), *moments)) for part in images.split(ROWS)])
