"""The plan of one run: data set, method, parameters and files, decided before anything runs.

The page `book/<paper>/run.md` and the command `reprolib run` share it.
"""

from __future__ import annotations

import ast
import atexit
import hashlib
import inspect
import json
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from reprolib import records
from reprolib.checks import unknown_name
from reprolib.profiles import METHODS, estimator_class, paper_folder, profile_entry, resolve
from reprolib.stages import StageLog
from reprolib.training import load_checkpoint

# Parameters of the page that are no hyper-parameters of a method
SETTINGS = ("dataset", "profile", "variant", "method", "random_state", "tag", "runs_dir")
TEXT_SETTINGS = ("dataset", "profile", "variant", "method", "tag", "runs_dir")
# Parameters of a method that change how it runs, not what comes out
NO_RESULT = ("device", "verbose")
DEFAULT_TAG = "main"


@dataclass(frozen=True)
class Plan:
    """One run, fully decided: what is computed, with which parameters, into which files.

    parameters: all of the method's but random_state; load: keywords of `datasets.load`; source: who
    prescribes the setting; reduced: what was reduced against the paper; runs: folder of the
    records; code: `records.code_state` at planning.
    """

    paper: str
    method: str
    variant: str
    dataset: str
    profile: str
    tag: str
    random_state: int
    parameters: dict[str, Any]
    load: dict[str, Any]
    source: str
    reduced: str
    runs: Path
    code: dict[str, Any]

    @property
    def stem(self) -> str:
        return records.stem(self.method, self.dataset, self.profile, self.tag, self.random_state)

    @property
    def recorded(self) -> dict[str, Any]:
        """The parameters that determine the result, as they stand in the record."""
        return {k: v for k, v in self.parameters.items() if k not in NO_RESULT}

    @property
    def checkpoint(self) -> Path:
        """The method's checkpoint file; another parameter or another source gets another file."""
        setting = [self.recorded, self.load, self.code["source_sha256"]]
        text = json.dumps(setting, sort_keys=True)
        key = hashlib.sha256(text.encode()).hexdigest()[:12]
        return self.runs / "checkpoints" / f"{self.stem}-{key}.ckpt"

    @property
    def model(self) -> Path:
        """The file of the fitted model; it stays on this machine, unlike the record."""
        return self.runs / "models" / f"{self.stem}.safetensors"

    def images(self) -> Any:
        """Load the data set as the profile says."""
        from reprolib.datasets import load

        return load(self.dataset, **self.load)

    def estimator(self) -> Any:
        """Build the method; fitting it is the caller's."""
        seed = {"random_state": self.random_state} if takes_seed(self.method) else {}
        return estimator_class(self.method)(**self.parameters, **seed)

    def monitor(self, images: Any) -> StageLog:
        """The log of a run's stages, continued with the checkpoint; seed 0 keeps points."""
        path = self.checkpoint.with_suffix(".stages")
        if not self.checkpoint.exists():
            path.unlink(missing_ok=True)
        return StageLog(images.labels, path=path, figure=self.random_state == 0)

    def seconds_before(self) -> float:
        """Seconds of training that a killed run has behind it, from its checkpoint; else 0."""
        if not self.checkpoint.exists():
            return 0.0
        _, state = load_checkpoint(self.checkpoint)
        return sum(epoch["seconds"] for epoch in state["history"])

    def record(self, images: Any, assignments: Mapping[str, np.ndarray], **measured: Any) -> Path:
        """Write the run's record and drop its checkpoint; `measured` as for `records.record`."""
        path = records.record(
            paper=self.paper,
            method=self.method,
            variant=self.variant,
            images=images,
            dataset=self.dataset,
            profile=self.profile,
            tag=self.tag,
            parameters=self.recorded,
            random_state=self.random_state,
            device=self.parameters.get("device", "auto"),
            assignments=assignments,
            code=self.code,
            root=self.runs,
            **measured,
        )
        self.checkpoint.unlink(missing_ok=True)
        self.checkpoint.with_suffix(".stages").unlink(missing_ok=True)
        return path

    def finished_record(self) -> dict[str, Any] | None:
        """Return the record of this run if it is there, intact and made with these parameters."""
        try:
            entry = records.read(self.runs / f"{self.stem}.json")
            records.load_arrays(entry)
        except (OSError, ValueError):
            return None
        return entry if entry["parameters"] == json.loads(json.dumps(self.recorded)) else None

    def is_finished(self) -> bool:
        """Tell whether the run need not be done again: its record is there and not stale."""
        entry = self.finished_record()
        return entry is not None and not records.is_stale(entry)


def plan(paper: str, given: Mapping[str, Any]) -> Plan:
    """Decide a run from the parameters of a page: `declared` ones, the rest at their defaults.

    given: settings (dataset, profile, ...) and hyper-parameters; None leaves the profile's value.
    `runs_dir=None` keeps the record of a smoke run in a temporary folder, removed at exit, and
    writes that of every other profile to book/<paper>/runs.
    Raises ValueError for unknown names, TypeError for wrong types, and ValueError when the tag
    "main", kept for the profile's own setting, is asked for with another variant or parameter.
    """
    names = declared(paper)
    for name in given:
        if name not in names:
            raise unknown_name(f"parameter of book/{paper}/run.md", name, names)
    values = {**names, **given}
    for name in TEXT_SETTINGS:
        if not isinstance(values[name], str) and not (name == "runs_dir" and values[name] is None):
            raise TypeError(f"{name} must be text; got {values[name]!r}.")
    seed = values["random_state"]
    if not isinstance(seed, int) or isinstance(seed, bool) or seed < 0:
        raise TypeError(f"random_state must be a whole number >= 0; got {seed!r}.")
    method, variant, dataset, profile = (
        values[name] for name in ("method", "variant", "dataset", "profile")
    )
    overrides = {k: v for k, v in values.items() if k not in SETTINGS and v is not None}
    parameters = resolve(paper, dataset, profile, overrides, method=method, variant=variant)
    if values["tag"] == DEFAULT_TAG and not dataset.startswith("folder:"):
        _refuse_changed(values, overrides, resolve(paper, dataset, profile, method=method))
    entry = profile_entry(paper, dataset, profile)
    return Plan(
        paper=paper,
        method=method,
        variant=variant,
        dataset=dataset,
        profile=profile,
        tag=values["tag"],
        random_state=seed,
        parameters=parameters,
        load=dict(entry.get("load") or {}),
        source=entry["source"],
        reduced=entry.get("reduced") or "nothing",
        runs=_runs_folder(paper, profile, values["runs_dir"]),
        code=records.code_state(METHODS[method]),
    )


def declared(paper: str) -> dict[str, Any]:
    """Return the names and defaults of the `parameters` cell of book/<paper>/run.md.

    Raises ValueError when the page has no such cell, or holds more than assignments of literals
    there.
    """
    path = paper_folder(paper) / "run.md"
    return dict(_parameters_cell(path, path.stat().st_mtime_ns))


def given(paper: str, namespace: Mapping[str, Any]) -> dict[str, Any]:
    """Collect a running page's parameters from its `globals()`, injected ones included.

    papermill only warns of a parameter that a page does not have, and runs on with the default;
    here any plain value beside the declared names raises ValueError with the nearest valid names.
    """
    names = declared(paper)
    for name, value in namespace.items():
        plain = isinstance(value, str | int | float | bool | list | dict | None)
        if plain and not name.startswith("_") and name not in {*names, "In", "Out"}:
            raise unknown_name(f"parameter of book/{paper}/run.md", name, names)
    return {name: namespace[name] for name in names}


def takes_seed(method: str) -> bool:
    """Tell whether a method's result depends on `random_state`."""
    return "random_state" in inspect.signature(estimator_class(method)).parameters


def _refuse_changed(
    values: Mapping[str, Any], overrides: Mapping[str, Any], usual: Mapping[str, Any]
) -> None:
    """Keep the tag "main" for the profile's own setting: another run must not take its files."""
    changed = ["variant"] if values["variant"] != "paper" else []
    changed += [k for k, v in overrides.items() if k not in NO_RESULT and v != usual[k]]
    if changed:
        raise ValueError(
            f"{', '.join(changed)}: not the setting of profile {values['profile']!r}, whose "
            f"records carry the tag {DEFAULT_TAG!r}. Name the experiment, as in "
            f"-p tag={changed[0]}-{values[changed[0]]}."
        )


@lru_cache(maxsize=16)
def _parameters_cell(path: Path, mtime_ns: int) -> dict[str, Any]:
    import jupytext

    cells = jupytext.read(path).cells
    tagged = [c for c in cells if "parameters" in c.metadata.get("tags", ())]
    if len(tagged) != 1:
        raise ValueError(f"{path} must have one cell tagged `parameters`; it has {len(tagged)}.")
    try:
        assigned = [
            (s.targets[0].id, ast.literal_eval(s.value)) for s in ast.parse(tagged[0].source).body
        ]
    except (AttributeError, ValueError) as error:
        raise ValueError(
            f"the parameters cell of {path} may hold only lines `name = literal` ({error})."
        ) from error
    return dict(assigned)


def _runs_folder(paper: str, profile: str, runs_dir: str | None) -> Path:
    if runs_dir is not None:
        return Path(runs_dir).expanduser().resolve()
    if profile != "smoke":
        return paper_folder(paper) / "runs"
    folder = Path(tempfile.mkdtemp(prefix="reprolib-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder
