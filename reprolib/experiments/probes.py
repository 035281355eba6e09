"""Behaviours: what each method does, numbered, so that a record can say which one made it.

`book/probes.yml` lists for each method and variant (and for what extracts features) its behaviours, the
last one today's. A record names those that made it; it is stale when one of them is no longer the last.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml

from reprolib.checks import unknown_name

REPOSITORY = Path(__file__).resolve().parents[2]
BOOK = REPOSITORY / "book"
PROBES = BOOK / "probes.yml"
LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def behaviours() -> dict[str, list[dict[str, Any]]]:
    """Read book/probes.yml: the behaviours of each method and variant, the oldest first."""
    return _read(PROBES, PROBES.stat().st_mtime_ns)


def latest(*names: str) -> dict[str, int]:
    """Number of today's behaviour by name, as in {"JULE/paper": 1}. Raises ValueError for unknown ones."""
    known = behaviours()
    for name in names:
        if name not in known:
            raise unknown_name("behaviour", name, known)
    return {name: known[name][-1]["id"] for name in names}


def is_stale(entry: Mapping[str, Any]) -> bool:
    """Tell whether a behaviour that made a record is no longer today's."""
    known = behaviours()
    return any(
        name not in known or known[name][-1]["id"] != number
        for name, number in entry["behaviours"].items()
    )


@lru_cache(maxsize=4)
def _read(path: Path, mtime_ns: int) -> dict[str, list[dict[str, Any]]]:
    return yaml.load(path.read_text(encoding="utf-8"), Loader=LOADER)
