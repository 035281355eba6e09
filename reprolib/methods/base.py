"""What the estimators share: input without labels, and the checks of counts."""

import numpy as np
from sklearn.preprocessing import normalize

from reprolib.data.images import as_features


def unit_rows(X: object) -> np.ndarray:
    """Float32 features (n, d) of unit length, from images (flattened pixels) or features.

    Paper 002, section 4.1.3 normalises the image intensities so for every algorithm.
    """
    return normalize(as_features(X)).astype(np.float32, copy=False)


def check_counts(n: int, n_clusters: int, n_neighbors: int) -> None:
    """ValueError when `n` samples cannot have `n_clusters` clusters or `n_neighbors` neighbours."""
    if n_clusters < 1:
        raise ValueError(f"n_clusters must be at least 1, got {n_clusters}")
    if n_clusters > n:
        raise ValueError(f"n_clusters={n_clusters} is more than the {n} images: ask for fewer")
    if n_neighbors < 1:
        raise ValueError(f"n_neighbors must be at least 1, got {n_neighbors}")
    if n_neighbors >= n:
        raise ValueError(
            f"n_neighbors={n_neighbors} needs at least {n_neighbors + 1} images, got {n}: "
            f"lower n_neighbors to {n - 1} or less, or add images"
        )
