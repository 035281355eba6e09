"""Agglomerative clustering on a k-NN digraph: AC-GDL, AC-PIC and AC-Zell of paper 002, Table 3."""

from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, ClusterMixin

from reprolib.data.images import sealed_labels
from reprolib.graph.digraph import knn_digraph, one_link_clusters
from reprolib.graph.incremental import incremental_linkage
from reprolib.graph.linkage import Linkage
from reprolib.graph.strays import join_disconnected, linkage_without_strays
from reprolib.methods.base import check_counts, unit_rows


class _GraphAgglomeration(ClusterMixin, BaseEstimator):
    """One-link initial clusters, then merges by a linkage on the k-NN digraph of unit vectors."""

    def fit(self, X: Any, y: None = None) -> "_GraphAgglomeration":
        """Cluster `Images`, an image array (n, h, w) or (n, c, h, w), or features (n, d).

        Sets `labels_` int32 (n,), `n_initial_clusters_`, `merges_` int32 (m, 2) and `affinities_`
        float64 (m,). Raises ValueError on NaN, constant or too few images, and when `n_clusters` is
        more than the initial clusters.
        """
        with sealed_labels():
            features = unit_rows(X)
            check_counts(len(features), self.n_clusters, self.n_neighbors)
            digraph = knn_digraph(features, self.n_neighbors, self.bandwidth)
            initial = one_link_clusters(digraph.indices[:, 0])
            self.n_initial_clusters_ = int(initial.max()) + 1
            result = self._link(features, digraph, initial)
            self.merges_, self.affinities_ = result.merges, result.affinities
            self.labels_ = join_disconnected(features, result.labels, self.n_clusters)
        return self

    def _link(self, features: np.ndarray, digraph: Any, initial: np.ndarray) -> Linkage:
        raise NotImplementedError


class ACGDL(_GraphAgglomeration):
    """Graph degree linkage (Zhang et al. 2012; paper 002, Table 3, AC-GDL).

    `n_neighbors` is K_s and `bandwidth` a of paper 002, equation 4; `local_weight` is lambda and
    `n_neighbor_clusters` K_c of equation 7, off by default. `mode="released"`: see
    `graph_degree_linkage`. `strays` says what is done with clusters that hardly any affinity
    reaches (see `linkage_without_strays`), nothing by default, as in its paper.
    """

    def __init__(
        self,
        n_clusters: int = 10,
        *,
        n_neighbors: int = 20,
        bandwidth: float = 1.0,
        local_weight: float = 0.0,
        n_neighbor_clusters: int = 5,
        mode: str = "exact",
        strays: str = "never",
    ) -> None:
        self.n_clusters = n_clusters
        self.n_neighbors = n_neighbors
        self.bandwidth = bandwidth
        self.local_weight = local_weight
        self.n_neighbor_clusters = n_neighbor_clusters
        self.mode = mode
        self.strays = strays

    def _link(self, features: np.ndarray, digraph: Any, initial: np.ndarray) -> Linkage:
        return linkage_without_strays(
            features,
            digraph,
            initial,
            self.n_clusters,
            rule=self.strays,
            n_clusters=self.n_clusters,
            local_weight=self.local_weight,
            n_neighbor_clusters=self.n_neighbor_clusters,
            mode=self.mode,
        )


class _PathLinkage(_GraphAgglomeration):
    """What AC-PIC and AC-Zell share: a linkage on paths of the graph, discounted by `z` a step."""

    def __init__(
        self,
        n_clusters: int = 10,
        *,
        n_neighbors: int = 20,
        bandwidth: float = 1.0,
        z: float = 0.01,
    ) -> None:
        self.n_clusters = n_clusters
        self.n_neighbors = n_neighbors
        self.bandwidth = bandwidth
        self.z = z

    def _link(self, features: np.ndarray, digraph: Any, initial: np.ndarray) -> Linkage:
        return incremental_linkage(digraph, initial, self.n_clusters, kind=self._kind, z=self.z)


class ACPIC(_PathLinkage):
    """Maximum incremental path integral (Zhang et al. 2013; paper 002, Table 3, AC-PIC).

    `n_neighbors` is K_s and `bandwidth` a of paper 002, equation 4; `z` discounts a step of a path.
    """

    _kind = "path-integral"


class ACZell(_PathLinkage):
    """Zeta function of a graph (Zhao and Tang 2008; paper 002, Table 3, AC-Zell).

    `n_neighbors` is K_s and `bandwidth` a of paper 002, equation 4, 0.95 in the authors' toolbox; `z`
    discounts a step of a path.
    """

    _kind = "zeta"

    def __init__(
        self,
        n_clusters: int = 10,
        *,
        n_neighbors: int = 20,
        bandwidth: float = 0.95,
        z: float = 0.01,
    ) -> None:
        super().__init__(n_clusters, n_neighbors=n_neighbors, bandwidth=bandwidth, z=z)
