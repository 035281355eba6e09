"""The bench of ClustPy's accuracy: from the same starts, beside the records of ours."""

import sys

import pytest
import torch

from reprolib.bench import clustpy
from reprolib.bench.clustpy import METHODS
from reprolib.experiments import run as experiment
from reprolib.metrics import accuracy
from reprolib.report.tables import NOT_RUN

SMOKE = {"dataset": "digits", "profile": "smoke"}


def test_without_clustpy_there_is_nothing(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "clustpy", None)
    assert clustpy.measure(**SMOKE) is None
    assert "clustpy is left out" in capsys.readouterr().out


class Untrained(torch.nn.Module):
    """A clustering module that learns nothing."""

    def __init__(self, centers):
        super().__init__()
        self.centers = torch.nn.Parameter(centers)

    def predict_hard(self, embedded):
        return torch.cdist(embedded, self.centers).argmin(1)


def test_theirs_begins_where_ours_does(monkeypatch):
    seen = []

    def module(name, stage):
        return stage.run.modules["network"], Untrained(stage.centers.detach().clone())

    def fit(name, network, module, loader, epochs, optimizer):
        batches = [indices for _ in range(epochs) for indices, _ in loader]
        assert torch.cat(batches).bincount().tolist() == [epochs] * 300
        seen.append((name, epochs, optimizer.param_groups[0]["lr"]))

    monkeypatch.setattr(clustpy, "version", lambda: "0")
    monkeypatch.setattr(clustpy, "module_of", module)
    monkeypatch.setattr(clustpy, "fit", fit)
    found = clustpy.measure(**SMOKE, n_seeds=1)
    plan = experiment.plan("dcss", SMOKE | {"method": "AEKMeans"})
    images, model = plan.images(), plan.estimator()
    model.phase2_epochs = 0
    start = accuracy(images.labels, model.fit(plan.inputs(images)).labels_)
    assert found["acc"] == {name: [pytest.approx(start)] for name in METHODS}
    assert seen == [(name, 2, 1e-4) for name in METHODS]


def test_theirs_stands_beside_our_records(monkeypatch):
    records = {"DEC": [0.8, 0.6], "IDEC": []}
    monkeypatch.setattr(
        clustpy.records,
        "load_records",
        lambda paper, method, **_: [{"metrics": {"u": {"acc": a}}} for a in records[method]],
    )
    found = {"clustpy": "0", **SMOKE, "acc": {"DEC": [0.7, 0.7], "IDEC": [0.5]}}
    rows = [[str(x).replace("\u00a0", " ") for x in r] for r in clustpy.table(found).rows]
    assert rows == [["DEC", "0.700 ± 0.141", "0.700 ± 0.000"], ["IDEC", NOT_RUN, "0.500"]]


def test_clustpy_itself():
    pytest.importorskip("clustpy.deep")
    found = clustpy.measure(**SMOKE, n_seeds=1)
    assert all(0.1 <= score <= 1 for scores in found["acc"].values() for score in scores)
