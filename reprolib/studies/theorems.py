r"""What inner products two soft assignments can have: the theorems of DCSS (paper 004, appendix A).

Two rows, not negative with sum one, are *together* when their largest entries share an index and *apart* when they can
be told to have different ones; with a tie they can be both. For maxima a <= b and n = floor(1 / b),

$$\max q_i^\top q_j = \min\{a,\; n a b + (1 - n a)(1 - n b)\},$$

as the product is largest when both rows pack their mass into the same first entries. For rows that are apart,

$$q_i^\top q_j \le a + b - 2 a b = \tfrac12 - \tfrac12 (2a - 1)(2b - 1),$$

which is the fifth line of equation 22, before the printed proof bounds its factors apart. The functions broadcast.
`first` and `second` are the maxima of two rows, `zeta` a threshold of similarity, in (0, 1]; ValueError outside.
"""

import numpy as np
from numpy.typing import ArrayLike


def product_bound(first: ArrayLike, second: ArrayLike) -> np.ndarray:
    """Upper bound of q_i.q_j from the maxima of both rows: the smaller (paper 004, Theorem 1, equation 7).

    A case of Hoelder's inequality: q_i.q_j <= max(q_i) * sum(q_j). `largest_product` is the exact value.
    """
    return np.minimum(*_maxima(first, second))


def largest_product(first: ArrayLike, second: ArrayLike) -> np.ndarray:
    """Largest q_i.q_j of all pairs of rows with these maxima, attained: sharpens paper 004, Theorem 1.

    From one half up this is a b + (1 - a)(1 - b). It lies below `product_bound` by at most 1/8.
    """
    first, second = _maxima(first, second)
    low, high = np.minimum(first, second), np.maximum(first, second)
    full = np.floor(1.0 / high)  # entries of this height that a row has mass for
    packed = full * low * high + (1.0 - full * low) * (1.0 - full * high)
    return np.minimum(low, packed)


def largest_product_apart(first: ArrayLike, second: ArrayLike) -> np.ndarray:
    """Largest q_i.q_j of all pairs that are apart, with these maxima, attained; never above one half.

    From one half up this is a + b - 2 a b. A tie for the largest entry counts as apart (paper 004, Theorem 2).
    """
    first, second = _maxima(first, second)
    return np.minimum(largest_product(first, second), first + second - 2.0 * first * second)


def smallest_product_together(first: ArrayLike, second: ArrayLike, n_clusters: int) -> np.ndarray:
    """Lower bound of q_i.q_j of all pairs that are together, with these maxima (paper 004, equations 20, 26).

    `first`, `second`: in [1 / n_clusters, 1]; `n_clusters` at least 2. a b for three clusters and more, attained from
    one half up: what is left of the rows can lie on different entries. Two clusters: a b + (1 - a)(1 - b), exactly.
    """
    first, second = _maxima(first, second)
    if n_clusters < 2:
        raise ValueError(f"n_clusters must be at least 2, got {n_clusters}")
    if min(first.min(), second.min()) < (1.0 - 1e-12) / n_clusters:
        raise ValueError(f"the maximum of {n_clusters} values that sum to one is at least 1/K")
    product = first * second
    return product + (1.0 - first) * (1.0 - second) if n_clusters == 2 else product


def larger_maximum(zeta: ArrayLike) -> np.ndarray:
    """What at least one of two rows with q_i.q_j >= zeta has as its maximum; attained with i = j.

    `zeta`: in [1/2, 1], ValueError outside. Corollary 1.1 (paper 004, equation 17) gives zeta for both rows.
    They cannot both stay at it: the larger maximum is at least (1 + sqrt(2 zeta - 1)) / 2.
    """
    zeta = np.asarray(zeta, dtype=float)
    if not ((zeta >= 0.5) & (zeta <= 1)).all():
        raise ValueError("zeta must lie in [1/2, 1]")
    return 0.5 + 0.5 * np.sqrt(2.0 * zeta - 1.0)


def largest_product_apart_from(zeta: ArrayLike) -> np.ndarray:
    """Largest q_i.q_j of all pairs that are apart and have both maxima at least zeta, attained.

    2 zeta (1 - zeta) from one half up, one half below. Printed (paper 004, Theorem 2): 2 (1 - zeta).
    """
    (zeta,) = _maxima(zeta)
    high = np.maximum(zeta, 0.5)  # maxima below one half add no larger product
    return 2.0 * high * (1.0 - high)


def similar_means_together(zeta: ArrayLike) -> np.ndarray:
    """Whether every pair with q_i.q_j >= zeta is together, for any number of clusters: zeta > 1/2.

    Similar rows that were apart would need a product of at least zeta, and maxima of at least zeta
    (Corollary 1.1). At one half it takes a tie to break it. Theorem 2 of paper 004 asks for 2/3.
    """
    return largest_product_apart_from(zeta) < np.asarray(zeta, dtype=float)


def shared_neighbor_product(zeta: ArrayLike, n_clusters: int) -> np.ndarray:
    """Smallest q_j.q_k of two rows that are both similar to a third, attained (paper 004, equation 28).

    `n_clusters` at least 2. Up to one half 0: nothing holds the two together. Above, zeta^2 for three
    clusters and more, zeta^2 + (1 - zeta)^2 for two. A dissimilar pair cannot share a similar row while
    gamma is below this. Theorem 3 asks for zeta > 2/3.
    """
    (zeta,) = _maxima(zeta)
    high = np.maximum(zeta, 0.5)
    return np.where(zeta > 0.5, smallest_product_together(high, high, n_clusters), 0.0)


def theorems_on_a_lattice(zeta: float, *, parts: int = 24) -> list[tuple[str, bool]]:
    """Whether Theorems 1 to 3 hold for every row of three clusters whose entries are k / parts.

    Returns (name, holds). Rows are integers, so that no product is rounded. A tie for the largest entry of a
    similar row breaks Theorem 2. Theorem 3 is taken at its edge, gamma just below zeta^2.
    """
    _maxima(zeta)
    first, second = np.divmod(np.arange((parts + 1) ** 2), parts + 1)
    rows = np.stack([first, second, parts - first - second], 1)  # (r, 3)
    rows = rows[rows[:, 2] >= 0]
    products, largest = rows @ rows.T, rows.max(1)  # products of q, times parts^2
    similar = products >= zeta * parts**2
    leading = rows == largest[:, None]  # more than one for a tie
    one_leader = (leading[:, None] & leading[None]).any(2) & (leading.sum(1) == 1)
    share = similar.astype(np.int64) @ similar > 0  # a third row that both are similar to
    return [
        ("Theorem 1", bool((products <= parts * np.minimum.outer(largest, largest)).all())),
        ("Theorem 2", bool(one_leader[similar].all())),
        ("Theorem 3", bool((products[share] >= zeta**2 * parts**2 * (1 - 1e-12)).all())),
    ]


def _maxima(*values: ArrayLike) -> list[np.ndarray]:
    arrays = np.broadcast_arrays(*(np.asarray(value, dtype=float) for value in values))
    if not all(((array > 0) & (array <= 1)).all() for array in arrays):
        raise ValueError("maxima and zeta must lie in (0, 1]")
    return list(arrays)
