"""Runs of Table 8 of paper 002: one record a representation and seed, with all predictions.

`book/<paper>/classification.yml` holds the settings by profile, `book/<paper>/classification/` the
records. `reprolib.studies.classify` computes.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from reprolib.checks import unknown_name
from reprolib.data import load
from reprolib.experiments import records
from reprolib.experiments.paper import load_yaml, paper_folder

WHITENED = "whitened"  # the representation that needs no network
KEYS = {"train", "test", "sizes", "representations", "n_codes", "n_patches", "network"}
ABOUT = {"source", "reduced"}


def setting(paper: str, profile: str) -> dict[str, Any]:
    """Return a profile of book/<paper>/classification.yml.

    Raises ValueError for an unknown paper or profile and for missing or unknown keys.
    """
    path = paper_folder(paper) / "classification.yml"
    known = load_yaml(path)["profiles"]
    if profile not in known:
        raise unknown_name("profile", profile, known)
    if wrong := set(known[profile]) ^ (KEYS | ABOUT):
        raise ValueError(f"{path.name}, {profile}: missing or unknown {', '.join(sorted(wrong))}")
    return known[profile]


def run(
    paper: str,
    profile: str,
    random_state: int,
    *,
    root: Path | None = None,
    device: str = "auto",
    force: bool = False,
) -> list[Path]:
    """Classify with every representation of a profile; return the paths of their records.

    What has a fresh record, and a CNN of patches that was learned before, is taken from there, so that
    a killed run goes on with the representation it was at; `force` begins anew. root: folder of the
    records, by default book/<paper>/classification. Raises ValueError for unknown names and
    FileNotFoundError, saying how to get them, when the data sets are not there.
    """
    chosen = setting(paper, profile)
    folder = Path(root) if root is not None else _folder(paper)
    code = records.code_state("codes", "JULE/paper")
    names = {
        name: records.stem("codes", chosen["train"], profile, name, random_state)
        for name in chosen["representations"]
    }
    todo = [
        name
        for name, stem in names.items()
        if force or not _finished(folder / f"{stem}.json", _parameters(chosen, name))
    ]
    if todo:
        train, test = load.load(chosen["train"]), load.load(chosen["test"])
    network, learned = None, {}
    bar = tqdm(todo, desc=f"seed {random_state}", unit="code", disable=not todo)
    for name in bar:
        bar.set_postfix_str(name)
        # here, so that reading records does not import torch
        from reprolib.studies.classify import classify

        if name != WHITENED and network is None:
            path = (
                folder / "networks" / f"{chosen['train']}-{profile}-seed{random_state}.safetensors"
            )
            network, learned = _network(path, train, chosen, random_state, device, code, force)
        rows = classify(
            train,
            test,
            chosen["sizes"],
            representations=[name],
            n_codes=chosen["n_codes"],
            n_patches=chosen["n_patches"],
            network=network,
            random_state=random_state,
            device=device,
        )
        arrays = {f"n{row['n_train']}": row.pop("predicted").astype(np.uint8) for row in rows}
        entry = {
            "paper": paper,
            "profile": profile,
            "representation": name,
            "random_state": random_state,
            "parameters": _parameters(chosen, name),
            "train": _about(train, chosen["train"]),
            "test": _about(test, chosen["test"]),
            "rows": rows,
            "network": learned if name != WHITENED else {},
        }
        arrays["y"] = test.labels.astype(np.uint8)
        records.write(folder, names[name], entry, arrays, code, device)
    return [folder / f"{stem}.json" for stem in names.values()]


def load_runs(paper: str, *, profile: str | None = None, root: Path | None = None) -> list[dict]:
    """Read the records of `run`, sorted by file name; each has its `path`. ValueError for another file."""
    folder = Path(root) if root is not None else _folder(paper)
    found = [records.read(path) for path in sorted(folder.glob("*.json"))]
    return [entry for entry in found if profile in (None, entry["profile"])]


def rescore(entry: Mapping[str, Any]) -> dict[int, float]:
    """Recompute the accuracies of a record, by number of labelled images, from its predictions."""
    stored = records.load_arrays(entry)
    sizes = [row["n_train"] for row in entry["rows"]]
    return {n: float(np.mean(stored[f"n{n}"] == stored["y"])) for n in sizes}


def curves(entries: Iterable[Mapping[str, Any]]) -> dict[str, dict[int, dict[int, float]]]:
    """Gather accuracies: {representation: {number of labelled images: {random_state: accuracy}}}."""
    found: dict[str, dict[int, dict[int, float]]] = {}
    for entry in sorted(entries, key=lambda entry: entry["random_state"]):
        for row in sorted(entry["rows"], key=lambda row: row["n_train"]):
            by_size = found.setdefault(entry["representation"], {})
            by_size.setdefault(row["n_train"], {})[entry["random_state"]] = row["accuracy"]
    return found


def gains(
    measured: Mapping[str, Mapping[int, Mapping]], name: str, than: str, n: int
) -> np.ndarray:
    """Accuracies of one representation less those of another, for the seeds that both have.

    measured: of `curves`; n: number of labelled images. Empty where a side is missing.
    """
    ours, theirs = (measured.get(which, {}).get(n, {}) for which in (name, than))
    return np.array([ours[seed] - theirs[seed] for seed in ours if seed in theirs])


def _network(
    path: Path,
    train: Any,
    chosen: Mapping[str, Any],
    random_state: int,
    device: str,
    code: Mapping[str, Any],
    force: bool,
) -> tuple[Any, dict[str, Any]]:
    """The CNN of patches and how it was learned, read from `path` if it is of this code and setting.

    The latter: `seconds`, and `losses`, the mean of each epoch.
    """
    from reprolib.methods.jule import JULE
    from reprolib.studies.codes import PATCH, whitened_patches
    from reprolib.studies.patch_network import (
        learn_patch_network,
        load_patch_network,
        save_patch_network,
    )

    about = {"parameters": chosen["network"], "behaviours": code["behaviours"]}
    if path.exists() and not force:
        network, stored = load_patch_network(path)
        if {key: stored[key] for key in about} == about:
            return network, {key: stored[key] for key in ("seconds", "losses")}
    began = time.perf_counter()
    model = JULE(**chosen["network"], random_state=random_state, device=device, verbose=True)
    _, patches = whitened_patches(train, chosen["n_patches"], random_state=random_state)
    shape = (len(patches), train.shape[1], PATCH, PATCH)
    network, epochs = learn_patch_network(patches.view(shape).numpy(), model)
    learned = {
        "seconds": round(time.perf_counter() - began, 3),
        "losses": [round(epoch["loss"], 5) for epoch in epochs],
    }
    save_patch_network(network, path, about | learned)
    return network, learned


def _parameters(chosen: Mapping[str, Any], representation: str) -> dict[str, Any]:
    """What determines the result; codes of the patches themselves need no network."""
    keys = ["train", "test", "sizes", "n_codes", "n_patches"]
    return {key: chosen[key] for key in keys + ["network"] * (representation != WHITENED)}


def _finished(path: Path, parameters: Mapping[str, Any]) -> bool:
    try:
        entry = records.read(path)
        records.load_arrays(entry)
    except (OSError, ValueError):
        return False
    return entry["parameters"] == parameters and not records.is_stale(entry)


def _about(images: Any, name: str) -> dict[str, Any]:
    return {"name": name, "n": images.n, "shape": list(images.shape), "sha256": images.sha256}


def _folder(paper: str) -> Path:
    return paper_folder(paper) / "classification"
