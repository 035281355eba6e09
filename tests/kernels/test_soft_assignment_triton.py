"""The CUDA soft assignments without a GPU: interpreted against literal loops, and compiled.

Neither shows races or speed. On a machine with a GPU the last test runs the kernels themselves.
"""

from pathlib import Path

import pytest
import torch
from test_soft_assignment import cases, literal_dec, literal_memberships, targets
from triton_tools import compile_only, run_interpreted

from reprolib.kernels.soft_assignment import dec_loss, fuzzy_memberships

SIZES = {"n": "i32", "d": "i32", "k": "i32"}
ROWS = {"u": "*fp32", "centers": "*fp32"}
KERNELS = {
    "fuzzy": {**ROWS, "p": "*fp32", **SIZES, "exponent": "fp32"},
    "divergence": {
        **ROWS, "target": "*fp32", "q": "*fp32", "partial": "*fp32", **SIZES, "alpha": "fp32",
    },
    "pulls": {
        **ROWS, "target": "*fp32", "q": "*fp32", "grad": "*fp32", "du": "*fp32",
        "partial": "*fp32", **SIZES, "alpha": "fp32",
    },
}  # fmt: skip


def test_interpreted_kernels_equal_the_literal_formulas(tmp_path):
    script = Path(__file__).with_name("interpret_soft_assignment.py")
    ran = run_interpreted(script, tmp_path).splitlines()
    assert len(ran) == 9 and ran[-1] == "programs"


@pytest.mark.parametrize("capability", [80, 90])
@pytest.mark.parametrize("k", [1, 10, 20, 64, 128])
@pytest.mark.parametrize("name", KERNELS)
def test_kernels_compile_within_the_gpu(name, k, capability, tmp_path, monkeypatch):
    from reprolib.kernels import soft_assignment_triton

    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path / "cache"))
    block = soft_assignment_triton.blocks(k)
    warps = block.pop("num_warps")
    assert block["K"] >= k
    types = KERNELS[name]
    built = compile_only(
        getattr(soft_assignment_triton, name), types, block, tmp_path,
        aligned=[x for x, kind in types.items() if kind == "*fp32"],
        capability=capability, num_warps=warps,
    )  # fmt: skip
    built.check_resources()
    assert built.instructions["FFMA"] > 0


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("name", cases())
def test_gpu_equals_the_literal_formulas(name):
    u, centers = cases()[name]
    target = targets(u, centers).float()
    single = [x.float().cuda().requires_grad_() for x in (u, centers)]
    double = [x.detach().cpu().double().requires_grad_() for x in single]
    p = fuzzy_memberships(*single).cpu().double()
    torch.testing.assert_close(p, literal_memberships(*double, 1.5), rtol=1e-4, atol=1e-6)
    loss, expected = dec_loss(*single, target.cuda()), literal_dec(*double, target.double(), 1.0)
    torch.testing.assert_close(loss.cpu().double(), expected, rtol=1e-4, atol=1e-6)
    gradients = torch.autograd.grad(loss, single)
    for mine, theirs in zip(gradients, torch.autograd.grad(expected, double), strict=True):
        torch.testing.assert_close(mine.cpu().double(), theirs, rtol=1e-3, atol=1e-6)
