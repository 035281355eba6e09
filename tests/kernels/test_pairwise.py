"""The pairwise loss against literal float64 loops over ordered pairs."""

import itertools
import math
from operator import mul

import pytest
import torch
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from reprolib.kernels import pairwise
from reprolib.kernels.pairwise import pairwise_loss


def literal_pairs(q, similarity=None, zeta=0.8, gamma=0.2):
    """Loss, its gradient, and the similar and dissimilar pairs as lists, all in float64."""
    vectors = (q if similarity is None else similarity).detach().double().tolist()
    rows = q.detach().double().tolist()
    gradient = [[0.0] * len(row) for row in rows]
    loss, similar, dissimilar = 0.0, [], []
    for i, j in itertools.product(range(len(rows)), repeat=2):
        s, product = (sum(map(mul, x[i], x[j])) for x in (vectors, rows))
        if s >= zeta:
            loss += 1 - product
            similar.append((i, j))
        elif s <= gamma:
            loss += product
            dissimilar.append((i, j))
        weight = -1 if s >= zeta else int(s <= gamma)
        if weight:  # the product rule, for both rows of the pair
            gradient[i] = [g + weight * x for g, x in zip(gradient[i], rows[j], strict=True)]
            gradient[j] = [g + weight * x for g, x in zip(gradient[j], rows[i], strict=True)]
    loss, gradient = (torch.tensor(x, dtype=torch.float64) for x in (loss, gradient))
    return loss, gradient, similar, dissimilar


def softmax_rows(b, k, seed=0, sharpness=4.0):
    generator = torch.Generator().manual_seed(seed)
    return torch.softmax(sharpness * torch.randn(b, k, generator=generator), 1).double()


def cases():
    """Name -> (q, similarity) in float64; every value is exact in float32."""
    q = softmax_rows(7, 4)
    return {
        "one row": (softmax_rows(1, 5), None),
        "seven": (q, None),
        "seven by p": (q, softmax_rows(7, 4, 1)),
        "ragged": (softmax_rows(131, 10), None),
        "ragged by p": (softmax_rows(131, 10), softmax_rows(131, 10, 1)),
        "one cluster": (softmax_rows(7, 1), None),
        "many clusters": (softmax_rows(20, 37, sharpness=8.0), None),
        "duplicates": (q[[0, 0, 1, 1, 1, 2]], None),
        "one-hot": (torch.eye(4).double()[[0, 1, 1, 3, 0]], None),
        "one-hot by p": (softmax_rows(5, 4), torch.eye(4).double()[[0, 1, 1, 3, 0]]),
        "uniform": (torch.full((6, 16), 1 / 16).double(), None),
        "undecided": (torch.full((6, 2), 0.5).double(), None),
        "nearly undecided": (softmax_rows(9, 2, sharpness=0.1), None),
    }


def check(q, similarity, found, rtol=1e-7, atol=1e-12, **thresholds):
    loss, gradient, similar, dissimilar = literal_pairs(q, similarity, **thresholds)
    assert found[1:] == (len(similar), len(dissimilar))
    torch.testing.assert_close(found[0].detach().double(), loss, rtol=rtol, atol=atol)
    (mine,) = torch.autograd.grad(found[0], q)
    torch.testing.assert_close(mine.double(), gradient, rtol=rtol, atol=atol)


class Sizes(TorchDispatchMode):
    """Appends the number of elements of what each operation gives to a list."""

    def __init__(self, sizes):
        super().__init__()
        self.sizes = sizes

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        self.sizes.extend(x.numel() for x in [out] if isinstance(x, torch.Tensor))
        return out


every_case = pytest.mark.parametrize("name", cases())


@every_case
@pytest.mark.parametrize(("zeta", "gamma"), [(0.8, 0.2), (0.5, 0.5), (0.0, 0.0), (1.0, 0.0)])
def test_value_counts_and_gradient_equal_the_literal_loss(name, zeta, gamma):
    q, similarity = cases()[name]
    q.requires_grad_()
    found = pairwise_loss(q, similarity, zeta=zeta, gamma=gamma)
    assert all(count.ndim == 0 and count.dtype == torch.int64 for count in found[1:])
    check(q, similarity, found, zeta=zeta, gamma=gamma)


@every_case
def test_float32_agrees_with_the_literal_loss(name):
    q, similarity = cases()[name]
    q = q.float().requires_grad_()
    similarity = None if similarity is None else similarity.float()
    found = pairwise_loss(q, similarity)
    assert found[0].dtype == torch.float32
    check(q, similarity, found, rtol=1e-5, atol=1e-6 * len(q) ** 2)


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@every_case
def test_a_gpu_agrees_with_the_literal_loss(name):
    q, similarity = cases()[name]
    q = q.float().cuda().requires_grad_()
    similarity = None if similarity is None else similarity.float().cuda()
    loss, *counts = pairwise_loss(q, similarity)
    (gradient,) = torch.autograd.grad(loss, q)
    expected = literal_pairs(q.cpu(), None if similarity is None else similarity.cpu())
    assert counts == [len(expected[2]), len(expected[3])]
    for mine, literal in zip((loss.detach(), gradient), expected, strict=False):
        torch.testing.assert_close(mine.cpu().double(), literal, rtol=1e-5, atol=1e-6 * len(q) ** 2)


@every_case
@pytest.mark.parametrize("block_rows", [1, 2, 3, 64, 131, 1000])
def test_the_block_size_does_not_matter(name, block_rows, monkeypatch):
    monkeypatch.setattr(pairwise, "BLOCK_ROWS", block_rows)
    q, similarity = cases()[name]
    q.requires_grad_()
    check(q, similarity, pairwise_loss(q, similarity))


@pytest.mark.parametrize("name", ["one row", "seven", "seven by p", "duplicates", "undecided"])
def test_gradient_agrees_with_finite_differences(name):
    q, similarity = cases()[name]
    q.requires_grad_()
    assert torch.autograd.gradcheck(lambda x: pairwise_loss(x, similarity)[0], (q,))


def test_gradient_takes_the_upstream_factor():
    q, similarity = cases()["seven by p"]
    q.requires_grad_()
    (gradient,) = torch.autograd.grad(0.001 * pairwise_loss(q, similarity)[0], q)
    torch.testing.assert_close(gradient, 0.001 * literal_pairs(q, similarity)[1])


def test_pairs_are_symmetric_disjoint_and_follow_the_rows(monkeypatch):
    monkeypatch.setattr(pairwise, "BLOCK_ROWS", 32)
    q, similarity = cases()["ragged by p"]
    _, _, similar, dissimilar = literal_pairs(q, similarity)
    assert {(j, i) for i, j in similar} == set(similar)
    assert {(j, i) for i, j in dissimilar} == set(dissimilar)
    assert not set(similar) & set(dissimilar)
    order = torch.randperm(len(q), generator=torch.Generator().manual_seed(0))
    leaves = [q.clone().requires_grad_(), q[order].clone().requires_grad_()]
    found = pairwise_loss(leaves[0], similarity)
    moved = pairwise_loss(leaves[1], similarity[order])
    assert found[1:] == moved[1:] and 0 < found[1] + found[2] < len(q) ** 2
    torch.testing.assert_close(found[0], moved[0])
    gradients = [torch.autograd.grad(x[0], y)[0] for x, y in zip((found, moved), leaves, strict=True)]
    torch.testing.assert_close(gradients[0][order], gradients[1])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_matching_one_hot_rows_cost_nothing(dtype):
    q = torch.eye(10, dtype=dtype)[torch.arange(300) % 10]
    loss, n_similar, n_dissimilar = pairwise_loss(q)
    assert loss.item() == 0 and (n_similar, n_dissimilar) == (300 * 30, 300 * 270)


def test_contradicted_one_hot_rows_cost_one_a_pair():
    q = torch.eye(2).double()[[0, 0, 1]]
    p = torch.eye(2).double()[[0, 1, 1]]
    # (0, 1) and (1, 0) are dissimilar by p with q equal; (1, 2) and (2, 1) the reverse
    assert pairwise_loss(q, p)[0].item() == 4


def test_uniform_rows_are_dissimilar_even_to_themselves():
    loss, n_similar, n_dissimilar = pairwise_loss(torch.full((6, 16), 1 / 16).double())
    assert (n_similar, n_dissimilar) == (0, 36)
    assert loss.item() == 36 / 16


def test_ambiguous_pairs_pull_nothing():
    q = torch.full((6, 2), 0.5).double().requires_grad_()
    loss, n_similar, n_dissimilar = pairwise_loss(q)
    assert (loss.item(), n_similar, n_dissimilar) == (0, 0, 0)
    assert (torch.autograd.grad(loss, q)[0] == 0).all()


def test_thresholds_are_inclusive():
    q = torch.tensor([[0.5, 0.5], [1, 0], [0.25, 0.75]])  # products 0.5, 0.25, 0.625, 1
    _, n_similar, n_dissimilar = pairwise_loss(q, zeta=0.5, gamma=0.25)
    assert (n_similar, n_dissimilar) == (7, 2)
    _, n_similar, n_dissimilar = pairwise_loss(q, zeta=0.5000001, gamma=0.2499999)
    assert (n_similar, n_dissimilar) == (2, 0)


@every_case
def test_thresholds_that_meet_decide_every_pair_once(name):
    q, similarity = cases()[name]
    _, n_similar, n_dissimilar = pairwise_loss(q.float(), zeta=0.5, gamma=0.5)
    assert n_similar + n_dissimilar == len(q) ** 2
    # two doubles, one float32
    found = pairwise_loss(q.float(), zeta=0.5 + 1e-12, gamma=0.5)
    assert found[1:] == (n_similar, n_dissimilar)


def test_a_pair_at_thresholds_that_meet_is_similar():
    q = torch.full((3, 2), 0.5).double().requires_grad_()  # every product is 0.5
    loss, n_similar, n_dissimilar = pairwise_loss(q, zeta=0.5, gamma=0.5)
    assert (loss.item(), n_similar, n_dissimilar) == (4.5, 9, 0)
    assert (torch.autograd.grad(loss, q)[0] == -3).all()


@pytest.mark.parametrize("separate", [False, True])
def test_no_square_temporary_is_made_or_saved(separate, monkeypatch):
    b, k, block = 700, 6, 10
    monkeypatch.setattr(pairwise, "BLOCK_ROWS", block)
    q = softmax_rows(b, k).requires_grad_()
    p = softmax_rows(b, k, 1) if separate else None
    sizes, saved = [], []

    hooks = torch.autograd.graph.saved_tensors_hooks(lambda x: saved.append(x.numel()) or x, id)
    with Sizes(sizes), hooks:
        pairwise_loss(q, p)
    assert max(sizes) == block * b
    assert saved == [b * k]


def test_on_a_gpu_nothing_waits_for_the_device_and_no_square_is_made():
    """With tensors that have shapes and a device alone: to read one on the host is an error, as in a recording."""
    b, sizes = 60_000, []
    with FakeTensorMode(), Sizes(sizes):
        q = torch.empty(b, 10, device="cuda", requires_grad=True)
        loss, *counts = pairwise_loss(q, torch.empty(b, 10, device="cuda"))
        with pytest.raises(DataDependentOutputException):
            loss.item()
    assert {x.device.type for x in (loss, *counts)} == {"cuda"} and loss.requires_grad
    assert max(sizes) == pairwise.DEVICE_ROWS * b


def test_products_are_not_rounded_under_autocast():
    q, similarity = (x.float() for x in cases()["ragged by p"])
    expected = pairwise_loss(q, similarity)
    with torch.autocast("cpu", torch.bfloat16):
        assert pairwise_loss(q, similarity) == expected


def test_nan_and_infinity_make_the_loss_nan():
    for bad in (math.nan, math.inf):
        q = softmax_rows(7, 4)
        broken = q.clone()
        broken[3, 2] = bad
        for arguments in ((broken,), (q, broken), (broken, q)):
            assert pairwise_loss(*arguments)[0].isnan()


@pytest.mark.parametrize(("zeta", "gamma"), [(0.2, 0.8), (0.5, 0.6), (1.1, 0.2), (0.8, -0.1), (math.nan, 0.2)])
def test_thresholds_out_of_order_are_refused(zeta, gamma):
    with pytest.raises(ValueError, match="thresholds must satisfy"):
        pairwise_loss(softmax_rows(7, 4), zeta=zeta, gamma=gamma)


def test_wrong_shapes_and_dtypes_are_refused():
    q = softmax_rows(7, 4)
    for arguments in ((q[0],), (q, q[:3]), (q, q[:, :3]), (q[:0],)):
        with pytest.raises(ValueError, match="of one shape"):
            pairwise_loss(*arguments)
    with pytest.raises(TypeError, match="float32 or float64"):
        pairwise_loss(q, q.float())
    with pytest.raises(TypeError, match="float32 or float64"):
        pairwise_loss(q.half())
