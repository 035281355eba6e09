"""Checkpoints: tensors and a state in one file that survives a kill, read without running code."""

import json
import os
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from reprolib.files import write_atomically

File = str | os.PathLike


class CheckpointError(RuntimeError):
    """A checkpoint that cannot be used: damaged, or written by another run."""


def save_checkpoint(path: File, tensors: dict[str, Tensor], state: Any) -> None:
    """Write tensors and a JSON-ready state to one safetensors file, atomically; OSError where it cannot."""
    path = Path(path)
    dense = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    data = save(dense, metadata={"state": json.dumps(state)})
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, lambda stream: stream.write(data))
    except OSError as error:
        said = f"cannot write {path}: {error}; choose a folder that can be written"
        raise OSError(said) from error


def load_checkpoint(path: File) -> tuple[dict[str, Tensor], Any]:
    """Tensors and state of `save_checkpoint`; CheckpointError when the file is damaged. Runs no code."""
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            return tensors, json.loads(file.metadata()["state"])
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        said = f"{path} is not a checkpoint of reprolib ({error}); delete it"
        raise CheckpointError(said) from error
