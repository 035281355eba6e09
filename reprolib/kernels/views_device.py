"""The path of `views` on a GPU: one kernel, a program an image, from uint8 pixels to the normalised view.

`reprolib.kernels.views` holds the same mathematics in PyTorch. A view of up to BLOCK pixels stays in registers until
it is written; of a larger one each block is read twice, since contrast needs the mean of all. Needs triton.
"""

import math

import torch
import triton
import triton.language as tl
from torch import Tensor

from reprolib.kernels.recipes import DRAWS, LUMA, N_DRAWS, TRIES, Recipe

BLOCK = 1024  # pixels of an image handled at once

# what the kernel reads of this module: places of the uniform numbers, luma
_TRIES, _N_DRAWS = tl.constexpr(TRIES), tl.constexpr(N_DRAWS)
_RED, _GREEN, _BLUE = (tl.constexpr(share) for share in LUMA)
_AT = {name: tl.constexpr(place) for place, name in enumerate(DRAWS)}
_LEFT, _TOP, _RIGHT, _DOWN = (_AT[name] for name in ("left", "top", "right", "down"))
_ANGLE, _SLANT, _FLIP, _JITTER = (_AT[name] for name in ("angle", "slant", "flip", "jitter"))
_BRIGHTNESS, _CONTRAST, _SATURATION = (_AT[name] for name in ("brightness", "contrast", "saturation"))
_HUE, _GREY, _SIDE, _ROW, _COLUMN = (_AT[name] for name in ("hue", "grey", "side", "row", "column"))


def views_device(images: Tensor, drawn: Tensor, recipe: Recipe, mean: Tensor, std: Tensor) -> Tensor:
    """As `views`, which has checked the shapes and dtypes."""
    b, c, h, w = images.shape
    out = torch.empty(b, c, h, w, device=images.device, memory_format=torch.channels_last)
    numbers, flags = arguments(recipe, c, h, w)
    with torch.cuda.device_of(images):
        pointers = images, drawn.contiguous(), mean, std, out
        views_kernel[(b,)](*pointers, images.stride(), numbers, **flags, num_warps=warps(flags))
    return out


def arguments(recipe: Recipe, c: int, h: int, w: int) -> tuple[tuple[float, ...], dict[str, int]]:
    """The kernel's numbers, in its order, and its constants for images (c, h, w)."""
    numbers = (
        *recipe.crop,
        *(math.log(side * h / w) for side in recipe.ratio),
        *(math.radians(recipe.rotation), recipe.shear, 2 * recipe.shift, recipe.flip, recipe.jitter),
        *(*recipe.brightness, *recipe.contrast, *recipe.saturation, *recipe.hue, recipe.grey),
        recipe.largest_hole(h, w),
    )
    jitters = recipe.jitter > 0
    flags = {
        **{"C": c, "H": h, "W": w, "FITS": recipe.fits, "HOLE": recipe.cutout > 0},
        "CONTRAST": jitters and recipe.contrast != (1, 1),
        "COLOUR": c == 3 and (jitters or recipe.grey > 0),
        "BLOCK": min(BLOCK, triton.next_power_of_2(h * w)),
    }
    return tuple(map(float, numbers)), flags


def warps(flags: dict[str, int]) -> int:
    """Of a program, four pixels a thread."""
    return max(1, flags["BLOCK"] // 128)


@triton.jit
def _within(u, place, low, high):
    return low + (high - low) * tl.load(u + place)


@triton.jit
def _grey(red, green, blue, C: tl.constexpr):
    if C == 1:
        return red
    return _RED * red + _GREEN * green + _BLUE * blue


@triton.jit
def _blend(grey, red, green, blue, factor):
    red = tl.clamp(grey + factor * (red - grey), 0.0, 1.0)
    green = tl.clamp(grey + factor * (green - grey), 0.0, 1.0)
    blue = tl.clamp(grey + factor * (blue - grey), 0.0, 1.0)
    return red, green, blue


@triton.jit
def _turn(red, green, blue, turns):
    """As `views._turn`."""
    bottom = tl.minimum(tl.minimum(red, green), blue)
    top = tl.maximum(tl.maximum(red, green), blue)
    chroma = top - bottom
    most = tl.where(red == top, green - blue, tl.where(green == top, blue - red, red - green))
    part = most / tl.maximum(chroma, 1e-12) + tl.where(red == top, 0.0, tl.where(green == top, 2.0, 4.0))
    part += 6 * turns
    part -= 6 * tl.floor(part / 6)
    red = bottom + chroma * tl.clamp(tl.abs(part - 3) - 1, 0.0, 1.0)
    green = bottom + chroma * tl.clamp(2 - tl.abs(part - 2), 0.0, 1.0)
    blue = bottom + chroma * tl.clamp(2 - tl.abs(part - 4), 0.0, 1.0)
    return red, green, blue


@triton.jit
def _four(channel, strides, top, bottom, left, right, down, across, mask):
    """One channel between four pixels, 0 to 255."""
    upper = tl.load(channel + top * strides[2] + left * strides[3], mask, 0).to(tl.float32)
    upper += across * (tl.load(channel + top * strides[2] + right * strides[3], mask, 0).to(tl.float32) - upper)
    lower = tl.load(channel + bottom * strides[2] + left * strides[3], mask, 0).to(tl.float32)
    lower += across * (tl.load(channel + bottom * strides[2] + right * strides[3], mask, 0).to(tl.float32) - lower)
    return upper + down * (lower - upper)


@triton.jit
def _read(image, strides, matrix, sizes, brightness, pixel, C: tl.constexpr, H: tl.constexpr, W: tl.constexpr):
    """As `views._read` at the view's `pixel` (BLOCK,), then its brightness: three channels, of grey images alike."""
    mask = pixel < H * W
    column = (2 * (pixel % W) + 1).to(tl.float32) / W - 1
    row = (2 * (pixel // W) + 1).to(tl.float32) / H - 1
    x = matrix[0] * column + (matrix[1] * row + matrix[2])
    y = matrix[3] * column + (matrix[4] * row + matrix[5])
    covered = tl.clamp((1 - tl.abs(x)) * (W / 2 / sizes[0]) + 0.5, 0.0, 1.0)
    covered *= tl.clamp((1 - tl.abs(y)) * (H / 2 / sizes[1]) + 0.5, 0.0, 1.0)
    across = tl.clamp(((x + 1) * W - 1) / 2, 0.0, W - 1.0)
    down = tl.clamp(((y + 1) * H - 1) / 2, 0.0, H - 1.0)
    left, top = across.to(tl.int32), down.to(tl.int32)
    right, bottom = tl.minimum(left + 1, W - 1), tl.minimum(top + 1, H - 1)
    across -= left
    down -= top
    scale = covered * brightness / 255
    red = tl.clamp(scale * _four(image, strides, top, bottom, left, right, down, across, mask), 0.0, 1.0)
    green = red
    blue = red
    if C == 3:
        image += strides[1]
        green = tl.clamp(scale * _four(image, strides, top, bottom, left, right, down, across, mask), 0.0, 1.0)
        image += strides[1]
        blue = tl.clamp(scale * _four(image, strides, top, bottom, left, right, down, across, mask), 0.0, 1.0)
    return red, green, blue


@triton.jit
def views_kernel(
    images,
    drawn,
    mean,
    std,
    out,
    strides,
    numbers,
    C: tl.constexpr,
    H: tl.constexpr,
    W: tl.constexpr,
    FITS: tl.constexpr,
    HOLE: tl.constexpr,
    CONTRAST: tl.constexpr,
    COLOUR: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Views of `images` with `strides` into `out`, channels last; `numbers` and constants as from `arguments`."""
    crop_low, crop_high, shape_low, shape_high, rotation, shear, shift, flip, jitter = numbers[:9]
    brightness_low, brightness_high, contrast_low, contrast_high = numbers[9:13]
    saturation_low, saturation_high, hue_low, hue_high, grey, hole = numbers[13:]
    n = tl.program_id(0).to(tl.int64)
    u = drawn + n * _N_DRAWS
    # as `views.changes`
    area = tl.log(_within(u, 0, crop_low, crop_high))
    shape = _within(u, 1, shape_low, shape_high)
    for k in tl.static_range(1, _TRIES + 1):  # from the last to the first, which stays where none fits
        new_area = tl.log(_within(u, 2 * (_TRIES - k), crop_low, crop_high))
        new_shape = _within(u, 2 * (_TRIES - k) + 1, shape_low, shape_high)
        fits = (tl.abs(new_shape) <= -new_area) | (not FITS)
        area, shape = tl.where(fits, new_area, area), tl.where(fits, new_shape, shape)
    if FITS:
        shape = tl.clamp(shape, area, -area)
    width, height = tl.exp((area + shape) / 2), tl.exp((area - shape) / 2)
    angle, slant = _within(u, _ANGLE, -rotation, rotation), _within(u, _SLANT, -shear, shear)
    sign = tl.where(tl.load(u + _FLIP) < flip, -1.0, 1.0)
    cos, sin = tl.cos(angle), tl.sin(angle)
    x = (1 - width) * (2 * tl.load(u + _LEFT) - 1) + _within(u, _RIGHT, -shift, shift)
    y = (1 - height) * (2 * tl.load(u + _TOP) - 1) + _within(u, _DOWN, -shift, shift)
    first = cos * sign * width, (cos * slant - sin) * height * (H / W), x
    second = sin * sign * width * (W / H), (sin * slant + cos) * height, y
    matrix = first + second
    jitters = tl.load(u + _JITTER) < jitter
    brightness = tl.where(jitters, _within(u, _BRIGHTNESS, brightness_low, brightness_high), 1.0)
    contrast = tl.where(jitters, _within(u, _CONTRAST, contrast_low, contrast_high), 1.0)
    saturation = tl.where(jitters, _within(u, _SATURATION, saturation_low, saturation_high), 1.0)
    hue = tl.where(jitters, _within(u, _HUE, hue_low, hue_high), 0.0)
    greys = tl.load(u + _GREY) < grey
    side = 1 + tl.floor(tl.load(u + _SIDE) * hole)
    first_row = tl.floor(tl.load(u + _ROW) * H) - tl.floor(side / 2)
    first_column = tl.floor(tl.load(u + _COLUMN) * W) - tl.floor(side / 2)

    image = images + n * strides[0]
    view = out + n * (H * W * C)
    offsets = tl.arange(0, BLOCK)
    red, green, blue = _read(image, strides, matrix, (width, height), brightness, offsets, C, H, W)
    mean_grey = 0.0
    if CONTRAST:
        total = _grey(red, green, blue, C)  # 0 past the last pixel
        for start in range(BLOCK, H * W, BLOCK):
            pixel = start + offsets
            red, green, blue = _read(image, strides, matrix, (width, height), brightness, pixel, C, H, W)
            total += _grey(red, green, blue, C)
        mean_grey = tl.sum(total) / (H * W)
    for start in range(0, H * W, BLOCK):
        pixel = start + offsets
        if H * W > BLOCK:  # else they are at hand
            red, green, blue = _read(image, strides, matrix, (width, height), brightness, pixel, C, H, W)
        if CONTRAST:
            red, green, blue = _blend(mean_grey, red, green, blue, contrast)
        if COLOUR:
            luma = _grey(red, green, blue, C)
            red, green, blue = _blend(luma, red, green, blue, saturation)
            red, green, blue = _turn(red, green, blue, hue)
            luma = _grey(red, green, blue, C)
            red, green, blue = tl.where(greys, luma, red), tl.where(greys, luma, green), tl.where(greys, luma, blue)
        kept = 1.0
        if HOLE:
            row, column = pixel // W - first_row, pixel % W - first_column
            kept = tl.where((row >= 0) & (row < side) & (column >= 0) & (column < side), 0.0, 1.0)
        mask = pixel < H * W
        tl.store(view + pixel * C, kept * (red - tl.load(mean)) / tl.load(std), mask)
        if C == 3:
            tl.store(view + pixel * C + 1, kept * (green - tl.load(mean + 1)) / tl.load(std + 1), mask)
            tl.store(view + pixel * C + 2, kept * (blue - tl.load(mean + 2)) / tl.load(std + 2), mask)
