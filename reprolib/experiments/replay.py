"""Replays: recorded fits made again in full, and how far their labels agree; book/replays.yml.

A behaviour (probes.py) says that the first steps are the same; a replay says it of a whole fit. On the
machine and versions of the record the labels are equal; elsewhere rounding grows with training, and the
agreement is to be read beside that between the seeds of the same setting.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import date
from itertools import combinations
from typing import Any

import numpy as np
import yaml

from reprolib import metrics
from reprolib.checks import unknown_name
from reprolib.experiments import records
from reprolib.experiments.machine import commit, machine
from reprolib.experiments.paper import LOADER, estimator_class, estimators, profile_entry
from reprolib.experiments.probes import BOOK, flow
from reprolib.files import write_atomically

REPLAYS = BOOK / "replays.yml"
# parameters of a record that name features of a model, which stays on the machine that fitted it
OF_A_MODEL = ("learned_on", "network", "features")
SHOWN = ("acc", "nmi_geometric")
GROUP = ("paper", "method", "variant", "profile", "tag", "dataset", "parameters")


def replays() -> list[dict[str, Any]]:
    """Read book/replays.yml: one dict a replayed record, the oldest first."""
    return yaml.load(REPLAYS.read_text(encoding="utf-8"), Loader=LOADER) or []


def needs_model(entry: Mapping[str, Any]) -> bool:
    """Tell whether a record was fitted on a model's features: the model is not in the repository."""
    return any(name in entry["parameters"] for name in OF_A_MODEL)


def draw(
    paper: str,
    sample: int,
    *,
    method: str | None = None,
    dataset: str | None = None,
    seed: int = 0,
) -> list[dict[str, Any]]:
    """Draw records of a paper that can be replayed, of one method or data set if asked, without repetition.

    Raises ValueError for a sample below 1, for a method or data set without records, and where all
    records asked for need a model.
    """
    if sample < 1:
        raise ValueError(f"sample must be at least 1, got {sample}")
    if method is not None and method not in estimators():
        raise unknown_name("method", method, estimators())
    entries = records.load_records(paper)
    for name, wanted, of in (
        ("method", method, lambda e: e["method"]),
        ("data set", dataset, lambda e: e["dataset"]["name"]),
    ):
        if wanted is not None:
            known = {of(entry) for entry in entries}
            if wanted not in known:
                raise unknown_name(f"{name} with records of {paper}", wanted, known)
            entries = [entry for entry in entries if of(entry) == wanted]
    found = [entry for entry in entries if not needs_model(entry)]
    if not found:
        raise ValueError(
            f"all {len(entries)} records asked for are of features of a model, which stays on the machine "
            "that fitted it: replay another method or data set"
        )
    chosen = np.random.default_rng(seed).permutation(len(found))[:sample]
    return [found[i] for i in chosen]


def replay(entry: Mapping[str, Any]) -> dict[str, Any]:
    """Fit a record again, with its parameters and number of threads, and compare: a row of replays.yml.

    Of each result: `equal` labels, the share of `same` labels under the best matching, their `ari`, that
    `between_seeds` of the recorded setting (None for one seed), and metrics `then` and `now`. Raises
    ValueError for a record that needs a model, and where the data set here is another version.
    """
    from reprolib.data.load import load

    if needs_model(entry):
        raise ValueError(f"{name_of(entry)} is of features of a model that is not here")
    method, dataset = entry["method"], entry["dataset"]["name"]
    settings = profile_entry(entry["paper"], dataset, entry["profile"]).get("load") or {}
    images = load(dataset, **settings)
    if images.sha256 != entry["dataset"]["sha256"]:
        raise ValueError(
            f"{dataset} here has sha256 {images.sha256[:12]}, the record was made on "
            f"{entry['dataset']['sha256'][:12]}: another version of the data set"
        )
    kind = estimator_class(method)
    model = kind(**entry["parameters"])
    if "random_state" in model.get_params():
        model.set_params(random_state=entry["random_state"])
    head, dirty = commit()
    began = time.perf_counter()
    with threads(entry["machine"]["threads"]):
        model.fit(images)
        here = machine()
    seconds = time.perf_counter() - began
    now = getattr(model, "results_", {"labels": model.labels_})
    then = records.load_arrays(entry)
    versions = here.pop("versions")
    return {
        "date": date.today().isoformat(),
        "record": name_of(entry),
        "commit": f"{(head or 'unknown')[:7]}{'+' if dirty else ''}",
        "machine": here,
        "versions": versions,
        "seconds": round(seconds, 1),
        "results": {
            result: _compared(entry, result, then, np.asarray(now[result]))
            for result in entry["metrics"]
        },
    }


def run(paper: str, sample: int = 1, **options: Any) -> list[dict[str, Any]]:
    """Draw records (`draw`), replay each, print what came and append it to book/replays.yml.

    Records of features of a model cannot be replayed, as the model stays on the machine that fitted it:
    they are never drawn, and their number is told.
    """
    drawn = draw(paper, sample, **options)
    left = sum(map(needs_model, records.load_records(paper)))
    if left:
        print(f"{left} records of {paper} are of features of a model that is not here: not drawn")
    rows = []
    for entry in drawn:
        row = replay(entry)
        append(row)
        rows.append(row)
        for result, found in row["results"].items():
            came = "equal labels" if found["equal"] else f"ARI {found['ari']:.3f}"
            print(f"{row['record']}, {result}: {came}; {row['seconds']:.0f} s")
    return rows


def append(row: Mapping[str, Any]) -> None:
    """Add a row to book/replays.yml, atomically."""
    text = REPLAYS.read_text(encoding="utf-8") + as_text(row)
    write_atomically(REPLAYS, lambda stream: stream.write(text.encode()))


def as_text(row: Mapping[str, Any]) -> str:
    """A row of replays.yml: one line a key, one a result."""
    lines = []
    for key, value in row.items():
        if key == "results":
            lines += ["results:", *(f"  {name}: {flow(found)}" for name, found in value.items())]
        else:
            lines.append(f"{key}: {flow(value)}")
    return "- " + "\n  ".join(lines) + "\n"


def name_of(entry: Mapping[str, Any]) -> str:
    """A record's name: paper/stem."""
    return f"{entry['paper']}/{entry['assignment'].removesuffix('.npz')}"


def between_seeds(entry: Mapping[str, Any], result: str) -> float | None:
    """Mean ARI between the labels of all pairs of seeds of a record's setting; None for one seed."""
    alike = [
        other
        for other in records.load_records(entry["paper"], method=entry["method"], tag=entry["tag"])
        if all(other[key] == entry[key] for key in GROUP)
    ]
    labels = [records.load_arrays(other)[result] for other in alike]
    found = [metrics.ari(a, b) for a, b in combinations(labels, 2)]
    return round(float(np.mean(found)), 4) if found else None


@contextmanager
def threads(number: int) -> Iterator[None]:
    """Run with a number of threads of torch, BLAS and OpenMP, as in a record."""
    import torch
    from threadpoolctl import threadpool_limits

    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        with threadpool_limits(number):
            yield
    finally:
        torch.set_num_threads(before)


def _compared(
    entry: Mapping[str, Any], result: str, then: Mapping[str, np.ndarray], now: np.ndarray
) -> dict[str, Any]:
    before, scores = then[result], metrics.summary(then["y"], now)
    return {
        "equal": bool(np.array_equal(before, now)),
        "same": round(metrics.accuracy(before, now), 4),
        "ari": round(metrics.ari(before, now), 4),
        "between_seeds": between_seeds(entry, result),
        "then": {name: round(entry["metrics"][result][name], 4) for name in SHOWN},
        "now": {name: round(scores[name], 4) for name in SHOWN},
    }
