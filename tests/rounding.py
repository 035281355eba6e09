"""What the order of a sum may change: bounds for comparisons of one dtype with float64.

A processor adds in the order that its vector width and its threads give. Tolerances in the tests come
from here, or the comparison is made in float64.
"""

import torch


def rounding_bound(terms: torch.Tensor, dim: int | None = None, dtype=torch.float32, extra=16):
    """Largest error of sums of `terms` over `dim` (all of them by default) in `dtype`, any order.

    (n + extra) eps sum |terms| for n terms that carry `extra` roundings each before they are added:
    Higham, Accuracy and Stability of Numerical Algorithms, section 4.2, with eps twice the unit
    roundoff. Where a term is itself a difference, pass the sum of the two magnitudes as the term.
    Returns float64 with `dim` removed.
    """
    terms = terms.double().abs()
    n, total = (terms.numel(), terms.sum()) if dim is None else (terms.shape[dim], terms.sum(dim))
    return (n + extra) * torch.finfo(dtype).eps * total


def assert_within(found: torch.Tensor, expected: torch.Tensor, bound: torch.Tensor) -> None:
    """Every difference is at most its bound; the message names the worst, in units of its bound."""
    share = (found.double() - expected.double()).abs() / bound
    assert (share <= 1).all(), f"off by up to {share.max():.3g} times the rounding of the sum"
