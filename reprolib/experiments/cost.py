"""What a run will cost, before it runs: counted operations over the rates of a device.

A training stage is built on a few random samples and one of its steps counted: FLOPs grow with the samples, calls
with the steps. A step takes the longer of both. A method without stages takes what its records took.
"""

import math
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from reprolib.experiments.plan import Plan
from reprolib.training.trainer import Run

SAMPLES = 32  # of the counted steps, at least
SHARE = 0.45  # of the float32 matrix product's rate that a step reaches: 0.46 on an H200, 0.4 on two cores
OVERLAP = 1.6  # times the work of one process that many do on one card: 12 of JULE and DCSS on an H200 without MPS
EPOCH_SECONDS, RUN_SECONDS = 0.02, 3.0  # a checkpoint; data, k-means, scores
IMAGES_A_CLUSTER = 5.7  # in JULE's initial clusters: 9,298 of USPS in 1,590, 70,000 of MNIST in 11,519
MERGE_SECONDS = 5e-4  # of JULE's merges and graphs, an image: 4 s of 10,000 beside an H200
GROWTH = 1.5  # of the seconds of a method without stages, as a power of the samples
# Steps and batches of the stages that have a budget in steps
BUDGETS = {"pretext": ("pretext_steps", "pretext_batch"), "refine": ("round_steps", "pretext_batch")}
BUDGETS |= {"scan": ("scan_steps", "scan_batch"), "self-labelling": ("label_steps", "label_batch")}
OVERHEAD_GB = 1.0  # of Python, torch and a CUDA context


@dataclass(frozen=True)
class Device:
    """Rates: `flops` a second of small float32 convolutions; `call`, seconds to start one operation."""

    flops: float
    call: float


# Measured on an H200, which computes as an H100: products and, of a recorded step of JULE, the time of a call. The
# A100's by the peaks of the data sheets, 19.5 to 67 TFLOP/s. The laptop: four cores of 3 GHz, two 8-wide units each
DEVICES = {
    "H100": Device(SHARE * 51e12, 4.8e-6),
    "A100": Device(SHARE * 51e12 * 19.5 / 67, 4.8e-6),
    "laptop": Device(SHARE * 0.38e12, 4e-6),
}


@dataclass(frozen=True)
class Part:
    """A stage, or all periods of JULE: passes through the data, FLOPs a sample, operations a step of `batch`."""

    name: str
    passes: int
    flops: float
    calls: float
    batch: int


@dataclass(frozen=True)
class Cost:
    """Parts of `n` samples, other seconds on the host, memory and disk in GB."""

    parts: tuple[Part, ...]
    n: int
    host: float
    memory: float
    disk: float

    def seconds(self, device: Device, but: Iterable[str] = (), crowd: float = 1.0, done: int = 0) -> float:
        """Estimated seconds on a device that `crowd` runs share in turn, without the parts named.

        done: passes that a checkpoint holds, the first ones.
        """
        total = self.host
        for part in self.parts:
            left = max(0, part.passes - done)
            done = max(0, done - part.passes)
            if part.name not in but:
                steps = math.ceil(self.n / part.batch)
                a_pass = max(steps * part.calls * device.call, self.n * part.flops / device.flops)
                total += left * (crowd * a_pass + EPOCH_SECONDS)
        return total


@cache
def this_device() -> Device:
    """Measure the device that methods pick, in a second: a matrix product and the start of small operations."""
    where = "cuda" if torch.cuda.is_available() else "cpu"
    size, few = (4096, 50) if where == "cuda" else (1024, 5)
    square, one = torch.ones(size, size, device=where), torch.ones(16, device=where)

    def seconds(work: Callable[[], torch.Tensor], repeats: int) -> float:
        work()
        began = time.perf_counter()
        for _ in range(repeats):
            last = work()
        last.sum().item()  # waits for the device
        return (time.perf_counter() - began) / repeats

    return Device(SHARE * 2 * size**3 / seconds(lambda: square @ square, few), seconds(one.sin, 2000))


def estimate(item: Plan, n: int, shape: tuple[int, ...], records: Iterable[Mapping[str, Any]]) -> Cost:
    """The cost of a plan on `n` samples of `shape` (c, h, w) or (d,).

    records: of the paper, for a method without stages, whose nearest one in size it takes.
    """
    values = n * math.prod(shape)
    if not item.estimator().trains:
        took = [e for e in records if e["method"] == item.method]
        same = [e for e in took if e["tag"] == item.tag] or took
        near = min(same, key=lambda e: abs(math.log(n / e["dataset"]["n"])), default=None)
        seconds, memory = 60.0, OVERHEAD_GB + 8e-9 * values
        if near is not None:
            growth = max(1.0, n / near["dataset"]["n"])
            seconds = sum(near["seconds"].values()) * growth**GROWTH
            memory = near["peak_memory_mb"] / 1e3 * growth
        return Cost((), n, RUN_SECONDS + seconds, memory, 3e-9 * n)
    # fractions (rates, weights of losses) change no count
    settings = {k: v for k, v in item.parameters.items() if type(v) is not float and not k.endswith("_epochs")}
    settings |= {"device": "cpu", "verbose": False}
    n = item.parameters.get("n_train") or n  # samples that are learned from
    parts, weights, activations = _counted(item.method, shape, tuple(sorted(settings.items())))
    epochs = {"pretrain": "pretrain_epochs", "warm-up": "warmup_epochs"}
    epochs |= {"phase 1": "phase1_epochs", "phase 2": "phase2_epochs"}
    passes = {stage: item.parameters.get(name, 0) for stage, name in epochs.items()}
    host = RUN_SECONDS
    if "n_iterations" in item.parameters:  # an epoch has a number of these, and not of samples
        rows = math.ceil(item.parameters["n_iterations"] / item.parameters["log_every"])
        share = item.parameters["n_iterations"] / rows * item.parameters["batch_size"] / n
        share *= 5 / 3 if item.parameters["doubled"] else 1
        parts = [(name, share * flops, share * calls, batch) for name, flops, calls, batch in parts]
        passes["adversarial"] = rows
    if "pretext_steps" in item.parameters:
        passes |= _turns(item.parameters, n)
    if item.method == "JULE":
        from reprolib.methods.jule import period_lengths

        initial = max(item.parameters["n_clusters"], round(n / IMAGES_A_CLUSTER))
        periods = period_lengths(initial, item.parameters["n_clusters"], item.parameters["unrolling_rate"])
        passes["periods"] = item.parameters["n_epochs"] * (len(periods) - 1)
        host += MERGE_SECONDS * n
    found = tuple(Part(name, passes[name], *rest) for name, *rest in parts if passes[name])
    # images as bytes on the device and as floats on the host; weights, moments and gradients
    memory = OVERHEAD_GB + (5 * values + 16 * weights + activations) / 1e9
    return Cost(found, n, host, memory, 16e-9 * weights + 3e-9 * n)


def _turns(parameters: Mapping[str, Any], n: int) -> dict[str, int]:
    """Passes of the stages of SimCLR, SCAN and ProFeat, whose budgets are in steps."""
    rounds, members = parameters.get("rounds", 1), parameters.get("ensemble", 1)
    times = {"pretext": 1, "refine": rounds - 1, "scan": rounds, "self-labelling": rounds}
    found = {}
    for stage, name in BUDGETS.items():
        steps, batch = (parameters.get(key, 0) for key in name)
        found[stage] = members * times[stage] * math.ceil(steps / max(n // batch, 1)) if steps else 0
    return found


@cache
def _counted(
    method: str, shape: tuple[int, ...], settings: tuple
) -> tuple[list[tuple[str, float, int, int]], int, float]:
    """Name, FLOPs a sample, operations a step and batch size of each kind of stage; weights; bytes kept."""
    from reprolib.experiments.paper import estimator_class

    parameters = dict(settings) | {"random_state": 0}
    n = max(SAMPLES, 2 * parameters["n_clusters"])
    sizes = {stage: parameters[batch] for stage, (_, batch) in BUDGETS.items() if batch in parameters}
    if "pretrain_epochs" in estimator_class(method)().get_params():
        parameters |= dict.fromkeys(("pretrain_epochs", "phase1_epochs", "phase2_epochs"), 1)
        parameters |= {"start": "kmeans"}  # which few random images are enough for
    elif "n_iterations" in parameters:
        parameters |= {"n_iterations": 1, "doubled": False}
    elif sizes:
        few = {"ensemble": 1, "rounds": 2, "n_neighbors": 2, "head": "random", "guard": False}
        few |= dict.fromkeys(("t_c", "t_e", "n_train", "n_unlabelled"), 0)
        parameters |= {name: value for name, value in few.items() if name in parameters}
        parameters |= {name: 1 for name in parameters if name.endswith("_steps") and parameters[name]}
    else:  # JULE: the number of clusters does not matter to a step
        parameters |= {"n_clusters": 2, "n_neighbors": 5, "n_epochs": 1}
    batches = {name: n for name in parameters if name == "batch_size" or name.endswith("_batch")}
    model = estimator_class(method)(**parameters | batches)
    drawn = np.random.default_rng(0).integers(0, 256, (n, *shape), dtype=np.uint8)
    X = drawn if len(shape) > 1 else drawn / np.float32(255)
    run, found, kept = Run(model, model.inputs(X)), {}, 0.0
    for stage in model.stages(run, X):
        stage.build()
        stage.begin()
        if not stage.epochs or stage.name in found or method == "JULE" and found:
            if sizes:
                stage.end()  # labels, which a later round is made of
            continue
        with OperationCounter() as anew:  # radii are a fifth of a run, looks at all images too; targets are little
            stage.begin_epoch()
            if sizes:
                stage.summary({"loss": 0.0}, 1)
        run.modules.train()
        for optimizer in run.optimizers.values():
            for group in optimizer.param_groups:
                group["foreach"] = True  # as on a GPU
        with OperationCounter() as counted:
            some = next(iter(stage.batches()))
            stage.schedule()
            stage.step(some)
        saved = Kept()
        with saved:  # apart, as it detaches what is kept, which would count
            stage.step(some)
        name = "periods" if method == "JULE" else stage.name
        batch = sizes.get(name) or parameters["batch_size"]
        between = anew.flops / parameters.get("radius_interval", 1 if sizes else math.inf)
        found[name] = (name, (counted.flops + between) / n, counted.calls, batch)
        kept = max(kept, saved.bytes / n * batch)
        if sizes:
            stage.end()
    return list(found.values()), sum(p.numel() for p in run.modules.parameters()), kept


class Kept(torch.autograd.graph.saved_tensors_hooks):
    """Counts the bytes that a step keeps for its gradients, each memory once; weights too, which are few."""

    def __init__(self) -> None:
        self.bytes, self.seen = 0, set()
        super().__init__(self.note, lambda tensor: tensor)

    def note(self, tensor: torch.Tensor) -> torch.Tensor:
        """Count a tensor that is kept."""
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in self.seen:
            self.seen.add(storage.data_ptr())
            self.bytes += storage.nbytes()
        return tensor


class OperationCounter(TorchDispatchMode):
    """Counts operations, and the FLOPs of products and convolutions; of backward passes and optimizers too."""

    flops = calls = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        value = function(*args, **kwargs or {})
        self.calls += 1
        if (formula := flop_registry.get(function._overloadpacket)) is not None:
            self.flops += formula(*args, **kwargs or {}, out_val=value)
        return value
