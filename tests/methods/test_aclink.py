"""AC-Link against a literal linkage; blobs, rings, invariances, memory, bad input."""

import sys

import numpy as np
import pytest
from sklearn.metrics import adjusted_rand_score

from reprolib.methods.classical import ACLink


def mean_distance(a, b):
    return np.mean([np.linalg.norm(x - y) for x in a for y in b])


def rise_of_the_squares(a, b):
    squares = [((part - part.mean(0)) ** 2).sum() for part in (np.vstack([a, b]), a, b)]
    return squares[0] - squares[1] - squares[2]


COSTS = {"average": mean_distance, "ward": rise_of_the_squares}


def literal_linkage(X, cost):
    """Merge the two clusters of least cost, again and again: labels for every number of clusters."""
    X = X / np.linalg.norm(X, axis=1, keepdims=True)
    clusters, cuts = [[i] for i in range(len(X))], {}
    while len(clusters) > 1:
        pairs = [(a, b) for a in range(len(clusters)) for b in range(a)]
        a, b = min(pairs, key=lambda p: cost(X[clusters[p[0]]], X[clusters[p[1]]]))
        clusters[b] += clusters.pop(a)
        cuts[len(clusters)] = [[i in c for c in clusters].index(True) for i in range(len(X))]
    return cuts


def blobs(seed=0, n=60):
    rng = np.random.default_rng(seed)
    y = np.arange(n) % 3
    return (5 * np.eye(3)[y] + rng.normal(0, 0.3, (n, 3))).astype(np.float32), y


@pytest.mark.parametrize("linkage", COSTS)
@pytest.mark.parametrize("seed", range(2))
def test_partition_is_the_literal_one(seed, linkage):
    X = np.random.default_rng(seed).normal(size=(20, 4))
    for c, expected in literal_linkage(X, COSTS[linkage]).items():
        labels = ACLink(c, linkage=linkage).fit_predict(X)
        assert labels.dtype == np.int32 and set(labels) == set(range(c))
        assert adjusted_rand_score(expected, labels) == 1


def test_blobs_succeed_in_any_order_and_scale():
    X, y = blobs()
    order = np.random.default_rng(1).permutation(len(X))
    scales = np.random.default_rng(2).uniform(0.1, 9, (len(X), 1))
    for data, truth in ((X, y), (X[order], y[order]), (X * scales, y)):
        assert adjusted_rand_score(truth, ACLink(3).fit_predict(data)) == 1


def test_rings_fail():
    rng = np.random.default_rng(0)
    y = np.arange(300) % 2
    angle = rng.uniform(0, 2 * np.pi, 300)
    plane = np.stack([np.cos(angle), np.sin(angle)], 1) * np.where(y, 0.3, 1.2)[:, None]
    X = np.c_[plane, np.ones(300)]  # the third feature keeps them apart on the unit sphere
    assert adjusted_rand_score(y, ACLink(2).fit_predict(X)) < 0.2


def test_ties_and_duplicates_still_give_the_number_asked_for():
    X = np.repeat(np.eye(4, dtype=np.float32), 6, axis=0)
    for c in (1, 2, 3, 4, 7, 24):
        assert len(np.unique(ACLink(c).fit_predict(X))) == c
    assert adjusted_rand_score(np.repeat(range(4), 6), ACLink(4).fit_predict(X)) == 1


def test_bad_input():
    X, _ = blobs()
    for c, message in ((0, "at least 1"), (61, "n_clusters=61")):
        with pytest.raises(ValueError, match=message):
            ACLink(c).fit(X)
    with pytest.raises(ValueError, match="identical"):
        ACLink(2).fit(np.ones((5, 3)))
    with pytest.raises(ValueError, match="unknown linkage 'wards'.*ward"):
        ACLink(2, linkage="wards").fit(X)
    X[1, 1] = np.nan
    with pytest.raises(ValueError, match="NaN"):
        ACLink(2).fit(X)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux says what memory is left")
def test_distances_that_do_not_fit_are_refused_before_the_start():
    X = np.random.default_rng(0).normal(size=(600_000, 2)).astype(np.float32)
    with pytest.raises(MemoryError, match="2682.2 GiB.*available.*ACGDL"):
        ACLink(10).fit(X)
