"""Today's behaviours, computed: `traces` of what trains; what comes out of methods and features that do not."""

import numpy as np
import torch
from sklearn.base import clone
from threadpoolctl import threadpool_limits

from reprolib import methods
from reprolib.data.load import load
from reprolib.experiments import traces
from reprolib.experiments.traces import SMALL, Behaviour, N, partition, rounded, weighted_norm
from reprolib.methods.jule import JULE, LAYERS
from reprolib.networks.pretrained import NETWORKS, PRECISIONS, WEIGHTS, extract
from reprolib.studies import classify, codes, patch_network

# Parameters of methods without steps, so that it shows when one is dropped: of graphs, and of searches
GRAPHS = {"bandwidth": 0.25, "n_neighbors": 8, "n_neighbor_clusters": 2, "local_weight": 0.5}
SEARCHES = {"z": 0.5, "linkage": "ward", "scale_neighbor": 3, "graph_weight": 5.0, "max_iter": 10}
OTHER = GRAPHS | SEARCHES | {"n_init": 1, "n_landmarks": 20, "n_nearest": 3}
BRIEF = SMALL | traces.OF_JULE | traces.ONE_PERIOD


def compute(name: str) -> Behaviour:
    """Today's behaviour of a name of `known()`: `plan`, exact facts, and `numbers`, known to a tolerance."""
    with torch.random.fork_rng(devices=[]), threadpool_limits(1):
        if name in EXTRACTORS:
            return EXTRACTORS[name]()
        method, _, variant = name.partition("/")
        kind = getattr(methods, method)
        return traces.trace(kind, variant or "paper") if kind.trains else _labels(kind)


def known() -> list[str]:
    """All names that have a behaviour: a method, or method/variant where there are several; extractors."""
    kinds = {name: getattr(methods, name).VARIANTS for name in methods.__all__}
    names = [f"{name}/{v}" if len(variants) > 1 else name for name, variants in kinds.items() for v in variants]
    return sorted([*EXTRACTORS, *names], key=str.lower)


def _labels(kind: type) -> Behaviour:
    """A method without steps: the partitions of the digits, with its defaults and with other parameters."""
    digits, model, plan = load("digits", size=16, subset=N), kind(n_clusters=SMALL["n_clusters"]), {}
    other = {k: v for k, v in OTHER.items() if k in model.get_params()}
    for name, changed in {"labels": {}, "labels with other parameters": other}.items():
        plan[name] = partition(clone(model).set_params(**changed).fit(digits).labels_)
    return {"plan": plan, "numbers": {}}


def _represent() -> Behaviour:
    """Layers of a JULE network after one epoch."""
    digits = load("digits", size=32, subset=traces.FEWER)
    model, plan, numbers = JULE(**BRIEF).fit(digits), {}, {}
    for layer in LAYERS:
        values = model.represent(digits, layer)
        plan[layer], numbers[layer] = list(values.shape), rounded(weighted_norm(values))
    return {"plan": plan, "numbers": numbers}


def _codes() -> Behaviour:
    """Table 8's pipeline: whitened patches, the patch CNN, a codebook, pooled codes, the SVM."""
    digits = load("digits", size=16, subset=3 * N)
    train, test = digits.take(range(2 * N)), digits.take(range(2 * N, 3 * N))
    whitening, patches = codes.whitened_patches(train, 200, random_state=traces.SEED)
    images = patches.view(-1, 1, codes.PATCH, codes.PATCH).numpy()
    model = JULE(**BRIEF, negatives="random", n_neighbors=10)
    network, epochs = patch_network.learn_patch_network(images, model)
    plan, numbers = {}, {"whitened": rounded(weighted_norm(patches))}
    numbers["patch CNN, losses"] = [rounded(row["loss"]) for row in epochs]
    for name in classify.REPRESENTATIONS:
        learned = name in patch_network.LAYERS
        represent = patch_network.layer_representation(network, name, images.shape[1:]) if learned else None
        vectors = represent(patches) if represent else patches
        book = codes.learn_codebook(vectors, 8, random_state=traces.SEED)
        features = codes.encode(train, whitening, book, represent=represent, device="cpu")
        plan[name] = [list(vectors.shape), list(features.shape)]
        numbers[name] = [rounded(weighted_norm(v)) for v in (vectors, book, features)]
    for row in classify.classify(train, test, [N, 2 * N], n_codes=8, n_patches=200, device="cpu"):
        name = f"whitened, {row['n_train']} labelled"
        plan[name], numbers[name] = {"C": row["C"]}, rounded(np.mean(row["predicted"] == test.labels))
    return {"plan": plan, "numbers": numbers}


def _resnet_features() -> Behaviour:
    """Features of two images from random weights."""
    from torchvision.models import get_model, get_model_weights

    pixels = np.repeat(load("digits", size=16, subset=N).pixels[:2], 3, axis=1)
    torch.manual_seed(0)
    network = get_model("resnet34", weights=None)
    network.fc = torch.nn.Identity()
    preprocess, numbers = get_model_weights("resnet34")[WEIGHTS].transforms(), {}
    for precision in PRECISIONS:
        found = extract(network, pixels, preprocess, precision=precision, device=torch.device("cpu"))
        numbers[f"{precision}, features"] = rounded(weighted_norm(found))
    return {"plan": {"shape": list(found.shape), "networks": list(NETWORKS)}, "numbers": numbers}


EXTRACTORS = {"represent": _represent, "codes": _codes, "resnet_features": _resnet_features}
