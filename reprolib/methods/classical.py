"""Classical baselines under the same interface as the deep methods."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, ClusterMixin
from sklearn.cluster import KMeans as LloydKMeans

from reprolib.images import sealed_labels
from reprolib.methods.base import unit_rows


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
