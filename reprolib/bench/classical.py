"""The k-NN graph and the classical clustering methods beside public peers, over n: parts of `bench`.

All in one process and on the same unit rows. Each of ours is set beside one peer, the graph also beside its floor.
"""

import numpy as np
from sklearn.cluster import AgglomerativeClustering, SpectralClustering
from sklearn.neighbors import NearestNeighbors

from reprolib.bench.timing import Work, gemm_ceiling, grow, told
from reprolib.checks import check_memory
from reprolib.data.load import load
from reprolib.kernels.knn import cost, knn
from reprolib.kernels.knn_cpu import default_precision
from reprolib.methods import ACGDL, ACPIC, SCLS, SCNJW, ACLink, ACZell
from reprolib.methods.base import Estimator, unit_rows
from reprolib.report.tables import Table

N_NEIGHBORS = 20
N_CLUSTERS = 10


def _fit(method: type[Estimator]) -> Work:
    return lambda x: method(N_CLUSTERS).fit(x)


def _brute(x: np.ndarray) -> NearestNeighbors:
    return NearestNeighbors(n_neighbors=N_NEIGHBORS, algorithm="brute").fit(x)


def _faiss(x: np.ndarray) -> None:
    import faiss

    index = faiss.IndexFlatL2(x.shape[1])
    index.add(x)
    index.search(x, N_NEIGHBORS + 1)  # one more: its lists hold the row itself


def _linkage_on_graph(x: np.ndarray) -> None:
    graph = _brute(x).kneighbors_graph()
    AgglomerativeClustering(N_CLUSTERS, linkage="average", connectivity=graph).fit(x)


def _spectral(x: np.ndarray) -> None:
    graph = {"affinity": "nearest_neighbors", "n_neighbors": N_NEIGHBORS}
    SpectralClustering(N_CLUSTERS, assign_labels="cluster_qr", random_state=0, **graph).fit(x)


def _fastcluster(x: np.ndarray) -> None:
    import fastcluster

    n = len(x)
    check_memory(8 * n * (n - 1), f"average linkage of {n} rows", "use a graph")
    fastcluster.linkage(x, "average", preserve_input=False)


FAISS, AVERAGE = "k-NN graph, faiss IndexFlatL2", "average linkage, fastcluster"
ON_GRAPH = "average linkage on the graph, scikit-learn"
SPECTRAL = "spectral clustering, scikit-learn"
# ours, each with the peer that it is set beside, and the peers
OURS: dict[str, tuple[Work, str]] = {
    "k-NN graph": (lambda x: knn(x, N_NEIGHBORS), FAISS),
    "AC-GDL": (_fit(ACGDL), ON_GRAPH),
    "AC-PIC": (_fit(ACPIC), ON_GRAPH),
    "AC-Zell": (_fit(ACZell), ON_GRAPH),
    "AC-Link": (_fit(ACLink), AVERAGE),
    "SC-LS": (_fit(SCLS), SPECTRAL),
    "SC-NJW": (_fit(SCNJW), SPECTRAL),
}
PEERS: dict[str, Work] = {
    "k-NN graph, scikit-learn": lambda x: _brute(x).kneighbors(),
    FAISS: _faiss,
    ON_GRAPH: _linkage_on_graph,
    SPECTRAL: _spectral,
    AVERAGE: _fastcluster,
}
WORKS = {name: work for name, (work, _) in OURS.items()} | PEERS


def beside_peers(dataset: str, *, only: str = "", halved: bool = False) -> dict[str, dict[str, dict]]:
    """Seconds and memory of WORKS on a data set, as `timing.grow` returns them; printed with ratios.

    only: how the names of the works begin; halved: over n, every second, fourth ... row left out, until a
    work takes too long. Where the data root does not have the data set, the digits.
    """
    try:
        features = unit_rows(load(dataset))
    except (OSError, ValueError) as error:
        print(f"{dataset} is not there ({error}); digits instead")
        features = unit_rows(load("digits"))
    n, d = features.shape
    sizes = [n]
    while halved and sizes[0] >= 1_000:
        sizes.insert(0, sizes[0] // 2)
    works = {name: work for name, work in WORKS.items() if name.startswith(only)}
    rows = grow(works, features, sizes)
    lines = []
    for name, entries in rows.items():
        peer = OURS[name][1] if name in OURS else ""
        entry, beside = entries[str(n)], rows.get(peer, {}).get(str(n), {})
        both = "seconds" in entry and "seconds" in beside
        ratio = f"{entry['seconds'] / beside['seconds']:.2f} x {peer}" if both else ""
        lines.append([name, *told(entry), ratio])
    print(f"\n{Table(['', 'time', 'peak memory', 'beside'], lines, f'n = {n:,}, d = {d}')}")
    for precision in dict.fromkeys([default_precision(n, d), "float32"]):
        floor = cost(n, d, N_NEIGHBORS)["flops"] / gemm_ceiling(d, precision)
        seconds = rows["k-NN graph"][str(n)].get("seconds", np.nan)
        print(f"floor of the graph, {precision}: {floor:.4f} s, fraction {floor / seconds:.2f}")
    return rows
