"""Today's behaviours, computed: what the first steps of every method do, small enough to ask each time.

A trained method is fitted to 60 digits for a few epochs a stage, each stage from untrained networks, as a
longer training amplifies rounding until no two processors agree. K-means and mixtures are replaced by a
portable start. The fit is killed after every epoch and goes on from its checkpoint. Parameters whose
defaults would hide that they are dropped are moved away from them.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from sklearn.base import clone
from sklearn.cluster import KMeans
from sklearn.mixture import GaussianMixture
from torch import nn

from reprolib.data.load import load
from reprolib.graph.digraph import knn_digraph, one_link_clusters
from reprolib.methods.base import unit_rows
from reprolib.training.trainer import Run, Stage

# digits; for the autoencoders, whose steps cost most; for JULE's merges
N, FEWER, LINKED = 60, 40, 300
SEED = 3
# of a group of an optimizer: other settings are a matter of PyTorch's version
SETTINGS = ("lr", "betas", "eps", "momentum", "dampening", "nesterov", "weight_decay", "amsgrad")
SMALL = {"n_clusters": 5, "random_state": SEED, "device": "cpu"}
# One stage at a time, the others without epochs; 3 epochs see a refresh after every second
EPOCHS = {"pretrain_epochs": 1, "phase1_epochs": 3, "phase2_epochs": 3}
OF_FAMILY = {"batch_size": FEWER // 2, "u_epochs": 2, "mnet_width": 16}
OF_JULE = {"batch_size": 30, "n_epochs": 2, "unrolling_rate": 0.5} | {
    "channels": 8,
    "embedding_dim": 16,
}
ONE_PERIOD = {"n_epochs": 1, "unrolling_rate": 1.0}
HALF = {"precision": "bfloat16"}
# of Adam's rates: its first steps take every weight as far, also where a gradient is but rounding
SLOW = 1e-2
FAST = 1e1  # so that one pass of a batch shows in the next
# deviation of the latent vectors, smaller where a softmax of them would be hard; and of MNet's logits
SPREAD, NEAR, SHARP = 0.5, {"DKM": 0.02}, 5.0
# factors of parameters whose defaults are those of the functions they are passed to, or too small to show
MOVED = {
    "alpha": 30.0,
    "bandwidth": 0.25,
    "decay": 1e3,
    "gamma": 1.3,
    "local_weight": 5.0,
    "loss_scale": 1.5,
    "m": 0.8,
    "mnet_rate": 1e-2,
    "encoder_rate": 1e-1,
    "n_neighbor_clusters": 0.4,
    "pretrain_rate": 1e-1,
    "weight_decay": 1e3,
}


def trace(kind: type, variant: str) -> dict[str, dict[str, Any]]:
    """`plan` and `numbers` of a trained method: see the module, and `outputs.compute`."""
    digits = load("digits", size=16, subset=N)
    usual = kind(**kind.VARIANTS[variant])
    usually = usual.get_params()
    moved = {k: type(usually[k])(usually[k] * by) for k, by in MOVED.items() if k in usually}
    small = clone(usual).set_params(**SMALL | moved)
    found = _Trace(NEAR.get(kind.__name__, SPREAD))
    found.plan |= _stages(usual, digits)
    if hasattr(small, "pretrain_epochs"):
        digits = digits.take(range(FEWER))
        small.set_params(**OF_FAMILY, learning_rate=SLOW * usual.learning_rate)
        for name, epochs in EPOCHS.items():
            found.fit(_only(small, name, epochs), digits)
        small.set_params(batch_size=FEWER)
        if hasattr(small, "passes"):
            fast = clone(small).set_params(learning_rate=FAST * usual.learning_rate)
            found.fit(_only(fast, "phase1_epochs", 1), digits, "fast, ")
        for name in EPOCHS:
            found.fit(_only(small, name, 1).set_params(**HALF), digits, "bfloat16, ")
        rows = digits.pixels.reshape(FEWER, -1) / np.float32(255)
        found.fit(_only(small, "pretrain_epochs", 1), rows, "of rows, ")
        found.plan["pretraining shared by"] = _shared_by(_only(small, "pretrain_epochs", 0), digits)
    else:
        small.set_params(**OF_JULE)
        found.fit(small, digits)
        found.plan["labels of a link of pixels"] = _link(clone(small).set_params(**ONE_PERIOD))
        found.fit(small.set_params(**ONE_PERIOD, **HALF, batch_size=N), digits, "bfloat16, ")
    return found.told()


def _only(model: Any, name: str, epochs: int) -> Any:
    return clone(model).set_params(**dict.fromkeys(EPOCHS, 0) | {name: epochs})


class _Killed(Exception):
    """After an epoch, before the next."""


class _Trace:
    """What fits tell: `numbers`, lists by stage and name, and `plan`."""

    def __init__(self, spread: float) -> None:
        self.spread = spread  # of the latent vectors
        self.numbers: dict[str, list[Any]] = {}
        self.plan: dict[str, Any] = {}
        self.prefix, self.stepping = "", ""

    @property
    def exact(self) -> bool:
        """Whether labels are portable."""
        return not self.prefix.startswith("bfloat16")

    def told(self) -> dict[str, dict[str, Any]]:
        """All that was noted, lists of equal values as the value."""
        return {
            kind: {k: v[0] if isinstance(v, list) and _all_equal(v) else v for k, v in all_.items()}
            for kind, all_ in (("plan", self.plan), ("numbers", self.numbers))
        }

    def note(self, name: str, value: Any) -> None:
        if self.prefix and not name.endswith(", loss"):
            return
        self.numbers.setdefault(self.prefix + name, []).append(rounded(value))

    def fact(self, name: str, value: Any) -> None:
        values = self.plan.setdefault(self.prefix + name, [])
        if value not in values[-1:]:
            values.append(value)

    def fit(self, model: Any, X: Any, prefix: str = "") -> None:
        """Fit, killed after every epoch; note all that its stages do."""
        self.prefix = prefix
        with tempfile.TemporaryDirectory() as folder, _portable_starts(self):
            while True:
                run = Run(model, model.inputs(X), checkpoint=Path(folder) / "checkpoint")
                self.epochs = 0  # of this process
                stages = model.stages(run, X)
                for stage in stages:
                    self._watch(stage)
                try:
                    run.train(stages)
                except _Killed:
                    continue
                break
            for name, labels in model.finish(run).items():
                if self.exact and "sgd" in run.optimizers:
                    self.fact(f"labels {name}", partition(labels))
            self.note("embedding", weighted_norm(model.embedding_))

    def _watch(self, stage: Stage) -> None:
        """Wrap what a stage does."""
        run, build, begin, end = stage.run, stage.build, stage.begin, stage.end
        begin_epoch, step, end_epoch = stage.begin_epoch, stage.step, stage.end_epoch

        def watched_build() -> None:
            made = set(run.modules)
            build()
            if not stage.epochs and "network" not in made:
                _settle(run.modules["network"].encoder, run.inputs, self.spread)
            if "mnet" in run.modules and "mnet" not in made:
                latent = run.over_all(run.modules["network"].encode)
                _settle(run.modules["mnet"].layers, latent, SHARP)
            if not self.exact:
                for name in sorted(set(run.modules) - made - {"centers", "mixture"}):
                    self._watch_precision(name, run.modules[name])

        def watched_begin() -> None:
            begin()
            for name, value in run.numbers.items():
                self.note(f"{stage.name}, {name} at first", value)

        def watched_begin_epoch() -> None:
            if self.epochs:
                raise _Killed
            begin_epoch()

        def watched_step(batch: torch.Tensor) -> dict[str, Any]:
            before = {name: _weights(module).clone() for name, module in run.modules.items()}
            self.stepping = stage.name
            told = step(batch)
            self.stepping = ""
            for name, value in told.items():
                self.note(f"{stage.name}, {name}", value)
            for name, module in run.modules.items():
                if grads := [p.grad for p in module.parameters() if p.grad is not None]:
                    self.note(f"{stage.name}, gradient of {name}", vector(grads).norm())
                move = _weights(module) - before[name]
                self.note(f"{stage.name}, move of {name}", move.norm())
            for name, optimizer in run.optimizers.items():
                rates = [float(f"{group['lr']:.9g}") for group in optimizer.param_groups]
                self.fact(f"rates of {name}", rates)
            return told

        def watched_end_epoch() -> None:
            end_epoch()
            self.epochs += 1
            if "centers" in run.modules:
                self.note(f"{stage.name}, centers", run.modules["centers"].values.norm())
            if "counts" in run.tensors:
                self.note(f"{stage.name}, counts", run.tensors["counts"].norm())

        def watched_end() -> None:
            end()
            if self.exact and "labels" in run.tensors:
                self.fact(f"labels after {stage.name}", partition(run.tensors["labels"].numpy()))

        stage.build, stage.begin, stage.end = watched_build, watched_begin, watched_end
        stage.begin_epoch, stage.step, stage.end_epoch = (
            watched_begin_epoch,
            watched_step,
            watched_end_epoch,
        )

    def _watch_precision(self, name: str, network: nn.Module) -> None:
        """Tell whether a network's first linear layer multiplies in bfloat16 inside a step."""

        def before(*_: Any) -> None:
            if self.stepping:
                half = torch.is_autocast_enabled("cpu")
                self.fact(f"{self.stepping}, products of {name} in bfloat16", half)

        linear = next(m for m in network.modules() if isinstance(m, nn.Linear))
        linear.register_forward_pre_hook(before)


@contextmanager
def _portable_starts(trace: _Trace) -> Iterator[None]:
    """K-means and mixtures by no iteration; how they were asked is a fact."""

    def asked(model: Any) -> None:
        names = ("n_clusters", "n_components", "n_init", "init", "random_state", "covariance_type")
        known = model.get_params()
        trace.fact(type(model).__name__, {k: known[k] for k in names if k in known})

    def means(model: KMeans, X: np.ndarray) -> KMeans:
        asked(model)
        k = model.n_clusters
        model.cluster_centers_ = (2 * X[:k] + X[k : 2 * k]) / 3
        model.labels_ = np.arange(len(X)) % k
        return model

    def mixture(model: GaussianMixture, X: np.ndarray) -> GaussianMixture:
        asked(model)
        k = model.n_components
        model.means_ = (2 * X[:k] + X[k : 2 * k]) / 3
        model.covariances_ = X.var(0) * (np.arange(1, k + 1) / k)[:, None]
        model.weights_ = np.arange(1, k + 1) / (k * (k + 1) / 2)
        return model

    with patch.object(KMeans, "fit", means), patch.object(GaussianMixture, "fit", mixture):
        yield


@torch.no_grad()
def _settle(layers: nn.Sequential, inputs: torch.Tensor, spread: float) -> None:
    """Take the running statistics from the inputs; scale the outputs to a deviation.

    Of an untrained network the statistics are those of no data, all latent vectors alike.
    """
    norms = [m for m in layers.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    usual = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 1.0
    outputs = layers.train()(inputs)
    for norm, momentum in zip(norms, usual, strict=True):
        norm.momentum = momentum
    layers[-1].weight.mul_(spread / outputs.std())


def _all_equal(values: list[Any]) -> bool:
    return all(value == values[0] for value in values)


def vector(tensors: Any) -> torch.Tensor:
    return torch.cat([t.detach().double().flatten() for t in tensors])


def _weights(module: nn.Module) -> torch.Tensor:
    """All but biases and scales: of those before a normalisation the gradient is rounding alone."""
    return vector([p for p in module.parameters() if p.ndim > 1] or module.parameters())


def rounded(value: Any) -> int | float:
    value = value.item() if isinstance(value, torch.Tensor | np.generic) else value
    return value if isinstance(value, int) else float(f"{value:.5g}")


def weighted_norm(values: np.ndarray) -> float:
    """A norm in which the order counts."""
    flat = np.asarray(values, dtype=np.float64).ravel()
    return float(np.sqrt(np.square(flat) @ (2 + np.cos(np.arange(len(flat))))))


def partition(labels: np.ndarray) -> str:
    """Cluster ids in the order in which they come: one character a sample."""
    _, first, ids = np.unique(labels, return_index=True, return_inverse=True)
    rank = np.argsort(np.argsort(first))
    return "".join(chr(ord("a") + rank[i]) for i in ids)


def _stages(model: Any, X: Any) -> dict[str, Any]:
    """The stages of a full fit, and what each trains with which settings."""
    found = {}
    run = Run(model, model.inputs(X))
    for stage in model.stages(run, X):
        stage.build()
        found[f"in full, {stage.name}"] = {
            "epochs": stage.epochs,
            "batches": [len(batch) for batch in stage.batches()],
        } | {name: _settings(run, o) for name, o in run.optimizers.items()}
    return found


def _link(model: Any) -> str:
    """JULE's merges, on enough digits that each of their parameters shows."""
    features = unit_rows(load("digits", size=16, subset=LINKED))
    digraph = knn_digraph(features, model.n_neighbors, model.bandwidth)
    return partition(model.link(features, digraph, one_link_clusters(digraph.indices[:, 0])))


def _settings(run: Run, optimizer: torch.optim.Optimizer) -> list[Any]:
    owner = {
        id(p): f"{name}.{key.split('.')[0]}"
        for name, module in run.modules.items()
        for key, p in module.named_parameters()
    }
    groups = [
        {k: list(v) if isinstance(v := group[k], tuple) else v for k in SETTINGS if k in group}
        | {"of": sorted({owner[id(p)] for p in group["params"]})}
        for group in optimizer.param_groups
    ]
    return [type(optimizer).__name__, *groups]


def _shared_by(model: Any, X: Any) -> list[str]:
    """The parameters that a shared pretraining's file is known by; seeds must not share one."""
    with tempfile.TemporaryDirectory() as folder:
        for seed in (0, 1):
            run = Run(clone(model).set_params(random_state=seed), model.inputs(X), shared=folder)
            stages = run.model.stages(run, X)
            run.train(stages[:1])
        n_files = len(list(Path(folder).iterdir()))
    return sorted(stages[0].shared) + [f"{n_files} files of 2 seeds"]
