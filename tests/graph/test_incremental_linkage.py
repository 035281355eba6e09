"""Path-integral and zeta linkage against literal dense float64 definitions, merge by merge."""

import numpy as np
import pytest

from reprolib.graph.digraph import Digraph, knn_digraph, one_link_clusters
from reprolib.graph.incremental import SELF_LOOP, incremental_linkage, transition_matrix

Z = 0.01
KINDS = ["path-integral", "zeta"]
# what float64 leaves of an affinity, the difference of four sums of solves, each over its number of terms
NOISE = 32 * np.finfo(float).eps


def random_digraph(n, k, seed):
    """Random neighbours and weights: mutual and one-way edges, no metric structure."""
    rng = np.random.default_rng(seed)
    indices = np.stack([rng.choice(np.delete(np.arange(n), i), k, replace=False) for i in range(n)])
    return Digraph(indices.astype(np.int32), rng.uniform(0.05, 1.0, (n, k)), 1.0)


def ragged_labels(n, n_clusters, seed):
    """Clusters of very different sizes, none empty."""
    rng = np.random.default_rng(seed)
    share = rng.dirichlet(np.full(n_clusters, 0.6))
    labels = np.concatenate([np.arange(n_clusters), rng.choice(n_clusters, n - n_clusters, p=share)])
    return rng.permutation(labels)


def dense_transition(digraph):
    weights = np.zeros((digraph.n, digraph.n))
    for i in range(digraph.n):
        for j, w in zip(digraph.indices[i], digraph.weights[i], strict=True):
            weights[i, j] = w
        weights[i, i] = 1.0
    return weights / weights.sum(axis=1, keepdims=True)


def dense_affinity(P, a, b, kind, z):
    """Conditional minus plain descriptors, each from a dense solve or inverse."""
    total = 0.0
    both = np.concatenate([a, b])
    union = np.eye(len(both)) - z * P[np.ix_(both, both)]
    for part, where in ((a, slice(0, len(a))), (b, slice(len(a), None))):
        alone = np.eye(len(part)) - z * P[np.ix_(part, part)]
        if kind == "path-integral":
            inside = np.zeros(len(both))
            inside[where] = 1.0
            conditional = np.linalg.solve(union, inside)[where].sum()
            plain = np.linalg.solve(alone, np.ones(len(part))).sum()
            total += (conditional - plain) / len(part) ** 2
        else:
            conditional = np.log(np.diag(np.linalg.inv(union))[where]).sum()
            plain = np.log(np.diag(np.linalg.inv(alone))).sum()
            total += (conditional - plain) / len(part)
    return total


def dense_linkage(digraph, labels, n_clusters, kind, z=Z, tie=1e-9):
    """All pairs of clusters, whether joined or not; ties go to the smaller pair of indices."""
    P = dense_transition(digraph)
    members = {c: np.flatnonzero(labels == c) for c in np.unique(labels)}
    pairs = [(a, b) for a in members for b in members if a < b]
    table = {(a, b): dense_affinity(P, members[a], members[b], kind, z) for a, b in pairs}
    merges, affinities = [], []
    while len(members) > n_clusters:
        top = max(table.values())
        if top < NOISE:
            break
        a, b = min(pair for pair, value in table.items() if value >= top * (1 - tie) - NOISE)
        merges.append((a, b))
        affinities.append(table[a, b])
        members[a] = np.concatenate([members[a], members.pop(b)])
        table = {pair: value for pair, value in table.items() if b not in pair}
        for c in members:
            if c != a:
                pair = min(a, c), max(a, c)
                table[pair] = dense_affinity(P, members[pair[0]], members[pair[1]], kind, z)
    final = np.empty(digraph.n, int)
    for c, samples in members.items():
        final[samples] = c
    return np.unique(final, return_inverse=True)[1], np.array(merges), np.array(affinities)


def assert_same(result, reference):
    labels, merges, affinities = reference
    np.testing.assert_array_equal(result.merges, merges)
    np.testing.assert_allclose(result.affinities, affinities, rtol=1e-8, atol=NOISE)
    np.testing.assert_array_equal(result.labels, labels)
    assert (result.labels.dtype, result.merges.dtype) == (np.int32, np.int32)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", range(4))
def test_merges_equal_dense_solve_on_random_graphs(kind, seed):
    digraph = random_digraph(90, 7, seed)
    labels = ragged_labels(90, 30, seed)
    result = incremental_linkage(digraph, labels, 2, kind=kind)
    assert len(result.merges) == 28
    assert_same(result, dense_linkage(digraph, labels, 2, kind))


@pytest.mark.parametrize("kind", KINDS)
def test_merges_equal_dense_solve_on_a_knn_graph(kind):
    rng = np.random.default_rng(5)
    centres = rng.normal(size=(5, 6))
    points = (centres[rng.integers(5, size=160)] + 0.4 * rng.normal(size=(160, 6))).astype("float32")
    digraph = knn_digraph(points, 12)
    labels = one_link_clusters(digraph.indices[:, 0])
    assert_same(incremental_linkage(digraph, labels, 5, kind=kind), dense_linkage(digraph, labels, 5, kind))


@pytest.mark.parametrize("kind", KINDS)
def test_merges_equal_dense_solve_for_a_heavy_step(kind):
    digraph = random_digraph(60, 6, 11)
    labels = ragged_labels(60, 18, 11)
    result = incremental_linkage(digraph, labels, 3, kind=kind, z=0.4)
    assert_same(result, dense_linkage(digraph, labels, 3, kind, z=0.4))


@pytest.mark.parametrize("kind", KINDS)
def test_duplicates_and_their_ties(kind):
    rng = np.random.default_rng(2)
    distinct = rng.normal(size=(15, 4)).astype(np.float32)
    digraph = knn_digraph(np.repeat(distinct, 4, axis=0), 6)
    labels = np.repeat(np.arange(30), 2)  # each group of four duplicates starts as two clusters
    result = incremental_linkage(digraph, labels, 4, kind=kind)
    assert_same(result, dense_linkage(digraph, labels, 4, kind))


@pytest.mark.parametrize("kind", KINDS)
def test_equal_pairs_merge_in_order_of_index(kind):
    # eight triangles, all alike and not joined: two equal merges in each, then the next one
    indices = np.array([[3 * t + (s + 1) % 3, 3 * t + (s + 2) % 3] for t in range(8) for s in range(3)])
    digraph = Digraph(indices.astype(np.int32), np.full((24, 2), 0.5), 1.0)
    result = incremental_linkage(digraph, np.arange(24), 16, kind=kind)
    expected = [(3 * t, 3 * t + s) for t in range(4) for s in (1, 2)]
    np.testing.assert_array_equal(result.merges, expected)


@pytest.mark.parametrize("kind", KINDS)
def test_disconnected_graph_stops_with_its_components(kind):
    left, right = random_digraph(40, 5, 0), random_digraph(30, 5, 1)
    digraph = Digraph(
        np.concatenate([left.indices, right.indices + 40]).astype(np.int32),
        np.concatenate([left.weights, right.weights]),
        1.0,
    )
    labels = np.concatenate([ragged_labels(40, 12, 0), 12 + ragged_labels(30, 9, 1)])
    result = incremental_linkage(digraph, labels, 1, kind=kind)
    assert result.labels.max() + 1 == 2
    assert len(result.merges) == len(result.affinities) == 19
    np.testing.assert_array_equal(result.labels, np.repeat([0, 1], [40, 30]))


@pytest.mark.parametrize("kind", KINDS)
def test_one_way_edges_have_no_affinity(kind):
    # 0 <-> 1 and 2 <-> 3, with an edge 1 -> 2 that nothing returns
    digraph = Digraph(
        np.array([[1, 3], [0, 2], [3, 0], [2, 0]], np.int32),
        np.array([[0.5, 0.0], [0.5, 0.9], [0.5, 0.0], [0.5, 0.0]]),
        1.0,
    )
    result = incremental_linkage(digraph, np.array([0, 0, 1, 1]), 1, kind=kind)
    assert result.labels.max() + 1 == 2
    assert len(result.merges) == 0


def test_zeta_needs_a_closed_walk_and_the_path_integral_does_not():
    # cluster {0, 1} reaches {2, 3} from 0 and is reached at 1, but no walk joins 1 to 0 or 2 to 3
    weights = np.array([[0.7], [0.0], [0.0], [0.7]])
    digraph = Digraph(np.array([[2], [0], [3], [1]], np.int32), weights, 1.0)
    labels = np.array([0, 0, 1, 1])
    for kind in KINDS:
        assert dense_affinity(dense_transition(digraph), np.array([0, 1]), np.array([2, 3]), kind, Z) == pytest.approx(
            0.0, abs=1e-15
        )
        assert len(incremental_linkage(digraph, labels, 1, kind=kind).merges) == 0
    weights[2] = 0.4  # now 0 -> 2 -> 3 -> 1: a walk from {0, 1} and back, yet no closed one
    digraph = Digraph(digraph.indices, weights, 1.0)
    reference = dense_linkage(digraph, labels, 1, "path-integral")
    assert_same(incremental_linkage(digraph, labels, 1), reference)
    assert len(reference[1]) == 1
    assert len(incremental_linkage(digraph, labels, 1, kind="zeta").merges) == 0


@pytest.mark.parametrize("kind", KINDS)
def test_affinity_is_never_negative_and_zero_only_without_walks_both_ways(kind):
    digraph = random_digraph(80, 5, 8)
    result = incremental_linkage(digraph, np.arange(80), 1, kind=kind)
    assert (result.affinities > 0).all()


@pytest.mark.parametrize("kind", KINDS)
def test_relabelling_clusters_and_samples_keeps_the_partition(kind):
    digraph = random_digraph(100, 6, 4)
    labels = ragged_labels(100, 35, 4)
    rng = np.random.default_rng(0)
    expected = incremental_linkage(digraph, labels, 6, kind=kind).labels
    order, names = rng.permutation(100), rng.permutation(35)
    place = np.argsort(order)
    shuffled = Digraph(place[digraph.indices[order]].astype(np.int32), digraph.weights[order], 1.0)
    found = incremental_linkage(shuffled, names[labels[order]], 6, kind=kind).labels
    pairs = set(zip(expected[order], found, strict=True))
    assert len(pairs) == len(set(expected)) == len(set(found)) == 6


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_to_merge(kind):
    digraph = random_digraph(20, 4, 6)
    for labels in (np.zeros(20, int), ragged_labels(20, 7, 6)):
        result = incremental_linkage(digraph, labels, labels.max() + 1, kind=kind)
        assert result.merges.shape == (0, 2)
        np.testing.assert_array_equal(result.labels, labels)


def test_transition_matrix_is_row_stochastic_with_unit_self_loops():
    digraph = random_digraph(30, 5, 9)
    P = transition_matrix(digraph)
    np.testing.assert_allclose(P.sum(axis=1), 1.0, rtol=1e-14)
    np.testing.assert_allclose(P.toarray(), dense_transition(digraph), rtol=1e-14)
    assert SELF_LOOP == 1.0


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"kind": "path"}, "path-integral"),
        ({"z": 0.0}, "z must lie in"),
        ({"z": 0.9}, "z must lie in"),
        ({"n_clusters": 0}, "at least 1"),
        ({"n_clusters": 8}, "7 initial clusters"),
        ({"labels": np.zeros(19, int)}, "shape"),
    ],
)
def test_bad_input_is_named(arguments, message):
    digraph = random_digraph(20, 4, 6)
    known = {"labels": ragged_labels(20, 7, 6), "n_clusters": 3}
    with pytest.raises(ValueError, match=message):
        incremental_linkage(digraph, **{**known, **arguments})
