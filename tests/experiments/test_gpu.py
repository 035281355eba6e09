"""`make gpu` in small and without a GPU: tests, bench and runs, packed into an archive that the book can read."""

import json
import os
import signal
import subprocess
import sys
import time

from reprolib.experiments import archive
from reprolib.files import REPOSITORY
from tools import gpu


def test_everything_that_runs_on_a_gpu_runs_here_in_small(tmp_path):
    asked = {"paper": "dcss", "dataset": "digits", "profile": "smoke", "method": "KMeans"}
    asked |= {"variant": "paper", "tag": "main", "seed": 0}
    runs = tmp_path / "list.json"
    runs.write_text(json.dumps([asked, asked | {"tag": "x", "parameters": {"n_clusters": 1700}}]))
    options = f"--budget 5 --device cpu --profile smoke --list {runs} --root {tmp_path}/runs --jobs 1 --checkpoints"
    options += f" --out {tmp_path}/out"
    command = [sys.executable, "-m", "tools.gpu", *options.split()]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
    assert done.returncode == 1, done.stdout + done.stderr  # one of the runs cannot be
    (path,) = (tmp_path / "out").iterdir()
    manifest, contents = archive.unpack([path])
    steps = manifest["steps"]
    assert {name: step["status"] for name, step in steps.items()} == {"tests": 0, "bench": 0, "reproduce": 1}
    assert manifest["machine"]["device_name"] and manifest["commit"]
    stem = "dcss/KMeans-digits-smoke-main-seed0"
    assert {f"runs/{stem}.json", f"runs/{stem}.npz", f"logs/{stem}.log", "reports/tests.xml"} <= contents.keys()
    assert b"n_clusters=1700" in contents["logs/dcss/KMeans-digits-smoke-x-seed0.log"]
    assert json.loads(contents["reports/bench.json"])["results"]["device"]["steps"]
    said = archive.take([path], book=tmp_path / "book")
    assert said[-1] == "1 records, 1 of them new"


def test_a_signal_in_a_step_packs_what_is_there(tmp_path, monkeypatch):
    handler, given = signal.getsignal(signal.SIGTERM), []

    def stopped(command, log, seconds, environment, pack):
        given.append(seconds)
        (tmp_path / "runs/dcss").mkdir(parents=True)
        for end in ("json", "npz"):
            (tmp_path / f"runs/dcss/a.{end}").write_bytes(b"{}")
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(10)

    monkeypatch.setattr(gpu, "_step", stopped)
    options = f"--budget 5 --steps reproduce --root {tmp_path}/runs --out {tmp_path}/out"
    monkeypatch.setattr(sys, "argv", ["gpu", *options.split()])
    try:
        assert gpu.main() == gpu.STOPPED
    finally:
        signal.signal(signal.SIGTERM, handler)
    assert archive.unpack([*(tmp_path / "out").iterdir()])[1].keys() == {"runs/dcss/a.json", "runs/dcss/a.npz"}
    assert 0 < 5 * 60 - gpu.PACKING - given[0] < 5  # what is kept for packing is kept


def test_a_step_that_is_late_ends_with_all_that_it_began(tmp_path, monkeypatch):
    script = "import signal, subprocess, sys, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
    script += "print(subprocess.Popen(['sleep', '60']).pid, flush=True)\ntime.sleep(60)\n"
    (tmp_path / "stubborn.py").write_text(script)
    monkeypatch.setattr(gpu, "LATE", 0.5)
    monkeypatch.setattr(gpu, "PACK_EVERY", 0.5)
    packed, log = [], tmp_path / "log"
    told = gpu._step(["stubborn"], log, 3, os.environ | {"PYTHONPATH": str(tmp_path)}, lambda: packed.append(1))
    assert told["status"] == "ended after 3 s" and told["seconds"] < 10 and packed
    time.sleep(0.1)
    status = subprocess.run(["ps", "-o", "stat=", "-p", log.read_text().strip()], capture_output=True, text=True).stdout
    assert status.strip()[:1] in ("", "Z")
