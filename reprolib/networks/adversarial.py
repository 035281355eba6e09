"""Generator G, critic D and classifier C of paper 003: convolutional (Figure 2), or fully connected (section IV-B)."""

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Generator = torch.Generator | None
KERNEL, FIRST = 5, 4  # of all convolutions; pixels a side where the generator's deconvolutions begin
LEAK = 0.2  # of the convolutional critic and classifier; the fully connected networks of section IV-B have none
HIDDEN = 8  # times the width: units of a fully connected layer, 512 in the paper
DEPTH = 3  # hidden layers of a fully connected network
SIDES = {16: (8, 16, 16), 28: (7, 14, 28), 32: (8, 16, 32), 64: (8, 16, 32, 64)}  # after each deconvolution


class Linear(nn.Module):
    """A linear layer (..., b, n_in) to (..., b, n_out); with `copies`, one for each of so many networks in a stack.

    Glorot's uniform weights of variance 2 / (n_in + n_out), zero biases: as in the released code.
    """

    def __init__(self, n_in: int, n_out: int, copies: Sequence[int], generator: Generator) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(*copies, n_out, n_in))
        self.bias = nn.Parameter(torch.zeros(*copies, 1, n_out))
        bound = math.sqrt(6 / (n_in + n_out))
        nn.init.uniform_(self.weight, -bound, bound, generator=generator)

    def forward(self, values: Tensor) -> Tensor:
        if self.weight.ndim == 2:
            return F.linear(values, self.weight, self.bias[0])
        return self.without_bias(values) + self.bias

    def without_bias(self, values: Tensor) -> Tensor:
        """What the layer does to a difference of two inputs."""
        return values @ self.weight.mT


class Convolution(nn.Conv2d):
    """5x5 convolution that gives ceil(n / stride) pixels a side, padded as TensorFlow does: the odd one at the end.

    The released code's uniform weights, here and in `Deconvolution`: of variance 4 / (fan_in + fan_out), the fan on the
    side of fewer pixels divided by the stride's square. Zero biases.
    """

    def __init__(self, before: int, after: int, side: int, stride: int, generator: Generator) -> None:
        super().__init__(before, after, KERNEL, stride)
        total = max((-(-side // stride) - 1) * stride + KERNEL - side, 0)
        self.pads = (total // 2, total - total // 2) * 2
        _uniform(self, before, after / stride**2, generator)

    def forward(self, maps: Tensor) -> Tensor:
        return F.conv2d(F.pad(maps, self.pads), self.weight, self.bias, self.stride)

    def without_bias(self, maps: Tensor) -> Tensor:
        """What the layer does to a difference of two inputs."""
        return F.conv2d(F.pad(maps, self.pads), self.weight, None, self.stride)


class Deconvolution(nn.ConvTranspose2d):
    """5x5 transposed convolution to `side` pixels: the first of what TensorFlow's gives, of 8 it may leave out one."""

    def __init__(self, before: int, after: int, side: int, stride: int, generator: Generator) -> None:
        super().__init__(before, after, KERNEL, stride, padding=3 - stride)
        self.side = side
        _uniform(self, before / stride**2, after, generator)

    def forward(self, maps: Tensor) -> Tensor:
        return super().forward(maps)[..., : self.side, : self.side]


def _uniform(layer: nn.Module, fan_in: float, fan_out: float, generator: Generator) -> None:
    bound = math.sqrt(12 / ((fan_in + fan_out) * KERNEL**2))
    nn.init.uniform_(layer.weight, -bound, bound, generator=generator)
    nn.init.zeros_(layer.bias)


class PiecewiseLinear(nn.Sequential):
    """A critic or classifier, linear on the side of its kinks on which an input lies: its tangent can be had apart."""

    def with_sides(self, inputs: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Outputs, and by kinked layer the slope of each unit."""
        slopes = []
        for layer in self:
            if isinstance(layer, nn.LeakyReLU):
                slopes.append(torch.full_like(inputs, layer.negative_slope).masked_fill(inputs > 0, 1.0))
            inputs = layer(inputs)
        return inputs, slopes

    def tangent(self, direction: Tensor, slopes: Sequence[Tensor]) -> Tensor:
        """Derivative of the outputs along a direction of the inputs, with the slopes that `with_sides` gave."""
        left = iter(slopes)
        for layer in self:
            if isinstance(layer, nn.LeakyReLU):
                direction = direction * next(left)
            else:
                direction = getattr(layer, "without_bias", layer)(direction)
        return direction


def generator(
    shape: Sequence[int],
    n_inputs: int,
    width: int,
    *,
    dense: bool = False,
    copies: Sequence[int] = (),
    random: Generator = None,
) -> nn.Sequential:
    """G: noise and one-hot ids (..., b, n_inputs) to samples (..., b, *shape); images in [0, 1], features unbounded.

    Images (c, h, w): one layer to 4x4 maps, then deconvolutions down to `width` channels (Figure 2). Features (d,), or
    images if `dense`: three hidden layers of 8 `width` units. ReLU. ValueError for a size of images that Figure 2 has
    not. Source: paper 003, section IV; the range and the weights from the released code.
    """
    end: list[nn.Module] = [nn.Sigmoid()] if len(shape) == 3 else []
    if dense or not end:
        end += [nn.Unflatten(-1, tuple(shape))] if end else []
        return nn.Sequential(*_dense(n_inputs, math.prod(shape), width, 0.0, copies, random), *end)
    sides = _sides(shape)
    widths = [width << i for i in reversed(range(len(sides)))]
    start = widths[0], FIRST, FIRST
    layers: list[nn.Module] = [Linear(n_inputs, math.prod(start), (), random), nn.ReLU(), nn.Unflatten(-1, start)]
    steps = zip(pairwise([*widths, shape[0]]), pairwise([FIRST, *sides]), strict=True)
    for (before, after), (small, large) in steps:
        layers += [Deconvolution(before, after, large, 1 + (large > small), random), nn.ReLU()]
    return nn.Sequential(*layers[:-1], *end).to(memory_format=torch.channels_last)


def judge(
    shape: Sequence[int],
    n_outputs: int,
    width: int,
    *,
    dense: bool = False,
    copies: Sequence[int] = (),
    random: Generator = None,
) -> PiecewiseLinear:
    """D or C: samples (..., b, *shape) to outputs (..., b, n_outputs), not normalised.

    Images (c, h, w): convolutions from `width` channels on, each of twice as many and half the side (Figure 2).
    Features (d,), or images if `dense`: three hidden layers of 8 `width` units. Leaky ReLU of images, else ReLU.
    ValueError as of `generator`. Source: paper 003, section IV; the leak and the weights from the released code.
    """
    flat: list[nn.Module] = [nn.Flatten(-3)] if len(shape) == 3 else []
    if dense or not flat:
        leak = LEAK if flat else 0.0
        return PiecewiseLinear(*flat, *_dense(math.prod(shape), n_outputs, width, leak, copies, random))
    sides = [*reversed(_sides(shape)), FIRST]
    channels = [shape[0], *(width << i for i in range(len(sides) - 1))]
    layers: list[nn.Module] = []
    for (before, after), (large, small) in zip(pairwise(channels), pairwise(sides), strict=True):
        layers += [Convolution(before, after, large, 1 + (large > small), random), nn.LeakyReLU(LEAK)]
    layers += [*flat, Linear(FIRST**2 * channels[-1], n_outputs, (), random)]
    return PiecewiseLinear(*layers).to(memory_format=torch.channels_last)


def _sides(shape: Sequence[int]) -> tuple[int, ...]:
    """Pixels a side after each deconvolution for images (c, h, w); ValueError for a size that Figure 2 has not."""
    if shape[1] != shape[2] or shape[1] not in SIDES:
        raise ValueError(
            f"the convolutional networks take square images of {', '.join(map(str, SIDES))} pixels a side, got "
            f"{shape[1]}x{shape[2]}: load the images with size=28, or take network='dense'"
        )
    return SIDES[shape[1]]


def _dense(n_in: int, n_out: int, width: int, leak: float, copies: Sequence[int], random: Generator) -> list[nn.Module]:
    layers: list[nn.Module] = []
    for before, after in pairwise([n_in, *[HIDDEN * width] * DEPTH, n_out]):
        layers += [Linear(before, after, copies, random), nn.LeakyReLU(leak)]
    return layers[:-1]
