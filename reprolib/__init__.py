"""reprolib: kernels, graphs, networks and trainers behind a reproduction of five deep clustering papers."""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"
__all__ = ["Images", "load", "metrics"]


def __getattr__(name: str) -> Any:
    # at first use: the command line answers before numpy is imported
    if name not in __all__:
        raise AttributeError(f"module 'reprolib' has no attribute {name!r}")
    if name == "metrics":
        return import_module("reprolib.metrics")
    return getattr(import_module("reprolib.data.load"), name)
