"""Features of colour images from a ResNet trained on ImageNet, extracted once, then cached.

Source: paper 004, sections 4.2 and 4.5 (Table 2) and section 1 of its supplement.
"""

import copy
import hashlib
import http.client
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from tqdm import tqdm

from reprolib.checks import check_name, pick_device
from reprolib.data import cache
from reprolib.data.fetch import limited_silence
from reprolib.data.images import Images, as_pixels
from reprolib.files import file_sha256

NETWORKS = ("resnet34", "resnet50", "resnet101", "resnet152")
PRECISIONS = ("float32", "bfloat16")
WEIGHTS = "IMAGENET1K_V1"  # the ones that torchvision has for all four


def resnet_features(
    images: Any, network: str = "resnet152", *, precision: str = "float32", device: str = "auto"
) -> np.ndarray:
    """Outputs of a ResNet's average pool, before its classifier: float32 (n, d), in order, cached.

    `images`: `Images` or uint8 (n, 3, h, w), resized, cropped and normalised as torchvision prescribes for the
    weights. `network`: one of NETWORKS, d = 512 for resnet34 and 2048 for the others, 3.7 to 11.5 billion
    multiply-adds an image. `precision`: "bfloat16" runs under autocast. Once cached, by pixels, network, weights,
    preprocessing and precision, no weights are needed. Raises ValueError (unknown names, wrong shapes, features not
    finite, a damaged file), TypeError (pixels not uint8), ConnectionError (weights not there and no download),
    PermissionError (cache). Source: paper 004, section 4.2, which does not name its weights.
    """
    from torchvision.models import get_model_weights

    pixels = as_pixels(images, to_cluster=False)  # (n, 3, h, w)
    if pixels.dtype != np.uint8:
        raise TypeError(f"pixels must be uint8, 0..255; got {pixels.dtype}.")
    if pixels.shape[1] != 3:
        raise ValueError(
            f"the networks take three channels, red, green, blue; got shape {pixels.shape}. Gray images are "
            "clustered as they are."
        )
    for what, name, known in (("network", network, NETWORKS), ("precision", precision, PRECISIONS)):
        check_name(what, name, known)
    place, entry = pick_device(device), get_model_weights(network)[WEIGHTS]
    preprocess = entry.transforms()
    about = {"pixels": Images(pixels).sha256, "network": network, "weights": Path(entry.url).name}
    about |= {"preprocessing": repr(preprocess), "precision": precision}
    key = hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()[:16]
    root, name = cache.data_root(), f"features-{network}-{key}"
    if kept := cache.verified(root, name):
        return cache.read_npz(kept, "features")["features"]
    cache.ensure_writable(root / "cache")  # or fail after the hours of the pass
    features = extract(_pretrained(network, entry), pixels, preprocess, precision=precision, device=place)
    cache.write_arrays(root, name, {"features": features}, about)
    return features


def _pretrained(network: str, entry: Any) -> nn.Module:
    """Build the network with weights from torch's hub cache, downloaded if they are not there."""
    from torchvision.models import get_model

    path = Path(torch.hub.get_dir()) / "checkpoints" / Path(entry.url).name
    prefix = path.stem.rpartition("-")[2]  # torchvision's names end with the start of the SHA-256
    # torch checks only what it downloads
    if path.is_file() and not file_sha256(path).startswith(prefix):
        raise ValueError(
            f"{path} has the wrong checksum: its SHA-256 does not start with {prefix}. It was cut off or changed; "
            "delete it and put it there again."
        )
    try:
        with limited_silence():
            state = entry.get_state_dict(check_hash=True, weights_only=True, map_location="cpu")
    # a failed checksum is a RuntimeError; an answer cut off is no OSError
    except (OSError, RuntimeError, http.client.HTTPException) as error:
        raise ConnectionError(
            f"the weights of {network} are not at {path} and could not be downloaded ({error}). Download {entry.url} "
            "where there is a network and put the file there, or set TORCH_HOME to a folder that has it as "
            f"hub/checkpoints/{path.name}."
        ) from error
    built = get_model(network, weights=None)
    built.load_state_dict(state)
    built.fc = nn.Identity()  # what is left ends with the average pool, flattened
    return built


@torch.inference_mode()
def extract(
    network: nn.Module,
    pixels: np.ndarray,
    preprocess: Any,
    *,
    precision: str,
    device: torch.device,
    batch_size: int = 64,
) -> np.ndarray:
    """Run a copy of a network, in eval mode, over preprocessed uint8 (n, 3, h, w): float32 (n, d).

    Raises ValueError when it does not give an array (b, d) of finite numbers for b images.
    """
    # a copy: the caller's module keeps its mode, its device and its memory format
    network = copy.deepcopy(network).eval().to(device, memory_format=torch.channels_last)
    parts = []
    with tqdm(total=len(pixels), unit="image") as bar:
        for start in range(0, len(pixels), batch_size):
            block = torch.tensor(pixels[start : start + batch_size], device=device)
            inputs = preprocess(block).contiguous(memory_format=torch.channels_last)
            with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16"):
                part = network(inputs).float().cpu().numpy()  # (b, d)
            if part.ndim != 2 or len(part) != len(block):
                raise ValueError(
                    f"network must turn {len(block)} images into features ({len(block)}, d); it gave {part.shape}."
                )
            finite = np.isfinite(part).all(axis=1)
            if not finite.all():
                raise ValueError(f"the features of image {start + finite.argmin()} are not finite: check the network.")
            parts.append(part)
            bar.update(len(block))
    return np.concatenate(parts)
