"""The CUDA pairwise loss without a GPU: interpreted against literal loops, and compiled.

Neither shows races or speed. On a machine with a GPU the last test runs the kernel itself.
"""

from pathlib import Path

import pytest
import torch
from test_pairwise import cases, literal_pairs
from triton_tools import compile_only, run_interpreted

from reprolib.kernels.pairwise import pairwise_loss

PAIRS = {
    "q": "*fp32", "vectors": "*fp32", "gradient": "*fp32", "partial": "*fp64",
    "b": "i32", "k": "i32", "zeta": "fp32", "gamma": "fp32",
}  # fmt: skip


def test_interpreted_kernel_equals_the_literal_loss(tmp_path):
    script = Path(__file__).with_name("interpret_pairwise.py")
    ran = run_interpreted(script, tmp_path).splitlines()
    assert len(ran) == len(cases()) + 3 and ran[-1] == "programs"


@pytest.mark.parametrize("capability", [80, 90])
@pytest.mark.parametrize(
    ("b", "k", "separate"),
    [(500, 10, False), (500, 10, True), (10_000, 10, True), (500, 20, True), (500, 40, True), (500, 128, True)],
)
def test_kernel_compiles_within_the_gpu(b, k, separate, capability, tmp_path, monkeypatch):
    from reprolib.kernels.pairwise_triton import blocks, pairs

    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path / "cache"))
    block = blocks(b, k)
    warps = block.pop("num_warps")
    assert block["K"] >= k
    built = compile_only(
        pairs, PAIRS, {**block, "SEPARATE": separate}, tmp_path,
        aligned=("q", "vectors", "gradient", "partial"), capability=capability, num_warps=warps,
    )  # fmt: skip
    built.check_resources()
    # IEEE float32 products: a tensor core would round near the thresholds
    assert built.instructions["FFMA"] > 0
    assert built.instructions["HMMA"] == built.instructions["HGMMA"] == 0


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("name", cases())
def test_gpu_equals_the_literal_loss(name):
    q, similarity = cases()[name]
    q = q.float().cuda().requires_grad_()
    similarity = None if similarity is None else similarity.float().cuda()
    loss, n_similar, n_dissimilar = pairwise_loss(q, similarity)
    expected = literal_pairs(q.cpu(), None if similarity is None else similarity.cpu())
    assert (n_similar, n_dissimilar) == (len(expected[2]), len(expected[3]))
    tolerance = {"rtol": 1e-5, "atol": 1e-6 * len(q) ** 2}
    torch.testing.assert_close(loss.detach().cpu().double(), expected[0], **tolerance)
    (gradient,) = torch.autograd.grad(loss, q)
    torch.testing.assert_close(gradient.cpu().double(), expected[1], **tolerance)
