"""Patches of images, whitened, and their codes summed over quadrants (Coates, Ng and Lee 2011).

Paper 002, section 4.3, changes one thing: between whitening and codebook stands a learned representation of them.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.lib.stride_tricks import sliding_window_view
from sklearn.cluster import KMeans
from torch.nn import functional as F

from reprolib.checks import pick_device
from reprolib.data.images import as_pixels, sealed_labels

PATCH = 6  # pixels a side
CONTRAST = 10.0  # added to the variance, on the scale 0..255
ZCA_EPSILON = 0.1  # added to the eigenvalues
ITERATIONS = 50  # of K-means, as in the released code of Coates et al.
# distances of a block of images: in a processor's cache, or enough to fill a GPU
BLOCK_BYTES = {"cpu": 8 << 20, "cuda": 512 << 20}

Representation = Callable[[torch.Tensor], torch.Tensor]


class Whitening(NamedTuple):
    """Contrast normalisation, then ZCA: `mean` (d,) and the symmetric `matrix` (d, d)."""

    mean: torch.Tensor
    matrix: torch.Tensor

    def __call__(self, patches: torch.Tensor) -> torch.Tensor:
        """Whitened float32 (m, d) of raw patches (m, d); a constant patch carries no contrast."""
        return (normalise_contrast(patches) - self.mean) @ self.matrix


def sample_patches(images: Any, n_patches: int, *, size: int = PATCH, random_state: int = 0) -> torch.Tensor:
    """Draw square patches at random places of random images.

    images: `Images` or uint8 (n, h, w) or (n, c, h, w). Returns float32 (n_patches, c * size * size), values
    0..255. Raises TypeError for pixels that are not uint8, ValueError for images smaller than a patch.
    """
    pixels = _checked_pixels(images, size)
    if n_patches < 2:
        raise ValueError(f"n_patches must be at least 2, got {n_patches}")
    windows = sliding_window_view(pixels, (size, size), axis=(2, 3))  # (n, c, rows, columns, s, s)
    n, _, rows, columns = windows.shape[:4]
    rng = np.random.default_rng(random_state)
    image, top, left = (rng.integers(count, size=n_patches) for count in (n, rows, columns))
    drawn = windows[image, :, top, left]  # (m, c, s, s)
    return torch.from_numpy(drawn.reshape(n_patches, -1).astype(np.float32))


def normalise_contrast(patches: torch.Tensor) -> torch.Tensor:
    """Subtract each patch's mean and divide by sqrt(unbiased variance + 10): float32 (m, d) to (m, d).

    As in the released code of Coates, Ng and Lee (2011). A constant patch becomes 0.
    """
    variance, mean = torch.var_mean(patches, dim=1, keepdim=True)
    return (patches - mean) / torch.sqrt(variance + CONTRAST)


def fit_whitening(patches: torch.Tensor) -> Whitening:
    """ZCA of raw patches float32 (m, d): V (D + 0.1)^-1/2 V' of the covariance V D V'.

    O(m d^2 + d^3), in float64. Source: Coates, Ng and Lee 2011.
    """
    normalised = normalise_contrast(patches).double()
    values, vectors = torch.linalg.eigh(torch.cov(normalised.T))
    # an eigenvalue of 0 may come out below it
    scales = torch.rsqrt(values.clamp_min(0) + ZCA_EPSILON)
    matrix = (vectors * scales) @ vectors.T
    return Whitening(normalised.mean(0).float(), matrix.float())


def whitened_patches(
    images: Any, n_patches: int, *, size: int = PATCH, random_state: int = 0
) -> tuple[Whitening, torch.Tensor]:
    """Draw patches (`sample_patches`) and whiten them: the `Whitening` and float32 (n_patches, d)."""
    raw = sample_patches(images, n_patches, size=size, random_state=random_state)
    whitening = fit_whitening(raw)
    return whitening, whitening(raw)


def learn_codebook(vectors: torch.Tensor, n_codes: int, *, random_state: int = 0) -> torch.Tensor:
    """K-means centres float32 (n_codes, d) of vectors float32 (m, d), from one random choice of vectors.

    Raises ValueError when there are fewer vectors than codes. O(m d n_codes) each of 50 iterations.
    """
    if not 1 <= n_codes <= len(vectors):
        raise ValueError(f"n_codes must be from 1 to the {len(vectors)} patches, got {n_codes}")
    fitted = KMeans(n_codes, init="random", n_init=1, max_iter=ITERATIONS, random_state=random_state).fit(
        vectors.numpy()
    )
    return torch.from_numpy(fitted.cluster_centers_.astype(np.float32))


def triangle(vectors: torch.Tensor, codes: torch.Tensor) -> torch.Tensor:
    """Soft assignment float32 (m, k): max(0, mean_j z_j - z_k), z the distances to the codes (k, d).

    Distances are expanded into products: one near 0 is known to about 1e-3 of the vectors' length. O(m d k).
    Source: Coates, Ng and Lee 2011, "triangle".
    """
    distances = torch.cdist(vectors, codes)  # (m, k)
    mean = distances.mean(1, keepdim=True)
    return torch.sub(mean, distances, out=distances).clamp_min_(0)


def quadrants(rows: int, columns: int) -> torch.Tensor:
    """Which position lies in which quadrant: 0 or 1, float32 (4, rows * columns), upper left first.

    The halves of an odd number of positions are the larger one, then the smaller one.
    """
    lower = torch.arange(rows) >= (rows + 1) // 2
    right = torch.arange(columns) >= (columns + 1) // 2
    number = 2 * lower[:, None] + right.int()  # (rows, columns)
    return F.one_hot(number.flatten(), 4).T.float()


def encode(
    images: Any,
    whitening: Whitening,
    codes: torch.Tensor,
    *,
    size: int = PATCH,
    represent: Representation | None = None,
    device: str = "auto",
) -> np.ndarray:
    """Features float32 (n, 4 k): the codes of all patches of an image, summed over four quadrants.

    images: as for `sample_patches`; codes: (k, d); represent: whitened patches (m, c * size * size) to the
    vectors (m, d) that the codes are of, by default themselves. Each quadrant's k sums stand together, upper
    left first. O(n h w k d); memory for a block of images at a time. Raises as `sample_patches` does, and
    ValueError for images with an empty quadrant and for another number of channels than was whitened.
    Source: paper 002, section 4.3; Coates, Ng and Lee 2011.
    """
    with sealed_labels(), torch.no_grad():
        pixels = torch.from_numpy(_checked_pixels(images, size))
        n, channels, height, width = pixels.shape
        rows, columns = height - size + 1, width - size + 1
        if min(rows, columns) < 2:
            raise ValueError(
                f"images of {height}x{width} pixels have an empty quadrant for patches of {size}x{size}: "
                f"at least {size + 1}x{size + 1} are needed"
            )
        if len(whitening.mean) != channels * size**2:
            raise ValueError(
                f"the whitening is of patches of {len(whitening.mean)} numbers, these images have "
                f"{channels} channels and patches of {channels * size**2}"
            )
        place = pick_device(device)
        whitening, codes = Whitening(*(x.to(place) for x in whitening)), codes.to(place)
        quadrant = quadrants(rows, columns).to(place)  # (4, l)
        block = max(1, BLOCK_BYTES[place.type] // (4 * rows * columns * len(codes)))
        features = np.empty((n, 4 * len(codes)), np.float32)
        for start in range(0, n, block):
            part = pixels[start : start + block].to(place).float()
            patches = F.unfold(part, size).transpose(1, 2)  # (b, l, d)
            vectors = whitening(patches.reshape(-1, channels * size**2))  # (b * l, d)
            if represent is not None:
                vectors = represent(vectors)
            soft = triangle(vectors, codes).view(len(part), rows * columns, -1)  # (b, l, k)
            sums = (quadrant @ soft).flatten(1)  # (b, 4 k)
            features[start : start + block] = sums.cpu().numpy()
    return features


def _checked_pixels(images: Any, size: int) -> np.ndarray:
    pixels = as_pixels(images, to_cluster=False)
    if pixels.dtype != np.uint8:
        raise TypeError(f"patches are normalised on the scale 0..255: pass uint8 pixels, got {pixels.dtype}")
    height, width = pixels.shape[2:]
    if size < 1 or min(height, width) < size:
        raise ValueError(
            f"patches of {size}x{size} pixels do not fit images of {height}x{width}: "
            "pass a smaller size from 1, or larger images"
        )
    return pixels
