"""Images with labels that a method cannot read, and the forms of input that methods accept."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:  # torch takes seconds to import, and most who load images do not need it
    import torch


class LabelsSealedError(RuntimeError):
    """Raised when true labels are read while a method is being fitted."""


_seals: list[None] = []  # one for each block that is open, whatever the thread


@contextmanager
def sealed_labels() -> Iterator[None]:
    """Make every `Images.labels` raise `LabelsSealedError` inside the block; may be nested."""
    # no context variable: a thread started by a method must not escape the seal
    _seals.append(None)
    try:
        yield
    finally:
        _seals.pop()


class Images:
    """Images with their name, hidden labels and the transforms that made them.

    pixels: uint8 (n, h, w) or (n, c, h, w), c = 1 or 3, kept as the latter; labels: integers >= 0 (n,) or None;
    transforms: what was done after loading, in order, as it goes into a run record. ValueError or TypeError for wrong
    shapes, dtypes, labels.
    """

    def __init__(self, pixels: Any, labels: Any = None, *, name: str = "array", transforms: dict | None = None) -> None:
        pixels = np.asarray(pixels)
        if pixels.dtype != np.uint8:
            raise TypeError(
                f"Images holds uint8 pixels 0..255; got dtype {pixels.dtype}. Convert explicitly, for values in 0..1 "
                "with (255 * x).round().astype(numpy.uint8)."
            )
        self.pixels = _with_channels(pixels)  # (n, c, h, w)
        self.name, self.transforms, self.__labels = name, dict(transforms or {}), None
        if labels is not None:
            labels, n = np.asarray(labels), self.n
            if labels.shape != (n,):
                raise ValueError(f"labels must be one integer an image, shape ({n},); got shape {labels.shape}.")
            if labels.dtype.kind not in "iu":
                raise TypeError(f"labels must be integers; got dtype {labels.dtype}.")
            if n and labels.min() < 0:
                raise ValueError(f"labels must be >= 0; the smallest is {labels.min()}. Pass None if there are none.")
            self.__labels = labels.astype(np.int64)

    @property
    def labels(self) -> np.ndarray | None:
        """True classes int64 (n,), or None; raises `LabelsSealedError` inside `sealed_labels()`."""
        if _seals:
            raise LabelsSealedError(
                f"the labels of {self.name!r} are sealed while a method is fitted. Clustering must not see them; to "
                "draw curves, take a copy before the fit and give it to a monitor."
            )
        return self.__labels

    @property
    def n(self) -> int:
        return len(self.pixels)

    @property
    def shape(self) -> tuple[int, int, int, int]:
        return self.pixels.shape

    @property
    def sha256(self) -> str:
        """Hash of the pixels and, if any, the labels, with their shapes; computed anew at each call."""
        digest = hashlib.sha256()
        for what, dtype, array in (("pixels", "|u1", self.pixels), ("labels", "<i8", self.__labels)):
            if array is not None:
                digest.update(f"{what} {dtype} {array.shape}\n".encode())
                digest.update(np.ascontiguousarray(array, dtype=dtype).data)
        return digest.hexdigest()

    def take(self, indices: Any) -> "Images":
        """Select images by indices or a slice, labels included; the transforms are carried over."""
        labels = None if self.__labels is None else self.__labels[indices]
        return Images(self.pixels[indices], labels, name=self.name, transforms=self.transforms)

    def transformed(self, pixels: np.ndarray, **record: Any) -> "Images":
        """Return the images with other pixels (n, c, h, w) and the transform recorded."""
        return Images(pixels, self.__labels, name=self.name, transforms=self.transforms | record)

    def __len__(self) -> int:
        return len(self.pixels)

    def __repr__(self) -> str:
        known = "no labels" if self.__labels is None else f"{len(np.unique(self.__labels))} classes"
        return f"Images({self.name!r}, shape={self.shape}, {known}, transforms={self.transforms})"


def _with_channels(array: np.ndarray) -> np.ndarray:
    if array.ndim == 3:
        array = array[:, None]  # (n, 1, h, w)
    if array.ndim != 4:
        raise ValueError(
            f"images must have shape (n, h, w) or (n, c, h, w); got {array.shape}. Reshape your data where they are "
            "rows of flattened pixels."
        )
    wrong = array.shape[1] not in (1, 3)
    if wrong or 0 in array.shape[2:]:
        hint = " Move the channels first: x.transpose(0, 3, 1, 2)." if wrong and array.shape[3] in (1, 3, 4) else ""
        raise ValueError(f"images (n, c, h, w) must have c = 1 or 3 and at least one pixel; got {array.shape}.{hint}")
    return np.ascontiguousarray(array)


def _refuse_identical(array: np.ndarray, what: str) -> None:
    if (array == array[:1]).all():
        raise ValueError(f"all {len(array)} {what} are identical: nothing to cluster. Check how they were loaded.")


def as_pixels(X: Any, *, to_cluster: bool = True) -> np.ndarray:
    """Return images as an array (n, c, h, w), unscaled: uint8 stays uint8, any float becomes float32.

    X: Images, or a uint8 or float array (n, h, w) or (n, c, h, w) with c = 1 or 3. Raises TypeError for another dtype;
    ValueError for another shape, NaN or infinity, and, to be clustered, for fewer than 2, constant or identical ones.
    """
    array = X.pixels if isinstance(X, Images) else np.asarray(X)
    if array.dtype != np.uint8 and array.dtype.kind != "f":
        raise TypeError(
            f"images must be uint8 (0..255) or float; got dtype {array.dtype}. Convert explicitly, for whole numbers "
            "0..255 with .astype(numpy.uint8)."
        )
    array, least = _with_channels(array), 1 + to_cluster
    if len(array) < least:
        raise ValueError(f"at least {least} images are needed; got {len(array)}.")
    if array.dtype != np.uint8:
        with np.errstate(over="ignore"):  # an overflow is refused just below
            array = array.astype(np.float32)
        bad = ~np.isfinite(array).all(axis=(1, 2, 3))
        if bad.any():
            raise ValueError(
                f"pixels must be finite in float32; {bad.sum()} of {len(array)} images hold NaN, infinity or an "
                f"overflow, the first is image {bad.argmax()}. Remove or repair them."
            )
    if to_cluster:
        if (array == array[:, :1, :1, :1]).all():
            raise ValueError(f"all {len(array)} images are constant, each a single value. Check how they were loaded.")
        _refuse_identical(array, "images")
    return array


def check_features(X: object, *, min_samples: int = 2) -> np.ndarray:
    """Return X as float32 features (n, d), C-contiguous.

    Raises as scikit-learn's `check_array` does: TypeError when X is sparse, ValueError when it is not 2-D, real and
    numeric, has fewer than min_samples rows or no column, or is not finite in float32.
    """
    from sklearn.utils import check_array  # who only loads images does not wait for it

    with np.errstate(over="ignore"):  # an overflow is refused as infinite
        return check_array(X, dtype=np.float32, order="C", ensure_min_samples=min_samples)


def is_features(X: Any) -> bool:
    """Tell features (n, d) from images, by the shape alone."""
    return len(getattr(X, "shape", None) or np.asarray(X).shape) == 2


def as_features(X: Any) -> np.ndarray:
    """Return float32 features (n, d): features as they are, images flattened, values unscaled.

    X: whatever `as_pixels` takes, or numbers (n, d). Raises as `as_pixels` and `check_features` do.
    """
    if not is_features(X):
        pixels = as_pixels(X)
        return pixels.reshape(len(pixels), -1).astype(np.float32)  # (n, d)
    features = check_features(X)
    _refuse_identical(features, "samples")
    return features


def to_float_images(pixels: np.ndarray) -> "torch.Tensor":
    """uint8 images (n, c, h, w) to float32 in [0, 1], channels last; float images keep their values."""
    import torch

    images = torch.from_numpy(pixels)
    images = images.float().div_(255.0) if images.dtype == torch.uint8 else images.float()
    return images.contiguous(memory_format=torch.channels_last)


def to_gray(images: Images) -> Images:
    """Convert to one channel by ITU-R 601-2 luma, rounded as Pillow does; gray stays as it is."""
    if images.shape[1] == 1:
        return images
    red, green, blue = np.moveaxis(images.pixels.astype(np.uint32), 1, 0)  # each (n, h, w)
    gray = (19595 * red + 38470 * green + 7471 * blue + 32768) >> 16
    return images.transformed(gray[:, None].astype(np.uint8), gray="ITU-R 601-2 luma")


def resize(images: Images, size: Any) -> Images:
    """Resize to an int or (height, width), stretched: antialiased bilinear, in uint8; ValueError for another size."""
    pair = np.asarray(size)
    if pair.dtype.kind not in "iu" or pair.shape not in ((), (2,)) or pair.min() < 1:
        raise ValueError(f"size must be a whole number >= 1 or a pair (height, width); got {size!r}.")
    pair = np.broadcast_to(pair, 2).tolist()
    if list(images.shape[2:]) == pair:
        return images
    import torch
    from torch.nn.functional import interpolate

    out = np.empty((*images.shape[:2], *pair), dtype=np.uint8)
    for start in range(0, images.n, 1024):
        part = torch.tensor(images.pixels[start : start + 1024], dtype=torch.float32)
        part = interpolate(part, pair, mode="bilinear", antialias=True, align_corners=False)
        out[start : start + 1024] = part.round_().clamp_(0, 255).to(torch.uint8).numpy()
    return images.transformed(out, size=pair, resize="bilinear, antialiased")
