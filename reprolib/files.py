"""Files that are whole or not there, locks, YAML read once and written, and where the repository is."""

import fcntl
import hashlib
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO

import yaml

REPOSITORY = Path(__file__).resolve().parents[1]  # of the book and its library
BOOK = REPOSITORY / "book"


def write_atomically(path: Path, write: Callable[[BinaryIO], Any]) -> None:
    """Call write(stream) on a temporary file in the same folder, then rename it onto path."""
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as stream:
            write(stream)
            stream.flush()
            os.fsync(stream.fileno())
        os.chmod(temporary, 0o644)  # mkstemp's 0600 would hide a shared data folder from a class
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


@contextmanager
def locked(path: Path, what: str) -> Iterator[None]:
    """Hold a lock file for a block, and remove it; BlockingIOError, naming `what`, where another process holds it.

    The kernel lets go of the lock when its process ends, however it ends: a lock file that was left locks nothing.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    while True:
        with open(path, "a+", encoding="utf-8") as stream:
            try:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                stream.seek(0)
                said = f"process {stream.read()} is at {what}: wait until it has ended, or end it."
                raise BlockingIOError(said) from None
            except OSError:  # a file system without locks
                pass
            # the one before may have removed it between open and lock: then others lock another file
            if os.fstat(stream.fileno()).st_nlink:
                stream.truncate(0)
                print(os.getpid(), end="", file=stream, flush=True)
                try:
                    yield
                finally:
                    path.unlink(missing_ok=True)
                return


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file's bytes, in hexadecimal."""
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def load_yaml(path: Path) -> Any:
    """Read a YAML file, once while it stays as it is: the result is shared; ValueError names what does not parse."""
    try:
        return _read_yaml(path, path.stat().st_mtime_ns)
    except yaml.YAMLError as error:
        raise ValueError(f"{path} is not valid YAML: {error}") from error


def as_yaml(value: Any) -> str:
    """Write YAML: what holds only scalars in one line, the rest one key a line, in the order given."""
    return yaml.safe_dump(value, default_flow_style=None, sort_keys=False, allow_unicode=True, width=10**6)


@lru_cache(maxsize=32)
def _read_yaml(path: Path, mtime_ns: int) -> Any:
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    return yaml.load(path.read_text(encoding="utf-8"), Loader=loader)
