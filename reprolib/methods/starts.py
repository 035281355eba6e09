"""Where methods with centers begin: at those of k-means, as their papers say, or at means of a graph's clusters.

The second is this book's own, and no paper's: graph degree linkage (paper 002's AC-GDL) of the latent vectors that a
pretraining leaves. k-means splits a large class and joins small ones when that lowers its sum of squares; the
linkage compares edges with the sizes of both clusters, and a class may be of any size.
"""

import numpy as np
from sklearn.cluster import KMeans

from reprolib.graph.strays import cluster_means
from reprolib.methods.classical import ACGDL

N_INIT = 20  # of k-means on latent vectors; paper 004 names no number


def kmeans_start(latent: np.ndarray, n_clusters: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Labels int32 (n,) and centers (n_clusters, d) of the best of 20 k-means on latent vectors float32 (n, d)."""
    found = KMeans(n_clusters, n_init=N_INIT, random_state=seed).fit(latent)
    return found.labels_, found.cluster_centers_


def gdl_start(latent: np.ndarray, n_clusters: int) -> tuple[np.ndarray, np.ndarray]:
    """Labels int32 (n,) of AC-GDL on latent vectors float32 (n, d), and the clusters' means float64 (n_clusters, d).

    The linkage sees vectors of unit length, 20 neighbours, and joins strays by the rule "leftover" of
    `linkage_without_strays`: what JULE merges with. It draws nothing. ValueError where there are not more than 20
    vectors, or fewer initial clusters than `n_clusters`.
    """
    labels = ACGDL(n_clusters, strays="leftover").fit(latent).labels_
    return labels, cluster_means(latent, labels)


def centers_of(start: str, latent: np.ndarray, n_clusters: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Labels and centers of the start of this name, "kmeans" or "gdl"."""
    return gdl_start(latent, n_clusters) if start == "gdl" else kmeans_start(latent, n_clusters, seed)
