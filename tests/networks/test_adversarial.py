"""Networks of paper 003: shapes, TensorFlow's padding, starting weights, stacks, and the tangent."""

import math

import pytest
import torch
from torch import nn

from reprolib.networks.adversarial import Convolution, Deconvolution, Linear, generator, judge


def drawn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def sizes(network, inputs):
    found = []
    for layer in network:
        inputs = layer(inputs)
        if isinstance(layer, Linear | nn.Unflatten | Convolution | Deconvolution | nn.Flatten):
            found.append(tuple(inputs.shape[1:]))
    return found


def test_the_layers_of_figure_2():
    made = sizes(generator((1, 28, 28), 138, 64), torch.zeros(2, 138))
    assert made == [(4096,), (256, 4, 4), (128, 7, 7), (64, 14, 14), (1, 28, 28)]
    seen = sizes(judge((1, 28, 28), 10, 64), torch.zeros(2, 1, 28, 28))
    assert seen == [(64, 14, 14), (128, 7, 7), (256, 4, 4), (4096,), (10,)]


@pytest.mark.parametrize(
    "shape, made, seen",
    [
        ((1, 16, 16), [(16, 8), (8, 16), (1, 16)], [(8, 16), (16, 8), (32, 4)]),
        ((3, 32, 32), [(16, 8), (8, 16), (3, 32)], [(8, 16), (16, 8), (32, 4)]),
        ((3, 64, 64), [(32, 8), (16, 16), (8, 32), (3, 64)], [(8, 32), (16, 16), (32, 8), (64, 4)]),
    ],
)
def test_other_sizes_of_images(shape, made, seen):
    found = sizes(generator(shape, 12, 8), torch.zeros(2, 12))
    assert found[2:] == [(c, n, n) for c, n in made]
    assert sizes(judge(shape, 3, 8), torch.zeros(2, *shape))[:-2] == [(c, n, n) for c, n in seen]
    images = generator(shape, 12, 8)(100 * torch.randn(5, 12))
    assert images.shape == (5, *shape) and 0 <= images.min() and images.max() <= 1


@pytest.mark.parametrize("shape", [(1, 20, 20), (1, 28, 32), (3, 8, 8)])
def test_other_sizes_are_refused_and_told_what_helps(shape):
    for make in (generator, judge):
        with pytest.raises(ValueError, match=r"16, 28, 32, 64 pixels a side, got .* size=28, or take network='dense'"):
            make(shape, 4, 2)
        assert make(shape, 4, 2, dense=True)


def test_fully_connected_networks_of_section_4b():
    made, seen = generator((2,), 11, 64), judge((2,), 8, 64)
    assert sizes(made, torch.zeros(3, 11)) == [(512,), (512,), (512,), (2,)]
    assert sizes(seen, torch.zeros(3, 2)) == [(512,), (512,), (512,), (8,)]
    assert (made(drawn(99, 11).float()) < 0).any()  # features have no range
    assert {m.negative_slope for m in seen if isinstance(m, nn.LeakyReLU)} == {0.0}
    assert {m.negative_slope for m in judge((1, 8, 8), 3, 2, dense=True) if isinstance(m, nn.LeakyReLU)} == {0.2}


def literal_convolution(maps, weight, bias, stride):
    """TensorFlow's SAME: ceil(n / stride) outputs; what is missing is padded, the odd pixel at the end."""
    n, k = maps.shape[-1], weight.shape[-1]
    out = -(-n // stride)
    before = max((out - 1) * stride + k - n, 0) // 2
    result = torch.zeros(len(maps), len(weight), out, out, dtype=torch.float64)
    for i in range(out):
        for j in range(out):
            for a in range(k):
                for b in range(k):
                    y, x = i * stride + a - before, j * stride + b - before
                    if 0 <= y < n and 0 <= x < n:
                        result[:, :, i, j] += maps[:, :, y, x] @ weight[:, :, a, b].T
    return result + bias[:, None, None]


@pytest.mark.parametrize("side, stride", [(28, 2), (14, 2), (7, 2), (8, 2), (6, 1)])
def test_convolution_equals_the_literal_sum(side, stride):
    layer = Convolution(2, 3, side, stride, None).double()
    layer.bias.data = drawn(3, seed=1)
    maps = drawn(2, 2, side, side)
    torch.testing.assert_close(layer(maps), literal_convolution(maps, layer.weight, layer.bias, stride))
    moved = layer(maps + 1) - layer(maps)
    torch.testing.assert_close(layer.without_bias(torch.ones_like(maps)), moved)


@pytest.mark.parametrize("small, large, stride", [(4, 8, 2), (7, 14, 2), (14, 28, 2), (16, 16, 1)])
def test_deconvolution_is_the_transpose_of_the_literal_convolution(small, large, stride):
    layer = Deconvolution(3, 2, large, stride, None).double()
    maps, upper = drawn(2, 3, small, small), drawn(2, 2, large, large, seed=1).requires_grad_()
    down = literal_convolution(upper, layer.weight, torch.zeros(3, dtype=torch.float64), stride)
    (expected,) = torch.autograd.grad((down * maps).sum(), upper)
    torch.testing.assert_close(layer(maps), expected)


def test_the_eighth_pixel_is_left_out_after_the_first_deconvolution():
    whole, cut = (Deconvolution(3, 2, side, 2, torch.Generator().manual_seed(0)) for side in (8, 7))
    maps = torch.randn(1, 3, 4, 4)
    assert torch.equal(whole(maps)[..., :7, :7], cut(maps))


def test_starting_weights_have_the_released_variances():
    g, d = generator((1, 28, 28), 138, 64), judge((1, 28, 28), 1, 64)
    # variance 2 / (in + out); 4 / (fan_in + fan_out), with fans over the stride
    expected = {g[0]: 2 / (138 + 4096), g[3]: 4 / (25 * (256 / 4 + 128)), d[2]: 4 / (25 * (64 + 128 / 4))}
    for layer, variance in expected.items():
        assert float(layer.weight.detach().var()) == pytest.approx(variance, rel=0.03)
        assert layer.weight.abs().max() <= math.sqrt(3 * variance)
    assert not any(p.any() for network in (g, d) for n, p in network.named_parameters() if n.endswith("bias"))


def test_copies_in_a_stack_are_networks_of_their_own():
    stack = judge((2,), 3, 1, copies=(4,), random=torch.Generator().manual_seed(0)).double()
    inputs = drawn(4, 5, 2)
    for i in range(4):
        alone = judge((2,), 3, 1).double()
        weights = {name: w[i].squeeze(0) if name.endswith("weight") else w[i] for name, w in stack.state_dict().items()}
        alone.load_state_dict(weights)
        torch.testing.assert_close(stack(inputs)[i], alone(inputs[i]))
    assert len({float(w) for w in stack[0].weight.detach()[:, 0, 0]}) == 4


@pytest.mark.parametrize("shape, dense", [((1, 28, 28), False), ((3, 16, 16), False), ((1, 6, 6), True), ((3,), True)])
def test_tangent_is_the_derivative_along_a_direction(shape, dense):
    network = judge(shape, 4, 2, dense=dense).double()
    for name, weight in network.named_parameters():
        if name.endswith("bias"):
            nn.init.normal_(weight, generator=torch.Generator().manual_seed(1))
    inputs, direction = drawn(5, *shape), drawn(5, *shape, seed=2)
    outputs, sides = network.with_sides(inputs)
    expected, along = torch.func.jvp(network, (inputs,), (direction,))
    torch.testing.assert_close(outputs, expected)
    torch.testing.assert_close(network.tangent(direction, sides), along)
