"""Replays: recorded fits made again in full, and how far their labels agree; book/replays.yml.

A behaviour says that the first steps are the same, a replay that a whole fit is. On the machine and versions of the
record the labels are equal; elsewhere rounding grows: read the agreement beside that between the seeds.
"""

import time
from collections.abc import Mapping
from datetime import date
from itertools import combinations
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from reprolib import metrics
from reprolib.checks import check_name
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
    return not entry["parameters"].keys().isdisjoint(OF_A_MODEL)


def draw(
    paper: str, sample: int, *, method: str | None = None, dataset: str | None = None, seed: int = 0
) -> list[dict]:
    """Draw records that can be replayed, without repetition; ValueError for a sample below 1 and where none can."""
    if sample < 1:
        raise ValueError(f"sample must be at least 1, got {sample}")
    entries = records.load_records(paper, profile=None, tag=None)
    for wanted, of in ((method, lambda e: e["method"]), (dataset, lambda e: e["dataset"]["name"])):
        if wanted is not None:
            check_name(f"name with records of {paper}", wanted, {of(entry) for entry in entries})
            entries = [entry for entry in entries if of(entry) == wanted]
    found = [entry for entry in entries if not needs_model(entry)]
    if not found:
        raise ValueError(
            f"all {len(entries)} records asked for are of features of a model, which stays on the machine "
            "that fitted it: replay another method or data set"
        )
    return [found[i] for i in np.random.default_rng(seed).permutation(len(found))[:sample]]


def replay(entry: Mapping[str, Any]) -> dict[str, Any]:
    """Fit a record again, with its parameters and number of threads, and compare: a row of replays.yml.

    Of each result: `equal` labels, the share of `same` ones under the best matching, their `ari`, its mean over all
    pairs of seeds of the setting (`between_seeds`, None for one seed), and metrics `then` and `now`. ValueError
    without model or data.
    """
    if needs_model(entry):
        raise ValueError(f"{name_of(entry)} is of features of a model that is not here")
    setting = {key: entry[key] for key in SETTING} | {"dataset": entry["dataset"]["name"]}
    made = plan(entry["paper"], setting | {"random_state": entry["random_state"]} | entry["parameters"])
    alike = records.load_records(entry["paper"], **setting, parameters=[entry["parameters"]])
    seeds = [records.load_arrays(other) for other in alike]
    images, model = made.images(), made.estimator()
    records.check_version(entry, images)
    began = time.perf_counter()
    with threadpool_limits(entry["machine"]["threads"]):  # of torch too
        model.fit(images)
        described = machine()
    seconds = time.perf_counter() - began
    then, results = records.load_arrays(entry), {}
    for name, scores in entry["metrics"].items():
        before, now = then[name], model.results_[name]
        between = [metrics.ari(a[name], b[name]) for a, b in combinations(seeds, 2)]
        results[name] = {
            "equal": bool(np.array_equal(before, now)),
            "same": round(metrics.accuracy(before, now), 4),
            "ari": round(metrics.ari(before, now), 4),
            "between_seeds": round(float(np.mean(between)), 4) if between else None,
            "then": {shown: round(scores[shown], 4) for shown in SHOWN},
            "now": {shown: round(metrics.summary(then["y"], now)[shown], 4) for shown in SHOWN},
        }
    row = {"date": date.today().isoformat(), "record": name_of(entry), "commit": here(), "machine": described}
    return row | {"versions": described.pop("versions"), "seconds": round(seconds, 1), "results": results}


def run(paper: str, sample: int = 1, **options: Any) -> list[dict[str, Any]]:
    """Draw records (`draw`), replay each, print what came and append it to book/replays.yml; return the rows.

    Records of features of a model are never drawn, and their number is told.
    """
    drawn, rows = draw(paper, sample, **options), []
    if left := sum(map(needs_model, records.load_records(paper, profile=None, tag=None))):
        print(f"{left} records of {paper} are of features of a model that is not here: not drawn")
    for entry in drawn:
        rows.append(row := replay(entry))
        text = REPLAYS.read_text(encoding="utf-8") + as_yaml([row])
        write_atomically(REPLAYS, lambda stream, text=text: stream.write(text.encode()))
        for result, found in row["results"].items():
            came = "equal labels" if found["equal"] else f"ARI {found['ari']:.3f}"
            print(f"{row['record']}, {result}: {came}; {row['seconds']:.0f} s")
    return rows


def name_of(entry: Mapping[str, Any]) -> str:
    """A record's name: paper/stem."""
    return f"{entry['paper']}/{entry['assignment'].removesuffix('.npz')}"
