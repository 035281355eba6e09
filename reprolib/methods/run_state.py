"""What an autoencoder run leaves on the disk: its checkpoint, and the autoencoder that methods share."""

from __future__ import annotations

import hashlib
import json
import os
from typing import TYPE_CHECKING, Any

import torch

from reprolib.training.checkpoint import CheckpointError, load_checkpoint, save_checkpoint

if TYPE_CHECKING:
    from reprolib.methods.autoencoder import AutoencoderRun

NO_RESULT = ("device", "verbose")
# parameters that the pretraining depends on
PRETRAINING = (
    "latent_dim",
    "pretrain_epochs",
    "pretrain_rate",
    "batch_size",
    "precision",
    "random_state",
)


def fingerprint(inputs: torch.Tensor, method: str, parameters: dict[str, Any]) -> str:
    """Hash the data and settings of a run, those left out that change no result."""
    known = {k: v for k, v in parameters.items() if k not in NO_RESULT}
    digest = hashlib.sha256(json.dumps(known, sort_keys=True).encode())
    digest.update(str((method, tuple(inputs.shape))).encode())
    digest.update(inputs.numpy().tobytes())
    return digest.hexdigest()


def save_state(run: AutoencoderRun) -> None:
    """Write a run's checkpoint, if it has one, atomically."""
    if run.checkpoint is None:
        return
    tensors = {f"tensor.{name}": value for name, value in run.tensors.items()}
    for name, module in run.modules.items():
        tensors |= {f"module.{name}.{k}": v for k, v in module.state_dict().items()}
    for name, optimizer in run.optimizers.items():
        for i, parameter in enumerate(_parameters(optimizer)):
            state = optimizer.state.get(parameter, {})
            tensors |= {f"optimizer.{name}.{i}.{k}": v for k, v in state.items()}
    tensors["generator"] = run.generator.get_state()
    state = {"fingerprint": run.fingerprint, "stage": run.stage, "epoch": run.epoch}
    save_checkpoint(run.checkpoint, tensors, state | {"history": run.history})


def restore_state(run: AutoencoderRun) -> None:
    """Set a run back to its checkpoint. Raises CheckpointError when that is damaged or another run's."""
    tensors, state = load_checkpoint(run.checkpoint)
    if state.get("fingerprint") != run.fingerprint:
        raise CheckpointError(
            f"{run.checkpoint} was written with other data or parameters: delete it, or name another"
        )
    run.stage, run.epoch, run.history = state["stage"], state["epoch"], state["history"]
    last = run.stage + (run.epoch > 0)  # a stage that has not begun is prepared when it does
    for stage, _ in run.stages[:last]:
        run.make_optimizers(stage)
    for name, module in run.modules.items():
        module.load_state_dict(_under(tensors, f"module.{name}."))
    for name, optimizer in run.optimizers.items():
        for i, parameter in enumerate(_parameters(optimizer)):
            for key, value in _under(tensors, f"optimizer.{name}.{i}.").items():
                place = "cpu" if key == "step" else run.device
                optimizer.state[parameter][key] = value.to(place)
    for key, value in _under(tensors, "tensor.").items():
        run.tensors[key] = value.to(run.device)
    run.generator.set_state(tensors["generator"])


def pretrained_path(run: AutoencoderRun) -> str:
    """File of the autoencoder in the folder `pretrained`, named by its data and settings."""
    shared = {name: getattr(run.model, name) for name in PRETRAINING}
    digest = fingerprint(run.inputs, "pretrain", shared)[:16]
    return os.path.join(run.pretrained, f"autoencoder-{digest}.safetensors")


def write_pretrained(run: AutoencoderRun) -> None:
    """Leave the pretrained autoencoder for other methods, atomically."""
    tensors = dict(run.network.state_dict()) | {"generator": run.generator.get_state()}
    save_checkpoint(pretrained_path(run), tensors, {"history": run.history})


def read_pretrained(run: AutoencoderRun) -> None:
    """Begin after the pretraining if its autoencoder is there. Raises CheckpointError on a damaged file."""
    path = pretrained_path(run)
    if os.path.exists(path):
        tensors, state = load_checkpoint(path)
        run.generator.set_state(tensors.pop("generator"))
        run.network.load_state_dict(tensors)
        run.stage, run.history = 1, state["history"]


def _under(tensors: dict[str, torch.Tensor], start: str) -> dict[str, torch.Tensor]:
    return {k.removeprefix(start): v for k, v in tensors.items() if k.startswith(start)}


def _parameters(optimizer: torch.optim.Optimizer) -> list[torch.Tensor]:
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]
