"""The log of a fit: scores, what it keeps for the figures, and the rows of a record."""

import numpy as np
import pytest

from reprolib import load
from reprolib.data.images import Images
from reprolib.training import monitor
from reprolib.training.monitor import Log, Merged, Report, isolated, seconds_by_stage

DIGITS = load("digits", subset=120)


def unlabelled(n):
    return Images(np.zeros((n, 4, 4), np.uint8))


def literal_isolated(q, similarity):
    count = 0
    for i, one in enumerate(q):
        count += all(float(one @ other) <= similarity for j, other in enumerate(q) if j != i)
    return count


@pytest.mark.parametrize("n", [1, 2, 37])
def test_isolated_samples_are_counted_as_by_the_definition(n, monkeypatch):
    monkeypatch.setattr(monitor, "BLOCK_ROWS", 16)
    q = np.random.default_rng(n).dirichlet([0.1] * 5, n).astype(np.float32)
    assert isolated(q, 0.8) == literal_isolated(q, 0.8)
    assert isolated(np.repeat(np.eye(5, dtype=np.float32), 2, axis=0), 0.8) == 0


def test_a_log_scores_reports_and_keeps_their_spaces(monkeypatch):
    monkeypatch.setattr(monitor, "POINTS", 50)
    rng = np.random.default_rng(0)
    y = DIGITS.labels
    log = Log(DIGITS, figure=True)
    u, q = rng.normal(size=(120, 3)).astype(np.float32), np.eye(10, dtype=np.float32)[y]
    log(Report("pretrain", 0, rng.integers(0, 4, 120), u))
    log(Report("phase 1", 5, y, u))
    log(Report("phase 2", 6, y, u, q, 0.8))
    assert [row["stage"] for row in log.reports] == ["pretrain", "phase 1", "phase 2"]
    assert log.reports[1]["acc"] == 1.0 and "isolated" not in log.reports[1]
    assert log.reports[2]["isolated"] == 0 and log.reports[2]["n_clusters"] == 10
    assert log.arrays["u_phase 1"].shape == (50, 3) and log.arrays["q_points"].shape == (50, 10)
    assert log.arrays["q_max"].shape == (120,)
    # one image of each cluster that the points hold, with its q
    assert log.arrays["samples"].shape == (10, 8, 8)
    assert log.arrays["samples_q"].argmax(1).tolist() == list(range(10))


def test_a_log_scores_what_is_counted():
    found = DIGITS.labels.copy()
    found[:100] = 0
    log = Log(DIGITS, scored=slice(100, 120))
    log(Report("scan", 1, found, np.zeros((120, 2), np.float32)))
    assert log.reports[0]["acc"] == 1.0 and log.reports[0]["n_clusters"] == len(np.unique(found))


def test_merges_keep_principal_components_and_a_row_a_report():
    rng = np.random.default_rng(0)
    log = Log(DIGITS, figure=True)
    for period, k in enumerate((40, 10)):
        labels = rng.permutation(np.arange(120) % k)
        log(Merged("period", period, labels, rng.normal(size=(120, 6))))
    assert log.arrays["pca_1"].shape == (120, 3) and log.arrays["clusters_0"].max() == 39
    history = [{"period": 0, "epoch": e, "loss": 0.5 - e, "seconds": 1.0} for e in range(2)]
    first, last = log.rows(history)
    assert (first["n_clusters"], first["seconds"], first["loss"]) == (40, 0, None)
    assert (last["n_clusters"], last["seconds"], last["loss"]) == (10, 2.0, -0.5)


def test_a_log_that_is_read_back_has_every_field(tmp_path):
    log = Log(unlabelled(4), path=tmp_path / "a.stages")
    log(Report("phase 2", 1, np.arange(4), np.eye(4), np.eye(4, dtype=np.float32), 1.0))
    again = Log(unlabelled(4), path=tmp_path / "a.stages")
    expected = [{"period": 1, "n_clusters": 4, "stage": "phase 2", "isolated": 4}]
    assert again.reports == log.reports == expected
    again(Report("phase 2", 1, np.zeros(4, int), np.eye(4)))  # a resumed run tells it again
    assert [row["n_clusters"] for row in again.reports] == [1]


def test_epochs_and_reports_are_joined_by_period():
    history = [{"stage": "pretrain", "epoch": e, "loss": 1.0, "seconds": 2.0} for e in range(3)]
    history += [{"stage": "phase 1", "epoch": e, "loss": 1 / 3, "seconds": 0.5} for e in range(2)]
    log = Log(unlabelled(4))
    log.reports = [{"period": p, "n_clusters": 4, "stage": s} for p, s in ((0, "pretrain"), (2, "phase 1"))]
    rows = log.rows(history)
    assert [row.get("period") for row in rows] == [None, None, 0, None, 2]
    assert rows[3]["loss"] == 0.333333
    assert seconds_by_stage(history) == {"pretrain": 6.0, "phase 1": 1.0}


def test_a_method_of_one_stage_has_a_report_for_each_of_its_epochs():
    history = [{"stage": "adversarial", "epoch": e, "loss": 1.0, "seconds": 2.0} for e in range(3)]
    log = Log(unlabelled(4))
    log.reports = [{"period": p, "n_clusters": 4, "stage": "adversarial"} for p in (1, 3)]
    assert [row.get("period") for row in log.rows(history)] == [1, None, 3]
    assert log.rows([]) == []
