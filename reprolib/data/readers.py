"""Readers of the forms in which data sets circulate: .mat, CIFAR batches, zips, folders.

None runs code from a file: .mat goes through SciPy's reader, CIFAR through an unpickler that knows arrays only, images
through Pillow.
"""

import hashlib
import io
import math
import pickle
import zipfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from reprolib.data.images import Images, resize

IMAGE_ENDINGS = (".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
Arrays = tuple[np.ndarray, np.ndarray]  # pixels uint8 (n, h, w) or (n, c, h, w), labels (n,)


def joined(parts: Iterable[Arrays]) -> Arrays:
    """Pixels and labels of the parts, one after the other."""
    return tuple(map(np.concatenate, zip(*parts, strict=True)))


def read_digits() -> Arrays:
    """Return scikit-learn's digits rescaled to 0..255: uint8 (1797, 8, 8), labels (1797,)."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    return np.round(digits.images * (255 / 16)).astype(np.uint8), digits.target


def _to_uint8(values: np.ndarray, what: Path) -> np.ndarray:
    values = np.asarray(values, dtype=np.float64)
    if not np.isfinite(values).all() or values.min() < 0 or values.max() > 255:
        raise ValueError(f"{what}: pixels must be 0..255 or 0..1; got {values.min():g}..{values.max():g}.")
    return np.round(values * (255 if values.max() <= 1 else 1)).astype(np.uint8)


def read_mat(path: Path, image_shape: tuple[int, int]) -> Arrays:
    """Read a .mat of flattened images, `fea` (n, d) or `X`, and 1-based labels `gnd` or `Y`.

    MATLAB flattens by columns, so each image is transposed back. image_shape: (height, width), else square. Also reads
    UMIST's `facedat`, a cell of arrays (h, w, n_i), one for a person. Raises ValueError for other keys, non-image
    lengths, version 7.3 files and damaged files.
    """
    from scipy.io import loadmat

    try:
        content = loadmat(path)
    except Exception as error:  # SciPy raises many kinds, zlib's among them, for a damaged file
        why = f"cannot be read as a .mat ({error}). It is truncated or damaged."
        if isinstance(error, NotImplementedError):
            why = "is a version 7.3 .mat; save it again in MATLAB with '-v7'."
        raise ValueError(f"{path} {why}") from error
    if "facedat" in content:
        people = [np.moveaxis(p, 2, 0) for p in content["facedat"].ravel()]  # each (n_i, h, w)
        labels = np.repeat(np.arange(len(people)), [len(p) for p in people])
        return _to_uint8(np.concatenate(people), path), labels
    key, given = (next((k for k in known if k in content), "") for known in (("fea", "X"), ("gnd", "Y", "y")))
    if not key or not given:
        keys = ", ".join(k for k in content if not k.startswith("__")) or "none"
        raise ValueError(f"{path} must hold 'fea' and 'gnd', or 'X' and 'Y'; it holds: {keys}.")
    features, labels = content[key], np.unique(content[given], return_inverse=True)[1].ravel()
    if features.ndim != 2 or len(features) != len(labels):
        raise ValueError(f"{path}: '{key}' {features.shape} must have a row for each of {len(labels)} labels.")
    n, d = features.shape
    for channels in (3, 1):
        side = math.isqrt(d // channels)
        for height, width in (image_shape, (side, side)):
            if channels * height * width == d > 0:
                by_columns = _to_uint8(features, path).reshape(n, channels, width, height)
                return by_columns.transpose(0, 1, 3, 2), labels
    raise ValueError(f"{path}: {d} columns are no image of 1 or 3 channels that is square or {image_shape}.")


class _ArraysOnly(pickle.Unpickler):
    """Unpickles NumPy arrays and plain containers, and refuses every other name."""

    _rebuild = {(f"numpy.{core}.multiarray", "_reconstruct"): np.empty(0).__reduce__()[0] for core in ("core", "_core")}
    _allowed = _rebuild | {("numpy", "ndarray"): np.ndarray, ("numpy", "dtype"): np.dtype}

    def find_class(self, module: str, name: str) -> object:
        if (module, name) not in self._allowed:
            raise ValueError(f"the file asks to run {module}.{name}, which is refused")
        return self._allowed[module, name]


def read_cifar(folder: Path, files: Iterable[tuple[str, str]], labels_key: str) -> Arrays:
    """Read CIFAR's batches (file, MD5), in order; ValueError for a wrong MD5 or what would run code."""
    parts = []
    for file, md5 in files:
        data = (folder / file).read_bytes()
        if hashlib.md5(data, usedforsecurity=False).hexdigest() != md5:
            raise ValueError(f"{file} has the wrong checksum")
        batch = _ArraysOnly(io.BytesIO(data), encoding="latin1").load()
        pixels = np.asarray(batch["data"], np.uint8).reshape(-1, 3, 32, 32)
        parts.append((pixels, np.asarray(batch[labels_key], np.int64)))
    return joined(parts)


def _decode(stream: object, what: str) -> np.ndarray:
    """Decode one image into uint8 (1 or 3, h, w): upright, transparency over white."""
    from PIL import Image, ImageOps

    try:
        with Image.open(stream) as opened:
            image = ImageOps.exif_transpose(opened)
            if image.mode.startswith(("I", "F")):
                raise ValueError(f"{what}: {image.mode} pixels have more than 8 bits; convert it to 8 bits first.")
            if "A" in image.mode or "transparency" in image.info:
                white = Image.new("RGBA", image.size, "white")
                image = Image.alpha_composite(white, image.convert("RGBA")).convert("RGB")
            image = image.convert("L" if image.mode in ("1", "L") else "RGB")
    except (OSError, SyntaxError) as error:
        raise ValueError(f"{what} cannot be read as an image ({error}).") from error
    array = np.asarray(image)
    return array[None] if array.ndim == 2 else array.transpose(2, 0, 1)


def read_class_zip(path: Path) -> Arrays:
    """Read a zip of train/CLASS/*.jpg and test/CLASS/*.jpg: train first, classes by name.

    Raises ValueError when the zip is damaged, holds no such image, or the sizes differ.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            names = [n for n in sorted(archive.namelist()) if n.lower().endswith(IMAGE_ENDINGS) and n.count("/") == 2]
            names = [n for part in ("train/", "test/") for n in names if n.startswith(part)]
            images = [_decode(io.BytesIO(archive.read(n)), f"{path}: {n}") for n in names]
    except (zipfile.BadZipFile, EOFError) as error:
        raise ValueError(f"{path} is no readable zip ({error}). Copy it again.") from error
    if not names or len({i.shape for i in images}) != 1:
        raise ValueError(f"{path} must hold train/CLASS/*.jpg and test/CLASS/*.jpg of one size and colour mode.")
    labels = np.unique([n.split("/")[1] for n in names], return_inverse=True)[1]
    return np.stack(images), labels


def read_folder(folder: Path, size: int | tuple[int, int] | None = None) -> Images:
    """Read anyone's own images: FOLDER/CLASS/image files, or FOLDER/image files without labels.

    Classes are numbered in the order of the sub-folders' names. One-channel if all files are. size: int or (height,
    width) to which every image is stretched; needed when the sizes differ. Raises FileNotFoundError when there is no
    such folder; ValueError for no images, images both inside and beside sub-folders or deeper, unreadable files, or
    differing sizes.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"no folder {folder}; folder:PATH needs the path of a folder of images.")
    files = (path for path in sorted(folder.rglob("*")) if path.name.lower().endswith(IMAGE_ENDINGS))
    found = ((path, path.relative_to(folder).parts) for path in files)
    below = {path: parts for path, parts in found if not any(part[0] == "." for part in parts)}
    if not below:
        raise ValueError(f"{folder} holds no images; known endings: {', '.join(IMAGE_ENDINGS)}.")
    if deeper := [str(p) for p, parts in below.items() if len(parts) > 2]:
        raise ValueError(f"{folder}: only one level of sub-folders is read; {deeper[0]} lies deeper.")
    if len(set(map(len, below.values()))) > 1:
        raise ValueError(
            f"{folder} holds images both beside and inside sub-folders. Put every image into a sub-folder (its name "
            "is the label), or none."
        )
    opened = (Images(_decode(path, str(path))[None]) for path in below)
    images = [image if size is None else resize(image, size) for image in opened]
    sizes = ["{2}x{3}".format(*image.shape) for image in images]
    if len(set(sizes)) > 1:
        one, other = (f"{list(below)[i].name} {sizes[i]}" for i in sorted(map(sizes.index, set(sizes)))[:2])
        raise ValueError(
            f"{folder}: images have different sizes, such as {one} and {other} (height x width). Pass size=, for "
            "example size=64 (reprolib run: -p size=64)."
        )
    shape = max(i.shape for i in images)  # gray is repeated where others have colours
    pixels = np.concatenate([np.broadcast_to(i.pixels, shape) for i in images])
    classes = [parts[0] for parts in below.values() if len(parts) > 1]
    labels = np.unique(classes, return_inverse=True)[1] if classes else None
    record = next((i.transforms for i in images if i.transforms), {})
    return Images(pixels, labels, name=folder.name, transforms=record)
