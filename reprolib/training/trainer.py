"""Stages of epochs that survive a kill: the one loop of everything in the book that trains."""

import copy
import hashlib
import json
import math
import time
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from reprolib.checks import pick_device
from reprolib.training import distributed
from reprolib.training.capture import CapturedSteps, reproducible
from reprolib.training.checkpoint import CheckpointError, File, load_checkpoint, save_checkpoint
from reprolib.training.monitor import Report

# Parameters that change how a method runs, not what comes out
NO_RESULT = ("device", "verbose")
ROWS = 1000  # samples at a time where no gradient is taken
SAVE_SECONDS = 1.0  # between two checkpoints on CUDA, where an epoch may take less than writing one


class Stage:
    """One stage of a fit, written by a method; it works on the networks and tensors of its run.

    `step(batch)` takes the optimizer steps of one batch and returns its named losses, `loss` among them, as
    scalar tensors on the device (a count may be a number): it must not wait for the device. On CUDA it is recorded
    and replayed, so it works on the same tensors each time; what the host decides from step to step is `schedule`'s,
    and `branch` names the way that a step takes. `report_every`: epochs between two `report()`s to the monitor, the
    last one always told; 0 for none. `shared`: the parameters that alone decide what the stage leaves, if other
    methods may take it over. `skipped`: left out, by what `run.numbers` says when it would begin.
    """

    name, report_every = "stage", 0
    shared: tuple[str, ...] = ()
    skipped = False

    def __init__(self, run: "Run", epochs: int) -> None:
        self.run, self.model, self.epochs = run, run.model, epochs

    def build(self) -> None:
        """Make networks, and `run.optimizers` as a whole; called again before a restore."""

    def begin(self) -> None:
        """Compute what the stage starts from; a run that goes on does not repeat it."""

    def begin_epoch(self) -> None:
        """Compute what an epoch keeps fixed, from the state alone, so that a resumed run does too."""

    def batches(self) -> Iterator[Any]:
        """Index batches (b,) of a shuffled epoch; batch statistics of one sample are undefined."""
        order = torch.randperm(len(self.run.inputs), generator=self.run.generator).to(self.run.inputs.device)
        return (batch for batch in order.split(self.model.batch_size) if len(batch) > 1)

    def schedule(self) -> None:
        """Set what changes from step to step: rates."""

    def branch(self) -> Hashable:
        """What a step does otherwise in some epochs than in others."""

    def hold(self, name: str, value: Tensor) -> None:
        """Set an attribute, on the memory that it has: what a recorded step reads."""
        held = getattr(self, name, None)
        if held is None or held.shape != value.shape:
            setattr(self, name, value)
        else:
            held.copy_(value)

    def summary(self, sums: Mapping[str, float], n_batches: int) -> dict[str, float]:
        """What an epoch's row tells, from what its steps returned, added up: by default the means."""
        return {name: value / n_batches for name, value in sums.items()} or {"loss": math.nan}

    def row(self) -> dict[str, Any]:
        """How the rows of this stage begin in the history."""
        return {"stage": self.name, "epoch": self.run.epoch}

    def end_epoch(self) -> None:
        """Update what is updated once an epoch: centers, schedules."""

    def end(self) -> None:
        """Compute what the stage leaves: labels, merges; not repeated either."""


@dataclass(eq=False, repr=False)
class Run:
    """State of one fit, all that a checkpoint restores, and the loop: a killed fit goes on to the same bits.

    Stages keep here networks and optimizers by name, tensors (labels, counts) and JSON-ready numbers; `history`
    has one dict an epoch; `generator` draws every random number on the host, `noise` those within a step. Inputs that
    fit lie on the device. `shared`: folder of what methods take over.
    """

    model: Any
    inputs: Tensor
    monitor: Callable[[Report], None] | None = None
    checkpoint: File | None = None
    shared: File | None = None
    modules: nn.ModuleDict = field(default_factory=nn.ModuleDict)
    optimizers: dict[str, torch.optim.Optimizer] = field(default_factory=dict)
    tensors: dict[str, Tensor] = field(default_factory=dict)
    numbers: dict[str, Any] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)
    at: int = 0  # stages behind it
    epoch: int = 0

    def __post_init__(self) -> None:
        # parameters as Python's own numbers, and the seed that a RandomState gave
        self.model = copy.copy(self.model).set_params(**self.model.plain_parameters())
        self.key = None if self.checkpoint is None else self.fingerprint()
        self.device, self.seed = pick_device(self.model.device), self.model.random_state
        # on the host, so that weights and order are the same on every device; its own for noise within a step
        self.generator = self.noise = torch.Generator().manual_seed(self.seed)
        self.steps: Steps | None = None
        self.saved, self.on_cuda = -math.inf, self.device.type == "cuda"
        if self.on_cuda:
            self.noise = torch.Generator(self.device).manual_seed(self.seed)
            if 2 * self.inputs.nbytes < torch.cuda.mem_get_info(self.device)[0]:
                self.inputs = self.inputs.to(self.device)

    def train(self, stages: Sequence[Stage]) -> None:
        """Run all stages from where the run stands; the checkpoint is written after every epoch.

        FloatingPointError for a loss that is not finite, CheckpointError for a damaged or another run's file.
        """
        distributed.wait()  # of several processes, the first has written all of before,
        self._restore(stages)
        distributed.wait()  # and writes again when all have read
        known = self.numbers.get("devices", [])
        self.numbers["devices"] = [*dict.fromkeys([*known, self.device.type])]  # a checkpoint may come from another
        total, done = sum(stage.epochs for stage in stages), len(self.history)
        shown = tqdm(total=total, initial=done, unit="epoch", disable=not self.model.verbose or distributed.rank() > 0)
        with shown as bar, reproducible() if self.on_cuda else nullcontext():
            for stage in stages[self.at :]:
                if stage.skipped:
                    self.at += 1
                    continue
                bar.set_description(stage.name)
                if self.epoch == 0:
                    stage.build()
                    stage.begin()
                while self.epoch < stage.epochs:
                    bar.set_postfix(loss=f"{self._train_epoch(stage)['loss']:.5g}")
                    bar.update()
                if self.steps and self.steps.captured:
                    self.steps.captured.close()
                stage.end()
                self.at, self.epoch = self.at + 1, 0
                if stage.shared and self.shared is not None:
                    self._write(self._shared_file(stage))
                self._save()

    def tell(self, report: Callable[..., Report], *parts: Any) -> None:
        """Give the monitor, if there is one, report(*parts)."""
        if self.monitor is not None and distributed.rank() == 0:
            self.monitor(report(*parts))

    def steps_of(self, stage: Stage) -> "Steps":
        """The steps of a stage, recorded where its data lie on a CUDA device."""
        return Steps(stage, self.noise if self.on_cuda and self.inputs.is_cuda else None)

    def _train_epoch(self, stage: Stage) -> dict[str, Any]:
        began = time.perf_counter()
        if self.steps is None or self.steps.stage is not stage:
            self.steps = self.steps_of(stage)
        stage.begin_epoch()
        self.modules.train()
        sums, n_batches = self.steps.epoch()
        told = stage.summary(sums, n_batches)
        if n_batches and not math.isfinite(told["loss"]):
            where = f"{told['loss']} in stage {stage.name!r}, epoch {self.epoch}"
            raise FloatingPointError(f"the loss became {where}: lower the learning rate")
        row = stage.row() | told | {"seconds": time.perf_counter() - began}
        self.epoch += 1
        self.history.append(row)
        stage.end_epoch()
        every = stage.report_every
        if every and (self.epoch % every == 0 or self.epoch == stage.epochs):
            self.tell(stage.report)
        self._save()
        return row

    def module(self, name: str, network: nn.Module) -> nn.Module:
        """Keep a network under a name, on the device."""
        self.modules[name] = distributed.share_statistics(network.to(self.device))
        return self.modules[name]

    def descend(self, optimizer: str, loss: Tensor) -> None:
        """One step of an optimizer along the gradient of a loss, of several processes along that of the mean loss."""
        self.optimizers[optimizer].zero_grad(set_to_none=True)
        loss.backward()
        groups = self.optimizers[optimizer].param_groups
        distributed.average(weight.grad for group in groups for weight in group["params"])
        self.optimizers[optimizer].step()

    def adam(self, parameters: Any, **options: Any) -> torch.optim.Adam:
        """Adam; on CUDA in one kernel that counts its steps on the device."""
        return torch.optim.Adam(parameters, **options | ({"fused": True, "capturable": True} if self.on_cuda else {}))

    def sgd(self, parameters: Any, **options: float) -> torch.optim.SGD:
        """Gradient descent whose rate `set_rate` moves; on CUDA in one kernel that reads it on the device."""
        rate = torch.zeros((), device=self.device) if self.on_cuda else 0.0
        return torch.optim.SGD(parameters, rate, **options, **{"fused": True} if self.on_cuda else {})

    def set_rate(self, optimizer: str, rate: float) -> None:
        """Set the rate of an optimizer that `sgd` made."""
        group = self.optimizers[optimizer].param_groups[0]
        if self.on_cuda:
            group["lr"].fill_(rate)
        else:
            group["lr"] = rate

    def autocast(self) -> torch.autocast:
        """The method's precision: bfloat16 products under `precision="bfloat16"`, else as they are."""
        half = self.model.precision == "bfloat16"
        return torch.autocast(self.device.type, torch.bfloat16, enabled=half)

    def batch(self, indices: Tensor) -> Tensor:
        """Inputs (b, ...) of samples (b,), on the device."""
        return self.inputs[indices].to(self.device, non_blocking=True)

    @torch.no_grad()
    def over_all(self, function: Callable[[Tensor], Tensor], n: int | None = None) -> Tensor:
        """A function of inputs (b, ...) over all samples, or the first n, in blocks, networks in evaluation mode."""
        self.modules.eval()
        return torch.cat([function(part.to(self.device)) for part in self.inputs[:n].split(ROWS)])

    def fingerprint(self, names: Iterable[str] | None = None) -> str:
        """Hash of the data and of the parameters that decide a result, or of those named."""
        known = self.model.get_params()
        chosen = {k: known[k] for k in (known if names is None else names) if k not in NO_RESULT}
        whose = type(self.model).__name__ if names is None else ""
        digest = hashlib.sha256(json.dumps([whose, chosen], sort_keys=True).encode())
        digest.update(str(tuple(self.inputs.shape)).encode())
        digest.update(self.inputs.cpu().numpy().tobytes())
        return digest.hexdigest()

    def _shared_file(self, stage: Stage) -> Path:
        """File of what a stage leaves, named by its data and settings."""
        return Path(self.shared) / f"{stage.name}-{self.fingerprint(stage.shared)[:16]}.safetensors"

    def _save(self) -> None:
        late = not self.on_cuda or not self.epoch or time.perf_counter() - self.saved > SAVE_SECONDS
        if self.checkpoint is not None and late:
            self._write(self.checkpoint, self.key)
            self.saved = time.perf_counter()

    def _write(self, path: File, key: str | None = None) -> None:
        """With the `key` of a checkpoint; what is shared has none, and no optimizers. The first process alone does."""
        if distributed.rank():
            return
        tensors = {f"tensor.{name}": value for name, value in self.tensors.items()}
        tensors |= {f"module.{name}": value for name, value in self.modules.state_dict().items()}
        tensors |= {"generator": self.generator.get_state(), "noise": self.noise.get_state()}
        for name, optimizer in self.optimizers.items() if key else ():
            for i, held in optimizer.state_dict()["state"].items():
                held = {k: v for k, v in held.items() if v is not None}
                tensors |= {f"optimizer.{name}.{i}.{k}": v for k, v in held.items()}
        state = {k: getattr(self, k) for k in ("at", "epoch", "history", "numbers")}
        save_checkpoint(path, tensors, state | {"fingerprint": key})

    def _restore(self, stages: Sequence[Stage]) -> None:
        files = {} if self.checkpoint is None else {Path(self.checkpoint): self.key}
        if self.shared is not None:  # the file that spares the most stages,
            # but a stage that reports must run to do so
            spared = [s for s in reversed(stages) if s.shared and not s.report_every]
            files |= {self._shared_file(s): None for s in spared}
        path = next(filter(Path.exists, files), None)
        if path is None:
            return
        tensors, state = load_checkpoint(path)
        if state.get("fingerprint") != files[path]:
            said = "was written with other data or parameters: delete it, or name another"
            raise CheckpointError(f"{path} {said}")
        self.at, self.epoch, self.history = state["at"], state["epoch"], state["history"]
        self.numbers |= state["numbers"]  # first, as they say what is skipped
        # a stage that has not begun is built when it does
        for stage in stages[: self.at + (self.epoch > 0)]:
            if not stage.skipped:
                stage.build()
        self.modules.load_state_dict(under(tensors, "module."))
        for name, optimizer in self.optimizers.items():
            held = optimizer.state_dict()
            numbers = [i for group in held["param_groups"] for i in group["params"]]
            weights = (weight for group in optimizer.param_groups for weight in group["params"])
            held["state"] = {
                i: {k: laid_out_as(weight, v) for k, v in under(tensors, f"optimizer.{name}.{i}.").items()}
                for i, weight in zip(numbers, weights, strict=True)
            }
            optimizer.load_state_dict(held)
        for name, value in under(tensors, "tensor.").items():
            self.tensors[name] = value.to(self.device)
        self.generator.set_state(tensors["generator"])
        noise = tensors.get("noise", tensors["generator"])
        if self.on_cuda and noise.shape == self.noise.get_state().shape:  # else it comes from a CPU
            self.noise.set_state(noise)


class Steps:
    """The steps of a stage and, in float64 and on the device, the sums of what they return: read once an epoch."""

    def __init__(self, stage: Stage, noise: torch.Generator | None) -> None:
        self.stage, self.sums = stage, {}
        self.captured = None if noise is None else CapturedSteps(self._take, noise)

    def epoch(self) -> tuple[dict[str, float], int]:
        """Take an epoch's steps: the sums by name, and their number."""
        for value in self.sums.values():
            value.zero_()
        n_batches = 0
        with self.captured.on_stream() if self.captured else nullcontext():
            for batch in self.stage.batches():
                n_batches += 1
                self.stage.schedule()
                if self.captured:
                    self.captured(batch, self.stage.branch())
                else:
                    self._take(batch)
        distributed.average(self.sums.values())
        return {name: float(value) for name, value in self.sums.items()}, n_batches

    def _take(self, batch: Tensor) -> None:
        for name, value in self.stage.step(batch).items():
            if name not in self.sums:
                self.sums[name] = torch.zeros((), dtype=torch.float64, device=self.stage.run.device)
            self.sums[name] += value


def laid_out_as(weight: Tensor, value: Tensor) -> Tensor:
    """A value in the memory format of a weight of its shape, which optimizers in one kernel ask for; else as it is."""
    return torch.empty_like(weight).copy_(value) if value.shape == weight.shape else value


def under(tensors: Mapping[str, Tensor], start: str) -> dict[str, Tensor]:
    """The entries whose names begin with `start`, by the rest of their names."""
    return {k.removeprefix(start): v for k, v in tensors.items() if k.startswith(start)}


def as_numpy(tensor: Tensor) -> np.ndarray:
    """A tensor's own copy on the host."""
    return tensor.detach().cpu().numpy().copy()
