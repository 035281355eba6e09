"""What tells clusters apart: equations 1 to 4 of paper 003 on tables of probabilities, and the baskets of its Figure 1.

A *joint* is a table p(x, y), float (m, k): a row for each of m samples, a column for each of k clusters, entries that
are not negative and sum to one. An *approximation* is a table q(y | x) (m, k) whose rows sum to one. Entropies are in
nats, a probability of zero takes no part. ValueError for other tables.
"""

from itertools import combinations

import numpy as np
from scipy import special

COLORS, SHAPES, SIZES = 10, 20, 5  # of the 100 blocks


def expected_cross_entropy(p: np.ndarray, q: np.ndarray) -> float:
    """E_x H(p(y|x), q(y|x)) = E_xy -log q(y|x) (paper 003, equation 1); infinite where q rules out what p has."""
    _check(p, q)
    return 0.0 - float(special.xlogy(p, q).sum())  # not -0.0


def decomposition(p: np.ndarray, q: np.ndarray) -> tuple[float, float]:
    """E_x KL(p(y|x), q(y|x)) and E_x H(p(y|x)), which sum to the expected cross-entropy (paper 003, equation 2)."""
    _check(p, q)
    divergence = special.rel_entr(p, p.sum(1, keepdims=True) * q).sum()
    return float(divergence), expected_entropy(p)


def expected_entropy(p: np.ndarray) -> float:
    """E_x H(p(y|x)): the bounded side of paper 003, equation 3, zero when x decides y."""
    _check(p)
    return 0.0 - float(special.rel_entr(p, np.broadcast_to(p.sum(1, keepdims=True), p.shape)).sum())


def estimated_cross_entropy(
    p: np.ndarray, q: np.ndarray, n: int, rng: np.random.Generator, *, repeats: int = 1
) -> np.ndarray:
    """Mean of -log q(y|x) over n pairs drawn from p(x, y), float (repeats,) (paper 003, equation 4).

    What counts is how often each pair was drawn, so all n are drawn at once.
    """
    _check(p, q)
    drawn = rng.multinomial(n, (p / p.sum()).ravel(), size=repeats)  # (repeats, m * k)
    return 0.0 - special.xlogy(drawn, q.ravel()).sum(1) / n


def blocks() -> np.ndarray:
    """Colour, shape and size of the 100 blocks of paper 003, Figure 1, int (100, 3).

    The paper gives counts only. Here each shape comes once in each size; colour does not depend on size, nor on the
    pair of shapes, shape // 2. Colour and shape cannot be independent: they have 200 combinations.
    """
    shape, size = np.divmod(np.arange(SHAPES * SIZES), SIZES)
    return np.stack([(shape // 2 + COLORS // 2 * (shape % 2) + size) % COLORS, shape, size], axis=1)


def cue_values(p: np.ndarray, features: np.ndarray) -> np.ndarray:
    """The cue of an assignment: values, int (m,) in 0..v-1, of the fewest features (m, f) that decide p(y|x).

    Several features count as one, with a value for each combination that occurs. ValueError if all do not decide it,
    or for a sample of probability zero.
    """
    _check(p)
    if not p.any(1).all():
        raise ValueError("a sample with p(x) = 0 has no p(y|x): leave it out")
    posterior = p / p.sum(1, keepdims=True)
    for columns in (c for size in range(features.shape[1] + 1) for c in combinations(range(features.shape[1]), size)):
        values = np.unique(features[:, columns], axis=0, return_inverse=True)[1] if columns else np.zeros(len(p), int)
        first = np.unique(values, return_index=True)[1]
        if np.allclose(posterior, posterior[first][values]):
            return values
    raise ValueError("samples with the same features have different p(y|x): give features that tell them apart")


def fetched(p: np.ndarray, values: np.ndarray) -> np.ndarray:
    """How often each sample comes, float (m,), when the cluster alone decides the value of the cue, int (m,).

    A cluster is drawn by p(y), then a sample by p(x|y) among those with the value that is commonest in the cluster, the
    lowest of equals: the fetching of paper 003, Figure 1. No more than k values can come (pigeonhole principle).
    """
    _check(p)
    mass = np.zeros((values.max() + 1, p.shape[1]))
    np.add.at(mass, values, p)  # (v, k): of each value in each cluster
    kept = np.where(values[:, None] == mass.round(12).argmax(0), p, 0.0)
    share = kept.sum(0)
    return (kept / np.where(share > 0, share, 1.0) * p.sum(0)).sum(1)


def _check(p: np.ndarray, q: np.ndarray | None = None) -> None:
    if p.ndim != 2 or not (p >= 0).all() or not np.isclose(p.sum(), 1.0):
        raise ValueError(f"p(x, y) must be a table of probabilities with sum 1, got {p.shape} with sum {p.sum():.6g}")
    if q is not None and (q.shape != p.shape or not (q >= 0).all() or not np.allclose(q.sum(1), 1.0)):
        raise ValueError(f"q(y | x) must have shape {p.shape}, no negative entry and rows with sum 1, got {q.shape}")
