"""Data sets by name: `load(name)` gives `Images`; only `fetch` downloads. Page: foundations/data.

A name is one of catalogue.py, NAME-train or NAME-test where a split is known, the stem of any .npz in the data root,
or folder:PATH. All but the last may end in -r0.1 or another r: the imbalanced draw of made.py.
"""

import contextlib
import reprlib
from pathlib import Path
from typing import Any

import numpy as np

from reprolib.checks import unknown_name
from reprolib.data import cache, made, readers
from reprolib.data.cache import Root, data_root
from reprolib.data.catalogue import TABLE
from reprolib.data.fetch import get
from reprolib.data.images import Images, LabelsSealedError, resize, sealed_labels, to_gray
from reprolib.files import file_sha256

__all__ = ["Images", "LabelsSealedError", "available", "fetch", "load", "sealed_labels", "verify"]


def _own(root: Path) -> list[str]:
    """Names of the .npz files of the root that are not the table's."""
    return sorted({path.stem for path in root.glob("*.npz")} - set(TABLE))


def _resolve(name: str, root: Path) -> tuple[str, str, float]:
    """Split a name into a data set (of the table, an own file, folder:PATH), its part or "", and its r or 0."""
    if not isinstance(name, str):
        raise TypeError(f"name must be a string such as 'digits'; got {type(name).__name__}.")
    if name.startswith("folder:"):
        return name, "", 0.0
    own = _own(root)
    whole, rate = made.split_rate(name) if name not in own else (name, "")
    parts = {f"{n}-{part}": (n, part) for n, d in TABLE.items() if d.n_first for part in d.parts}
    base, part = parts.get(whole, (whole, ""))
    if base in TABLE or base in own:
        return base, part, made.check_rate(whole, rate) if rate else 0.0
    tail = f"-r{rate}" if rate and 0 < float(rate) <= 1 else ""
    names = [n + tail for n in (*TABLE, *parts, *own)]
    raise unknown_name("data set", name, [*names, "folder:PATH", "NAME-r0.1"])


def is_own(name: str, root: Root = None) -> bool:
    """Tell whether a name is the user's own data set: folder:PATH, or an .npz of the root that is not the table's."""
    own = _own(data_root(root))
    return name.startswith("folder:") or name in own or made.split_rate(name)[0] in own


def located(name: str) -> str:
    """A name in which folder:PATH has the whole path: it means the same from any working folder."""
    before, folder, path = name.partition("folder:")
    return before + folder + str(Path(path).expanduser().resolve()) if folder else name


def files(name: str, root: Root = None) -> list[Path]:
    """All files that decide what `load` gives, none of a built-in set; raises as it does for what is not here."""
    folder = data_root(root)
    if name.startswith("folder:"):
        return [path for path in Path(name.removeprefix("folder:")).expanduser().rglob("*") if path.is_file()]
    base, _, _ = _resolve(name, folder)
    if base not in TABLE:
        return [folder / f"{base}.npz"]
    _check_here(base, folder)
    return [Path(_find(n, folder)) for n in TABLE[base].made_from or (base,) if n != "digits"]


def _find(name: str, root: Path) -> str:
    """Say where a data set of the table is: .npz, cache, .mat or .zip, in this order; "" if nowhere."""
    if name == "digits":
        return "scikit-learn"
    if TABLE[name].made_from:
        return TABLE[name].how if all(_find(n, root) for n in TABLE[name].made_from) else ""
    mats = [p for p in sorted(root.glob("*.[mM][aA][tT]")) if p.stem.lower() in TABLE[name].mat]
    zipped = [root / f"{name}.zip"] if name == "cifar10-jpeg" else []
    places = (root / f"{name}.npz", cache.cached(root, name), *mats, *zipped)
    return next((str(path) for path in places if path and path.is_file()), "")


def _check_here(name: str, root: Path) -> None:
    """Raise FileNotFoundError, saying what to fetch, when a data set of the table is not here."""
    if missing := [n for n in TABLE[name].made_from or (name,) if not _find(n, root)]:
        raise FileNotFoundError(
            f"data set {name!r} is not in the data root {root}. Source: {TABLE[name].how}. Get it with "
            f"`python -m reprolib data fetch {' '.join(missing)}`, or set REPROLIB_DATA to a folder that has it."
        )


def _read(base: str, part: str, root: Path) -> Images:
    """Read a data set of the table or an own .npz from the root; one part of it unless part is ""."""
    if base not in TABLE:
        return cache.read_images(root / f"{base}.npz", base)
    _check_here(base, root)
    entry, name = TABLE[base], f"{base}-{part}" if part else base
    if entry.made_from and not entry.change:
        return made.join([_read(s, part, root) for s in entry.made_from], name)
    if entry.change:  # of the whole set, so that its parts are parts of one draw
        change, *how = entry.change
        images = getattr(made, change)(made.join([_read(s, "", root) for s in entry.made_from], base), *how)
    else:
        images = _read_file(base, Path(_find(base, root)), root)
    if not part:
        return images
    if images.n != entry.n:
        raise ValueError(f"{name!r} needs the {entry.n} images of {base!r}; found {images.n}.")
    first = part == entry.parts[0]
    images = images.take(slice(entry.n_first) if first else slice(entry.n_first, None))
    images.name = name
    return images


def _read_file(name: str, path: Path, root: Path) -> Images:
    """Read a data set of the table from what `_find` found."""
    if path.suffix == ".npz":
        if path.parent.name == "cache":
            cache.verified(root, name)
        return cache.read_images(path, name)
    if name == "digits":
        return Images(*readers.read_digits(), name=name)
    if path.suffix.lower() == ".mat":
        return Images(*readers.read_mat(path, TABLE[name].shape[1:]), name=name)
    images = Images(*readers.read_class_zip(path), name=name)
    with contextlib.suppress(PermissionError):  # decoding again costs seconds; a read-only root is only read
        cache.write_images(root, name, images, path.name, file_sha256(path))
    return images


def _subset(images: Images, subset: Any) -> Images:
    """Select k images evenly spaced, a slice or indices, and record it."""
    chosen, n, how = subset, images.n, "chosen"
    if not isinstance(subset, slice):
        chosen = np.asarray(subset)
        whole, least = chosen.dtype.kind in "iu" and chosen.ndim < 2 and chosen.size, chosen.ndim == 0
        if not whole or chosen.min() < least or chosen.max() >= n + least:
            raise ValueError(
                f"subset must be a whole number from 1 to the {n} images of {images.name!r}, a slice, or a non-empty "
                f"1-D array of indices from 0 to {n - 1}; got {reprlib.repr(subset)}."
            )
        if chosen.ndim == 0:
            chosen, how = np.arange(chosen) * n // chosen, "evenly spaced"
    few = images.take(chosen)
    few.transforms["subset"] = f"{few.n} of {n}, {how}"
    return few


def load(
    name: str, *, root: Root = None, size: int | tuple[int, int] | None = None, gray: bool = False, subset: Any = None
) -> Images:
    """Load a data set as `Images` uint8 (n, c, h, w); no network is used.

    name: see the module; root: the data folder, by default `data_root()`; subset: k images evenly spaced over the data
    set or its imbalanced draw, a slice, or indices; gray: one channel; size: int or (height, width), stretched. What
    was done stands in `.transforms`. Raises ValueError for an unknown name or a damaged file, FileNotFoundError saying
    how to get it.
    """
    folder = data_root(root)
    base, part, r = _resolve(name, folder)
    if name.startswith("folder:"):
        images = readers.read_folder(Path(name.removeprefix("folder:")).expanduser(), size)
    else:
        images = _read(base, part, folder)
    if r:
        images = made.imbalanced(images, r)
        images.name = name
    if subset is not None:
        images = _subset(images, subset)
    images = to_gray(images) if gray else images
    return images if size is None else resize(images, size)


def available(root: Root = None) -> list[dict[str, Any]]:
    """List known data sets, then own .npz files: name, what, n, shape, found (path or ""), how."""
    folder = data_root(root)
    rows = [(name, d.what, d.n, d.shape, _find(name, folder), d.how) for name, d in TABLE.items()]
    rows += [(name, "own file", None, None, str(folder / f"{name}.npz"), "") for name in _own(folder)]
    return [dict(zip(("name", "what", "n", "shape", "found", "how"), row, strict=True)) for row in rows]


def is_here(name: str, root: Root = None) -> bool:
    """Tell whether `load` would find a data set; ValueError for an unknown name."""
    folder = data_root(root)
    base, _, _ = _resolve(name, folder)
    return base not in TABLE or bool(_find(base, folder))


def size_of(name: str, root: Root = None) -> tuple[int, tuple[int, ...]]:
    """Number of images and their shape (c, h, w), from the catalogue where it knows them, else by reading them."""
    base, part, r = _resolve(name, data_root(root))
    if base not in TABLE or r:
        images = load(name, root=root)
        return images.n, images.shape[1:]
    entry = TABLE[base]
    first = part == entry.parts[0]
    return (entry.n_first if first else entry.n - entry.n_first) if part else entry.n, entry.shape


def fetch(name: str, root: Root = None) -> str:
    """Get a data set into the cache of the data root by the first route that works, and say which.

    Raises ValueError for an unknown name, PermissionError when the root cannot be written, ConnectionError when no
    route (fetch.py) worked, with the reason of each, FileNotFoundError when the sets that it is made from are missing.
    """
    folder = data_root(root)
    base, _, _ = _resolve(name, folder)
    if base not in TABLE:
        raise unknown_name("data set to fetch", name, TABLE)
    how = TABLE[base].how
    if base == "digits":
        return "digits: built in, from scikit-learn"
    if TABLE[base].made_from:
        _check_here(base, folder)
        return f"{base}: {how}, which are here"
    if found := _find(base, folder):
        return f"{base}: already there, {found}"
    cache.ensure_writable(folder)
    pixels, labels, source = get(base, folder, how)
    path = cache.write_images(folder, base, Images(pixels, labels), source)
    return f"{base}: {len(pixels)} images from {source}, written to {path}"


def verify(name: str, root: Root = None) -> str:
    """Say in one line whether the arrays of a data set are those that the book used."""
    base, _, _ = _resolve(name, data_root(root))
    try:
        images = load(base, root=root)
    except FileNotFoundError:
        return f"{name}: missing. Source: {TABLE[base].how if base in TABLE else 'unknown'}"
    except (TypeError, ValueError) as error:
        return f"{name}: damaged. {error}"
    known, found = TABLE[base].sha256 if base in TABLE else "", images.sha256
    told = f"another version ({'x'.join(map(str, images.shape))}) than the book's {known[:16]}..."
    if not known:
        told = f"readable, {images.n} images; the book holds no hash of it"
    elif found == known:
        told = "the arrays that the book used"
    return f"{name}: {told}. SHA-256 {found}"
