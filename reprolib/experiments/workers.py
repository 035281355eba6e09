"""Runs taken one after the other by a few long-lived processes, within a budget of seconds.

A start of Python, torch and CUDA costs seconds, so a process takes run after run. What one run does, out of memory
or killed by a signal included, ends that run alone: it is told, its process replaced, its checkpoint kept.
"""

import contextlib
import gc
import multiprocessing
import os
import signal
import threading
import time
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from tqdm import tqdm

from reprolib.experiments.cost import OVERLAP, Cost, Device
from reprolib.experiments.plan import Plan
from reprolib.experiments.records import read, told
from reprolib.experiments.run import log_of
from reprolib.experiments.single import execute

GRACE = 15.0  # seconds before the end of the budget, for what runs to end at its checkpoint
POLL_SECONDS = 1.0
FEW = 8  # names in a line
STOPPED = 130
TAKEN = "another process is at it"


@dataclass(frozen=True, eq=False)
class Task:
    """A run that is asked for: its plan, its cost, and what it waits for.

    rank: those of less come first; pretraining: equal where runs share one; done: passes that a checkpoint holds.
    """

    item: Plan
    cost: Cost
    rank: int = 0
    pretraining: tuple[Any, ...] | None = None
    done: int = 0

    @property
    def waits(self) -> bool:
        """Tell whether it needs a fitted model that is not here."""
        return self.item.needed_model is not None and not self.item.needed_model.is_file()


def work(connection: Connection) -> None:
    """A worker: take plans, run them, answer; until None comes, or memory or the device has failed."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    tqdm.set_lock(threading.RLock())  # its own, of all processes, would be left behind
    try:
        while (item := connection.recv()) is not None:
            said, sound = _one_run(connection, item)
            connection.send(("ended", said))
            if not sound:
                return
    except EOFError:
        return
    except KeyboardInterrupt:
        os._exit(STOPPED)  # the end of an interpreter with torch in it takes seconds


def _one_run(connection: Connection, item: Plan) -> tuple[str, bool]:
    """Execute a run into its log: what went wrong, "" for nothing, and whether this process can go on."""
    with contextlib.suppress(OSError):  # the peak of memory, anew for each run
        Path("/proc/self/clear_refs").write_text("5")
    try:
        connection.send(("begun", None))
        if item.is_finished():  # by another process, meanwhile
            return "", True
        with item.lock():  # or the log would be lost that another process writes
            pass
        log_of(item).parent.mkdir(parents=True, exist_ok=True)
        with log_of(item).open("w") as log, contextlib.redirect_stdout(log), contextlib.redirect_stderr(log):
            try:
                execute(item, begun=lambda: connection.send(("pretrained", None)))
            except Exception:
                traceback.print_exc()
                raise
        return "", True
    except BlockingIOError:
        return TAKEN, True
    except Exception as error:
        said = f"{type(error).__name__}: {error}".splitlines()[0]
        memory = isinstance(error, MemoryError) or "out of memory" in said
        return said, not (memory or "CUDA" in said)
    finally:
        gc.collect()
        torch.cuda.empty_cache()  # the others need it


class Workers:
    """`n` processes that work through tasks; each on a device of its own where there are several.

    Prints a line a run. `failed` and `left` hold what went wrong and what was not begun, with the reason.
    """

    def __init__(self, n: int, tasks: Sequence[Task], device: Device, seconds: float) -> None:
        self.n, self.queue, self.device = n, list(tasks), device
        self.end = time.monotonic() + seconds - GRACE
        self.done: list[str] = []
        self.failed: list[str] = []
        self.left: dict[str, str] = {}
        self.pretrained: set[Any] = set()
        self.ratio: dict[tuple[str, str], float] = {}  # seconds taken over estimated, by method and profile
        self.busy: dict[Connection, tuple[Any, Task, float, float]] = {}  # process, task, when begun, what estimated
        self.idle: list[tuple[Any, Connection]] = []
        visible = os.environ.get("CUDA_VISIBLE_DEVICES")
        self.devices = visible.split(",") if visible else [str(i) for i in range(torch.cuda.device_count())]
        self.started = 0
        cards = len(self.devices) * OVERLAP if torch.cuda.is_available() else 1
        self.crowd = max(1.0, n / cards)

    def run(self) -> None:
        """Work until nothing is left that can end in time, then stop what still runs: its checkpoint stays."""
        try:
            while time.monotonic() < self.end:
                while len(self.busy) < self.n and (task := self._next()):
                    self._give(task)
                if not self.busy:
                    break
                for connection in wait(list(self.busy), timeout=POLL_SECONDS):
                    self._hear(connection)
        finally:
            self._stop()
        for task in self.queue:
            name = task.item.stem
            self.left.setdefault(name, "needs a model that is not here" if task.waits else "no time left")

    def expected(self, task: Task) -> float:
        """Seconds that a task is likely to take now: estimated, and corrected by the last that was like it."""
        return self._estimated(task) * self.ratio.get(_kind(task), 1.0)

    def _estimated(self, task: Task) -> float:
        shared = ("pretrain",) if task.pretraining in self.pretrained else ()
        return task.cost.seconds(self.device, shared, self.crowd, task.done)

    def _next(self) -> Task | None:
        """The first task that can begin: it ends in time, and nobody makes what it needs."""
        making = {task.pretraining for _, task, *_ in self.busy.values()} - self.pretrained - {None}
        for task in self.queue:
            late = time.monotonic() + self.expected(task) > self.end
            if not late and task.pretraining not in making and not task.waits:
                self.queue.remove(task)
                return task
        return None

    def _give(self, task: Task) -> None:
        process, connection = self.idle.pop() if self.idle else self._start()
        self.busy[connection] = process, task, time.monotonic(), self._estimated(task)
        with contextlib.suppress(OSError):  # dead: `_hear` will tell
            connection.send(task.item)

    def _start(self) -> tuple[Any, Connection]:
        context = multiprocessing.get_context("spawn")
        here, there = context.Pipe()
        share = str(max(1, (os.cpu_count() or 1) // self.n))
        settings = {f"{of}_NUM_THREADS": share for of in ("OMP", "NUMBA", "OPENBLAS")} | os.environ
        if len(self.devices) > 1:
            settings["CUDA_VISIBLE_DEVICES"] = self.devices[self.started % len(self.devices)]
        self.started += 1
        process = context.Process(target=work, args=(there,), daemon=True)
        with patch.dict(os.environ, settings):
            process.start()
        there.close()
        return process, here

    def _hear(self, connection: Connection) -> None:
        process, task, began, estimated = self.busy[connection]
        try:
            what, said = connection.recv()
        except (EOFError, OSError):
            process.join(5)
            what, said = "ended", f"its process ended with status {process.exitcode}"
        if what == "begun":  # a start is no part of a run's seconds
            self.busy[connection] = process, task, time.monotonic(), estimated
            return
        if what == "pretrained":
            self.pretrained.add(task.pretraining)
            return
        del self.busy[connection]
        if said not in ("", TAKEN) or not process.is_alive():
            self._retire(process, connection)
        else:
            self.idle.append((process, connection))
        seconds, name = time.monotonic() - began, task.item.stem
        if said == TAKEN:
            self.left[name] = TAKEN
            return
        (self.failed if said else self.done).append(name)
        if said:
            print(f"failed: {name}: {said}\n  log: {log_of(task.item)}", flush=True)
            return
        self.pretrained.add(task.pretraining)
        self.ratio[_kind(task)] = seconds / estimated
        print(f"{name}: {told(read(task.item.runs / f'{name}.json'))}, {seconds:.0f} s in all", flush=True)

    def _retire(self, process: Any, connection: Connection) -> None:
        with contextlib.suppress(OSError):
            connection.send(None)
        connection.close()
        process.join(5)
        if process.is_alive():
            process.kill()

    def _stop(self) -> None:
        """End idle workers, and by SIGTERM those at work: after an epoch its checkpoint is whole."""
        for process, task, *_ in self.busy.values():
            process.terminate()
            self.left[task.item.stem] = "stopped at the end of the budget; goes on from its checkpoint"
        for process, connection in self.idle:
            self._retire(process, connection)
        until = time.monotonic() + GRACE - 5
        for process, *_ in self.busy.values():
            process.join(max(0.1, until - time.monotonic()))
            if process.is_alive():
                process.kill()


def _kind(task: Task) -> tuple[str, str]:
    return task.item.method, task.item.profile


def run_all(tasks: Sequence[Task], jobs: int, device: Device, seconds: float) -> bool:
    """Work through tasks in this order, `jobs` at a time, for `seconds` at most; tell what came; True: none failed."""
    workers = Workers(jobs, tasks, device, seconds)
    workers.run()
    for why in dict.fromkeys(workers.left.values()):
        names = [name for name, reason in workers.left.items() if reason == why]
        print(f"left, {why}: {len(names)}, {', '.join(names[:FEW])}{', ...' * (len(names) > FEW)}")
    print(f"{len(workers.done)} runs done, {len(workers.failed)} failed, {len(workers.left)} left", flush=True)
    return not workers.failed
