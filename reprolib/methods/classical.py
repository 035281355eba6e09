"""Methods without training: what they share, and the two that scikit-learn has."""

from __future__ import annotations

from typing import Any, Literal, Self

import numpy as np
from sklearn.cluster import AgglomerativeClustering
from sklearn.cluster import KMeans as LloydKMeans

from reprolib.checks import check_memory
from reprolib.data.images import sealed_labels
from reprolib.methods.base import Count, Estimator, Seed, check_counts, parameters, unit_rows


class ClassicalEstimator(Estimator):
    """A method that clusters features of unit length.

    A method gives `_cluster(features)`: labels int (n,) in 0..c-1 of features float32 (n, d).
    """

    def fit(self, X: Any, y: None = None) -> Self:
        """Cluster `Images`, an image array (n, h, w) or (n, c, h, w), or features (n, d).

        Raises TypeError or ValueError on wrong parameters, NaN, constant or too few images, MemoryError,
        before it starts, where a table of all pairs does not fit.
        """
        self.check_parameters()
        with sealed_labels():
            features = unit_rows(X)  # (n, d)
            check_counts(len(features), self.n_clusters, self._n_neighbors_used())
            return self._keep(X, {"labels": self._cluster(features)})


@parameters
class KMeans(ClassicalEstimator):
    """K-means on L2-normalised pixels or features: the first row of paper 002's Table 3.

    scikit-learn's Lloyd iterations from k-means++ starts, the best by inertia. The paper does not name an
    implementation or a number of starts.
    """

    n_init: Count = 10
    random_state: Seed = 0

    def _cluster(self, features: np.ndarray) -> np.ndarray:
        return kmeans_labels(features, self.n_clusters, self.seed(), self.n_init)


@parameters
class ACLink(ClassicalEstimator):
    """Average linkage on L2-normalised pixels or features (paper 002, Table 3, AC-Link).

    scipy's linkage on the Euclidean distances, as in the code released with paper 002, cut at exactly
    n_clusters by scikit-learn, also where merges tie. "ward" merges the pair that raises the sum of squares
    least instead. Time O(n^2 d); memory 16 bytes a pair of samples, the distances and scipy's copy of them.
    """

    linkage: Literal["average", "ward"] = "average"

    def _cluster(self, features: np.ndarray) -> np.ndarray:
        n = len(features)
        what = f"{self.linkage} linkage of {n} samples, all distances twice,"
        instead = "use ACGDL, which keeps a k-NN graph, or fewer samples"
        check_memory(8 * n * (n - 1), what, instead)
        return AgglomerativeClustering(self.n_clusters, linkage=self.linkage).fit(features).labels_


def kmeans_labels(points: np.ndarray, n_clusters: int, seed: int, n_init: int = 10) -> np.ndarray:
    """K-means of points (n, d), the best of `n_init` starts: labels int32 (n,)."""
    return LloydKMeans(n_clusters, n_init=n_init, random_state=seed).fit(points).labels_
