"""Agglomeration by incremental path integral and by zeta function, exact and sparse.

A cluster C of a row-stochastic walk P has G_C = (I - z P_C)^-1, the sum over all walks that stay in
C, each step costing a factor z. Its descriptor is, for the two kinds,

    path integral   S_C = (1/|C|^2) 1' G_C 1                 (Zhang, Zhao and Wang 2013)
    zeta            S_C = (1/|C|) sum_i ln [G_C]_ii          (Zhao and Tang 2008)

Two clusters are as close as their union's walks raise the descriptors of both parts:

    A(a, b) = (S_{a | a+b} - S_a) + (S_{b | a+b} - S_b),

where S_{a | a+b} sums over the samples of a only, but lets the walks pass through b. Hence A is never negative,
and 0 unless the union has walks from a to b and back.
"""

import math

import numpy as np
from scipy import sparse

from reprolib.checks import check_name
from reprolib.graph._lazy import PATH, ZETA, lazy_loop
from reprolib.graph._partition import member_lists
from reprolib.graph._walks import Edges, Walk
from reprolib.graph.digraph import Digraph
from reprolib.graph.linkage import Linkage, check_partition, outcome

KINDS = {"path-integral": PATH, "zeta": ZETA}
# a sample's affinity with itself, exp(0); JULE's own graph (paper 002, equation 4) has 0 there
SELF_LOOP = 1.0
NEGLIGIBLE = 1e-18  # weight below which a further step of a walk is dropped for good


def transition_matrix(digraph: Digraph) -> sparse.csr_array:
    """Row-stochastic P of the whole digraph with unit self-loops: CSR float64 (n, n)."""
    weights = digraph.to_csr() + SELF_LOOP * sparse.eye_array(digraph.n, format="csr")
    return (sparse.diags_array(1.0 / weights.sum(axis=1)) @ weights).tocsr()


def _edges(matrix: sparse.csr_array) -> Edges:
    return Edges(matrix.indptr.astype(np.int64), matrix.indices.astype(np.int32), matrix.data)


def incremental_linkage(
    digraph: Digraph, labels: np.ndarray, n_clusters: int, *, kind: str = "path-integral", z: float = 0.01
) -> Linkage:
    """Merge the two closest clusters until `n_clusters` remain.

    `digraph` of n samples; `labels` int (n,), the initial clusters (`one_link_clusters`); `kind` "path-integral" or
    "zeta"; `z` the weight of a step, in (0, 0.5]. Ties, to nine digits, go to the smaller index: the merges are
    those of a dense solve. Stops early, with more clusters, when no two clusters have walks both ways. Memory
    O(n K_s). Raises ValueError on bad labels, counts, kind or z.

    Source: AC-PIC and AC-Zell of paper 002, Table 3: Zhang, Zhao and Wang 2013; Zhao and Tang 2008.
    """
    check_name("kind", kind, KINDS)
    if not 0.0 < z <= 0.5:
        raise ValueError(f"z must lie in (0, 0.5], got {z!r}: the walk series converges like z^t")
    labels = check_partition(labels, digraph.n, n_clusters)
    matrix, clusters = transition_matrix(digraph), member_lists(labels)
    walk = Walk(_edges(matrix), _edges(matrix.T.tocsr()), float(z))
    work = np.zeros((9, digraph.n)), np.zeros((9, digraph.n + 1), np.int32)
    # pairs of clusters with an edge between them in either direction
    source, target = (labels[ends].astype(np.int64) for ends in matrix.nonzero())
    keys = np.minimum(source, target) * digraph.n + np.maximum(source, target)
    joined = np.stack(np.divmod(np.unique(keys[source != target]), digraph.n), axis=1)  # (m, 2)
    max_order = math.ceil(math.log(NEGLIGIBLE) / math.log(z))
    return outcome(clusters, *lazy_loop(joined, int(n_clusters), KINDS[kind], max_order, walk, clusters, work))
