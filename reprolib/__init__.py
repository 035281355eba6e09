"""reprolib: kernels, graphs, networks and trainers behind a reproduction of five deep clustering papers."""

from reprolib import metrics
from reprolib.data.load import Images, load

__version__ = "0.1.0"
__all__ = ["Images", "load", "metrics"]
