"""Profiles: the hyper-parameters of a paper's experiment by data set, and who prescribes them.

`book/<paper>/profiles.yml` holds `method` (the paper's own), `default` (its parameters on every
data set), `baselines` (the methods it is compared with, and their parameters), `shared` (parameters
that these take over from the paper's own, where they have them) and `profiles`: smoke | cpu | paper, by
data set.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from reprolib.checks import unknown_name
from reprolib.experiments.probes import REPOSITORY

BOOK = REPOSITORY / "book"
NAMES = ("smoke", "cpu", "paper")
# as safe, and ten times as fast, where PyYAML was built with libyaml
LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

# Beside the parameters, an entry may say how the data set is loaded, who says so, what was reduced, which
# ImageNet network gives the features, and what other methods than the paper's take
ABOUT = ("load", "source", "reduced", "features", "others")

METHODS = {
    "JULE": "reprolib.methods.jule",
    "ACGDL": "reprolib.methods.agglomerative",
    "ACPIC": "reprolib.methods.agglomerative",
    "ACZell": "reprolib.methods.agglomerative",
    "KMeans": "reprolib.methods.classical",
    "ACLink": "reprolib.methods.classical",
    "SCNJW": "reprolib.methods.spectral",
    "NCuts": "reprolib.methods.spectral",
    "SCST": "reprolib.methods.self_tuning",
    "SCLS": "reprolib.methods.self_tuning",
    "NMFLP": "reprolib.methods.nmf",
    "NMFD": "reprolib.methods.deep_nmf",
    "DCSS": "reprolib.methods.dcss",
    "AEKMeans": "reprolib.methods.dec",
    "DEC": "reprolib.methods.dec",
    "IDEC": "reprolib.methods.dec",
    "DCN": "reprolib.methods.dec",
    "DKM": "reprolib.methods.dec",
    "VaDE": "reprolib.methods.vade",
    "PatchCodes": "reprolib.studies.classify",
}


def papers() -> list[str]:
    """Name the papers that have an experiment: folders of the book with a profiles.yml."""
    return sorted(path.parent.name for path in BOOK.glob("*/profiles.yml"))


def paper_folder(paper: str) -> Path:
    """Return book/<paper>. Raises ValueError for an unknown paper, naming the nearest ones."""
    if paper not in papers():
        raise unknown_name("paper", paper, papers())
    return BOOK / paper


def load_yaml(path: Path) -> Any:
    """Read a YAML file of the book. Raises ValueError, naming the file, when it does not parse."""
    try:
        return yaml.load(path.read_text(encoding="utf-8"), Loader=LOADER)
    except yaml.YAMLError as error:
        raise ValueError(f"{path} is not valid YAML: {error}") from error


def profiles(paper: str) -> dict:
    """Read book/<paper>/profiles.yml: keys `method`, `default`, `baselines`, `shared`, `profiles`.

    Raises ValueError for an unknown paper, an unknown profile name, or an entry without `source` or
    `n_clusters`.
    """
    path = paper_folder(paper) / "profiles.yml"
    found = {"shared": ["n_clusters"]} | load_yaml(path)
    for profile, entries in found["profiles"].items():
        if profile not in NAMES:
            raise unknown_name(f"profile in {path.name}", profile, NAMES)
        for dataset, entry in entries.items():
            if missing := [key for key in ("source", "n_clusters") if not entry.get(key)]:
                raise ValueError(f"{path.name}, {profile}/{dataset}: {', '.join(missing)} missing.")
    return found


def methods(paper: str) -> list[str]:
    """Name the methods of a paper's experiment: its own, and those it is compared with."""
    declared = profiles(paper)
    return [declared["method"], *declared["baselines"]]


def profile_entry(paper: str, dataset: str, profile: str) -> dict:
    """Return one data set's entry of a profile, parameters and ABOUT keys together.

    Images of one's own (`folder:PATH`) take the defaults. Raises ValueError for unknown names.
    """
    by_profile = profiles(paper)["profiles"]
    if profile not in by_profile:
        raise unknown_name("profile", profile, by_profile)
    if dataset.startswith("folder:"):
        return {"source": "defaults of profiles.yml; the data set is the user's own"}
    if dataset not in by_profile[profile]:
        elsewhere = [p for p, entries in by_profile.items() if dataset in entries]
        if not elsewhere:
            raise unknown_name("data set", dataset, {d for e in by_profile.values() for d in e})
        raise ValueError(
            f"profile {profile!r} has no setting for {dataset!r}; {' and '.join(elsewhere)} have "
            f"one: add -p profile={elsewhere[0]}."
        )
    return dict(by_profile[profile][dataset])


def resolve(
    paper: str,
    dataset: str,
    profile: str,
    overrides: Mapping[str, Any] | None = None,
    *,
    method: str | None = None,
    variant: str = "paper",
) -> dict[str, Any]:
    """Return every parameter that `method` is built with, `random_state` excepted.

    method: by default the paper's own. It takes profiles.yml's `default` and all of the data set's
    entry; another method takes what is `shared` of these, its `baselines`, and the entry's `others`.
    The variant's overrides come before these, those asked for last.
    Raises ValueError for unknown names and where n_clusters is given nowhere, TypeError for a value
    of the wrong type.
    """
    declared = profiles(paper)
    method = method or declared["method"]
    if method not in methods(paper):
        raise unknown_name(f"method of {paper}", method, methods(paper))
    known, variants = signature(method), variants_of(method)
    if variant not in variants:
        raise unknown_name(f"variant of {method}", variant, variants)
    entry = profile_entry(paper, dataset, profile)
    if method == declared["method"]:
        layers = [declared["default"], {k: v for k, v in entry.items() if k not in ABOUT}]
    else:
        own = declared["default"] | entry
        shared = {k: own[k] for k in declared["shared"] if k in own and k in known}
        others = {k: v for k, v in (entry.get("others") or {}).items() if k in known}
        layers = [shared, declared["baselines"][method] or {}, others]
    merged = {}
    for name, value in [pair for layer in [*layers, overrides or {}] for pair in layer.items()]:
        if name not in known:
            raise unknown_name(f"parameter of {method}", name, known)
        merged[name] = _typed(method, name, value, known[name])
    if "n_clusters" not in merged:
        raise ValueError(
            f"the number of clusters of {dataset!r} is not known: add -p n_clusters=..."
        )
    chosen = {name: value for name, value in merged.items() if value is not None}
    return known | variants[variant] | chosen


def variants_of(method: str) -> dict[str, dict[str, Any]]:
    """Return what each named variant of a method overrides; without any, only {"paper": {}}."""
    return estimator_class(method).VARIANTS


def signature(method: str) -> dict[str, Any]:
    """Return a method's parameters and their defaults, `random_state` excepted.

    Raises ValueError for an unknown method.
    """
    found = inspect.signature(estimator_class(method)).parameters
    return {k: p.default for k, p in found.items() if k != "random_state"}


def estimator_class(method: str) -> type:
    """Return the estimator class of a method's name. Raises ValueError for an unknown one."""
    if method not in METHODS:
        raise unknown_name("method", method, METHODS)
    return getattr(importlib.import_module(METHODS[method]), method)


def _typed(method: str, name: str, value: Any, default: Any) -> Any:
    """Check a value against the type of the default; whole numbers may stand for floats."""
    if default is None or value is None:
        return value
    expected = type(default)
    if expected is float and type(value) is int:
        return float(value)
    if type(value) is not expected:
        raise TypeError(
            f"{name} of {method} must be {expected.__name__}, like {default!r}; "
            f"got {value!r} ({type(value).__name__})."
        )
    return value
