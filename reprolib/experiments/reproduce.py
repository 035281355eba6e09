"""What the book's tables and figures lack at a profile, as runs in the order of their value for their cost."""

import dataclasses
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

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
    tasks = []
    for name in names or papers():
        paper = Paper(name)
        for (dataset, method, tag), (given, printed) in _cells(paper, profile).items():
            settings = {"dataset": dataset, "profile": profile, "method": method, "tag": tag} | given
            tasks += _seeds(paper, settings, printed, root)
    device = this_device()
    tasks.sort(key=lambda t: (t.known, not t.printed, t.cost.seconds(device)))  # seeds of a cell stay together
    return tasks


def listed(path: Path, root: Path | None = None) -> list[Task]:
    """Runs of a JSON list of dicts with the keys LISTED and maybe `parameters`, in its order; ValueError for others."""
    tasks: list[Task] = []
    known: dict[str, Paper] = {}
    for entry in json.loads(path.read_text(encoding="utf-8")):
        check_keys("a run of the list", entry, LISTED, {"parameters"})
        paper = known.setdefault(entry["paper"], Paper(entry["paper"]))
        given = {k: entry[k] for k in LISTED - {"paper", "seed"}} | entry.get("parameters", {})
        tasks += _seeds(paper, given, True, root, [entry["seed"]])
    return tasks


def asked(name: str, given: dict[str, Any], seeds: Sequence[int]) -> list[Task]:
    """Runs of one setting that have no finished record: what `run` would do."""
    root = given.pop("runs_dir", None)
    return _seeds(Paper(name), given, True, Path(root) if root else None, list(seeds))


def absent(names: Sequence[str], profile: str) -> list[str]:
    """Data sets of a profile that are not here."""
    found = [Paper(name).profiles["profiles"].get(profile, {}) for name in names or papers()]
    return sorted({d for entries in found for d in entries if not is_here(d)})


def table(tasks: Iterable[Task]) -> tuple[list[str], list[list[str]]]:
    """Head and rows of what `--plan` shows: hours a device, memory and disk of each run, and their sum."""
    devices = {"here": this_device()} | DEVICES
    rows, sums = [], dict.fromkeys(devices, 0.0)
    disk = 0.0
    for task in tasks:
        hours = {name: task.left * task.cost.seconds(device) / 3600 for name, device in devices.items()}
        sums = {name: sums[name] + hours[name] for name in devices}
        disk += task.cost.disk
        cells = [f"{task.item.paper}/{task.item.stem}", *map("{:.3f}".format, hours.values())]
        rows.append([*cells, f"{task.cost.memory:.1f}", f"{1e3 * task.cost.disk:.1f}"])
    rows.append(
        [f"{len(rows)} runs, one after the other", *map("{:.2f}".format, sums.values()), "", f"{1e3 * disk:.0f}"]
    )
    return ["run", *(f"{name}, h" for name in devices), "memory, GB", "disk, MB"], rows


def task_of(item: Plan, given: dict[str, Any], printed: bool, paper: Paper) -> Task:
    """A planned run with its cost and what it waits for."""
    n, shape = _size(item)
    keys = sorted(Pretrain.shared)
    shares = "pretrain_epochs" in item.parameters
    place = item.paper, item.dataset, item.features, item.random_state
    pretraining = (*place, *(item.parameters.get(k) for k in keys)) if shares else None
    waits = {"pretraining": pretraining, "model": item.needed_model}
    task = Task(item, given, estimate(item, n, shape, paper.records), printed, **waits)
    if not item.checkpoint.exists():
        return task
    try:
        done = len(load_checkpoint(item.checkpoint)[1]["history"])
    except CheckpointError:
        return task
    return dataclasses.replace(task, left=max(0.0, 1 - done / max(1, sum(p.passes for p in task.cost.parts))))


def _seeds(
    paper: Paper, given: dict[str, Any], printed: bool, root: Path | None, seeds: Sequence[int] = range(SEEDS)
) -> list[Task]:
    """The tasks of a setting that have no finished record, a seed each; one if it takes none."""
    given |= {"runs_dir": str(root / paper.name if root else paper.folder / "runs")}
    first, tasks = plan(paper.name, given | {"random_state": seeds[0]}), []
    alike = [e for e in paper.records if (e["method"], e["dataset"]["name"]) == (first.method, first.dataset)]
    alike = [e for e in alike if e["parameters"] == json.loads(json.dumps(first.recorded))]
    for seed in seeds if first.takes_seed else seeds[:1]:
        item = dataclasses.replace(first, random_state=seed)  # planning asks git
        if not item.is_finished():
            verbose = {"verbose": True} if "verbose" in item.parameters else {}
            task = task_of(item, given | verbose | {"random_state": seed}, printed, paper)
            known = {e["random_state"] for e in alike if e["dataset"]["n"] == task.cost.n}
            tasks.append(dataclasses.replace(task, known=seed in known))
    return tasks


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


def _size(item: Plan) -> tuple[int, tuple[int, ...]]:
    """Number of samples that a plan is fitted on and their shape, (c, h, w) or (d,)."""
    n, shape = size_of(item.dataset)
    size, gray = item.load.get("size") or shape[1:], item.load.get("gray")
    shape = (1 if gray else shape[0], *(size if isinstance(size, list | tuple) else (size, size)))
    width = FEATURES.get(item.features.partition("/")[0])
    return item.load.get("subset") or n, (width,) if width else shape
