"""`make gpu` in small and without a GPU: tests, bench and runs, packed into an archive that the book can read."""

import json
import subprocess
import sys

from reprolib.experiments import archive
from reprolib.files import REPOSITORY


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
