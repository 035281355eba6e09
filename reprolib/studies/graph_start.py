"""Partitions of the latent vectors that one pretraining leaves, and what can be said of each without labels."""

import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, ClassVar

import numpy as np
import torch
from sklearn.mixture import GaussianMixture

from reprolib.graph.digraph import knn_digraph, one_link_clusters
from reprolib.graph.strays import join_disconnected, linkage_without_strays
from reprolib.kernels.soft_assignment import squared_distances
from reprolib.methods.autoencoder import AutoencoderMethod, Pretrain, latent_vectors
from reprolib.methods.base import unit_rows
from reprolib.methods.classical import ACGDL, kmeans_labels
from reprolib.methods.self_tuning import SCLS
from reprolib.methods.starts import gdl_start, kmeans_start
from reprolib.methods.vade import MIXTURE_STARTS
from reprolib.networks.autoencoders import build_autoencoder
from reprolib.studies.signs import cuts, silhouette, stability, within_share
from reprolib.training.trainer import ROWS, Run, Stage, as_numpy

SINGLE_STARTS = 7
NEIGHBORS = (5, 10, 40)  # K_s beside 20
Partition = Callable[[np.ndarray], np.ndarray]


def linkage_as_is(latent: np.ndarray, n_clusters: int) -> np.ndarray:
    """Labels int32 (n,) of AC-GDL, strays joined, on vectors (n, d) as they are, not of unit length."""
    digraph = knn_digraph(latent)
    initial = one_link_clusters(digraph.indices[:, 0])
    found = linkage_without_strays(latent, digraph, initial, n_clusters, rule="leftover", n_clusters=n_clusters)
    return join_disconnected(latent, found.labels, n_clusters)


def nearest_means(latent: np.ndarray, n_clusters: int) -> np.ndarray:
    """Labels int (n,) of the means of the linkage's clusters: what a method that keeps only centers begins with."""
    centers = torch.from_numpy(gdl_start(latent, n_clusters)[1]).float()
    return squared_distances(torch.from_numpy(latent), centers).argmin(1).numpy()


def partitions(n_clusters: int, seed: int) -> dict[str, Partition]:
    """By name, what makes labels (n,) of latent vectors float32 (n, d)."""
    joined = partial(ACGDL, n_clusters, strays="leftover")
    mixture = GaussianMixture(n_clusters, n_init=MIXTURE_STARTS, random_state=seed)
    found: dict[str, Partition] = {
        "kmeans": lambda u: kmeans_start(u, n_clusters, seed)[0],
        "kmeans-unit": lambda u: kmeans_start(unit_rows(u), n_clusters, seed)[0],
        "mixture": lambda u: mixture.fit_predict(u.astype(np.float64)),
        "scls": lambda u: SCLS(n_clusters, random_state=seed).fit(u).labels_,
        "gdl": lambda u: gdl_start(u, n_clusters)[0],
        "gdl-means": lambda u: nearest_means(u, n_clusters),
        "gdl-not-unit": lambda u: linkage_as_is(u, n_clusters),
        "gdl-strays-never": lambda u: ACGDL(n_clusters).fit(u).labels_,
        "gdl-local": lambda u: joined(local_weight=1.0).fit(u).labels_,
    }
    for k in NEIGHBORS:
        found[f"gdl-{k:02}"] = lambda u, k=k: joined(n_neighbors=k).fit(u).labels_
    for start in range(1, SINGLE_STARTS + 1):
        found[f"kmeans-start-{start}"] = lambda u, start=start: kmeans_labels(u, n_clusters, start, 1)
    return found


class Partitions(Stage):
    """All partitions, each with a row of its seconds and signs; those of an untrained network too."""

    name = "partitions"

    def end(self) -> None:
        run, n_clusters = self.run, self.model.n_clusters
        made, trained = partitions(n_clusters, run.seed), as_numpy(latent_vectors(run))
        for name, latent, label, seconds in self._all(made, trained):
            run.tensors[f"labels.{name}"] = torch.from_numpy(label.astype(np.int32))
            row = {"stage": self.name, "epoch": 0, "partition": name, "seconds": seconds}
            if latent is trained:
                graph = knn_digraph(unit_rows(latent))
                row |= dict(zip(("modularity", "conductance"), cuts(graph, label), strict=True))
                row |= {"within": within_share(latent, label), "silhouette": silhouette(latent, label, run.seed)}
            if name in ("kmeans", "gdl"):
                row["stability"] = stability(made[name], latent, label, run.seed)
            run.history.append(row)

    def _all(
        self, made: dict[str, Partition], trained: np.ndarray
    ) -> Iterator[tuple[str, np.ndarray, np.ndarray, float]]:
        random = self._untrained()
        views = {name: (trained, make) for name, make in made.items()}
        views |= {f"{name}-untrained": (random, made[name]) for name in ("kmeans", "gdl")}
        for name, (latent, make) in views.items():
            began = time.perf_counter()
            found = np.unique(make(latent), return_inverse=True)[1]  # an empty cluster has no number
            yield name, latent, found, time.perf_counter() - began

    @torch.no_grad()
    def _untrained(self) -> np.ndarray:
        """Latent vectors of the network before its first step."""
        run, drawn = self.run, torch.Generator().manual_seed(self.run.seed)
        network = build_autoencoder(tuple(run.inputs.shape[1:]), self.model.latent_dim, drawn).to(run.device).eval()
        return as_numpy(torch.cat([network.encode(part.to(run.device)) for part in run.inputs.split(ROWS)]))


class LatentPartitions(AutoencoderMethod):
    """An autoencoder, and every partition of its latent vectors by `partitions`: results by their names."""

    behaviours: ClassVar = ("AEKMeans", "ACGDL", "SCLS")
    MAIN: ClassVar = "gdl"

    def stages(self, run: Run, X: Any = None) -> list[Stage]:
        """The pretraining, and what comes of it."""
        return [Pretrain(run, self.pretrain_epochs), Partitions(run, 0)]

    def finish(self, run: Run) -> dict[str, np.ndarray]:
        """The labels of every partition."""
        self.embedding_ = as_numpy(latent_vectors(run))
        return {k.removeprefix("labels."): as_numpy(v) for k, v in run.tensors.items() if k.startswith("labels.")}
