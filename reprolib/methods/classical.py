"""Methods without training: what they share, k-means, and agglomerative clustering (paper 002, Table 3)."""

from typing import Any, ClassVar, Literal, Self

import numpy as np
from sklearn.cluster import AgglomerativeClustering
from sklearn.cluster import KMeans as LloydKMeans

from reprolib.checks import check_memory
from reprolib.data.images import sealed_labels
from reprolib.graph.digraph import Digraph, knn_digraph, one_link_clusters
from reprolib.graph.incremental import incremental_linkage
from reprolib.graph.linkage import Linkage
from reprolib.graph.strays import join_disconnected, linkage_without_strays
from reprolib.methods.base import Count, Estimator, Seed, check_count, unit_rows


class ClassicalEstimator(Estimator):
    """A method on unit features float32 (n, d): its `_cluster(features)` gives labels int (n,) in 0..c-1."""

    def fit(self, X: Any, y: None = None) -> Self:
        """Cluster `Images`, an image array (n, h, w) or (n, c, h, w), or features (n, d).

        Raises TypeError or ValueError on wrong parameters or data, MemoryError where all pairs do not fit.
        """
        self.check_parameters()
        with sealed_labels():
            features = unit_rows(X)  # (n, d)
            check_count(len(features), self.n_clusters)
            return self._keep(X, {"labels": self._cluster(features)})


def kmeans_labels(points: np.ndarray, n_clusters: int, seed: int, n_init: int = 10) -> np.ndarray:
    """K-means of points (n, d), the best of `n_init` starts: labels int32 (n,)."""
    return LloydKMeans(n_clusters, n_init=n_init, random_state=seed).fit(points).labels_


class KMeans(ClassicalEstimator):
    """K-means on unit pixels or features by Lloyd's iterations: the first row of paper 002's Table 3."""

    n_init: Count = 10  # the paper names no number, and no implementation
    random_state: Seed = 0

    def _cluster(self, features: np.ndarray) -> np.ndarray:
        return kmeans_labels(features, self.n_clusters, self.seed(), self.n_init)


class ACLink(ClassicalEstimator):
    """Average linkage on unit pixels or features (paper 002, Table 3, AC-Link), or "ward".

    On Euclidean distances, as in the code released with paper 002, cut at exactly n_clusters, also where merges
    tie. Time O(n^2 d); memory 16 bytes a pair of samples: MemoryError where it does not fit.
    """

    linkage: Literal["average", "ward"] = "average"

    def _cluster(self, features: np.ndarray) -> np.ndarray:
        n = len(features)
        what = f"{self.linkage} linkage of {n} samples, all distances twice,"
        instead = "use ACGDL, which keeps a k-NN graph, or fewer samples"
        check_memory(8 * n * (n - 1), what, instead)
        return AgglomerativeClustering(self.n_clusters, linkage=self.linkage).fit(features).labels_


class GraphAgglomeration(ClassicalEstimator):
    """One-link initial clusters, then merges by a method's `_link` on the k-NN digraph of unit vectors.

    After `fit` also `n_initial_clusters_`, which `n_clusters` may not exceed, `merges_` (m, 2) and `affinities_` (m,).
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


class ACGDL(GraphAgglomeration):
    """Graph degree linkage (Zhang et al. 2012; paper 002, Table 3, AC-GDL), in its paper without a local term.

    For `mode` see `graph_degree_linkage`, for `strays` `linkage_without_strays`.
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


class ACPIC(GraphAgglomeration):
    """Maximum incremental path integral (Zhang et al. 2013; paper 002, Table 3, AC-PIC)."""

    z: float = 0.01  # discount of a step of a path
    KIND: ClassVar[str] = "path-integral"

    def _link(self, features: np.ndarray, digraph: Digraph, initial: np.ndarray) -> Linkage:
        return incremental_linkage(digraph, initial, self.n_clusters, kind=self.KIND, z=self.z)


class ACZell(ACPIC):
    """Zeta function of a graph (Zhao and Tang 2008; paper 002, Table 3, AC-Zell)."""

    bandwidth: float = 0.95  # as in the authors' toolbox
    KIND: ClassVar[str] = "zeta"
