"""JULE on patches: the small CNN of paper 002, section 4.3, and its layers as representations."""

import os
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import nn

from reprolib.checks import unknown_name
from reprolib.data.images import sealed_labels
from reprolib.methods.base import check_counts
from reprolib.methods.jule import JULE
from reprolib.methods.jule_run import Run
from reprolib.networks.embedding import Block, ConvEmbedding
from reprolib.studies.codes import Representation
from reprolib.training.checkpoint import load_checkpoint, save_checkpoint

# the columns of Table 8, and the inner product layer that the text says performs poorly
LAYERS = {"conv1": (0,), "conv2": (1,), "conv1&2": (0, 1), "ip": (2,)}


class PatchEmbedding(ConvEmbedding):
    """CNN of paper 002, section 4.3: patches (m, c, h, w) to unit vectors (m, embedding_dim).

    Two blocks of convolution 3x3 with padding 1, ReLU and a 2x2 pool (ceil mode, as Caffe's): 6x6
    pixels become 3x3, then 2x2. Batch normalisation as section 4.1.2 has it in every block; section 4.3
    does not list it. Weights start as those of `ConvEmbedding`.
    """

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        embedding_dim: int = 160,
        channels: int = 50,
        scale_init: str = "ones",
        generator: torch.Generator | None = None,
    ) -> None:
        nn.Module.__init__(self)  # the parent's own would stack 5x5 convolutions
        in_channels, height, width = image_shape
        self.patch_size = (height, width)
        self.convolutions, self.norms = nn.ModuleList(), nn.ModuleList()
        self.blocks: list[Block] = []
        for _ in range(2):
            self.convolutions.append(nn.Conv2d(in_channels, channels, 3, padding=1))
            self.norms.append(nn.BatchNorm2d(channels))
            height, width = (height + 1) // 2, (width + 1) // 2
            self.blocks.append(Block(height, width, pooled=True))
            in_channels = channels
        self.inner_product = nn.Linear(channels * height * width, embedding_dim)
        for module in (*self.convolutions, self.inner_product):
            nn.init.normal_(module.weight, 0.0, 0.01, generator=generator)
            nn.init.zeros_(module.bias)
        if scale_init == "uniform":
            for norm in self.norms:
                nn.init.uniform_(norm.weight, generator=generator)
        self.to(memory_format=torch.channels_last)


class PatchRun(Run):
    """JULE's periods with `PatchEmbedding` in the place of the CNN for whole images."""

    def __init__(self, model: JULE, patches: np.ndarray) -> None:
        super().__init__(model, patches, monitor=None, checkpoint=None)
        self.network = PatchEmbedding(
            patches.shape[1:],
            model.embedding_dim,
            model.channels,
            self.settings["scale_init"],
            self.generator,
        ).to(self.device)
        # the optimizer has no state before the first step
        self.optimizer.param_groups[0]["params"] = list(self.network.parameters())


def learn_patch_network(
    patches: np.ndarray, model: JULE
) -> tuple[PatchEmbedding, list[dict[str, Any]]]:
    """Train the patch CNN by JULE until `model.n_clusters` clusters are left: the CNN, and its epochs.

    patches: whitened, float32 (m, c, h, w); model: an unfitted `JULE`, for its parameters. It is not
    changed. Its default of 10 clusters is CIFAR-10's number of categories: the paper's rule for n_c*,
    which section 4.3 does not set anew. The epochs are as in `JULE.history_`; a mean `loss` that stays at
    `model.margin` tells a collapse. Raises as `JULE.fit` does. Source: paper 002, section 4.3 and
    Algorithm 1.
    """
    with sealed_labels():
        check_counts(len(patches), model.n_clusters, model.n_neighbors)
        run = PatchRun(model, patches)
        run.train()
    return run.network.eval(), run.history


def save_patch_network(
    network: PatchEmbedding, path: str | os.PathLike, about: Mapping[str, Any]
) -> None:
    """Write the network and what is known about it, JSON-ready, to one safetensors file, atomically."""
    convolution = network.convolutions[0]
    built = {
        "image_shape": [convolution.in_channels, *network.patch_size],
        "channels": convolution.out_channels,
        "embedding_dim": network.inner_product.out_features,
    }
    save_checkpoint(path, network.state_dict(), {"network": built, "about": dict(about)})


def load_patch_network(path: str | os.PathLike) -> tuple[PatchEmbedding, dict[str, Any]]:
    """Read what `save_patch_network` wrote, the network ready to use; CheckpointError when damaged."""
    tensors, state = load_checkpoint(path)
    network = PatchEmbedding(**state["network"])
    network.load_state_dict(tensors)
    return network.eval(), state["about"]


def layer_representation(
    network: PatchEmbedding, layer: str, patch_shape: tuple[int, int, int]
) -> Representation:
    """Function from whitened patches (m, c * h * w) to a layer's responses (m, d), d > 0.

    layer: a key of LAYERS; "conv1" and "conv2" are the blocks' outputs, after ReLU and pool: 450 and 200
    numbers for the paper's network on 6x6 patches; "conv1&2" is both, one after the other; "ip" the inner
    product layer, not normalised. Raises ValueError for another name. Source: paper 002, section 4.3.
    """
    if layer not in LAYERS:
        raise unknown_name("layer", layer, LAYERS)

    @torch.no_grad()
    def represent(vectors: torch.Tensor) -> torch.Tensor:
        network.to(vectors.device)
        maps = network.features(vectors.view(-1, *patch_shape))
        return torch.cat([maps[i].flatten(1) for i in LAYERS[layer]], dim=1)

    return represent
