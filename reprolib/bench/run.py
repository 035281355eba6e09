"""Time the kernels beside named peers and beside the matrix product that bounds them.

`python -m reprolib bench [NAME ...] [--quick] [--json PATH]`, with the names of `BENCHES`.
Everything runs one after the other in this process. Each number is the smallest of a few repeats, since
other work on the machine only adds time. Nothing is asserted, and nothing is written unless `--json` asks
for it.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from reprolib.bench import classical
from reprolib.checks import unknown_name
from reprolib.data.load import load
from reprolib.experiments.machine import machine
from reprolib.files import write_atomically
from reprolib.graph.digraph import knn_digraph, one_link_clusters
from reprolib.graph.linkage import graph_degree_linkage
from reprolib.kernels.knn import cost, knn
from reprolib.kernels.knn_cpu import default_precision, knn_cpu

N_NEIGHBORS = classical.N_NEIGHBORS
BLOCK = 2048


def gemm_ceiling(d: int, precision: str, *, repeats: int = 5) -> float:
    """FLOP/s of torch's blocked product of (2048, d) by (d, 2048), the best of `repeats`.

    `precision` "float32" or "bfloat16". The number that floors on this machine are computed from.
    """
    a = torch.randn(BLOCK, d).to(getattr(torch, precision))
    out = torch.empty(BLOCK, BLOCK, dtype=a.dtype)
    rounds = max(1, int(2e10 / (2 * BLOCK**2 * d)))

    def product() -> None:
        for _ in range(rounds):
            torch.mm(a, a.T, out=out)

    return rounds * 2 * BLOCK**2 * d / _best(product, repeats)


def bench_knn(quick: bool) -> dict[str, float]:
    """Seconds of the k-NN graph of unit rows: ours, peers, and floors."""
    features, repeats = _features("mnist-test", quick)
    n, d = features.shape
    chosen = default_precision(n, d)
    works = {"reprolib": lambda: knn(features, N_NEIGHBORS)}
    if chosen != "float32":
        works["reprolib, float32 products"] = lambda: knn_cpu(
            features, N_NEIGHBORS, precision="float32"
        )
    works |= {name: lambda w=w: w(features) for name, w in classical.graph_peers().items()}
    rows = {name: _best(work, repeats) for name, work in works.items()}
    floors = {p: _floor(n, d, p) for p in {chosen, "float32"}}
    print(f"\nk-NN graph, n = {n:,}, d = {d}, k = {N_NEIGHBORS}; products in {chosen}")
    rows |= {f"floor, {p}": floor for p, floor in floors.items()}
    _table(rows, "reprolib")
    for precision in (chosen, "float32"):
        print(f"fraction of the {precision} floor: {floors[precision] / rows['reprolib']:.2f}")
    return rows


def bench_scaling(quick: bool) -> dict[str, float]:
    """Seconds of the graph and of the merges of AC-GDL over n, every second, fourth ... row left out.

    Keys "graph n=..." and "merges n=...". One repeat above 20,000 rows: the graph takes n^2 d.
    """
    features, repeats = _features("mnist", quick)
    rows: dict[str, float] = {}
    print(f"\nAC-GDL over n, d = {features.shape[1]}, to 10 clusters")
    for n in _sizes(len(features)):
        part = classical.spaced_rows(features, n)
        graph = knn_digraph(part, N_NEIGHBORS)
        initial = one_link_clusters(graph.indices[:, 0])
        count = repeats if n <= 20_000 else 1
        rows[f"graph n={n}"] = _best(lambda x=part: knn_digraph(x, N_NEIGHBORS), count)
        rows[f"merges n={n}"] = _best(
            lambda g=graph, labels=initial: graph_degree_linkage(g, labels, 10), repeats
        )
        print(
            f"n = {n:6,}  {initial.max() + 1:6,} initial clusters  graph {rows[f'graph n={n}']:8.3f} s"
            f"  merges {rows[f'merges n={n}']:7.4f} s"
        )
    return rows


def bench_methods(quick: bool) -> dict[str, dict]:
    """Seconds and memory of the classical methods and their peers on all rows (`bench.classical`)."""
    features, _ = _features("mnist-test", quick)
    return _methods(features, [len(features)])


def bench_growth(quick: bool) -> dict[str, dict]:
    """The same over n, every second, fourth ... row left out, until a method takes too long."""
    features, _ = _features("mnist", quick)
    return _methods(features, [n for n in _sizes(len(features)) if n > N_NEIGHBORS * 20])


def bench_family_steps(quick: bool) -> dict[str, Any]:
    """Seconds of the autoencoder methods' training steps, ours and ClustPy's (`bench.steps`)."""
    from reprolib.bench import steps

    rates = {p: gemm_ceiling(steps.WIDTH, p) for p in steps.PRECISIONS}
    return steps.measure(rates, **(steps.QUICK if quick else {}))


def bench_family_accuracy(quick: bool) -> dict[str, Any] | None:
    """ACC of ClustPy's autoencoder methods, a number a seed (`bench.clustpy`)."""
    from reprolib.bench import clustpy

    options = {"dataset": "digits", "profile": "smoke", "n_seeds": 1} if quick else {}
    found = clustpy.measure(**options)
    if found:
        print(f"\n{clustpy.table(found)}")
    return found


def bench_checkpoint_choice(quick: bool) -> dict[str, Any]:
    """ACC of k-means after each epoch of the pretraining (`studies.checkpoint_choice`)."""
    from reprolib.studies import checkpoint_choice

    options = {"datasets": ("digits",), "profile": "smoke", "n_seeds": 1} if quick else {}
    found = checkpoint_choice.measure(**options)
    print(f"\n{checkpoint_choice.table(found, {})}")
    return found


BENCHES: dict[str, Callable[[bool], Any]] = {
    "knn": bench_knn,
    "scaling": bench_scaling,
    "methods": bench_methods,
    "growth": bench_growth,
    "family": bench_family_steps,
    "accuracy": bench_family_accuracy,
    "checkpoints": bench_checkpoint_choice,
}
BRIEF = ("knn", "scaling", "methods")  # if none is named; growth takes half an hour


def run(names: list[str] | None = None, quick: bool = False) -> dict[str, Any]:
    """Run the named benches (default: BRIEF) and print them; return what each measured, by its name.

    `quick`: digits and two repeats instead of MNIST's test images and five. Raises ValueError for
    an unknown name.
    """
    names = names or list(BRIEF)
    for name in names:
        if name not in BENCHES:
            raise unknown_name("bench", name, BENCHES)
    here = machine()
    busy = f"{os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else "unknown"
    print(f"{here['cpu']}; {here['threads']} threads; load {busy}")
    return {name: BENCHES[name](quick) for name in names}


def main(arguments: list[str] | None = None) -> int:
    """Read the command line `[NAME ...] [--quick] [--json PATH]` and run; return 0."""
    parser = argparse.ArgumentParser(prog="reprolib bench", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(BENCHES)}")
    parser.add_argument("--quick", action="store_true", help="the built-in digits, two repeats")
    parser.add_argument("--json", type=Path, metavar="PATH", help="also write the results there")
    options = parser.parse_args(arguments)
    found = run(options.names, options.quick)
    if options.json:
        text = json.dumps({"machine": machine(), "results": found}, indent=1)
        write_atomically(options.json, lambda file: file.write(text.encode()))
    return 0


def _features(name: str, quick: bool) -> tuple[np.ndarray, int]:
    """Unit rows of the named images where the data root has them, else of the digits; and the repeats."""
    name = "digits" if quick else name
    try:
        images = load(name)
    except (OSError, ValueError) as error:
        print(f"{name} is not there ({error}); digits instead")
        name, images = "digits", load("digits")
    x = images.pixels.reshape(images.n, -1).astype(np.float32)
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    repeats = 2 if quick else 5
    print(f"{name}; smallest of {repeats} repeats")
    knn(x[: 4 * N_NEIGHBORS], N_NEIGHBORS)  # compiles, so that no repeat does
    return x, repeats


def _methods(features: np.ndarray, sizes: list[int]) -> dict[str, dict]:
    rows = classical.measure(features, sizes)
    n, d = sizes[-1], features.shape[1]
    classical.compare(rows, n, _floor(n, d, default_precision(n, d)))
    return rows


def _floor(n: int, d: int, precision: str) -> float:
    """Seconds of the products of a k-NN graph alone."""
    return cost(n, d, N_NEIGHBORS)["flops"] / gemm_ceiling(d, precision)


def _sizes(n: int) -> list[int]:
    sizes = [n]
    while sizes[0] >= 1_000:
        sizes.insert(0, sizes[0] // 2)
    return sizes


def _best(work: Callable[[], object], repeats: int) -> float:
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - start)
    return min(seconds)


def _table(rows: dict[str, float], unit: str) -> None:
    for name, seconds in sorted(rows.items(), key=lambda row: row[1]):
        print(f"{name:28} {seconds:9.4f} s  {seconds / rows[unit]:6.2f} x {unit}")
