"""What the method of a run sees: pixels, features of an ImageNet network, or of a fitted JULE.

The setting `features` of a run is "pixels", the name of a network, or jule/DATASET/LAYER: that layer
of the JULE model that was fitted on that data set (paper 002, section 4.2.1).
"""

from __future__ import annotations

from typing import Any

from reprolib.checks import unknown_name
from reprolib.experiments.paper import paper_folder, profile_entry

PIXELS = "pixels"


def learned(features: str) -> tuple[str, str] | None:
    """Data set and layer of features jule/DATASET/LAYER; None for others."""
    dataset, _, layer = features.removeprefix("jule/").rpartition("/")
    return (dataset, layer) if features.startswith("jule/") else None


def check(features: str, method: str, profile: str) -> list[str]:
    """Name the behaviours that features hang on.

    Raises ValueError for unknown features, and for a method that needs images.
    """
    from reprolib.methods.jule import LAYERS
    from reprolib.networks.pretrained import NETWORKS

    if features == PIXELS:
        return []
    if found := learned(features):
        profile_entry("jule", found[0], profile)
        if found[1] not in LAYERS:
            raise unknown_name("layer of features jule/DATASET/LAYER", found[1], LAYERS)
    elif features not in NETWORKS:
        raise unknown_name("features", features, (PIXELS, *NETWORKS, "jule/DATASET/LAYER"))
    if method == "JULE":
        raise ValueError(f"JULE needs images, not features {features!r}: name another method.")
    return ["represent", "JULE/paper"] if found else ["resnet_features"]


def images(plan: Any) -> Any:
    """Load a plan's data set as the profile says, in the size and channels of the model if any."""
    from reprolib.data.load import load

    if not learned(plan.features):
        return load(plan.dataset, **plan.load)
    channels, *size = _jule(plan).input_shape_
    return load(plan.dataset, **plan.load | {"size": tuple(size), "gray": channels == 1})


def compute(plan: Any, images: Any) -> Any:
    """The features float32 (n, d) of a plan's images, or the images themselves for "pixels"."""
    if plan.features == PIXELS:
        return images
    if found := learned(plan.features):
        return _jule(plan).represent(images, found[1])
    from reprolib.networks.pretrained import resnet_features

    how = {k: plan.parameters[k] for k in ("precision", "device") if k in plan.parameters}
    return resnet_features(images, plan.features, **how)


def _jule(plan: Any) -> Any:
    from reprolib.experiments.records import stem
    from reprolib.methods.jule import JULE

    dataset, profile, seed = learned(plan.features)[0], plan.profile, plan.random_state
    folder = plan.shared if plan.paper == "jule" else paper_folder("jule") / "runs" / "models"
    path = folder / f"{stem('JULE', dataset, profile, 'main', seed)}.safetensors"
    if not path.is_file():
        raise FileNotFoundError(
            f"no model {path}: models stay on the machine that fitted them. Fit it with `python -m "
            f"reprolib run jule -p dataset={dataset} -p profile={profile} --seeds {seed + 1} --force`"
        )
    return JULE.load(path)
