"""The convolutional embedding of paper 002, section 4.1.2, and the smaller one for patches."""

import math
from typing import NamedTuple

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

KERNEL = 5
# another block is stacked while the smaller side is at least this; the paper aims at about 10 x 10
STACK_FROM = 12
# a pool is left out where it would bring the smaller side below this
POOL_DOWN_TO = 5
ROWS = 1000  # images at a time where no gradient is taken


class Block(NamedTuple):
    """One convolution block of the architecture rule: output height and width, and whether it pools."""

    height: int
    width: int
    pooled: bool


def embedding_blocks(height: int, width: int) -> list[Block]:
    """Blocks of the architecture rule for images of this size (paper 002, section 4.1.2).

    Convolutions 5x5 without padding are stacked until the feature map is about 10x10; each is followed by a 2x2
    pool (ceil mode) unless that leaves less than 5 pixels a side. The rule gives the released models' flattened
    sizes for USPS (16), MNIST (28), CMU-PIE, FRGC (32) and COIL (128). ValueError for images smaller than 5x5.
    """
    if min(height, width) < KERNEL:
        raise ValueError(
            f"images must be at least {KERNEL}x{KERNEL} pixels for a {KERNEL}x{KERNEL} convolution, "
            f"got {height}x{width}: load them with size=..."
        )
    blocks: list[Block] = []
    while not blocks or min(height, width) >= STACK_FROM:
        height, width = height - KERNEL + 1, width - KERNEL + 1
        pooled = math.ceil(min(height, width) / 2) >= POOL_DOWN_TO
        if pooled:
            height, width = math.ceil(height / 2), math.ceil(width / 2)
        blocks.append(Block(height, width, pooled))
    return blocks


class ConvEmbedding(nn.Module):
    """CNN f_r of equation 5a: images (b, c, h, w) to unit vectors (b, embedding_dim).

    Blocks of convolution 5x5, batch normalisation, ReLU and pool by `embedding_blocks`, one inner product layer
    and L2 normalisation (paper 002, section 4.1.2). Weights start from N(0, 0.01^2), biases from 0. `scale_init`
    "uniform" draws the scales of the batch normalisation from U(0, 1), as Torch7 did; "ones" is today's default.
    """

    kernel, padding, layout = KERNEL, 0, staticmethod(embedding_blocks)

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        embedding_dim: int = 160,
        channels: int = 50,
        scale_init: str = "ones",
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        in_channels, height, width = image_shape
        self.blocks = self.layout(height, width)
        depths = [in_channels] + [channels] * (len(self.blocks) - 1)
        sizes = channels, self.kernel, 1, self.padding
        self.convolutions = nn.ModuleList(nn.Conv2d(depth, *sizes) for depth in depths)
        self.norms = nn.ModuleList(nn.BatchNorm2d(channels) for _ in depths)
        flat = channels * self.blocks[-1].height * self.blocks[-1].width
        self.inner_product = nn.Linear(flat, embedding_dim)
        for module in (*self.convolutions, self.inner_product):
            nn.init.normal_(module.weight, 0.0, 0.01, generator=generator)
            nn.init.zeros_(module.bias)
        if scale_init == "uniform":
            for norm in self.norms:
                nn.init.uniform_(norm.weight, generator=generator)
        self.to(memory_format=torch.channels_last)

    def features(self, images: torch.Tensor) -> list[torch.Tensor]:
        """Outputs of every block and of the inner product layer, before the L2 normalisation."""
        maps = []
        for convolution, norm, block in zip(self.convolutions, self.norms, self.blocks, strict=True):
            images = norm(convolution(images))  # (b, channels, h, w)
            if block.pooled:
                images = F.max_pool2d(images, 2, ceil_mode=True)
            # ReLU and maximum commute; after the pool it touches a quarter of the memory
            images = F.relu(images)
            maps.append(images)
        return [*maps, self.inner_product(images.flatten(1))]  # (b, embedding_dim) the last

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Unit vectors float32 (b, embedding_dim) of float32 images (b, c, h, w)."""
        return F.normalize(self.features(images)[-1], dim=1, eps=1e-8)


class PatchEmbedding(ConvEmbedding):
    """CNN of paper 002, section 4.3: patches (m, c, h, w) to unit vectors (m, embedding_dim).

    Two blocks of convolution 3x3 with padding 1, ReLU and a 2x2 pool (ceil mode, as Caffe's): 6x6 pixels become
    3x3, then 2x2. Batch normalisation in every block as section 4.1.2 has it; section 4.3 does not list it.
    """

    kernel, padding = 3, 1

    @staticmethod
    def layout(height: int, width: int) -> list[Block]:
        """Blocks for patches of this size."""
        return [Block(math.ceil(height / size), math.ceil(width / size), pooled=True) for size in (2, 4)]


@torch.no_grad()
def embed(
    network: ConvEmbedding, images: torch.Tensor, *, batch_size: int = ROWS, statistics: str = "running"
) -> np.ndarray:
    """Unit embedding float32 (n, d) of float images (n, c, h, w), in order (paper 002, equation 5a).

    `statistics="batch"` normalises each block of `batch_size` images by its own mean and variance, as JULE.torch
    does between periods; the running statistics stay as they were.
    """
    network.train(statistics == "batch")
    momentum = [norm.momentum for norm in network.norms]
    for norm in network.norms:
        norm.momentum = 0.0
    device = next(network.parameters()).device
    parts = [network(block.to(device)) for block in images.split(batch_size)]
    for norm, value in zip(network.norms, momentum, strict=True):
        norm.momentum = value
    return torch.cat(parts).cpu().numpy()
