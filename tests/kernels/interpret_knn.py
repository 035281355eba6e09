"""Runs under TRITON_INTERPRET=1 (see test_knn_triton.py): the CUDA k-NN path, small cases.

Prints the name of each case before it runs; stops at the first value that differs.
"""

from unittest import mock

import numpy as np
import torch
from test_knn import literal
from triton_tools import reversed_programs

from reprolib.kernels import knn_triton
from reprolib.kernels.knn import knn


def cases():
    rng = np.random.default_rng(0)
    return {
        "ragged": (rng.normal(size=(131, 13)), 20),
        "just above k": (rng.normal(size=(21, 4)), 20),
        "wide": (rng.normal(size=(70, 130)), 5),
        "duplicates": (np.repeat(rng.normal(size=(9, 7)), 9, axis=0), 20),
        "constant": (np.full((70, 5), 0.3), 20),
        "ties": (rng.integers(0, 3, size=(90, 3)), 10),
        "one feature": (rng.normal(size=(67, 1)), 3),
        "far from the origin": (rng.normal(size=(80, 20)) * 1e-3 + 100, 15),
    }


def check(x, k):
    x = np.ascontiguousarray(x, dtype=np.float32)
    with mock.patch.object(knn_triton, "knn_triton", wraps=knn_triton.knn_triton) as kernel:
        squared, indices = knn(x, k)
    kernel.assert_called_once()
    expected = literal(x, k)
    np.testing.assert_array_equal(indices, expected[1])
    np.testing.assert_array_equal(squared, expected[0])


def check_candidates(x, k):
    """The first kernel alone, on poisoned output, program by program in reversed order."""
    x = torch.from_numpy(np.ascontiguousarray(x, dtype=np.float32))
    n = x.shape[0]
    z, bias, _, _ = knn_triton.whole_tiles(x)
    block = knn_triton.candidate_blocks(n, k)
    keys = torch.full((n + 3, block["K"]), -1, dtype=torch.int64)  # -1 is the key of a NaN
    programs = -(-n // block["BLOCK_N"])

    assert programs > 1, "one program has no order"
    launch = knn_triton.candidates[(programs,)]
    launch(z, bias, keys, n, z.shape[1], UPCAST=True, **block)
    assert (keys[n:] == -1).all(), "wrote past the last row"
    assert not (keys[:n] == -1).any(), "left an output unwritten"
    forward = keys.clone()

    keys.fill_(-1)
    with reversed_programs(programs):
        launch(z, bias, keys, n, z.shape[1], UPCAST=True, **block)
    assert torch.equal(forward, keys), "the order of the programs matters"

    p = z.double() @ z.double().T
    score = bias.double() - 2 * p
    score.fill_diagonal_(float("inf"))
    kept = torch.where(forward[:n] >> 32 < 0x7F800000, forward[:n] & 0x7FFFFFFF, n)
    for i in range(n):
        mine = sorted(score[i, j].item() for j in kept[i] if j < n)
        best = score[i].sort().values[: len(mine)]
        np.testing.assert_allclose(mine, best, rtol=1e-5, atol=1e-5)


if __name__ == "__main__":
    for name, case in cases().items():
        print(name, flush=True)
        check(*case)
    print("candidates", flush=True)
    check_candidates(*cases()["ragged"])
