"""Autoencoders of papers 004 and 001: sizes, every side, one layer by its definition."""

import numpy as np
import pytest
import torch
from torch import nn

from reprolib.networks.autoencoders import (
    Bottleneck,
    ConvAutoencoder,
    DenseAutoencoder,
    MNet,
    PooledAutoencoder,
    side_sizes,
)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def sizes(network, shape):
    """Height after each convolution and deconvolution of one forward pass."""
    found = []
    hooks = [
        module.register_forward_hook(lambda _, __, out: found.append(out.shape[2]))
        for part in (network.encoder, network.decoder)
        for module in part
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d)
    ]
    network(torch.zeros(2, *shape))
    for hook in hooks:
        hook.remove()
    return found


def test_the_sizes_are_those_of_section_6():
    assert sizes(ConvAutoencoder((1, 28, 28)), (1, 28, 28)) == [14, 7, 3, 7, 15, 28]
    assert sizes(ConvAutoencoder((1, 16, 16)), (1, 16, 16)) == [14, 7, 3, 7, 12, 16]
    # n, p1, s1, p2, s2, p3, s3, f1, f2 as printed for both
    large, small = ConvAutoencoder((1, 28, 28)), ConvAutoencoder((1, 16, 16))
    for network, printed in ((large, (28, 2, 2, 1, 2, 2, 2, 5, 4)), (small, (16, 1, 1, 2, 2, 0, 1, 4, 5))):
        first, second, third = network.encoder[0], network.decoder[5], network.decoder[7]
        values = [first.padding[0], first.stride[0], second.padding[0], second.stride[0]]
        values += [third.padding[0], third.stride[0], second.kernel_size[0], third.kernel_size[0]]
        assert tuple(values) == printed[1:]


@pytest.mark.parametrize("side", range(16, 33))
def test_every_side_comes_back(side):
    images = torch.rand(3, 2, side, 33 - side + 15, generator=seeded())
    network = ConvAutoencoder(images.shape[1:], latent_dim=4, generator=seeded())
    latent, decoded = network(images)
    assert latent.shape == (3, 4) and decoded.shape == images.shape
    assert sizes(network, images.shape[1:])[4] == side_sizes(side)["middle"]
    decoded.sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())


@pytest.mark.parametrize("side", [8, 15, 33, 96])
def test_other_sides_are_refused(side):
    with pytest.raises(ValueError, match=f"16 to 32 pixels, got {side}"):
        ConvAutoencoder((1, 28, side))


def test_a_bottleneck_by_its_definition():
    layer = Bottleneck(6).double().eval()
    generator = seeded(1)
    for norm in (layer.inside[1], layer.inside[4], layer.inside[7]):
        for values in (norm.weight.data, norm.bias.data, norm.running_mean):
            values.copy_(torch.randn(values.shape, generator=generator))
        norm.running_var.copy_(torch.rand(norm.running_var.shape, generator=generator) + 0.5)
    maps = torch.randn(2, 6, 4, 5, generator=generator, dtype=torch.double)
    inner = maps.numpy()
    for i, padding in ((0, 0), (3, 1), (6, 0)):
        weight = layer.inside[i].weight.detach().numpy()
        padded = np.pad(inner, [(0, 0), (0, 0), (padding, padding), (padding, padding)])
        k = weight.shape[2]
        inner = np.stack(
            [
                [np.einsum("bcij,ocij->bo", padded[:, :, y : y + k, x : x + k], weight) for x in range(5)]
                for y in range(4)
            ]
        ).transpose(2, 3, 0, 1)
        norm = layer.inside[i + 1]
        mean, variance, scale, shift = (
            v.detach().numpy()[:, None, None] for v in (norm.running_mean, norm.running_var, norm.weight, norm.bias)
        )
        inner = (inner - mean) / np.sqrt(variance + norm.eps) * scale + shift
        if i < 6:
            inner = np.maximum(inner, 0)
    expected = np.maximum(maps.numpy() + inner, 0)
    np.testing.assert_allclose(layer(maps).detach().numpy(), expected, rtol=1e-9, atol=1e-12)


def test_weights_come_from_the_generator_alone():
    for make in (
        lambda g: ConvAutoencoder((1, 20, 20), 5, g),
        lambda g: DenseAutoencoder(12, 3, g),
        lambda g: MNet(5, 4, generator=g),
    ):
        torch.manual_seed(0)
        one = make(seeded(3)).state_dict()
        torch.manual_seed(99)
        two, three = make(seeded(3)).state_dict(), make(seeded(4)).state_dict()
        assert all(torch.equal(one[name], two[name]) for name in one)
        assert any(not torch.equal(one[name], three[name]) for name in one)


def test_transposed_convolutions_start_as_pytorch_starts_them():
    torch.manual_seed(5)
    default = nn.ConvTranspose2d(64, 32, 5, 2, 1)
    ours = ConvAutoencoder((1, 28, 28), generator=seeded()).decoder[5]
    for name in ("weight", "bias"):
        a, b = getattr(default, name), getattr(ours, name)
        assert abs(a.std() / b.std() - 1) < 0.2
        assert abs(a).max() <= b.abs().max() * 1.2 and b.abs().max() <= a.abs().max() * 1.2


def test_the_dense_autoencoder_mirrors_its_widths():
    network = DenseAutoencoder(30, 7)
    shapes = [tuple(layer.weight.shape) for layer in network.encoder if hasattr(layer, "weight")]
    assert shapes == [(500, 30), (500, 500), (2000, 500), (7, 2000)]
    back = [tuple(layer.weight.shape) for layer in network.decoder if hasattr(layer, "weight")]
    assert back == [(2000, 7), (500, 2000), (500, 500), (30, 500)]
    latent, decoded = network(torch.rand(4, 30))
    assert latent.shape == (4, 7) and decoded.shape == (4, 30)
    assert (latent < 0).any(), "the latent layer is linear"


@pytest.mark.parametrize("n_hidden", [2, 3])
def test_assignments_sum_to_one(n_hidden):
    network = MNet(10, 6, n_hidden=n_hidden, generator=seeded())
    q = network(torch.randn(50, 10))
    assert q.shape == (50, 6) and torch.allclose(q.sum(1), torch.ones(50))
    assert sum(isinstance(layer, nn.Linear) for layer in network.layers) == n_hidden + 1


def kinds(part):
    """Names of a part's layers in order."""
    return [type(layer).__name__ for layer in part]


@pytest.mark.parametrize(("depth", "n"), [("shallow", 3), ("deep", 5)])
def test_pooled_layers_are_those_of_section_4_3(depth, n):
    network = PooledAutoencoder((1, 28, 28), 10, depth, seeded())
    down = ["Conv2d", "BatchNorm2d", "ReLU", "MaxPool2d"]
    assert kinds(network.encoder) == down * n + ["Flatten", "Linear"]
    first = ["Linear", "BatchNorm1d", "ReLU", "Unflatten"]
    up = ["ConvTranspose2d", "BatchNorm2d", "ReLU"] * n
    assert kinds(network.decoder) == first + up[:-2]
    outputs = [14, 7, 4, 2, 1]
    assert sizes(network, (1, 28, 28)) == [28, *outputs[: n - 1], *outputs[: n - 1][::-1], 28]
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
            fans = nn.init._calculate_fan_in_and_fan_out(layer.weight)
            bound = (6 / sum(fans)) ** 0.5
            assert 0.9 * bound < layer.weight.abs().max() <= bound and not layer.bias.any()


@pytest.mark.parametrize("depth", ["shallow", "deep"])
@pytest.mark.parametrize("side", [8, 9, 13, 16, 28, 31, 32, 33, 55])
def test_pooled_images_of_every_side_come_back(depth, side):
    pixels = torch.rand(3, 3, side, side + 3, generator=seeded())
    network = PooledAutoencoder(pixels.shape[1:], 4, depth, seeded())
    latent, decoded = network(pixels)
    assert latent.shape == (3, 4) and decoded.shape == pixels.shape
    decoded.sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())
