"""The kernel of `views` for a GPU: interpreted on the CPU it gives the CPU's pixels, and it compiles for an H100.

Triton reads TRITON_INTERPRET when a kernel is defined, so this file is also the program that runs interpreted, in a
process of its own. On a machine with a GPU the last tests run the kernel there.
"""

import os
import re
import subprocess
import sys
from pathlib import Path
from unittest import mock

import pytest
import torch
from test_views import KINDS, TOLERANCE, made, seeded

from reprolib.kernels.views import RECIPES, draw, views

triton = pytest.importorskip("triton")
from reprolib.kernels import views_device as device  # noqa: E402 - needs triton

ROOT = Path(__file__).parents[2]
ALL = {**KINDS, **RECIPES}
# every operation on odd sides, every recipe on the shapes of images: less than a block, a block, more than one
CASES = [(name, (5, 3, 15, 17)) for name in ALL] + [("brightness", (8, 1, 9, 7))]  # the last, too bright
CASES += [
    (name, shape)
    for name in ("all", *RECIPES)
    for shape in ((4, 1, 28, 28), (3, 3, 32, 32), (1, 1, 1, 1), (2, 3, 40, 37), (2, 1, 50, 50))
]


def prepared(shape):
    """Images of a shape, their mean and std, numbers for a view of each."""
    mean, std = torch.tensor([0.4, 0.5, 0.6])[: shape[1]], torch.tensor([0.5, 0.25, 1.0])[: shape[1]]
    return made(*shape), mean, std, draw(shape[0], seeded())


def assert_equal_views(found, expected):
    """Within float32 of places and colours, divided by a quarter."""
    torch.testing.assert_close(found, expected, atol=8 * TOLERANCE, rtol=0)
    assert found.is_contiguous(memory_format=torch.channels_last)


def interpreted():
    assert isinstance(device.views_kernel, triton.runtime.interpreter.InterpretedFunction)

    def unwritten(*size, **how):
        return torch.full(size, torch.nan).contiguous(memory_format=how["memory_format"])

    with mock.patch.object(torch, "empty", unwritten):
        for name, shape in CASES:
            images, mean, std, drawn = prepared(shape)
            found = device.views_device(images, drawn, ALL[name], mean, std)
            assert_equal_views(found, views(images, drawn, ALL[name], mean, std))
        images, mean, std, drawn = prepared((6, 3, 9, 8))
        for each in (
            images.contiguous(memory_format=torch.channels_last),
            made(6, 3, 8, 9).mT,
            made(6, 3, 18, 8)[:, :, ::2],
        ):
            found = device.views_device(each, drawn.T.contiguous().T, KINDS["all"], mean, std)
            assert_equal_views(found, views(each, drawn, KINDS["all"], mean, std))
            # one image's view hangs on no other's
            assert torch.equal(found[3:], device.views_device(each[3:], drawn[3:], KINDS["all"], mean, std))


def test_interpreted_kernel_equals_the_cpu():
    environment = {**os.environ, "TRITON_INTERPRET": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, __file__], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 32, 32), (3, 96, 96)])
def test_compiles_for_an_h100_without_spilling(shape, tmp_path, monkeypatch):
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    numbers, flags = device.arguments(KINDS["all"], *shape)
    kernel, pointers = device.views_kernel, ("images", "drawn", "mean", "std", "out")
    types = {"images": "*u8", **dict.fromkeys(pointers[1:], "*fp32"), "strides": ("i32",) * 4}
    types["numbers"] = ("fp32",) * len(numbers)
    signature = {name: types.get(name, "constexpr") for name in kernel.arg_names}
    aligned = {(kernel.arg_names.index(name),): [["tt.divisibility", 16]] for name in pointers}
    source = triton.compiler.ASTSource(kernel, signature, flags, aligned)
    target = triton.backends.compiler.GPUTarget("cuda", 90, 32)
    warps = device.warps(flags)
    built = triton.compile(source, target=target, options={"num_warps": warps})
    (tmp_path / "kernel.ptx").write_text(built.asm["ptx"])
    ptxas = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "ptxas"
    command = [ptxas, "-v", "--gpu-name=sm_90a", tmp_path / "kernel.ptx", "-o", tmp_path / "kernel.cubin"]
    log = subprocess.run(command, capture_output=True, text=True, check=True).stderr
    assert "0 bytes spill stores, 0 bytes spill loads" in log
    registers = int(re.search(r"Used (\d+) registers", log)[1])
    assert registers * 32 * warps <= 65_536 / 2  # two programs at once on a multiprocessor, or more
    assert built.metadata.shared <= 16_384


def on_cuda(test):
    return pytest.mark.cuda(pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")(test))


@on_cuda
@pytest.mark.parametrize("name", ALL)
def test_gpu_equals_the_cpu(name):
    shapes = [shape for case, shape in CASES if case == name]
    for shape in (*shapes, (500, 3, 32, 32), (64, 3, 96, 96)):
        images, mean, std, drawn = prepared(shape)
        found = views(images.cuda(), drawn.cuda(), ALL[name], mean.cuda(), std.cuda())
        assert_equal_views(found.cpu(), views(images, drawn, ALL[name], mean, std))


@on_cuda
def test_gpu_without_triton_equals_the_kernel(monkeypatch):
    images, mean, std, drawn = (x.cuda() for x in prepared((50, 3, 32, 32)))
    kernel = views(images, drawn, KINDS["all"], mean, std)
    monkeypatch.setattr("reprolib.kernels.views.HAS_TRITON", False)
    assert_equal_views(views(images, drawn, KINDS["all"], mean, std), kernel)


@on_cuda
def test_gpu_waits_for_nothing_and_can_be_recorded():
    images, mean, std, drawn = (x.cuda() for x in prepared((50, 3, 32, 32)))
    views(images, drawn, RECIPES["simclr"], mean, std)  # compiles
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        recorded = views(images, drawn, RECIPES["simclr"], mean, std)
    drawn.copy_(draw(50, device="cuda"))
    graph.replay()
    torch.cuda.set_sync_debug_mode("error")
    try:
        found = views(images, drawn, RECIPES["simclr"], mean, std)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert torch.equal(recorded, found)


if __name__ == "__main__":
    interpreted()
