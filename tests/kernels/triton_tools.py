"""What the tests of Triton kernels share: interpreter runs, and compilation without a GPU.

The interpreter must be chosen before a kernel is decorated, so interpreter tests run in a process
of their own. Compilation uses the ptxas, cuobjdump and nvdisasm that ship in Triton's wheel.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

# Largest shared memory of one program, bytes (CUDA C++ Programming Guide, compute capabilities).
SHARED_LIMIT = {80: 166_912, 90: 232_448}
REGISTER_FILE = 65_536
PTX_TARGET = {80: "sm_80", 90: "sm_90a"}


def run_interpreted(script: Path, cache: Path, *arguments: str, timeout: int = 300) -> str:
    """Run a Python file under Triton's interpreter; fail with its output when it fails."""
    environment = {
        **os.environ,
        "TRITON_INTERPRET": "1",
        "TRITON_CACHE_DIR": str(cache),
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join(str(folder) for folder in Path(__file__).parents[:3]),
    }
    done = subprocess.run(
        [sys.executable, str(script), *arguments],
        env=environment, capture_output=True, text=True, timeout=timeout,
    )  # fmt: skip
    assert done.returncode == 0, f"{script.name} failed:\n{done.stdout}\n{done.stderr}"
    return done.stdout


@contextmanager
def reversed_programs(count: int):
    """Inside, the interpreter runs the programs of a one-dimensional grid last to first."""
    from triton.runtime.interpreter import interpreter_builder as builder

    forward = builder.set_grid_idx
    builder.set_grid_idx = lambda x, y, z: forward(count - 1 - x, y, z)
    try:
        yield
    finally:
        builder.set_grid_idx = forward


@dataclass(frozen=True)
class Compiled:
    """Resources of a kernel compiled for one target, as ptxas and the disassembler report them."""

    registers: int
    frame: int
    spill_stores: int
    spill_loads: int
    shared: int
    instructions: dict[str, int]
    num_warps: int
    capability: int

    def check_resources(self) -> None:
        """Assert that one program fits an SM and spills nothing."""
        assert self.registers * 32 * self.num_warps <= REGISTER_FILE, self
        assert (self.frame, self.spill_stores, self.spill_loads) == (0, 0, 0), self
        assert self.shared <= SHARED_LIMIT[self.capability], self


def compile_only(kernel, types, constants, folder, *, aligned=(), capability=90, num_warps=4):
    """Compile `kernel` for a GPU that need not be there.

    `types`: Triton type of each run-time argument ("*bf16", "i32"); `constants`: constexpr values;
    `aligned`: arguments that are multiples of 16, without which another kernel is compiled.
    """
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    tools = Path(triton.__file__).parent / "backends" / "nvidia" / "bin"
    source = ASTSource(
        fn=kernel,
        signature={name: types.get(name, "constexpr") for name in kernel.arg_names},
        constexprs=constants,
        attrs={(kernel.arg_names.index(name),): [["tt.divisibility", 16]] for name in aligned},
    )
    built = triton.compile(source, target=GPUTarget("cuda", capability, 32), options={"num_warps": num_warps})
    cubin, ptx = folder / "kernel.cubin", folder / "kernel.ptx"
    cubin.write_bytes(built.asm["cubin"])
    ptx.write_text(built.asm["ptx"])
    ptxas = [tools / "ptxas", "-v", f"--gpu-name={PTX_TARGET[capability]}", ptx, "-o", os.devnull]
    log = subprocess.run(ptxas, capture_output=True, text=True, check=True)
    log = log.stdout + log.stderr
    listing = [tools / "nvdisasm", "-c", cubin]
    sass = subprocess.run(listing, capture_output=True, text=True, check=True).stdout
    frame = re.search(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill", log)
    names = ("HGMMA", "HMMA", "FFMA")
    return Compiled(
        registers=int(re.search(r"Used (\d+) registers", log)[1]),
        frame=int(frame[1]),
        spill_stores=int(frame[2]),
        spill_loads=int(frame[3]),
        shared=built.metadata.shared,
        instructions={name: len(re.findall(rf"\b{name}\b", sass)) for name in names},
        num_warps=num_warps,
        capability=capability,
    )
