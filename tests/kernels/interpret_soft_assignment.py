"""Runs under TRITON_INTERPRET=1 (see test_soft_assignment_triton.py): the CUDA soft assignments.

Prints the name of each case before it runs; stops at the first value that differs.
"""

import math

import torch
from test_soft_assignment import cases, literal_dec, literal_memberships, literal_student_t, targets
from triton_tools import reversed_programs

from reprolib.kernels import soft_assignment, soft_assignment_triton
from reprolib.kernels.soft_assignment import dec_loss, fuzzy_memberships

NAMES = (
    "one sample", "ragged", "one feature", "one center", "many centers",
    "on equal centers", "all one point",
)  # fmt: skip


def check(u, centers, alpha=1.7):
    single = [x.float().requires_grad_() for x in (u, centers)]
    target = targets(u, centers).float()
    assert soft_assignment.takes_triton(single[0], *single[1].shape)
    for m in (1.2, 1.5):
        p = fuzzy_memberships(*single, m)
        expected = literal_memberships(single[0], single[1], m)
        torch.testing.assert_close(p.double(), expected, rtol=1e-4, atol=1e-6)
    double = [x.detach().double().requires_grad_() for x in single]
    expected = literal_dec(*double, target.double(), alpha)
    loss = dec_loss(*single, target, alpha)
    torch.testing.assert_close(loss.double(), expected, rtol=1e-4, atol=1e-6)
    for mine, theirs in zip(
        torch.autograd.grad(3 * loss, single), torch.autograd.grad(expected, double), strict=True
    ):
        torch.testing.assert_close(mine.double(), 3 * theirs, rtol=1e-4, atol=1e-6)


def check_hard_limit():
    centers = torch.tensor([[0.0, 0], [1, 0], [0, 50]])
    u = torch.tensor([[0.1, 0], [0.8, 0.3], [-3, 40], [0.5, 0]])
    p = fuzzy_memberships(u, centers, math.nextafter(1, 2))
    expected = torch.tensor([[1.0, 0, 0], [0, 1, 0], [0, 0, 1], [0.5, 0.5, 0]])
    torch.testing.assert_close(p, expected, rtol=0, atol=1e-7)


def check_programs(u, centers, alpha=1.0):
    """The kernels alone, on poisoned output, in both orders of the programs."""
    u, centers, target = u.float(), centers.float(), targets(u, centers).float()
    (n, d), k = u.shape, len(centers)
    programs = -(-n // soft_assignment_triton.ROWS)
    assert programs > 1, "one program has no order"
    block, grad = soft_assignment_triton.blocks(k), torch.tensor(1.0)
    spare = 3
    known_q = literal_student_t(u.double(), centers.double(), alpha).float()

    def run():
        p, q = (torch.full((n + spare, k), math.nan) for _ in range(2))
        du = torch.full((n + spare, d), math.nan)
        sums = torch.full((programs + spare,), math.nan)
        slabs = torch.full((programs + spare, k, d), math.nan)
        grid = (programs,)
        soft_assignment_triton.fuzzy[grid](u, centers, p, n, d, k, -2.0, **block)
        soft_assignment_triton.divergence[grid](
            u, centers, target, q, sums, n, d, k, alpha, **block
        )
        soft_assignment_triton.pulls[grid](
            u, centers, target, known_q, grad, du, slabs, n, d, k, alpha, **block
        )
        for x in (p, q, du, sums, slabs):
            assert torch.isnan(x[-spare:]).all(), "wrote past the end"
            assert not torch.isnan(x[:-spare]).any(), "left an output unwritten"
        return p[:n], q[:n], du[:n], sums[:programs], slabs[:programs]

    forward = run()
    with reversed_programs(programs):
        backward = run()
    for first, second in zip(forward, backward, strict=True):
        assert torch.equal(first, second), "the order of the programs matters"
    torch.testing.assert_close(forward[1], known_q, rtol=1e-4, atol=1e-6)


if __name__ == "__main__":
    for name in NAMES:
        print(name, flush=True)
        check(*cases()[name])
    print("m towards one", flush=True)
    check_hard_limit()
    print("programs", flush=True)
    check_programs(*cases()["ragged"])
