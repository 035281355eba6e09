"""JULE: agglomerative clustering and a CNN, jointly (paper 002, Algorithm 1)."""

import math
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from sklearn.neighbors import KNeighborsClassifier
from torch import Tensor, nn
from torch.nn import functional as F

from reprolib.checks import check_name
from reprolib.graph.digraph import Digraph, knn_digraph, one_link_clusters
from reprolib.graph.strays import join_disconnected, linkage_without_strays
from reprolib.kernels.triplets import Triplets, sample_triplets, squared_distances, triplet_mask
from reprolib.methods.base import BatchSize, Count, OfImages, Positive, TrainedEstimator, unit_rows
from reprolib.networks.embedding import ConvEmbedding, embed
from reprolib.training.monitor import Merged, Report
from reprolib.training.trainer import ROWS, Run, Stage

LAYERS = ("ip", "top-1", "top-2")  # from the top down (paper 002, section 4.2.1)

# loss_scale: lambda / (K_c - 1) before the sum of equation 11
NEAREST = dict(negatives="nearest", n_negatives=5)
AFFINITY = NEAREST | dict(triplet_loss="affinity", margin=0.0)
PRINTED = AFFINITY | dict(gamma=2.0, loss_scale=0.25, dampening=0.0)
# triplets; periods; network
RELEASED = dict(ordered_pairs=False, gradient="released")
RELEASED |= dict(decay_restarts=False, linkage_mode="released", strays="isolated")
RELEASED |= dict(feature_statistics="batch", scale_init="uniform")


class JULE(OfImages, TrainedEstimator):
    """Joint unsupervised learning of image clusters and a CNN (paper 002, equation 1).

    The defaults follow the text where it speaks and JULE.torch where it is silent, except for what is a slip there or
    depends on the order of the images; the triplets are those of both released codes. VARIANTS: "printed" takes
    equation 11 and Table 2 to the letter, "released" is JULE.torch; "affinity" and "nearest" are readings of equation
    11 between them. `precision="bfloat16"` trains under autocast; parameters and clustering stay in float32. After
    `fit`: `results_` "SF", the labels at the end of the recurrent process (OURS-SF, also `labels_`), and "RC", of
    clustering anew on the final representation; `embedding_` float32 (n, embedding_dim) of unit length;
    `n_clusters_by_period_`.
    """

    n_neighbors: Count = 20  # K_s
    bandwidth: float = 1.0  # a
    n_neighbor_clusters: int = 5  # K_c
    local_weight: float = 1.0  # lambda
    unrolling_rate: float = 0.9  # eta
    n_epochs: Count = 20  # of a period
    batch_size: BatchSize = 100
    learning_rate: Positive = 0.01
    decay: float = 1e-4
    power: float = 0.75
    momentum: float = 0.9
    weight_decay: float = 5e-5
    embedding_dim: Count = 160
    channels: Count = 50
    # on what follows the paper and the released codes differ, or the paper is silent
    triplet_loss: Literal["hinge", "linear", "affinity"] = "hinge"
    gamma: float = 1.0  # weight of the positive pair
    margin: float = 0.2
    loss_scale: float = 1.0
    negatives: Literal["nearest", "random"] = "random"
    n_negatives: Count = 20
    ordered_pairs: bool = True
    gradient: Literal["exact", "released"] = "exact"
    dampening: float = 0.9
    decay_restarts: bool = True
    linkage_mode: Literal["exact", "released"] = "exact"
    strays: Literal["leftover", "isolated", "never"] = "leftover"
    feature_statistics: Literal["running", "batch"] = "running"
    scale_init: Literal["ones", "uniform"] = "ones"
    MAIN: ClassVar = "SF"
    NETWORK: ClassVar[type[ConvEmbedding]] = ConvEmbedding
    VARIANTS: ClassVar = {"paper": {}, "printed": PRINTED, "released": RELEASED, "nearest": NEAREST}
    VARIANTS |= {"affinity": AFFINITY}

    def stages(self, run: Run, X: Any) -> list[Stage]:
        """One stage a period, from the one-link clusters of the pixels to n_clusters."""
        raw = unit_rows(X)
        labels = one_link_clusters(self.digraph(run, raw).indices[:, 0])
        n_initial = int(labels.max()) + 1
        if self.n_clusters > n_initial:
            raise ValueError(
                f"n_clusters={self.n_clusters} is more than the {n_initial} initial clusters that "
                f"{len(labels)} images give: ask for at most {n_initial}"
            )
        run.tensors["labels"] = torch.from_numpy(labels).to(run.device)
        counts = period_lengths(n_initial, self.n_clusters, self.unrolling_rate)
        self.n_clusters_by_period_ = counts
        start = Merged("pixels", 0, labels.copy(), raw)
        # no epochs where the initial clusters are as many as asked for: the CNN stays untrained
        epochs = self.n_epochs if len(counts) > 1 else 0
        return [Period(run, epochs, *at, start) for at in enumerate(counts[:-1] or counts)]

    def build(self, run: Run) -> None:
        """Make the CNN, untrained, for inputs of the run's shape."""
        sizes = (self.embedding_dim, self.channels, self.scale_init)
        shape = tuple(run.inputs.shape[1:])
        run.module("network", self.NETWORK(shape, *sizes, run.generator))

    def finish(self, run: Run) -> dict[str, np.ndarray]:
        """Keep the representation; cluster it anew: OURS-RC."""
        self.embedding_ = features_of(run)
        digraph = self.digraph(run, self.embedding_)
        labels = one_link_clusters(digraph.indices[:, 0])
        while labels.max() >= self.n_clusters:
            labels = self.link(self.embedding_, digraph, labels)
        return {"SF": run.tensors["labels"].cpu().numpy(), "RC": labels}

    def digraph(self, run: Run, features: np.ndarray) -> Digraph:
        """The k-NN digraph of features (n, d), searched on the device of the run."""
        return knn_digraph(torch.from_numpy(features).to(run.device), self.n_neighbors, self.bandwidth)

    def link(self, features: np.ndarray, digraph: Digraph, labels: np.ndarray) -> np.ndarray:
        """The merges of one period, labels int32 (n,) in and out: paper 002, Algorithm 1, equations 2 and 6."""
        n = int(labels.max()) + 1
        target = period_lengths(n, self.n_clusters, self.unrolling_rate)[1]
        names = ("n_clusters", "local_weight", "n_neighbor_clusters")
        options = {name: getattr(self, name) for name in names} | {"mode": self.linkage_mode}
        options["rule"] = self.strays
        linked = linkage_without_strays(features, digraph, labels, target, **options)
        return join_disconnected(features, linked.labels, target)

    @property
    def network_(self) -> nn.Module:
        """The fitted CNN."""
        return self.modules_["network"]

    def transform(self, X: Any) -> np.ndarray:
        """Unit embedding float32 (n, embedding_dim) of images of the fitted shape."""
        return embed(self.network_, self._fitting_inputs(X))

    def predict(self, X: Any) -> np.ndarray:
        """Cluster of new images int32 (n,): the vote of the nearest fitted images in the embedding."""
        embedding = self.transform(X)
        voters = KNeighborsClassifier(min(self.n_neighbors, len(self.labels_)))
        return voters.fit(self.embedding_, self.labels_).predict(embedding)

    @torch.no_grad()
    def represent(self, X: Any, layer: str = "ip") -> np.ndarray:
        """Outputs of one layer of the fitted CNN, flattened: float32 (n, d), in the order of X.

        layer: "ip", the inner product layer, or "top-1" and "top-2", the blocks below it. ValueError for a
        layer that is not there, and for images of another shape. Paper 002, section 4.2.1, Tables 4 to 6.
        """
        check_name("layer", layer, LAYERS)
        images, network, depth = self._fitting_inputs(X), self.network_.eval(), LAYERS.index(layer)
        if depth > len(network.blocks):
            raise ValueError(
                f"layer {layer!r} needs {depth} convolution blocks; this network, for images of shape "
                f"{self.input_shape_}, has {len(network.blocks)}"
            )
        device = next(network.parameters()).device
        parts = [network.features(part.to(device))[-1 - depth] for part in images.split(ROWS)]
        return torch.cat([part.flatten(1).cpu() for part in parts]).numpy()


class Period(Stage):
    """CNN updates on fixed clusters, then merges: paper 002, Algorithm 1 and equations 2, 6, 8 and 9."""

    def __init__(self, run: Run, epochs: int, number: int, n_clusters: int, start: Report) -> None:
        super().__init__(run, epochs)
        self.name, self.number = f"period {number + 1}, {n_clusters} clusters", number
        self.n_clusters, self.start = n_clusters, start

    def build(self) -> None:
        model, run = self.model, self.run
        if "network" in run.modules:  # network and momentum go on from the period before
            return
        model.build(run)
        options = {k: getattr(model, k) for k in ("momentum", "dampening", "weight_decay")}
        weights = run.modules["network"].parameters()
        run.optimizers = {"sgd": run.sgd(weights, **options)}
        run.numbers.setdefault("step", 0)  # where the run goes on it is known

    def begin(self) -> None:
        model, run, sigma2 = self.model, self.run, 1.0
        if self.number == 0:
            run.tell(lambda: self.start)
        if model.triplet_loss == "affinity":
            sigma2 = model.digraph(run, features_of(run)).sigma2
        run.numbers["sigma2"] = sigma2 if sigma2 > 0 else 1.0
        if model.decay_restarts:
            run.numbers["step"] = 0

    def schedule(self) -> None:
        decay_rate(self.run)

    def step(self, batch: Tensor) -> dict[str, Tensor | float]:
        model, run = self.model, self.run
        sgd = run.optimizers["sgd"]
        with run.autocast():
            x = run.modules["network"](run.batch(batch)).float()  # (b, d)
        others = x
        if model.gradient == "released":
            # its in-place arithmetic leaves the other two gradients scaled by gamma - 1
            others = x.detach() + (model.gamma - 1.0) * (x - x.detach())
        distances = squared_distances(x, others)  # (b, b)
        drawn = {"negatives": model.negatives, "ordered": model.ordered_pairs}
        drawn |= {"distances": distances, "generator": run.noise}
        weigh = {"kind": model.triplet_loss, "gamma": model.gamma, "margin": model.margin}
        weigh["sigma2"] = run.numbers["sigma2"]
        labels = run.tensors["labels"]
        labels = labels[batch.to(labels.device)]
        sgd.zero_grad(set_to_none=False)
        if run.on_cuda:  # the same shapes each time, so that the step can be replayed
            taken = triplet_mask(labels, model.n_negatives, **drawn)
            loss, count = masked_triplet_loss(distances, taken, **weigh)
        else:
            triplets = sample_triplets(labels, model.n_negatives, **drawn)
            count = triplets.negative.numel()
            loss = weighted_triplet_loss(distances, triplets, **weigh) if count else None
        if loss is not None:
            (model.loss_scale * loss).backward()
        sgd.step()
        return {"loss": 0.0 if loss is None else loss.detach().double() * count, "n_triplets": count}

    def summary(self, sums: Mapping[str, float], n_batches: int) -> dict[str, float]:
        """The mean loss of a triplet: batches have different numbers of them."""
        n_triplets = int(sums.get("n_triplets", 0))
        loss = sums.get("loss", 0.0) / max(n_triplets, 1)
        return {"loss": loss, "n_triplets": n_triplets, "n_batches": n_batches}

    def row(self) -> dict[str, Any]:
        return {"period": self.number, "epoch": self.run.epoch, "n_clusters": self.n_clusters}

    def end(self) -> None:
        model, run = self.model, self.run
        if not self.epochs:
            return
        features = features_of(run)
        digraph = model.digraph(run, features)
        labels = model.link(features, digraph, run.tensors["labels"].cpu().numpy())
        run.tensors["labels"] = torch.from_numpy(labels).to(run.device)
        # before the checkpoint: killed in between, it is told twice rather than never
        run.tell(Merged, self.name, self.number + 1, labels.copy(), features)


def weighted_triplet_loss(
    distances: Tensor,
    triplets: Triplets,
    *,
    kind: str = "linear",
    gamma: float = 2.0,
    margin: float = 0.0,
    sigma2: float = 1.0,
) -> Tensor:
    """Mean over triplets of the weighted triplet loss (paper 002, equations 10 and 11), a scalar.

    `distances` (b, b) squared, `gamma` the weight of the positive pair. The affinity of two samples is exp(-d^2
    / `sigma2`) in "affinity", as in equation 4, and -d^2, its first order, in "linear": gamma d^2(i, j) -
    d^2(i, k). "hinge" is the released code's max(0, linear + `margin`).
    """
    near = distances[triplets.anchor, triplets.positive][:, None]  # (p, 1)
    far = distances[triplets.anchor[:, None], triplets.negative]  # (p, q)
    return _terms(near, far, kind, gamma, margin, sigma2).mean()


def masked_triplet_loss(
    distances: Tensor, taken: Tensor, *, kind: str, gamma: float, margin: float, sigma2: float
) -> tuple[Tensor, Tensor]:
    """`weighted_triplet_loss` over the triplets (i, j, k) of a mask bool (b, b, b), and their number: scalars.

    A loss of 0 where there is none. For CUDA, as `triplet_mask`.
    """
    terms = _terms(distances[:, :, None], distances[:, None, :], kind, gamma, margin, sigma2)  # (b, b, b)
    count = taken.sum()
    return torch.where(taken, terms, 0.0).sum() / count.clamp_min(1), count


def _terms(near: Tensor, far: Tensor, kind: str, gamma: float, margin: float, sigma2: float) -> Tensor:
    if kind == "affinity":
        return torch.exp(-far / sigma2) - gamma * torch.exp(-near / sigma2)
    linear = gamma * near - far
    return F.relu(linear + margin) if kind == "hinge" else linear


def decay_rate(run: Run) -> None:
    """Set the rate of the next step, and count it."""
    model, step = run.model, run.numbers["step"]
    run.set_rate("sgd", inverse_decay(step, model.learning_rate, model.decay, model.power))
    run.numbers["step"] += 1


def inverse_decay(step: int, base: float, gamma: float, power: float) -> float:
    """Caffe's inverse policy: base * (1 + gamma * step) ** -power (paper 002, section 4.1.2)."""
    return base * (1.0 + gamma * step) ** -power


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


def features_of(run: Run) -> np.ndarray:
    """Representation X of all images under the method's statistics of the normalisation."""
    model, network = run.model, run.modules["network"]
    size = model.batch_size if model.feature_statistics == "batch" else ROWS
    return embed(network, run.inputs, batch_size=size, statistics=model.feature_statistics)
