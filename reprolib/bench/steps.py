"""Time of one training step of each autoencoder method, beside ClustPy's: part of `bench`.

Both take the step on copies of one network and on one batch, in turn and in one process, so that noise
hits both. The floor of a step is the FLOPs of its products and convolutions over the rate of the matrix
product.

ClustPy's step is the loop of its own `fit`, over one batch. The comparison leans to its side: its data
loader, which collates sample by sample, is replaced by the batch in memory, where ours gathers by index.
It leans to ours by what `fit` does once a call, a progress bar and seeds, below a millisecond. Batch
normalisation is in training mode for both; ClustPy would leave the network as its pretraining does, in
evaluation mode.
"""

from __future__ import annotations

import contextlib
import io
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from copy import deepcopy
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from reprolib.methods.autoencoder import PRETRAIN, AutoencoderRun
from reprolib.methods.dcss import DCSS
from reprolib.methods.dec import DCN, DEC, DKM, IDEC, AEKMeans, pixel_error
from reprolib.methods.mnet_stage import PHASE_1, PHASE_2
from reprolib.methods.vade import VaDE
from reprolib.report.tables import Table

PRECISIONS = ("float32", "bfloat16")
SIDES = (16, 28)  # pixels: USPS, MNIST
BATCH = 256
BATCHES = 4  # in the data set
WIDTH = 576  # of the product for the floor: what a 3x3 convolution of 64 channels sums over

# name: method, the stage of its step, parameters
MEMBERS: dict[str, tuple[type, str, dict[str, Any]]] = {
    "AE pretraining": (AEKMeans, PRETRAIN, {}),
    "DEC": (DEC, PHASE_1, {}),
    "IDEC": (IDEC, PHASE_1, {}),
    "DCN": (DCN, PHASE_1, {}),
    "DKM": (DKM, PHASE_1, {}),
    "VaDE": (VaDE, PHASE_1, {}),
    "DCSS phase 1, joint": (DCSS, PHASE_1, {"variant": "joint"}),
    "DCSS phase 1, successive": (DCSS, PHASE_1, {}),
    "MNet, phase 2": (DCSS, PHASE_2, {}),
}

# what ClustPy has: weights of its clustering loss and of the reconstruction
WEIGHTS = {
    "AE pretraining": (),  # no more than the reconstruction
    "DEC": (1.0, 0.0),
    "IDEC": (0.1, 1.0),
    "DCN": (0.05, 1.0),
    "DKM": (1.0, 1.0),
    "VaDE": (1.0, 1.0),
}

Step = Callable[[], object]

QUICK = {"sides": SIDES[:1], "size": 16, "repeats": 1}
OF_FLOOR = "share of floor"
HEAD = ("", "float32, ms", OF_FLOOR, "bfloat16, ms", OF_FLOOR, "ClustPy, ms", "times ours")


def measure(
    rates: Mapping[str, float],
    *,
    sides: tuple[int, ...] = SIDES,
    size: int = BATCH,
    repeats: int = 10,
) -> dict[str, Any]:
    """Seconds of a step of every member on a batch of `size` random images, for each of `sides` pixels.

    `rates`: FLOP/s of the matrix product by precision. Returns {"clustpy": its version or None,
    "batch": size, "rates": rates, "steps": {"16x16": {name: {"float32": s, "bfloat16": s,
    "clustpy": s or None, "flops": of our step}}}}; a time is the smallest of `repeats`. On the CPU.
    """
    version = clustpy_version()
    found = {"clustpy": version, "batch": size, "rates": dict(rates), "steps": {}}
    for side in sides:
        pixels = (BATCHES * size, side, side)
        images = np.random.default_rng(0).integers(0, 256, pixels, dtype=np.uint8)
        rows = found["steps"][f"{side}x{side}"] = {}
        for name in MEMBERS:
            rows[name] = _measured(name, images, size, repeats, version is not None)
        print(f"\n{table(found, f'{side}x{side}')}", flush=True)
    return found


def table(found: Mapping[str, Any], shape: str) -> Table:
    """What `measure` found for one shape: milliseconds, shares of the floor, ClustPy over ours in float32."""
    rows = []
    for name, row in found["steps"][shape].items():
        cells = [name]
        for precision in PRECISIONS:
            share = row["flops"] / found["rates"][precision] / row[precision]
            cells += [f"{1e3 * row[precision]:.1f}", f"{share:.2f}"]
        if (theirs := row["clustpy"]) is None:
            rows.append([*cells, "", ""])
        else:
            rows.append([*cells, f"{1e3 * theirs:.1f}", f"{theirs / row['float32']:.2f}"])
    return Table(HEAD, rows, f"One step on {found['batch']} images of {shape} pixels")


def _measured(
    name: str, images: np.ndarray, size: int, repeats: int, beside: bool
) -> dict[str, Any]:
    """The row of one member; `beside`: ClustPy too, where it has the method."""
    batch = torch.arange(size)
    runs = {precision: start(name, images, size, precision) for precision in PRECISIONS}
    works = {precision: our_step(name, run, batch) for precision, run in runs.items()}
    if beside and name in WEIGHTS:
        works["clustpy"] = clustpy_step(name, runs["float32"], batch)
    flops = count_flops(works["float32"])
    seconds = dict.fromkeys(works, float("inf"))
    for repeat in range(repeats + 1):
        turn = 1 if repeat % 2 else -1  # who comes after whom matters a little to caches
        for which, work in list(works.items())[::turn]:
            began = time.perf_counter()
            work()
            if repeat:  # the first one allocates
                seconds[which] = min(seconds[which], time.perf_counter() - began)
    return {"clustpy": None, **seconds, "flops": flops}


def start(name: str, images: np.ndarray, size: int, precision: str) -> AutoencoderRun:
    """A run of a member on images (n, h, w) at the start of its stage, in training mode."""
    method, wanted, parameters = MEMBERS[name]
    model = method(batch_size=size, precision=precision, device="cpu", **parameters)
    run = method._run(model, images, None, None, None)
    for stage, _ in run.stages:
        run.make_optimizers(stage)
        if stage != PRETRAIN:
            run.begin(stage)
            run.begin_epoch(stage)
        if stage == wanted:
            break
    for module in run.modules.values():
        module.train()
    return run


def our_step(name: str, run: AutoencoderRun, batch: torch.Tensor) -> Step:
    """The step of a member on samples `batch` (b,), from their indices to the losses as numbers."""
    stage = MEMBERS[name][1]
    train = run._pretrain_batch if stage == PRETRAIN else run.train_batch
    return lambda: train(stage, batch)


def count_flops(work: Step) -> int:
    """FLOPs of the products and convolutions of a call, backward passes included."""
    with FlopCounterMode(display=False) as counter:
        work()
    return counter.get_total_flops()


def clustpy_version() -> str | None:
    """The version of ClustPy that can be imported, or None after a line that says why there is none."""
    try:
        import clustpy.deep
    except ImportError as error:
        print(f"clustpy is left out: {error}")
        return None
    return clustpy.__version__


def clustpy_network(network: nn.Module) -> nn.Module:
    """A copy of an autoencoder (`encode`, `decode`) as one of ClustPy's, which adds losses and `fit`."""
    from clustpy.deep.neural_networks._abstract_autoencoder import _AbstractAutoencoder

    wrapped = _AbstractAutoencoder()
    wrapped.network = deepcopy(network)
    wrapped.encode, wrapped.decode = wrapped.network.encode, wrapped.network.decode
    return wrapped.train()


def clustpy_vae(run: AutoencoderRun) -> nn.Module:
    """A copy of the networks of a VaDE run as ClustPy's variational autoencoder; it draws the samples."""
    from clustpy.deep.neural_networks.variational_autoencoder import VariationalAutoencoder

    class Variational(nn.Module):
        forward = VariationalAutoencoder.forward

        def __init__(self) -> None:
            super().__init__()
            self.network = deepcopy(run.network)
            self.log_variance = deepcopy(run.modules["log_variance"])
            self.decode = self.network.decode

        def encode(self, inputs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            features = self.network.encoder[:-1](inputs)
            return self.network.encoder[-1](features), self.log_variance(features)

    return Variational().train()


def clustpy_module(name: str, run: AutoencoderRun) -> tuple[nn.Module, nn.Module]:
    """ClustPy's network and clustering module of a method, copies of what a run of ours starts with."""
    from clustpy.deep import dcn, dec, dkm, vade

    centers = run.centers.detach().numpy().copy()

    def mixture() -> nn.Module:
        ours = run.modules["mixture"]
        weights, variances = ours.log_weights.exp(), ours.log_variances.exp()
        sizes = (len(weights), centers.shape[1])
        return vade._VaDE_Module(
            *sizes, *(x.detach().numpy() for x in (weights, run.centers, variances))
        )

    makes = {
        "DEC": lambda: dec._DEC_Module(centers, 1.0),
        "IDEC": lambda: dec._DEC_Module(centers, 1.0),
        "DCN": lambda: dcn._DCN_Module(run.tensors["labels"].int().numpy(), centers),
        "DKM": lambda: dkm._DKM_Module(centers, [run.inverse_temperature]),
        "VaDE": mixture,
    }
    network = clustpy_vae(run) if name == "VaDE" else clustpy_network(run.network)
    return network, makes[name]() if name in makes else nn.Module()


def clustpy_fit(
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
        module.fit(network, *loaders, epochs, torch.device("cpu"), optimizer, error, *WEIGHTS[name])


def clustpy_step(name: str, run: AutoencoderRun, batch: torch.Tensor) -> Step:
    """ClustPy's step of a method on samples `batch` (b,), from copies of what a run of ours starts with."""
    network, module = clustpy_module(name, run)
    parameters = [*network.parameters(), *module.parameters()]
    optimizer = torch.optim.Adam(parameters, lr=1e-4)
    loader = [[batch, run.inputs[batch]]]

    def step() -> None:
        if WEIGHTS[name]:
            clustpy_fit(name, network, module, loader, 1, optimizer)
            return
        with contextlib.redirect_stderr(io.StringIO()):  # its progress bar
            # one optimizer for all calls, so that none but the first allocates
            network.fit(
                1, {}, dataloader=loader, optimizer_class=lambda params: optimizer,
                ssl_loss_fn=F.mse_loss,
            )  # fmt: skip

    return step
