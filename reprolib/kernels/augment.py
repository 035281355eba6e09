"""Random changes of images, each sample its own, in one pass on the device: no loop over samples, no wait."""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

N_DRAWS = 10  # uniform numbers a sample, used or not, so that one setting does not move another's draws


def augment(
    images: Tensor,
    generator: torch.Generator | None = None,
    *,
    rotation: float = 0.0,
    scale: float = 0.0,
    shift: float = 0.0,
    shear: float = 0.0,
    erasing: float = 0.0,
    flip: float = 0.0,
) -> Tensor:
    """Images (b, c, h, w), each turned, scaled, moved, sheared, mirrored and partly erased at random; new, float.

    Uniform in both directions: `rotation` up to so many degrees; `scale`, the factor 1 up to +- this, below 1;
    `shift` along each axis, up to this share of the side; `shear`, up to this share of the height from the middle;
    `erasing`, a rectangle within the image, each of its sides up to this share; `flip`, the probability of a mirror
    image, left to right. Bilinear; what comes from outside, or is erased, is 0. `generator` on the device of the
    images. O(bchw). Differentiable in the images.
    """
    b, _, h, w = images.shape
    drawn = torch.rand(b, N_DRAWS, generator=generator, device=images.device, dtype=images.dtype)
    angle, zoom, right, down, slant, mirror, *box = drawn.unbind(1)  # (b,) each
    angle = math.radians(rotation) * (2 * angle - 1)
    zoom = 1 / (1 + scale * (2 * zoom - 1))
    slant = shear * (2 * slant - 1)
    sign = 1 - 2 * (mirror < flip).to(images.dtype)
    cos, sin = angle.cos() * zoom, angle.sin() * zoom
    right, down = (2 * shift * (2 * u - 1) for u in (right, down))
    matrix = placement(cos, sin, slant, sign, right, down, h, w)
    grid = F.affine_grid(matrix, list(images.shape), align_corners=False)  # (b, h, w, 2)
    moved = F.grid_sample(images, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
    rows, columns = (_within(n, erasing, *box[i : i + 2]) for i, n in ((0, h), (2, w)))
    erased = rows[:, :, None] & columns[:, None]  # (b, h, w)
    return moved.masked_fill(erased[:, None], 0.0)


def placement(
    cos: Tensor, sin: Tensor, slant: Tensor, across: Tensor, right: Tensor, down: Tensor, h: int, w: int
) -> Tensor:
    """Where a pixel at (x, y) from the middle is read: matrices (b, 2, 3), halves of a side being 1, as `affine_grid`.

    Rotation times shear times mirror, then moved. All (b,): `cos` and `sin` carry the size of what is read, `across`
    its width by its height, negative for a mirror image.
    """
    return torch.stack(
        [*(cos * across, (cos * slant - sin) * (h / w), right), *(sin * across * (w / h), sin * slant + cos, down)], 1
    ).view(-1, 2, 3)


def _within(n: int, share: float, length: Tensor, start: Tensor) -> Tensor:
    """Which pixels (b, n) of a side have their middle in a piece: both uniform (b,), its length and its place."""
    length = n * share * length
    begin = (n - length) * start
    middle = torch.arange(n, device=length.device, dtype=length.dtype) + 0.5
    return (middle >= begin[:, None]) & (middle < (begin + length)[:, None])
