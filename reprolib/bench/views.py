"""Views of images a second beside torchvision's transforms, one image after the other, and kornia's: part of `bench`.

All run in turn in one process on the CPU, from uint8 images to normalised float32 views; the recipe is the same, the
draws are each one's own. kornia is left out where it is not installed. The floor is what the operations and the bytes
of a view take at the rates of a matrix product and a copy.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torchvision.transforms import InterpolationMode, v2

from reprolib.bench import timing
from reprolib.bench.steps import WIDTH
from reprolib.kernels.views import N_DRAWS, RECIPES, Recipe, draw, views
from reprolib.report.tables import Table

KINDS = (("digits", 1, 16), ("fashion", 1, 28), ("simclr", 3, 32))  # recipe, channels, side
FLOPS = 50  # of a channel of a pixel: its place, four neighbours, colour
QUICK = {"kinds": (("simclr", 3, 8),), "size": 8, "repeats": 1}
OURS, LOOP, KORNIA = "ours", "torchvision, a loop", "kornia"


def cost(b: int, c: int, h: int, w: int) -> dict[str, int]:
    """FLOPs of b views and bytes that must move, uint8 in and float32 out."""
    return {"flops": FLOPS * b * c * h * w, "bytes": 5 * b * c * h * w + 4 * b * N_DRAWS}


def measure(*, kinds: tuple[tuple[str, int, int], ...] = KINDS, size: int = 512, repeats: int = 5) -> dict[str, Any]:
    """Seconds of `size` views of random images, by recipe and shape.

    Returns {"size", "rates": FLOP/s and bytes/s, "views": {"simclr, 3x32x32": {way: s, "floor": s}}}, each the
    smallest of `repeats`; prints a table.
    """
    source = torch.zeros(1 << 26, dtype=torch.uint8)
    target = torch.ones_like(source)
    copied = timing.measure({"": lambda: target.copy_(source)}, repeats)[""]["seconds"]
    rates = {"product": timing.gemm_ceiling(WIDTH, "float32"), "copy": 2 * source.nbytes / copied}
    found: dict[str, Any] = {"size": size, "rates": rates, "views": {}}
    generator = torch.Generator().manual_seed(0)
    for name, c, side in kinds:
        images = torch.randint(0, 256, (size, c, side, side), dtype=torch.uint8, generator=generator)
        works = ways(RECIPES[name], images, generator)
        for work in works.values():
            work()  # imports and allocates
        needs = cost(*images.shape)
        row = {way: entry["seconds"] for way, entry in timing.measure(works, repeats).items()}
        row["floor"] = max(needs["flops"] / rates["product"], needs["bytes"] / rates["copy"])
        found["views"][f"{name}, {c}x{side}x{side}"] = row
    print(f"\n{table(found)}", flush=True)
    return found


def ways(recipe: Recipe, images: Tensor, generator: torch.Generator) -> dict[str, Callable[[], Tensor]]:
    """What makes a view of each image (b, c, h, w), by name."""
    mean = std = torch.full(images.shape[1:2], 0.5)
    one = loop(recipe, *images.shape[1:])
    found = {
        OURS: lambda: views(images, draw(len(images), generator), recipe, mean, std),
        LOOP: lambda: torch.stack([one(image) for image in images]),
    }
    try:
        found[KORNIA] = partial(batch(recipe, *images.shape[1:]), images)
    except ImportError as error:
        print(f"kornia is left out: {error}")
    return found


def loop(recipe: Recipe, c: int, h: int, w: int) -> Callable[[Tensor], Tensor]:
    """torchvision's view of one image (c, h, w)."""
    how = {"interpolation": InterpolationMode.BILINEAR}
    parts = [v2.RandomAffine(**_affine(recipe), **how)] if _affine(recipe) else []
    if recipe.fits:
        parts.append(v2.RandomResizedCrop((h, w), recipe.crop, recipe.ratio, **how))
    parts.append(v2.RandomHorizontalFlip(recipe.flip))
    if recipe.jitter:
        parts.append(v2.RandomApply([v2.ColorJitter(*_factors(recipe, c))], recipe.jitter))
    if recipe.grey:
        parts.append(v2.RandomGrayscale(recipe.grey))
    return v2.Compose([*parts, v2.ToDtype(torch.float32, scale=True), v2.Normalize([0.5] * c, [0.5] * c)])


def batch(recipe: Recipe, c: int, h: int, w: int) -> Callable[[Tensor], Tensor]:
    """kornia's views of images (b, c, h, w). ImportError where it is absent."""
    import kornia.augmentation as K

    parts = [K.RandomAffine(**_affine(recipe), p=1.0)] if _affine(recipe) else []
    if recipe.fits:
        parts.append(K.RandomResizedCrop((h, w), recipe.crop, recipe.ratio))
    parts.append(K.RandomHorizontalFlip(p=recipe.flip))
    if recipe.jitter:
        parts.append(K.ColorJitter(*_factors(recipe, c), p=recipe.jitter))
    if recipe.grey:
        parts.append(K.RandomGrayscale(p=recipe.grey))
    half = torch.full((c,), 0.5)
    whole = K.AugmentationSequential(*parts, K.Normalize(half, half), data_keys=["input"])
    return lambda images: whole(images / 255)


def table(found: dict[str, Any]) -> Table:
    """Views a second, how many times longer the others take, the share of the floor."""
    rows = []
    for name, row in found["views"].items():
        peers = [f"{row[way] / row[OURS]:.1f}" if way in row else "left out" for way in (LOOP, KORNIA)]
        rows.append([name, f"{found['size'] / row[OURS]:,.0f}", *peers, f"{row['floor'] / row[OURS]:.3f}"])
    head = ("", "views/s", f"{LOOP}: times ours", f"{KORNIA}: times ours", "share of floor")
    return Table(head, rows, f"Views of {found['size']} images")


def _affine(recipe: Recipe) -> dict[str, Any]:
    """Rotation, shear, shift, and a crop that may exceed the image as a factor of size; empty where none is."""
    low, high = (1.0, 1.0) if recipe.fits else recipe.crop
    if recipe.fits and not (recipe.rotation or recipe.shear or recipe.shift):
        return {}
    degrees = math.degrees(math.atan(recipe.shear))
    scale, shift = (high**-0.5, low**-0.5), (recipe.shift, recipe.shift)
    return {"degrees": recipe.rotation, "translate": shift, "scale": scale, "shear": (-degrees, degrees)}


def _factors(recipe: Recipe, c: int) -> tuple[tuple[float, float], ...]:
    """Ranges of the jitter; images of one channel have neither saturation nor hue."""
    return (recipe.brightness, recipe.contrast, *((recipe.saturation, recipe.hue) if c == 3 else ()))
