"""The k-NN graph and the classical clustering methods beside public peers, over n: parts of `bench`.

All in one process and on the same unit rows; each of ours is set beside one peer and beside the floor of
the graph, its products alone.
"""

from __future__ import annotations

from functools import partial

import numpy as np
from sklearn.cluster import AgglomerativeClustering, SpectralClustering
from sklearn.neighbors import NearestNeighbors

from reprolib.bench.timing import Work, gemm_ceiling, grow, measure, spaced_rows, told
from reprolib.checks import check_memory
from reprolib.data.load import load
from reprolib.graph.digraph import knn_digraph, one_link_clusters
from reprolib.graph.linkage import graph_degree_linkage
from reprolib.kernels.knn import cost, knn
from reprolib.kernels.knn_cpu import default_precision, knn_cpu
from reprolib.methods import ACGDL, ACPIC, SCLS, SCNJW, ACLink, ACZell
from reprolib.methods.base import unit_rows
from reprolib.report.tables import Table

N_NEIGHBORS = 20
N_CLUSTERS = 10


def _brute() -> NearestNeighbors:
    return NearestNeighbors(n_neighbors=N_NEIGHBORS, algorithm="brute")


def _faiss(x: np.ndarray) -> None:
    import faiss

    index = faiss.IndexFlatL2(x.shape[1])
    index.add(x)
    index.search(x, N_NEIGHBORS + 1)  # one more: its lists hold the row itself


def _linkage_on_graph(x: np.ndarray) -> None:
    graph = _brute().fit(x).kneighbors_graph()
    AgglomerativeClustering(N_CLUSTERS, linkage="average", connectivity=graph).fit(x)


def _spectral(x: np.ndarray) -> None:
    SpectralClustering(
        N_CLUSTERS,
        affinity="nearest_neighbors",
        n_neighbors=N_NEIGHBORS,
        assign_labels="cluster_qr",
        random_state=0,
    ).fit(x)


def _fastcluster(x: np.ndarray) -> None:
    import fastcluster

    n = len(x)
    check_memory(8 * n * (n - 1), f"average linkage of {n} rows", "use a graph")
    fastcluster.linkage(x, "average", preserve_input=False)


FAISS, SKLEARN = "k-NN graph, faiss IndexFlatL2", "k-NN graph, scikit-learn"
ON_GRAPH, SPECTRAL = (
    "average linkage on the graph, scikit-learn",
    "spectral clustering, scikit-learn",
)
AVERAGE = "average linkage, fastcluster"
GRAPH: dict[str, Work] = {"k-NN graph": lambda x: knn(x, N_NEIGHBORS)}
GRAPH_PEERS: dict[str, Work] = {SKLEARN: lambda x: _brute().fit(x).kneighbors(), FAISS: _faiss}
# our methods, and the peer that each is set beside
MEMBERS = {
    "AC-GDL": (ACGDL, ON_GRAPH),
    "AC-PIC": (ACPIC, ON_GRAPH),
    "AC-Zell": (ACZell, ON_GRAPH),
    "AC-Link": (ACLink, AVERAGE),
    "SC-LS": (SCLS, SPECTRAL),
    "SC-NJW": (SCNJW, SPECTRAL),
}
BESIDE = {name: peer for name, (_, peer) in MEMBERS.items()}
BESIDE |= {"k-NN graph": FAISS, "k-NN graph in float32": FAISS}
GRAPHS = GRAPH | {
    "k-NN graph in float32": lambda x: knn_cpu(x, N_NEIGHBORS, precision="float32"),
    **GRAPH_PEERS,
}
METHODS = {
    **GRAPH,
    **{name: lambda x, m=method: m(N_CLUSTERS).fit(x) for name, (method, _) in MEMBERS.items()},
    **GRAPH_PEERS,
    ON_GRAPH: _linkage_on_graph,
    SPECTRAL: _spectral,
    AVERAGE: _fastcluster,
}


def beside_peers(
    works: dict[str, Work], dataset: str, *, halved: bool = False
) -> dict[str, dict[str, dict]]:
    """Seconds and memory of `works` on a data set, as `timing.grow` returns them; printed with ratios.

    halved: over n, every second, fourth ... row left out, until a work takes too long.
    """
    features = unit_features(dataset)
    n, d = features.shape
    sizes = [size for size in _halves(n) if size > 20 * N_NEIGHBORS] if halved else [n]
    rows = grow(works, features, sizes)
    print(f"\n{table(rows, n)}")
    for precision in dict.fromkeys([default_precision(n, d), "float32"]):
        floor = cost(n, d, N_NEIGHBORS)["flops"] / gemm_ceiling(d, precision)
        share = floor / rows["k-NN graph"][str(n)]["seconds"]
        print(f"floor of the graph, {precision}: {floor:.4f} s, fraction {share:.2f}")
    return rows


def scaling(dataset: str = "mnist") -> dict[str, float]:
    """Seconds of the graph and of the merges of AC-GDL over n, every second, fourth ... row left out.

    Keys "graph n=..." and "merges n=...".
    """
    features = unit_features(dataset)
    rows: dict[str, float] = {}
    for n in _halves(len(features)):
        part = spaced_rows(features, n)
        graph = knn_digraph(part, N_NEIGHBORS)
        initial = one_link_clusters(graph.indices[:, 0])
        works = {
            "graph": partial(knn_digraph, part, N_NEIGHBORS),
            "merges": partial(graph_degree_linkage, graph, initial, N_CLUSTERS),
        }
        rows |= {f"{name} n={n}": entry["seconds"] for name, entry in measure(works).items()}
    lines = [[name, f"{seconds:.4f}"] for name, seconds in rows.items()]
    print(f"\n{Table(['AC-GDL', 'seconds'], lines)}")
    return rows


def table(rows: dict[str, dict[str, dict]], n: int) -> Table:
    """What `beside_peers` found for n rows, each of our works over its peer."""
    lines = []
    for name, entries in rows.items():
        peer = BESIDE.get(name, "")
        ours, theirs = (
            rows.get(which, {}).get(str(n), {}).get("seconds") for which in (name, peer)
        )
        ratio = f"{ours / theirs:.2f} x {peer}" if ours and theirs else ""
        lines.append([name, *told(entries[str(n)]), ratio])
    return Table(["", "time", "peak memory", "beside"], lines, f"n = {n:,}")


def unit_features(dataset: str) -> np.ndarray:
    """Unit rows float32 (n, d) of the images where the data root has them, else of the digits."""
    try:
        images = load(dataset)
    except (OSError, ValueError) as error:
        print(f"{dataset} is not there ({error}); digits instead")
        images = load("digits")
    return unit_rows(images)


def _halves(n: int) -> list[int]:
    sizes = [n]
    while sizes[0] >= 1_000:
        sizes.insert(0, sizes[0] // 2)
    return sizes
