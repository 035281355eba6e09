"""The monitor of DCSS and what it keeps for the figures."""

import numpy as np
import pytest

from reprolib import load, metrics
from reprolib.experiments import records, run
from reprolib.methods.autoencoder import Stage
from reprolib.training import phase_log
from reprolib.training.phase_log import PhaseLog


@pytest.fixture(scope="module")
def smoke_record(tmp_path_factory):
    """The record of one smoke run of the page by papermill."""
    folder = tmp_path_factory.mktemp("runs")
    (path,) = run.run("dcss", {}, [0], runs_dir=folder, progress=False)
    return records.read(path)


def literal_isolated(q, similarity):
    count = 0
    for i, one in enumerate(q):
        count += all(float(one @ other) <= similarity for j, other in enumerate(q) if j != i)
    return count


@pytest.mark.parametrize("n", [1, 2, 37])
def test_isolated_samples_are_counted_as_by_the_definition(n, monkeypatch):
    monkeypatch.setattr(phase_log, "BLOCK_ROWS", 16)
    rng = np.random.default_rng(n)
    q = rng.dirichlet([0.1] * 5, n).astype(np.float32)
    assert phase_log.isolated(q, 0.8) == literal_isolated(q, 0.8)
    assert phase_log.isolated(np.repeat(np.eye(5, dtype=np.float32), 2, axis=0), 0.8) == 0


def test_a_log_scores_stages_and_keeps_their_spaces():
    rng = np.random.default_rng(0)
    y = np.arange(2500) % 4
    log = PhaseLog(y, figure=True)
    u, q = rng.normal(size=(2500, 3)).astype(np.float32), np.eye(4, dtype=np.float32)[y]
    log(Stage("pretrain", 0, 4, rng.integers(0, 4, 2500), u))
    log(Stage("phase 1", 5, 4, y, u))
    log(Stage("phase 2", 6, 4, y, u, q))
    assert [row["stage"] for row in log.rows] == ["pretrain", "phase 1", "phase 2"]
    assert log.rows[1]["acc"] == 1.0 and "isolated" not in log.rows[1]
    assert log.rows[2]["isolated"] == 0
    assert log.arrays["u_phase 1"].shape == (2000, 3) and log.arrays["q_points"].shape == (2000, 4)
    assert log.arrays["q_max"].shape == (2500,)


def test_a_log_that_is_read_back_has_every_field(tmp_path):
    log = PhaseLog(None, path=tmp_path / "a.stages")
    log.similarity = 1.0
    log(Stage("phase 2", 1, 4, np.arange(4), np.eye(4), np.eye(4, dtype=np.float32)))
    again = PhaseLog(None, path=tmp_path / "a.stages")
    assert (
        again.rows
        == log.rows
        == [{"period": 1, "n_clusters": 4, "stage": "phase 2", "isolated": 4}]
    )


def test_epochs_and_reports_are_joined_by_period():
    history = [{"stage": "pretrain", "epoch": e, "loss": 1.0, "seconds": 2.0} for e in range(3)]
    history += [{"stage": "phase 1", "epoch": e, "loss": 1 / 3, "seconds": 0.5} for e in range(2)]
    log = PhaseLog(None)
    log.rows = [
        {"period": p, "n_clusters": 4, "stage": s} for p, s in ((0, "pretrain"), (2, "phase 1"))
    ]
    rows = log.epochs(history)
    assert [row.get("period") for row in rows] == [None, None, 0, None, 2]
    assert rows[3]["loss"] == 0.333333
    assert phase_log.seconds_by_stage(history) == {"pretrain": 6.0, "phase 1": 1.0}


def test_the_page_leaves_a_record_of_every_phase(smoke_record):
    assert set(smoke_record["metrics"]) == {"ae", "u", "q"}
    assert records.rescore(smoke_record) == smoke_record["metrics"]
    stages = [row["stage"] for row in smoke_record["stages"]]
    settings = smoke_record["parameters"]
    assert stages.count("pretrain") == settings["pretrain_epochs"]
    assert stages.count("phase 2") == settings["phase2_epochs"]
    last = smoke_record["stages"][-1]
    assert last["acc"] == pytest.approx(smoke_record["metrics"]["q"]["acc"], abs=1e-6)
    stored = records.load_arrays(smoke_record)
    images = load("digits", size=16, subset=300)
    np.testing.assert_array_equal(stored["y"], images.labels)
    assert metrics.accuracy(stored["y"], stored["q_points"].argmax(1)) > 0.1
    assert stored["samples"].shape[1:] == (16, 16)
    assert set(smoke_record["seconds"]) == {"pretrain", "phase 1", "phase 2"}


def test_methods_share_the_pretraining_of_a_folder(smoke_record, tmp_path):
    paths = []
    for method in ("AEKMeans", "DEC"):
        paths += run.run("dcss", {"method": method}, [0], runs_dir=tmp_path, progress=False)
    first, second = (records.read(path) for path in paths)
    assert first["metrics"]["ae"] == second["metrics"]["ae"] == smoke_record["metrics"]["ae"]
    assert first["seconds"]["pretrain"] == second["seconds"]["pretrain"]
    assert len(list((tmp_path / "models").iterdir())) == 1
