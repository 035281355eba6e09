"""Time the kernels beside named peers and beside the matrix product that bounds them.

`python -m reprolib bench [NAME ...] [--quick] [--json PATH]`, with the names of `BENCHES`.
Everything runs one after the other in this process. Nothing is asserted, and nothing is written unless
`--json` asks for it.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from reprolib.bench import checkpoint_choice, clustpy, steps
from reprolib.bench.classical import beside_peers, scaling
from reprolib.checks import unknown_name
from reprolib.experiments.machine import machine
from reprolib.files import write_atomically

DIGITS, SMOKE = {"dataset": "digits"}, {"profile": "smoke", "n_seeds": 1}
# name: what measures, prints and returns; and its options for --quick
BENCHES: dict[str, tuple[Callable[..., Any], dict[str, Any]]] = {
    "knn": (partial(beside_peers, dataset="mnist-test", only="k-NN graph"), DIGITS),
    "scaling": (scaling, DIGITS),
    "methods": (partial(beside_peers, dataset="mnist-test"), DIGITS),
    "growth": (partial(beside_peers, dataset="mnist", halved=True), DIGITS),
    "family": (steps.measure, steps.QUICK),
    "accuracy": (clustpy.measure, DIGITS | SMOKE),
    "checkpoints": (checkpoint_choice.measure, {"datasets": ["digits"]} | SMOKE),
}
BRIEF = ("knn", "scaling", "methods")  # if none is named; growth takes half an hour


def run(names: list[str] | None = None, quick: bool = False) -> dict[str, Any]:
    """Run the named benches (default: BRIEF) and print them; return what each measured, by its name.

    `quick`: the digits and few repeats. Raises ValueError for an unknown name.
    """
    names = names or list(BRIEF)
    for name in names:
        if name not in BENCHES:
            raise unknown_name("bench", name, BENCHES)
    here = machine()
    busy = f"{os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else "unknown"
    print(f"{here['cpu']}; {here['threads']} threads; load {busy}")
    found = {}
    for name in names:
        measure, options = BENCHES[name]
        found[name] = measure(**(options if quick else {}))
    return found


def main(arguments: list[str] | None = None) -> int:
    """Read the command line `[NAME ...] [--quick] [--json PATH]` and run; return 0."""
    parser = argparse.ArgumentParser(prog="reprolib bench", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(BENCHES)}")
    parser.add_argument("--quick", action="store_true", help="the built-in digits, few repeats")
    parser.add_argument("--json", type=Path, metavar="PATH", help="also write the results there")
    options = parser.parse_args(arguments)
    found = run(options.names, options.quick)
    if options.json:
        text = json.dumps({"machine": machine(), "results": found}, indent=1)
        write_atomically(options.json, lambda file: file.write(text.encode()))
    return 0
