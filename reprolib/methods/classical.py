"""Classical baselines under the same interface as the deep methods."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, ClusterMixin
from sklearn.cluster import AgglomerativeClustering
from sklearn.cluster import KMeans as LloydKMeans

from reprolib.checks import check_memory, unknown_name
from reprolib.data.images import sealed_labels
from reprolib.methods.base import check_counts, unit_rows

LINKAGES = ("average", "ward")


class KMeans(ClusterMixin, BaseEstimator):
    """K-means on L2-normalised pixels or features: the first row of paper 002's Table 3.

    scikit-learn's Lloyd iterations from n_init k-means++ starts, the best by inertia. After `fit`:
    `labels_` int32 (n,). The paper does not name an implementation or a number of starts.
    """

    def __init__(self, n_clusters: int = 10, *, n_init: int = 10, random_state: int = 0) -> None:
        self.n_clusters = n_clusters
        self.n_init = n_init
        self.random_state = random_state

    def fit(self, X: Any, y: None = None) -> KMeans:
        """Cluster `Images`, an image array (n, h, w) or (n, c, h, w), or features (n, d).

        Raises ValueError on NaN, constant or too few images, and when n_clusters is not from 1 to
        the number of samples.
        """
        with sealed_labels():
            features = unit_rows(X)  # (n, d)
            if not 1 <= self.n_clusters <= len(features):
                raise ValueError(
                    f"n_clusters must be from 1 to the {len(features)} samples, "
                    f"got {self.n_clusters}"
                )
            fitted = LloydKMeans(
                self.n_clusters, n_init=self.n_init, random_state=self.random_state
            ).fit(features)
        self.labels_ = fitted.labels_.astype(np.int32)
        return self


class ACLink(ClusterMixin, BaseEstimator):
    """Average linkage on L2-normalised pixels or features (paper 002, Table 3, AC-Link).

    scipy's linkage on the Euclidean distances, as in the code released with paper 002, cut at
    exactly n_clusters by scikit-learn, also where merges tie. `linkage` "ward" merges the pair that
    raises the sum of squares least instead. After `fit`: `labels_` int32 (n,).
    Time O(n^2 d); memory 16 bytes a pair of samples, the distances and scipy's copy of them.
    """

    def __init__(self, n_clusters: int = 10, *, linkage: str = "average") -> None:
        self.n_clusters = n_clusters
        self.linkage = linkage

    def fit(self, X: Any, y: None = None) -> ACLink:
        """Cluster `Images`, an image array (n, h, w) or (n, c, h, w), or features (n, d).

        Raises ValueError on NaN, constant or too few images, and when n_clusters is not from 1 to
        the number of samples; MemoryError, before it starts, when the distances do not fit.
        """
        if self.linkage not in LINKAGES:
            raise unknown_name("linkage", self.linkage, LINKAGES)
        with sealed_labels():
            features = unit_rows(X)  # (n, d)
            n = len(features)
            check_counts(n, self.n_clusters, 1)
            check_memory(
                8 * n * (n - 1),
                f"{self.linkage} linkage of {n} samples, all distances twice,",
                "use ACGDL, which keeps a k-NN graph, or fewer samples",
            )
            linked = AgglomerativeClustering(self.n_clusters, linkage=self.linkage).fit(features)
        self.labels_ = linked.labels_.astype(np.int32)
        return self
