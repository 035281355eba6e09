"""What the book's tables and figures lack at a profile, as runs in the order of their value for their cost."""

import contextlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from reprolib.checks import check_keys, check_name
from reprolib.data.load import is_here, size_of
from reprolib.experiments.cost import DEVICES, estimate, this_device
from reprolib.experiments.paper import Paper, papers, profile_entry, resolve
from reprolib.experiments.plan import Plan, plan
from reprolib.experiments.workers import Task
from reprolib.methods.autoencoder import Pretrain
from reprolib.training.checkpoint import CheckpointError, load_checkpoint

SEEDS = 3
LISTED = {"paper", "dataset", "profile", "method", "variant", "tag", "seed"}
FEATURES = {"resnet152": 2048, "jule": 160}  # width of what a network gives


def gaps(names: Sequence[str], profile: str, root: Path | None = None) -> list[Task]:
    """Runs of papers (default: all) that the book shows and that have no fresh record at this profile.

    Printed cells, then what other profiles' records measured beside them, on the data sets that are here; last what a
    record of another profile says with the same parameters and size. Each the cheapest first, SEEDS seeds. root: a
    folder with one for each paper's records, by default the book.
    """
    tasks, device = [], this_device()
    for paper in map(Paper, names or papers()):
        for (dataset, method, tag), (given, printed) in _cells(paper, profile).items():
            settings = {"dataset": dataset, "profile": profile, "method": method, "tag": tag} | given
            tasks += _seeds(paper, settings, range(SEEDS), root, printed)
    return sorted(tasks, key=lambda task: (task.rank, task.cost.seconds(device)))  # seeds of a cell stay together


def listed(path: Path, root: Path | None = None) -> list[Task]:
    """Runs of a JSON list of dicts with the keys LISTED and maybe `parameters`, in its order; ValueError for others."""
    tasks, known = [], {name: Paper(name) for name in papers()}
    for entry in json.loads(path.read_text(encoding="utf-8")):
        check_keys("a run of the list", entry, LISTED, {"parameters"})
        check_name("paper", entry["paper"], known)
        given = {k: entry[k] for k in LISTED - {"paper", "seed"}} | entry.get("parameters", {})
        tasks += _seeds(known[entry["paper"]], given, [entry["seed"]], root)
    return tasks


def asked(name: str, given: dict[str, Any], seeds: Sequence[int]) -> list[Task]:
    """Runs of one setting that have no finished record: what `run` would do."""
    return _seeds(Paper(name), given, seeds)


def absent(names: Sequence[str], profile: str) -> list[str]:
    """Data sets of a profile that are not here."""
    found = [Paper(name).profiles["profiles"].get(profile, {}) for name in names or papers()]
    return sorted({d for entries in found for d in entries if not is_here(d)})


def table(tasks: Iterable[Task]) -> tuple[list[str], list[list[str]]]:
    """Head and rows of what `--plan` shows: hours a device, memory and disk of each run, and their sum."""
    devices = {"here": this_device()} | DEVICES
    rows, sums = [], np.zeros(len(devices) + 1)
    for task in tasks:
        hours = [task.cost.seconds(device, done=task.done) / 3600 for device in devices.values()]
        sums += [*hours, 1e3 * task.cost.disk]
        name, disk = f"{task.item.paper}/{task.item.stem}", f"{1e3 * task.cost.disk:.1f}"
        rows.append([name, *map("{:.3f}".format, hours), f"{task.cost.memory:.1f}", disk])
    total = *map("{:.2f}".format, sums[:-1]), "", f"{sums[-1]:.0f}"
    rows.append([f"{len(rows)} runs, one after the other", *total])
    return ["run", *(f"{name}, h" for name in devices), "memory, GB", "disk, MB"], rows


def _seeds(
    paper: Paper, given: dict[str, Any], seeds: Sequence[int], root: Path | None = None, printed: bool = True
) -> list[Task]:
    """The tasks of a setting that have no finished record, a seed each; one if it takes none."""
    given = {"runs_dir": str(root / paper.name if root else paper.folder / "runs"), "random_state": seeds[0]} | given
    first, tasks = plan(paper.name, given), []
    if "verbose" in first.parameters:  # the log shows its progress
        first = replace(first, parameters=first.parameters | {"verbose": True})
    (n, shape), kept = size(first), json.loads(json.dumps(first.recorded))
    cost = estimate(first, n, shape, paper.records)
    place = first.method, n, first.dataset, kept
    alike = [
        e["random_state"]
        for e in paper.records
        if (e["method"], e["dataset"]["n"], e["dataset"]["name"], e["parameters"]) == place
    ]
    for seed in seeds if first.takes_seed else seeds[:1]:
        item = replace(first, random_state=seed)  # planning asks git
        if not item.is_finished():
            rank = 2 * (seed in alike) + (not printed)
            tasks.append(Task(item, cost, rank, _pretraining(item), _done(item)))
    return tasks


def _pretraining(item: Plan) -> tuple[Any, ...] | None:
    """What runs have in common that share a pretraining; None without one."""
    if "pretrain_epochs" not in item.parameters:
        return None
    return item.paper, item.dataset, item.features, item.random_state, *map(item.parameters.get, Pretrain.shared)


def _done(item: Plan) -> int:
    """The passes through the data that a run's checkpoint holds."""
    with contextlib.suppress(OSError, CheckpointError):
        return len(load_checkpoint(item.checkpoint)[1]["history"])
    return 0


def _cells(paper: Paper, profile: str) -> dict[tuple[str, str, str], tuple[dict[str, Any], bool]]:
    """Data set, method and tag of what the book shows: what `plan` is given beside these, and whether it is printed."""
    by_profile = paper.profiles["profiles"]
    check_name("profile", profile, by_profile)
    here = [d for d in by_profile[profile] if is_here(d)]
    rows = [row for entry in paper.published.values() for row in entry["rows"] if "method" in row]
    measured = {}
    for entry in paper.records:
        if entry["profile"] not in (profile, "smoke"):
            measured.setdefault((entry["dataset"]["name"], entry["method"], entry["tag"]), entry)
    wanted = {}
    for row in rows:
        for dataset in here:
            printed = row["values"].get(dataset) is not None
            tag = row.get("tag", "main").format(dataset=dataset)
            key = dataset, row["method"], tag
            if dataset in row["values"] or tag == "main":
                wanted[key] = printed or wanted.get(key, False)
    methods = {row["method"] for row in rows} | {paper.profiles["method"]}
    others = {key: False for key in measured if key[0] in here and key[1] in methods}
    found = {}
    for key, printed in (others | wanted).items():
        if key[2] == "main":
            found[key] = {}, printed
        elif key in measured and (given := _changed(paper, measured[key], profile)) is not None:
            found[key] = given, printed
    return found


def _changed(paper: Paper, entry: dict[str, Any], profile: str) -> dict[str, Any] | None:
    """Variant and parameters by which a record differs from its profile's own; None where nothing is left.

    What its profile sets for the data set, and this one not, undoes a reduction and is left out.
    """
    method, variant, dataset = entry["method"], entry["variant"], entry["dataset"]["name"]
    usual = resolve(paper.name, dataset, entry["profile"], method=method, variant=variant)
    before, now = (profile_entry(paper.name, dataset, p) for p in (entry["profile"], profile))
    reduced = {k for k in before | before.get("others", {}) if now.get(k) != before.get(k)}
    told = {k: v for k, v in entry["parameters"].items() if json.dumps(usual.get(k)) != json.dumps(v)}
    given = {k: v for k, v in told.items() if k not in reduced}
    if variant != "paper":
        given["variant"] = variant
    return given or None


def size(item: Plan) -> tuple[int, tuple[int, ...]]:
    """Number of samples that a plan is fitted on and their shape, (c, h, w) or (d,)."""
    n, shape = size_of(item.dataset)
    size, gray = item.load.get("size") or shape[1:], item.load.get("gray")
    shape = (1 if gray else shape[0], *(size if isinstance(size, list | tuple) else (size, size)))
    width = FEATURES.get(item.features.partition("/")[0])
    return item.load.get("subset") or n, (width,) if width else shape
