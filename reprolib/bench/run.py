"""Time the kernels beside named peers and beside the matrix product that bounds them.

Everything runs one after the other in this process; nothing is asserted.
"""

import json
import os
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from reprolib.bench import adversarial, contrastive, device, rounds, steps, views
from reprolib.bench.classical import beside_peers
from reprolib.checks import check_name
from reprolib.experiments.machine import machine
from reprolib.files import write_atomically

DIGITS = {"dataset": "digits"}
# name: what measures, prints and returns; and its options for --quick
BENCHES: dict[str, tuple[Callable[..., Any], dict[str, Any]]] = {
    "knn": (partial(beside_peers, dataset="mnist-test", only="k-NN graph"), DIGITS),
    "methods": (partial(beside_peers, dataset="mnist-test"), DIGITS),
    "growth": (partial(beside_peers, dataset="mnist", halved=True), DIGITS),
    "family": (steps.measure, steps.QUICK),
    "adversarial": (adversarial.measure, adversarial.QUICK),
    "contrastive": (contrastive.measure, contrastive.QUICK),
    "views": (views.measure, views.QUICK),
    "rounds": (rounds.measure, rounds.QUICK),
    "device": (device.measure, device.QUICK),
}
BRIEF = ("knn", "methods")  # if none is named; growth takes half an hour


def run(
    names: Sequence[str] = (), quick: bool = False, path: Path | None = None, on: str | None = None
) -> dict[str, Any]:
    """Run the named benches (default: BRIEF, and "device" `on` a device) and print them; what each measured, by name.

    quick: the digits and few repeats; path: a JSON file for that and the machine. ValueError for an unknown name.
    """
    names = names or (("device",) if on else BRIEF)
    for name in names:
        check_name("bench", name, BENCHES)
    here = machine()
    busy = f"{os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else "unknown"
    print(f"{here['cpu']}; {here['threads']} threads; load {busy}")
    found = {}
    for name in names:
        measure, options = BENCHES[name]
        found[name] = measure(**(options if quick else {}), **({"device": on} if on and name == "device" else {}))
    if path:
        text = json.dumps({"machine": here, "results": found}, indent=1)
        write_atomically(path, lambda file: file.write(text.encode()))
    return found
