"""Autoencoders of papers 004 (section 5, figure 12) and 001, and MNet, the network of paper 004's second phase."""

import math
from itertools import pairwise

import torch
from torch import nn
from torch.nn import functional as F

Generator = torch.Generator | None
INNER = 64  # channels inside a bottleneck layer
WIDTHS = (32, 64, 128)  # channels of the three encoder convolutions
HIDDEN = (500, 500, 2000)  # of the fully connected autoencoder
SIDES = (16, 32)  # what the convolutions are laid out for
HALVED_FROM = 20  # pixels a side from which the first convolution halves the image
LAST = ("last_kernel", "last_stride", "last_padding", "last_extra")
POOLED = {"shallow": (32, 64, 128), "deep": (32, 64, 128, 256, 256)}  # channels of paper 001's, whose text lost them


def side_sizes(n: int) -> dict[str, int]:
    """Lay out one side of n pixels, 16 <= n <= 32, so that the decoder ends at n again.

    `flat` and `middle` are the pixels after the encoder and after the second deconvolution, the rest settings of
    layers, `extra` an output padding. For 28 and 16 pixels these are the values of paper 004, section 6; other
    sides take the kernels of one of them and change the last deconvolution. Raises ValueError for other n.
    """
    if not SIDES[0] <= n <= SIDES[1]:
        raise ValueError(
            f"the convolutional autoencoder takes sides of {SIDES[0]} to {SIDES[1]} pixels, got {n}: "
            "load the images with size=28, or use the fully connected one"
        )
    small = n < HALVED_FROM
    second = (n - 1) // 2 if small else (n + 3) // 4
    flat = (second - 1) // 2
    kernel, padding = (4, 2) if small else (5, 1)
    middle = 2 * (second - 1) - 2 * padding + kernel
    surplus = 2 * middle + 2 - n  # of a last deconvolution 4x4 with stride 2, unpadded
    last = (n - middle + 1, 1, 0, 0) if small else (4, 2, (surplus + 1) // 2, surplus % 2)
    names = "flat", "middle", "extra", "first", "kernel", "padding", *LAST
    values = flat, middle, second - (2 * flat + 1), 2 - small, kernel, padding, *last
    return dict(zip(names, values, strict=True))


class Bottleneck(nn.Module):
    """Bottleneck layer of figure 12(c): 1x1, 3x3 and 1x1 convolutions around an identity (He et al. 2016)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for before, after, kernel in (channels, INNER, 1), (INNER, INNER, 3), (INNER, channels, 1):
            convolution = nn.Conv2d(before, after, kernel, padding=kernel // 2, bias=False)
            layers += [convolution, nn.BatchNorm2d(after), nn.ReLU(inplace=True)]
        self.inside = nn.Sequential(*layers[:-1])

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        """Maps (b, c, h, w) to maps of the same shape."""
        return F.relu(maps + self.inside(maps))


class Autoencoder(nn.Module):
    """An `encoder` and a `decoder`, one after the other."""

    def encode(self, images: torch.Tensor) -> torch.Tensor:
        """Latent vectors u float32 (b, latent_dim)."""
        return self.encoder(images)

    def decode(self, latent: torch.Tensor) -> torch.Tensor:
        """Reconstructed inputs (b, ...) of latent vectors (b, latent_dim)."""
        return self.decoder(latent)

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Latent vectors and reconstructions."""
        latent = self.encode(images)
        return latent, self.decode(latent)


class ConvAutoencoder(Autoencoder):
    """Asymmetric autoencoder of paper 004, figure 12: images (b, c, h, w) of 16 to 32 pixels a side.

    Encoder: convolutions to 32, 64 and 128 channels, each with a bottleneck layer, then `latent_dim` linear
    outputs. Decoder: one fully connected layer and three deconvolutions, no bottlenecks, linear output.
    The first convolution alone is normalised, as in the released code. Starts by `initialise`.
    """

    def __init__(self, image_shape: tuple[int, int, int], latent_dim: int = 10, generator: Generator = None) -> None:
        super().__init__()
        channels, *pixels = image_shape
        rows, columns = (side_sizes(n) for n in pixels)
        both = {name: (rows[name], columns[name]) for name in rows}
        a, b, c = WIDTHS
        flat = (c, *both["flat"])
        self.encoder = nn.Sequential(
            nn.Conv2d(channels, a, 5, both["first"], both["first"], bias=False),
            *(nn.BatchNorm2d(a), nn.ReLU(inplace=True), Bottleneck(a)),
            *(nn.Conv2d(a, b, 5, 2, 2), nn.ReLU(inplace=True), Bottleneck(b)),
            *(nn.Conv2d(b, c, 3, 2), nn.ReLU(inplace=True), Bottleneck(c)),
            *(nn.Flatten(), nn.Linear(math.prod(flat), latent_dim)),
        )
        self.decoder = nn.Sequential(
            *(nn.Linear(latent_dim, math.prod(flat)), nn.ReLU(inplace=True), nn.Unflatten(1, flat)),
            *(nn.ConvTranspose2d(c, b, 3, 2, output_padding=both["extra"]), nn.ReLU(inplace=True)),
            *(nn.ConvTranspose2d(b, a, both["kernel"], 2, both["padding"]), nn.ReLU(inplace=True)),
            nn.ConvTranspose2d(a, channels, *(both[name] for name in LAST)),
        )
        initialise(self, generator)
        self.to(memory_format=torch.channels_last)


class PooledAutoencoder(Autoencoder):
    """Autoencoder of paper 001, section 4.3: images (b, c, h, w) of any size.

    The text says: "shallow" has three convolutions, each with a max pooling, and one fully connected layer to the
    latent vectors; its decoder one fully connected layer and three deconvolutions; "deep" has two more of both; zero
    padding, batch normalisation, ReLU, Xavier's weights. Its numbers are lost: pooling halves the sides (rounded up,
    inferred), 3x3 kernels and the channels are ours. Latent vectors and outputs are linear and not normalised
    (inferred): a normalised latent vector would have its scale set by the batch.
    """

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        latent_dim: int = 10,
        depth: str = "shallow",
        generator: Generator = None,
    ) -> None:
        super().__init__()
        channels, *sides = image_shape
        widths, sizes = POOLED[depth], [tuple(sides)]
        down: list[nn.Module] = []
        for before, after in pairwise((channels, *widths)):
            down += [nn.Conv2d(before, after, 3, padding=1), nn.BatchNorm2d(after), nn.ReLU(inplace=True)]
            down += [nn.MaxPool2d(2, ceil_mode=True)]
            sizes.append(tuple((n + 1) // 2 for n in sizes[-1]))
        flat = (widths[-1], *sizes[-1])
        up: list[nn.Module] = [nn.Linear(latent_dim, math.prod(flat)), nn.BatchNorm1d(math.prod(flat))]
        up += [nn.ReLU(inplace=True), nn.Unflatten(1, flat)]
        steps = zip(pairwise((*widths[::-1], channels)), pairwise(sizes[::-1]), strict=True)
        for (before, after), (small, large) in steps:
            extra = tuple(n - (2 * m - 1) for m, n in zip(small, large, strict=True))
            up += [nn.ConvTranspose2d(before, after, 3, 2, 1, extra), nn.BatchNorm2d(after), nn.ReLU(inplace=True)]
        self.encoder = nn.Sequential(*down, nn.Flatten(), nn.Linear(math.prod(flat), latent_dim))
        self.decoder = nn.Sequential(*up[:-2])
        initialise(self, generator)
        for layer in self.decoder.modules():
            if isinstance(layer, nn.ConvTranspose2d):  # paper 001 has Xavier's in all layers
                nn.init.xavier_uniform_(layer.weight, generator=generator)
                nn.init.zeros_(layer.bias)
        self.to(memory_format=torch.channels_last)


class DenseAutoencoder(Autoencoder):
    """Symmetric fully connected autoencoder d-500-500-2000-latent_dim (paper 004, section 5).

    For feature vectors (b, d), ReLU between the layers, linear latent vectors and outputs.
    """

    def __init__(self, n_features: int, latent_dim: int = 20, generator: Generator = None) -> None:
        super().__init__()
        widths = (n_features, *HIDDEN, latent_dim)
        self.encoder, self.decoder = stack(widths), stack(widths[::-1])
        initialise(self, generator)


class MNet(nn.Module):
    """Network of the second phase: latent vectors (b, d) to assignments q (b, n_clusters).

    `n_hidden` layers of `width` with batch normalisation and ReLU, then a softmax: d-128-128-128-K in
    paper 004, section 5; the released code has two hidden layers, and 1000 wide ones for CIFAR-100.
    """

    def __init__(
        self, latent_dim: int, n_clusters: int, width: int = 128, n_hidden: int = 3, generator: Generator = None
    ) -> None:
        super().__init__()
        self.layers = stack((latent_dim, *[width] * n_hidden, n_clusters), normalise=True)
        initialise(self, generator)

    def forward(self, latent: torch.Tensor) -> torch.Tensor:
        """Assignments q, rows that sum to 1."""
        return torch.softmax(self.layers(latent), dim=1)


def stack(widths: tuple[int, ...], normalise: bool = False) -> nn.Sequential:
    """Linear layers of these widths, between them batch normalisation if asked for, and ReLU."""
    layers: list[nn.Module] = []
    for before, after in pairwise(widths):
        norm = [nn.BatchNorm1d(after)] if normalise else []
        layers += [nn.Linear(before, after), *norm, nn.ReLU(inplace=True)]
    return nn.Sequential(*layers[: -2 if normalise else -1])


def initialise(network: nn.Module, generator: Generator) -> None:
    """Xavier's uniform weights and zero biases, drawn from `generator` alone.

    Transposed convolutions keep the distribution of PyTorch's default, as in the released code of paper 004.
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


def build_autoencoder(shape: tuple[int, ...], latent_dim: int, generator: Generator = None) -> Autoencoder:
    """The autoencoder of paper 004 for inputs of this shape, one sample: (1, h, w) or (d,)."""
    if len(shape) == 1:
        return DenseAutoencoder(shape[0], latent_dim, generator)
    return ConvAutoencoder(shape, latent_dim, generator)


class Centers(nn.Module):
    """Centers of clusters in the latent space, (n_clusters, latent_dim), that a step may train."""

    def __init__(self, n_clusters: int, latent_dim: int) -> None:
        super().__init__()
        self.values = nn.Parameter(torch.zeros(n_clusters, latent_dim))
