"""Arrays on disk: the data root, the one cache format, reading .npz files without trust.

A cached data set, or a network's features, is `cache/NAME.npz` beside its note `cache/NAME.json` (the SHA-256 of that
file, of the arrays, and the source). Without its note a file counts as unfinished and is not read.
"""

import json
import os
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from reprolib.data.images import Images
from reprolib.files import file_sha256, write_atomically

Root = str | os.PathLike | None  # a data folder, None for the usual one


def data_root(root: Root = None) -> Path:
    """Return the data folder: root if given, else $REPROLIB_DATA, else ~/.cache/reprolib."""
    chosen = root or os.environ.get("REPROLIB_DATA")
    return Path(chosen).expanduser() if chosen else Path.home() / ".cache" / "reprolib"


def ensure_writable(folder: Path) -> None:
    """Create the folder if need be; PermissionError when it cannot be written, for root too where its mode forbids."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        writable = folder.stat().st_mode & 0o222 and os.access(folder, os.W_OK | os.X_OK)
        wrong = "" if writable else "is read-only"
    except OSError as error:
        wrong = f"cannot be created ({error})"
    if wrong:
        raise PermissionError(
            f"the data folder {folder} {wrong}. Set REPROLIB_DATA to a folder that can be written, or pass root= "
            "(data fetch: --root)."
        )


def read_npz(path: Path, needed: str, *optional: str) -> dict[str, np.ndarray]:
    """Read one array of an .npz, and others if they are there, by name; never unpickles.

    Raises ValueError when it is damaged, is no .npz, holds pickled objects, or lacks the needed one.
    """
    try:
        arrays = np.load(path, allow_pickle=False)
        if not isinstance(arrays, np.lib.npyio.NpzFile):
            raise ValueError("it is not a zip of arrays")
        with arrays:
            found = {key: arrays[key] for key in (needed, *optional) if key in arrays.files}
            keys = ", ".join(arrays.files) or "none"
    except (FileNotFoundError, PermissionError):
        raise
    except (ValueError, EOFError, OSError, zipfile.BadZipFile, zlib.error) as error:
        raise ValueError(
            f"{path} cannot be read as an .npz ({error or type(error).__name__}). It is truncated, damaged, or holds "
            "pickled objects, which are refused. Delete it and make or fetch it again."
        ) from error
    if needed not in found:
        known = "".join(f" (and {key!r} if known)" for key in optional)
        raise ValueError(f"{path} must hold an array {needed!r}{known}; it holds: {keys}.")
    return found


def read_images(path: Path, name: str) -> Images:
    """Read the arrays images and, if there, labels of an .npz into Images; raises as both do."""
    found = read_npz(path, "images", "labels")
    try:
        return Images(found["images"], found.get("labels"), name=name)
    except (TypeError, ValueError) as error:
        raise type(error)(f"{path}: {error}") from error


def write_arrays(root: Path, name: str, arrays: Mapping[str, np.ndarray], about: Mapping[str, Any]) -> Path:
    """Cache arrays of root with a note about them, return their path; PermissionError if read-only."""
    ensure_writable(root)
    ensure_writable(root / "cache")
    path = root / "cache" / f"{name}.npz"
    note = path.with_suffix(".json")
    # first withdraw the note: killed between the two files, the cache is unfinished and never wrong
    note.unlink(missing_ok=True)
    write_atomically(path, lambda stream: np.savez_compressed(stream, **arrays))
    text = json.dumps({**about, "file_sha256": file_sha256(path)}, indent=1) + "\n"
    write_atomically(note, lambda stream: stream.write(text.encode()))
    return path


def write_images(root: Path, name: str, images: Images, source: str, source_sha256: str = "") -> Path:
    """Write a data set to the cache of root, return its path; PermissionError if read-only."""
    labels = {} if images.labels is None else {"labels": images.labels}
    about = {"name": name, "n": images.n, "shape": list(images.shape), "source": source}
    about |= {"source_sha256": source_sha256, "arrays_sha256": images.sha256}
    return write_arrays(root, name, {"images": images.pixels} | labels, about)


def cached(root: Path, name: str) -> Path | None:
    """Path of what is cached under a name, None if nothing is complete."""
    path = root / "cache" / f"{name}.npz"
    return path if path.is_file() and path.with_suffix(".json").is_file() else None


def verified(root: Path, name: str) -> Path | None:
    """As `cached`; ValueError for a damaged note, a wrong checksum, or when the file it was made from has changed."""
    path = cached(root, name)
    if path is None:
        return None
    note = path.with_suffix(".json")
    try:
        content = json.loads(note.read_text())
        expected = content["file_sha256"]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{note} is damaged. Delete it and fetch {name!r} again.") from error
    origin, known = root / content.get("source", ""), content.get("source_sha256")
    if known and origin.is_file() and file_sha256(origin) != known:
        raise ValueError(f"{origin} changed after {path} was made from it; delete {path} and load again.")
    if (found := file_sha256(path)) != expected:
        raise ValueError(
            f"{path} has the wrong checksum: expected SHA-256 {expected[:16]}..., found {found[:16]}.... "
            f"It was damaged or changed; delete it and fetch {name!r} again."
        )
    return path
