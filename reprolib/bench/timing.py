"""The measuring loop of all benches, and the rate of the matrix product that bounds them.

A number is the smallest of a few repeats, since other work on the machine only adds time.
"""

import ctypes
import gc
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch

from reprolib.experiments.machine import peak_memory_mb

REPEATS = 3
SHORT = 5.0  # seconds: what is worth repeating
LIMIT = 300.0  # seconds: what is not begun
BLOCK = 2048

Work = Callable[[np.ndarray], object]  # of rows (n, d)


def measure(works: Mapping[str, Callable[[], object]], repeats: int = REPEATS) -> dict[str, dict]:
    """Time works one after the other in this process, forth and back, so that noise hits all.

    Returns {name: {"seconds": s, "peak_mb": MiB above the start, or None off Linux}}; an entry
    {"left_out": why} for a MemoryError. Work of more than SHORT seconds is not repeated.
    """
    found: dict[str, dict] = {}
    for repeat in range(repeats):
        # who comes after whom matters a little to caches
        for name in list(works)[:: -1 if repeat % 2 else 1]:
            if not repeat:
                found[name] = _first(works[name])
            elif found[name].get("seconds", SHORT) < SHORT:
                again = _seconds(works[name])
                found[name]["seconds"] = min(found[name]["seconds"], again)
    return found


def grow(works: Mapping[str, Work], features: np.ndarray, sizes: Sequence[int]) -> dict[str, dict[str, dict]]:
    """`measure` works on evenly spaced rows of `features` (n, d): {name: {str(size): entry}}.

    A work is left out where its package is not installed, and from the size on where its growth would take it past
    LIMIT.
    """
    rows: dict[str, dict[str, dict]] = {}
    few = features[:: max(1, len(features) // 300)]
    for name, work in works.items():
        try:
            measure({name: partial(work, few)}, 1)  # compiles and imports
            rows[name] = {}
        except ImportError as error:
            print(f"{name} is left out: {error}")
    for n in sizes:
        part = np.ascontiguousarray(features[np.arange(n) * len(features) // n])  # evenly spaced
        for name, entries in rows.items():
            before = list(entries.values())
            found = before[-1] if before and "left_out" in before[-1] else None
            expected = before[-1]["seconds"] ** 2 / before[-2]["seconds"] if len(before) > 1 and not found else 0.0
            if expected > LIMIT:
                found = {"left_out": f"{n} rows would take some {expected:.0f} s"}
            entries[str(n)] = found = found or measure({name: partial(works[name], part)})[name]
            print(f"n = {n:6,}  {name:44} {'  '.join(told(found))}", flush=True)
    return rows


def told(entry: Mapping) -> tuple[str, str]:
    """Seconds and MiB of an entry of `measure` as text."""
    if "left_out" in entry:
        return f"left out: {entry['left_out']}", ""
    peak = entry["peak_mb"]
    return f"{entry['seconds']:.4f} s", "" if peak is None else f"{peak:.1f} MiB"


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

    return rounds * 2 * BLOCK**2 * d / measure({"": product}, repeats)[""]["seconds"]


def _first(work: Callable[[], object]) -> dict:
    start = _reset_peak()
    try:
        seconds = _seconds(work)
    except MemoryError as error:
        return {"left_out": str(error)}
    peak = None if start is None else round(max(peak_memory_mb() - start, 0.0), 1)
    return {"seconds": seconds, "peak_mb": peak}


def _seconds(work: Callable[[], object]) -> float:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # disconnected graphs, few rows: the same for all
        began = time.perf_counter()
        work()
        return time.perf_counter() - began


def _reset_peak() -> float | None:
    """Set this process's peak back to what it holds now, in MiB; None where the system cannot."""
    gc.collect()
    try:
        # what others have freed would be used again, and count for nothing
        ctypes.CDLL(None).malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5")
    except (AttributeError, OSError):
        return None
    return peak_memory_mb()
