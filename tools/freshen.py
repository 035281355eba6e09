"""Drop the book's cached executions when something that pages import or read has changed.

jupyter-cache looks at a page's cells only: after a change in `reprolib` or in a run record it
would serve the old outputs. `make book` runs this first.
"""

import hashlib
import os
import shutil
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
#: What an executed page can depend on beside its own cells
PATTERNS = ("reprolib/**/*.py", "book/**/*.yml", "book/**/*.json", "book/**/*.npz", "requirements.lock")
#: Written by runs, never committed
IGNORED = {"executed", "checkpoints"}


def digest(root: Path = ROOT) -> str:
    """sha256 over the names and bytes of every file that matches PATTERNS."""
    found = {path for pattern in PATTERNS for path in root.glob(pattern) if path.is_file()}
    total = hashlib.sha256()
    for path in sorted(found):
        name = path.relative_to(root)
        if IGNORED.isdisjoint(name.parts):
            content = hashlib.sha256(path.read_bytes()).hexdigest()
            total.update(f"{name.as_posix()} {content}\n".encode())
    return total.hexdigest()


def freshen(root: Path = ROOT) -> bool:
    """Remove the cached executions if their stamp is not today's digest; True if it did."""
    build = root / "_build"
    stamp = build / "sources.sha256"
    now = digest(root)
    if stamp.is_file() and stamp.read_text().strip() == now:
        return False
    # First the cache, then the stamp: killed in between, the next call drops an empty cache
    shutil.rmtree(build / ".jupyter_cache", ignore_errors=True)
    build.mkdir(exist_ok=True)
    temporary = stamp.with_suffix(".tmp")
    temporary.write_text(now + "\n")
    os.replace(temporary, stamp)
    return True


if __name__ == "__main__":
    print("sources changed: every page runs again" if freshen() else "sources unchanged")
    sys.exit(0)
