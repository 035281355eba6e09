"""Agglomeration by incremental path integral and by zeta function, exact and sparse.

A cluster C of a row-stochastic walk P has G_C = (I - z P_C)^-1, the sum over all walks that stay in
C, each step costing a factor z. Its descriptor is, for the two kinds,

    path integral   S_C = (1/|C|^2) 1' G_C 1                 (Zhang, Zhao and Wang 2013)
    zeta            S_C = (1/|C|) sum_i ln [G_C]_ii          (Zhao and Tang 2008)

Two clusters are as close as their union's walks raise the descriptors of both parts:

    A(a, b) = (S_{a | a+b} - S_a) + (S_{b | a+b} - S_b),

where S_{a | a+b} sums over the samples of a only, but lets the walks pass through b. Hence A is
never negative, and 0 unless the union has walks from a to b and back.
"""

import math

import numpy as np
from scipy import sparse

from reprolib.checks import unknown_name
from reprolib.graph._lazy import PATH, ZETA, lazy_loop
from reprolib.graph._partition import member_lists
from reprolib.graph._walks import Walk, Work
from reprolib.graph.digraph import Digraph
from reprolib.graph.linkage import Linkage, check_partition

KINDS = {"path-integral": PATH, "zeta": ZETA}
# a sample's affinity with itself, exp(0); JULE's own graph (paper 002, equation 4) has 0 there
SELF_LOOP = 1.0
# weight below which a further step of a walk is dropped for good
NEGLIGIBLE = 1e-18


def transition_matrix(digraph: Digraph) -> sparse.csr_array:
    """Row-stochastic P of the whole digraph with unit self-loops: CSR float64 (n, n)."""
    weights = digraph.to_csr() + SELF_LOOP * sparse.eye_array(digraph.n, format="csr")
    return (sparse.diags_array(1.0 / weights.sum(axis=1)) @ weights).tocsr()


def _walk(digraph: Digraph) -> Walk:
    matrix = transition_matrix(digraph)
    stay = matrix.diagonal()
    steps = (matrix - sparse.diags_array(stay)).tocsr()
    steps.eliminate_zeros()
    sides = [
        (side.indptr.astype(np.int64), side.indices.astype(np.int32), side.data)
        for side in (steps, steps.T.tocsr())
    ]
    return Walk(*sides[0], *sides[1], stay)


def _joined(walk: Walk, labels: np.ndarray) -> np.ndarray:
    """Pairs of clusters with an edge between them in either direction, int64 (m, 2), sorted."""
    n_clusters = int(labels.max()) + 1
    source = np.repeat(labels, np.diff(walk.out_ptr)).astype(np.int64)
    target = labels[walk.out_idx].astype(np.int64)
    keys = np.minimum(source, target) * n_clusters + np.maximum(source, target)
    keys = np.unique(keys[source != target])
    return np.stack([keys // n_clusters, keys % n_clusters], axis=1)


def incremental_linkage(
    digraph: Digraph,
    labels: np.ndarray,
    n_clusters: int,
    *,
    kind: str = "path-integral",
    z: float = 0.01,
) -> Linkage:
    """Merge the two closest clusters until `n_clusters` remain.

    `digraph` of n samples; `labels` int (n,), the initial clusters (`one_link_clusters`); `kind`
    "path-integral" or "zeta"; `z` the weight of a step, in (0, 0.5]. Ties, to nine digits, go to
    the smaller index: the merges are those of a dense solve.

    Stops early, with more clusters, when no two clusters have walks both ways. Memory O(n K_s).
    Raises ValueError on bad labels, counts, kind or z.

    Source: AC-PIC and AC-Zell of paper 002, Table 3: Zhang, Zhao and Wang 2013; Zhao and Tang 2008.
    """
    if kind not in KINDS:
        raise unknown_name("kind", kind, KINDS)
    if not 0.0 < z <= 0.5:
        raise ValueError(f"z must lie in (0, 0.5], got {z!r}: the walk series converges like z^t")
    labels = check_partition(labels, digraph.n, n_clusters)
    walk, clusters = _walk(digraph), member_lists(labels)
    work = Work(np.zeros((9, digraph.n)), np.empty((9, digraph.n), np.int32))
    max_order = math.ceil(math.log(NEGLIGIBLE) / math.log(z))
    joined, kind, z = _joined(walk, labels), KINDS[kind], float(z)
    merges, affinities = lazy_loop(
        joined, int(n_clusters), kind, z, max_order, walk, clusters, work
    )
    compact = np.unique(clusters.label, return_inverse=True)[1].astype(np.int32)
    return Linkage(compact, merges, affinities)
