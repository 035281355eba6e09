"""Checks of input that modules share; each message says what was expected and what to do."""

import difflib
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np


def unknown_name(kind: str, name: object, valid: Iterable[str]) -> ValueError:
    """Return (not raise) the error for an unknown name: nearest valid names first, then all.

    kind: what is being named, in words, as in "data set"; name: what came; valid: the accepted
    names.
    """
    names = sorted(str(v) for v in valid)
    folded = {n.casefold(): n for n in names}
    near = difflib.get_close_matches(str(name).casefold(), list(folded), n=3, cutoff=0.5)
    hint = f" Did you mean {' or '.join(repr(folded[n]) for n in near)}?" if near else ""
    return ValueError(f"unknown {kind} {name!r}.{hint} Valid: {', '.join(names) or 'none'}.")


def check_keys(
    where: str, entry: Mapping[str, object], needed: set[str], optional: set[str]
) -> None:
    """Raise ValueError, naming the place, when an entry lacks a needed key or has an unknown one."""
    if missing := sorted(needed - set(entry)):
        raise ValueError(f"{where}: {', '.join(missing)} missing.")
    for key in entry:
        if key not in needed | optional:
            raise unknown_name(f"key in {where}", key, needed | optional)


def check_features(X: object, *, min_samples: int = 2) -> np.ndarray:
    """Return X as float32 features (n, d), C-contiguous.

    Raises TypeError when X is not numeric; ValueError when it is not 2-D, has fewer than
    min_samples rows or no column, or holds a value that is not finite in float32.
    """
    array = np.asarray(X)
    if array.dtype.kind not in "fiub":
        raise TypeError(
            f"features must be numbers; got an array of dtype {array.dtype}. "
            "Pass a numeric array (n_samples, n_features)."
        )
    if array.ndim != 2:
        raise ValueError(
            f"features must be a 2-D array (n_samples, n_features); got shape {array.shape}. "
            "Flatten images first: X.reshape(len(X), -1)."
        )
    n, d = array.shape
    if n < min_samples:
        raise ValueError(f"at least {min_samples} samples are needed; got {n}.")
    if d < 1:
        raise ValueError(f"features must have at least one column; got shape {array.shape}.")
    with np.errstate(over="ignore"):  # an overflow is refused just below
        features = np.ascontiguousarray(array, dtype=np.float32)  # (n, d)
    bad = ~np.isfinite(features).all(axis=1)
    if bad.any():
        raise ValueError(
            f"features must be finite in float32; {int(bad.sum())} of {n} rows hold NaN, infinity "
            "or an "
            f"overflow, the first is row {int(bad.argmax())}. Remove or repair them."
        )
    return features


def check_memory(needed: int, what: str, instead: str) -> None:
    """MemoryError when `needed` bytes are more than the system has left (only Linux says how many)."""
    meminfo = Path("/proc/meminfo")
    if not meminfo.is_file():
        return
    fields = dict(line.split(":", 1) for line in meminfo.read_text().splitlines() if ":" in line)
    available = int(fields["MemAvailable"].split()[0]) * 1024
    if needed > available:
        raise MemoryError(
            f"{what} needs about {needed / 2**30:.1f} GiB, and {available / 2**30:.1f} GiB are "
            f"available: {instead}"
        )
