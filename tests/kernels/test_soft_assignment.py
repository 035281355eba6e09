"""Soft assignments against literal float64 loops: values, gradients, limits and invariants."""

import math

import pytest
import torch
from rounding import assert_within, rounding_bound

from reprolib.kernels.soft_assignment import (
    dec_loss,
    fuzzy_memberships,
    squared_distances,
    student_t,
    target_distribution,
)


def literal_squared(u, centers):
    return torch.stack([torch.stack([((a - c) ** 2).sum() for c in centers]) for a in u])


def literal_memberships(u, centers, m):
    rows = []
    for row in literal_squared(u.double(), centers.double()).tolist():
        if min(row) == 0:
            rows.append([(d == 0) / row.count(0) for d in row])
        else:
            rows.append([1 / sum((d / e) ** (1 / (m - 1)) for e in row) for d in row])
    return torch.tensor(rows, dtype=torch.float64)


def literal_student_t(u, centers, alpha):
    kernel = (1 + literal_squared(u, centers) / alpha) ** (-(alpha + 1) / 2)
    return torch.stack([row / row.sum() for row in kernel])


def literal_dec(u, centers, target, alpha):
    q, total = literal_student_t(u, centers, alpha), 0.0
    for i in range(len(u)):
        for k in range(len(centers)):
            if target[i, k] > 0:
                total = total + target[i, k] * (target[i, k].log() - q[i, k].log())
    return total / len(u)


def cases():
    """Name -> (u, centers) in float64; every value is exact in float32."""
    generator = torch.Generator().manual_seed(0)

    def normal(*shape):
        return torch.randn(shape, generator=generator).double()

    u, centers = normal(7, 3), normal(4, 3)
    on, twice = u.clone(), centers.clone()
    on[2] = centers[1]
    twice[3] = twice[0]
    both = on.clone()
    both[5] = twice[0]
    return {
        "one sample": (normal(1, 5), normal(3, 5)),
        "seven": (u, centers),
        "ragged": (normal(131, 13), normal(10, 13)),
        "one feature": (normal(7, 1), normal(5, 1)),
        "one center": (normal(7, 3), normal(1, 3)),
        "many centers": (normal(7, 2), normal(37, 2)),
        "duplicates": (u[[0, 0, 1, 1, 1]], centers),
        "on a center": (on, centers),
        "equal centers": (u, twice),
        "on equal centers": (both, twice),
        "far from the origin": tuple((x + 1024).float().double() for x in (u, centers)),
        "all one point": (u[[0, 0, 0]], u[[0, 0]]),
    }


def targets(u, centers, seed=1):
    """A random target with exact zeros, rows summing to one."""
    generator = torch.Generator().manual_seed(seed)
    raw = torch.rand(len(u), len(centers), generator=generator).double()
    raw[raw < 0.3] = 0
    raw[:, 0] += 0.1
    return raw / raw.sum(1, keepdim=True)


every_case = pytest.mark.parametrize("name", cases())


@every_case
def test_squared_distances_equal_the_literal_sums(name):
    u, centers = cases()[name]
    expected = literal_squared(u, centers)
    torch.testing.assert_close(squared_distances(u, centers), expected)
    single = squared_distances(u.float(), centers.float())
    exact = literal_squared(u.float().double(), centers.float().double())
    torch.testing.assert_close(single.double(), exact, rtol=1e-5, atol=0)
    assert (single >= 0).all() and ((single == 0) == (exact == 0)).all()


@every_case
def test_gradients_agree_with_finite_differences(name):
    u, centers = (x.requires_grad_() for x in cases()[name])
    target = targets(u, centers)
    if len(u) > 10:
        u, target = u.detach()[:5].requires_grad_(), target[:5]
    assert torch.autograd.gradcheck(squared_distances, (u, centers))
    assert torch.autograd.gradcheck(lambda a, b: student_t(a, b, 1.7), (u, centers))
    assert torch.autograd.gradcheck(lambda a, b: dec_loss(a, b, target, 1.7), (u, centers))


@every_case
@pytest.mark.parametrize("m", [1.2, 1.5, 2.0, 3.0])
def test_memberships_equal_the_textbook_ratios(name, m):
    u, centers = cases()[name]
    expected = literal_memberships(u, centers, m)
    torch.testing.assert_close(fuzzy_memberships(u, centers, m), expected)
    single = fuzzy_memberships(u.float(), centers.float(), m)
    exact = literal_memberships(u.float(), centers.float(), m)
    torch.testing.assert_close(single.double(), exact, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("m", [1 + 1e-3, 1 + 1e-6, math.nextafter(1, 2)])
def test_m_towards_one_gives_the_nearest_center(dtype, m):
    centers = torch.tensor([[0.0, 0], [1, 0], [0, 50]], dtype=dtype)
    u = torch.tensor([[0.1, 0], [0.8, 0.3], [-3, 40], [0.5, 0]], dtype=dtype)
    expected = torch.tensor([[1, 0, 0], [0, 1, 0], [0, 0, 1], [0.5, 0.5, 0]], dtype=dtype)
    torch.testing.assert_close(fuzzy_memberships(u, centers, m), expected, rtol=0, atol=1e-7)


def test_a_sample_on_centers_is_shared_by_them():
    u, centers = cases()["on equal centers"]
    p = fuzzy_memberships(u, centers)
    assert p[5].tolist() == [0.5, 0, 0, 0.5] and p[2].tolist() == [0, 1, 0, 0]
    # The limit: a sample that approaches the two
    near = fuzzy_memberships(u[5:6] + 1e-9, centers)
    torch.testing.assert_close(near[0], p[5], rtol=0, atol=1e-12)


@pytest.mark.parametrize("scale", [1e-6, 3.0, 1e6])
def test_memberships_do_not_see_scale_or_rotation(scale):
    u, centers = cases()["ragged"]
    rotation = torch.linalg.qr(torch.randn(13, 13, dtype=torch.float64)).Q
    moved = fuzzy_memberships(scale * u @ rotation, scale * centers @ rotation)
    torch.testing.assert_close(moved, fuzzy_memberships(u, centers))


@every_case
@pytest.mark.parametrize("m", [1.2, 1.5, 3.0])
def test_weights_of_a_sample_sum_to_at_most_one(name, m):
    p = fuzzy_memberships(*cases()[name], m)
    torch.testing.assert_close(p.sum(1), torch.ones(len(p), dtype=p.dtype))
    weights = (p**m).sum(1)
    hard = p.amax(1) == 1
    assert (weights <= 1 + 1e-12).all() and (weights[~hard] < 1).all()
    torch.testing.assert_close(weights[hard], torch.ones_like(weights[hard]))


@pytest.mark.parametrize("k", [1, 2, 10, 20])
def test_weights_between_equidistant_centers(k):
    p = fuzzy_memberships(torch.zeros(1, k, dtype=torch.float64), torch.eye(k).double(), 1.5)
    torch.testing.assert_close((p**1.5).sum().item(), k**-0.5)


@every_case
@pytest.mark.parametrize("alpha", [0.5, 1.0, 8.0])
def test_student_t_and_its_gradient_equal_the_literal_formula(name, alpha):
    u, centers = (x.requires_grad_() for x in cases()[name])
    q, expected = student_t(u, centers, alpha), literal_student_t(u, centers, alpha)
    torch.testing.assert_close(q, expected)
    torch.testing.assert_close(q.sum(1), torch.ones(len(u), dtype=q.dtype))
    pull = torch.randn(q.shape, generator=torch.Generator().manual_seed(2)).double()
    for mine, theirs in zip(
        torch.autograd.grad(q, (u, centers), pull), torch.autograd.grad(expected, (u, centers), pull), strict=True
    ):
        torch.testing.assert_close(mine, theirs)


def test_student_t_of_far_samples_with_many_degrees_of_freedom():
    u, centers = torch.full((1, 2), 1e4), torch.tensor([[0.0, 0], [1, 1]])
    q = student_t(u, centers, 1000.0)  # both kernels underflow float32
    expected = student_t(u.double(), centers.double(), 1000.0)
    torch.testing.assert_close(q.double(), expected, rtol=5e-3, atol=0)


def test_target_distribution_equals_the_literal_formula():
    q = student_t(*cases()["ragged"])
    f = [sum(q[i, k].item() for i in range(len(q))) for k in range(q.shape[1])]
    raw = [[q[i, k].item() ** 2 / f[k] for k in range(q.shape[1])] for i in range(len(q))]
    expected = torch.tensor([[x / sum(row) for x in row] for row in raw], dtype=q.dtype)
    torch.testing.assert_close(target_distribution(q), expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_target_distribution_with_an_empty_cluster_and_tiny_values(dtype):
    q = torch.tensor([[0.7, 0, 0.3, 1e-30], [0.2, 0, 0.8, 1e-30]], dtype=dtype)
    p = target_distribution(q)
    assert torch.isfinite(p).all() and (p[:, 1] == 0).all() and (p[:, 3] > 0).all()
    torch.testing.assert_close(p.sum(1), torch.ones(2, dtype=dtype))
    hard = torch.eye(3, dtype=dtype)[[0, 2, 2]]
    assert torch.equal(target_distribution(hard), hard)


@every_case
@pytest.mark.parametrize("alpha", [0.5, 1.0, 8.0])
def test_dec_loss_and_gradient_equal_the_literal_loss(name, alpha):
    u, centers = (x.requires_grad_() for x in cases()[name])
    target = targets(u, centers)
    expected = literal_dec(u, centers, target, alpha)
    wanted = torch.autograd.grad(expected, (u, centers))
    loss = dec_loss(u, centers, target, alpha)
    torch.testing.assert_close(loss, expected)
    single = [x.detach().float().requires_grad_() for x in (u, centers)]
    loss32 = dec_loss(*single, target.float(), alpha)
    torch.testing.assert_close(loss32.double(), expected, rtol=1e-4, atol=1e-6)
    for mine, mine32, theirs in zip(
        torch.autograd.grad(3 * loss, (u, centers)), torch.autograd.grad(loss32, single), wanted, strict=True
    ):
        torch.testing.assert_close(mine, 3 * theirs)
        torch.testing.assert_close(mine32.double(), theirs, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_dec_of_many_samples_is_within_the_rounding_of_its_sums(dtype):
    """The gradient of a center adds 20,000 terms: the bound comes from them, not from its size."""
    generator = torch.Generator().manual_seed(0)
    centers = torch.randn(10, 10, generator=generator)
    u = centers.repeat(2000, 1) + torch.randn(20_000, 10, generator=generator)
    target = target_distribution(student_t(u, centers))
    gap = u.double()[:, None] - centers.double()  # (n, K, d)
    kernel = 1 + gap.square().sum(2)
    q, t = 1 / kernel, target.double()
    q /= q.sum(1, keepdim=True)
    # DEC's equations 4 and 5, and the terms without what t - q and u - mu cancel
    pulls = 2 / len(u) * ((t - q * t.sum(1, keepdim=True)) / kernel)[:, :, None] * gap
    reach = u.double().abs()[:, None] + centers.double().abs()
    sizes = 2 / len(u) * ((t + q) / kernel)[:, :, None] * reach
    leaves = [x.to(dtype).requires_grad_() for x in (u, centers)]
    loss = dec_loss(*leaves, target.to(dtype))
    du, dmu = torch.autograd.grad(loss, leaves)
    parts, whole = t * (t / q).log() / len(u), t * (t.log().abs() + q.log().abs()) / len(u)
    # q carries the rounding of d + K terms
    assert_within(loss.detach(), parts.sum(), rounding_bound(whole, dtype=dtype, extra=64))
    assert_within(du, pulls.sum(1), rounding_bound(sizes, 1, dtype, extra=64))
    assert_within(dmu, -pulls.sum(0), rounding_bound(sizes, 0, dtype, extra=64))


def test_dec_gradient_equals_the_papers_equations():
    (u, centers), alpha = cases()["seven"], 1.0
    target, q = targets(u, centers), literal_student_t(u, centers, alpha)
    du, dmu = torch.zeros_like(u), torch.zeros_like(centers)
    for i in range(len(u)):
        for k in range(len(centers)):
            gap = u[i] - centers[k]
            pull = (target[i, k] - q[i, k]) / (1 + gap @ gap / alpha) * gap
            du[i] += (alpha + 1) / alpha * pull
            dmu[k] -= (alpha + 1) / alpha * pull
    leaves = u.clone().requires_grad_(), centers.clone().requires_grad_()
    mine = torch.autograd.grad(len(u) * dec_loss(*leaves, target, alpha), leaves)
    torch.testing.assert_close(mine, (du, dmu))


def test_dec_gradient_of_a_target_that_does_not_sum_to_one():
    u, centers = (x.requires_grad_() for x in cases()["seven"])
    target = 2 * targets(u, centers)
    wanted = torch.autograd.grad(literal_dec(u, centers, target, 1.0), (u, centers))
    mine = torch.autograd.grad(dec_loss(u, centers, target), (u, centers))
    torch.testing.assert_close(mine, wanted)


def test_dec_loss_is_zero_at_its_target():
    u, centers = (x.requires_grad_() for x in cases()["ragged"])
    loss = dec_loss(u, centers, student_t(u, centers))
    assert abs(loss.item()) < 1e-14
    assert all(g.abs().max() < 1e-14 for g in torch.autograd.grad(loss, (u, centers)))


def test_constants_carry_no_gradient():
    u, centers = (x.requires_grad_() for x in cases()["seven"])
    p = fuzzy_memberships(u, centers)
    target = target_distribution(student_t(u, centers))
    assert not p.requires_grad and not target.requires_grad
    pulled = targets(u, centers).requires_grad_()
    dec_loss(u, centers, pulled).backward()
    assert pulled.grad is None and u.grad is not None


@pytest.mark.parametrize("m", [1.0, 0.5, -1.0, math.nan, math.inf])
def test_fuzziness_out_of_range_is_refused(m):
    with pytest.raises(ValueError, match="m must be above 1"):
        fuzzy_memberships(*cases()["seven"], m)


@pytest.mark.parametrize("alpha", [0.0, -1.0, math.nan, math.inf])
def test_degrees_of_freedom_out_of_range_are_refused(alpha):
    u, centers = cases()["seven"]
    with pytest.raises(ValueError, match="alpha must be positive"):
        student_t(u, centers, alpha)
    with pytest.raises(ValueError, match="alpha must be positive"):
        dec_loss(u, centers, targets(u, centers), alpha)


def test_wrong_shapes_and_dtypes_are_refused():
    u, centers = cases()["seven"]
    for bad in (centers[:, :2], centers[0], centers[:0]):
        with pytest.raises(ValueError, match="same number of features"):
            fuzzy_memberships(u, bad)
    with pytest.raises(TypeError, match="float32"):
        student_t(u, centers.float())
    with pytest.raises(TypeError, match="float32"):
        squared_distances(u.half(), centers.half())
    target = targets(u, centers)
    with pytest.raises(ValueError, match=r"\(7, 4\)"):
        dec_loss(u, centers, target[:, :3])
    with pytest.raises(ValueError, match="with samples"):
        dec_loss(u[:0], centers, target[:0])
    with pytest.raises(TypeError, match="target is torch.float32"):
        dec_loss(u, centers, target.float())
    with pytest.raises(ValueError, match="2-D"):
        target_distribution(target[0])
