"""ClustPy's autoencoder methods beside ours: from the same starts as estimators, and their training step.

`ClustPyDEC` and its kin pretrain as our methods do and begin with the same k-means centers; then ClustPy's own `fit`
takes as many epochs with the same batches, learning rate and precision: what differs is its step. VaDE is left out:
ClustPy's wants a decoder with outputs in [0, 1].

`step` is the loop of that `fit` over one batch in memory, without its data loader. Batch normalisation is in training
mode for both; ClustPy would leave it in evaluation mode, as its pretraining does.
"""

import contextlib
import io
from collections.abc import Callable, Iterable, Iterator, Sequence
from copy import deepcopy
from functools import partial
from types import ModuleType
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from reprolib.methods.autoencoder import AutoencoderMethod, FromStart, reconstruct
from reprolib.methods.dec import DCN, DEC, DKM, IDEC, pixel_error
from reprolib.training.trainer import Run, Stage, as_numpy

# what ClustPy has: weights of its clustering loss and of the reconstruction
WEIGHTS = {
    "AE pretraining": (),  # no more than the reconstruction
    "DEC": (1.0, 0.0),
    "IDEC": (0.1, 1.0),
    "DCN": (0.05, 1.0),
    "DKM": (1.0, 1.0),
}


class Theirs(FromStart):
    """ClustPy's `fit` in place of the own stage of a method: all epochs are one step."""

    def __init__(self, run: Run, passes: int) -> None:
        super().__init__(run, min(passes, 1))
        self.passes = passes

    def row(self) -> dict[str, Any]:
        return super().row() | {"passes": self.passes, "clustpy": required().__version__}

    def begin_epoch(self) -> None:
        """ClustPy's targets are those of a batch."""

    def batches(self) -> Iterator[None]:
        required()
        yield None

    def step(self, batch: None) -> dict[str, torch.Tensor]:
        run, name = self.run, type(self.model).__name__.removeprefix("ClustPy")
        network, module = module_of(name, self)
        # as ours: products of a network in the run's precision, what it returns and all losses in float32
        encode, decode = map(run.autocast(), (network.encode, network.decode))
        network.encode = lambda inputs: encode(inputs).float()
        network.decode = lambda latent: decode(latent).float()
        fit(name, network, module, _Batches(self), self.passes, _adam(self, network, module))
        run.modules["network"].load_state_dict(network.network.state_dict())
        with torch.no_grad():
            self.centers.copy_(module.centers)
            decoded = run.over_all(lambda inputs: reconstruct(run, inputs)[1])
            return {"loss": F.mse_loss(decoded, run.inputs.to(run.device))}


class _Batches:
    """Shuffled batches as ClustPy reads them, anew each epoch: [indices (b,), inputs (b, ...)]."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage

    def __iter__(self) -> Iterator[list[torch.Tensor]]:
        return ([batch, self.stage.run.inputs[batch]] for batch in Stage.batches(self.stage))


def _theirs(method: type[AutoencoderMethod]) -> type[AutoencoderMethod]:
    """The estimator of a method as ClustPy trains it; it behaves as ours up to the k-means centers."""
    name = f"ClustPy{method.__name__}"
    stage = type("Theirs", (Theirs, method.STAGE), {})
    about = f"{method.__name__} as ClustPy trains it, from the start of ours. ImportError without ClustPy."
    kept = {"STAGE": stage, "behaviours": (method.__name__,), "__doc__": about, "__module__": __name__}
    return type(name, (method,), kept)


ClustPyDEC, ClustPyIDEC, ClustPyDCN, ClustPyDKM = map(_theirs, (DEC, IDEC, DCN, DKM))


def required() -> ModuleType:
    """ClustPy. Raises ImportError, saying what to do, where it is not installed."""
    try:
        import clustpy.deep
    except ImportError as error:
        raise ImportError(f"{error}: pip install clustpy==0.0.3, which the book does not need") from None
    return clustpy


def version() -> str | None:
    """The version of ClustPy that can be imported, or None after a line that says why there is none."""
    try:
        return required().__version__
    except ImportError as error:
        print(f"clustpy is left out: {error}")
        return None


def network_of(network: nn.Module) -> nn.Module:
    """A copy of an autoencoder (`encode`, `decode`) as one of ClustPy's, which adds losses and `fit`."""
    from clustpy.deep.neural_networks._abstract_autoencoder import _AbstractAutoencoder

    wrapped = _AbstractAutoencoder()
    wrapped.network = deepcopy(network)
    wrapped.encode, wrapped.decode = wrapped.network.encode, wrapped.network.decode
    return wrapped.train()


def module_of(name: str, stage: Stage) -> tuple[nn.Module, nn.Module]:
    """ClustPy's network and clustering module of a method, copies of what a run of ours starts with."""
    from clustpy.deep import dcn, dec, dkm

    run = stage.run
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
    loaders = [loader] * (2 if name == "DCN" else 1)  # it reads one of two
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
