"""Two processes at one run: the second is refused, and a killed one leaves nothing locked."""

import fcntl
import os
import subprocess
import sys

import pytest

from reprolib.experiments import run
from reprolib.files import locked

HOLD = "import sys; from pathlib import Path; from reprolib.files import locked\n"
HOLD += "with locked(Path(sys.argv[1]), 'x'): print('held', flush=True); sys.stdin.read()"


@pytest.fixture
def other():
    """Start a process that holds a lock file; it is killed at the end."""
    started = []

    def start(path):
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        process = subprocess.Popen([sys.executable, "-c", HOLD, str(path)], **pipes, text=True)
        started.append(process)
        assert process.stdout.readline() == "held\n"
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def test_a_run_that_another_process_is_at_is_refused_until_that_ends(tmp_path, other):
    item = run.plan("jule", {"method": "KMeans", "runs_dir": str(tmp_path)})
    lock = item.checkpoint.with_suffix(".lock")
    process = other(lock)
    said = f"process {process.pid} is at KMeans-digits-smoke-main-seed0: wait"
    images, monitor = item.images(), None
    with pytest.raises(BlockingIOError, match=said):
        item.fit(item.estimator(), images, monitor)
    with pytest.raises(BlockingIOError, match=said):
        run.run("jule", {"method": "KMeans"}, runs_dir=tmp_path)
    assert not (tmp_path / "executed").exists(), "the log of the other is not touched"
    # another seed, variant or parameter is another run
    run.plan("jule", {"method": "KMeans", "runs_dir": str(tmp_path), "n_init": 3, "tag": "x"}).fit(
        item.estimator(), images, monitor
    )
    process.kill()
    process.wait()
    assert lock.exists() and item.fit(item.estimator(), images, monitor)
    assert not list(lock.parent.iterdir())


def test_a_lock_file_that_was_just_removed_locks_nothing(tmp_path, monkeypatch):
    path, flock, calls = tmp_path / "a.lock", fcntl.flock, []

    def late(stream, how):
        calls.append(how)
        if len(calls) == 1:  # the one before ends between our opening of its file and our locking of it
            path.unlink()
        flock(stream, how)

    monkeypatch.setattr(fcntl, "flock", late)
    with locked(path, "x"):
        assert len(calls) == 2 and path.read_text() == str(os.getpid())
        with pytest.raises(BlockingIOError, match=f"process {os.getpid()} is at y"), locked(path, "y"):
            pass
    assert not path.exists()


def test_a_file_system_without_locks_does_not_stop_runs(tmp_path, monkeypatch):
    def none(stream, how):
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr(fcntl, "flock", none)
    with locked(tmp_path / "a.lock", "x"):
        pass
