"""JULE on patches: the small CNN of paper 002, section 4.3, and its layers as representations."""

from typing import Any

import numpy as np
import torch

from reprolib.checks import check_name
from reprolib.data.images import to_float_images
from reprolib.methods.jule import JULE
from reprolib.networks.embedding import ConvEmbedding, PatchEmbedding
from reprolib.studies.codes import Representation

# the columns of Table 8, and the inner product layer that the text says performs poorly
LAYERS = {"conv1": (0,), "conv2": (1,), "conv1&2": (0, 1), "ip": (2,)}


class PatchJULE(JULE):
    """JULE's periods with `PatchEmbedding` in the place of the CNN for whole images."""

    @staticmethod
    def NETWORK(shape: tuple[int, int, int], *sizes: Any) -> PatchEmbedding:  # noqa: N802
        """The CNN for patches; drawn after one for images, as when the records were made."""
        ConvEmbedding(shape, *sizes)
        return PatchEmbedding(shape, *sizes)

    @staticmethod
    def prepare(X: np.ndarray, *, to_cluster: bool = True) -> torch.Tensor:
        """Whitened patches float32 (m, c, h, w)."""
        return to_float_images(X)


def learn_patch_network(patches: np.ndarray, model: JULE) -> tuple[PatchEmbedding, list[dict[str, Any]]]:
    """Train the patch CNN by JULE until `model.n_clusters` clusters are left: the CNN, and its epochs.

    patches: whitened, float32 (m, c, h, w); model: an unfitted `JULE`, for its parameters. The epochs are as in
    `JULE.history_`; a mean `loss` that stays at `model.margin` tells a collapse. Paper 002, section 4.3, Algorithm 1.
    """
    fitted = PatchJULE(**model.get_params()).fit(patches)
    return fitted.network_.eval(), fitted.history_


def layer_representation(network: PatchEmbedding, layer: str, patch_shape: tuple[int, int, int]) -> Representation:
    """Function from whitened patches (m, c * h * w) to a layer's responses (m, d), d > 0.

    layer: a key of LAYERS; "conv1" and "conv2" are the blocks' outputs, after ReLU and pool: 450 and 200
    numbers for the paper's network on 6x6 patches; "conv1&2" is both, one after the other; "ip" the inner
    product layer, not normalised. Raises ValueError for another name. Source: paper 002, section 4.3.
    """
    check_name("layer", layer, LAYERS)

    @torch.no_grad()
    def represent(vectors: torch.Tensor) -> torch.Tensor:
        network.to(vectors.device)
        maps = network.features(vectors.view(-1, *patch_shape))
        return torch.cat([maps[i].flatten(1) for i in LAYERS[layer]], dim=1)

    return represent
