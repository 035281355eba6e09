"""Time and memory of the classical clustering methods over n, beside public peers: part of `bench`.

All in one process and on the same unit rows. A method is left out from the size on where its growth so
far, carried on once more, would take it past LIMIT.
"""

from __future__ import annotations

import ctypes
import gc
import importlib.util
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from sklearn.cluster import AgglomerativeClustering, SpectralClustering
from sklearn.neighbors import NearestNeighbors

from reprolib.checks import check_memory
from reprolib.kernels.knn import knn
from reprolib.methods import ACGDL, ACPIC, SCLS, SCNJW, ACLink, ACZell

N_NEIGHBORS = 20
N_CLUSTERS = 10
LIMIT = 300.0  # seconds
SHORT = 5.0  # seconds: what is worth repeating
REPEATS = 3

Work = Callable[[np.ndarray], object]
# our methods, and the peer that each is set beside
BESIDE = {
    "k-NN graph": "k-NN graph, faiss IndexFlatL2",
    "AC-GDL": "average linkage on the graph, scikit-learn",
    "AC-PIC": "average linkage on the graph, scikit-learn",
    "AC-Zell": "average linkage on the graph, scikit-learn",
    "AC-Link": "average linkage, fastcluster",
    "SC-NJW": "spectral clustering, scikit-learn",
    "SC-LS": "spectral clustering, scikit-learn",
}


def measure(features: np.ndarray, sizes: Sequence[int]) -> dict[str, dict[str, dict]]:
    """Run every method and peer on evenly spaced rows of `features` (n, d), for each of `sizes`.

    Returns {name: {str(n): {"seconds": s, "peak_mb": MiB above the start, or None off Linux}}}. An entry
    {"left_out": why} stands where a method was not run.
    """
    works = _methods() | _peers()
    rows: dict[str, dict[str, dict]] = {name: {} for name in works}
    for work in works.values():
        _run(work, features[:: max(1, len(features) // 300)])  # compiles and imports
    for n in sizes:
        part = spaced_rows(features, n)
        for name, work in works.items():
            rows[name][str(n)] = found = _measured(work, part, list(rows[name].values()))
            print(f"n = {n:6,}  {name:44} {_told(found)}", flush=True)
    return rows


def spaced_rows(features: np.ndarray, n: int) -> np.ndarray:
    """n evenly spaced rows of `features`, contiguous."""
    return np.ascontiguousarray(features[np.arange(n) * len(features) // n])


def compare(rows: dict[str, dict[str, dict]], n: int, floor: float) -> None:
    """Print, for each of our methods, its ratio to its peer and to the floor of the graph in seconds."""
    print(
        f"\nn = {n:,}: seconds, times those of the peer; the graph's products alone take {floor:.2f} s"
    )
    for name, peer in BESIDE.items():
        ours, theirs = (
            rows.get(which, {}).get(str(n), {}).get("seconds") for which in (name, peer)
        )
        if ours is not None:
            ratio = f"{ours / theirs:6.2f} x {peer}" if theirs else f"  no number of {peer}"
            print(f"{name:12} {ours:9.3f} s {ratio}")


def _methods() -> dict[str, Work]:
    own = {
        "AC-GDL": ACGDL,
        "AC-PIC": ACPIC,
        "AC-Zell": ACZell,
        "AC-Link": ACLink,
        "SC-LS": SCLS,
        "SC-NJW": SCNJW,
    }
    fits = {name: lambda x, make=make: make(N_CLUSTERS).fit(x) for name, make in own.items()}
    return {"k-NN graph": lambda x: knn(x, N_NEIGHBORS)} | fits


def graph_peers() -> dict[str, Work]:
    """Peers of the k-NN graph, by name; says so where one is not installed."""
    brute = NearestNeighbors(n_neighbors=N_NEIGHBORS, algorithm="brute")
    peers: dict[str, Work] = {"k-NN graph, scikit-learn": lambda x: brute.fit(x).kneighbors()}
    if not _installed("faiss"):
        return peers
    import faiss

    def flat(x: np.ndarray) -> None:
        index = faiss.IndexFlatL2(x.shape[1])
        index.add(x)
        index.search(x, N_NEIGHBORS + 1)  # one more: its lists hold the row itself

    return peers | {"k-NN graph, faiss IndexFlatL2": flat}


def _installed(name: str) -> bool:
    there = importlib.util.find_spec(name) is not None
    if not there:
        print(f"{name} is not installed; it is left out")
    return there


def _peers() -> dict[str, Work]:
    brute = NearestNeighbors(n_neighbors=N_NEIGHBORS, algorithm="brute")

    def linkage_on_graph(x: np.ndarray) -> object:
        graph = brute.fit(x).kneighbors_graph()
        return AgglomerativeClustering(N_CLUSTERS, linkage="average", connectivity=graph).fit(x)

    def spectral(x: np.ndarray) -> object:
        return SpectralClustering(
            N_CLUSTERS,
            affinity="nearest_neighbors",
            n_neighbors=N_NEIGHBORS,
            assign_labels="cluster_qr",
            random_state=0,
        ).fit(x)

    peers = graph_peers() | {
        "average linkage on the graph, scikit-learn": linkage_on_graph,
        "spectral clustering, scikit-learn": spectral,
    }
    if _installed("fastcluster"):
        import fastcluster

        def average(x: np.ndarray) -> object:
            n = len(x)
            check_memory(8 * n * (n - 1), f"average linkage of {n} rows", "use a graph")
            return fastcluster.linkage(x, "average", preserve_input=False)

        peers["average linkage, fastcluster"] = average
    return peers


def _measured(work: Work, features: np.ndarray, before: Sequence[dict]) -> dict:
    if before and "left_out" in before[-1]:
        return before[-1]
    if len(before) > 1:
        expected = before[-1]["seconds"] ** 2 / before[-2]["seconds"]
        if expected > LIMIT:
            return {"left_out": f"{len(features)} rows would take some {expected:.0f} s"}
    seconds, peak = [], None
    while not seconds or (len(seconds) < REPEATS and seconds[-1] < SHORT):
        start = _reset_peak()
        began = time.perf_counter()
        try:
            _run(work, features)
        except MemoryError as error:
            return {"left_out": str(error)}
        seconds.append(time.perf_counter() - began)
        if peak is None and start is not None:
            peak = round(max(_status("VmHWM") - start, 0.0), 1)
    return {"seconds": min(seconds), "peak_mb": peak}


def _run(work: Work, features: np.ndarray) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # disconnected graphs, few rows: the same for all
        work(features)


def _reset_peak() -> float | None:
    """Set this process's peak back to what it holds now, in MiB; None where the system cannot."""
    gc.collect()
    try:
        # what others have freed would be used again, and count for nothing
        ctypes.CDLL(None).malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5")
        return _status("VmRSS")
    except (AttributeError, OSError):
        return None


def _status(field: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field)) / 1024


def _told(found: dict) -> str:
    if "left_out" in found:
        return f"left out: {found['left_out']}"
    peak = "" if found["peak_mb"] is None else f"  {found['peak_mb']:9.1f} MiB"
    return f"{found['seconds']:9.3f} s{peak}"
