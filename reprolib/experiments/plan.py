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

from reprolib.checks import unknown_name
from reprolib.experiments import records
from reprolib.experiments.paper import (
    estimator_class,
    paper_folder,
    profile_entry,
    resolve,
    variants_of,
)
from reprolib.training.checkpoint import load_checkpoint
from reprolib.training.monitor import Log

# Parameters of the page that are no hyper-parameters of a method
TEXT_SETTINGS = ("dataset", "profile", "variant", "method", "tag", "layer")
OPTIONAL_SETTINGS = ("runs_dir", "learned_on", "network")  # None: a default folder, the pixels
# Settings that a paper's page need not have
NO_FEATURES = {"learned_on": None, "layer": "ip", "network": None}
SETTINGS = (*TEXT_SETTINGS, *OPTIONAL_SETTINGS, "random_state")
# Parameters of a method that change how it runs, not what comes out
NO_RESULT = ("device", "verbose")
DEFAULT_TAG = "main"


@dataclass(frozen=True)
class Plan:
    """One run, fully decided: what is computed, with which parameters, into which files.

    parameters: all of the method's but random_state; load: keywords of `datasets.load`; learned_on:
    the data set whose JULE model gives the features, or None for pixels; layer: of that model; network:
    the ImageNet network that gives the features, or None; source: who prescribes the setting; reduced:
    what was reduced against the paper; runs: folder of the records; code: `records.code_state` at planning.
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
    learned_on: str | None
    layer: str
    network: str | None
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
        learned = {"learned_on": self.learned_on, "layer": self.layer} if self.learned_on else {}
        learned |= {"network": self.network} if self.network else {}
        return {k: v for k, v in self.parameters.items() if k not in NO_RESULT} | learned

    @property
    def takes_seed(self) -> bool:
        """Tell whether the result depends on `random_state`, its own or that of the model."""
        return self.learned_on is not None or takes_seed(self.method)

    @property
    def checkpoint(self) -> Path:
        """The method's checkpoint file; another parameter or behaviour gets another file."""
        setting = [self.recorded, self.load, self.code["behaviours"]]
        text = json.dumps(setting, sort_keys=True)
        key = hashlib.sha256(text.encode()).hexdigest()[:12]
        return self.runs / "checkpoints" / f"{self.stem}-{key}.ckpt"

    @property
    def model(self) -> Path:
        """The file of the JULE model that the run writes or, with `learned_on`, reads.

        It stays on this machine, unlike the record.
        """
        name = self.stem
        if self.learned_on:
            name = records.stem(
                "JULE", self.learned_on, self.profile, DEFAULT_TAG, self.random_state
            )
        return self.runs / "models" / f"{name}.safetensors"

    @property
    def pretrained(self) -> Path:
        """Folder of the autoencoders that methods share; it stays on this machine."""
        return self.runs / "models"

    def images(self) -> Any:
        """Load the data set as the profile says, in the size and channels of the model if any."""
        from reprolib.data.load import load

        if self.learned_on is None:
            return load(self.dataset, **self.load)
        channels, *size = self._learned().input_shape_
        return load(self.dataset, **self.load | {"size": tuple(size), "gray": channels == 1})

    def features(self, images: Any) -> Any:
        """What the method is fitted on: the images, or a model's representation of them."""
        if self.network is not None:
            from reprolib.networks.pretrained import resnet_features

            how = {k: self.parameters[k] for k in ("precision", "device") if k in self.parameters}
            return resnet_features(images, self.network, **how)
        if self.learned_on is None:
            return images
        return self._learned().represent(images, self.layer)

    def _learned(self) -> Any:
        from reprolib.methods.jule import JULE

        if not self.model.is_file():
            raise FileNotFoundError(
                f"no model {self.model}: models stay on the machine that fitted them. Fit it with "
                f"`python -m reprolib run {self.paper} -p dataset={self.learned_on} -p profile="
                f"{self.profile} --seeds {self.random_state + 1} --force`"
            )
        return JULE.load(self.model)

    def estimator(self) -> Any:
        """Build the method; fitting it is the caller's."""
        seed = {"random_state": self.random_state} if takes_seed(self.method) else {}
        return estimator_class(self.method)(**self.parameters, **seed)

    def monitor(self, images: Any) -> Log:
        """The log of a run's stages, continued with the checkpoint; seed 0 keeps points."""
        path = self.checkpoint.with_suffix(".stages")
        if not self.checkpoint.exists():
            path.unlink(missing_ok=True)
        return Log(images, path=path, figure=self.random_state == 0)

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
    With `learned_on` the method is fitted on that JULE model's `layer`, and the tag becomes
    on-<learned_on>-<layer> unless another is given.
    Raises ValueError for unknown names, TypeError for wrong types, and ValueError when the tag
    "main", kept for the profile's own setting, is asked for with another variant or parameter.
    """
    names = declared(paper)
    for name in given:
        if name not in names:
            raise unknown_name(f"parameter of book/{paper}/run.md", name, names)
    values = {**NO_FEATURES, **names, **given}
    for name in TEXT_SETTINGS:
        if not isinstance(values[name], str):
            raise TypeError(f"{name} must be text; got {values[name]!r}.")
    for name in OPTIONAL_SETTINGS:
        if not isinstance(values[name], str | None):
            raise TypeError(f"{name} must be text or None; got {values[name]!r}.")
    seed = values["random_state"]
    if not isinstance(seed, int) or isinstance(seed, bool) or seed < 0:
        raise TypeError(f"random_state must be a whole number >= 0; got {seed!r}.")
    method, variant, dataset, profile = (
        values[name] for name in ("method", "variant", "dataset", "profile")
    )
    learned_on, tag = values["learned_on"], values["tag"]
    if learned_on is not None:
        _check_representation(paper, method, learned_on, profile, values["layer"])
        tag = f"on-{learned_on}-{values['layer']}" if tag == DEFAULT_TAG else tag
    entry = profile_entry(paper, dataset, profile)
    network = _network(values["network"], entry)
    overrides = {k: v for k, v in values.items() if k not in SETTINGS and v is not None}
    parameters = resolve(paper, dataset, profile, overrides, method=method, variant=variant)
    if tag == DEFAULT_TAG and not dataset.startswith("folder:"):
        usual = resolve(paper, dataset, profile, method=method)
        _refuse_changed(values, overrides, usual, network == entry.get("network"))
    made_by = [f"{method}/{variant}" if len(variants_of(method)) > 1 else method]
    made_by += ["represent", "JULE/paper"] if learned_on else []
    made_by += ["resnet_features"] if network else []
    return Plan(
        paper=paper,
        method=method,
        variant=variant,
        dataset=dataset,
        profile=profile,
        tag=tag,
        random_state=seed,
        parameters=parameters,
        load=dict(entry.get("load") or {}),
        learned_on=learned_on,
        layer=values["layer"],
        network=network,
        source=entry["source"],
        reduced=entry.get("reduced") or "nothing",
        runs=_runs_folder(paper, profile, values["runs_dir"]),
        code=records.code_state(*made_by),
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


def _network(asked: str | None, entry: Mapping[str, Any]) -> str | None:
    from reprolib.networks.pretrained import NETWORKS

    network = asked or entry.get("network")
    if network is not None and network not in NETWORKS:
        raise unknown_name("network", network, NETWORKS)
    return network


def _check_representation(
    paper: str, method: str, learned_on: str, profile: str, layer: str
) -> None:
    from reprolib.methods.jule import LAYERS

    profile_entry(paper, learned_on, profile)
    if method == "JULE":
        raise ValueError("learned_on gives features, and JULE needs images: name another method.")
    if layer not in LAYERS:
        raise unknown_name("layer", layer, LAYERS)


def _refuse_changed(
    values: Mapping[str, Any],
    overrides: Mapping[str, Any],
    usual: Mapping[str, Any],
    same_network: bool,
) -> None:
    """Keep the tag "main" for the profile's own setting: another run must not take its files."""
    changed = ["variant"] if values["variant"] != "paper" else []
    changed += [] if same_network else ["network"]
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
