"""Signs of a partition against their definitions, edge by edge and point by point."""

import math

import numpy as np
import pytest

from reprolib.graph.digraph import knn_digraph
from reprolib.studies.signs import cuts, silhouette, stability, within_share


@pytest.fixture(params=[(40, 3, 4, 5), (90, 6, 7, 3), (12, 2, 11, 2)], ids="n{0[0]}".format)
def case(request):
    n, d, k, c = request.param
    rng = np.random.default_rng(n)
    points = rng.normal(size=(n, d)).astype(np.float32)
    return points, knn_digraph(points, k), np.unique(rng.integers(c, size=n), return_inverse=True)[1]


def test_cuts_equal_sums_over_edges(case):
    points, digraph, labels = case
    n = len(points)
    weights = np.zeros((n, n))
    for i in range(n):
        for j, w in zip(digraph.indices[i], digraph.weights[i], strict=True):
            weights[i, j] += w
            weights[j, i] += w
    total, degree = weights.sum(), weights.sum(1)
    literal = sum(
        weights[i, j] / total - degree[i] * degree[j] / total**2
        for i in range(n)
        for j in range(n)
        if labels[i] == labels[j]
    )
    leaving = [
        weights[np.ix_(labels == c, labels != c)].sum() / degree[labels == c].sum() for c in range(labels.max() + 1)
    ]
    np.testing.assert_allclose(cuts(digraph, labels), (literal, np.mean(leaving)), rtol=1e-10)


def test_one_cluster_is_cut_nowhere(case):
    _, digraph, labels = case
    np.testing.assert_allclose(cuts(digraph, np.zeros_like(labels)), (0.0, 0.0), atol=1e-12)


def test_share_within_clusters(case):
    points, _, labels = case
    literal = sum(
        np.square(points[labels == c].astype(float) - points[labels == c].mean(0, dtype=float)).sum()
        for c in np.unique(labels)
    )
    spread = np.square(points.astype(float) - points.mean(0, dtype=float)).sum()
    assert within_share(points, labels) == pytest.approx(literal / spread)


def test_silhouette_of_few_points_is_that_of_all_and_of_one_cluster_none():
    points = np.repeat([[0.0, 0.0], [10.0, 0.0]], 20, axis=0) + np.random.default_rng(0).normal(size=(40, 2))
    labels = np.repeat([0, 1], 20)

    def own(i):
        distance = np.sqrt(np.square(points - points[i]).sum(1))
        a = distance[(labels == labels[i])].sum() / 19
        b = distance[labels != labels[i]].mean()
        return (b - a) / max(a, b)

    assert silhouette(points, labels, 0) == pytest.approx(np.mean([own(i) for i in range(40)]))
    assert math.isnan(silhouette(points, np.zeros(40, int), 0))


def test_stability_compares_draws_with_the_whole():
    points = np.arange(100.0)[:, None]
    halves = (points[:, 0] >= 50).astype(int)
    assert stability(lambda p: 1 - (p[:, 0] >= 50), points, halves, 0) == 1.0  # numbers of clusters do not matter
    sizes = []

    def parity(p):
        sizes.append(len(p))
        return p[:, 0].astype(int) % 2

    assert abs(stability(parity, points, halves, 0)) < 0.1
    assert sizes == [80] * 3
