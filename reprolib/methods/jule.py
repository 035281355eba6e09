"""JULE: agglomerative clustering and a CNN, jointly (paper 002, Algorithm 1)."""

import os
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from sklearn.base import BaseEstimator, ClusterMixin
from sklearn.neighbors import KNeighborsClassifier

from reprolib.checks import unknown_name
from reprolib.data.images import as_pixels, sealed_labels, to_float_images
from reprolib.graph.linkage import MODES
from reprolib.graph.strays import STRAY_RULES
from reprolib.methods.base import check_counts
from reprolib.methods.jule_run import Run, Stage, embed
from reprolib.methods.losses import NEGATIVES, TRIPLET_LOSSES
from reprolib.networks.embedding import ConvEmbedding
from reprolib.training.checkpoint import load_checkpoint, save_checkpoint

# Every knob on which the paper and the released codes differ, or on which the paper is silent.
# "paper" follows the text where it speaks and JULE.torch where it is silent, except for what is a slip
# there or depends on the order of the images. "printed" takes equation 11 and Table 2 to the letter.
# "released" is JULE.torch.
PAPER: dict[str, Any] = dict(
    triplet_loss="hinge",
    gamma=1.0,
    margin=0.2,
    loss_scale=1.0,
    negatives="nearest",
    n_negatives=5,
    ordered_pairs=True,
    gradient="exact",
    dampening=0.9,
    decay_restarts=True,
    linkage_mode="exact",
    strays="leftover",
    feature_statistics="running",
    scale_init="ones",
)
VARIANTS: dict[str, dict[str, Any]] = {
    "paper": PAPER,
    "printed": PAPER
    | dict(
        triplet_loss="affinity",
        gamma=2.0,
        margin=0.0,
        loss_scale=0.25,  # lambda / (K_c - 1) before the sum of equation 11
        dampening=0.0,
    ),
    "released": PAPER
    | dict(
        negatives="random",
        n_negatives=20,
        ordered_pairs=False,
        gradient="released",
        decay_restarts=False,
        linkage_mode="released",
        strays="isolated",
        feature_statistics="batch",
        scale_init="uniform",
    ),
}

# What the parameters that are names may be
CHOICES: dict[str, tuple[str, ...]] = {
    "precision": ("float32", "bfloat16"),
    "triplet_loss": TRIPLET_LOSSES,
    "negatives": NEGATIVES,
    "gradient": ("exact", "released"),
    "linkage_mode": tuple(MODES),
    "strays": STRAY_RULES,
    "feature_statistics": ("running", "batch"),
    "scale_init": ("ones", "uniform"),
}
AT_LEAST = {"n_epochs": 1, "batch_size": 2, "embedding_dim": 1, "channels": 1, "n_negatives": 1}


class JULE(ClusterMixin, BaseEstimator):
    """Joint unsupervised learning of image clusters and a CNN (paper 002, equation 1).

    `n_neighbors` K_s, `bandwidth` a, `n_neighbor_clusters` K_c, `local_weight` lambda and
    `unrolling_rate` eta are those of Table 2; `n_epochs` a period, `learning_rate`, `decay`, `power`,
    `momentum` and `weight_decay` those of sections 3.6 and 4.1.2. `variant` sets what the paper and
    the released codes do differently ("paper", "printed", "released"); the parameters after it, None by
    default, override it one by one (see `VARIANTS`).

    `precision="bfloat16"` trains under autocast, faster where the processor has tile instructions, and
    changes the result; parameters and clustering stay in float32.

    After `fit`: `labels_` the result at the end of the recurrent process (OURS-SF), `labels_rc_` the
    result of clustering anew on the final representation (OURS-RC), `embedding_` float32 (n,
    embedding_dim) of unit length, `history_` one dict an epoch, `n_clusters_by_period_`.
    """

    def __init__(
        self,
        n_clusters: int = 10,
        *,
        n_neighbors: int = 20,
        bandwidth: float = 1.0,
        n_neighbor_clusters: int = 5,
        local_weight: float = 1.0,
        unrolling_rate: float = 0.9,
        n_epochs: int = 20,
        batch_size: int = 100,
        learning_rate: float = 0.01,
        decay: float = 1e-4,
        power: float = 0.75,
        momentum: float = 0.9,
        weight_decay: float = 5e-5,
        embedding_dim: int = 160,
        channels: int = 50,
        precision: str = "float32",
        variant: str = "paper",
        triplet_loss: str | None = None,
        gamma: float | None = None,
        margin: float | None = None,
        loss_scale: float | None = None,
        negatives: str | None = None,
        n_negatives: int | None = None,
        ordered_pairs: bool | None = None,
        gradient: str | None = None,
        dampening: float | None = None,
        decay_restarts: bool | None = None,
        linkage_mode: str | None = None,
        strays: str | None = None,
        feature_statistics: str | None = None,
        scale_init: str | None = None,
        device: str = "auto",
        random_state: int = 0,
        verbose: bool = False,
    ) -> None:
        self.n_clusters = n_clusters
        self.n_neighbors = n_neighbors
        self.bandwidth = bandwidth
        self.n_neighbor_clusters = n_neighbor_clusters
        self.local_weight = local_weight
        self.unrolling_rate = unrolling_rate
        self.n_epochs = n_epochs
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.decay = decay
        self.power = power
        self.momentum = momentum
        self.weight_decay = weight_decay
        self.embedding_dim = embedding_dim
        self.channels = channels
        self.precision = precision
        self.variant = variant
        self.triplet_loss = triplet_loss
        self.gamma = gamma
        self.margin = margin
        self.loss_scale = loss_scale
        self.negatives = negatives
        self.n_negatives = n_negatives
        self.ordered_pairs = ordered_pairs
        self.gradient = gradient
        self.dampening = dampening
        self.decay_restarts = decay_restarts
        self.linkage_mode = linkage_mode
        self.strays = strays
        self.feature_statistics = feature_statistics
        self.scale_init = scale_init
        self.device = device
        self.random_state = random_state
        self.verbose = verbose

    def settings(self) -> dict[str, Any]:
        """Values of the variant's parameters in force: the variant's, or the override.

        Raises ValueError for an unknown variant or choice, and for a number out of range.
        """
        if self.variant not in VARIANTS:
            raise unknown_name("variant", self.variant, VARIANTS)
        settings = {
            name: value if getattr(self, name) is None else getattr(self, name)
            for name, value in VARIANTS[self.variant].items()
        }
        for name, valid in CHOICES.items():
            value = settings.get(name, getattr(self, name))
            if value not in valid:
                raise unknown_name(name, value, valid)
        for name, lowest in AT_LEAST.items():
            value = settings.get(name, getattr(self, name))
            if value < lowest:
                raise ValueError(f"{name} must be at least {lowest}, got {value}")
        if not self.learning_rate > 0:
            raise ValueError(f"learning_rate must be positive, got {self.learning_rate}")
        return settings

    def fit(
        self,
        X: Any,
        y: None = None,
        *,
        monitor: Callable[[Stage], None] | None = None,
        checkpoint: str | os.PathLike | None = None,
    ) -> "JULE":
        """Cluster `Images` or an image array (n, h, w) or (n, c, h, w), uint8 or float.

        `monitor` is called with a `Stage` after each clustering. `checkpoint` names a file written
        after every epoch: a killed fit started again with it ends with the same labels. Raises
        ValueError on bad images or parameters, CheckpointError when the file is another run's.
        """
        with sealed_labels():
            pixels = as_pixels(X)
            check_counts(len(pixels), self.n_clusters, self.n_neighbors)
            run = Run(self, pixels, monitor, checkpoint)
            run.train()
            self.labels_ = run.labels
            self.embedding_ = run.embed()
            self.labels_rc_ = run.cluster_again(self.embedding_)
        self.network_ = run.network
        self.image_shape_ = pixels.shape[1:]
        self.history_ = run.history
        self.n_clusters_by_period_ = run.counts
        return self

    def transform(self, X: Any) -> np.ndarray:
        """Unit embedding float32 (n, embedding_dim) of images of the fitted shape."""
        pixels = as_pixels(X, to_cluster=False)
        if pixels.shape[1:] != tuple(self.image_shape_):
            raise ValueError(
                f"this model was fitted on images of shape {tuple(self.image_shape_)}, got {pixels.shape[1:]}"
            )
        return embed(self.network_, to_float_images(pixels))

    def predict(self, X: Any) -> np.ndarray:
        """Cluster of new images int32 (n,): the vote of the nearest fitted images in the embedding."""
        voters = KNeighborsClassifier(min(self.n_neighbors, len(self.labels_)))
        return voters.fit(self.embedding_, self.labels_).predict(self.transform(X))

    def save(self, path: str | os.PathLike) -> None:
        """Write the fitted model to one safetensors file, atomically."""
        tensors = {f"network.{k}": v for k, v in self.network_.state_dict().items()}
        tensors["labels"] = torch.from_numpy(self.labels_)
        tensors["labels_rc"] = torch.from_numpy(self.labels_rc_)
        tensors["embedding"] = torch.from_numpy(self.embedding_)
        state = dict(
            parameters=self.get_params(),
            image_shape=list(self.image_shape_),
            history=self.history_,
            counts=self.n_clusters_by_period_,
        )
        save_checkpoint(path, tensors, state)

    @classmethod
    def load(cls, path: str | os.PathLike) -> "JULE":
        """Read a model written by `save`. Raises CheckpointError when the file is damaged."""
        tensors, state = load_checkpoint(path)
        model = cls(**state["parameters"])
        model.image_shape_ = tuple(state["image_shape"])
        model.history_, model.n_clusters_by_period_ = state["history"], state["counts"]
        model.labels_ = tensors["labels"].numpy()
        model.labels_rc_ = tensors["labels_rc"].numpy()
        model.embedding_ = tensors["embedding"].numpy()
        model.network_ = ConvEmbedding(model.image_shape_, model.embedding_dim, model.channels)
        weights = {k[8:]: v for k, v in tensors.items() if k.startswith("network.")}
        model.network_.load_state_dict(weights)
        return model
