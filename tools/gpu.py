"""Tests, benches and missing runs on a GPU, within minutes, packed into one archive: `make gpu BUDGET=10`.

Needs reprolib's own packages and pytest, no environment of its own. Whatever fails, the rest goes on and all is
packed. `--device cpu --profile smoke` does the same small, so that it fails at home first.
"""

import argparse
import contextlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from reprolib.experiments import archive
from reprolib.experiments.machine import commit, machine
from reprolib.experiments.paper import papers
from reprolib.files import BOOK, REPOSITORY

NAME = "reprolib-gpu.tar.gz"
PACKING, PACK_EVERY, LATE = 15, 60, 5  # seconds: kept for it; between two; after which a step is ended
# Most of what is left that a step may take
SHARES = {"tests": 0.35, "bench": 0.4, "reproduce": 1.0}
TESTED = ("tests/kernels", "tests/training", "tests/methods", "tests/bench")


def main() -> int:
    """Run all steps, pack what they left, and return 1 if one failed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--budget", type=float, default=10.0, help="minutes for all (default 10)")
    parser.add_argument(
        "--out", type=Path, default=Path(os.environ.get("OUT", "gpu-out")), help="folder of the archive"
    )
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"))
    parser.add_argument("--profile", default="paper")
    parser.add_argument("--jobs", type=int, default=3, help="runs at a time")
    parser.add_argument("--list", type=Path, help="runs instead of what is missing")
    parser.add_argument("--papers", nargs="*", default=[])
    parser.add_argument("--root", type=Path, help="folder for records, by default the book")
    parser.add_argument("--checkpoints", action="store_true", help="pack those of unfinished runs too")
    parser.add_argument("--steps", nargs="+", default=list(SHARES), choices=list(SHARES))
    asked = parser.parse_args()
    began = time.monotonic()
    end = began + 60 * asked.budget - PACKING
    out = asked.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    # apart: of the folder of the archive few files may come home
    reports = Path(tempfile.mkdtemp(prefix="reprolib-gpu-"))
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(REPOSITORY), os.environ.get("PYTHONPATH", "")])}
    environment |= {"PYTHONUNBUFFERED": "1"}
    if asked.device == "cpu":
        environment["CUDA_VISIBLE_DEVICES"] = ""
    before, steps, packed = _records(asked), {}, []

    def pack() -> None:
        packed[:] = _pack(out, reports, asked, before, steps)

    for step in asked.steps:
        seconds = SHARES[step] * (end - time.monotonic())
        command = _command(step, asked, reports, seconds)
        steps[step] = _step(command, reports / f"{step}.log", seconds, environment, pack)
        print(f"{step}: status {steps[step]['status']}, {steps[step]['seconds']} s", flush=True)
        pack()
    for path in packed:
        print(f"{path}: {path.stat().st_size / 2**20:.1f} MiB")
    return int(any(step["status"] not in (0, 5) for step in steps.values()))  # 5: pytest had nothing to run


def _command(step: str, asked: argparse.Namespace, reports: Path, seconds: float) -> list[str]:
    if step == "tests":
        report = f"--junitxml={reports / 'tests.xml'}"
        # what needs jupyter is not there, and is no part of this
        return [
            "pytest",
            "-q",
            "-m",
            "cuda",
            "--continue-on-collection-errors",
            "-p",
            "no:cacheprovider",
            report,
            *TESTED,
        ]
    if step == "bench":
        quick = ["--quick"] if asked.device == "cpu" else []
        return ["reprolib", "bench", "--device", asked.device, *quick, "--json", str(reports / "bench.json")]
    command = ["reprolib", "reproduce", *asked.papers, "--profile", asked.profile, "--jobs", str(asked.jobs)]
    command += ["--budget", f"{max(1, seconds):.0f}s"]
    command += ["--list", str(asked.list)] if asked.list else []
    return command + (["--root", str(asked.root)] if asked.root else [])


def _step(
    command: list[str], log: Path, seconds: float, environment: dict[str, str], pack: Callable[[], None]
) -> dict[str, object]:
    """Run a module with its output to the log, then to the terminal; what is there is packed now and then.

    Ended when it is late, and told.
    """
    began = time.monotonic()
    with log.open("wb") as stream:
        process = subprocess.Popen(
            [sys.executable, "-m", *command], cwd=REPOSITORY, env=environment, stdout=stream, stderr=stream
        )
        try:
            while process.poll() is None and (left := began + seconds + LATE - time.monotonic()) > 0:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(timeout=min(left, PACK_EVERY))
                    break
                pack()
        finally:
            ended = process.poll() is None
            process.terminate()
            try:
                process.wait(timeout=LATE)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
    print(log.read_text(errors="replace")[-4000:])
    status = f"ended after {seconds:.0f} s" if ended else process.returncode
    return {"command": " ".join(command), "status": status, "seconds": round(time.monotonic() - began, 1)}


def _records(asked: argparse.Namespace) -> dict[str, tuple[Path, int]]:
    """Files of records and their times, by their names in the archive."""
    found = {}
    for paper in papers():
        folder = asked.root / paper if asked.root else BOOK / paper / "runs"
        places = {"*.json": "runs", "*.npz": "runs", "executed/*.log": "logs"}
        if asked.checkpoints:
            places |= {"checkpoints/*.ckpt": "checkpoints", "checkpoints/*.log": "checkpoints"}
        for pattern, place in places.items():
            for path in folder.glob(pattern):
                found[f"{place}/{paper}/{path.name}"] = path, path.stat().st_mtime_ns
    return found


def _pack(out: Path, reports: Path, asked: argparse.Namespace, before: dict, steps: dict) -> list[Path]:
    """Pack the new records that are whole, with logs and reports."""
    now = {name: found for name, found in _records(asked).items() if before.get(name) != found}
    files = {name: path for name, (path, _) in now.items()}
    for name in [n for n in files if n.endswith(".npz")]:
        json = name.removesuffix("npz") + "json"
        if json not in files:  # ended between the two
            del files[name]
    files |= {f"reports/{path.name}": path for path in reports.iterdir() if path.suffix in (".json", ".xml", ".log")}
    head, dirty = commit()
    about = {"commit": head, "dirty": dirty, "machine": machine(), "steps": steps}
    paths = archive.pack(out / NAME, files, about)
    for old in {*out.glob(f"{NAME}*")} - {*paths}:
        old.unlink()
    return paths


if __name__ == "__main__":
    sys.exit(main())
