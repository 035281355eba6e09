"""The GPU's path of `knn`, run on the CPU: against the definition, and bit for bit against the CPU's path.

On a machine with a GPU the last test runs it there.
"""

from unittest import mock

import numpy as np
import pytest
import torch
from test_knn import cases, literal

from reprolib.kernels import knn_device as device
from reprolib.kernels.knn import knn
from reprolib.kernels.knn_cpu import UNIT, knn_cpu, prepare


def float32(x):
    return np.ascontiguousarray(x, dtype=np.float32)


def assert_same(found, expected):
    for mine, right in zip(found, expected, strict=True):
        np.testing.assert_array_equal(mine, right)


@pytest.mark.parametrize("budget", [5e8, 1e5])  # bytes of a block: one, or many and a ragged last one
@pytest.mark.parametrize("name", cases())
def test_equals_the_definition(name, budget, monkeypatch):
    monkeypatch.setattr(device, "BLOCK_BYTES", budget)
    x, k = cases()[name]
    assert_same(device.knn_device(torch.from_numpy(float32(x)), k), literal(x, k))


@pytest.mark.parametrize(
    ("n", "d", "k", "offset"), [(3001, 24, 20, 0), (3001, 24, 90, 1e4), (700, 3, 699, 0), (1500, 784, 7, -50)]
)
def test_equals_the_path_of_the_cpu(n, d, k, offset, monkeypatch):
    monkeypatch.setattr(device, "BLOCK_BYTES", 1e7)
    x = float32(np.random.default_rng(n + k).normal(size=(n, d)) + offset)
    x[n // 2 : n // 2 + 40] = x[:40]
    assert_same(device.knn_device(torch.from_numpy(x), k), knn_cpu(x, k))


@pytest.mark.parametrize(("name", "at_most"), [("random", 0), ("far from the origin", 0), ("constant", 90)])
def test_what_is_in_doubt_goes_to_the_cpu(name, at_most):
    """The bound settles rows without ties: the host would look at each of the others for milliseconds."""
    x, k = cases()[name]
    with mock.patch.object(device, "knn_cpu", wraps=knn_cpu) as exact:
        device.knn_device(torch.from_numpy(float32(x)), k)
    assert sum(len(call.kwargs["rows"]) for call in exact.call_args_list) == at_most


def test_a_region_of_autocast_changes_nothing():
    x, k = cases()["random"]
    with torch.autocast("cpu", torch.bfloat16), mock.patch.object(device, "knn_cpu") as exact:
        assert_same(device.knn_device(torch.from_numpy(float32(x)), k), literal(x, k))
    assert not exact.called


@pytest.mark.parametrize("d", [1, 33, 160, 784])
def test_bounds_hold_where_tf32_is_on(d):
    """TF32 keeps 10 bits of each factor: rounding the rows to them is all that it can take from a product."""
    x = torch.from_numpy(float32(np.random.default_rng(d).normal(size=(300, d))))
    x[:150] = x[150:] + 1e-4 * x[:150]
    z, bias, offset, slack = prepare(x, "tf32")
    assert not (z.view(torch.int32) & 0x1FFF).any()
    true = torch.cdist(x.double(), x.double(), compute_mode="donot_use_mm_for_euclid_dist")
    # no worse than what 8 times the rounding of every partial sum does
    products = (z.double() @ z.double().T) + 8 * d * UNIT * (z.double().abs() @ z.double().abs().T)
    for p in (z @ z.T, products):
        lower = (bias - 2 * p + offset[:, None]).clamp(min=0).sqrt()
        assert (lower <= true + slack[:, None]).all()
    off = ~torch.eye(300, dtype=torch.bool)
    assert (lower[off] / true[off]).median() > 0.97


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("tf32", [False, True])
@pytest.mark.parametrize("name", cases())
def test_gpu_equals_the_definition(name, tf32, monkeypatch):
    monkeypatch.setattr(torch.backends.cuda.matmul, "allow_tf32", tf32)
    x, k = cases()[name]
    assert_same((part.cpu() for part in knn(torch.from_numpy(float32(x)).cuda(), k)), literal(x, k))
