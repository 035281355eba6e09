"""`knn` against a literal float64 transcription of its definition."""

import subprocess
import sys

import numba as nb
import numpy as np
import pytest
import torch

from reprolib.kernels import knn_cpu as cpu
from reprolib.kernels.knn import cost, knn

PRECISIONS = ("float32", "bfloat16")


def literal(x, k):
    """Every distance by a loop over pairs, every order by Python's sort of (distance, index)."""
    x = np.asarray(x, np.float32).astype(np.float64)
    squared = np.empty((len(x), k), np.float32)
    indices = np.empty((len(x), k), np.int64)
    for i in range(len(x)):
        ranked = sorted((np.float32(((x[i] - x[j]) ** 2).sum()), j) for j in range(len(x)) if j != i)[:k]
        squared[i] = [distance for distance, _ in ranked]
        indices[i] = [j for _, j in ranked]
    return squared, indices


def cases():
    rng = np.random.default_rng(0)
    outliers = rng.normal(size=(150, 9))
    outliers[:3] *= 1e4
    return {
        "random": (rng.normal(size=(301, 13)), 20),
        "one feature": (rng.normal(size=(97, 1)), 5),
        "all others": (rng.normal(size=(33, 4)), 32),
        "duplicates": (np.repeat(rng.normal(size=(12, 7)), 14, axis=0), 10),
        "constant": (np.full((90, 5), 0.3), 20),
        "ties on a grid": (rng.integers(0, 3, size=(200, 3)), 10),
        "binary": (rng.integers(0, 2, size=(250, 40)), 12),
        "far from the origin": (rng.normal(size=(150, 20)) * 1e-3 + 100, 15),
        "outliers": (outliers, 10),
        "underflow": (rng.normal(size=(80, 6)) * 1e-22, 6),
        "large": (rng.normal(size=(80, 6)) * 1e16, 6),
    }


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("name", cases())
def test_equals_the_definition(name, precision):
    x, k = cases()[name]
    x = np.ascontiguousarray(x, dtype=np.float32)
    squared, indices = cpu.knn_cpu(x, k, precision=precision)
    expected = literal(x, k)
    np.testing.assert_array_equal(indices, expected[1])
    np.testing.assert_array_equal(squared, expected[0])


@pytest.mark.parametrize("precision", PRECISIONS)
def test_blocks_do_not_change_the_result(precision, monkeypatch):
    x = np.random.default_rng(1).normal(size=(333, 24)).astype(np.float32)
    whole = cpu.knn_cpu(x, 7, precision=precision)
    monkeypatch.setattr(cpu, "BLOCK_COLUMNS", 50)
    split = cpu.knn_cpu(x, 7, block_rows=17, precision=precision)
    some = cpu.knn_cpu(x, 7, rows=np.array([332, 5, 40]), precision=precision)
    for one, two, three in zip(whole, split, some, strict=True):
        np.testing.assert_array_equal(one, two)
        np.testing.assert_array_equal(one[[332, 5, 40]], three)


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("d", [1, 16, 33, 160, 784])
def test_bounds_hold_for_every_pair(d, precision):
    """The claim that makes the search exact, on this machine's own matrix product."""
    x = np.random.default_rng(d).normal(size=(300, d)).astype(np.float32)
    x[:150] = x[150:] + 1e-4 * x[:150]  # close pairs, where rounding matters most
    z, *parts = cpu.prepare(torch.from_numpy(x), precision)
    bounds = cpu.Bounds(*(part.numpy() for part in parts), cpu.LOSS[precision])
    _, bits, shift = next(cpu._product_blocks(z, z))
    p = (bits.astype(np.uint32) << np.uint32(shift)).view(np.float32).astype(np.float64)
    lower = bounds.bias - 2 * p - bounds.loss * np.abs(p) + bounds.offset[:, None]
    true = np.linalg.norm(x[:, None].astype(np.float64) - x[None], axis=-1)
    assert (np.sqrt(np.maximum(lower, 0)) <= true + bounds.slack[:, None]).all()
    # Not by being loose: typical lower bounds reach nearly the distance.
    off = ~np.eye(300, dtype=bool)
    assert np.median(np.sqrt(np.maximum(lower, 0))[off] / true[off]) > 0.97


def test_the_order_of_the_rows_does_not_matter():
    rng = np.random.default_rng(2)
    x = rng.normal(size=(200, 8)).astype(np.float32)
    order = rng.permutation(200)
    squared, indices = knn(x, 9)
    shuffled_squared, shuffled_indices = knn(x[order], 9)
    np.testing.assert_array_equal(shuffled_squared, squared[order])
    np.testing.assert_array_equal(order[shuffled_indices], indices[order])


@pytest.mark.parametrize("exponent", [-12, 9])
def test_scaling_by_a_power_of_two_scales_exactly(exponent):
    x = np.random.default_rng(3).normal(size=(150, 11)).astype(np.float32)
    squared, indices = knn(x, 6)
    scaled_squared, scaled_indices = knn(x * np.float32(2.0**exponent), 6)
    np.testing.assert_array_equal(scaled_indices, indices)
    np.testing.assert_array_equal(scaled_squared, squared * np.float32(4.0**exponent))


def test_numpy_in_numpy_out_and_torch_in_torch_out():
    x = np.random.default_rng(4).normal(size=(40, 3))
    squared, indices = knn(x, 4)
    assert (squared.dtype, indices.dtype, squared.shape) == (np.float32, np.int64, (40, 4))
    t_squared, t_indices = knn(torch.from_numpy(x), 4)
    assert (t_squared.dtype, t_indices.dtype) == (torch.float32, torch.int64)
    np.testing.assert_array_equal(t_indices.numpy(), indices)
    np.testing.assert_array_equal(t_squared.numpy(), squared)
    assert (knn(x[:, ::2], 4)[1] == literal(x[:, ::2], 4)[1]).all()  # a strided view


def test_memory_stays_far_below_the_matrix():
    """20,000 rows: the n x n matrix would take 1,526 MB."""
    code = (
        "import numpy as np; from reprolib.kernels.knn import knn\n"
        "from reprolib.experiments.machine import peak_memory_mb as peak\n"
        "x = np.random.default_rng(0).normal(size=(20_000, 16)).astype(np.float32)\n"
        "knn(x[:3000], 20); before = peak(); knn(x, 20); print(peak() - before)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert float(done.stdout) < 100


def test_cost_counts_what_the_docstring_says():
    small = cost(10, 3, 2)
    assert small["flops"] == 2 * 10 * 10 * 3 + 3 * 10 * 2 * 3
    assert small["bytes"] == 2 * 10 * 3 * 4 + 10 * 2 * 8
    assert small["bytes_materialised"] - small["bytes"] == 8 * 10 * 10


@pytest.mark.parametrize(
    ("features", "n_neighbors", "options", "error", "message"),
    [
        (np.zeros((12, 3)), 20, {}, ValueError, "n_neighbors=20 needs at least 21 samples, got 12"),
        (np.zeros((12, 3)), 0, {}, ValueError, "at least 1"),
        (np.zeros((12, 3)), 2.5, {}, ValueError, "integer"),
        (np.zeros((12, 2, 3)), 2, {}, ValueError, r"2-D .* got shape \(12, 2, 3\)"),
        (np.zeros((12, 0)), 2, {}, ValueError, "2-D"),
        (np.full((12, 3), np.nan), 2, {}, ValueError, "NaN or infinite"),
        (np.array([[0.0], [np.inf], [1.0]]), 1, {}, ValueError, "NaN or infinite"),
        (np.full((12, 3), 1e30), 2, {}, ValueError, "overflow"),
        (np.zeros((12, 3), complex), 2, {}, TypeError, "real numbers"),
        (np.zeros((12, 3), bool), 2, {}, TypeError, "real numbers"),
        (torch.zeros(12, 3, dtype=torch.bool), 2, {}, TypeError, "real numbers"),
        ([[0.0], [1.0]], 1, {}, TypeError, "numpy array or a torch tensor.*got list"),
        (np.zeros((12, 3)), 2, {"block_rows": 0}, ValueError, "block_rows"),
    ],
)
def test_bad_input_is_named(features, n_neighbors, options, error, message):
    with pytest.raises(error, match=message):
        knn(features, n_neighbors, **options)


@pytest.mark.parametrize("threads", [1, 2])
def test_torch_keeps_its_threads(threads):
    # numba's layer sets OpenMP's number of threads, which is torch's too
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(threads)
        with cpu.torch_threads():
            assert nb.get_num_threads() == min(threads, nb.config.NUMBA_NUM_THREADS)
        knn(np.random.default_rng(0).normal(size=(500, 20)), 5)
        assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
