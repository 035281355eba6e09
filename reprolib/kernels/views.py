"""Random views of images that stay on the device as uint8: each sample its own, no loop over samples, no wait.

A `Recipe` says how far views differ, `draw` draws all numbers up front, `views` applies them: one bilinear reading for
all geometry, then colour, then normalisation. On CUDA `reprolib.kernels.views_device` does it in one kernel.
"""

import importlib.util
import math
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from reprolib.kernels.augment import placement
from reprolib.kernels.recipes import DRAWS, LUMA, N_DRAWS, RECIPES, TRIES, Recipe, draw

__all__ = ["N_DRAWS", "RECIPES", "Changes", "Recipe", "changes", "draw", "views"]

HAS_TRITON = importlib.util.find_spec("triton") is not None  # comes with torch where there is CUDA


class Changes(NamedTuple):
    """What happens to each image, (b,) each."""

    width: Tensor  # of the crop, shares of the image's sides
    height: Tensor
    x: Tensor  # the middle of the crop from that of the image; half a side is 1
    y: Tensor
    angle: Tensor  # radians
    slant: Tensor
    mirrored: Tensor
    brightness: Tensor  # factors
    contrast: Tensor
    saturation: Tensor
    hue: Tensor  # turns
    grey: Tensor
    top: Tensor  # first row and column of the hole, and its side: whole pixels
    left: Tensor
    side: Tensor


def views(images: Tensor, drawn: Tensor, recipe: Recipe, mean: Tensor, std: Tensor) -> Tensor:
    """One view of each image (b, c, h, w), uint8, c 1 or 3: new, float32, channels_last, normalised.

    `drawn` (b, N_DRAWS) as from `draw`; `mean` and `std` (c,) of pixels from 0 to 1; all float32 on the images'
    device. The same numbers give the same views on every device, up to rounding. No gradient. O(bchw).

    Unlike torchvision's: crops begin between pixels too, and are read past their edge where the image goes on; colour
    is changed in one fixed order, and not rounded to 8 bits after each change. Where none of TRIES crops fits, the
    first keeps its area and its ratio is clamped. Raises TypeError (dtypes), ValueError (shapes).
    """
    _check(images, drawn, mean, std)
    if images.is_cuda and HAS_TRITON:
        from reprolib.kernels.views_device import views_device

        return views_device(images, drawn, recipe, mean, std)
    return vectorised(images, drawn, recipe, mean, std)


@torch.no_grad()
def vectorised(images: Tensor, drawn: Tensor, recipe: Recipe, mean: Tensor, std: Tensor) -> Tensor:
    """As `views`, in PyTorch alone."""
    h, w = images.shape[2:]
    how = changes(drawn, recipe, h, w)
    pixels = _recolour(_read(images, how), how, recipe)  # (b, c, h, w), 0 to 1
    pixels = pixels.sub_(mean[:, None, None]).div_(std[:, None, None])
    if recipe.cutout:
        rows, columns = (_within(n, begin, how.side) for n, begin in ((h, how.top), (w, how.left)))
        pixels.masked_fill_((rows[:, :, None] & columns[:, None])[:, None], 0.0)
    return pixels.contiguous(memory_format=torch.channels_last)


def changes(drawn: Tensor, recipe: Recipe, h: int, w: int) -> Changes:
    """What the numbers (b, N_DRAWS) mean for images of h x w pixels."""
    u = dict(zip(DRAWS, drawn.unbind(1), strict=True))  # (b,) each

    def within(name: str, low: float, high: float) -> Tensor:
        return low + (high - low) * u[name]

    # logarithms of the area and of the width by the height, in shares of the image's sides: (b, TRIES), then (b,)
    low, high = (math.log(side * h / w) for side in recipe.ratio)
    areas = (recipe.crop[0] + (recipe.crop[1] - recipe.crop[0]) * drawn[:, : 2 * TRIES : 2]).log()
    shapes = low + (high - low) * drawn[:, 1 : 2 * TRIES : 2]
    first = (shapes.abs() <= (-areas if recipe.fits else math.inf)).int().argmax(1, keepdim=True)  # else 0
    area, shape = (x.gather(1, first)[:, 0] for x in (areas, shapes))
    if recipe.fits:
        shape = shape.clamp(area, -area)
    width, height = ((area + shape) / 2).exp(), ((area - shape) / 2).exp()
    shift = 2 * recipe.shift
    jittered = u["jitter"] < recipe.jitter
    colours = (
        torch.where(jittered, within(name, *getattr(recipe, name)), neutral)
        for name, neutral in (("brightness", 1.0), ("contrast", 1.0), ("saturation", 1.0), ("hue", 0.0))
    )
    side = 1 + (u["side"] * recipe.largest_hole(h, w)).floor()
    corner = ((u[name] * n).floor() - (side / 2).floor() for name, n in (("row", h), ("column", w)))
    return Changes(
        width,
        height,
        (1 - width) * (2 * u["left"] - 1) + within("right", -shift, shift),
        (1 - height) * (2 * u["top"] - 1) + within("down", -shift, shift),
        within("angle", -math.radians(recipe.rotation), math.radians(recipe.rotation)),
        within("slant", -recipe.shear, recipe.shear),
        u["flip"] < recipe.flip,
        *colours,
        u["grey"] < recipe.grey,
        *corner,
        side,
    )


def _check(images: Tensor, drawn: Tensor, mean: Tensor, std: Tensor) -> None:
    if images.dtype != torch.uint8:
        raise TypeError(f"images must be uint8, got {images.dtype}")
    if {x.dtype for x in (drawn, mean, std)} != {torch.float32}:
        raise TypeError(f"drawn, mean and std must be float32, got {drawn.dtype}, {mean.dtype}, {std.dtype}")
    if images.ndim != 4 or images.shape[1] not in (1, 3) or not images.numel():
        raise ValueError(f"images must be (b, c, h, w), not empty, c 1 or 3, got {tuple(images.shape)}")
    expected = {"drawn": (len(images), N_DRAWS), "mean": images.shape[1:2], "std": images.shape[1:2]}
    for (name, shape), x in zip(expected.items(), (drawn, mean, std), strict=True):
        if x.shape != shape:
            raise ValueError(f"{name} must be {tuple(shape)} for these images, got {tuple(x.shape)}")


def _read(images: Tensor, how: Changes) -> Tensor:
    """The images read where the views' pixels lie, bilinear: float32 from 0 to 1, black outside.

    The border of the image fades over one pixel of the crop, so a crop within the image sees nothing of it.
    """
    h, w = images.shape[2:]
    across = torch.where(how.mirrored, -1.0, 1.0) * how.width / how.height
    cos, sin = how.angle.cos() * how.height, how.angle.sin() * how.height
    matrix = placement(cos, sin, how.slant, across, how.x, how.y, h, w)[..., None]  # (b, 2, 3, 1)
    columns, rows = ((2 * torch.arange(n, device=images.device) + 1) / n - 1 for n in (w, h))
    places, covered = [], 1 / 255
    for line, size, n in zip(matrix.unbind(1), (how.width, how.height), (w, h), strict=True):
        place = (line[:, 0] * columns)[:, None] + (line[:, 1] * rows + line[:, 2])[:, :, None]  # (b, h, w)
        pixels = place.abs().neg_().add_(1).mul_(n / 2 / size[:, None, None])  # of the crop, to the border
        covered = pixels.add_(0.5).clamp_(0, 1).mul_(covered)
        places.append(place)
    grid = torch.stack(places, 3)
    found = F.grid_sample(images.float(), grid, mode="bilinear", padding_mode="border", align_corners=False)
    return found.mul_(covered[:, None])


def _recolour(x: Tensor, how: Changes, recipe: Recipe) -> Tensor:
    """Brightness, contrast, saturation, hue, grey of x (b, c, h, w) from 0 to 1, which is overwritten."""
    factor = {name: getattr(how, name)[:, None, None, None] for name in ("brightness", "contrast", "saturation")}
    if recipe.jitter and recipe.brightness != (1, 1):
        x = x.mul_(factor["brightness"]).clamp_(0, 1)
    if recipe.jitter and recipe.contrast != (1, 1):
        x = _blend(_grey(x).mean((2, 3), keepdim=True), x, factor["contrast"])
    if x.shape[1] == 1:
        return x
    if recipe.jitter and recipe.saturation != (1, 1):
        x = _blend(_grey(x), x, factor["saturation"])
    if recipe.jitter and recipe.hue != (0, 0):
        x = _turn(x, how.hue[:, None, None])
    return torch.where(how.grey[:, None, None, None], _grey(x), x, out=x) if recipe.grey else x


def _grey(x: Tensor) -> Tensor:
    """(b, 1, h, w) of (b, c, h, w)."""
    if x.shape[1] == 1:
        return x
    red, green, blue = LUMA
    return (x[:, 0] * red).add_(x[:, 1], alpha=green).add_(x[:, 2], alpha=blue)[:, None]


def _blend(other: Tensor, x: Tensor, factor: Tensor) -> Tensor:
    """Of x (b, c, h, w), in place."""
    return torch.lerp(other, x, factor, out=x).clamp_(0, 1)


def _turn(x: Tensor, turns: Tensor) -> Tensor:
    """Colours (b, 3, h, w) with their hue turned by `turns` (b, 1, 1), in place; value and saturation stay.

    Over the six parts of the hue each channel is a trapezium between the smallest and the largest of the three.
    """
    red, green, blue = x.unbind(1)  # (b, h, w) each
    bottom, top = x.amin(1), x.amax(1)
    chroma = top - bottom
    part = torch.where(green == top, blue - red, red - green).div_(chroma.clamp(min=1e-12))
    part += torch.where(green == top, 2.0, 4.0)
    part = torch.where(red == top, (green - blue) / chroma.clamp(min=1e-12), part)
    part = part.add_(6 * turns).remainder_(6)
    torch.sub(part, 3, out=red).abs_().sub_(1)
    for channel, middle in ((green, 2), (blue, 4)):
        torch.sub(part, middle, out=channel).abs_().neg_().add_(2)
    return x.clamp_(0, 1).mul_(chroma[:, None]).add_(bottom[:, None])


def _within(n: int, begin: Tensor, side: Tensor) -> Tensor:
    """Which of n pixels (b, n) lie in a piece of `side` from `begin` (b,)."""
    offset = torch.arange(n, device=begin.device) - begin[:, None]
    return (offset >= 0) & (offset < side[:, None])
