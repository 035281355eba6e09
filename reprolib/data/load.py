"""Data sets by name: `load(name)` gives `Images`; only `fetch` downloads. Page: foundations/data.

A name is one of catalogue.py, NAME-train or NAME-test where a split is known, the stem of any .npz
in the data root, or folder:PATH. All but the last may end in -r0.1 or another r: the imbalanced draw
of made.py.
"""

import contextlib
import os
import re
from pathlib import Path
from typing import Any

import numpy as np

from reprolib.checks import unknown_name
from reprolib.data import cache, made, readers
from reprolib.data.cache import data_root
from reprolib.data.catalogue import KNOWN, TABLE
from reprolib.data.fetch import get
from reprolib.data.images import (
    Images,
    LabelsSealedError,
    as_features,
    as_pixels,
    resize,
    sealed_labels,
    to_gray,
)
from reprolib.files import file_sha256

__all__ = [
    "Images",
    "LabelsSealedError",
    "as_features",
    "as_pixels",
    "available",
    "data_root",
    "fetch",
    "load",
    "sealed_labels",
    "verify",
]


def _rate(name: str, root: Path) -> tuple[str, float]:
    """Return (SOURCE, r) of an imbalanced draw SOURCE-rNUMBER, (name, 0.0) of any other name."""
    source, number = made.split_rate(name)
    if not number or name.startswith("folder:") or name in _own(root):
        return name, 0.0
    if not _split(source)[0] and source not in _own(root):
        raise _unknown(name, root)
    return source, made.check_rate(source, number)


def _split(name: str) -> tuple[str, str]:
    """Return (data set, name of a part or ""), or ("", "") when the table lacks the name."""
    base, _, part = name.rpartition("-")
    if base in TABLE and TABLE[base].n_first and part in TABLE[base].parts:
        return base, part
    return (name, "") if name in TABLE else ("", "")


def _own(root: Path) -> list[str]:
    stems = {path.stem for path in root.glob("*.npz")} if root.is_dir() else set()
    return sorted(stems - set(TABLE))


def _unknown(name: object, root: Path) -> ValueError:
    parts = [f"{n}-{part}" for n, d in TABLE.items() if d.n_first for part in d.parts]
    _, number = made.split_rate(str(name))
    tail = f"-r{number}" if number and 0 < float(number) <= 1 else ""
    names = [n + tail for n in (*TABLE, *parts, *_own(root))]
    return unknown_name("data set", name, [*names, "folder:PATH", "NAME-r0.1"])


def _find(name: str, root: Path) -> Path | None:
    """Return the file of root that holds a data set: .npz, cache, .mat or .zip, in this order."""
    if (root / f"{name}.npz").is_file():
        return root / f"{name}.npz"
    if cache.read_note(root, name):
        return root / "cache" / f"{name}.npz"
    mats = sorted(root.glob("*.[mM][aA][tT]")) if root.is_dir() else []
    for path in mats:
        if path.stem.casefold() in TABLE[name].mat:
            return path
    zipped = root / f"{name}.zip"
    return zipped if name == "cifar10-jpeg" and zipped.is_file() else None


def _found(name: str, root: Path) -> str:
    """Say where a data set of the table is, "" when it is not here."""
    if name == "digits":
        return "scikit-learn"
    made_from = TABLE[name].made_from
    if made_from:
        return TABLE[name].how if all(_found(source, root) for source in made_from) else ""
    return str(_find(name, root) or "")


def _check_sources(name: str, root: Path) -> None:
    """Raise FileNotFoundError, saying what to fetch, when a set is missing that `name` is made from."""
    missing = [source for source in TABLE[name].made_from if not _found(source, root)]
    if missing:
        raise FileNotFoundError(
            f"data set {name!r} is {TABLE[name].how} when it is loaded. Not in the data root {root}: "
            f"{', '.join(missing)}. Run `python -m reprolib data fetch {' '.join(missing)}`, or set "
            "REPROLIB_DATA to a folder that has what is missing."
        )


def _read_part(base: str, part: str, root: Path) -> Images:
    """Read a data set of the table from the root, or one part of it unless part is ""."""
    entry, name = TABLE[base], f"{base}-{part}" if part else base
    if entry.made_from:
        _check_sources(base, root)
        return made.join([_read_part(s, part, root) for s in entry.made_from], name)
    images = _read(base, root)
    if not part:
        return images
    if images.n != entry.n:
        raise ValueError(f"{name!r} needs the {entry.n} images of {base!r}; found {images.n}.")
    cut = entry.n_first
    images = images.take(slice(0, cut) if part == entry.parts[0] else slice(cut, None))
    images.name = name
    return images


def _read(name: str, root: Path) -> Images:
    """Read a whole data set of the table, or an own .npz, from the root."""
    if name == "digits":
        return Images(*readers.read_digits(), name=name)
    path = root / f"{name}.npz" if name not in TABLE else _find(name, root)
    if path is None:
        raise FileNotFoundError(
            f"data set {name!r} is not in the data root {root}. Source: {TABLE[name].how}. Get it with "
            f"`python -m reprolib data fetch {name}`, or set REPROLIB_DATA to a folder that has it."
        )
    if path.suffix.lower() == ".mat":
        return Images(*readers.read_mat(path, TABLE[name].shape[1:]), name=name)
    if path.suffix == ".zip":
        images = Images(*readers.read_class_zip(path), name=name)
        # a read-only root is only read; decoding again costs seconds
        with contextlib.suppress(PermissionError):
            cache.write_images(root, name, images, path.name, file_sha256(path))
        return images
    if path.parent.name == "cache":
        note = cache.read_note(root, name)
        origin = root / note["source"]
        if (
            note["source_sha256"]
            and origin.is_file()
            and file_sha256(origin) != note["source_sha256"]
        ):
            raise ValueError(
                f"{origin} changed after {path} was made from it; delete {path} and load again."
            )
        cache.verified(root, name)
    return cache.read_images(path, name)


def _subset(images: Images, subset: Any) -> Images:
    if isinstance(subset, int | np.integer) and not isinstance(subset, bool):
        if not 1 <= subset <= images.n:
            raise ValueError(
                f"subset must be from 1 to the {images.n} images of {images.name!r}; got {subset}."
            )
        return images.take(np.arange(subset) * images.n // subset)
    if not isinstance(subset, slice):
        subset = np.asarray(subset)
        if subset.ndim != 1 or subset.dtype.kind not in "iu" or subset.size == 0:
            raise ValueError(
                "subset must be a whole number, a slice or a non-empty 1-D array of indices."
            )
        if subset.min() < 0 or subset.max() >= images.n:
            raise ValueError(f"subset indices must be from 0 to {images.n - 1}.")
    return images.take(subset)


def load(
    name: str,
    *,
    root: str | os.PathLike | None = None,
    size: int | tuple[int, int] | None = None,
    gray: bool = False,
    subset: int | slice | Any = None,
) -> Images:
    """Load a data set as `Images` uint8 (n, c, h, w); no network is used.

    name: see the module; root: the data folder, by default `data_root()`; subset: k images evenly
    spaced over the data set or, if one is named, its imbalanced draw, or a slice or indices; gray:
    one channel; size: int or (height, width), stretched. What was done stands in `.transforms`.
    Raises ValueError for an unknown name or a damaged file, FileNotFoundError when the data set is
    not there, saying how to get it.
    """
    if not isinstance(name, str):
        raise TypeError(f"name must be a string such as 'digits'; got {type(name).__name__}.")
    folder = data_root(root)
    source, r = _rate(name, folder)
    base, part = _split(source)
    if name.startswith("folder:"):
        images = readers.read_folder(Path(name.removeprefix("folder:")).expanduser(), size)
    elif base:
        images = _read_part(base, part, folder)
    elif re.fullmatch(r"[\w.+-]+", source) and (folder / f"{source}.npz").is_file():
        images = _read(source, folder)
    else:
        raise _unknown(name, folder)
    if r:
        images = made.imbalanced(images, r)
        images.name = name
    if subset is not None:
        whole, images = images.n, _subset(images, subset)
        images.transforms["subset"] = f"{images.n} of {whole}, " + (
            "evenly spaced" if isinstance(subset, int | np.integer) else "chosen"
        )
    if gray:
        images = to_gray(images)
    return images if size is None else resize(images, size)


def available(root: str | os.PathLike | None = None) -> list[dict[str, Any]]:
    """List known data sets, then own .npz files: name, what, n, shape, found (path or ""), how."""
    folder = data_root(root)
    rows = []
    for name, entry in TABLE.items():
        try:
            found = _found(name, folder)
        except ValueError as error:  # an unreadable note in the cache must not hide the other rows
            found = f"damaged: {error}"
        row = {"name": name, "what": entry.what, "n": entry.n, "shape": entry.shape, "found": found}
        rows.append(row | {"how": entry.how})
    own = {"what": "own file", "n": None, "shape": None, "how": ""}
    return rows + [{"name": n, "found": str(folder / f"{n}.npz")} | own for n in _own(folder)]


def fetch(name: str, root: str | os.PathLike | None = None) -> str:
    """Get a data set into the cache of the data root by the first route that works, and say which.

    Routes and checksums: reprolib/data/fetch.py. Raises ValueError for an unknown name, PermissionError
    when the root cannot be written, ConnectionError when no route worked, with the reason of each,
    FileNotFoundError for a data set that is made from others, when those have to be fetched.
    """
    folder = data_root(root)
    base, _ = _split(_rate(name, folder)[0])
    if not base:
        raise _unknown(name, folder)
    if base == "digits":
        return "digits: built in, from scikit-learn"
    if TABLE[base].made_from:
        _check_sources(base, folder)
        return f"{base}: {TABLE[base].how}, which are here"
    found = _find(base, folder)
    if found is not None:
        return f"{base}: already there, {found}"
    cache.ensure_writable(folder)
    pixels, labels, source = get(base, folder, TABLE[base].how)
    images = Images(pixels, labels, name=base)
    path = cache.write_images(folder, base, images, source)
    return f"{base}: {images.n} images from {source}, written to {path}"


def verify(name: str, root: str | os.PathLike | None = None) -> str:
    """Say in one line whether the arrays of a data set are those that the book used."""
    folder = data_root(root)
    source, _ = _rate(name, folder)
    base, _ = _split(source)
    try:
        images = load(base or source, root=folder)
    except FileNotFoundError:
        return f"{name}: missing. Source: {TABLE[base].how if base else 'unknown'}"
    except ValueError as error:
        if not base and "unknown data set" in str(error):
            raise
        return f"{name}: damaged. {error}"
    known = KNOWN.get(base)
    found = images.sha256
    if not known:
        return f"{name}: readable, {images.n} images; the book holds no hash of it. SHA-256 {found}"
    if found == known:
        return f"{name}: the arrays that the book used. SHA-256 {found}"
    shape = "x".join(map(str, images.shape))
    return f"{name}: another version ({shape}) than the book's {known[:16]}.... SHA-256 {found}"
