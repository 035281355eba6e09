"""pyproject.toml, requirements.lock, environment.yml, Makefile, README and .ci/run agree."""

import ast
import re
import subprocess
import sys
import tomllib
from importlib import metadata

import pytest
import yaml
from packaging.utils import canonicalize_name

from tools import freshen, lock, notebooks

ROOT = lock.ROOT
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def tracked() -> list[str]:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True)
    return [name for name in listed.stdout.split("\0") if name and (ROOT / name).is_file()]


@pytest.mark.parametrize("requirement", lock.declared(), ids=str)
def test_lock_holds_every_dependency_within_its_range(requirement):
    version = lock.read().get(canonicalize_name(requirement.name))
    assert version is not None, f"{requirement.name} is not in the lock: make lock"
    assert requirement.specifier.contains(version, prereleases=True), f"locked {version}"


def test_lock_is_complete():
    missing = set(lock.closure(lock.declared())) - set(lock.read())
    assert not missing, "needed by a locked package, not locked: make lock"


def test_lock_refuses_a_range(tmp_path):
    path = tmp_path / "requirements.lock"
    path.write_text("numpy>=2\n")
    with pytest.raises(ValueError, match="expected NAME==VERSION"):
        lock.read(path)


def test_environment_installs_the_project_through_the_lock():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    pip = [entry for entry in environment["dependencies"] if isinstance(entry, dict)]
    assert pip == [{"pip": ["-r requirements.lock", "-e ."]}]
    named = [entry for entry in environment["dependencies"] if isinstance(entry, str)]
    assert {re.split(r"[<>=]", entry)[0] for entry in named} == {"python", "pip"}


def imported(source: str) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names.add(node.module.partition(".")[0])
    return names


def test_everything_imported_is_declared():
    declared = {canonicalize_name(requirement.name) for requirement in lock.declared()}
    owners = metadata.packages_distributions()
    sources = {name: (ROOT / name).read_text() for name in tracked() if name.endswith(".py")}
    for page in notebooks.pages():
        code = [cell for cell in notebooks.convert(page).cells if cell.cell_type == "code"]
        lines = "\n".join(cell.source for cell in code).splitlines()
        sources[str(page)] = "\n".join(line for line in lines if line[:1] not in "%!")
    # the bench leaves out peers that are absent; triton comes with torch where there is CUDA
    local = {"reprolib", "tools", "tests", "faiss", "fastcluster", "clustpy", "kornia", "triton"}
    local |= {path.stem for path in (ROOT / "tests").rglob("*.py")}
    for name, source in sources.items():
        outside = imported(source) - set(sys.stdlib_module_names) - local
        for module in outside:
            packages = {canonicalize_name(owner) for owner in owners.get(module, [])}
            assert packages & declared, f"{name} imports {module}: not in pyproject.toml"


def test_readme_names_the_commands_that_exist():
    readme = (ROOT / "README.md").read_text()
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), flags=re.M))
    named = set(re.findall(r"(?:^|`)make ([a-z-]+)", readme, flags=re.M))
    assert {"book", "test"} <= named <= targets
    ci = re.findall(r"^make ([a-z-]+)", (ROOT / ".ci" / "run").read_text(), flags=re.M)
    assert ci.index("test") < ci.index("book") < ci.index("site-test")


def test_console_script_is_the_module():
    assert PROJECT["project"]["scripts"] == {"reprolib": "reprolib.__main__:main"}


def test_no_registry_host_in_any_tracked_file():
    # Put together from pieces: this file is tracked too
    hosts = [
        ("pypi", "org"),
        ("pythonhosted", "org"),
        ("registry.npmjs", "org"),
        ("conda.anaconda", "org"),
        ("deb.debian", "org"),
        ("download.pytorch", "org"),
    ]
    pattern = re.compile("|".join(re.escape(f"{name}.{end}") for name, end in hosts))
    option = re.compile("--" + r"(extra-)?index-url|--" + "find-links")
    for name in tracked():
        if name.endswith((".png", ".npz", ".ico")):
            continue
        text = (ROOT / name).read_text()
        assert not pattern.search(text), f"{name} names a package registry"
        assert not option.search(text), f"{name} names a package index"


def test_every_page_is_in_the_table_of_contents():
    toc = (ROOT / "_toc.yml").read_text()
    listed = set(re.findall(r"(?:file|root): ([^\s,]+)", toc))
    written = {path.relative_to(ROOT).with_suffix("").as_posix() for path in (ROOT / "book").rglob("*.md")}
    assert written == listed


def test_a_changed_source_drops_the_cached_executions(tmp_path):
    module = tmp_path / "reprolib" / "module.py"
    module.parent.mkdir()
    module.write_text("x = 1\n")
    cache = tmp_path / "_build" / ".jupyter_cache"

    def fill():
        cache.mkdir(parents=True)
        (cache / "global.db").touch()

    fill()
    assert freshen.freshen(tmp_path)
    assert not cache.exists()
    fill()
    assert not freshen.freshen(tmp_path)
    assert cache.exists(), "nothing changed: the cache must stay"
    module.write_text("x = 2\n")
    assert freshen.freshen(tmp_path)
    assert not cache.exists()
    fill()
    record = tmp_path / "book" / "jule" / "runs" / "a.json"
    record.parent.mkdir(parents=True)
    record.write_text("{}")
    assert freshen.freshen(tmp_path), "a new run record must reach the pages"
    executed = record.parent / "executed" / "b.json"
    executed.parent.mkdir()
    executed.write_text("{}")
    assert not freshen.freshen(tmp_path), "a run's scratch files are no source of a page"
