"""Agglomerative clustering on a k-NN digraph: AC-GDL, AC-PIC and AC-Zell of paper 002, Table 3."""

from __future__ import annotations

from typing import ClassVar, Literal

import numpy as np

from reprolib.graph.digraph import Digraph, knn_digraph, one_link_clusters
from reprolib.graph.incremental import incremental_linkage
from reprolib.graph.linkage import Linkage
from reprolib.graph.strays import join_disconnected, linkage_without_strays
from reprolib.methods.base import Count, parameters
from reprolib.methods.classical import ClassicalEstimator


@parameters
class GraphAgglomeration(ClassicalEstimator):
    """One-link initial clusters, then merges by a method's `_link` on the k-NN digraph of unit vectors.

    After `fit` also `n_initial_clusters_`, `merges_` int32 (m, 2) and `affinities_` float64 (m,). ValueError
    when `n_clusters` is more than the initial clusters.
    """

    n_neighbors: Count = 20  # K_s, paper 002, equation 4
    bandwidth: float = 1.0  # a

    def _cluster(self, features: np.ndarray) -> np.ndarray:
        digraph = knn_digraph(features, self.n_neighbors, self.bandwidth)
        initial = one_link_clusters(digraph.indices[:, 0])
        self.n_initial_clusters_ = int(initial.max()) + 1
        result = self._link(features, digraph, initial)
        self.merges_, self.affinities_ = result.merges, result.affinities
        return join_disconnected(features, result.labels, self.n_clusters)


@parameters
class ACGDL(GraphAgglomeration):
    """Graph degree linkage (Zhang et al. 2012; paper 002, Table 3, AC-GDL).

    Its paper has no local term, and does nothing with clusters that hardly any affinity reaches. For
    `mode` see `graph_degree_linkage`, for `strays` `linkage_without_strays`.
    """

    local_weight: float = 0.0  # lambda, paper 002, equation 7
    n_neighbor_clusters: int = 5  # K_c
    mode: Literal["exact", "released"] = "exact"
    strays: Literal["leftover", "isolated", "never"] = "never"

    def _link(self, features: np.ndarray, digraph: Digraph, initial: np.ndarray) -> Linkage:
        names = ("n_clusters", "local_weight", "n_neighbor_clusters", "mode")
        options = {name: getattr(self, name) for name in names}
        target, rule = self.n_clusters, self.strays
        return linkage_without_strays(features, digraph, initial, target, rule=rule, **options)


@parameters
class ACPIC(GraphAgglomeration):
    """Maximum incremental path integral (Zhang et al. 2013; paper 002, Table 3, AC-PIC)."""

    z: float = 0.01  # discount of a step of a path

    KIND: ClassVar[str] = "path-integral"

    def _link(self, features: np.ndarray, digraph: Digraph, initial: np.ndarray) -> Linkage:
        return incremental_linkage(digraph, initial, self.n_clusters, kind=self.KIND, z=self.z)


@parameters
class ACZell(ACPIC):
    """Zeta function of a graph (Zhao and Tang 2008; paper 002, Table 3, AC-Zell)."""

    bandwidth: float = 0.95  # as in the authors' toolbox

    KIND: ClassVar[str] = "zeta"
