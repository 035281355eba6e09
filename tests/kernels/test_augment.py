"""Augmentations against a slow reference that reads one pixel after the other."""

import math

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from reprolib.kernels.augment import N_DRAWS, augment

KINDS = {
    "nothing": {},
    "rotation": {"rotation": 40.0},
    "scale": {"scale": 0.4},
    "shift": {"shift": 0.3},
    "shear": {"shear": 0.5},
    "erasing": {"erasing": 0.8},
    "flip": {"flip": 0.5},
    "all": {"rotation": 25.0, "scale": 0.2, "shift": 0.1, "shear": 0.3, "erasing": 0.5, "flip": 0.5},
}


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def made(b=6, c=2, h=9, w=7, seed=1):
    return torch.rand(b, c, h, w, generator=seeded(seed), dtype=torch.float64) + 0.1


def read(image, y, x):
    """An image (h, w) at a place in pixels, between them bilinear, 0 outside."""
    total = 0.0
    for i in (math.floor(y), math.floor(y) + 1):
        for j in (math.floor(x), math.floor(x) + 1):
            if 0 <= i < image.shape[0] and 0 <= j < image.shape[1]:
                total += image[i, j] * (1 - abs(y - i)) * (1 - abs(x - j))
    return total


def literal(images, drawn, rotation=0.0, scale=0.0, shift=0.0, shear=0.0, erasing=0.0, flip=0.0):
    b, c, h, w = images.shape
    found = np.zeros(images.shape)
    for n in range(b):
        u = drawn[n]
        angle, factor = math.radians(rotation) * (2 * u[0] - 1), 1 + scale * (2 * u[1] - 1)
        height, width = h * erasing * u[6], w * erasing * u[8]
        top, left = (h - height) * u[7], (w - width) * u[9]
        for i in range(h):
            for j in range(w):
                if top <= i + 0.5 < top + height and left <= j + 0.5 < left + width:
                    continue
                x, y = j + 0.5 - w / 2, i + 0.5 - h / 2
                x = -x if u[5] < flip else x
                x += shear * (2 * u[4] - 1) * y
                x, y = math.cos(angle) * x - math.sin(angle) * y, math.sin(angle) * x + math.cos(angle) * y
                x = x / factor + w * shift * (2 * u[2] - 1)
                y = y / factor + h * shift * (2 * u[3] - 1)
                for k in range(c):
                    found[n, k, i, j] = read(images[n, k], y + h / 2 - 0.5, x + w / 2 - 0.5)
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_equals_the_slow_reference(kind):
    images = made()
    drawn = torch.rand(len(images), N_DRAWS, generator=seeded(), dtype=torch.float64)
    found = augment(images, seeded(), **KINDS[kind])
    expected = literal(images.numpy(), drawn.numpy(), **KINDS[kind])
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-12)
    changed = (found - images).abs().amax((1, 2, 3)) > 1e-6
    assert not changed.any() if kind == "nothing" else changed.sum() >= 2


def test_each_sample_has_its_own_draw_and_the_generator_decides():
    images = made(b=1).expand(5, -1, -1, -1)
    first, same, other = (augment(images, seeded(s), **KINDS["all"]) for s in (0, 0, 1))
    assert torch.equal(first, same) and not torch.equal(first, other)
    assert all(not torch.equal(first[0], one) for one in first[1:])


def test_a_flip_is_exact_and_as_frequent_as_asked():
    images = made(b=2000, c=1, h=4, w=4)
    found = augment(images, seeded(), flip=0.3)
    mirrored = (found - images.flip(3)).abs().amax((1, 2, 3)) < 1e-9
    same = (found - images).abs().amax((1, 2, 3)) < 1e-9
    assert (mirrored | same).all() and 0.25 < mirrored.double().mean() < 0.35


def test_all_channels_change_alike():
    images = made(c=1).expand(-1, 3, -1, -1)
    found = augment(images, seeded(), **KINDS["all"])
    torch.testing.assert_close(found, found[:, :1].expand_as(found))


def test_the_layout_of_float32_images_does_not_count():
    images = made().float()
    plain = augment(images, seeded(), **KINDS["all"])
    last = augment(images.contiguous(memory_format=torch.channels_last), seeded(), **KINDS["all"])
    torch.testing.assert_close(plain, last, atol=1e-5, rtol=0)
    assert plain.dtype == torch.float32


def test_work_does_not_grow_into_a_loop_over_samples():
    class Count(TorchDispatchMode):
        found = 0

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            self.found += 1
            assert func is not torch.ops.aten._local_scalar_dense.default
            return func(*args, **(kwargs or {}))

    counts = []
    for b in (2, 50):
        images = made(b=b)
        with Count() as count:
            augment(images, seeded(), **KINDS["all"])
        counts.append(count.found)
    assert counts[0] == counts[1]
