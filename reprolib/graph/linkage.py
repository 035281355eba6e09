"""Graph degree linkage with JULE's local-structure criterion, exact and sparse.

Paper 002, equations 3 and 7, on the affinity of Zhang et al. 2012:

    A(i, j) = U(i, j) / |C_i|^2 + U(j, i) / |C_j|^2, U(a, i) = sum over m in C_i of out_a(m) * in_a(m),

where out_a(m) is the weight of the edges from C_a to sample m and in_a(m) the weight from m to C_a.
"""

from dataclasses import dataclass

import numpy as np
from scipy import sparse

from reprolib.checks import check_name
from reprolib.graph._merge import EXACT, RELEASED, SPARE, Lists, merge_loop
from reprolib.graph._partition import Clusters, member_lists
from reprolib.graph.digraph import Digraph

MODES = {"exact": EXACT, "released": RELEASED}


@dataclass(frozen=True)
class Linkage:
    """Outcome of an agglomeration.

    `labels` int32 (n,) in 0..c-1; `merges` int32 (m, 2): initial cluster ids (kept, absorbed) in merge
    order; `affinities` float64 (m,): the affinity of each merged pair.
    """

    labels: np.ndarray
    merges: np.ndarray
    affinities: np.ndarray


def check_partition(labels: np.ndarray, n: int, n_clusters: int) -> np.ndarray:
    """Initial labels as int32 (n,) in 0..c-1, with c >= `n_clusters`; ValueError otherwise."""
    labels = np.asarray(labels)
    if labels.shape != (n,):
        raise ValueError(f"labels must have shape ({n},) to match the graph, got {labels.shape}")
    names, compact = np.unique(labels, return_inverse=True)
    if n_clusters < 1:
        raise ValueError(f"n_clusters must be at least 1, got {n_clusters}")
    if n_clusters > len(names):
        raise ValueError(
            f"n_clusters={n_clusters} is more than the {len(names)} initial clusters of these {n} samples: "
            f"ask for at most {len(names)}, or start from a finer partition"
        )
    return compact.astype(np.int32)


def _degrees(digraph: Digraph, labels: np.ndarray) -> tuple[sparse.csr_array, ...]:
    """Edge weight from, and to, each cluster by sample outside it (c, n), and U of the pairs (c, c).

    S_out = Y'W, S_in = (WY)' and U = (S_out * S_in) Y, for the 0 or 1 memberships Y of `labels` in 0..c-1, all sparse.
    """
    n, weights = digraph.n, digraph.to_csr()
    members = sparse.csr_array((np.ones(n), labels, np.arange(n + 1)), shape=(n, int(labels.max()) + 1))
    inside = members.T.tocsr()
    degrees = (members.T @ weights).tocsr(), (weights @ members).T.tocsr()
    out_degree, in_degree = (degree - degree.multiply(inside) for degree in degrees)
    return out_degree, in_degree, out_degree.multiply(in_degree).tocsr() @ members


def affinities(digraph: Digraph, labels: np.ndarray) -> sparse.csr_array:
    """Affinity A(i, j) of every pair of clusters, sparse float64 (c, c), zero diagonal.

    `labels` int (n,) in 0..c-1. No merge can ever choose a cluster whose row is zero. Source: `degree_affinity`.
    """
    scaled = sparse.diags_array(1.0 / np.square(np.bincount(labels))) @ _degrees(digraph, labels)[2]
    return (scaled + scaled.T).tocsr()


def degree_affinity(digraph: Digraph, labels: np.ndarray) -> np.ndarray:
    """`affinities` of any labels int (n,) as a dense array (c, c), for small c only.

    Source: paper 002, section 3.3, after Zhang et al. 2012, equation 4.
    """
    return affinities(digraph, check_partition(labels, digraph.n, 1)).toarray()


def _lists(first: sparse.csr_array, second: sparse.csr_array) -> Lists:
    """Entries of either matrix by row, both values, in a pool with spare room for each list."""
    both = (first + 1j * second).tocsr()
    both.eliminate_zeros()
    both.sort_indices()
    length = np.diff(both.indptr).astype(np.int64)
    room = length + SPARE
    end = np.cumsum(room)
    index, value = np.empty(end[-1], np.int32), np.empty((end[-1], 2))
    place = np.arange(both.nnz) + SPARE * np.repeat(np.arange(len(length)), length)
    index[place], value[place] = both.indices, both.data.view(np.float64).reshape(-1, 2)
    return Lists(end - room, length, room, index, value, end[-1:])


def graph_degree_linkage(
    digraph: Digraph,
    labels: np.ndarray,
    n_clusters: int,
    *,
    local_weight: float = 0.0,
    n_neighbor_clusters: int = 5,
    mode: str = "exact",
) -> Linkage:
    """Merge clusters greedily until `n_clusters` remain (paper 002, equations 2a, 3, 5b, 7 and 8).

    Each step merges cluster i with its nearest neighbour N_i[1], for the i that maximises A(i, N_i[1]) +
    `local_weight` / (K_c - 1) * sum_{k=2..K_c} (A(i, N_i[1]) - A(i, N_i[k])), K_c = `n_neighbor_clusters`.
    `local_weight` = 0 is plain graph degree linkage. Ties go to the smaller index. `mode="released"`, as JULE.torch:
    no cross terms in the update, neighbours among smaller indices only, the local term while more than 100 clusters
    remain.

    Stops early, with more clusters, when no two clusters are joined by edges both ways. Time is near n log n in
    practice, memory O(n K_s). Raises ValueError on bad labels or counts.
    """
    check_name("mode", mode, MODES)
    if n_neighbor_clusters < 1 or local_weight < 0:
        raise ValueError("n_neighbor_clusters must be at least 1 and local_weight at least 0")
    labels = check_partition(labels, digraph.n, n_clusters)
    out_degree, in_degree, table = _degrees(digraph, labels)
    boundary, adjacency = _lists(out_degree, in_degree), _lists(table, table.T.tocsr())
    settings = int(n_clusters), float(local_weight), int(n_neighbor_clusters), MODES[mode]
    clusters = member_lists(labels)
    return outcome(clusters, *merge_loop(boundary, adjacency, clusters, *settings))


def outcome(clusters: Clusters, merges: np.ndarray, affinities: np.ndarray) -> Linkage:
    """What merges left of a partition, with labels without gaps."""
    compact = np.unique(clusters.label, return_inverse=True)[1].astype(np.int32)
    return Linkage(compact, merges, affinities)
