"""Stray clusters: found by the dense affinity table, joined before they cost a real cluster."""

import numpy as np
import pytest

from reprolib.graph.digraph import knn_digraph, one_link_clusters
from reprolib.graph.linkage import degree_affinity, graph_degree_linkage
from reprolib.graph.strays import DisconnectedGraphWarning, join_strays, leftovers, linkage_without_strays
from reprolib.methods import ACGDL

BLOBS = ((0, 0), (4, 0), (2, 3))


def crowd_with_strays(seed, n=80):
    """Three blobs and two far pairs, which point into the crowd while nothing points back."""
    rng = np.random.default_rng(seed)
    blobs = [rng.normal(c, 0.3, (n, 2)) for c in BLOBS]
    pairs = [[20.0, 0.0], [20.0, 0.01], [0.0, 25.0], [0.01, 25.0]]
    X = np.concatenate([*blobs, pairs]).astype(np.float32)
    digraph = knn_digraph(X, 30)
    return X, digraph, one_link_clusters(digraph.indices[:, 0])


def literal_leftovers(merged, labels, n_neighbors):
    found = []
    for cluster in range(merged.max() + 1):
        size = sum(merged == cluster)
        if size <= n_neighbors and size < len(merged) / (merged.max() + 1) / 20:
            found += [(size, int(label)) for label in np.unique(labels[merged == cluster])]
    return [label for _, label in sorted(found)]


@pytest.mark.parametrize("seed", range(4))
def test_leftovers_by_their_definition(seed):
    _, digraph, labels = crowd_with_strays(seed)
    merged = graph_degree_linkage(digraph, labels, 4).labels
    found = leftovers(merged, labels, 30)
    assert found.tolist() == literal_leftovers(merged, labels, 30)
    assert {labels[240], labels[242]} == set(found)
    assert len(leftovers(merged, labels, 1)) == 0, "larger than the neighbourhood"
    assert len(leftovers(labels, labels, 30)) == 0, "small beside no average"


def test_large_clusters_that_no_edge_joins_are_no_strays():
    rng = np.random.default_rng(0)
    X = np.concatenate([rng.normal(c, 0.1, (30, 2)) for c in (0.0, 50.0)]).astype(np.float32)
    digraph, labels = knn_digraph(X, 10), np.repeat([0, 1], 30)
    assert (degree_affinity(digraph, labels) == 0.0).all()
    result = linkage_without_strays(X, digraph, labels, 2, rule="leftover", n_clusters=2)
    assert np.array_equal(result.labels, labels)


def test_joining_strays_keeps_them_from_costing_a_real_cluster():
    X, digraph, labels = crowd_with_strays(0)

    def sizes(rule, n_clusters=3):
        found = linkage_without_strays(X, digraph, labels, 3, rule=rule, n_clusters=n_clusters)
        return sorted(np.bincount(found.labels))

    assert sizes("never")[0] == 2
    assert sizes("leftover") == [80, 82, 82]
    assert sizes("isolated", n_clusters=30) == sizes("never"), "not while there are few clusters"
    assert sizes("isolated", n_clusters=1) == [80, 82, 82]


def test_joining_leaves_as_many_clusters_as_asked():
    X, labels = np.arange(6, dtype=float)[:, None], np.array([0, 0, 1, 2, 3, 3])
    assert join_strays(X, labels, np.array([2, 1]), 3).tolist() == [0, 0, 1, 1, 2, 2]
    assert join_strays(X, labels, np.array([2, 1]), 4) is labels
    assert join_strays(X, labels, np.array([], int), 1) is labels
    everything = join_strays(X, labels, np.arange(4), 1)
    assert len(np.unique(everything)) == 1


def test_more_strays_than_merges_leave_the_target():
    """Thirty far pairs around one blob of three: only so many join that the target stays."""
    rng = np.random.default_rng(0)
    angle = np.repeat(np.arange(30) * 0.2, 2)
    far = 50 * np.stack([np.cos(angle), np.sin(angle)], 1) + rng.normal(0, 0.01, (60, 2))
    X = np.concatenate([rng.normal(0, 0.3, (1400, 2)), far]).astype(np.float32)
    digraph = knn_digraph(X, 20)
    labels = one_link_clusters(digraph.indices[:, 0])
    found = linkage_without_strays(X, digraph, labels, 4, rule="leftover", n_clusters=4)
    assert found.labels.max() + 1 == 4


def test_acgdl_joins_strays_when_asked():
    rng = np.random.default_rng(1)
    angle = np.concatenate([rng.normal(c, 0.05, 100) for c in (0.0, 1.0, 2.0)] + [[4.0, 4.001]])
    X = np.stack([np.cos(angle), np.sin(angle)], 1).astype(np.float32)  # unit length already
    with pytest.warns(DisconnectedGraphWarning):  # three crowds that no edge joins
        sizes = {rule: np.bincount(ACGDL(3, strays=rule).fit(X).labels_) for rule in ("never", "leftover")}
    assert sizes["never"].min() == 2 and sizes["leftover"].min() == 100


def test_unknown_rule():
    X, digraph, labels = crowd_with_strays(0)
    with pytest.raises(ValueError, match="leftover"):
        linkage_without_strays(X, digraph, labels, 3, rule="leftovers", n_clusters=3)
