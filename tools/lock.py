"""Write requirements.lock: exact versions of everything that pyproject.toml leads to.

Run it in the environment whose versions are to be locked: `make lock`.
"""

import os
import re
import sys
import tomllib
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
LOCK = ROOT / "requirements.lock"
HEADER = """\
# Exact versions of everything the project needs. Written by `make lock`; do not edit.
# Ranges are in pyproject.toml.
"""


def declared(root: Path = ROOT) -> list[Requirement]:
    """Every requirement in pyproject.toml: the build's, the library's and all extras'."""
    project = tomllib.loads((root / "pyproject.toml").read_text())
    lines = list(project["build-system"]["requires"]) + list(project["project"]["dependencies"])
    for extra in project["project"]["optional-dependencies"].values():
        lines += extra
    return [Requirement(line) for line in lines]


def read(path: Path = LOCK) -> dict[str, str]:
    """Locked versions by canonical package name; ValueError on a line that is not exact."""
    versions = {}
    for line in path.read_text().splitlines():
        line = line.partition("#")[0].strip()
        if not line:
            continue
        found = re.fullmatch(r"([A-Za-z0-9._-]+)==([^\s;]+)( ; platform_system == \"\w+\")?", line)
        if found is None:
            raise ValueError(f"{path.name}: expected NAME==VERSION, got {line!r}; run `make lock`")
        versions[canonicalize_name(found[1])] = found[2]
    return versions


def closure(roots: list[Requirement]) -> dict[str, bool]:
    """Installed packages that `roots` lead to, by name; the value says "needed on Linux only".

    Raises importlib.metadata.PackageNotFoundError when one is not installed.
    """
    linux_only: dict[str, bool] = {}
    queue = [(requirement, False) for requirement in roots]
    expanded = set()
    while queue:
        requirement, parent_linux = queue.pop()
        name = canonicalize_name(requirement.name)
        linux = parent_linux or 'platform_system == "Linux"' in str(requirement.marker or "")
        linux_only[name] = linux_only.get(name, True) and linux
        key = (name, linux, frozenset(requirement.extras))
        if key in expanded:
            continue
        expanded.add(key)
        for line in metadata.requires(name) or []:
            child = Requirement(line)
            extras = requirement.extras or {""}
            if child.marker is None or any(child.marker.evaluate({"extra": e}) for e in extras):
                queue.append((child, linux))
    return linux_only


def main() -> int:
    """Write the lock from the running environment."""
    lines = []
    for name, linux in sorted(closure(declared()).items()):
        marker = ' ; platform_system == "Linux"' if linux else ""
        lines.append(f"{name}=={metadata.version(name)}{marker}\n")
    temporary = LOCK.with_suffix(".tmp")
    temporary.write_text(HEADER + "".join(lines))
    os.replace(temporary, LOCK)
    print(f"{LOCK.name}: {len(lines)} packages")
    return 0


if __name__ == "__main__":
    sys.exit(main())
