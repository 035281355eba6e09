"""Today's behaviours: the first steps of what trains, what comes out of all else, small enough to ask each time.

A method is fitted to 60 digits for a few epochs a stage, each stage from untrained networks, as a longer training
amplifies rounding until no two processors agree. The fit is killed after every epoch and goes on from its checkpoint.
Parameters whose defaults would hide that they are dropped are moved away from them.
"""

import tempfile
import warnings
from contextlib import suppress
from functools import partialmethod
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from sklearn.base import clone
from sklearn.cluster import KMeans
from sklearn.mixture import GaussianMixture
from threadpoolctl import threadpool_limits
from torch import nn
from torch.nn.modules.module import register_module_forward_hook

from reprolib import methods
from reprolib.data.load import load
from reprolib.graph.digraph import knn_digraph, one_link_clusters
from reprolib.methods.base import unit_rows
from reprolib.methods.jule import JULE, LAYERS
from reprolib.networks import adversarial
from reprolib.networks.pretrained import NETWORKS, PRECISIONS, WEIGHTS, extract
from reprolib.studies import classify, codes, patch_network
from reprolib.training.trainer import Run, Stage

# digits; for the autoencoders, whose steps cost most; for JULE's merges
N, FEWER, LINKED = 60, 40, 300
SEED = 3
SMALL = {"n_clusters": 5, "random_state": SEED, "device": "cpu"}
# One stage at a time, the others without epochs; 3 epochs see a refresh after every second
EPOCHS = {"pretrain_epochs": 1, "warmup_epochs": 1, "phase1_epochs": 3, "phase2_epochs": 3}
OF_FAMILY = {"batch_size": FEWER // 2, "u_epochs": 2, "mnet_width": 16}
OF_JULE = {"batch_size": 30, "channels": 8, "embedding_dim": 16}
OF_GAN = {"network": "dense", "width": 2, "n_noise": 3, "batch_size": 20, "n_critic": 2, "log_every": 2}
OF_GAN |= {"n_iterations": 6, "growth_interval": 2, "ramp": 3}
OF_ROUNDS = {"network": "narrow", "width": 2, "views": "digits", "pretext_steps": 2, "pretext_batch": 20}
OF_ROUNDS |= {"n_neighbors": 4, "scan_steps": 2, "scan_batch": 20, "label_steps": 2, "label_batch": 20, "t_f": 0.2}
OF_ROUNDS |= {"rounds": 2, "round_steps": 2, "t_s": 0.2}
PERIODS, ONE_PERIOD = {"n_epochs": 2, "unrolling_rate": 0.5}, {"n_epochs": 1, "unrolling_rate": 1.0}
HALF = {"precision": "bfloat16"}
SLOW = 1e-2  # of Adam's rates: its first steps take every weight as far, also where a gradient is but rounding
# deviation of the latent vectors, smaller where a softmax of them would be hard; and of MNet's logits
SPREAD, NEAR, SHARP = 0.5, {"DKM": 0.02}, 5.0
# Factors of parameters whose defaults are those of the functions they are passed to, or too small to show
MERGES = {"bandwidth": 0.25, "local_weight": 5.0, "n_neighbor_clusters": 0.4}
RATES = {"decay": 1e3, "weight_decay": 1e3, "pretrain_rate": 0.1, "mnet_rate": 0.01, "encoder_rate": 0.1}
MOVED = MERGES | RATES | {"alpha": 30.0, "gamma": 1.3, "loss_scale": 1.5, "m": 0.8}
# Of a group of an optimizer, and of a start: other settings are a matter of the package's version
SETTINGS = ("betas", "eps", "momentum", "dampening", "nesterov", "weight_decay", "amsgrad")
ASKED = ("n_clusters", "n_components", "n_init", "init", "random_state", "covariance_type")
# Parameters of methods without steps, so that it shows when one is dropped: of graphs, and of searches
GRAPHS = {"bandwidth": 0.25, "n_neighbors": 8, "n_neighbor_clusters": 2, "local_weight": 0.5}
SEARCHES = {"z": 0.5, "linkage": "ward", "scale_neighbor": 3, "graph_weight": 5.0, "max_iter": 10}
OTHER = GRAPHS | SEARCHES | {"n_init": 1, "n_landmarks": 20, "n_nearest": 3}
BRIEF = SMALL | OF_JULE | ONE_PERIOD | JULE.VARIANTS["nearest"]


Behaviour = dict[str, dict[str, Any]]  # `plan`, exact facts, and `numbers`, known to a tolerance


def compute(name: str) -> Behaviour:
    """Today's behaviour of a name of `known()`: `plan`, exact facts, and `numbers`, known to a tolerance."""
    with torch.random.fork_rng(devices=[]), threadpool_limits(1):
        if name in EXTRACTORS:
            return EXTRACTORS[name]()
        method, _, variant = name.partition("/")
        kind = getattr(methods, method)
        return trace(kind, variant or "paper") if kind.trains else _labels(kind)


def known() -> list[str]:
    """All names that have a behaviour: a method, or method/variant where there are several; extractors."""
    kinds = {name: getattr(methods, name).VARIANTS for name in methods.__all__}
    names = [f"{name}/{v}" if len(variants) > 1 else name for name, variants in kinds.items() for v in variants]
    return sorted([*EXTRACTORS, *names], key=str.lower)


def trace(kind: type, variant: str) -> Behaviour:
    """The behaviour of a trained method: see the module, and `compute`."""
    digits = load("digits", size=16, subset=N)
    small = kind(**kind.VARIANTS[variant])
    usually = small.get_params()
    moved = {k: type(usually[k])(usually[k] * by) for k, by in MOVED.items() if k in usually}
    small.set_params(**SMALL | moved)
    found = _Trace(NEAR.get(kind.__name__, SPREAD))
    if "pretrain_epochs" in usually:
        digits = digits.take(range(FEWER))
        small.set_params(**OF_FAMILY, learning_rate=SLOW * usually["learning_rate"])
        known = [name for name in EPOCHS if name in usually]
        for name in known:
            found.fit(_only(small, name, EPOCHS[name]), digits)
        small.set_params(batch_size=FEWER)
        for name in known:
            found.fit(_only(small, name, 1).set_params(**HALF), digits, "bfloat16, ")
        if small.__sklearn_tags__().input_tags.two_d_array:
            rows = digits.pixels.reshape(FEWER, -1) / np.float32(255)
            found.fit(_only(small, "pretrain_epochs", 1), rows, "of rows, ")
        found.note("pretraining shared by", _shared_by(small, digits))
    elif "n_critic" in usually:
        small.set_params(**OF_GAN, learning_rate=SLOW * usually["learning_rate"])
        found.fit(small, digits)
        found.fit(clone(small).set_params(decay=True, averaging=0.5), digits)
        found.fit(clone(small).set_params(network="convolutional", augmented=True), digits, "of images, ")
        found.fit(clone(small).set_params(**HALF, prior=(0.1, 0.1, 0.1, 0.1, 0.6)), digits, "bfloat16, ")
        found.fit(small, unit_rows(digits), "of rows, ")
    elif "pretext_steps" in usually:
        digits = digits.take(range(FEWER))
        rates = {k: SLOW * value for k, value in usually.items() if k.endswith("_rate")}
        small.set_params(**{k: v for k, v in OF_ROUNDS.items() if k in usually}, **rates)
        found.fit(small, digits)
        found.fit(clone(small).set_params(**HALF), digits, "bfloat16, ")
        found.note("pretext shared by", _shared_by(small, digits))
        if "ensemble" in usually:
            found.fit(clone(small).set_params(ensemble=2, t_c=1), digits, "two members, ")
    else:
        found.fit(small.set_params(**OF_JULE | PERIODS), digits)
        small.set_params(**ONE_PERIOD)
        # enough digits that each parameter of the merges shows
        features = unit_rows(load("digits", size=16, subset=LINKED))
        digraph = knn_digraph(features, small.n_neighbors, small.bandwidth)
        merged = small.link(features, digraph, one_link_clusters(digraph.indices[:, 0]))
        found.note("labels of a link of pixels", partition(merged))
        found.fit(small.set_params(**HALF, batch_size=N), digits, "bfloat16, ")
    return found.told()


def _shared_by(model: Any, digits: Any) -> list[str]:
    """The parameters that decide the first stage; seeds must not share a file."""
    runs = [Run(clone(model).set_params(random_state=s), model.inputs(digits), shared="") for s in (0, 1)]
    first = runs[0].model.stages(runs[0], digits)[0]
    files = {run._shared_file(first) for run in runs}
    return [*sorted(first.shared), f"{len(files)} files of 2 seeds"]


def _only(model: Any, name: str, epochs: int) -> Any:
    none = {k: 0 for k in EPOCHS if k in model.get_params()}
    return clone(model).set_params(**none | {name: epochs})


class _Killed(Exception):
    """After an epoch, before the next."""


class _Trace:
    """What fits tell: lists of values by name, with a prefix for all fits but the usual ones."""

    def __init__(self, spread: float) -> None:
        self.spread = spread  # of the latent vectors
        self.prefix, self.values = "", {}

    def told(self) -> Behaviour:
        """All that was noted, lists of equal values as the value; numbers apart from facts."""
        found = {"plan": {}, "numbers": {}}
        for name, values in self.values.items():
            kind = "numbers" if isinstance(values[0], int | float) else "plan"
            found[kind][name] = values[0] if all(v == values[0] for v in values) else values
        return found

    def note(self, name: str, value: Any) -> None:
        """Keep a value; of a fit with a prefix losses and products alone."""
        if not self.prefix or name.endswith((", loss", ", cross_entropy", ", products")):
            self.values.setdefault(self.prefix + name, []).append(rounded(value))

    def fit(self, model: Any, X: Any, prefix: str = "") -> None:
        """Fit, killed after every epoch; note all that its stages do."""
        self.prefix, start = prefix, partialmethod(_start, self)
        starts = patch.object(KMeans, "fit", start), patch.object(GaussianMixture, "fit", start)
        with tempfile.TemporaryDirectory() as folder, starts[0], starts[1]:
            while True:
                run = Run(model, model.inputs(X), checkpoint=Path(folder) / "checkpoint")
                self.epochs = 0  # of this process
                stages = model.stages(run, X)
                for stage in stages:
                    stage.__class__ = type("Watched", (_Watched, type(stage)), {"trace": self})
                with suppress(_Killed):
                    run.train(stages)
                    break
            with warnings.catch_warnings(action="ignore", category=UserWarning):  # of so few steps they tell nothing
                results = model.finish(run)
            for name, labels in results.items():
                if "sgd" in run.optimizers:  # those of the others are not portable
                    self.note(f"labels {name}", partition(labels))
            self.note("embedding", weighted_norm(model.embedding_))
        self.prefix = ""


class _Watched(Stage):
    """A stage that tells a trace what it does; mixed into the class of every stage."""

    trace: _Trace

    def build(self) -> None:
        run, made = self.run, set(self.run.modules)
        super().build()
        if not self.epochs and "network" not in made:
            _settle(run.modules["network"].encoder, run.inputs, self.trace.spread)
        if "mnet" in run.modules and "mnet" not in made:
            latent = run.over_all(run.modules["network"].encode)
            _settle(run.modules["mnet"].layers, latent, SHARP)

    def begin_epoch(self) -> None:
        if self.trace.epochs:
            raise _Killed
        super().begin_epoch()

    def step(self, batch: torch.Tensor) -> dict[str, Any]:
        run, note, products = self.run, self.trace.note, set()

        def multiplied(module: nn.Module, _: Any, output: torch.Tensor) -> None:
            if isinstance(module, nn.Linear | adversarial.Linear):
                products.add(str(output.dtype).removeprefix("torch."))

        with register_module_forward_hook(multiplied):
            told = super().step(batch)
        for name, value in told.items():
            if name != "outside":  # a share of pairs, of which one may be as far as the radius but for rounding
                note(f"{self.name}, {name}", value)
        for name, module in run.modules.items():
            if grads := [p.grad.double() for p in module.parameters() if p.grad is not None]:
                note(f"{self.name}, gradient of {name}", nn.utils.get_total_norm(grads))
        for name, optimizer in run.optimizers.items():
            note(f"rates of {name}", [float(f"{group['lr']:.9g}") for group in optimizer.param_groups])
            for group in optimizer.param_groups:
                note(f"{name} by {type(optimizer).__name__}", {k: group[k] for k in SETTINGS if k in group})
        if run.model.precision == "bfloat16":
            note(f"{self.name}, products", sorted(products))
        return told

    def end_epoch(self) -> None:
        super().end_epoch()
        self.trace.epochs += 1
        if "centers" in self.run.modules:
            self.trace.note(f"{self.name}, centers", self.run.modules["centers"].values.norm())


def _start(model: Any, trace: _Trace, X: np.ndarray) -> Any:
    """Fit k-means or a mixture to X by no iteration; how it was asked is a fact."""
    known = model.get_params()
    trace.note(type(model).__name__, {name: known[name] for name in ASKED if name in known})
    k = known.get("n_clusters") or known["n_components"]
    share = np.arange(1, k + 1) / k
    model.cluster_centers_ = model.means_ = (2 * X[:k] + X[k : 2 * k]) / 3
    model.labels_ = np.arange(len(X)) % k
    model.covariances_, model.weights_ = X.var(0) * share[:, None], share / share.sum()
    return model


@torch.no_grad()
def _settle(layers: nn.Sequential, inputs: torch.Tensor, spread: float) -> None:
    """Take the running statistics from the inputs; scale the outputs to a deviation.

    Of an untrained network the statistics are those of no data, all latent vectors alike.
    """
    norms = [m for m in layers.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    for norm in norms:
        usual, norm.momentum = norm.momentum, 1.0
    outputs = layers.train()(inputs)
    for norm in norms:
        norm.momentum = usual
    layers[-1].weight.mul_(spread / outputs.std())


def rounded(value: Any) -> Any:
    """A number to 5 digits, whole ones and what is no number as it is."""
    value = value.item() if isinstance(value, torch.Tensor | np.generic) else value
    return float(f"{value:.5g}") if isinstance(value, float) else value


def weighted_norm(values: np.ndarray) -> float:
    """A norm in which the order counts."""
    flat = np.asarray(values, dtype=np.float64).ravel()
    return float(np.sqrt(np.square(flat) @ (2 + np.cos(np.arange(len(flat))))))


def partition(labels: np.ndarray) -> str:
    """Cluster ids in the order in which they come: one character a sample."""
    letters = {}
    return "".join(letters.setdefault(i, chr(ord("a") + len(letters))) for i in labels.tolist())


def _labels(kind: type) -> Behaviour:
    """A method without steps: the partitions of the digits, with its defaults and with other parameters."""
    digits, model, plan = load("digits", size=16, subset=N), kind(n_clusters=SMALL["n_clusters"]), {}
    other = {k: v for k, v in OTHER.items() if k in model.get_params()}
    for name, changed in {"labels": {}, "labels with other parameters": other}.items():
        plan[name] = partition(clone(model).set_params(**changed).fit(digits).labels_)
    return {"plan": plan, "numbers": {}}


def _represent() -> Behaviour:
    """Layers of a JULE network after one epoch."""
    digits = load("digits", size=32, subset=FEWER)
    model, plan, numbers = JULE(**BRIEF).fit(digits), {}, {}
    for layer in LAYERS:
        values = model.represent(digits, layer)
        plan[layer], numbers[layer] = list(values.shape), rounded(weighted_norm(values))
    return {"plan": plan, "numbers": numbers}


def _codes() -> Behaviour:
    """Table 8's pipeline: whitened patches, the patch CNN, a codebook, pooled codes, the SVM."""
    digits = load("digits", size=16, subset=3 * N)
    train, test = digits.take(range(2 * N)), digits.take(range(2 * N, 3 * N))
    whitening, patches = codes.whitened_patches(train, 200, random_state=SEED)
    images = patches.view(-1, 1, codes.PATCH, codes.PATCH).numpy()
    model = JULE(**BRIEF | {"negatives": "random", "n_neighbors": 10})
    network, epochs = patch_network.learn_patch_network(images, model)
    plan, numbers = {}, {"whitened": rounded(weighted_norm(patches))}
    numbers["patch CNN, losses"] = [rounded(row["loss"]) for row in epochs]
    for name in classify.REPRESENTATIONS:
        learned = name in patch_network.LAYERS
        represent = patch_network.layer_representation(network, name, images.shape[1:]) if learned else None
        vectors = represent(patches) if represent else patches
        book = codes.learn_codebook(vectors, 8, random_state=SEED)
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
