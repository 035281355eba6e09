"""The plan of one run, shared by `book/<paper>/run.md` and `reprolib run`: all is decided before anything runs.

Its setting `features` says what the method sees: "pixels", the name of an ImageNet network, or jule/DATASET/LAYER:
that layer of the JULE model that was fitted on that data set (paper 002, section 4.2.1).
"""

import atexit
import hashlib
import json
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from reprolib.checks import check_name
from reprolib.data import load as datasets
from reprolib.experiments import paper as papers
from reprolib.experiments import records
from reprolib.experiments.machine import commit
from reprolib.experiments.probes import latest
from reprolib.files import locked
from reprolib.methods.base import Estimator
from reprolib.methods.jule import JULE, LAYERS
from reprolib.networks.pretrained import NETWORKS, resnet_features
from reprolib.training.checkpoint import load_checkpoint
from reprolib.training.monitor import Log, Report, seconds_by_stage
from reprolib.training.trainer import NO_RESULT

PIXELS = "pixels"
NOTEBOOK = "notebook"  # by what a run was executed, unless its record says otherwise
# What a page chooses beside `parameters`, the hyper-parameters that differ from the profile's. None: the
# paper's own method; the profile's features, else pixels; the folder of the paper's records
SETTINGS = {"method": None, "variant": "paper", "dataset": "digits", "profile": "smoke", "random_state": 0}
SETTINGS |= {"tag": "main", "features": None, "runs_dir": None}
# Keywords of `load` that may be given among the hyper-parameters
LOADING = {"size": None, "gray": False, "subset": None}


@dataclass(frozen=True)
class Plan:
    """One run, fully decided: what is computed, with which parameters, into which files."""

    paper: str
    method: str
    variant: str
    dataset: str
    profile: str
    tag: str
    random_state: int
    features: str
    parameters: dict[str, Any]  # all of the method's but random_state
    load: dict[str, Any]  # keywords of `load`
    source: str  # who prescribes the setting
    reduced: str  # against the paper
    runs: Path  # folder of the records
    code: dict[str, Any]  # commit, whether it is `dirty`, and behaviours, at planning

    @property
    def stem(self) -> str:
        return records.stem(self.method, self.dataset, self.profile, self.tag, self.random_state)

    @property
    def recorded(self) -> dict[str, Any]:
        """The parameters that determine the result, as they stand in the record."""
        features = {} if self.features == PIXELS else {"features": self.features}
        if found := learned(self.features):
            features["features"] = f"jule/{records.known_as(found[0])}/{found[1]}"
        usual = LOADING | (papers.profile_entry(self.paper, self.dataset, self.profile).get("load") or {})
        given = {k: v for k, v in self.load.items() if v != usual[k]}
        return {k: v for k, v in self.parameters.items() if k not in NO_RESULT} | features | given

    @property
    def takes_seed(self) -> bool:
        """Tell whether the result depends on `random_state`, its own or that of learned features."""
        return "random_state" in self.estimator().get_params() or bool(learned(self.features))

    @property
    def checkpoint(self) -> Path:
        """The method's checkpoint file; another parameter or behaviour gets another file."""
        setting = [self.recorded, self.load, self.code["behaviours"]]
        key = hashlib.sha256(json.dumps(setting, sort_keys=True).encode()).hexdigest()[:12]
        return self.runs / "checkpoints" / f"{self.stem}-{key}.ckpt"

    @property
    def shared(self) -> Path:
        """Folder of fitted models and what methods share; it stays on this machine."""
        return self.runs / "models"

    @property
    def needed_model(self) -> Path | None:
        """File of the JULE model whose layer the method sees, if any."""
        if not (found := learned(self.features)):
            return None
        folder = self.shared if self.paper == "jule" else papers.paper_folder("jule") / "runs" / "models"
        return folder / f"{records.stem('JULE', found[0], self.profile, 'main', self.random_state)}.safetensors"

    def images(self) -> Any:
        """Load the data set as the profile says, and as the model of learned features takes it."""
        return datasets.load(self.dataset, **self._how())

    def _how(self) -> dict[str, Any]:
        if not learned(self.features):
            return self.load
        channels, *size = self._jule().input_shape_
        return self.load | {"size": tuple(size), "gray": channels == 1}

    def inputs(self, images: Any) -> Any:
        """What the method is fitted on: the images, or their `features` float32 (n, d)."""
        if self.features == PIXELS:
            return images
        if found := learned(self.features):
            return self._jule().represent(images, found[1])
        how = {k: self.parameters[k] for k in ("precision", "device") if k in self.parameters}
        return resnet_features(images, self.features, **how)

    def _jule(self) -> JULE:
        dataset, profile, seed = learned(self.features)[0], self.profile, self.random_state
        path = self.needed_model
        if path.is_file():
            return JULE.load(path)
        raise FileNotFoundError(
            f"no model {path}: models stay on the machine that fitted them. Fit it with `python -m "
            f"reprolib run jule -p dataset={dataset} -p profile={profile} --seeds {seed + 1} --force`"
        )

    def estimator(self) -> Any:
        """Build the method, not fitted."""
        model = papers.estimator_class(self.method)(**self.parameters)
        seeded = "random_state" in model.get_params()
        return model.set_params(random_state=self.random_state) if seeded else model

    def monitor(self, images: Any) -> Log:
        """The log of a run, continued with the checkpoint; that of seed 0 keeps points for figures."""
        path = self.checkpoint.with_suffix(".log")
        if not self.checkpoint.exists():
            path.unlink(missing_ok=True)
        scored = records.scored(self.dataset, self.parameters, images.n)
        return Log(images, path=path, figure=self.random_state == 0, scored=scored)

    def fit(self, model: Any, images: Any, monitor: Callable[[Report], None]) -> dict[str, float]:
        """Fit, from the checkpoint if any; return the seconds, a killed run's too, by stage if the method has some.

        BlockingIOError while another process is at the same run.
        """
        with self.lock():
            return self._fit(model, images, monitor)

    def lock(self) -> AbstractContextManager[None]:
        """Keep other processes from this run, as they would go on from the same checkpoint: see `locked`."""
        return locked(self.checkpoint.with_suffix(".lock"), self.stem)

    def _fit(self, model: Any, images: Any, monitor: Callable[[Report], None]) -> dict[str, float]:
        inputs, before, options = self.inputs(images), [], {}
        if self.checkpoint.exists():
            before = load_checkpoint(self.checkpoint)[1]["history"]
        if model.trains:
            options = {"monitor": monitor, "checkpoint": self.checkpoint, "shared": self.shared}
        began = time.perf_counter()
        model.fit(inputs, **options)
        if model.trains and self.method != "JULE":
            return seconds_by_stage(model.history_)
        if self.method == "JULE":  # for `features` of other runs
            model.save(self.shared / f"{self.stem}.safetensors")
        # merges included, half of JULE's time
        return {"fit": sum(row["seconds"] for row in before) + time.perf_counter() - began}

    def record(
        self, model: Any, images: Any, monitor: Log, seconds: Mapping[str, float], executed: str = NOTEBOOK
    ) -> Path:
        """Write the record of a fitted method, return its path, and drop the checkpoint."""
        names = ("paper", "method", "variant", "dataset", "profile", "tag", "random_state", "code")
        setting = {name: getattr(self, name) for name in names}
        setting |= {"parameters": self.recorded, "task": getattr(model, "task", "clustering")}
        devices = getattr(model, "devices_", [self.parameters.get("device", "auto")])
        setting |= {"device": " then ".join(devices), "seconds": seconds}
        if executed != NOTEBOOK:  # as records without the key are
            setting["code"] = self.code | {"executed": executed}
        told = {"history": monitor.rows(model.history_), "arrays": monitor.arrays}
        path = records.record(self.runs, images, model.results_, **told, **setting)
        for file in (self.checkpoint, self.checkpoint.with_suffix(".log")):
            file.unlink(missing_ok=True)
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
        """Tell whether the run need not be done again: its record is there, not stale, and of the data as they are."""
        entry = self.finished_record()
        if entry is None or records.is_stale(entry):
            return False
        try:
            found = {path: path.stat() for path in datasets.files(self.dataset)}
            stamps = tuple((str(path), stat.st_size, stat.st_mtime_ns) for path, stat in found.items())
            return _sha256(self.dataset, json.dumps(self._how()), stamps) == entry["dataset"]["sha256"]
        except FileNotFoundError:  # the data are elsewhere, or the model whose size they take
            return True

    def check_name(self) -> None:
        """ValueError where another run has its record: its names differ in characters that file names lack."""
        try:
            entry = records.read(self.runs / f"{self.stem}.json")
        except (OSError, ValueError):
            return  # none, or a damaged one
        found = entry["method"], entry["dataset"]["name"], entry["profile"], entry["tag"]
        if found != (self.method, records.known_as(self.dataset), self.profile, self.tag):
            other = "{}, data set {!r}, profile {}, tag {!r}".format(*found)
            said = f"{entry['path']} is the record of another run ({other})"
            raise ValueError(f"{said}: give this one another tag, as in -p tag=other.")


@lru_cache(maxsize=64)
def _sha256(dataset: str, how: str, stamps: tuple[tuple[str, int, int], ...]) -> str:
    """Hash of a data set as loaded, kept while its files have the same paths, sizes and times."""
    return datasets.load(dataset, **json.loads(how)).sha256


def plan(paper: str, given: Mapping[str, Any]) -> Plan:
    """Decide a run from settings and hyper-parameters, in one dict; the rest as SETTINGS and profile say.

    `runs_dir=None`: a smoke run writes to a temporary folder, removed at exit, others to book/<paper>/runs. On learned
    features the tag "main" becomes on-<data set>-<layer>. TypeError for wrong types, ValueError for unknown names and
    for the tag "main" with another setting than the profile's own.
    """
    given = located(given)
    values = SETTINGS | {k: v for k, v in given.items() if k in SETTINGS}
    how = {k: v for k, v in given.items() if k in LOADING and v is not None}
    overrides = {k: v for k, v in given.items() if k not in {*SETTINGS, *LOADING}}
    if type(seed := values["random_state"]) is not int or seed < 0:
        raise TypeError(f"random_state must be a whole number >= 0; got {seed!r}.")
    for name, usual in SETTINGS.items():
        if not isinstance(values[name], type(usual) | str):
            raise TypeError(f"{name} must be text{' or None' * (usual is None)}; got {values[name]!r}.")
    method = values["method"] or papers.methods(paper)[0]
    known, variant, tag = papers.signature(method), values["variant"], values["tag"]
    for name in overrides:
        check_name(f"parameter of {method}", name, {*known, *SETTINGS, *LOADING})
    if not isinstance(how.get("gray", False), bool):
        raise TypeError(f"gray must be true or false; got {how['gray']!r}.")
    place = values["dataset"], values["profile"]
    entry = papers.profile_entry(paper, *place)
    usual = {"variant": "paper", "features": entry.get("features", PIXELS)}
    features = values["features"] or usual["features"]
    feature_makers, other = _feature_makers(features, method, place[1]), learned(features)
    parameters = papers.resolve(paper, *place, overrides, method=method, variant=variant)
    unnamed = tag == SETTINGS["tag"]
    if other and not how.keys().isdisjoint(("size", "gray")):
        raise ValueError("size and gray of learned features are those of the model's images: leave them away.")
    tag = f"on-{records.known_as(other[0])}-{other[1]}" if unnamed and other else tag
    if unnamed and not datasets.is_own(place[0]):
        # another run must not take the files of the profile's own setting
        usual |= papers.resolve(paper, *place, method=method) | LOADING | (entry.get("load") or {})
        asked = {"variant": variant} | ({} if other else {"features": features})
        asked |= {k: parameters[k] for k in overrides if k not in NO_RESULT} | how
        if changed := [name for name, value in asked.items() if value != usual[name]]:
            raise ValueError(
                f"{', '.join(changed)}: not the setting of profile {place[1]!r}, whose records carry the "
                f"tag {tag!r}. Name the experiment, as in -p tag={changed[0]}-{asked[changed[0]]}."
            )
    kind = papers.estimator_class(method)
    makers = getattr(kind, "behaviours", [f"{method}/{variant}" if len(kind.VARIANTS) > 1 else method])
    makers = [*makers, *(["ACGDL"] if parameters.get("start") == "gdl" else [])]
    head, dirty = commit()  # now: the files may change while the run goes on
    runs = papers.paper_folder(paper) / "runs"
    if (runs_dir := values.pop("runs_dir")) is not None:
        runs = Path(runs_dir).expanduser().resolve()
    elif place[1] == "smoke":
        runs = Path(tempfile.mkdtemp(prefix="reprolib-"))
        atexit.register(shutil.rmtree, runs, ignore_errors=True)
    made = Plan(
        **values | {"paper": paper, "method": method, "tag": tag, "features": features},
        parameters=parameters,
        load=(entry.get("load") or {}) | how,
        source=entry["source"],
        reduced=entry.get("reduced") or "nothing",
        runs=runs,
        code={"commit": head, "dirty": dirty, "behaviours": latest(*makers, *feature_makers)},
    )
    made.check_name()
    if isinstance(model := made.estimator(), Estimator):
        model.check_parameters()  # before the data are loaded
    return made


def located(given: Mapping[str, Any]) -> dict[str, Any]:
    """The settings with the whole paths of folders: the same from any working folder."""
    named = {k: v for k, v in given.items() if k in ("dataset", "features") and isinstance(v, str)}
    return {**given, **{k: datasets.located(v) for k, v in named.items()}}


def learned(features: str) -> tuple[str, str] | None:
    """Data set and layer of features jule/DATASET/LAYER; None for others."""
    dataset, _, layer = features.removeprefix("jule/").rpartition("/")
    return (dataset, layer) if features.startswith("jule/") else None


def _feature_makers(features: str, method: str, profile: str) -> list[str]:
    """Behaviours that features hang on; ValueError for unknown ones and a method that needs images."""
    if found := learned(features):
        papers.profile_entry("jule", found[0], profile)
        check_name("layer of features jule/DATASET/LAYER", found[1], LAYERS)
    else:
        check_name("features", features, (PIXELS, *NETWORKS, "jule/DATASET/LAYER"))
    if method == "JULE" and features != PIXELS:
        raise ValueError(f"JULE needs images, not features {features!r}: name another method.")
    if found:
        return ["represent", "JULE/paper"]
    return [] if features == PIXELS else ["resnet_features"]


def given(page: Mapping[str, Any]) -> dict[str, Any]:
    """What a running page was given, from its `globals()`: settings, and the dict `parameters`.

    papermill only warns of a name that a page does not have: every plain value comes along, for `plan` to refuse.
    """
    plain, own = str | int | float | list | dict | None, ("In", "Out")
    found = {k: v for k, v in page.items() if isinstance(v, plain) and not k.startswith("_") and k not in own}
    parameters = found.pop("parameters", {})
    if not isinstance(parameters, dict):
        raise TypeError(f"parameters must be a dict, as in {{'gamma': 2.0}}; got {parameters!r}.")
    if twice := sorted(found.keys() & parameters.keys()):
        raise ValueError(f"{', '.join(twice)} stands in `parameters` and beside it: set it once.")
    return found | parameters
