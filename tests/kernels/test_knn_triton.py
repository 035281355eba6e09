"""The CUDA k-NN path without a GPU: interpreted against the definition, and compiled for two GPUs.

Neither shows races or speed. On a machine with a GPU the last test runs the kernel itself.
"""

from pathlib import Path

import numpy as np
import pytest
import torch
from test_knn import cases, literal
from triton_tools import compile_only, run_interpreted

from reprolib.kernels.knn import knn

CANDIDATES = {"z": "*bf16", "bias": "*fp32", "keys": "*i64", "n": "i32", "width": "i32"}
RERANK = {
    "x": "*fp32", "keys": "*i64", "squared": "*fp32", "indices": "*i64",
    "n": "i32", "d": "i32", "k": "i32",
}  # fmt: skip


def test_interpreted_kernels_equal_the_definition(tmp_path):
    ran = run_interpreted(Path(__file__).with_name("interpret_knn.py"), tmp_path).splitlines()
    assert len(ran) == 9 and ran[-1] == "candidates"


@pytest.fixture
def fresh_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path


@pytest.mark.parametrize("capability", [80, 90])
@pytest.mark.parametrize(("n", "k"), [(10_000, 20), (70_000, 20), (70_000, 50), (70_000, 64)])
def test_candidates_compile_within_the_gpu(capability, n, k, fresh_cache):
    from reprolib.kernels.knn_triton import candidate_blocks, candidates

    block = candidate_blocks(n, k)
    warps = block.pop("num_warps")
    assert block["K"] >= k + 8
    built = compile_only(
        candidates, CANDIDATES, {**block, "UPCAST": False}, fresh_cache,
        aligned=("z", "bias", "keys", "width"), capability=capability, num_warps=warps,
    )  # fmt: skip
    built.check_resources()
    assert built.instructions["HGMMA" if capability == 90 else "HMMA"] > 0  # tensor cores
    assert built.instructions["LDGSTS"] > 0  # asynchronous copies, as the alignment allows


@pytest.mark.parametrize("capability", [80, 90])
@pytest.mark.parametrize("k", [20, 50, 64])
def test_rerank_compiles_within_the_gpu(capability, k, fresh_cache):
    from reprolib.kernels.knn_triton import rerank, rerank_blocks

    block = rerank_blocks(k)
    warps = block.pop("num_warps")
    built = compile_only(
        rerank, RERANK, block, fresh_cache,
        aligned=("x", "keys", "squared", "indices"), capability=capability, num_warps=warps,
    )  # fmt: skip
    built.check_resources()
    assert built.instructions["DFMA"] > 0  # sums in float64


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("name", cases())
def test_gpu_equals_the_definition(name):
    x, k = cases()[name]
    x = np.ascontiguousarray(x, dtype=np.float32)
    squared, indices = (part.cpu() for part in knn(torch.from_numpy(x).cuda(), k))
    np.testing.assert_array_equal(indices, literal(x, k)[1])
    np.testing.assert_array_equal(squared, literal(x, k)[0])
