"""Graph degree linkage with JULE's local-structure criterion, exact and sparse.

Paper 002, equations 3 and 7, on the affinity of Zhang et al. 2012:

    A(i, j) = U(i, j) / |C_i|^2 + U(j, i) / |C_j|^2,
    U(a, i) = sum over m in C_i of out_a(m) * in_a(m),

where out_a(m) is the weight of the edges from C_a to sample m and in_a(m) the weight from m to C_a.
"""

from dataclasses import dataclass

import numpy as np
from scipy import sparse

from reprolib.checks import unknown_name
from reprolib.graph._merge import EXACT, RELEASED, merge_loop
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

    @property
    def n_clusters(self) -> int:
        """Number of clusters that remain."""
        return int(self.labels.max()) + 1


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
            f"n_clusters={n_clusters} is more than the {len(names)} initial clusters of these "
            f"{n} samples: ask for at most {len(names)}, or start from a finer partition"
        )
    return compact.astype(np.int32)


def memberships(labels: np.ndarray, n_clusters: int) -> sparse.csr_array:
    """Which sample belongs to which cluster: sparse 0 or 1, float64 (n, c)."""
    n = len(labels)
    return sparse.csr_array((np.ones(n), labels, np.arange(n + 1)), shape=(n, n_clusters))


def degree_tables(
    weights: sparse.csr_array, labels: np.ndarray, n_clusters: int
) -> tuple[sparse.csr_array, sparse.csr_array]:
    """S_out = Y'W and S_in = (WY)', sparse (c, n): edge weight from, and to, each cluster by sample."""
    members = memberships(labels, n_clusters)
    out_degree = (members.T @ weights).tocsr()
    in_degree = (weights @ members).T.tocsr()
    out_degree.sort_indices()
    in_degree.sort_indices()
    return out_degree, in_degree


def _affinity(digraph: Digraph, labels: np.ndarray) -> sparse.csr_array:
    """Affinity A(i, j) of every pair of clusters, sparse float64 (c, c); that with itself is not removed."""
    labels = check_partition(labels, digraph.n, 1)
    size = np.bincount(labels)
    out_degree, in_degree = degree_tables(digraph.to_csr(), labels, len(size))
    table = out_degree.multiply(in_degree).tocsr() @ memberships(labels, len(size))  # (c, c), U
    scaled = sparse.diags_array(1.0 / np.square(size)) @ table
    return (scaled + scaled.T).tocsr()


def degree_affinity(digraph: Digraph, labels: np.ndarray) -> np.ndarray:
    """Affinity A(i, j) of every pair of clusters, dense float64 (c, c), zero diagonal: for small c only.

    Source: paper 002, section 3.3, after Zhang et al. 2012, equation 4.
    """
    affinity = _affinity(digraph, labels).toarray()
    np.fill_diagonal(affinity, 0.0)
    return affinity


def best_affinities(digraph: Digraph, labels: np.ndarray) -> np.ndarray:
    """Largest affinity of each cluster with another, float64 (c,), for labels int (n,) in 0..c-1.

    Zero where no sample of a cluster is among the neighbours of a sample outside, or none outside is
    among theirs: no merge can ever choose it (paper 002, section 3.3, read off the affinity).
    """
    affinity = _affinity(digraph, labels)
    affinity.setdiag(0.0)
    return affinity.max(axis=1).toarray().ravel()


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

    Each step merges cluster i with its nearest neighbour N_i[1], for the i that maximises
    A(i, N_i[1]) + `local_weight` / (K_c - 1) * sum_{k=2..K_c} (A(i, N_i[1]) - A(i, N_i[k])),
    K_c = `n_neighbor_clusters`. `local_weight` = 0 is plain graph degree linkage. Ties go to the
    smaller index. `mode="released"` drops the cross terms of the update, looks for neighbours among
    smaller indices only and uses the local term while more than 100 clusters remain, as JULE.torch
    does by default.

    Stops early, with more clusters, when no two clusters are joined by edges both ways.
    Time is near n log n in practice, memory O(n K_s). Raises ValueError on bad labels or counts.
    """
    if mode not in MODES:
        raise unknown_name("mode", mode, MODES)
    if n_neighbor_clusters < 1 or local_weight < 0:
        raise ValueError("n_neighbor_clusters must be at least 1 and local_weight at least 0")
    labels = check_partition(labels, digraph.n, n_clusters)
    n_initial = int(labels.max()) + 1
    out_degree, in_degree = degree_tables(digraph.to_csr(), labels, n_initial)
    # K_c = 1 has no second neighbour, hence no local term
    weight = float(local_weight) if n_neighbor_clusters > 1 else 0.0
    final, merges, affinities = merge_loop(
        out_degree.indptr.astype(np.int64),
        out_degree.indices.astype(np.int32),
        out_degree.data,
        in_degree.indptr.astype(np.int64),
        in_degree.indices.astype(np.int32),
        in_degree.data,
        labels,
        n_initial,
        int(n_clusters),
        weight,
        int(n_neighbor_clusters),
        MODES[mode],
    )
    compact = np.unique(final, return_inverse=True)[1].astype(np.int32)
    return Linkage(compact, merges, affinities)
