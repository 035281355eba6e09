"""Profiles, plans and the papermill driver, on digits in the smoke profile."""

import ast
import json
import shutil
import subprocess
import sys
import time

import jupytext
import numpy as np
import pytest
import yaml

from reprolib.data.catalogue import TABLE
from reprolib.data.made import split_rate
from reprolib.experiments import paper as profiles
from reprolib.experiments import records, run
from reprolib.experiments.plan import SETTINGS
from reprolib.files import REPOSITORY

PAGE = REPOSITORY / "book/jule/run.md"
PAPERS = profiles.papers()


@pytest.fixture(scope="module")
def run_once(tmp_path_factory):
    """One uninterrupted run of the page by papermill: (folder, path of its record)."""
    folder = tmp_path_factory.mktemp("runs")
    (path,) = run.run("jule", {}, [0], runs_dir=folder)
    return folder, path


def test_papermill_runs_the_page_and_leaves_a_record(run_once):
    folder, path = run_once
    entry = records.read(path)
    assert path == folder / "JULE-digits-smoke-main-seed0.json"
    assert records.rescore(entry) == entry["metrics"]
    assert set(entry["metrics"]) == {"SF", "RC"}
    counts = [stage["n_clusters"] for stage in entry["history"]]
    assert counts == sorted(counts, reverse=True) and counts[-1] == 10
    # the stage before the result is the result itself
    assert entry["history"][-1]["acc"] == pytest.approx(entry["metrics"]["SF"]["acc"], abs=1e-6)
    assert entry["parameters"]["n_epochs"] == 2 and entry["parameters"]["gamma"] == 1.0
    arrays = records.load_arrays(entry)
    for stage in entry["history"]:
        assert arrays[f"pca_{stage['period']}"].shape == (1797, 3)
        assert len(np.unique(arrays[f"clusters_{stage['period']}"])) == stage["n_clusters"]
    assert path.with_suffix(".npz").stat().st_size < 60_000


def test_the_executed_notebook_does_not_hold_its_own_source_again(run_once):
    folder, _ = run_once
    executed = json.loads((folder / "executed/JULE-digits-smoke-main-seed0.ipynb").read_text())
    assert len(json.dumps(executed["metadata"])) < 4000
    assert executed["metadata"]["papermill"]["parameters"]["runs_dir"] == str(folder)
    assert not list((folder / "checkpoints").iterdir()), "a finished run keeps no checkpoint"


def test_a_finished_run_is_skipped_and_force_runs_it(run_once, monkeypatch):
    folder, path = run_once
    written = path.stat().st_mtime_ns
    assert run.run("jule", {}, [0], runs_dir=folder) == [path]
    assert path.stat().st_mtime_ns == written
    started = []
    monkeypatch.setattr(run, "_execute", lambda w, *a: started.extend(w) or [])
    run.run("jule", {}, [0], runs_dir=folder, force=True)
    run.run("jule", {}, [0, 1], runs_dir=folder)
    assert [p.random_state for p in started] == [0, 1]


@pytest.mark.parametrize("damage", ["parameters", "behaviours", "npz"])
def test_a_record_that_does_not_answer_the_plan_is_no_finished_run(run_once, tmp_path, damage):
    folder, path = run_once
    for suffix in (".json", ".npz"):
        (tmp_path / path.name).with_suffix(suffix).write_bytes(path.with_suffix(suffix).read_bytes())
    plan = run.plan("jule", {"runs_dir": str(tmp_path)})
    assert plan.is_finished()
    entry = json.loads((tmp_path / path.name).read_text())
    if damage == "parameters":
        entry["parameters"]["n_epochs"] = 3
    elif damage == "behaviours":
        entry["behaviours"]["JULE/paper"] = 0
    else:
        (tmp_path / path.name).with_suffix(".npz").write_bytes(b"PK")
    (tmp_path / path.name).write_text(json.dumps(entry))
    assert not plan.is_finished()
    # stale is not failed: only the other two are no record of this run
    assert (plan.finished_record() is not None) == (damage == "behaviours")


def test_a_killed_run_goes_on_from_its_checkpoint_and_ends_the_same(run_once, tmp_path):
    _, whole = run_once
    plan = run.plan("jule", {"runs_dir": str(tmp_path)})
    images = plan.images()
    log = plan.monitor(images)

    def killed(stage):
        log(stage)
        if stage.period == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        plan.estimator().fit(images, monitor=killed, checkpoint=plan.checkpoint)
    assert plan.checkpoint.exists()
    shutil.copytree(tmp_path / "checkpoints", tmp_path / "again" / "checkpoints")
    assert not plan.is_finished()
    (path,) = run.run("jule", {}, [0], runs_dir=tmp_path)
    resumed, entry = records.read(path), records.read(whole)
    assert [s["period"] for s in resumed["history"]] == [s["period"] for s in entry["history"]]
    assert resumed["metrics"] == entry["metrics"]
    for name in ("SF", "RC", "pca_0", "clusters_1"):
        np.testing.assert_array_equal(records.load_arrays(resumed)[name], records.load_arrays(entry)[name])
    # the seconds of the killed run count
    plan = run.plan("jule", {"runs_dir": str(tmp_path / "again")})
    began = time.perf_counter()
    assert plan.fit(plan.estimator(), images, log)["fit"] > time.perf_counter() - began


def test_the_page_runs_the_same_with_jupytext_and_papermill_alone(tmp_path):
    commands = (
        f"'{sys.executable}' -m jupytext --to ipynb -o - book/jule/run.md",
        f"'{sys.executable}' -m papermill - '{tmp_path}/out.ipynb' -k python3 -p method ACGDL -p runs_dir '{tmp_path}'",
    )
    done = subprocess.run(" | ".join(commands), shell=True, cwd=REPOSITORY, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    entry = records.read(tmp_path / "ACGDL-digits-smoke-main-seed0.json")
    plan = run.plan("jule", {"method": "ACGDL", "runs_dir": str(tmp_path)})
    assert plan.is_finished()
    labels = plan.estimator().fit(plan.images()).labels_
    np.testing.assert_array_equal(records.load_arrays(entry)["labels"], labels)


def test_a_page_that_fails_is_reported_with_its_log(tmp_path):
    # more clusters than initial clusters: known only once the method runs
    asked = {"n_clusters": 1700, "tag": "too-many"}
    with pytest.raises(run.RunFailed, match="(?s)n_clusters=1700.*log: .*too-many"):
        run.run("jule", asked, [0], runs_dir=tmp_path)
    assert not list(tmp_path.glob("*.json"))


@pytest.mark.parametrize(
    ("asked", "error", "message"),
    [
        ({"datset": "usps"}, ValueError, "Did you mean 'dataset'"),
        ({"dataset": "digit"}, ValueError, "Did you mean 'digits'"),
        ({"dataset": "usps"}, ValueError, "add -p profile=cpu"),
        ({"profile": "smok"}, ValueError, "Did you mean 'smoke'"),
        ({"method": "KMean"}, ValueError, "Did you mean 'KMeans'"),
        ({"variant": "relased", "tag": "x"}, ValueError, "Did you mean 'released'"),
        ({"variant": "released"}, ValueError, "-p tag=variant-released"),
        ({"gamma": 2.0}, ValueError, "-p tag=gamma-2.0"),
        ({"method": "ACGDL", "gamma": 1.0, "tag": "x"}, ValueError, "parameter of ACGDL 'gamma'"),
        ({"n_epochs": "many", "tag": "x"}, TypeError, "n_epochs of JULE must be int"),
        ({"n_epochs": True, "tag": "x"}, TypeError, "n_epochs of JULE must be int"),
        ({"gamma": "2", "tag": "x"}, TypeError, "gamma of JULE must be float"),
        ({"negatives": "farest", "tag": "x"}, ValueError, "unknown negatives 'farest'"),
        ({"n_clusters": 0, "tag": "x"}, ValueError, "n_clusters must be at least 1"),
        ({"tag": 3}, TypeError, "tag must be text"),
        ({"random_state": 1}, ValueError, "set by the seeds"),
        ({"features": "resnet15"}, ValueError, "Did you mean 'resnet1"),
        ({"features": "resnet50"}, ValueError, "JULE needs images"),
        ({"features": 3}, TypeError, "features must be text or None"),
        ({"method": "KMeans", "features": "resnet50"}, ValueError, "-p tag=features-resnet50"),
        ({"dataset": "folder:/nowhere"}, ValueError, "add -p n_clusters"),
    ],
)
def test_bad_parameters_stop_before_anything_runs(tmp_path, asked, error, message):
    with pytest.raises(error, match=message):
        run.run("jule", asked, [0], runs_dir=tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_parameter_that_papermill_would_only_warn_of_stops_the_page():
    page = SETTINGS | {"parameters": {"gamma": 2.0}, "run": run, "In": [], "Out": {}, "_": 3}
    assert run.given(page) == SETTINGS | {"gamma": 2.0}
    with pytest.raises(ValueError, match="Did you mean 'learning_rate'"):
        run.plan("jule", run.given(page | {"learnign_rate": 0.1}))
    with pytest.raises(ValueError, match="Did you mean 'learning_rate'"):
        run.plan("jule", run.given(page | {"parameters": {"learnign_rate": 0.1}}))
    with pytest.raises(ValueError, match="Did you mean 'dataset'"):
        run.plan("jule", run.given(page | {"datset": "usps"}))
    with pytest.raises(ValueError, match="gamma stands in `parameters` and beside it"):
        run.given(page | {"gamma": 1.0})
    with pytest.raises(TypeError, match="parameters must be a dict"):
        run.given(page | {"parameters": "gamma=2"})


@pytest.mark.parametrize("paper", PAPERS)
def test_the_run_pages_are_one_text_and_their_parameters_cell_is_the_settings(paper):
    own = profiles.methods(paper)[0]
    text = (PAGE.parents[1] / paper / "run.md").read_text()
    named = [f"run of {own},", f'method = "{own}"', f"run {paper} ", f"book/{paper}/run"]
    named.append(f'run.plan("{paper}"')
    for line in named:
        assert line in text
        text = text.replace(line, line.replace(own, "JULE").replace(paper, "jule"))
    assert text == PAGE.read_text()
    (cell,) = [c for c in jupytext.read(PAGE).cells if "parameters" in c.metadata.get("tags", ())]
    given = dict(line.split(" = ") for line in cell.source.splitlines())
    found = {name: ast.literal_eval(value) for name, value in given.items()}
    assert found == SETTINGS | {"method": "JULE", "parameters": {}}


def test_no_hyper_parameter_is_called_like_a_setting():
    for method in profiles.estimators():
        assert not {*SETTINGS, "parameters"} & set(profiles.signature(method))


def test_every_method_belongs_to_a_paper():
    assert {m for paper in PAPERS for m in profiles.methods(paper)} == set(profiles.estimators())


@pytest.mark.parametrize("paper", PAPERS)
def test_every_entry_of_every_profile_resolves_and_names_a_known_data_set(paper):
    from reprolib.data.load import available

    known = {row["name"] for row in available()}
    known |= {f"{name}-{part}" for name, d in TABLE.items() if d.n_first for part in d.parts}
    declared = profiles.profiles(paper)
    for profile, entries in declared["profiles"].items():
        for dataset in entries:
            assert split_rate(dataset)[0] in known
            for method in [declared["method"], *declared["baselines"]]:
                parameters = profiles.resolve(paper, dataset, profile, method=method)
                estimator = profiles.estimator_class(method)(**parameters)
                assert estimator.get_params()["n_clusters"] == entries[dataset]["n_clusters"]


def test_the_papers_table_2_is_what_a_cpu_run_uses():
    usps = profiles.resolve("jule", "usps", "cpu")
    table_2 = dict(n_neighbors=20, bandwidth=1.0, n_neighbor_clusters=5, local_weight=1.0)
    assert usps == usps | table_2 | dict(unrolling_rate=0.9)
    # Table 2's gamma belongs to equation 11 as printed; the default reading has no weight
    assert usps["gamma"] == 1.0
    assert profiles.resolve("jule", "usps", "cpu", variant="printed")["gamma"] == 2.0
    assert profiles.resolve("jule", "umist", "cpu")["unrolling_rate"] == 0.2


def test_a_baseline_takes_nothing_of_the_papers_method():
    orl = profiles.resolve("jule", "orl", "cpu", method="ACGDL")
    assert orl["local_weight"] == 0.0 and orl["n_clusters"] == 40
    assert profiles.resolve("jule", "orl", "cpu", method="ACZell")["bandwidth"] == 0.95


def test_variants_set_their_values_and_overrides_win():
    released = profiles.resolve("jule", "usps", "cpu", variant="released")
    assert (released["gamma"], released["linkage_mode"]) == (1.0, "released")
    mixed = profiles.resolve("jule", "usps", "cpu", {"gamma": 2}, variant="released")
    assert mixed == released | {"gamma": 2.0}
    assert isinstance(mixed["gamma"], float)


def test_checkpoints_differ_where_the_run_does_and_not_by_device(tmp_path):
    base = {"runs_dir": str(tmp_path), "tag": "x"}
    usual = run.plan("jule", base).checkpoint
    assert run.plan("jule", base | {"device": "cpu", "verbose": True}).checkpoint == usual
    assert run.plan("jule", base | {"margin": 0.1}).checkpoint != usual
    assert run.plan("jule", base | {"random_state": 1}).checkpoint != usual


def test_a_smoke_page_writes_outside_the_book_and_other_profiles_into_it():
    assert not run.plan("jule", {}).runs.is_relative_to(REPOSITORY)
    assert run.plan("jule", {"dataset": "usps", "profile": "cpu"}).runs == PAGE.parent / "runs"


def test_parameters_reach_papermill_with_their_types():
    # YAML 1.1 reads 1e-05 as text; safe_dump writes what safe_load reads back
    sent = {"weight_decay": 1e-5, "tag": "1e-5", "verbose": True, "gamma": None}
    assert yaml.safe_load(yaml.safe_dump(sent)) == sent
