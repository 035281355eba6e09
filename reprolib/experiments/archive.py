"""Records, reports and logs of another machine in one archive: `make gpu` packs it there, here the book takes it.

A .tar.gz of regular files, `manifest.json` first: it names the commit, the machine and the SHA-256 of every other file.
"""

import hashlib
import io
import json
import re
import tarfile
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from reprolib.checks import check_name
from reprolib.experiments import records
from reprolib.experiments.paper import papers
from reprolib.experiments.probes import behaviours
from reprolib.files import BOOK, write_atomically

MANIFEST, FORMAT = "manifest.json", 1
ALL_BYTES = 2**30
NEAR = 3e-6  # metrics are stored to 6 decimals
# What an archive may hold: records, their logs, checkpoints of unfinished runs, reports
PLACES = {"runs": "(?:json|npz)", "logs": "log", "checkpoints": "(?:ckpt|log)"}
RECORD, LOG, CHECKPOINT = (rf"{place}/(\w+)/[\w.=-]+\.{kind}" for place, kind in PLACES.items())
REPORT = r"reports/[\w.=-]+\.(?:json|xml|log)"


def unpack(paths: Sequence[Path]) -> tuple[dict[str, Any], dict[str, bytes]]:
    """Manifest and files of an archive, or of its parts; ValueError where they do not agree, and for odd members."""
    data = b"".join(part.read_bytes() for part in sorted(paths))
    contents: dict[str, bytes] = {}
    try:
        with tarfile.open(fileobj=io.BytesIO(data), mode="r:gz") as archive:
            for member in archive:
                if member.name != MANIFEST:
                    check_member(member.name)
                if not member.isreg() or member.name in contents:
                    raise ValueError(f"{member.name} is no regular file, or there twice: not an archive of reprolib")
                if member.size + sum(map(len, contents.values())) > ALL_BYTES:
                    raise ValueError(f"the archive holds more than {ALL_BYTES / 2**30:.0f} GiB")
                contents[member.name] = archive.extractfile(member).read()
        manifest = json.loads(contents.pop(MANIFEST))
    except (tarfile.TarError, EOFError, OSError, KeyError, json.JSONDecodeError) as error:
        raise ValueError(f"{paths[0]} is not a whole archive of reprolib ({error}): name all its parts") from error
    if manifest.get("format") != FORMAT:
        raise ValueError(f"the manifest is of format {manifest.get('format')!r}, this book reads {FORMAT}")
    found = {name: hashlib.sha256(data).hexdigest() for name, data in contents.items()}
    if wrong := sorted(dict(manifest["files"].items() ^ found.items())):
        raise ValueError(f"{', '.join(wrong)}: not as the manifest says; copy the archive again")
    return manifest, contents


def take(paths: Sequence[Path], *, force: bool = False, book: Path = BOOK) -> list[str]:
    """Check an archive, put records and checkpoints into book/<paper>/runs, reports into book/gpu; say what was done.

    All is checked before anything is written: hashes, schema, behaviours that the book knows, metrics that the stored
    labels give again. Logs stay in the archive. ValueError names what is wrong, and records that are there and differ,
    unless `force`.
    """
    manifest, contents = unpack(paths)
    of_records = {name for name in contents if re.fullmatch(RECORD, name)}
    with tempfile.TemporaryDirectory(prefix="reprolib-") as scratch:
        for name in of_records:
            file = Path(scratch) / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(contents[name])
        entries = {n: _checked(Path(scratch) / n) for n in sorted(of_records) if n.endswith(".json")}
    if strays := sorted(of_records - {str(Path(n).with_suffix(end)) for n in entries for end in (".json", ".npz")}):
        raise ValueError(f"{', '.join(strays)}: no record names it")
    # in reverse an .npz comes before the .json that holds its hash
    places = {n: book / n.split("/")[1] / "runs" / Path(n).name for n in sorted(of_records, reverse=True)}
    there = {n for n, path in places.items() if path.is_file()}
    differ = sorted(n for n in there if places[n].read_bytes() != contents[n])
    if differ and not force:
        raise ValueError(f"{', '.join(differ)}: there already, and another; --force replaces them")
    kept = {n: book / "gpu" / Path(n).name for n in contents if re.fullmatch(REPORT, n) and not n.endswith(".log")}
    for name in contents:
        if found := re.fullmatch(CHECKPOINT, name):
            check_name("paper", found[1], papers())
            path = book / found[1] / "runs/checkpoints" / Path(name).name
            kept |= {name: path} if force or not path.exists() else {}  # one that is there may be further on
    for name, path in (places | kept).items():
        if name not in there or name in differ:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(path, lambda stream, name=name: stream.write(contents[name]))
    said = [f"made at commit {manifest.get('commit')} on {manifest.get('machine', {}).get('device_name')}"]
    said += [f"{name}: {records.told(e)}{' (stale)' * records.is_stale(e)}" for name, e in entries.items()]
    said += [f"{name}: {path}" for name, path in kept.items()]
    return [*said, f"{len(entries)} records, {sum(n not in there for n in entries)} of them new"]


def _checked(path: Path) -> dict[str, Any]:
    """The record of a file, if this book can stand by it."""
    entry, known = records.read(path), behaviours()
    check_name("paper", entry["paper"], papers())
    place = entry["dataset"]["name"], entry["profile"], entry["tag"], entry["random_state"]
    named = records.stem(entry["method"], *place)
    if (path.parent.name, path.stem) != (entry["paper"], named):
        raise ValueError(f"{path.parent.name}/{path.name} holds the record of {entry['paper']}/{named}")
    for name, number in entry["behaviours"].items():
        check_name(f"behaviour in {path.name}", name, known)
        check_name(f"number of behaviour {name} in {path.name}", number, [b["id"] for b in known[name]])
    again, stored = (
        {(r, m): v for r, row in e.items() for m, v in row.items()} for e in (records.rescore(entry), entry["metrics"])
    )
    if again.keys() != stored.keys() or any(abs(again[key] - stored[key]) > NEAR for key in stored):
        raise ValueError(f"{path.name}: its labels do not give its metrics again")
    return entry


def check_member(name: str) -> None:
    """ValueError for a name that no archive of ours has: another folder, a path that leads out."""
    if not any(re.fullmatch(pattern, name) for pattern in (RECORD, LOG, CHECKPOINT, REPORT)):
        raise ValueError(f"the archive holds {name!r}: records are runs/PAPER/NAME.json and .npz; nothing is taken")
