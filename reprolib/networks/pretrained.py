"""Features of colour images from a ResNet trained on ImageNet: what paper 004 clusters of them.

Extracted once, then read from the cache of the data root. Source: paper 004, sections 4.2 and 4.5
(Table 2) and section 1 of its supplement.
"""

from __future__ import annotations

import copy
import hashlib
import http.client
import json
import os
import socket
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from tqdm import tqdm

from reprolib.checks import unknown_name
from reprolib.data import cache as storage
from reprolib.data.images import array_sha256, as_pixels
from reprolib.files import file_sha256
from reprolib.training.checkpoint import (
    CheckpointError,
    load_checkpoint,
    pick_device,
    save_checkpoint,
)

NETWORKS = ("resnet34", "resnet50", "resnet101", "resnet152")
PRECISIONS = ("float32", "bfloat16")
SILENCE = 60  # seconds without an answer after which a download counts as failed
SEED = 0  # of random weights


def resnet_features(
    images: Any,
    network: str | nn.Module = "resnet152",
    *,
    weights: str | None = "IMAGENET1K_V1",
    batch_size: int = 64,
    precision: str = "float32",
    device: str = "auto",
    cache: str | os.PathLike | None = None,
    verbose: bool = True,
) -> np.ndarray:
    """Outputs of a ResNet's average pool, before its classifier: float32 (n, d), in order, cached.

    images: `Images` or uint8 (n, 3, h, w), resized, cropped and normalised as torchvision prescribes
    for the weights. network: one of NETWORKS, d = 512 for resnet34 and 2048 for the others; or an
    nn.Module from float (b, 3, 224, 224) to (b, d), of which a copy is used in eval mode.
    weights: a name in torchvision's enum of the network, or None for random ones of a fixed seed, a
    trial without a download; a module has its own. precision: "bfloat16" runs under autocast.
    cache: folder of the results, by default `cache` in `data_root()`. A file there is known by the
    pixels, the network, its weights, the preprocessing and the precision, not by the device; when it
    is there, neither network nor weights are needed. A module is known by its class, its printed
    layers and its weights, and not by the code of its `forward`.
    Raises ValueError for unknown names, wrong shapes, features that are not finite, and a damaged
    file of the cache or of the weights; TypeError for pixels other than uint8; ConnectionError, with
    what to do, when the weights are not there and cannot be downloaded; PermissionError when the
    cache cannot be written.
    Source: paper 004, section 4.2; the paper does not name its weights, these are the ones that
    torchvision had for all four networks. Costs 3.7, 4.1, 7.8 and 11.5 billion multiply-adds an
    image from resnet34 to resnet152, and 4 n d bytes.
    """
    pixels = as_pixels(images, to_cluster=False)  # (n, 3, h, w)
    if pixels.dtype != np.uint8:
        raise TypeError(f"pixels must be uint8, 0..255; got {pixels.dtype}.")
    if pixels.shape[1] != 3:
        raise ValueError(
            f"the networks take three channels, red, green, blue; got shape {pixels.shape}. Gray "
            "images are clustered as they are."
        )
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1; got {batch_size}.")
    if precision not in PRECISIONS:
        raise unknown_name("precision", precision, PRECISIONS)
    chosen = pick_device(device)
    entry = None if isinstance(network, nn.Module) else _entry(network, weights)
    preprocess = (entry or _enum("resnet34")["IMAGENET1K_V1"]).transforms()
    built = network if isinstance(network, nn.Module) else None
    if built is None and entry is None:
        built = _random(network)
    about = {
        "pixels": array_sha256(pixels, None),
        "network": network if isinstance(network, str) else _class_name(network),
        "weights": _file_name(entry) if built is None else _module_sha256(built),
        "preprocessing": repr(preprocess),
        "precision": precision,
    }
    path = _cache_path(cache, about)
    if path.is_file():
        return _read(path, about)
    _check_writable(path.parent)
    if built is None:
        built = _pretrained(network, entry, verbose)
    features = _extract(built, pixels, preprocess, batch_size, precision, chosen, verbose)
    digest = hashlib.sha256(features.data).hexdigest()
    tensors = {"features": torch.from_numpy(features)}
    save_checkpoint(path, tensors, about | {"features_sha256": digest})
    return features


# Networks and weights


def _enum(network: Any) -> Any:
    from torchvision.models import get_model_weights

    if network not in NETWORKS:
        raise unknown_name("network", network, NETWORKS)
    return get_model_weights(network)


def _entry(network: Any, weights: str | None) -> Any:
    """Torchvision's entry of named weights: their address and preprocessing; None for None."""
    enum = _enum(network)
    if weights is not None and weights not in enum.__members__:
        raise unknown_name(f"weights of {network}", weights, enum.__members__)
    return None if weights is None else enum[weights]


def _build(network: str) -> nn.Module:
    from torchvision.models import get_model

    built = get_model(network, weights=None)
    built.fc = nn.Identity()  # what is left ends with the average pool, flattened
    return built


def _random(network: str) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        return _build(network)


def _file_name(entry: Any) -> str:
    return entry.url.rsplit("/", 1)[-1]


def _pretrained(network: str, entry: Any, verbose: bool) -> nn.Module:
    """Build the network with weights from torch's hub cache, downloaded if they are not there."""
    path = Path(torch.hub.get_dir()) / "checkpoints" / _file_name(entry)
    prefix = path.stem.rpartition("-")[2]  # torchvision's names end with the start of the SHA-256
    if not path.is_file():
        _download(network, entry.url, path, prefix, verbose)
    found = file_sha256(path)
    if not found.startswith(prefix):
        raise ValueError(
            f"{path} has the wrong checksum: expected SHA-256 {prefix}..., found {found[:16]}.... "
            "It was cut off or changed; delete it and put it there again."
        )
    state = torch.load(path, map_location="cpu", weights_only=True)
    built = _build(network)
    built.load_state_dict({k: v for k, v in state.items() if not k.startswith("fc.")})
    return built


def _download(network: str, url: str, path: Path, prefix: str, verbose: bool) -> None:
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(SILENCE)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.hub.download_url_to_file(url, str(path), prefix, progress=verbose)
    # a failed checksum is a RuntimeError; an answer cut off is no OSError
    except (OSError, RuntimeError, http.client.HTTPException) as error:
        raise ConnectionError(
            f"the weights of {network} are not at {path} and could not be downloaded ({error}). "
            f"Download {url} where there is a network and put the file there, or set TORCH_HOME to "
            f"a folder that has it as hub/checkpoints/{path.name}."
        ) from error
    finally:
        socket.setdefaulttimeout(before)


def _class_name(module: nn.Module) -> str:
    return f"{type(module).__module__}.{type(module).__qualname__}"


def _module_sha256(module: nn.Module) -> str:
    """Hash a module's printed layers and its state: names, dtypes, shapes and bytes."""
    digest = hashlib.sha256(repr(module).encode())
    for name, tensor in sorted(module.state_dict().items()):
        values = tensor.detach().cpu().contiguous()
        digest.update(f"{name} {values.dtype} {tuple(values.shape)}\n".encode())
        digest.update(values.flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


# The pass over the images


@torch.inference_mode()
def _extract(
    network: nn.Module,
    pixels: np.ndarray,
    preprocess: Any,
    batch_size: int,
    precision: str,
    device: torch.device,
    verbose: bool,
) -> np.ndarray:
    """Run the network over uint8 (n, 3, h, w) in blocks: float32 (n, d)."""
    # a copy: the caller's module keeps its mode, its device and its memory format
    network = copy.deepcopy(network).eval().to(device, memory_format=torch.channels_last)
    half = precision == "bfloat16"
    n, features = len(pixels), np.empty((0, 0), np.float32)
    with tqdm(total=n, unit="image", disable=not verbose) as bar:
        for start in range(0, n, batch_size):
            block = torch.tensor(pixels[start : start + batch_size], device=device)
            inputs = preprocess(block).contiguous(memory_format=torch.channels_last)
            with torch.autocast(device.type, torch.bfloat16, enabled=half):
                outputs = network(inputs)
            part = _check_part(outputs, len(block), start)  # (b, d)
            if start == 0:
                features = np.empty((n, part.shape[1]), np.float32)  # (n, d)
            features[start : start + len(part)] = part
            bar.update(len(part))
    return features


def _check_part(part: Any, rows: int, start: int) -> np.ndarray:
    if not isinstance(part, torch.Tensor) or part.ndim != 2 or len(part) != rows:
        got = tuple(part.shape) if isinstance(part, torch.Tensor) else type(part).__name__
        raise ValueError(
            f"network must turn {rows} images into features ({rows}, d); it gave {got}."
        )
    values = part.float().cpu().numpy()
    bad = ~np.isfinite(values).all(axis=1)
    if bad.any():
        raise ValueError(
            f"the features of image {start + int(bad.argmax())} are not finite: check the network."
        )
    return values


# The cache


def _cache_path(cache: str | os.PathLike | None, about: dict[str, str]) -> Path:
    folder = storage.data_root() / "cache" if cache is None else Path(cache).expanduser()
    key = hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()
    short = about["network"].rsplit(".", 1)[-1]
    return folder / f"features-{short}-{key[:16]}.safetensors"


def _check_writable(folder: Path) -> None:
    """Fail before the hours of a pass, not after them."""
    try:
        storage.ensure_writable(folder)
    except PermissionError as error:
        raise PermissionError(f"{error} For features alone: cache='FOLDER'.") from error


def _read(path: Path, about: dict[str, str]) -> np.ndarray:
    """Read features float32 (n, d) that `save_checkpoint` wrote; runs no code from the file."""
    try:
        tensors, found = load_checkpoint(path)
        features = np.ascontiguousarray(tensors["features"].numpy())
        # safetensors has no checksum of its own
        whole = hashlib.sha256(features.data).hexdigest() == found.pop("features_sha256")
        if not whole or found != about:
            raise ValueError("its content is not what was written")
    except (CheckpointError, KeyError, AttributeError, ValueError) as error:
        raise ValueError(
            f"{path} is damaged ({error}). Delete it; the features are then computed again."
        ) from error
    return features
