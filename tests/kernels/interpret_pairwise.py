"""Runs under TRITON_INTERPRET=1 (see test_pairwise_triton.py): the CUDA pairwise loss.

Prints the name of each case before it runs; stops at the first value that differs.
"""

import math
from unittest import mock

import torch
from test_pairwise import cases, check, literal_pairs, softmax_rows
from triton_tools import reversed_programs

from reprolib.kernels import pairwise_triton
from reprolib.kernels.pairwise import pairwise_loss


def check_case(q, similarity, **thresholds):
    q = q.float().requires_grad_()
    similarity = None if similarity is None else similarity.float()
    with mock.patch.object(pairwise_triton, "pairwise_triton", wraps=pairwise_triton.pairwise_triton) as kernel:
        found = pairwise_loss(q, similarity, **thresholds)
    kernel.assert_called_once()
    check(q, similarity, found, rtol=1e-5, atol=1e-6 * len(q) ** 2, **thresholds)


def check_not_finite():
    for bad in (math.nan, math.inf):
        q = softmax_rows(20, 4).float()
        broken = q.clone()
        broken[17, 2] = bad
        for arguments in ((broken,), (q, broken)):
            assert pairwise_loss(*arguments)[0].isnan()


def check_programs(q, similarity):
    """The kernel alone, on poisoned output, in both orders of the programs."""
    q, similarity = q.float(), similarity.float()
    b, k = q.shape
    block = pairwise_triton.blocks(b, k)
    programs = -(-b // block["ROWS"])
    assert programs > 1, "one program has no order"

    def run():
        gradient = torch.full((b + 3, k), math.nan)
        partial = torch.full((programs + 3, 4), math.nan, dtype=torch.float64)
        pairwise_triton.pairs[(programs,)](q, similarity, gradient, partial, b, k, 0.8, 0.2, SEPARATE=True, **block)
        for x in (gradient, partial):
            assert torch.isnan(x[-3:]).all(), "wrote past the end"
            assert not torch.isnan(x[:-3]).any(), "left an output unwritten"
        return gradient[:b], partial[:programs]

    forward = run()
    with reversed_programs(programs):
        backward = run()
    for first, second in zip(forward, backward, strict=True):
        assert torch.equal(first, second), "the order of the programs matters"
    _, expected, similar, dissimilar = literal_pairs(q, similarity)
    torch.testing.assert_close(forward[0].double(), expected, rtol=1e-5, atol=1e-5)
    assert forward[1].sum(0)[:3].tolist() == [len(similar), len(dissimilar), 0]


if __name__ == "__main__":
    for name, case in cases().items():
        print(name, flush=True)
        check_case(*case)
    print("thresholds that meet", flush=True)
    for name in ("undecided", "duplicates", "one-hot by p"):
        check_case(*cases()[name], zeta=0.5, gamma=0.5)
    print("not finite", flush=True)
    check_not_finite()
    print("programs", flush=True)
    check_programs(*cases()["ragged by p"])
