"""Graph degree linkage against a literal float64 transcription of paper 002, equations 3 and 7."""

import numpy as np
import pytest

from reprolib.graph.digraph import Digraph, knn_digraph, one_link_clusters
from reprolib.graph.linkage import degree_affinity, graph_degree_linkage


def dense_weights(digraph: Digraph) -> np.ndarray:
    W = np.zeros((digraph.n, digraph.n))
    for i in range(digraph.n):
        for j, w in zip(digraph.indices[i], digraph.weights[i], strict=True):
            W[i, j] = w
    return W


def literal_affinity(W: np.ndarray, a: np.ndarray, b: np.ndarray) -> float:
    """(1/|a|^2) 1'W_ab W_ba 1 + (1/|b|^2) 1'W_ba W_ab 1, written as in Zhang et al. 2012."""
    W_ab, W_ba = W[np.ix_(a, b)], W[np.ix_(b, a)]
    return (W_ab @ W_ba).sum() / len(a) ** 2 + (W_ba @ W_ab).sum() / len(b) ** 2


def literal_linkage(W, labels, n_clusters, local_weight, k_c):
    """Equation 7 from scratch at every step; also the gap between best and second-best score."""
    clusters = {c: np.flatnonzero(labels == c) for c in np.unique(labels)}
    merges, gaps = [], []
    while len(clusters) > n_clusters:
        names = sorted(clusters)
        scored = []
        for i in names:
            pairs = sorted(
                ((literal_affinity(W, clusters[i], clusters[j]), -j) for j in names if j != i), reverse=True
            )[: max(k_c, 1)]
            best, j = pairs[0][0], -pairs[0][1]
            score = best
            if local_weight and len(pairs) > 1:
                score += local_weight / (len(pairs) - 1) * sum(best - a for a, _ in pairs[1:])
            if best > 0:
                scored.append((score, -i, tuple(sorted((i, j)))))
        if not scored:
            break
        scored.sort(reverse=True)
        a, b = scored[0][2]
        others = [s for s, _, pair in scored if pair != (a, b)]
        gaps.append(scored[0][0] - others[0] if others else np.inf)
        merges.append((a, b))
        clusters[a] = np.concatenate([clusters[a], clusters.pop(b)])
    return merges, gaps


def random_case(seed, n=90, d=3, k=6, ragged=False):
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, d)).astype(np.float32)
    digraph = knn_digraph(X, k)
    if ragged:
        labels = np.minimum(rng.geometric(0.12, n) - 1, 17)
        labels = np.unique(labels, return_inverse=True)[1]
    else:
        labels = one_link_clusters(digraph.indices[:, 0])
    return digraph, labels


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("local_weight", [0.0, 1.0, 0.3])
@pytest.mark.parametrize("ragged", [False, True])
def test_every_merge_equals_the_literal_reference(seed, local_weight, ragged):
    digraph, labels = random_case(seed, ragged=ragged)
    expected, gaps = literal_linkage(dense_weights(digraph), labels, 2, local_weight, 5)
    linkage = graph_degree_linkage(digraph, labels, 2, local_weight=local_weight)
    for (a, b), got, gap in zip(expected, linkage.merges, gaps, strict=False):
        if gap < 1e-12:  # a tie up to rounding: both orders are right
            break
        assert (a, b) == tuple(got)
    else:
        assert len(expected) == len(linkage.merges)


def test_merge_affinities_are_those_of_the_merged_pair():
    digraph, labels = random_case(3)
    W = dense_weights(digraph)
    clusters = {c: np.flatnonzero(labels == c) for c in np.unique(labels)}
    linkage = graph_degree_linkage(digraph, labels, 3, local_weight=1.0)
    for (a, b), affinity in zip(linkage.merges, linkage.affinities, strict=True):
        assert affinity == pytest.approx(literal_affinity(W, clusters[a], clusters[b]), rel=1e-9)
        clusters[a] = np.concatenate([clusters[a], clusters.pop(b)])


def test_dense_affinity_table_is_symmetric_and_literal():
    digraph, labels = random_case(1, n=60)
    W, table = dense_weights(digraph), degree_affinity(digraph, labels)
    assert np.array_equal(table, table.T)
    for i in range(len(table)):
        for j in range(len(table)):
            a, b = np.flatnonzero(labels == i), np.flatnonzero(labels == j)
            expected = 0.0 if i == j else literal_affinity(W, a, b)
            assert table[i, j] == pytest.approx(expected, rel=1e-12, abs=1e-15)


def test_first_step_of_the_released_update_is_exact_and_later_rows_are_smaller():
    """The released row update drops positive cross terms, so affinities can only fall."""
    digraph, labels = random_case(5, n=200)
    exact = graph_degree_linkage(digraph, labels, 2)
    released = graph_degree_linkage(digraph, labels, 2, mode="released")
    assert exact.affinities[0] == pytest.approx(released.affinities[0])
    assert released.affinities[-10:].mean() < exact.affinities[-10:].mean()


def test_partition_does_not_depend_on_the_order_of_the_samples():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(300, 5)).astype(np.float32)
    order = rng.permutation(300)
    parts = []
    for rows in (np.arange(300), order):
        digraph = knn_digraph(X[rows], 10)
        labels = one_link_clusters(digraph.indices[:, 0])
        parts.append(graph_degree_linkage(digraph, labels, 6).labels)
    assert len(set(zip(parts[0][order].tolist(), parts[1].tolist(), strict=True))) == 6


def test_scaling_the_features_leaves_the_graph_unchanged():
    X = np.random.default_rng(0).normal(size=(80, 4)).astype(np.float32)
    one, two = knn_digraph(X, 7), knn_digraph(4.0 * X, 7)
    assert np.array_equal(one.indices, two.indices)
    np.testing.assert_allclose(one.weights, two.weights, rtol=1e-6)


def test_number_of_initial_clusters_is_the_number_of_mutual_nearest_neighbours():
    X = np.random.default_rng(0).normal(size=(500, 3)).astype(np.float32)
    nearest = knn_digraph(X, 5).indices[:, 0]
    mutual = (nearest[nearest] == np.arange(500)).sum() // 2
    assert one_link_clusters(nearest).max() + 1 == mutual


def test_a_disconnected_graph_stops_before_the_target():
    rng = np.random.default_rng(0)
    X = np.concatenate([rng.normal(size=(30, 2)), rng.normal(size=(30, 2)) + 1e4]).astype("float32")
    digraph = knn_digraph(X, 4)
    linkage = graph_degree_linkage(digraph, one_link_clusters(digraph.indices[:, 0]), 1)
    assert linkage.labels.max() + 1 >= 2
    assert set(linkage.labels[:30]).isdisjoint(linkage.labels[30:])


def test_duplicates_survive():
    X = np.repeat(np.random.default_rng(0).normal(size=(8, 3)), 12, axis=0).astype(np.float32)
    digraph = knn_digraph(X, 11)
    assert digraph.sigma2 == 0.0 and np.all(digraph.weights == 1.0)
    linkage = graph_degree_linkage(digraph, one_link_clusters(digraph.indices[:, 0]), 8)
    assert linkage.labels.max() + 1 == 8
    assert all(len(set(linkage.labels[i : i + 12])) == 1 for i in range(0, 96, 12))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dict(n_clusters=1000), "more than the"),
        (dict(n_clusters=0), "at least 1"),
        (dict(mode="relased"), "released"),
        (dict(labels=np.zeros(3, int)), "shape"),
        (dict(local_weight=-1.0), "local_weight"),
    ],
)
def test_bad_input_is_named(change, message):
    digraph, labels = random_case(0)
    arguments = dict(labels=labels, n_clusters=3) | change
    with pytest.raises(ValueError, match=message):
        graph_degree_linkage(digraph, **arguments)


def test_asking_for_the_initial_number_of_clusters_merges_nothing():
    digraph, labels = random_case(0)
    linkage = graph_degree_linkage(digraph, labels, int(labels.max()) + 1)
    assert len(linkage.merges) == 0 and np.array_equal(linkage.labels, labels)


def test_linkage_leaves_the_digraph_untouched():
    digraph, labels = random_case(0)
    indices, weights = digraph.indices.copy(), digraph.weights.copy()
    graph_degree_linkage(digraph, labels, 3)
    assert np.array_equal(indices, digraph.indices) and np.array_equal(weights, digraph.weights)
