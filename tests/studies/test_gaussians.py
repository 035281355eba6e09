"""The study of eight Gaussians: what a row tells, copies that do not touch, and a study that goes on where it was."""

import json

import numpy as np
import pytest
import torch

from reprolib.data.made import CENTERS, DEVIATION
from reprolib.methods import PreciseFeature
from reprolib.studies import gaussians
from reprolib.studies.gaussians import on_blobs, study, train
from reprolib.training.trainer import Run

TINY = dict(n_noise=2, width=1, learning_rate=1e-3, n_iterations=4, log_every=2)


@pytest.fixture(autouse=True)
def few_points(monkeypatch):
    monkeypatch.setattr(gaussians, "POINTS", 500)
    monkeypatch.setattr(gaussians, "SEEN", 150)
    monkeypatch.setitem(gaussians.FIXED, "batch_size", 20)


def test_a_point_is_on_a_blob_within_five_deviations():
    points = np.array(
        [CENTERS[3], CENTERS[3] + np.array([4.9 * DEVIATION, 0]), CENTERS[3] + np.array([0, 5.1 * DEVIATION])]
    )
    assert float(on_blobs(torch.from_numpy(points))) == pytest.approx(2 / 3)
    assert on_blobs(torch.zeros(3, 4, 2)).tolist() == [0, 0, 0]


def test_rows_are_the_seeds_of_each_lambda():
    rows = train(2, **TINY)
    assert [(row["penalty"], row["seed"]) for row in rows] == [(1.0, 0), (1.0, 1), (100.0, 0), (100.0, 1)]
    for row in rows:
        assert all(len(row[name]) == 2 for name in ("acc", "nmi", "distance", "near", "fake_accuracy", "entropy"))
        assert all(0 <= value <= 1 for name in ("acc", "near", "fake_accuracy") for value in row[name])
    assert len({tuple(row["distance"]) for row in rows}) == 4


def test_lambda_and_eta_go_to_their_own_copies(monkeypatch):
    before = train(2, **TINY)
    monkeypatch.setattr(gaussians, "WEIGHTS", {1.0: 1.0, 100.0: 500.0})
    after = train(2, **TINY)
    same = [a["distance"] == b["distance"] for a, b in zip(before, after, strict=True)]
    assert same == [True, True, False, False]


def test_each_copy_has_the_weights_that_its_row_names():
    model = PreciseFeature(**gaussians.FIXED | TINY)
    stack = gaussians.Stack(Run(model, torch.zeros(20, 2)), 2, 2)
    stack.build()
    assert (stack.penalty.tolist(), stack.eta.tolist()) == ([1, 1, 100, 100], [1, 1, 10, 10])


def test_a_study_goes_on_where_it_was(tmp_path, monkeypatch):
    path, settings = tmp_path / "found.json", [TINY, TINY | {"n_noise": 0}]
    study(path, settings[:1], 1)
    first = json.loads(path.read_text())
    trained = []
    usual = train
    monkeypatch.setattr(gaussians, "train", lambda *a, **k: (trained.append(k["n_noise"]), usual(*a, **k))[1])
    study(path, settings, 1)
    rows = json.loads(path.read_text())
    assert trained == [0] and rows[:2] == first and [row["n_noise"] for row in rows] == [2, 2, 0, 0]
    assert not list(tmp_path.rglob("*.ckpt"))


def test_a_killed_setting_ends_the_same(tmp_path, monkeypatch):
    whole = train(1, **TINY)
    usual, left = gaussians.Stack.end_epoch, iter([False, True])

    def killed(self):
        if next(left):
            raise KeyboardInterrupt
        usual(self)

    monkeypatch.setattr(gaussians.Stack, "end_epoch", killed)
    with pytest.raises(KeyboardInterrupt):
        train(1, tmp_path / "a.ckpt", **TINY)
    monkeypatch.undo()
    monkeypatch.setattr(gaussians, "POINTS", 500)
    monkeypatch.setattr(gaussians, "SEEN", 150)
    monkeypatch.setitem(gaussians.FIXED, "batch_size", 20)
    assert train(1, tmp_path / "a.ckpt", **TINY) == whole
