r"""Exact k nearest neighbours of every row among the others, without an n x n matrix.

With z_i the rows less their mean, rounded to the precision of the products, the bracket in $\lVert z_i \rVert^2 +
(\lVert z_j \rVert^2 - 2 p_{ij})$, $p_{ij} = z_i^\top z_j$, orders the neighbours of row $i$. It is wrong by at most
$\gamma (2 \lVert z_j \rVert^2 + \lVert z_i \rVert^2) + v\,|p_{ij}|$ in any order of summation, with $\gamma = m u / (1
- m u)$, $m = d + 8$, $u = 2^{-24}$ ($2^{-21}$ for sums of tensor cores), and $v = 2^{-7}$ if products are stored in
bfloat16, else 0 (Higham, Accuracy and Stability of Numerical Algorithms, section 3.1); rounding row $i$ by $e_i$ makes
the true distance shorter by at most $e_i + \max_j e_j$. Each row keeps the $k$ + a few smallest lower bounds and
computes their distances again, float64 sums of squared differences of the float32 features, rounded to float32. It is
finished when the next lower bound exceeds its k-th distance; the others (ties, duplicates) look again at everything
that might be nearer. So the result depends neither on rounding, nor on blocks, nor on the device: see the page
"Kernels and their floors".
"""

from numbers import Integral

import numpy as np
import torch

from reprolib.kernels.knn_cpu import BLOCK_ROWS, knn_cpu
from reprolib.kernels.knn_device import knn_device


def knn(
    features: np.ndarray | torch.Tensor, n_neighbors: int, *, block_rows: int = BLOCK_ROWS
) -> tuple[np.ndarray, np.ndarray] | tuple[torch.Tensor, torch.Tensor]:
    """Exact k nearest neighbours of each row among the other rows, by squared Euclidean distance.

    `features` (n, d), numpy or torch, any real dtype (used as float32); `n_neighbors` = k >= 1; `block_rows`, the rows
    handled at once on the CPU. CUDA tensors stay on their device.

    Returns squared distances float32 (n, k), ascending, and indices int64 (n, k): numpy for numpy, torch tensors on
    the same device for torch. The row itself is excluded by its index, so duplicates are neighbours at distance 0;
    ties go to the smaller index. Raises ValueError (not 2-D, NaN or infinite values, values too large to square, too
    few rows, bad k or block_rows), TypeError (not real numbers).

    Source: JULE (Yang et al. 2016), the k-NN graph under equation 4.
    """
    x = _as_tensor(features)
    for name, value in (("n_neighbors", n_neighbors), ("block_rows", block_rows)):
        if not isinstance(value, Integral) or value < 1:
            raise ValueError(f"{name} must be an integer, at least 1, got {value!r}")
    if len(x) <= n_neighbors:
        raise ValueError(
            f"n_neighbors={n_neighbors} needs at least {n_neighbors + 1} samples, got {len(x)}: "
            "lower n_neighbors or pass more samples"
        )
    if x.is_cuda:
        squared, indices = knn_device(x, int(n_neighbors))
    else:
        found = knn_cpu(x.cpu().numpy(), int(n_neighbors), block_rows)
        squared, indices = (torch.from_numpy(part).to(x.device) for part in found)
    if isinstance(features, np.ndarray):
        return squared.numpy(), indices.numpy()
    return squared, indices


def cost(n: int, d: int, k: int) -> dict[str, float]:
    """FLOPs and bytes of an exact k-NN search of n rows of d features among themselves.

    `flops`: the matrix product, 2 n^2 d, plus 3 n k d to compute k distances a row again. `bytes`: float32 features
    read once as rows and once as columns, and k distances and k indices (4 bytes each) a row written: what a fused
    kernel must move. `bytes_materialised`: the same when the n x n float32 matrix is written and read once.
    """
    fused = 8.0 * n * d + 8.0 * n * k
    return {"flops": 2.0 * n * n * d + 3.0 * n * k * d, "bytes": fused, "bytes_materialised": fused + 8.0 * n * n}


def _as_tensor(features: np.ndarray | torch.Tensor) -> torch.Tensor:
    """The features as contiguous float32 (n, d), checked."""
    if isinstance(features, np.ndarray) and features.dtype.kind in "fiu":
        features = torch.from_numpy(np.ascontiguousarray(features, dtype=np.float32))
    if not isinstance(features, torch.Tensor) or (features.is_complex() or features.dtype == torch.bool):
        got = getattr(features, "dtype", type(features).__name__)
        raise TypeError(f"features must be a numpy array or a torch tensor of real numbers, got {got}")
    if features.ndim != 2 or features.shape[1] == 0:
        raise ValueError(
            f"features must be 2-D (samples, features), got shape {tuple(features.shape)}; flatten images first"
        )
    tensor = features.detach().float().contiguous()
    largest = float(torch.stack(tensor.aminmax()).abs().max()) if len(tensor) else 0.0
    if not np.isfinite(largest):
        raise ValueError("features hold NaN or infinite values; clean or drop those rows first")
    # A squared distance is at most d (2 max)^2 and must fit float32, with room for the error bound.
    if tensor.shape[1] * (2.0 * largest) ** 2 > 1e37:
        raise ValueError(f"features as large as {largest:.3g} overflow float32 when squared; rescale them")
    return tensor
