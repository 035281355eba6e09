"""ClustPy's methods as estimators: from the same starts, beside the records of ours."""

import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from reprolib.data.load import load
from reprolib.experiments.paper import methods, signature
from reprolib.methods import AEKMeans
from reprolib.studies import clustpy

KINDS = (clustpy.ClustPyDEC, clustpy.ClustPyIDEC, clustpy.ClustPyDCN, clustpy.ClustPyDKM)
SMALL = {"pretrain_epochs": 2, "phase1_epochs": 3, "batch_size": 50, "device": "cpu"}


@pytest.fixture
def digits():
    return load("digits", size=16, subset=100)


def test_without_clustpy_it_says_what_to_do(monkeypatch, capsys, digits):
    monkeypatch.setitem(sys.modules, "clustpy", None)
    assert clustpy.version() is None and "clustpy is left out" in capsys.readouterr().out
    with pytest.raises(ImportError, match="pip install clustpy"):
        clustpy.ClustPyDKM(**SMALL).fit(digits)


@pytest.mark.parametrize("kind", KINDS)
def test_theirs_begins_where_ours_does(monkeypatch, digits, kind):
    seen = []

    def module(name, stage):
        return clustpy_network(stage), SimpleNamespace(centers=stage.centers.detach().flip(0))

    def clustpy_network(stage):
        network = stage.run.modules["network"]
        return SimpleNamespace(network=network, encode=network.encode, decode=network.decode, parameters=list)

    def fit(name, network, module, loader, epochs, optimizer):
        batches = [indices for _ in range(epochs) for indices, _ in loader]
        assert torch.cat(batches).bincount().tolist() == [epochs] * 100
        seen.append((f"ClustPy{name}", epochs, optimizer))

    monkeypatch.setattr(clustpy, "required", lambda: SimpleNamespace(__version__="0"))
    monkeypatch.setattr(clustpy, "module_of", module)
    monkeypatch.setattr(clustpy, "fit", fit)
    monkeypatch.setattr(clustpy, "_adam", lambda stage, *parts: stage.model.learning_rate)
    fitted = kind(**SMALL).fit(digits)
    assert seen == [(kind.__name__, 3, 1e-4)]
    ours = AEKMeans(**SMALL).fit(digits).labels_
    np.testing.assert_array_equal(fitted.results_["ae"], ours)
    np.testing.assert_array_equal(fitted.labels_, 9 - ours)  # the centers that it left
    assert fitted.history_[-1]["passes"] == 3 and fitted.history_[-1]["clustpy"] == "0"


def test_they_are_methods_of_the_experiment_with_the_parameters_of_ours():
    for kind in KINDS:
        assert kind.__name__ in methods("dcss")
        assert signature(kind.__name__) == signature(kind.__name__.removeprefix("ClustPy"))


@pytest.mark.parametrize("kind", KINDS)
def test_clustpy_itself(kind, digits):
    pytest.importorskip("clustpy.deep")
    fitted, start = (method(**SMALL).fit(digits) for method in (kind, AEKMeans))
    assert np.isfinite(fitted.embedding_).all() and np.isfinite(fitted.history_[-1]["loss"])
    assert not np.allclose(fitted.embedding_, start.embedding_)
