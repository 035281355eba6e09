"""Which views of an image are drawn: ranges, probabilities, and the uniform numbers that decide within them."""

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

TRIES = 3  # crops a sample, of which the first that fits is taken: 0.3 % of SimCLR's fit in none
# uniform numbers a sample, used or not, so that one setting does not move another's draws
DRAWS = (
    *(f"{what} {k}" for k in range(TRIES) for what in ("area", "ratio")),
    *("left", "top", "angle", "slant", "right", "down", "flip"),
    *("jitter", "brightness", "contrast", "saturation", "hue", "grey", "side", "row", "column"),
)
N_DRAWS = len(DRAWS)

LUMA = (0.2989, 0.587, 0.114)  # of red, green and blue in grey, as torchvision has it

Range = tuple[float, float]


@dataclass(frozen=True)
class Recipe:
    """How far views differ from their image; by default not at all. All ranges are uniform, but for `ratio`.

    Geometry: `crop`, the area as a share of the image's, where what is read from outside is black; `ratio`, its width
    by its height, log-uniform; both as torchvision's RandomResizedCrop. The crop turns around its own middle by up to
    `rotation` degrees, is sheared by up to `shear` of the height from the middle, moves by up to `shift` of the
    image's side along each axis, and is mirrored with probability `flip`.
    Colour: with probability `jitter` all four of `brightness`, `contrast`, `saturation` (factors) and `hue` (turns),
    as torchvision's ColorJitter, always in this order; then with probability `grey` no colour. Images of one channel
    have neither saturation nor hue. `cutout`: one square, its side one pixel up to this share of the shorter side, its
    middle any pixel, is 0 after normalisation. ValueError for a range or a probability that cannot be.
    """

    crop: Range = (1.0, 1.0)
    ratio: Range = (1.0, 1.0)
    rotation: float = 0.0
    shear: float = 0.0
    shift: float = 0.0
    flip: float = 0.0
    jitter: float = 0.0
    brightness: Range = (1.0, 1.0)
    contrast: Range = (1.0, 1.0)
    saturation: Range = (1.0, 1.0)
    hue: Range = (0.0, 0.0)
    grey: float = 0.0
    cutout: float = 0.0

    def __post_init__(self) -> None:
        for name in ("crop", "ratio", "brightness", "contrast", "saturation", "hue"):
            low, high = getattr(self, name)
            least, most = (-0.5, 0.5) if name == "hue" else (0.0, math.inf)
            if not least <= low <= high <= most or (name in ("crop", "ratio") and not low):
                above = "above 0" if name in ("crop", "ratio") else f"from {least} to {most}"
                raise ValueError(f"{name} must be a range (low, high) {above}, got {getattr(self, name)}")
        for name in ("rotation", "shear", "shift", "flip", "jitter", "grey", "cutout"):
            value, most = getattr(self, name), math.inf if name in ("rotation", "shear", "shift") else 1.0
            if not 0 <= value <= most:
                raise ValueError(f"{name} must be from 0 to {most}, got {value}")

    @property
    def fits(self) -> bool:
        """Whether a crop lies within the image, before it is turned, sheared and moved."""
        return self.crop[1] <= 1

    def largest_hole(self, h: int, w: int) -> int:
        """Side of the largest hole, in pixels."""
        return max(1, int(self.cutout * min(h, w)))


RATIO, FACTOR = (3 / 4, 4 / 3), (0.6, 1.4)
# Of SCAN's strong set: four of fourteen operations a view. Those that are ranges of ours act here in every view, with
# about the same mean square; autocontrast, equalising, solarising, posterising, sharpness and the shear of columns
# are left out
DARKER = (0.35, 1.0)
STRONG = Recipe(
    rotation=15.0,
    shear=0.05,
    shift=0.05,
    flip=0.5,
    jitter=0.6,
    brightness=DARKER,
    contrast=DARKER,
    saturation=DARKER,
    cutout=0.5,
)
SIMCLR = Recipe(
    crop=(0.2, 1.0),
    ratio=RATIO,
    flip=0.5,
    jitter=0.8,
    brightness=FACTOR,
    contrast=FACTOR,
    saturation=FACTOR,
    hue=(-0.1, 0.1),
    grey=0.2,
)
WHOLE = Recipe(crop=(0.7, 1.2), ratio=RATIO, rotation=12.0, shear=0.2)
RECIPES: dict[str, Recipe] = {
    "simclr": SIMCLR,  # the pretext task of the released SCAN code: no blur
    "strong": STRONG,
    "digits": replace(WHOLE, cutout=0.4),
    "whole-digits": WHOLE,
    "fashion": Recipe(crop=(0.4, 1.0), ratio=RATIO, flip=0.5, jitter=0.8, brightness=FACTOR, contrast=FACTOR),
}


def draw(n: int, generator: torch.Generator | None = None, device: torch.device | str = "cpu") -> Tensor:
    """The uniform numbers (n, N_DRAWS), float32, of n views; `generator` on `device`."""
    return torch.rand(n, N_DRAWS, generator=generator, device=device)
