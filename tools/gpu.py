"""Tests, benches and missing runs on a GPU, within minutes, packed into one archive: `make gpu BUDGET=10`.

Needs reprolib's own packages and pytest, no environment of its own. Whatever fails, the rest goes on and all is
packed. `--device cpu --profile smoke` does the same small, so that it fails at home first.
"""

import argparse
import contextlib
import hashlib
import io
import json
import os
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from reprolib.experiments import archive
from reprolib.experiments.machine import commit, machine
from reprolib.experiments.paper import papers
from reprolib.files import BOOK, REPOSITORY, write_atomically

NAME = "reprolib-gpu.tar.gz"
PART_BYTES = 15 * 2**20  # of a part: what goes through most doors
# Seconds: between two packings; after which a step is ended, and killed; kept for that and for the last packing, of
# hundreds of records on a busy machine
PACK_EVERY, LATE = 60, 5
PACKING = 2 * LATE + 30
STOPPED = 130
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

    def pack_now() -> None:
        packed[:] = _pack(out, reports, asked, before, steps)

    signal.signal(signal.SIGTERM, signal.default_int_handler)  # of a scheduler: what is there is packed
    try:
        for step in asked.steps:
            seconds = SHARES[step] * (end - time.monotonic())
            command = _command(step, asked, reports, seconds)
            steps[step] = _step(command, reports / f"{step}.log", seconds, environment, pack_now)
            print(f"{step}: status {steps[step]['status']}, {steps[step]['seconds']} s", flush=True)
            pack_now()
    except KeyboardInterrupt:
        pack_now()
        return STOPPED
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

    Ended when it is late, with all that it began, and told.
    """
    began = time.monotonic()
    with log.open("wb") as stream:
        options = {"cwd": REPOSITORY, "env": environment, "stdout": stream, "stderr": stream}
        process = subprocess.Popen([sys.executable, "-m", *command], **options, start_new_session=True)
        try:
            while process.poll() is None and (left := began + seconds + LATE - time.monotonic()) > 0:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(timeout=min(left, PACK_EVERY))
                    break
                pack()
        finally:
            ended = process.poll() is None
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(timeout=LATE)
            with contextlib.suppress(ProcessLookupError):  # workers of one that was killed would keep the machine busy
                os.killpg(process.pid, signal.SIGKILL)
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
    return pack(out / NAME, files, about)


def pack(path: Path, files: Mapping[str, Path], about: Mapping[str, Any]) -> list[Path]:
    """Write files by their names in the archive, and `about` into its manifest; in parts if it is large.

    Returns the paths: `path`, or `path` with .00, .01 ... behind. An archive that was there is whole until the new one
    is written, and then gone. ValueError for a name that `archive.take` would refuse.
    """
    contents = {name: files[name].read_bytes() for name in sorted(files)}
    for name in contents:
        archive.check_member(name)
    hashes = {name: hashlib.sha256(data).hexdigest() for name, data in contents.items()}
    manifest = json.dumps({"format": archive.FORMAT, **about, "files": hashes}, indent=1).encode()
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz", compresslevel=1) as stream:  # most of it is compressed already
        for name, data in {archive.MANIFEST: manifest, **contents}.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            stream.addfile(member, io.BytesIO(data))
    data = packed.getvalue()
    paths = [path]
    if len(data) > PART_BYTES:
        paths = [path.with_name(f"{path.name}.{i:02}") for i in range(-(-len(data) // PART_BYTES))]
    fresh = {part.with_name(f"new.{part.name}"): part for part in paths}
    for i, part in enumerate(fresh):
        piece = data[i * PART_BYTES : (i + 1) * PART_BYTES]
        write_atomically(part, lambda stream, piece=piece: stream.write(piece))
    for old in {*path.parent.glob(f"*{path.name}*")} - {*fresh}:
        old.unlink()
    for part, place in fresh.items():
        part.replace(place)
    return paths


if __name__ == "__main__":
    sys.exit(main())
