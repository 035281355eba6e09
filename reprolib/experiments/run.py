"""Run a paper's experiment page with papermill, or else as a script: several seeds, resumable, one record a seed."""

import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import yaml
from tqdm import tqdm

from reprolib.data.cache import data_root
from reprolib.experiments.paper import paper_folder
from reprolib.experiments.plan import SETTINGS, Plan, located, plan
from reprolib.experiments.plan import given as given
from reprolib.experiments.records import read as read
from reprolib.experiments.records import told as told
from reprolib.files import REPOSITORY

POLL_SECONDS = 0.25


class RunFailed(ChildProcessError):
    """Raised at the end of `run` when a seed did not finish; names its log and its last line."""


def run(
    paper: str,
    parameters: Mapping[str, Any] | None = None,
    seeds: Sequence[int] = (0,),
    *,
    jobs: int = 1,
    force: bool = False,
    runs_dir: str | Path | None = None,
) -> list[Path]:
    """Execute book/<paper>/run.md once a seed and return the paths of the records, in seed order.

    parameters: as for `plan`, without `random_state`; jobs: seeds at a time, each a process of its own; force: also
    where a finished record is there: intact, fresh and of the same parameters; runs_dir: default book/<paper>/runs. A
    killed seed goes on from its checkpoint. Executed notebooks and logs: runs/executed. Without papermill and jupytext
    the same process is a plain script, and the record says so. Raises ValueError or TypeError
    for bad names and values before anything runs, RunFailed at the end.
    """
    if not seeds or jobs < 1:
        raise ValueError(f"at least one seed and one job are needed; got {list(seeds)}, {jobs}.")
    folder = Path(runs_dir) if runs_dir is not None else paper_folder(paper) / "runs"
    # the page runs in its own folder
    asked = located(parameters or {}) | {"runs_dir": str(folder.expanduser().resolve())}
    if "random_state" in asked:
        raise ValueError("random_state is set by the seeds; pass seeds (--seeds N) instead.")
    plans = [plan(paper, asked | {"random_state": int(seed)}) for seed in seeds]
    if not plans[0].takes_seed:
        plans = plans[:1]  # no randomness: every seed would repeat the first
    waiting = [p for p in plans if force or not p.is_finished()]
    if waiting:
        waiting[0].images()  # a data set that is not there should stop here, not in a notebook
    for item in waiting:
        with item.lock():  # nor should a run that another process is at: its log would be lost
            pass
    if failures := _execute(waiting, asked, jobs, len(plans)):
        raise RunFailed("\n".join(failures))
    return [p.runs / f"{p.stem}.json" for p in plans]


def _execute(waiting: Sequence[Plan], asked: Mapping[str, Any], jobs: int, total: int) -> list[str]:
    """Run plans, `jobs` at a time, and return one message for each that failed."""
    queue, failures, running, shown = list(waiting), [], [], ""
    bar = tqdm(total=total, initial=total - len(queue), unit="seed")
    with tempfile.TemporaryDirectory(prefix="reprolib-") as scratch, bar:
        try:
            while queue or running:
                while queue and len(running) < jobs:
                    running.append((queue[0], _start(queue.pop(0), asked, Path(scratch), jobs)))
                for item, process in running[:]:
                    if process.poll() is not None:
                        running.remove((item, process))
                        failures += _outcome(item, process.returncode)
                        bar.update(1)
                note = "; ".join(filter(None, (_epochs(item) for item, _ in running)))
                if note != shown:
                    bar.set_postfix_str(shown := note)
                time.sleep(POLL_SECONDS)
        finally:
            for _, process in running:
                process.terminate()
                process.wait()
    return failures


def _start(item: Plan, asked: Mapping[str, Any], scratch: Path, jobs: int) -> subprocess.Popen:
    log = log_of(item)
    # the progress bar of a verbose method is the postfix of ours
    parameters = {"verbose": True} if "verbose" in item.parameters else {}
    parameters |= {k: v for k, v in asked.items() if k not in SETTINGS}
    sent = {k: v for k, v in asked.items() if k in SETTINGS} | {"random_state": item.random_state}
    if find_spec("papermill") and find_spec("jupytext"):
        notebook = _notebook(item, scratch)
        command = [
            *(sys.executable, "-m", "papermill", str(notebook), str(log.with_suffix(".ipynb"))),
            *("--parameters_yaml", yaml.safe_dump(sent | {"parameters": parameters})),
            *("--cwd", str(paper_folder(item.paper)), "--kernel", "python3", "--log-output", "--no-progress-bar"),
        ]
    else:
        script = "reprolib.experiments.single"
        command = [sys.executable, "-m", script, item.paper, yaml.safe_dump(sent | parameters)]
    # the kernel must be this interpreter's and find this package, installed or not
    paths = os.pathsep.join([str(REPOSITORY), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = os.environ | {"JUPYTER_PREFER_ENV_PATH": "1", "PYTHONPATH": paths}
    environment["REPROLIB_DATA"] = str(data_root().resolve())
    if jobs > 1:
        share = str(max(1, (os.cpu_count() or 1) // jobs))
        environment = {f"{of}_NUM_THREADS": share for of in ("OMP", "NUMBA", "OPENBLAS")} | environment
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as stream:
        return subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, stdout=stream, stderr=stream)


def _notebook(item: Plan, scratch: Path) -> Path:
    import jupytext
    import nbformat

    # as a file: given a notebook object, papermill copies its whole source into the result's metadata
    notebook = scratch / f"{item.stem}.ipynb"
    nbformat.write(jupytext.read(paper_folder(item.paper) / "run.md"), notebook)
    return notebook


def _outcome(item: Plan, status: int) -> list[str]:
    """Say what went wrong with a process that has ended: nothing, or one message."""
    # not `is_finished`: code that changed while the run went on makes it stale, not failed
    if status == 0 and item.finished_record():
        return []
    said = [n for n in _tail(item) if n and not n.startswith(("Ending", "Executing"))]
    reason = [f"exit status {status}", *said][-1] if status else "the run wrote no record"
    return [f"{item.stem}: {reason}\n  log: {log_of(item)}"]


def _epochs(item: Plan) -> str:
    """What the method's own progress bar says last: epochs, time left, clusters, loss."""
    found = re.findall(r"(\d+/\d+) \[[^<]*<([^,]+), [^,]+, (.*)\]", "\n".join(_tail(item)))
    return "epoch {}, {} left, {}".format(*found[-1]) if found else ""


def log_of(item: Plan) -> Path:
    """The log of a run, beside its executed page."""
    return item.runs / "executed" / f"{item.stem}.log"


def _tail(item: Plan) -> list[str]:
    """The last lines of a log, and of its progress bars."""
    return [line.strip() for line in log_of(item).read_bytes()[-4096:].decode(errors="replace").splitlines()]
