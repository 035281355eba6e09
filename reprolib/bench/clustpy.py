"""ClustPy's autoencoder methods beside ours: their training step, and their accuracy from the same starts.

ClustPy's step is the loop of its own `fit`, over one batch. The comparison leans to its side: its data
loader, which collates sample by sample, is replaced by the batch in memory, where ours gathers by index.
It leans to ours by what `fit` does once a call, a progress bar and seeds, below a millisecond. Batch
normalisation is in training mode for both; ClustPy would leave the network as its pretraining does, in
evaluation mode.

For the accuracy each method of ClustPy begins with the pretrained autoencoder and the k-means centers that a
record of ours began with, and takes as many epochs with the same batch size, learning rate and precision. What
differs is ClustPy's step and the order of the images. VaDE is left out: ClustPy's wants a decoder with outputs
in [0, 1].
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Iterable, Iterator, Sequence
from copy import deepcopy
from functools import partial
from itertools import product
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import nn
from torch.nn import functional as F
from tqdm import tqdm

from reprolib import metrics
from reprolib.experiments import records
from reprolib.experiments import run as experiment
from reprolib.methods.dec import pixel_error
from reprolib.report.tables import Table, spread
from reprolib.training.trainer import ROWS, Run, Stage, as_numpy

METHODS = ("DEC", "IDEC", "DCN", "DKM")
SEEDS = 3
RESULT = "u"  # a method's own training, without MNet

# what ClustPy has: weights of its clustering loss and of the reconstruction
WEIGHTS = {
    "AE pretraining": (),  # no more than the reconstruction
    "DEC": (1.0, 0.0),
    "IDEC": (0.1, 1.0),
    "DCN": (0.05, 1.0),
    "DKM": (1.0, 1.0),
    "VaDE": (1.0, 1.0),
}


def measure(
    dataset: str = "usps", profile: str = "cpu", *, n_seeds: int = SEEDS
) -> dict[str, Any] | None:
    """ACC of ClustPy's methods on a data set, printed as a table; None, after a line, without ClustPy.

    Returns {"clustpy": its version, "dataset", "profile", "acc": {method: [ACC of each seed]}}.
    """
    installed = version()
    if installed is None:
        return None
    scores: dict[str, list[float]] = {name: [] for name in METHODS}
    for name, seed in tqdm(list(product(METHODS, range(n_seeds))), unit="run"):
        scores[name].append(_accuracy(name, dataset, profile, seed))
    found = {"clustpy": installed, "dataset": dataset, "profile": profile, "acc": scores}
    print(f"\n{table(found)}")
    return found


def table(found: dict[str, Any]) -> Table:
    """What `measure` found, beside the records of the same methods on the same data set."""
    rows = []
    place = {key: found[key] for key in ("dataset", "profile")}
    for name, theirs in found["acc"].items():
        entries = records.load_records("dcss", method=name, tag="main", **place)
        ours = [entry["metrics"][RESULT]["acc"] for entry in entries]
        both = (pd.Series(scores, dtype=float) for scores in (ours, theirs))
        rows.append([name, *(spread(scores.mean(), scores.std()) for scores in both)])
    head = ["ACC", "here", f"ClustPy {found['clustpy']}"]
    return Table(head, rows, f"{found['dataset']}, profile {found['profile']}")


def _accuracy(name: str, dataset: str, profile: str, seed: int) -> float:
    given = {"dataset": dataset, "profile": profile, "method": name, "random_state": seed}
    plan = experiment.plan("dcss", given)
    model, images = plan.estimator(), plan.images()
    run = Run(model, model.inputs(plan.inputs(images)), shared=plan.shared)
    first, own, *_ = model.stages(run)
    run.train([first])  # or its file
    own.build()
    own.begin()  # k-means
    network, module = module_of(name, own)
    network.encode = _in_precision(run, network.encode)
    network.decode = _in_precision(run, network.decode)
    fit(name, network, module, _Batches(own), model.phase1_epochs, _adam(own, network, module))
    return metrics.accuracy(images.labels, _labels(network, module, run.inputs))


def _in_precision(
    run: Run, part: Callable[[torch.Tensor], torch.Tensor]
) -> Callable[[torch.Tensor], torch.Tensor]:
    """As ours: products of a network in the run's precision, what it returns and all losses in float32."""

    def cast(inputs: torch.Tensor) -> torch.Tensor:
        with run.autocast():
            return part(inputs).float()

    return cast


class _Batches:
    """Shuffled batches as ClustPy reads them, anew each epoch: [indices (b,), inputs (b, ...)]."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage

    def __iter__(self) -> Iterator[list[torch.Tensor]]:
        return ([batch, self.stage.run.inputs[batch]] for batch in self.stage.batches())


@torch.no_grad()
def _labels(network: nn.Module, module: nn.Module, inputs: torch.Tensor) -> np.ndarray:
    network.eval()
    latent = torch.cat([network.encode(part) for part in inputs.split(ROWS)])
    if not latent.isfinite().all():
        raise FloatingPointError("ClustPy's latent vectors are no numbers: lower the learning rate")
    return module.predict_hard(latent).numpy()


def version() -> str | None:
    """The version of ClustPy that can be imported, or None after a line that says why there is none."""
    try:
        import clustpy.deep
    except ImportError as error:
        print(f"clustpy is left out: {error}")
        return None
    return clustpy.__version__


def network_of(network: nn.Module) -> nn.Module:
    """A copy of an autoencoder (`encode`, `decode`) as one of ClustPy's, which adds losses and `fit`."""
    from clustpy.deep.neural_networks._abstract_autoencoder import _AbstractAutoencoder

    wrapped = _AbstractAutoencoder()
    wrapped.network = deepcopy(network)
    wrapped.encode, wrapped.decode = wrapped.network.encode, wrapped.network.decode
    return wrapped.train()


def vae_of(stage: Stage) -> nn.Module:
    """A copy of the networks of a VaDE run as ClustPy's variational autoencoder; it draws the samples."""
    from clustpy.deep.neural_networks.variational_autoencoder import VariationalAutoencoder

    class Variational(nn.Module):
        forward = VariationalAutoencoder.forward

        def __init__(self) -> None:
            super().__init__()
            self.network = deepcopy(stage.run.modules["network"])
            self.log_variance = deepcopy(stage.run.modules["log_variance"])
            self.decode = self.network.decode

        def encode(self, inputs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            features = self.network.encoder[:-1](inputs)
            return self.network.encoder[-1](features), self.log_variance(features)

    return Variational().train()


def module_of(name: str, stage: Stage) -> tuple[nn.Module, nn.Module]:
    """ClustPy's network and clustering module of a method, copies of what a run of ours starts with."""
    from clustpy.deep import dcn, dec, dkm, vade

    run = stage.run
    if name == "VaDE":
        ours = run.modules["mixture"]
        mixture = ours.log_weights.exp(), stage.centers, ours.log_variances.exp()
        return vae_of(stage), vade._VaDE_Module(*stage.centers.shape, *map(as_numpy, mixture))
    network = network_of(run.modules["network"])
    if name == "AE pretraining":
        return network, nn.Module()
    centers = as_numpy(stage.centers)
    makes = {
        "DEC": lambda: dec._DEC_Module(centers, 1.0),
        "IDEC": lambda: dec._DEC_Module(centers, 1.0),
        "DCN": lambda: dcn._DCN_Module(as_numpy(run.tensors["assigned"].int()), centers),
        "DKM": lambda: dkm._DKM_Module(centers, [stage.inverse_temperature]),
    }
    return network, makes[name]()


def fit(
    name: str,
    network: nn.Module,
    module: nn.Module,
    loader: Iterable[Sequence[torch.Tensor]],
    epochs: int,
    optimizer: torch.optim.Optimizer,
) -> None:
    """ClustPy's `fit` of a method over batches of (indices, inputs), without its progress bar."""
    loaders = [loader] * (2 if name in ("DCN", "VaDE") else 1)  # these read one of two
    # the weights of both are for a sum over pixels; ClustPy's own error is that sum
    error = pixel_error if name in ("DCN", "DKM") else F.mse_loss
    with contextlib.redirect_stderr(io.StringIO()):
        if WEIGHTS[name]:
            options = epochs, torch.device("cpu"), optimizer, error, *WEIGHTS[name]
            module.fit(network, *loaders, *options)
        else:  # one optimizer for all calls, so that none but the first allocates
            given = {"optimizer_class": lambda params: optimizer, "ssl_loss_fn": error}
            network.fit(epochs, {}, dataloader=loader, **given)


def step(name: str, stage: Stage, batch: torch.Tensor) -> Callable[[], None]:
    """ClustPy's step of a method on samples `batch` (b,), from copies of what a run of ours starts with."""
    network, module = module_of(name, stage)
    loader = [[batch, stage.run.inputs[batch]]]
    return partial(fit, name, network, module, loader, 1, _adam(stage, network, module))


def _adam(stage: Stage, *parts: nn.Module) -> torch.optim.Optimizer:
    parameters = [parameter for part in parts for parameter in part.parameters()]
    return torch.optim.Adam(parameters, lr=stage.model.learning_rate)
