"""The command line: what it prints, what it refuses, and its exit statuses."""

import subprocess
import sys
import time
from pathlib import Path

import pytest

import reprolib
from reprolib import __main__ as cli
from reprolib.bench import run as bench
from reprolib.experiments import archive
from reprolib.experiments import run as experiment
from reprolib.files import REPOSITORY


def run(capsys, *argv):
    status = cli.main(argv)
    printed = capsys.readouterr()
    return status, printed.out, printed.err


def test_doctor_says_what_is_here_and_what_will_run(capsys):
    status, out, err = run(capsys, "doctor")
    assert (status, err) == (0, "")
    for word in ("device", "torch", "numba", "data root", "digits", "jule", "smoke", "chromium", "npm"):
        assert word in out


def test_doctor_names_the_data_that_is_missing(capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("REPROLIB_DATA", str(tmp_path))
    _, out, _ = run(capsys, "doctor")
    (line,) = [line for line in out.splitlines() if line.split()[:2] == ["jule", "cpu"]]
    ready, missing = line.split("; data not here: ")
    assert "digits" in ready and "mnist-test" in missing and "usps" in missing


def test_data_list_shows_every_data_set(capsys, tmp_path):
    status, out, _ = run(capsys, "data", "list", "--root", str(tmp_path))
    assert status == 0 and str(tmp_path) in out
    rows = {line.split()[0]: line for line in out.splitlines()[1:]}
    assert {"digits", "mnist", "usps", "coil20", "orl", "stl10"} <= set(rows)
    assert "scikit-learn" in rows["digits"] and "not here" in rows["usps"]


def test_data_verify_and_fetch_of_what_is_built_in(capsys):
    status, out, _ = run(capsys, "data", "verify", "digits")
    assert status == 0 and "the arrays that the book used" in out
    status, out, _ = run(capsys, "data", "fetch", "digits")
    assert status == 0 and "built in" in out


@pytest.mark.parametrize(
    ("argv", "named"),
    [
        (["rnu"], "'run'"),
        (["data", "lits"], "'list'"),
        (["data", "verify", "mnits"], "'mnist'"),
        (["run", "jul"], "'jule'"),
        (["run", "jule", "-p", "datset=usps"], "'dataset'"),
        (["run", "jule", "-p", "dataset=uspss"], "'usps'"),
        (["run", "jule", "-p", "learnign_rate=0.1"], "'learning_rate'"),
        (["run", "jule", "--sead", "3"], "'--seeds'"),
        (["results", "jul"], "'jule'"),
        (["results", "jule", "--profile", "cpus"], "'cpu'"),
    ],
)
def test_misspelt_names_stop_with_the_nearest_and_exit_2(capsys, argv, named):
    status, out, err = run(capsys, *argv)
    assert (status, out) == (2, "")
    assert "Did you mean" in err and named in err.split("Valid:")[0]
    assert "Traceback" not in err


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ([], "Missing command"),
        (["run"], "Missing argument 'PAPER'"),
        (["doctor", "now"], "unexpected extra argument (now)"),
        (["run", "jule", "-p", "gamma"], "-p takes name=value"),
        (["run", "jule", "-p", "gamma=1", "-p", "gamma=2"], "given twice"),
        (["run", "jule", "--seeds", "0"], "at least one seed"),
        (["run", "jule", "--seeds", "many"], "not a valid integer"),
        (["run", "jule", "-p", "gamma=[1"], "not a value that YAML can read"),
    ],
)
def test_bad_arguments_exit_2(capsys, argv, message):
    status, _, err = run(capsys, *argv)
    assert status == 2 and message in err and "Traceback" not in err


def test_a_failed_run_exits_1(capsys, monkeypatch):
    def failing(*args, **kwargs):
        raise experiment.RunFailed("JULE-x: it broke\n  log: somewhere")

    monkeypatch.setattr(experiment, "run", failing)
    status, _, err = run(capsys, "run", "jule")
    assert status == 1 and "log: somewhere" in err


def test_help_is_there_before_anything_heavy_is_imported():
    code = (
        "import sys; from reprolib.__main__ import main; status = main(['--help']); "
        "print({'torch', 'sklearn', 'numba'} & set(sys.modules)); sys.exit(status)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.endswith("\nset()\n")
    for name in cli.cli.commands:
        assert f"  {name} " in done.stdout


def test_the_packages_own_names_come_at_first_use():
    code = (
        "import sys, reprolib; from reprolib import load, metrics; "
        "print(reprolib.Images is type(load('digits')), reprolib.metrics is metrics)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "True True\n"
    with pytest.raises(AttributeError, match="no attribute 'lood'"):
        reprolib.lood  # noqa: B018


def test_bench_runs_what_is_named_and_tells_the_names(capsys, monkeypatch):
    seen = []
    monkeypatch.setattr(bench, "run", lambda *given: seen.append(given))
    assert cli.main(["bench", "knn", "family", "--quick", "--json", "a.json"]) == 0
    assert cli.main(["bench"]) == 0
    assert seen == [(("knn", "family"), True, Path("a.json"), None), ((), False, None, None)]
    assert cli.main(["bench", "--help"]) == 0
    printed = capsys.readouterr().out
    assert all(name in printed for name in bench.BENCHES)


def test_a_data_set_that_is_not_here_exits_1_and_says_how_to_get_it(capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("REPROLIB_DATA", str(tmp_path / "empty"))
    argv = ["run", "jule", "-p", "dataset=usps", "-p", "profile=cpu", "-p", f"runs_dir={tmp_path}"]
    status, _, err = run(capsys, *argv)
    assert status == 1 and "data fetch usps" in err
    assert not list(tmp_path.iterdir())


def test_run_passes_typed_values_seeds_and_folder(capsys, monkeypatch):
    seen = {}

    def fake(paper, parameters, seeds, **options):
        seen.update(paper=paper, parameters=parameters, seeds=list(seeds), **options)
        return []

    monkeypatch.setattr(experiment, "run", fake)
    argv = "run jule -p weight_decay=1e-3 -p tag=1e-3 -p runs_dir=here --seeds 3 --jobs 2".split()
    assert cli.main(argv) == 0
    assert seen["parameters"] == {"weight_decay": 0.001, "tag": "1e-3"}
    assert (seen["seeds"], seen["jobs"], seen["force"]) == ([0, 1, 2], 2, False)
    assert seen["runs_dir"] == "here"


def test_a_plan_shows_what_a_run_costs_and_starts_nothing(capsys, tmp_path):
    argv = f"run dcss --profile smoke --seeds 2 -p runs_dir={tmp_path} --plan".split()
    status, out, _ = run(capsys, *argv)
    head, *rows, total = out.splitlines()
    assert status == 0 and all(name in head for name in ("here", "H100", "A100", "laptop", "memory", "disk"))
    assert [row.split()[0] for row in rows] == [f"dcss/DCSS-digits-smoke-main-seed{k}" for k in range(2)]
    assert total.startswith("2 runs")
    path = tmp_path / "list.json"
    path.write_text("[]")
    assert run(capsys, "reproduce", "--plan", "--list", str(path))[1].splitlines()[1].startswith("0 runs")
    assert [p.name for p in tmp_path.rglob("*")] == ["list.json"]


def test_profile_is_short_for_a_parameter(capsys, monkeypatch):
    seen = []
    monkeypatch.setattr(experiment, "run", lambda paper, given, *a, **o: seen.append(given) or [])
    assert cli.main(["run", "jule", "--profile", "cpu", "-p", "dataset=usps"]) == 0
    assert seen == [{"dataset": "usps", "profile": "cpu"}]
    status, _, err = run(capsys, "run", "jule", "--profile", "cpu", "-p", "profile=cpu")
    assert status == 2 and "given twice" in err


@pytest.mark.parametrize(("text", "seconds"), [("8m", 480), ("1.5h", 5400), ("90s", 90), (".5m", 30)])
def test_a_budget_has_a_unit(text, seconds):
    assert cli._seconds(text) == seconds
    with pytest.raises(ValueError, match="as in 8m, 1.5h or 90s"):
        cli._seconds(text[:-1])


def test_import_takes_an_archive_into_the_book_and_says_so(capsys, monkeypatch):
    seen = []
    monkeypatch.setattr(
        archive, "take", lambda paths, force: seen.append((paths, force)) or ["1 records, 1 of them new"]
    )
    status, out, _ = run(capsys, "import", "a.00", "a.01", "--force")
    assert (status, out) == (0, "1 records, 1 of them new\n")
    assert seen == [((Path("a.00"), Path("a.01")), True)]
    monkeypatch.undo()
    status, _, err = run(capsys, "import", __file__)
    assert status == 2 and "not a whole archive of reprolib" in err


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 0.001),
        ("-1E5", -1e5),
        (".5e1", 5.0),
        ("3", 3),
        ("0.5", 0.5),
        ("true", True),
        ("null", None),
        ("released", "released"),
        ("2026-01-01", "2026-01-01"),
        ("folder:/a/b", "folder:/a/b"),
        ("1e-3x", "1e-3x"),
    ],
)
def test_values_are_read_as_yaml_with_floats_as_people_write_them(text, value):
    read = cli.parse_value(text)
    assert read == value and type(read) is type(value)


def test_results_prints_a_table(capsys):
    status, out, _ = run(capsys, "results", "jule")
    assert status == 0 and "Records" in out


def test_the_module_is_a_program(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "reprolib", "run", "jule", "-p", "profil=cpu"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2 and "Did you mean 'profile'" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_stopped_command_ends_its_notebook_and_says_how_to_go_on(tmp_path):
    argv = ["run", "jule", "-p", "n_epochs=1000", "-p", "tag=long", "-p", f"runs_dir={tmp_path}"]
    process = subprocess.Popen(
        [sys.executable, "-m", "reprolib", *argv], cwd=REPOSITORY, stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 120
    while not list(tmp_path.glob("checkpoints/*.ckpt")) and time.monotonic() < deadline:
        time.sleep(0.2)
    process.terminate()
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130 and "goes on from the checkpoint" in err
    (checkpoint,) = tmp_path.glob("checkpoints/*.ckpt")
    time.sleep(1)  # an epoch takes less: a notebook still alive would write again
    written = checkpoint.stat().st_mtime_ns
    time.sleep(2)
    assert checkpoint.stat().st_mtime_ns == written
