"""The representation that a fitted JULE gives of any images: Tables 4 to 6 of paper 002."""

from typing import Any

import numpy as np
import torch

from reprolib.checks import unknown_name
from reprolib.data.images import as_pixels, to_float_images
from reprolib.methods.jule import JULE

# from the top of the network down (paper 002, section 4.2.1)
LAYERS = ("ip", "top-1", "top-2")
ROWS = 1000


@torch.no_grad()
def represent(model: JULE, images: Any, layer: str = "ip") -> np.ndarray:
    """Outputs of one layer of a fitted `model`, flattened: float32 (n, d), in the order of `images`.

    `images` of the shape that the model was fitted on; `layer` "ip", the inner product layer, or
    "top-1" and "top-2", the blocks of convolution and pool below it. Raises ValueError for an unknown
    layer, for one that the network does not have, and for images of another shape.
    Source: paper 002, section 4.2.1.
    """
    if layer not in LAYERS:
        raise unknown_name("layer", layer, LAYERS)
    pixels = as_pixels(images, to_cluster=False)
    if pixels.shape[1:] != tuple(model.image_shape_):
        raise ValueError(
            f"the model was fitted on images of shape {tuple(model.image_shape_)}, got "
            f"{pixels.shape[1:]}: load them with size={tuple(model.image_shape_)[1:]}"
        )
    network, depth = model.network_.eval(), LAYERS.index(layer)
    if depth > len(network.blocks):
        raise ValueError(
            f"layer {layer!r} needs {depth} convolution blocks; this network, for images of shape "
            f"{tuple(model.image_shape_)}, has {len(network.blocks)}"
        )
    device = next(network.parameters()).device
    blocks = to_float_images(pixels).split(ROWS)
    parts = [network.features(block.to(device))[-1 - depth].flatten(1).cpu() for block in blocks]
    return torch.cat(parts).numpy()
