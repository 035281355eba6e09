"""Checks of input that modules share; each message says what was expected and what to do."""

import difflib
import re
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # torch takes seconds to import, and most checks do not need it
    import torch


def unknown_name(kind: str, name: object, valid: Iterable[str]) -> ValueError:
    """Return (not raise) the error for an unknown name of a kind ("data set"): the nearest, then all."""
    names = sorted(str(v) for v in valid)
    folded = {n.casefold(): n for n in names}
    near = difflib.get_close_matches(str(name).casefold(), list(folded), n=3, cutoff=0.5)
    hint = f" Did you mean {' or '.join(repr(folded[n]) for n in near)}?" if near else ""
    return ValueError(f"unknown {kind} {name!r}.{hint} Valid: {', '.join(names) or 'none'}.")


def check_name(kind: str, name: object, valid: Collection[str]) -> None:
    """Raise the error of `unknown_name` for a name that is not among the valid ones."""
    if name not in valid:
        raise unknown_name(kind, name, valid)


def check_keys(where: str, entry: Mapping[str, object], needed: set[str], optional: set[str]) -> None:
    """Raise ValueError, naming the place, when an entry lacks a needed key or has an unknown one."""
    if missing := sorted(needed - set(entry)):
        raise ValueError(f"{where}: {', '.join(missing)} missing.")
    for key in entry:
        check_name(f"key in {where}", key, needed | optional)


def check_memory(needed: int, what: str, instead: str) -> None:
    """MemoryError when `needed` bytes are more than the system has left (only Linux says how many)."""
    meminfo = Path("/proc/meminfo")
    if not meminfo.is_file():
        return
    available = int(re.search(r"MemAvailable:\s*(\d+)", meminfo.read_text())[1]) * 1024
    if needed > available:
        raise MemoryError(
            f"{what} needs about {needed / 2**30:.1f} GiB, and {available / 2**30:.1f} GiB are available: {instead}"
        )


def pick_device(device: str = "auto") -> "torch.device":
    """Torch device by name; "auto" is CUDA where there is one. ValueError names what is missing."""
    import torch

    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        chosen = torch.device(device)
    except RuntimeError as error:
        raise ValueError(f"unknown device {device!r}: use 'auto', 'cpu' or 'cuda'") from error
    if chosen.type == "cuda" and not torch.cuda.is_available():
        raise ValueError("device='cuda' was asked for, but torch sees no CUDA device: use 'auto'")
    return chosen
