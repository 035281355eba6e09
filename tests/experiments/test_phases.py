"""A run of a method in phases: what its record holds of each, and what runs share."""

import numpy as np
import pytest

from reprolib import load, metrics
from reprolib.experiments import records, run


@pytest.fixture(scope="module")
def smoke_record(tmp_path_factory):
    """The record of one smoke run of the page by papermill."""
    folder = tmp_path_factory.mktemp("runs")
    (path,) = run.run("dcss", {}, [0], runs_dir=folder)
    return records.read(path)


def test_the_page_leaves_a_record_of_every_phase(smoke_record):
    assert set(smoke_record["metrics"]) == {"ae", "u", "q"}
    assert records.rescore(smoke_record) == smoke_record["metrics"]
    stages = [row["stage"] for row in smoke_record["history"]]
    settings = smoke_record["parameters"]
    assert stages.count("pretrain") == settings["pretrain_epochs"]
    assert stages.count("phase 2") == settings["phase2_epochs"]
    last = smoke_record["history"][-1]
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
        paths += run.run("dcss", {"method": method}, [0], runs_dir=tmp_path)
    first, second = (records.read(path) for path in paths)
    assert first["metrics"]["ae"] == second["metrics"]["ae"] == smoke_record["metrics"]["ae"]
    assert first["seconds"]["pretrain"] == second["seconds"]["pretrain"]
    assert len(list((tmp_path / "models").iterdir())) == 1
