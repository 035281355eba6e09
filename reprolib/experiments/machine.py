"""The machine a number was measured on: device, processor, versions, commit, peak memory."""

import os
import platform
import re
import resource
import subprocess
import sys
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from reprolib.files import REPOSITORY

PACKAGES = ("torch", "numpy", "scipy", "scikit-learn", "numba")


def machine() -> dict[str, Any]:
    """Device ("cpu" or "cuda"), device_name, cpu, threads (torch's), platform and versions by package, for JSON."""
    import torch

    cuda = torch.cuda.is_available()
    return {
        "device": "cuda" if cuda else "cpu",
        "device_name": torch.cuda.get_device_name() if cuda else _cpu_model(),
        "cpu": _cpu_model(),
        "threads": torch.get_num_threads(),
        "platform": f"{platform.system()} {platform.machine()}",
        "versions": {"python": platform.python_version()} | {p: version(p) for p in PACKAGES},
    }


def peak_memory_mb() -> float:
    """Peak resident memory of this process, in MiB; on Linux without that of its parent, which `ru_maxrss` has."""
    status = Path("/proc/self/status")
    if status.is_file():
        return round(int(re.search(r"VmHWM:\s*(\d+)", status.read_text())[1]) / 1024, 1)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # macOS counts bytes, others KiB
    return round(peak / (1024**2 if sys.platform == "darwin" else 1024), 1)


@cache
def _cpu_model() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    text = cpuinfo.read_text() if cpuinfo.is_file() else ""
    named = re.search(r"^(?:model name|hardware)[^:\n]*:(.*)", text, re.MULTILINE | re.IGNORECASE)
    name = named[1].strip() if named else platform.processor()
    return f"{name or platform.machine()}, {os.cpu_count()} logical cores"


def commit() -> tuple[str | None, bool | None]:
    """Return the commit's hash and whether the package differs from it; None outside a checkout.

    REPROLIB_COMMIT names it for a copy of a checkout that has no history, with a + where the package differs.
    """
    if told := os.environ.get("REPROLIB_COMMIT"):
        return told.removesuffix("+"), told.endswith("+")
    options = {"cwd": REPOSITORY, "capture_output": True, "text": True, "check": True, "timeout": 20}
    # only the package: records and pages that change while runs go on are not the code
    asked = ("rev-parse", "HEAD"), ("status", "--porcelain", "--", "reprolib")
    try:
        head, changed = (subprocess.run(["git", *words], **options).stdout.strip() for words in asked)
        return head, bool(changed)
    except (OSError, subprocess.SubprocessError):
        return None, None
