"""One run in a plain Python process: what `run.md` does, where jupyter is not installed or too slow to start."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from reprolib.experiments.plan import Plan, plan
from reprolib.training.monitor import Report


def execute(item: Plan, begun: Callable[[], Any] | None = None) -> Path:
    """Fit, score and record a plan; the record says `"executed": "script"`. Return its path.

    begun: called at each report; by the first a method of the family has left its pretraining for the others.
    """
    images = item.images()
    log, model = item.monitor(images), item.estimator()

    def monitor(report: Report) -> None:
        log(report)
        if begun is not None:
            begun()

    seconds = item.fit(model, images, monitor)
    return item.record(model, images, log, seconds, executed="script")


if __name__ == "__main__":
    paper, given = sys.argv[1:]
    print(f"written: {execute(plan(paper, yaml.safe_load(given))).name}")
