"""Behaviours: what each method does, numbered, so that a record can say which one made it.

`book/probes.yml` lists the behaviours of each method and variant, and of what extracts features, the last one
today's. A record names those that made it and is stale when one is no longer the last. A behaviour is a `plan`,
exact facts, and `numbers`, known to a tolerance: a refactor ages nothing. `traces.compute` asks today's code.
"""

import math
from collections.abc import Iterable, Iterator, Mapping
from itertools import takewhile
from typing import Any

from reprolib.checks import check_name
from reprolib.experiments.machine import commit
from reprolib.files import BOOK, as_yaml, load_yaml, write_atomically

PROBES = BOOK / "probes.yml"
# what processors and numbers of threads differ by in the first steps, and less than a change of method
TOLERANCE, HALF_TOLERANCE = 2e-3, 5e-2
NOTHING = 1e-9  # next to any number of a behaviour


def behaviours() -> dict[str, list[dict[str, Any]]]:
    """Read book/probes.yml: the behaviours of each method and variant, the oldest first."""
    return load_yaml(PROBES)


def latest(*names: str) -> dict[str, int]:
    """Number of today's behaviour by name, as in {"JULE/paper": 1}. Raises ValueError for unknown ones."""
    known = behaviours()
    for name in names:
        check_name("behaviour", name, known)
    return {name: known[name][-1]["id"] for name in names}


def is_stale(entry: Mapping[str, Any]) -> bool:
    """Tell whether a behaviour that made a record is no longer today's."""
    known = behaviours()
    return any(name not in known or known[name][-1]["id"] != number for name, number in entry["behaviours"].items())


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Name what differs between two behaviours, with both values; empty where they are the same.

    Facts of `plan` are compared exactly, `numbers` up to TOLERANCE of the larger one, whole ones exactly; those of
    names that begin with bfloat16 up to HALF_TOLERANCE.
    """
    found = []
    for kind in ("plan", "numbers"):
        old, new = (dict(_leaves(side.get(kind, {}))) for side in (before, now))
        for name in dict.fromkeys([*old, *new]):
            was, is_now = (side.get(name, "nothing") for side in (old, new))
            near = kind == "numbers" and isinstance(was, float) and isinstance(is_now, float)
            tolerance = HALF_TOLERANCE if name.startswith("bfloat16") else TOLERANCE
            if not (math.isclose(was, is_now, rel_tol=tolerance, abs_tol=NOTHING) if near else was == is_now):
                found.append(f"{name}: {was} before, {is_now} now")
    return found


def advice(name: str, found: Iterable[str]) -> str:
    """What changed in a behaviour, and what to do."""
    lines = [f"{name} does not behave as its records were made:", *found]
    lines += ["a mistake: mend the code. Meant: its records age with"]
    return "\n  ".join([*lines, f'python -m reprolib probe accept {name} --why "..."'])


def report_changes() -> int:
    """Print which behaviours are no longer those of book/probes.yml; return how many."""
    from reprolib.experiments import traces

    stored, today, changed = behaviours(), traces.known(), 0
    names = sorted({*stored, *today}, key=str.lower)
    for name in names:
        if name not in today:
            found = ["the code no longer has it: delete it, and its records"]
        elif name not in stored:
            found = ["it is not in book/probes.yml"]
        else:
            found = differences(stored[name][-1], traces.compute(name))
        if found:
            changed += 1
            print(advice(name, found))
    print(f"{changed} of {len(names)} behaviours changed")
    return changed


def accept(name: str, why: str) -> dict[str, Any]:
    """Append today's behaviour of a method to book/probes.yml, so that its records age; return the entry.

    The comment at its head stays. ValueError for an unknown name, without a reason, and where nothing has changed.
    """
    from reprolib.experiments import traces

    check_name("behaviour", name, traces.known())
    if not why.strip():
        raise ValueError('say why the behaviour changed: --why "..."')
    today, past = traces.compute(name), behaviours().get(name, [])
    if past and not differences(past[-1], today):
        raise ValueError(f"{name} behaves as before: there is nothing to accept")
    number = past[-1]["id"] + 1 if past else 1
    entry = {"id": number, "since": here(), "why": " ".join(why.split())} | today
    head = takewhile(lambda line: line.startswith("#"), PROBES.read_text(encoding="utf-8").splitlines(keepends=True))
    text = "".join(head) + as_yaml(behaviours() | {name: [*past, entry]})
    write_atomically(PROBES, lambda stream: stream.write(text.encode()))
    return entry


def here() -> str:
    """Where the code stands: the commit, with a + where the package differs from it."""
    head, dirty = commit()
    return f"{(head or 'unknown')[:7]}{'+' if dirty else ''}"


def _leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Names and values of what a behaviour holds, at any depth."""
    if isinstance(value, Mapping):
        for key, part in value.items():
            yield from _leaves(part, f"{path}, {key}" if path else str(key))
    elif isinstance(value, list | tuple):
        for i, part in enumerate(value):
            yield from _leaves(part, f"{path}[{i}]")
    else:
        yield path, value
