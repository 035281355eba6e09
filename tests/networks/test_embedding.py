"""The architecture rule and the embedding network of paper 002, section 4.1.2."""

import pytest
import torch

from reprolib.networks.embedding import ConvEmbedding, embedding_blocks


@pytest.mark.parametrize(
    ("size", "n_blocks", "flat"),
    [
        ((16, 16), 1, 1800),  # USPS
        ((28, 28), 2, 3200),  # MNIST, the second block without a pool
        ((32, 32), 2, 1250),  # CMU-PIE, FRGC
        ((128, 128), 4, 1250),  # COIL
    ],
)
def test_rule_gives_the_released_models_sizes(size, n_blocks, flat):
    blocks = embedding_blocks(*size)
    assert len(blocks) == n_blocks
    assert 50 * blocks[-1].height * blocks[-1].width == flat
    network = ConvEmbedding((1, *size))
    assert network.inner_product.in_features == flat
    assert network(torch.rand(2, 1, *size)).shape == (2, 160)


@pytest.mark.parametrize("side", range(5, 140))
def test_rule_fits_every_size(side):
    height, width = side, side + 3
    for block in embedding_blocks(height, width):
        height, width = height - 4, width - 4
        if block.pooled:
            height, width = -(-height // 2), -(-width // 2)
        assert (block.height, block.width) == (height, width)
    assert min(height, width) <= 12


def test_too_small_images_are_named():
    with pytest.raises(ValueError, match="at least 5x5"):
        embedding_blocks(4, 20)


def test_embedding_is_unit_and_takes_colour():
    network = ConvEmbedding((3, 12, 17), embedding_dim=7, channels=4)
    x = network(torch.rand(5, 3, 12, 17))
    assert x.shape == (5, 7)
    torch.testing.assert_close(x.norm(dim=1), torch.ones(5))


def test_start_follows_the_generator_and_the_scale_rule():
    one, two = (ConvEmbedding((1, 16, 16), generator=torch.Generator().manual_seed(3)) for _ in range(2))
    for a, b in zip(one.parameters(), two.parameters(), strict=True):
        assert torch.equal(a, b)
    assert float(one.inner_product.weight.detach().std()) == pytest.approx(0.01, rel=0.05)
    torch7 = ConvEmbedding((1, 16, 16), scale_init="uniform")
    assert torch.all(one.norms[0].weight == 1) and not torch.all(torch7.norms[0].weight == 1)


def test_literal_forward_pass():
    """Blocks written out by hand in float64: convolution, batch statistics, ReLU, ceil-mode pool."""
    network = ConvEmbedding((1, 9, 9), embedding_dim=3, channels=2).double().train()
    images = torch.rand(4, 1, 9, 9, dtype=torch.float64)
    w, b = network.convolutions[0].weight, network.convolutions[0].bias
    maps = torch.zeros(4, 2, 5, 5, dtype=torch.float64)
    for i in range(5):
        for j in range(5):
            patch = images[:, :, i : i + 5, j : j + 5]
            maps[:, :, i, j] = (patch[:, None] * w[None]).sum((2, 3, 4)) + b
    mean = maps.mean((0, 2, 3), keepdim=True)
    var = maps.var((0, 2, 3), unbiased=False, keepdim=True)
    maps = ((maps - mean) / (var + 1e-5).sqrt()).clamp(min=0)
    flat = maps.flatten(1) @ network.inner_product.weight.T  # 5 x 5 stays: a pool would leave 3
    torch.testing.assert_close(network(images), flat / flat.norm(dim=1, keepdim=True))
