"""Checkpoints: tensors and a state in one file that survives a kill, read without running code."""

import json
import os
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from reprolib.files import write_atomically


class CheckpointError(RuntimeError):
    """A checkpoint that cannot be used: damaged, or written by another run."""


def save_checkpoint(path: str | os.PathLike, tensors: dict[str, torch.Tensor], state: Any) -> None:
    """Write tensors and a JSON-ready state to one safetensors file, atomically.

    Raises OSError with the folder's name when it cannot be written.
    """
    path = Path(path)
    dense = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    data = save(dense, metadata={"state": json.dumps(state)})
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, lambda stream: stream.write(data))
    except OSError as error:
        raise OSError(
            f"cannot write {path}: {error}; choose a folder that can be written"
        ) from error


def load_checkpoint(path: str | os.PathLike) -> tuple[dict[str, torch.Tensor], Any]:
    """Tensors and state of `save_checkpoint`; CheckpointError when the file is damaged. Runs no code."""
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            return tensors, json.loads(file.metadata()["state"])
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        raise CheckpointError(
            f"{path} is not a checkpoint of reprolib ({error}); delete it"
        ) from error
