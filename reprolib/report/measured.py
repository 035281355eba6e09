"""The measured numbers as one table: a row a run and result."""

import re
from collections.abc import Collection, Iterable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import pandas as pd

from reprolib.experiments.paper import METRICS, Paper
from reprolib.experiments.records import is_stale

ABOUT = ("method", "variant", "profile", "tag", "device", "parameters")
KEYS = ["method", "variant", "dataset", "profile", "tag", "result"]
# what `reproduce` prints as a run ends: its stem, and `told` of its record
PRINTED = re.compile(r"(\w+?)-(\S+)-(smoke|cpu|paper)-(\S+)-seed(\d+): (.*); ")
SCORES = re.compile(r"(\S+) NMI ([\d.]+) ACC ([\d.]+)")
COLUMNS = [*ABOUT, "dataset", "n", "seed", "result", "seconds", "memory", "stale"]


def as_rows(entries: Iterable[Mapping[str, Any]]) -> pd.DataFrame:
    """One row a record and result, indexed by the seed: COLUMNS, then its scores ("acc", ...).

    seconds: those of the whole run; memory: its peak in MiB; stale: whether the method has changed since.
    """
    rows = []
    for entry in entries:
        run = {key: entry[key] for key in ABOUT}
        run |= {"dataset": entry["dataset"]["name"], "n": entry["dataset"]["n"]}
        run |= {"seed": entry["random_state"], "seconds": sum(entry["seconds"].values())}
        run |= {"memory": entry["peak_memory_mb"], "stale": is_stale(entry)}
        rows += [run | {"result": result} | scores for result, scores in entry["metrics"].items()]
    return pd.DataFrame(rows, index=[row["seed"] for row in rows], columns=None if rows else [*COLUMNS, *METRICS])


def by_round(
    entry: Mapping[str, Any], stages: Collection[str], *, member: int = 0, key: str = "acc"
) -> dict[int, float]:
    """The last number of each round of a record of paper 000, by round, that these stages of a member told."""
    rows = [row for row in entry["history"] if row["stage"] in stages and row["member"] == member]
    return {row["round"]: row[key] for row in rows if key in row}


@lru_cache(maxsize=8)
def measured(paper: Paper) -> pd.DataFrame:
    """Return `as_rows` of all records of a paper that cluster."""
    return as_rows(paper.select(profile=None, tag=None))


@lru_cache(maxsize=8)
def groups(paper: Paper) -> dict[tuple[str, ...], pd.DataFrame]:
    """The rows of `measured` by KEYS, in the order of the records."""
    return dict(iter(measured(paper).groupby(KEYS, sort=False)))


def printed(log: Path) -> pd.DataFrame:
    """Scores that runs printed as they ended, where no record came home: a row a run and result, indexed by the seed.

    method, dataset, profile, tag, result, and to three digits "nmi_geometric" and "acc". Other lines are left out.
    """
    rows = []
    for line in log.read_text(encoding="utf-8").splitlines():
        if match := PRINTED.match(line):
            *run, seed, told = match.groups()
            about = dict(zip(("method", "dataset", "profile", "tag"), run, strict=True)) | {"seed": int(seed)}
            for result, nmi, acc in SCORES.findall(told):
                rows.append(about | {"result": result, "nmi_geometric": float(nmi), "acc": float(acc)})
    return pd.DataFrame(rows).set_index("seed")
