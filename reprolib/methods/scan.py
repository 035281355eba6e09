"""SCAN: clusters learned from neighbours, then from their own confident labels (Van Gansbeke et al. 2020).

The clustering step of paper 000, section 2.3. Some gates are ours, off by default: see `SCAN`.
"""

import copy
import math
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from reprolib import metrics
from reprolib.kernels.knn import knn
from reprolib.methods.base import BatchSize, Count, Natural, Positive, Weight
from reprolib.methods.simclr import Budgeted, Features, SimCLR, over_images, standardized
from reprolib.methods.starts import centers_of
from reprolib.networks.resnet import Classifier
from reprolib.training import distributed
from reprolib.training.trainer import ROWS, Run, Stage, as_numpy, under

# Signs of a self-labelling that goes wrong, against its first assignments
FALLEN, HALVED, RISEN = 0.05, 0.5, 1.2  # entropy of the mean, nats; smallest share; mean entropy of a row
COLLAPSED = 0.5  # of log K: an entropy of the mean below tells of lost clusters


def scan_loss(p: Tensor, others: Tensor, entropy_weight: float) -> tuple[Tensor, Tensor]:
    """Consistency and entropy term of equation 2, nats, for p and those of a neighbour each, (b, K), rows sum to one.

    The mean of -log <p, p'>, and lambda times the sum of h' log h' for h' the mean of p. Of the batch, not of all
    images, and for one neighbour, not the sum over M: as the released code. Source: paper 000, equation 2.
    """
    tiny = torch.finfo(p.dtype).tiny
    consistency = -(p * others).sum(1).clamp_min(tiny).log().mean()
    return consistency, -entropy_weight * torch.special.entr(p.mean(0)).sum()


def balanced_cross_entropy(logits: Tensor, labels: Tensor, kept: Tensor) -> Tensor:
    """Cross entropy in nats of logits (b, K) and labels int64 (b,) where `kept` (b,): the mean of the clusters' means.

    What the class weights n / count of the released SCAN come to. 0, with no gradient, where nothing is kept.
    """
    terms = -logits.log_softmax(1).gather(1, labels[:, None])[:, 0]  # (b,)
    # not `one_hot`, which on the host looks whether the ids are in range
    members = (labels[:, None] == torch.arange(logits.shape[1], device=labels.device)) & kept[:, None]
    members = members.to(terms.dtype)  # (b, K)
    counts = members.sum(0)
    means = (terms @ members) / counts.clamp_min(1)
    return means.sum() / (counts > 0).sum().clamp_min(1)


def signs(q: Tensor, confident: float) -> dict[str, float]:
    """What soft assignments q (n, K) tell without labels: entropies in nats, shares of all images."""
    shares = torch.bincount(q.argmax(1), minlength=q.shape[1]) / len(q)
    found = {
        "confident": (q.amax(1) > confident).double().mean(),
        "entropy": torch.special.entr(q.mean(0)).sum(),
        "row_entropy": torch.special.entr(q).sum(1).mean(),
        "largest": shares.max(),
        "smallest": shares.min(),
    }
    return {name: float(value) for name, value in found.items()}


class Clustered(Budgeted):
    """A stage that trains f = h(g'), and tells how sure and how even it is, and how far from the labels before."""

    report_every, result = 5, ""

    def build(self) -> None:
        options = {"lr": self.rate, "weight_decay": self.model.weight_decay}
        self.run.optimizers = {"adam": self.run.adam(self.module("f").parameters(), **options)}

    @property
    def rate(self) -> float:
        """Rate of Adam."""
        return self.model.learning_rate

    def assigned(self, n: int | None = None) -> Tensor:
        """Soft assignments (n, K) of all images, or the first n, as they are, on the device."""
        return over_images(self.run, self.module("f"), n).softmax(1)

    def summary(self, sums: Mapping[str, float], n_batches: int) -> dict[str, float]:
        """Means of the steps, `signs`, and the agreement with the round before, where there was one."""
        q = self.assigned(self.n)
        told = super().summary(sums, n_batches) | signs(q, self.model.t_f)
        if self.round:
            before = as_numpy(self.run.tensors[f"before.{self.member}"][: self.n])
            told["agreement"] = metrics.accuracy(before, as_numpy(q.argmax(1)))
        return told

    @torch.no_grad()
    def report(self) -> Features:
        run, network = self.run, self.module("f")
        found = over_images(run, network.embedding)
        q = as_numpy(over_features(run, network.head, found).softmax(1))
        neighbors = as_numpy(run.tensors[f"neighbors.{self.member}"][:, 1:])
        labels = q.argmax(1).astype(np.int32)
        return Features(self.name, self.period(), labels, as_numpy(found), q, neighbors=neighbors)

    def end(self) -> None:
        q = self.assigned()
        confidence, labels = q.max(1)
        kept = {f"labels.{self.member}": labels.int(), f"confidence.{self.member}": confidence}
        if self.round == self.member == 0:
            kept[f"result.{self.result}"] = labels.int()
        self.run.tensors |= kept
        if not self.model.separate:
            self.module("g").load_state_dict(self.module("f").embedding.state_dict())
        self.judge(q[: self.n])

    def judge(self, q: Tensor) -> None:
        """What is to be done about the assignments q (n, K) that the stage leaves."""


def over_features(run: Run, layer: nn.Module, features: Tensor) -> Tensor:
    """What a layer makes of features (n, d) of all images, float32 (n, ...), as where it follows their network."""
    with run.autocast():
        return torch.cat([layer(part).float() for part in features.split(ROWS)])


class Scan(Clustered):
    """Steps on an image and one of its neighbours each along equation 2: g' begins as g, the head anew."""

    name, result = "scan", "scan"

    def build(self) -> None:
        run, model = self.run, self.model
        embedding = copy.deepcopy(self.module("g"))
        run.module(f"f{self.member}", Classifier(embedding, model.n_clusters, run.generator))
        super().build()

    @torch.no_grad()
    def begin(self) -> None:
        run, model = self.run, self.model
        if self.round:
            run.tensors[f"before.{self.member}"] = run.tensors[f"labels.{self.member}"].clone()
        features = over_images(run, self.module("g"))  # (n, d)
        mined = features if model.mined_in == "features" else over_features(run, self.module("p"), features)
        neighbors = knn(F.normalize(mined[: self.n], dim=1), min(model.n_neighbors, self.n - 1))[1]  # (n, M)
        itself = torch.arange(self.n, device=neighbors.device)[:, None]
        run.tensors[f"neighbors.{self.member}"] = torch.cat([itself, neighbors], 1).int().to(run.device)
        if self.round == self.member == 0:
            latent = as_numpy(F.normalize(features, dim=1))
            labels = model.by_kmeans(latent, run.seed)
            run.tensors["result.kmeans"] = torch.from_numpy(labels)
            seen = {"neighbors": as_numpy(neighbors)}
            run.tell(lambda: Features("pretext", 0, labels, latent, **seen))
        if model.head != "random":
            self.place_head(features[: self.n])

    def place_head(self, features: Tensor) -> None:
        """Set the head to tell features (n, d) by their nearest center, as sure as their distances from it: ours.

        The centers are those of the clusters that `head` finds in them at unit length.
        """
        run, model = self.run, self.model
        labels, _ = centers_of(model.head, as_numpy(F.normalize(features, dim=1)), model.n_clusters, run.seed)
        ids = torch.from_numpy(labels).to(run.device).long()
        member = F.one_hot(ids, model.n_clusters).float()  # (n, K)
        centers = (member.T @ features) / member.sum(0)[:, None]  # no cluster of a start is empty
        spread = (features - centers[ids]).square().sum(1).mean()
        head = self.module("f").head
        head.weight.copy_(2 * centers / spread)
        head.bias.copy_(-centers.square().sum(1) / spread)

    def step(self, batch: Tensor) -> dict[str, Tensor]:
        run, model = self.run, self.model
        batch = batch.to(run.device)
        neighbors = run.tensors[f"neighbors.{self.member}"][batch]  # (b, 1 + M)
        first = int(not model.self_neighbor)
        drawn = torch.rand(len(batch), generator=run.noise, device=run.device)
        at = first + (drawn * (neighbors.shape[1] - first)).long()
        others = neighbors.gather(1, at[:, None])[:, 0].long()
        images = self.views(torch.stack([batch, others]), model.strong_views)
        with run.autocast():
            logits = self.whole(self.module("f")(images), 2).float()  # (2 b, K)
        consistency, entropy = scan_loss(*logits.softmax(1).chunk(2), model.entropy_weight)
        loss = consistency + entropy
        run.descend("adam", loss)
        return {"loss": loss.detach(), "consistency": consistency.detach()}

    def judge(self, q: Tensor) -> None:
        found, even = signs(q, self.model.t_f), math.log(self.model.n_clusters)
        if found["entropy"] < COLLAPSED * even:
            self.stop(
                f"the clusters have collapsed, the largest has {found['largest']:.0%} of the images (entropy of the "
                f"mean {found['entropy']:.2f} of {even:.2f} nats): take a larger entropy_weight, a smaller "
                "learning_rate, or more pretext_steps",
                self.round,
            )


class SelfLabel(Clustered):
    """Steps on a strong view of each confident image towards the label of the image as it is (section 2.3)."""

    name, result = "self-labelling", "labelled"

    @property
    def rate(self) -> float:
        return self.model.label_rate

    def begin(self) -> None:
        run, model = self.run, self.model
        first = signs(self.assigned(self.n), model.t_f)
        run.numbers["first signs"] = first
        self.keep_network()
        if first["confident"] < model.label_from:
            self.call_off(
                f"left out, as {first['confident']:.1%} of the images have a probability above t_f={model.t_f}, less "
                f"than label_from={model.label_from}: take more scan_steps, or a smaller t_f"
            )

    def step(self, batch: Tensor) -> dict[str, Tensor]:
        run, model = self.run, self.model
        batch, network = batch.to(run.device), self.module("f")
        plain = standardized(run.batch(distributed.part(batch)), *model.moments(run))
        images = self.views(batch[None], model.strong_views)
        with run.autocast():
            with torch.no_grad():  # its statistics are those of the batch, as released
                confidence, labels = self.whole(network(plain), 1).float().softmax(1).max(1)
            logits = self.whole(network(images), 1).float()
        kept = confidence > model.t_f
        loss = balanced_cross_entropy(logits, labels, kept)
        run.descend("adam", loss)
        return {"loss": loss.detach(), "kept": kept.double().mean()}

    def end_epoch(self) -> None:
        """With `guard`, keep what has no sign of going wrong, or go back to it and end."""
        run = self.run
        if not self.model.guard:
            return
        first, now, network = run.numbers["first signs"], run.history[-1], self.module("f")
        bad = now["entropy"] < first["entropy"] - FALLEN or now["smallest"] < HALVED * first["smallest"]
        if bad or now["row_entropy"] > RISEN * first["row_entropy"]:
            network.load_state_dict(under(run.tensors, "good."))
            self.call_off("it went wrong by its signs, and ends with what it was an epoch ago")
        else:
            self.keep_network()

    def keep_network(self) -> None:
        """Keep what a guarded stage goes back to."""
        if self.model.guard:
            self.run.tensors |= {f"good.{k}": v.clone() for k, v in self.module("f").state_dict().items()}

    def end(self) -> None:
        super().end()
        for name in under(self.run.tensors, "good."):
            del self.run.tensors[f"good.{name}"]


class SCAN(SimCLR):
    """SCAN (Van Gansbeke et al. 2020): SimCLR's embedding, then clusters that an image shares with its neighbours.

    As paper 000, section 2.3, builds on it: f = h(g'), g' beginning as g. Budgets are in steps; the paper's, of
    CIFAR-10, are 50 epochs of 390 and, of self-labelling, 200 of 50. Not in the paper, off by default: `head`, centers
    of k-means or of the graph linkage for h to begin with; `label_from`, the share of images that must be confident for
    self-labelling to begin; `guard`, which ends it by signs without labels. After `fit` `results_`: "kmeans" on g;
    "scan"; with `label_steps` "labelled". In `history_`: "confident", the share of images above t_f; "entropy" of the
    mean assignment and "row_entropy", nats; "largest" and "smallest", shares of clusters; "kept", in self-labelling.
    """

    n_neighbors: Count = 20  # M; the paper is silent
    self_neighbor: bool = True  # an image among its own neighbours, as released
    mined_in: Literal["projection", "features"] = "projection"
    separate: bool = True  # g stays as the contrastive loss left it; else it becomes g'
    head: Literal["random", "kmeans", "gdl"] = "random"  # ours, but the first
    strong_views: Literal["strong", "simclr", "digits", "whole-digits", "fashion"] = "strong"
    scan_steps: Count = 19_500
    scan_batch: BatchSize = 128
    learning_rate: Positive = 1e-4
    entropy_weight: Weight = 5.0  # lambda; the paper is silent
    label_steps: Natural = 10_000
    label_batch: BatchSize = 1000
    label_rate: Positive = 1e-4
    t_f: Weight = 0.99  # the paper is silent
    label_from: Weight = 0.0  # ours
    guard: bool = False  # ours
    RESULTS: ClassVar = {"kmeans": "k-means on g", "scan": "SCAN, not self-labelled", "labelled": "SCAN"}

    def clustering(self, run: Run, round: int = 0, member: int = 0) -> list[Stage]:
        """The clustering step of a member in a round."""
        found: list[Stage] = [Scan(run, self.scan_steps, self.scan_batch, round, member)]
        if self.label_steps:
            found.append(SelfLabel(run, self.label_steps, self.label_batch, round, member))
        return found

    def stages(self, run: Run, X: Any = None) -> list[Stage]:
        """The pretext, SCAN and, if it has steps, self-labelling."""
        return [*super().stages(run), *self.clustering(run)]

    def finish(self, run: Run) -> dict[str, np.ndarray]:
        """Keep the features; the labels that the stages have left."""
        self.keep(run)
        left = under(run.tensors, "result.")
        return {name: as_numpy(left[name]) for name in self.RESULTS if name in left}

    def predict(self, X: Any) -> np.ndarray:
        """Labels int32 (n,) of images of the fitted shape."""
        return as_numpy(self._made("f0", X).argmax(1)).astype(np.int32)
