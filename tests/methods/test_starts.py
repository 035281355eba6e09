"""Starts: centers are means of the linkage's clusters, each method begins with them, and k-means stays as it was."""

import numpy as np
import pytest
import torch
from sklearn.cluster import KMeans
from sklearn.datasets import make_blobs

from reprolib.data.load import load
from reprolib.methods import DCN, DCSS, DEC, DKM, IDEC, AEKMeans, InterClassSeparation, VaDE
from reprolib.methods.starts import centers_of, gdl_start, kmeans_start
from reprolib.methods.vade import fit_mixture
from reprolib.metrics import accuracy
from reprolib.training.trainer import as_numpy

SMALL = {"pretrain_epochs": 2, "phase2_epochs": 0, "batch_size": 50, "device": "cpu"}


@pytest.fixture(scope="module")
def digits():
    return load("digits", size=16, subset=200)


@pytest.fixture
def unequal():
    """Directions of classes as unequal as 600 and 40; lengths that differ within a class."""
    centers = 10 * np.eye(4, 6)
    points, y = make_blobs([600, 200, 100, 40], centers=centers, cluster_std=1.0, random_state=0)
    return points.astype(np.float32), y


def test_kmeans_is_the_best_of_twenty(unequal):
    points, _ = unequal
    labels, centers = kmeans_start(points, 4, 3)
    found = KMeans(4, n_init=20, random_state=3).fit(points)
    np.testing.assert_array_equal(labels, found.labels_)
    np.testing.assert_array_equal(centers, found.cluster_centers_)


def test_centers_of_the_linkage_are_the_means_of_its_clusters(unequal):
    points, y = unequal
    labels, centers = gdl_start(points, 4)
    assert accuracy(y, labels) == 1.0  # unequal sizes do not matter
    literal = [points[labels == c].astype(np.float64).mean(0) for c in range(4)]
    np.testing.assert_allclose(centers, literal, rtol=1e-6)
    # the lengths of the vectors do not count
    again, _ = gdl_start(points * np.random.default_rng(0).uniform(0.5, 2, (len(points), 1)).astype(np.float32), 4)
    np.testing.assert_array_equal(labels, again)


def test_the_name_decides(unequal):
    points, _ = unequal
    for name, expected in (("kmeans", kmeans_start(points, 4, 1)), ("gdl", gdl_start(points, 4))):
        for found, same in zip(centers_of(name, points, 4, 1), expected, strict=True):
            np.testing.assert_array_equal(found, same)


@pytest.mark.parametrize("kind", [AEKMeans, DEC, IDEC, DCN, DKM, DCSS, InterClassSeparation])
def test_methods_begin_with_the_linkage(kind, digits):
    # of any stage of its own but the start: no epoch
    model = kind(start="gdl", phase1_epochs=0, **SMALL).fit(digits)
    labels, centers = gdl_start(model.embedding_, 10)
    np.testing.assert_array_equal(model.results_["gdl"], labels)
    np.testing.assert_allclose(model.centers_, centers, rtol=1e-5, atol=1e-6)
    distances = ((model.embedding_[:, None].astype(np.float64) - model.centers_) ** 2).sum(2)
    nearest = np.take_along_axis(distances, model.results_["ae"][:, None].astype(int), 1)[:, 0]
    np.testing.assert_allclose(nearest, distances.min(1), rtol=1e-4, atol=1e-6)
    assert "gdl" not in kind(phase1_epochs=0, **SMALL).fit(digits).results_


def test_dcn_counts_what_the_linkage_gave(digits, monkeypatch):
    from reprolib.methods.dec import RunningMeans

    kept = {}
    whole = RunningMeans.start

    def start(self, labels):
        whole(self, labels)
        kept.update(self.run.tensors)

    monkeypatch.setattr(RunningMeans, "start", start)
    model = DCN(start="gdl", phase1_epochs=0, **SMALL).fit(digits)
    labels = model.results_["gdl"]
    np.testing.assert_array_equal(as_numpy(kept["assigned"]), labels)
    np.testing.assert_array_equal(as_numpy(kept["counts"]), np.bincount(labels, minlength=10))


def test_the_mixture_is_the_likeliest_for_the_labels():
    rng = np.random.default_rng(0)
    points, labels = rng.normal(size=(60, 3)), np.repeat([0, 1, 2], [30, 29, 1])
    weights, means, variances = fit_mixture(points, 3, 0, labels)
    np.testing.assert_allclose(weights, [0.5, 29 / 60, 1 / 60])
    for c in range(3):
        np.testing.assert_allclose(means[c], points[labels == c].mean(0))
        np.testing.assert_allclose(variances[c], points[labels == c].var(0) + 1e-6)


def test_vade_begins_with_the_mixture_of_the_linkage(digits):
    model = VaDE(start="gdl", phase1_epochs=0, **SMALL).fit(digits)
    labels, centers = gdl_start(model.embedding_, 10)
    np.testing.assert_array_equal(model.results_["gdl"], labels)
    np.testing.assert_allclose(model.centers_, centers, rtol=1e-4, atol=1e-5)
    weights = model.modules_["mixture"].log_weights.exp().detach()
    torch.testing.assert_close(weights, torch.from_numpy(np.bincount(labels) / 200).float(), rtol=1e-4, atol=1e-6)


def test_a_model_from_the_linkage_survives_its_file(digits, tmp_path):
    model = DEC(start="gdl", phase1_epochs=1, **SMALL).fit(digits)
    model.save(tmp_path / "model")
    again = DEC.load(tmp_path / "model")
    assert again.start == "gdl" and list(again.results_) == ["gdl", "ae", "u"]
    np.testing.assert_array_equal(again.labels_, model.labels_)


def test_an_unknown_start_is_named():
    with pytest.raises(ValueError, match="unknown start"):
        DEC(start="graph").fit(np.zeros((30, 16, 16), np.uint8))
