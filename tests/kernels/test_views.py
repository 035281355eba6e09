"""Views against a slow reference of one pixel after the other, against torchvision's operations and its draws."""

import colorsys
import math
from math import atan, degrees

import numpy as np
import pytest
import torch
from scipy.stats import ks_2samp
from torch.utils._python_dispatch import TorchDispatchMode
from torchvision.transforms import ColorJitter, InterpolationMode, RandomResizedCrop
from torchvision.transforms import functional as TF

from reprolib.kernels.recipes import DRAWS, N_DRAWS
from reprolib.kernels.views import RECIPES, Recipe, changes, draw, views

FACTORS = (0.3, 1.9)
KINDS = {
    "nothing": Recipe(),
    "crop": Recipe(crop=(0.2, 0.9), ratio=(0.5, 2.0)),
    "crop that may not fit": Recipe(crop=(0.9, 1.0), ratio=(0.3, 3.0)),
    "crop of more than the image": Recipe(crop=(0.8, 2.5), ratio=(0.5, 2.0)),
    "rotation": Recipe(rotation=60.0),
    "shear": Recipe(shear=0.6),
    "shift": Recipe(shift=0.4),
    "flip": Recipe(flip=0.5),
    "brightness": Recipe(jitter=0.7, brightness=FACTORS),
    "contrast": Recipe(jitter=0.7, contrast=FACTORS),
    "saturation": Recipe(jitter=0.7, saturation=FACTORS),
    "hue": Recipe(jitter=0.7, hue=(-0.5, 0.5)),
    "grey": Recipe(grey=0.5),
    "cutout": Recipe(cutout=0.6),
    "all": Recipe(
        *((0.3, 1.3), (0.7, 1.5), 30.0, 0.3, 0.1, 0.5, 0.8, FACTORS, FACTORS, FACTORS, (-0.2, 0.2), 0.3, 0.5)
    ),
}
NO_COLOUR = ("saturation", "hue", "grey")  # of one channel
TOLERANCE = 2e-5  # of pixels from 0 to 1 in float32: places in the image carry 1e-6 of a pixel
BLACK = torch.zeros(3), torch.ones(3)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def made(b=8, c=3, h=9, w=7, seed=1):
    return torch.randint(0, 256, (b, c, h, w), generator=seeded(seed), dtype=torch.uint8)


def plain(images, drawn, recipe):
    c = images.shape[1]
    return views(images, drawn, recipe, BLACK[0][:c], BLACK[1][:c])


def set_to(b=1, **values):
    """Numbers of b views: the middle, but for those named."""
    drawn = torch.full((b, N_DRAWS), 0.5)
    for name, value in values.items():
        for column in (i for i, each in enumerate(DRAWS) if each.split()[0] == name):
            drawn[:, column] = torch.as_tensor(value)
    return drawn


def between(u, low, high):
    return low + (high - low) * u


def clipped(value):
    return min(max(value, 0.0), 1.0)


def sides(u, recipe, h, w):
    """Width and height in pixels of the first of three crops that fits, else of the first, its ratio clamped."""
    for k in (0, 1, 2, 0):
        area = h * w * between(u[f"area {k}"], *recipe.crop)
        ratio = math.exp(between(u[f"ratio {k}"], *map(math.log, recipe.ratio)))
        width, height = math.sqrt(area * ratio), math.sqrt(area / ratio)
        if recipe.crop[1] > 1 or (width <= w * (1 + 1e-9) and height <= h * (1 + 1e-9)):
            return width, height
    return (w, area / w) if width > w else (area / h, h)


def read(channel, x, y, width, height):
    """A channel (h, w) at a place in pixels, its border fading over a pixel of a crop of these shares."""
    h, w = channel.shape
    inside = clipped(min(x + 0.5, w - 0.5 - x) / width + 0.5) * clipped(min(y + 0.5, h - 0.5 - y) / height + 0.5)
    x, y, total = min(max(x, 0.0), w - 1.0), min(max(y, 0.0), h - 1.0), 0.0
    for i in (math.floor(y), math.floor(y) + 1):
        for j in (math.floor(x), math.floor(x) + 1):
            if i < h and j < w:
                total += channel[i, j] / 255 * (1 - abs(y - i)) * (1 - abs(x - j))
    return total * inside


def luma(colour):
    return colour[0] if len(colour) == 1 else 0.2989 * colour[0] + 0.587 * colour[1] + 0.114 * colour[2]


def blended(other, colour, factor):
    return [clipped(factor * value + (1 - factor) * other) for value in colour]


def literal(image, drawn, recipe, mean, std):
    """One view of an image (c, h, w), in float64."""
    c, h, w = image.shape
    u = dict(zip(DRAWS, (float(value) for value in drawn), strict=True))
    width, height = sides(u, recipe, h, w)
    left = between(u["left"], 0, w - width) + recipe.shift * w * (2 * u["right"] - 1)
    top = between(u["top"], 0, h - height) + recipe.shift * h * (2 * u["down"] - 1)
    angle = math.radians(recipe.rotation) * (2 * u["angle"] - 1)
    colours = np.zeros((h, w, c))
    for i in range(h):
        for j in range(w):
            x, y = (j + 0.5) / w * width - width / 2, (i + 0.5) / h * height - height / 2
            x = -x if u["flip"] < recipe.flip else x
            x += recipe.shear * (2 * u["slant"] - 1) * y
            x, y = math.cos(angle) * x - math.sin(angle) * y, math.sin(angle) * x + math.cos(angle) * y
            x, y = left + width / 2 + x - 0.5, top + height / 2 + y - 0.5
            colours[i, j] = [read(channel, x, y, width / w, height / h) for channel in image]
    jitters = u["jitter"] < recipe.jitter
    if jitters:
        colours = np.clip(colours * between(u["brightness"], *recipe.brightness), 0, 1)
    mean_grey = np.mean([luma(colour) for row in colours for colour in row])
    side = 1 + math.floor(u["side"] * max(1, int(recipe.cutout * min(h, w))))
    first = [math.floor(u["row"] * h) - side // 2, math.floor(u["column"] * w) - side // 2]
    found = np.zeros((c, h, w))
    for i in range(h):
        for j in range(w):
            colour = colours[i, j]
            if jitters:
                colour = blended(mean_grey, colour, between(u["contrast"], *recipe.contrast))
            if jitters and c == 3:
                colour = blended(luma(colour), colour, between(u["saturation"], *recipe.saturation))
                hue, saturation, value = colorsys.rgb_to_hsv(*colour)
                colour = colorsys.hsv_to_rgb((hue + between(u["hue"], *recipe.hue)) % 1, saturation, value)
            if u["grey"] < recipe.grey and c == 3:
                colour = [luma(colour)] * 3
            found[:, i, j] = (np.asarray(colour) - mean) / std
            if recipe.cutout and 0 <= i - first[0] < side and 0 <= j - first[1] < side:
                found[:, i, j] = 0
    return found


@pytest.mark.parametrize("c", [1, 3])
@pytest.mark.parametrize("kind", KINDS)
def test_equals_the_slow_reference(kind, c):
    recipe, images, drawn = KINDS[kind], made(c=c), draw(8, seeded())
    mean, std = torch.tensor([0.4, 0.5, 0.6])[:c], torch.tensor([0.5, 0.25, 1.0])[:c]
    found = views(images, drawn, recipe, mean, std)
    expected = [literal(*pair, recipe, mean.numpy(), std.numpy()) for pair in zip(images.numpy(), drawn, strict=True)]
    np.testing.assert_allclose(found.numpy(), expected, atol=4 * TOLERANCE, rtol=0)
    unchanged = (images / 255 - mean[:, None, None]) / std[:, None, None]
    changed = (found - unchanged).abs().amax((1, 2, 3)) > 1e-3
    assert changed.sum() >= 2 if kind != "nothing" and (c == 3 or kind not in NO_COLOUR) else not changed.any()


@pytest.mark.parametrize("shape", [(5, 3, 15, 17), (1, 1, 1, 1), (3, 1, 28, 28), (2, 3, 2, 64)])
def test_nothing_to_change_gives_the_images(shape):
    images = made(*shape)
    found = plain(images, draw(len(images), seeded()), Recipe())
    torch.testing.assert_close(found, images / 255, atol=TOLERANCE, rtol=0)
    assert found.dtype == torch.float32 and found.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("c", [1, 3])
def test_a_recipe_gives_views_that_differ_and_the_seed_decides(recipe, c):
    images = made(1, c, 16, 16).expand(6, -1, -1, -1)
    first, same, other = (plain(images, draw(6, seeded(seed)), RECIPES[recipe]) for seed in (0, 0, 1))
    assert torch.equal(first, same) and not torch.equal(first, other)
    assert all((first[i] - first[j]).abs().max() > 0.05 for i in range(6) for j in range(i))
    assert 0 <= first.min() and first.max() <= 1 + 1e-6
    alone = plain(images[:1], draw(6, seeded())[2:3], RECIPES[recipe])
    torch.testing.assert_close(alone[0], first[2], atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize("level", [0, 128, 255])
@pytest.mark.parametrize("c", [1, 3])
def test_constant_images_stay_constant(level, c):
    """Crops, mirrors and colour find no other pixel; without colour there is no hue to turn."""
    images = torch.full((200, c, 8, 8), level, dtype=torch.uint8)
    found = plain(images, draw(200, seeded()), RECIPES["simclr"])
    assert found.isfinite().all() and (found - found[:, :1, :1, :1]).abs().max() < 1e-3  # luma of white is .9999
    shares = found[:, 0, 0, 0] / max(level / 255, 1e-9)
    assert shares.max() > 1.2 if level == 128 else shares.max() <= 1 + 1e-6


OPERATIONS = {  # a recipe, what draws the size, from where to where, and torchvision's operation of that size
    "rotation": (Recipe(rotation=50.0), "angle", (50, -50), lambda x, size: affine(x, angle=size)),
    "shear": (Recipe(shear=0.5), "slant", (-0.5, 0.5), lambda x, size: affine(x, shear=[degrees(atan(size)), 0.0])),
    "shift": (Recipe(shift=0.25), "right", (4, -4), lambda x, size: affine(x, translate=[size, 0.0])),
    "shift down": (Recipe(shift=0.25), "down", (3, -3), lambda x, size: affine(x, translate=[0.0, size])),
    "flip": (Recipe(flip=0.5), "flip", (0, 1), lambda x, size: TF.hflip(x) if size < 0.5 else x),
    "brightness": (Recipe(jitter=1.0, brightness=FACTORS), "brightness", FACTORS, TF.adjust_brightness),
    "contrast": (Recipe(jitter=1.0, contrast=FACTORS), "contrast", FACTORS, TF.adjust_contrast),
    "saturation": (Recipe(jitter=1.0, saturation=FACTORS), "saturation", FACTORS, TF.adjust_saturation),
    "hue": (Recipe(jitter=1.0, hue=(-0.5, 0.5)), "hue", (-0.5, 0.5), TF.adjust_hue),
    "grey": (Recipe(grey=0.5), "grey", (0, 1), lambda x, size: TF.rgb_to_grayscale(x, 3) if size < 0.5 else x),
}


def affine(x, **how):
    how = {"angle": 0.0, "translate": [0, 0], "scale": 1.0, "shear": [0.0, 0.0], **how}
    return TF.affine(x, **how, interpolation=InterpolationMode.BILINEAR)


@pytest.mark.parametrize("name", OPERATIONS)
def test_each_operation_is_torchvisions(name):
    recipe, drawn_by, (low, high), theirs = OPERATIONS[name]
    images, drawn = made(11, 3, 12, 16), set_to(11, **{drawn_by: torch.linspace(0, 0.99, 11)})
    sizes = between(drawn[:, DRAWS.index(drawn_by)], low, high).tolist()
    for view, image, size in zip(plain(images, drawn, recipe), images, sizes, strict=True):
        torch.testing.assert_close(view, theirs(image / 255, size), atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize(("area", "ratio", "width", "height"), [(0.25, 1.0, 8, 8), (0.375, 1.5, 12, 8)])
def test_a_crop_is_torchvisions_but_for_the_edge_within_the_image(area, ratio, width, height):
    images, recipe = made(1, 3, 16, 16), Recipe(crop=(area, area), ratio=(ratio, ratio))
    for left, top in ((0, 0), (16 - width, 8), (3, 2)):
        drawn = set_to(left=left / (16 - width), top=top / (16 - height))
        expected = TF.resized_crop(images / 255, top, left, height, width, [16, 16], InterpolationMode.BILINEAR)
        found = plain(images, drawn, recipe)
        inner = (..., slice(top > 0, 15 + (top == 8)), slice(left > 0, 15 + (left == 16 - width)))
        torch.testing.assert_close(found[inner], expected[inner], atol=TOLERANCE, rtol=0)


def test_holes_lie_around_every_pixel_and_have_every_size():
    recipe, images = Recipe(cutout=0.5), torch.full((4000, 1, 10, 9), 255, dtype=torch.uint8)
    holes = views(images, draw(4000, seeded()), recipe, torch.full((1,), 0.5), torch.ones(1))[:, 0] == 0
    heights, widths = holes.any(2).sum(1), holes.any(1).sum(1)
    assert torch.equal(holes.sum((1, 2)), heights * widths)
    counts = torch.maximum(heights, widths).bincount(minlength=5)
    assert len(counts) == 5 and counts[0] == 0 and counts[1:].min() > 800  # 4 is the half of 9
    assert holes.float().mean(0).min() > 0.02  # the border's too
    how = changes(draw(4000, seeded()), recipe, 10, 9)
    for first, n in ((how.top, 10), (how.left, 9)):
        middles = (first + (how.side / 2).floor()).int().bincount()
        assert len(middles) == n and middles.min() > 0.7 * 4000 / n


def assert_same_distribution(found, expected):
    assert ks_2samp(found, expected).pvalue > 1e-3


@pytest.mark.parametrize("name", ["simclr", "fashion"])
@pytest.mark.parametrize(("h", "w"), [(1024, 1024), (1024, 800)])  # so many, for torchvision's are whole pixels
def test_crops_are_distributed_as_torchvisions(name, h, w):
    n, recipe = 3000, RECIPES[name]
    torch.manual_seed(0)
    image = torch.empty(1, h, w)
    theirs = np.array([RandomResizedCrop.get_params(image, recipe.crop, recipe.ratio) for _ in range(n)]).T
    how = changes(draw(n, seeded()), recipe, h, w)
    height, width = how.height.numpy() * h, how.width.numpy() * w
    top, left = (how.y.numpy() + 1) * h / 2 - height / 2, (how.x.numpy() + 1) * w / 2 - width / 2
    assert height.max() <= h * (1 + 1e-6) and width.max() <= w * (1 + 1e-6) and min(top.min(), left.min()) > -1e-3
    for mine, their in zip((top, left, height, width), theirs, strict=True):
        assert_same_distribution(mine, their)
    assert_same_distribution(height * width, theirs[2] * theirs[3])
    assert_same_distribution(width / height, theirs[3] / theirs[2])


def test_colours_are_distributed_as_torchvisions():
    n, recipe, names = 3000, RECIPES["simclr"], ("brightness", "contrast", "saturation", "hue")
    torch.manual_seed(0)
    jitter = ColorJitter(0.4, 0.4, 0.4, 0.1)
    theirs = [ColorJitter.get_params(*(getattr(jitter, name) for name in names))[1:] for _ in range(n)]
    how = changes(draw(n, seeded()), recipe, 32, 32)
    jittered = how.brightness != 1
    mine = [getattr(how, name)[jittered].numpy() for name in names]
    for found, expected in zip(mine, np.array(theirs).T, strict=True):
        assert_same_distribution(found, expected)
    assert np.abs(np.corrcoef(mine) - np.eye(4)).max() < 0.08
    for share, expected in ((jittered, 0.8), (how.mirrored, 0.5), (how.grey, 0.2)):
        assert abs(share.double().mean() - expected) < 4 * math.sqrt(expected * (1 - expected) / n)


def test_one_setting_does_not_move_the_draws_of_another():
    drawn = draw(100, seeded())
    whole, part = (changes(drawn, recipe, 9, 7) for recipe in (KINDS["all"], Recipe(rotation=30.0, grey=0.3)))
    assert torch.equal(whole.angle, part.angle) and torch.equal(whole.grey, part.grey)


def test_work_does_not_grow_into_a_loop_over_samples_and_nothing_waits():
    class Count(TorchDispatchMode):
        found = 0

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            self.found += 1
            assert func not in (torch.ops.aten._local_scalar_dense.default, torch.ops.aten.nonzero.default)
            return func(*args, **(kwargs or {}))

    counts = []
    for b in (2, 50):
        with Count() as count:
            plain(made(b), draw(b, seeded()), KINDS["all"])
        counts.append(count.found)
    assert counts[0] == counts[1]


def test_a_region_of_autocast_changes_nothing():
    images, drawn = made(), draw(8, seeded())
    with torch.autocast("cpu", torch.bfloat16):
        found = plain(images, drawn, KINDS["all"])
    assert torch.equal(found, plain(images, drawn, KINDS["all"]))


@pytest.mark.parametrize(
    ("images", "drawn", "ones", "message"),
    [
        (torch.zeros(2, 3, 4, 4), draw(2), torch.ones(3), "uint8"),
        (made(2), draw(2).double(), torch.ones(3), "float32"),
        (made(2), draw(2), torch.ones(3).int(), "float32"),
        (made(2, 2), draw(2), torch.ones(2), "c 1 or 3"),
        (made(2)[0], draw(2), torch.ones(3), "c 1 or 3"),
        (made(2)[:0], draw(0), torch.ones(3), "not empty"),
        (made(2), draw(3), torch.ones(3), r"drawn must be \(2, 22\)"),
        (made(2), draw(2)[:, 1:], torch.ones(3), r"drawn must be \(2, 22\)"),
        (made(2), draw(2), torch.ones(1), r"mean must be \(3,\)"),
    ],
)
def test_wrong_input_is_named(images, drawn, ones, message):
    with pytest.raises((TypeError, ValueError), match=message):
        views(images, drawn, Recipe(), ones, ones)


@pytest.mark.parametrize(
    "wrong",
    [
        *({"crop": (0.0, 1.0)}, {"crop": (1.0, 0.5)}, {"ratio": (0.0, 1.0)}, {"hue": (-0.6, 0.0)}, {"shear": -0.1}),
        *({"contrast": (-0.1, 1.0)}, {"flip": 1.1}, {"cutout": 2.0}, {"rotation": math.nan}),
    ],
)
def test_a_recipe_that_cannot_be_is_refused(wrong):
    (name,) = wrong
    with pytest.raises(ValueError, match=name):
        Recipe(**wrong)
