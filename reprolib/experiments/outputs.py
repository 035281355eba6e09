"""Today's behaviours, computed: `traces` of what trains; what comes out of methods and features that do not."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from sklearn.base import clone

from reprolib import methods
from reprolib.data.load import load
from reprolib.experiments.traces import (
    FEWER,
    OF_JULE,
    ONE_PERIOD,
    SEED,
    SMALL,
    N,
    partition,
    rounded,
    trace,
    vector,
    weighted_norm,
)
from reprolib.methods.jule import JULE, LAYERS
from reprolib.networks.pretrained import NETWORKS, PRECISIONS, WEIGHTS, extract
from reprolib.studies import classify, codes, patch_network

# of methods without steps, so that it shows when one is dropped
OTHER = {
    "bandwidth": 0.25,
    "graph_weight": 5.0,
    "linkage": "ward",
    "local_weight": 0.5,
    "max_iter": 10,
    "n_init": 1,
    "n_landmarks": 20,
    "n_nearest": 3,
    "n_neighbor_clusters": 2,
    "n_neighbors": 8,
    "scale_neighbor": 3,
    "z": 0.5,
}


def compute(name: str) -> dict[str, dict[str, Any]]:
    """Today's behaviour of a name of `known()`: `plan`, exact facts, and `numbers`, known to a tolerance."""
    with torch.random.fork_rng(devices=[]), _one_thread():
        if name in EXTRACTORS:
            return EXTRACTORS[name]()
        method, _, variant = name.partition("/")
        kind = getattr(methods, method)
        return trace(kind, variant or "paper") if kind.trains else _labels(kind)


def known() -> list[str]:
    """All names that have a behaviour: a method, or method/variant where there are several; extractors."""
    names = list(EXTRACTORS)
    for method in methods.__all__:
        variants = getattr(methods, method).VARIANTS
        names += [f"{method}/{v}" for v in variants] if len(variants) > 1 else [method]
    return sorted(names, key=str.lower)


def _labels(kind: type) -> dict[str, dict[str, Any]]:
    """A method without steps: the partitions of the digits, with its defaults and with other parameters."""
    digits = load("digits", size=16, subset=N)
    found: dict[str, dict[str, Any]] = {"plan": {}, "numbers": {}}
    usual = kind(n_clusters=SMALL["n_clusters"])
    other = clone(usual).set_params(**{k: v for k, v in OTHER.items() if k in usual.get_params()})
    for name, model in (("labels", usual), ("labels with other parameters", other)):
        found["plan"][name] = partition(model.fit(digits).labels_)
        if hasattr(model, "errors_"):
            found["numbers"][f"{name}, errors"] = [rounded(model.errors_[i]) for i in (0, -1)]
    return found


def _represent() -> dict[str, dict[str, Any]]:
    """Layers of a JULE network after one epoch."""
    digits = load("digits", size=32, subset=FEWER)
    model = JULE(**SMALL | OF_JULE | ONE_PERIOD).fit(digits)
    layers = {layer: model.represent(digits, layer) for layer in LAYERS}
    return {
        "plan": {layer: list(values.shape) for layer, values in layers.items()},
        "numbers": {layer: rounded(weighted_norm(values)) for layer, values in layers.items()},
    }


def _codes() -> dict[str, dict[str, Any]]:
    """Table 8's pipeline: whitened patches, the patch CNN, a codebook, pooled codes, the SVM."""
    digits = load("digits", size=16, subset=3 * N)
    train, test = digits.take(range(2 * N)), digits.take(range(2 * N, 3 * N))
    whitening, patches = codes.whitened_patches(train, 200, random_state=SEED)
    images = patches.view(-1, 1, codes.PATCH, codes.PATCH).numpy()
    options = ONE_PERIOD | {"negatives": "random"}
    network, epochs = patch_network.learn_patch_network(
        images, JULE(**SMALL | OF_JULE | options, n_neighbors=10)
    )
    plan, numbers = {}, {"whitened": rounded(weighted_norm(patches))}
    numbers["patch CNN, losses"] = [rounded(row["loss"]) for row in epochs]
    numbers["patch CNN"] = rounded(vector(network.parameters()).norm())
    for name in classify.REPRESENTATIONS:
        represent = None
        if name in patch_network.LAYERS:
            represent = patch_network.layer_representation(network, name, images.shape[1:])
        vectors = represent(patches) if represent else patches
        book = codes.learn_codebook(vectors, 8, random_state=SEED)
        features = codes.encode(train, whitening, book, represent=represent, device="cpu")
        plan[name] = [list(vectors.shape), list(features.shape)]
        numbers[name] = [rounded(weighted_norm(v)) for v in (vectors, book, features)]
    for row in classify.classify(
        train,
        test,
        [N, 2 * N],
        n_codes=8,
        n_patches=200,
        device="cpu",
    ):
        plan[f"whitened, {row['n_train']} labelled"] = {"C": row["C"]}
        right = float(np.mean(row["predicted"] == test.labels))
        numbers[f"whitened, {row['n_train']} labelled"] = rounded(right)
    return {"plan": plan, "numbers": numbers}


def _resnet_features() -> dict[str, dict[str, Any]]:
    """Features of two images from random weights."""
    from torchvision.models import get_model, get_model_weights

    pixels = np.repeat(load("digits", size=16, subset=N).pixels[:2], 3, axis=1)
    torch.manual_seed(0)
    network = get_model("resnet34", weights=None)
    network.fc = torch.nn.Identity()
    preprocess, device = get_model_weights("resnet34")[WEIGHTS].transforms(), torch.device("cpu")
    numbers = {}
    for precision in PRECISIONS:
        found = extract(network, pixels, preprocess, precision=precision, device=device)
        numbers[f"{precision}, features"] = rounded(weighted_norm(found))
    return {"plan": {"shape": list(found.shape), "networks": list(NETWORKS)}, "numbers": numbers}


@contextmanager
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


EXTRACTORS: dict[str, Callable[[], dict[str, dict[str, Any]]]] = {
    "represent": _represent,
    "codes": _codes,
    "resnet_features": _resnet_features,
}
