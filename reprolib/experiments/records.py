"""Run records: one JSON and one small .npz a run, written atomically, re-scored by the tests.

The .npz holds the cluster assignments and the true labels `y`: every metric can be recomputed without the data
set, and `y` is checked against the data set wherever that is at hand.
"""

import hashlib
import io
import json
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from reprolib import metrics
from reprolib.checks import check_keys, check_name
from reprolib.data.catalogue import TABLE
from reprolib.data.load import located
from reprolib.experiments.machine import machine, peak_memory_mb
from reprolib.experiments.probes import is_stale as is_stale
from reprolib.files import BOOK, file_sha256, write_atomically

SCHEMA = 3
DECIMALS = 6
LONGEST = 48  # characters of a part of a file name: people's folders may be called as they like
# What a record says of its run, in the order of the file; `dataset` is told with its images
SETTING = "paper method variant dataset profile tag task parameters random_state".split()
USUAL = {"variant": "paper", "tag": "main", "task": "clustering"}


def stem(method: str, dataset: str, profile: str, tag: str, random_state: int) -> str:
    """Name a run's files: `<method>-<dataset>-<profile>-<tag>-seed<k>`, short and of safe characters only."""
    dataset = known_as(dataset)
    short = _short(dataset, always=_clean(dataset) != dataset), profile, _short(tag)
    return "-".join((method, *short)) + f"-seed{random_state}"


def known_as(dataset: str) -> str:
    """What records and files call a data set: its name, for folder:PATH as folder-NAME-1a2b3c4d, without the path.

    The hexadecimal digits are of the SHA-256 of the whole path.
    """
    if not dataset.startswith("folder:"):
        return dataset
    path = located(dataset)
    return f"folder-{_short(os.path.basename(path), told=path, always=True)}"


def _clean(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9_.=]", "-", text).strip("-")


def _short(text: str, *, told: str = "", always: bool = False) -> str:
    """Text in safe characters; with a hash, of it or of what is `told`, if `always` or where little of it is left."""
    if not always and text.isascii() and len(text) <= LONGEST:
        return _clean(text)
    digest = hashlib.sha256(os.fsencode(told or text)).hexdigest()[:8]
    return f"{_clean(text)[:LONGEST]}-{digest}".lstrip("-")


def record(
    root: Path,
    images: Any,
    assignments: Mapping[str, np.ndarray],
    *,
    code: Mapping[str, Any],
    seconds: Mapping[str, float],
    history: Sequence[Mapping[str, Any]] = (),
    arrays: Mapping[str, np.ndarray] | None = None,
    device: str = "auto",
    **setting: Any,
) -> Path:
    """Write one run's record into the folder `root` and return the path of its JSON file.

    images: the `Images` of the run; assignments: cluster ids int (n,) by result name, as in {"SF": ...}; code:
    `commit`, `dirty`, `behaviours` before the run; seconds: by step; history: a dict a row; arrays: more, for figures;
    setting: the keys of SETTING, those of USUAL if not usual: `dataset`, its name; `task`, what the ids are, a
    "clustering" or the classes of a "classification". ValueError when an assignment does not fit the data set or a
    setting is missing or unknown, TypeError for a name that is taken. The .npz is replaced first and the JSON, which
    holds its hash, last: a JSON file that is there and agrees with its .npz is a finished run.
    """
    setting = USUAL | setting
    check_keys("a record", setting, set(SETTING), set())
    stored = {name: _compact(name, ids, images.n) for name, ids in assignments.items()}
    if images.labels is not None:
        stored["y"] = _compact("y", images.labels, images.n)
    packed = io.BytesIO()
    np.savez_compressed(packed, **stored, **arrays or {})
    name = stem(*(setting[k] for k in ("method", "dataset", "profile", "tag", "random_state")))
    described = machine()
    about = {key: getattr(images, key) for key in ("n", "shape", "sha256", "transforms")}
    setting["dataset"] = {"name": known_as(setting["dataset"])} | about
    entry = {
        "schema": SCHEMA,
        **{key: setting[key] for key in SETTING},
        "metrics": _scores(setting, stored, assignments),
        "history": list(history),
        "seconds": {k: round(float(v), 3) for k, v in seconds.items()},
        "peak_memory_mb": peak_memory_mb(),
        "device": described.pop("device") if device == "auto" else device,
        "versions": described.pop("versions"),
        "machine": described,
        **code,
        "assignment": f"{name}.npz",
        "assignment_sha256": hashlib.sha256(packed.getvalue()).hexdigest(),
    }
    text, path = as_text(entry), root / f"{name}.json"
    root.mkdir(parents=True, exist_ok=True)
    write_atomically(path.with_name(entry["assignment"]), lambda stream: stream.write(packed.getvalue()))
    write_atomically(path, lambda stream: stream.write(text.encode()))
    return path


def as_text(entry: Mapping[str, Any]) -> str:
    """Write a record as JSON: one line a key, and one a row where a key holds rows or named dicts."""

    def one(value: Any) -> str:
        return json.dumps(value, default=lambda numbers: numbers.tolist(), allow_nan=False)

    def lines(value: Any) -> str:
        if isinstance(value, dict) and value and all(isinstance(v, dict) for v in value.values()):
            return "{\n" + ",\n".join(f"  {one(k)}: {one(v)}" for k, v in value.items()) + "\n }"
        if isinstance(value, list) and value and all(isinstance(v, dict) for v in value):
            return "[\n" + ",\n".join(f"  {one(v)}" for v in value) + "\n ]"
        return one(value)

    return "{\n" + ",\n".join(f" {one(k)}: {lines(v)}" for k, v in entry.items()) + "\n}\n"


def load_records(
    paper: str, *, profile: Any, tag: Any, task: Any = "clustering", root: Path | None = None, **filters: Any
) -> list[dict]:
    """Read a paper's records, sorted by file name, keeping those that match every filter.

    A filter is `key=value` or `key=[values]` on a top-level key, `dataset` by its name; None for all. Profile and tag
    must be said: runs of other scales and settings lie side by side, with the same seeds. root: folder, default
    book/<paper>/runs. ValueError for a file that is no record, or an unknown key.
    """
    folder = BOOK / paper / "runs" if root is None else root
    filters |= {"profile": profile, "tag": tag, "task": task}
    return [e for e in map(read, sorted(folder.glob("*.json"))) if matches(e, filters)]


def load_arrays(entry: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Read a record's .npz: assignments, `y`, arrays for figures; ValueError for another file than it names."""
    path = Path(entry["path"]).with_name(entry["assignment"])
    if file_sha256(path) != entry["assignment_sha256"]:
        raise ValueError(
            f"{path.name} is not the file its record was written with (sha256 differs). "
            "Restore both from git, or run again with --force."
        )
    with np.load(path, allow_pickle=False) as stored:
        return dict(stored)


def check_version(entry: Mapping[str, Any], images: Any) -> None:
    """Raise ValueError when the images are not the version of the data set that a record was made on."""
    recorded = entry["dataset"]
    if images.sha256 != recorded["sha256"]:
        raise ValueError(
            f"{recorded['name']} here has sha256 {images.sha256[:12]}, the record was made on "
            f"{recorded['sha256'][:12]}: another version of the data set."
        )


def rescore(entry: Mapping[str, Any], images: Any = None) -> dict[str, dict[str, float]]:
    """Recompute every metric of a record from its committed assignment and labels: as `entry["metrics"]`.

    images: the data set, if at hand; ValueError when its hash or labels are not those that were recorded.
    """
    stored = load_arrays(entry)
    if images is not None:
        check_version(entry, images)
        if images.labels is not None and not np.array_equal(stored.get("y"), images.labels):
            raise ValueError(f"the labels in {entry['assignment']} are not the data set's labels.")
    return _scores(entry, stored, entry["metrics"])


def told(entry: Mapping[str, Any]) -> str:
    """Scores and seconds of a record in one line."""
    names, told = {"nmi_geometric": "NMI", "acc": "ACC", "accuracy": "accuracy"}, []
    for result, scores in entry["metrics"].items():
        told.append(result + "".join(f" {names[k]} {scores[k]:.3f}" for k in names if k in scores))
    return f"{', '.join(told) or 'no labels'}; {sum(entry['seconds'].values()):.1f} s"


def scored(dataset: str, parameters: Mapping[str, Any], n: int) -> slice:
    """Which of n images the scores count: those whose class is known and, where some are, those not learned from."""
    last = n - (TABLE[dataset].n_unlabelled if dataset in TABLE else 0)
    first = parameters.get("n_train", 0)
    return slice(first if first < last else 0, last)


def _scores(
    setting: Mapping[str, Any], stored: Mapping[str, np.ndarray], results: Iterable[str]
) -> dict[str, dict[str, float]]:
    """Scores by result, none without labels."""
    found = {}
    for name in results if "y" in stored else ():
        counted = scored(setting["dataset"]["name"], setting["parameters"], len(stored["y"]))
        y, ids = (stored[k][counted] for k in ("y", name))
        right = {"accuracy": float(np.mean(ids == y))}
        scores = right if setting["task"] == "classification" else metrics.summary(y, ids)
        found[name] = {metric: round(value, DECIMALS) for metric, value in scores.items()}
    return found


def _compact(name: str, ids: Any, n: int) -> np.ndarray:
    """Check one assignment and store it in the smallest integer type."""
    array = np.asarray(ids)
    if array.shape != (n,) or array.dtype.kind not in "iu" or array.min() < 0:
        raise ValueError(
            f"{name} must be {n} integers >= 0, one a sample; got dtype {array.dtype}, shape {array.shape}."
        )
    return array.astype(np.min_scalar_type(int(array.max())))


def read(path: Path) -> dict:
    """Read one record; raises ValueError when the file is not a record of this schema."""
    try:
        entry = json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} is not JSON ({error}); restore it from git.") from error
    found = entry.get("schema") if isinstance(entry, dict) else None
    if found != SCHEMA:
        raise ValueError(f"{path} is not a run record of schema {SCHEMA} (found {found!r}).")
    return entry | {"path": str(path)}


def matches(entry: Mapping[str, Any], filters: Mapping[str, Any]) -> bool:
    """Tell whether each key named is, or is among, what is wanted, None for all; the `dataset` goes by its name."""
    for key, wanted in filters.items():
        check_name("record key", key, entry)
        value = entry[key]["name"] if key == "dataset" else entry[key]
        if wanted is not None and value not in (wanted if isinstance(wanted, list | tuple | set) else [wanted]):
            return False
    return True
