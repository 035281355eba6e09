"""Autoencoders of paper 004 (section 5, figure 12) and MNet, the network of its second phase."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import nn
from torch.nn import functional as F

INNER = 64  # channels inside a bottleneck layer
WIDTHS = (32, 64, 128)  # channels of the three encoder convolutions
HIDDEN = (500, 500, 2000)  # of the fully connected autoencoder
SIDES = (16, 32)  # what the convolutions are laid out for
HALVED_FROM = 20  # pixels a side from which the first convolution halves the image


class Side(NamedTuple):
    """Sizes and settings along one side of the images.

    encoder: pixels after the three convolutions; first: stride and padding of the first; extra: output
    padding of the first deconvolution; second: kernel and padding of the second, which doubles; middle:
    pixels after it; last: kernel, stride, padding and output padding of the last.
    """

    encoder: tuple[int, int, int]
    first: tuple[int, int]
    extra: int
    second: tuple[int, int]
    middle: int
    last: tuple[int, int, int, int]


def side_sizes(n: int) -> Side:
    """Lay out one side of n pixels, 16 <= n <= 32, so that the decoder ends at n again.

    For 28 and 16 pixels these are the values of paper 004, section 6; other sides take the kernels of
    one of them and change the last deconvolution. Raises ValueError for other n.
    """
    if not SIDES[0] <= n <= SIDES[1]:
        raise ValueError(
            f"the convolutional autoencoder takes sides of {SIDES[0]} to {SIDES[1]} pixels, got {n}: "
            "load the images with size=28, or use the fully connected one"
        )
    small = n < HALVED_FROM
    first = n - 2 if small else (n + 1) // 2
    second = (first + 1) // 2
    third = (second - 3) // 2 + 1
    extra = second - (2 * third + 1)
    kernel, padding = (4, 2) if small else (5, 1)
    middle = 2 * (second - 1) - 2 * padding + kernel
    surplus = 2 * (middle - 1) + 4 - n  # of a last deconvolution 4x4 with stride 2, unpadded
    last = (n - middle + 1, 1, 0, 0) if small else (4, 2, (surplus + 1) // 2, surplus % 2)
    return Side(
        (first, second, third),
        (1, 1) if small else (2, 2),
        extra,
        (kernel, padding),
        middle,
        last,
    )


class Bottleneck(nn.Module):
    """Bottleneck layer of figure 12(c): 1x1, 3x3 and 1x1 convolutions around an identity (He et al. 2016)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.inside = nn.Sequential(
            nn.Conv2d(channels, INNER, 1, bias=False),
            nn.BatchNorm2d(INNER),
            nn.ReLU(inplace=True),
            nn.Conv2d(INNER, INNER, 3, padding=1, bias=False),
            nn.BatchNorm2d(INNER),
            nn.ReLU(inplace=True),
            nn.Conv2d(INNER, channels, 1, bias=False),
            nn.BatchNorm2d(channels),
        )

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        """Maps (b, c, h, w) to maps of the same shape."""
        return F.relu(maps + self.inside(maps))


class ConvAutoencoder(nn.Module):
    """Asymmetric autoencoder of paper 004, figure 12: images (b, c, h, w) of 16 to 32 pixels a side.

    Encoder: convolutions to 32, 64 and 128 channels, each with a bottleneck layer, then `latent_dim` linear
    outputs. Decoder: one fully connected layer and three deconvolutions, no bottlenecks, linear output.
    The first convolution alone is normalised, as in the released code. Weights of convolutions and
    linear layers start from Xavier's uniform distribution, biases from 0.
    """

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        latent_dim: int = 10,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        channels, *pixels = image_shape
        rows, columns = (side_sizes(n) for n in pixels)
        a, b, c = WIDTHS
        self.flat = (c, rows.encoder[2], columns.encoder[2])

        def both(setting: str, index: int) -> tuple[int, int]:
            return tuple(getattr(side, setting)[index] for side in (rows, columns))

        self.encoder = nn.Sequential(
            nn.Conv2d(channels, a, 5, both("first", 0), both("first", 1), bias=False),
            nn.BatchNorm2d(a),
            nn.ReLU(inplace=True),
            Bottleneck(a),
            nn.Conv2d(a, b, 5, 2, 2),
            nn.ReLU(inplace=True),
            Bottleneck(b),
            nn.Conv2d(b, c, 3, 2),
            nn.ReLU(inplace=True),
            Bottleneck(c),
            nn.Flatten(),
            nn.Linear(c * self.flat[1] * self.flat[2], latent_dim),
        )
        self.decoder = nn.Sequential(
            nn.Linear(latent_dim, c * self.flat[1] * self.flat[2]),
            nn.ReLU(inplace=True),
            nn.Unflatten(1, self.flat),
            nn.ConvTranspose2d(c, b, 3, 2, output_padding=(rows.extra, columns.extra)),
            nn.ReLU(inplace=True),
            nn.ConvTranspose2d(b, a, both("second", 0), 2, both("second", 1)),
            nn.ReLU(inplace=True),
            nn.ConvTranspose2d(
                a, channels, both("last", 0), both("last", 1), both("last", 2), both("last", 3)
            ),
        )
        initialise(self, generator)
        self.to(memory_format=torch.channels_last)

    def encode(self, images: torch.Tensor) -> torch.Tensor:
        """Latent vectors u float32 (b, latent_dim)."""
        return self.encoder(images)

    def decode(self, latent: torch.Tensor) -> torch.Tensor:
        """Reconstructed images (b, c, h, w) of latent vectors (b, latent_dim)."""
        return self.decoder(latent)

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Latent vectors and reconstructions."""
        latent = self.encode(images)
        return latent, self.decode(latent)


class DenseAutoencoder(nn.Module):
    """Symmetric fully connected autoencoder d-500-500-2000-latent_dim (paper 004, section 5).

    For feature vectors (b, d), ReLU between the layers, linear latent vectors and outputs. Starts as
    `ConvAutoencoder` does.
    """

    def __init__(
        self, n_features: int, latent_dim: int = 20, generator: torch.Generator | None = None
    ) -> None:
        super().__init__()
        widths = (n_features, *HIDDEN, latent_dim)
        self.encoder = stack(widths)
        self.decoder = stack(widths[::-1])
        initialise(self, generator)

    encode, decode, forward = (
        ConvAutoencoder.encode,
        ConvAutoencoder.decode,
        ConvAutoencoder.forward,
    )


class MNet(nn.Module):
    """Network of the second phase: latent vectors (b, d) to assignments q (b, n_clusters).

    `n_hidden` layers of `width` with batch normalisation and ReLU, then a softmax: d-128-128-128-K in
    paper 004, section 5; the released code has two hidden layers, and 1000 wide ones for CIFAR-100.
    """

    def __init__(
        self,
        latent_dim: int,
        n_clusters: int,
        width: int = 128,
        n_hidden: int = 3,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for i in range(n_hidden):
            layers += [
                nn.Linear(width if i else latent_dim, width),
                nn.BatchNorm1d(width),
                nn.ReLU(inplace=True),
            ]
        self.layers = nn.Sequential(*layers, nn.Linear(width, n_clusters))
        initialise(self, generator)

    def forward(self, latent: torch.Tensor) -> torch.Tensor:
        """Assignments q, rows that sum to 1."""
        return torch.softmax(self.layers(latent), dim=1)


def stack(widths: tuple[int, ...]) -> nn.Sequential:
    """Linear layers of these widths with ReLU between them."""
    layers: list[nn.Module] = []
    for before, after in zip(widths[:-1], widths[1:], strict=True):
        layers += [nn.Linear(before, after), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers[:-1])


def initialise(network: nn.Module, generator: torch.Generator | None) -> None:
    """Xavier's uniform weights and zero biases, drawn from `generator` alone.

    Transposed convolutions keep the distribution of PyTorch's default, as in the released code of
    paper 004.
    """
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.xavier_uniform_(module.weight, generator=generator)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.ConvTranspose2d):
            nn.init.kaiming_uniform_(module.weight, a=5**0.5, generator=generator)
            fan_in = module.weight.shape[1] * module.weight[0, 0].numel()
            nn.init.uniform_(module.bias, -(fan_in**-0.5), fan_in**-0.5, generator=generator)


def build_autoencoder(
    shape: tuple[int, ...], latent_dim: int, generator: torch.Generator | None = None
) -> nn.Module:
    """The autoencoder of paper 004 for inputs of this shape, one sample: (1, h, w) or (d,)."""
    if len(shape) == 1:
        return DenseAutoencoder(shape[0], latent_dim, generator)
    return ConvAutoencoder(tuple(shape), latent_dim, generator)


class Centers(nn.Module):
    """Centers of clusters in the latent space, (n_clusters, latent_dim), that a step may train."""

    def __init__(self, n_clusters: int, latent_dim: int) -> None:
        super().__init__()
        self.values = nn.Parameter(torch.zeros(n_clusters, latent_dim))
