"""Replays: recorded fits made again in full, and how far their labels agree; book/replays.yml.

A behaviour says that the first steps are the same, a replay that a whole fit is. On the machine and versions of
the record the labels are equal; elsewhere rounding grows: read the agreement beside that between the seeds.
"""

import time
from collections.abc import Mapping
from datetime import date
from itertools import combinations
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from reprolib import metrics
from reprolib.checks import unknown_name
from reprolib.experiments import records
from reprolib.experiments.machine import machine
from reprolib.experiments.plan import plan
from reprolib.experiments.probes import here
from reprolib.files import BOOK, as_yaml, load_yaml, write_atomically

REPLAYS = BOOK / "replays.yml"
# parameters of a record that name features of a model, which stays on the machine that fitted it
OF_A_MODEL = ("network", "features")
SHOWN = ("acc", "nmi_geometric")
SETTING = ("method", "variant", "profile", "tag")


def replays() -> list[dict[str, Any]]:
    """Read book/replays.yml: one dict a replayed record, the oldest first."""
    return load_yaml(REPLAYS) or []


def needs_model(entry: Mapping[str, Any]) -> bool:
    """Tell whether a record was fitted on a model's features: the model is not in the repository."""
    return any(name in entry["parameters"] for name in OF_A_MODEL)


def draw(
    paper: str, sample: int, *, method: str | None = None, dataset: str | None = None, seed: int = 0
) -> list[dict[str, Any]]:
    """Draw records of a paper that can be replayed, of one method or data set if asked, without repetition.

    Raises ValueError for a sample below 1 and where no record can be drawn.
    """
    if sample < 1:
        raise ValueError(f"sample must be at least 1, got {sample}")
    entries = records.load_records(paper)
    for wanted, of in ((method, lambda e: e["method"]), (dataset, lambda e: e["dataset"]["name"])):
        known = {of(entry) for entry in entries}
        if wanted not in known | {None}:
            raise unknown_name(f"name with records of {paper}", wanted, known)
        entries = [entry for entry in entries if wanted in (None, of(entry))]
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

    Of each result: `equal` labels, the share of `same` ones under the best matching, their `ari`, that
    `between_seeds`, and metrics `then` and `now`. ValueError without the model or the version of the data set.
    """
    if needs_model(entry):
        raise ValueError(f"{name_of(entry)} is of features of a model that is not here")
    settings = {key: entry[key] for key in (*SETTING, "random_state")} | entry["parameters"]
    made = plan(entry["paper"], settings | {"dataset": entry["dataset"]["name"]})
    images, model = made.images(), made.estimator()
    records.check_version(entry, images)
    began = time.perf_counter()
    with threadpool_limits(entry["machine"]["threads"]):  # of torch too
        model.fit(images)
        described = machine()
    seconds = time.perf_counter() - began
    then, results = records.load_arrays(entry), {}
    for name in entry["metrics"]:
        before, now = then[name], model.results_[name]
        scores = metrics.summary(then["y"], now)
        results[name] = {
            "equal": bool(np.array_equal(before, now)),
            "same": round(metrics.accuracy(before, now), 4),
            "ari": round(metrics.ari(before, now), 4),
            "between_seeds": between_seeds(entry, name),
            "then": {shown: round(entry["metrics"][name][shown], 4) for shown in SHOWN},
            "now": {shown: round(scores[shown], 4) for shown in SHOWN},
        }
    versions = described.pop("versions")
    return {
        "date": date.today().isoformat(),
        "record": name_of(entry),
        "commit": here(),
        "machine": described,
        "versions": versions,
        "seconds": round(seconds, 1),
        "results": results,
    }


def run(paper: str, sample: int = 1, **options: Any) -> list[dict[str, Any]]:
    """Draw records (`draw`), replay each, print what came and append it to book/replays.yml.

    Records of features of a model are never drawn, and their number is told.
    """
    drawn, rows = draw(paper, sample, **options), []
    if left := sum(map(needs_model, records.load_records(paper))):
        print(f"{left} records of {paper} are of features of a model that is not here: not drawn")
    for entry in drawn:
        row = replay(entry)
        rows.append(row)
        text = REPLAYS.read_text(encoding="utf-8") + as_yaml([row])
        write_atomically(REPLAYS, lambda stream, text=text: stream.write(text.encode()))
        for result, found in row["results"].items():
            came = "equal labels" if found["equal"] else f"ARI {found['ari']:.3f}"
            print(f"{row['record']}, {result}: {came}; {row['seconds']:.0f} s")
    return rows


def name_of(entry: Mapping[str, Any]) -> str:
    """A record's name: paper/stem."""
    return f"{entry['paper']}/{entry['assignment'].removesuffix('.npz')}"


def between_seeds(entry: Mapping[str, Any], result: str) -> float | None:
    """Mean ARI between the labels of all pairs of seeds of a record's setting; None for one seed."""
    same = {key: entry[key] for key in SETTING} | {"dataset": entry["dataset"]["name"]}
    alike = records.load_records(entry["paper"], **same, parameters=[entry["parameters"]])
    alike = [records.load_arrays(other)[result] for other in alike]
    found = [metrics.ari(a, b) for a, b in combinations(alike, 2)]
    return round(float(np.mean(found)), 4) if found else None
