"""Partitions of one pretraining, and the two trainings that might keep a good start."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from reprolib.data.load import load
from reprolib.experiments.paper import resolve
from reprolib.methods import DEC, AEKMeans
from reprolib.methods.autoencoder import Pairs
from reprolib.methods.starts import gdl_start, kmeans_start
from reprolib.studies.graph_start import LatentPartitions, linkage_as_is, nearest_means
from reprolib.studies.kept_start import DECSharp, PairsOfStart, SharpTarget, StartPairs

SMALL = {"pretrain_epochs": 2, "batch_size": 50, "device": "cpu"}


@pytest.fixture(scope="module")
def digits():
    return load("digits", size=16, subset=200)


@pytest.fixture(scope="module")
def fitted(digits):
    return LatentPartitions(**SMALL).fit(digits)


def same(found, labels):
    """Equal up to the numbers of the clusters."""
    return len({*zip(found.tolist(), labels.tolist(), strict=True)}) == len({*found}) == len({*labels})


def test_every_partition_has_a_row_and_is_of_the_pretrained_vectors(digits, fitted):
    alike = AEKMeans(**SMALL, phase1_epochs=0).fit(digits)
    np.testing.assert_array_equal(fitted.embedding_, alike.embedding_)
    rows = [row for row in fitted.history_ if row["stage"] == "partitions"]
    assert [row["partition"] for row in rows] == list(fitted.results_)
    assert same(fitted.results_["kmeans"], kmeans_start(fitted.embedding_, 10, 0)[0])
    assert same(fitted.results_["gdl"], gdl_start(fitted.embedding_, 10)[0])
    assert same(fitted.labels_, fitted.results_["gdl"])
    assert [row["partition"] for row in rows if "stability" in row] == ["kmeans", "gdl"]
    assert all(("within" in row) != row["partition"].endswith("untrained") for row in rows)
    inertia = {row["partition"]: row.get("within", 1) for row in rows}
    assert min(inertia, key=inertia.get) in ("kmeans", "kmeans-start-1", *map("kmeans-start-{}".format, range(2, 8)))


def test_vectors_of_other_lengths_are_other_graphs():
    rng = np.random.default_rng(0)
    directions = np.repeat([[1.0, 0.0], [0.0, 1.0]], 100, axis=0) + rng.normal(0, 0.05, (200, 2))
    near, far = directions.astype(np.float32), (30 * directions[:100]).astype(np.float32)
    points = np.concatenate([near, far])
    assert same(gdl_start(points, 2)[0], np.repeat([0, 1, 0], 100))
    assert same(linkage_as_is(points[[*range(100), *range(200, 300)]], 2), np.repeat([0, 1], 100))


def test_nearest_means_are_those_of_the_linkage(fitted):
    latent = fitted.embedding_
    centers = gdl_start(latent, 10)[1]
    literal = np.square(latent[:, None].astype(np.float64) - centers).sum(2)
    found = nearest_means(latent, 10)
    np.testing.assert_allclose(literal[np.arange(200), found], literal.min(1), rtol=1e-4, atol=1e-6)


def test_an_untrained_network_is_the_one_that_the_pretraining_began_with(digits):
    untrained = LatentPartitions(**SMALL | {"pretrain_epochs": 0}).fit(digits)
    for name in ("kmeans", "gdl"):
        assert same(untrained.results_[f"{name}-untrained"], untrained.results_[name])


def test_a_sharp_target_is_that_of_dec_without_its_frequencies(digits):
    stage = _stage(DECSharp(start="gdl", **SMALL, phase1_epochs=1), digits)
    assert isinstance(stage, SharpTarget)
    centers, latent = stage.centers.detach().double(), _latent(stage).double()
    q = 1 / (1 + (latent[:, None] - centers).square().sum(2))
    q = q / q.sum(1, keepdim=True)
    literal = q**2 / (q**2).sum(1, keepdim=True)
    torch.testing.assert_close(stage.target.double(), literal, rtol=1e-4, atol=1e-6)
    assert not torch.allclose(stage.target, _stage(DEC(start="gdl", **SMALL, phase1_epochs=1), digits).target)


@pytest.mark.parametrize(("start", "source"), [("gdl", "gdl"), ("kmeans", "ae")])
def test_pairs_are_told_by_the_labels_of_the_start(start, source, digits, monkeypatch):
    told = []
    whole = PairsOfStart.memberships

    def memberships(self, latent, batch):
        found = whole(self, latent, batch)
        told.append((batch, found))
        return found

    monkeypatch.setattr(PairsOfStart, "memberships", memberships)
    model = StartPairs(start=start, **SMALL, phase2_epochs=3, u_epochs=2).fit(digits)
    labels = torch.from_numpy(model.results_[source]).long()
    assert len(told) == 2 * 4  # batches of two epochs of three
    for batch, found in told:
        torch.testing.assert_close(found, F.one_hot(labels[batch], 10).float())
    assert list(model.results_) == [*(["gdl"] if start == "gdl" else []), "ae", "u", "q"]


@pytest.mark.parametrize("name", ["DECSharp", "StartPairs", "LatentPartitions"])
def test_as_experiments_they_have_the_setting_of_the_methods(name):
    usual = resolve("dcss", "usps", "cpu", method="DEC")
    changed = {"phase2_epochs": 0} if name == "LatentPartitions" else {"start": "gdl"}
    assert resolve("dcss", "usps", "cpu", method=name) == usual | changed


def _stage(model, images):
    """Its own stage, begun."""
    from reprolib.training.trainer import Run

    run = Run(model, model.inputs(images))
    first, own, *_ = model.stages(run, images)
    assert not isinstance(own, Pairs)
    for stage in (first, own):
        stage.build()
        stage.begin()
    own.begin_epoch()
    return own


def _latent(stage):
    from reprolib.methods.autoencoder import latent_vectors

    return latent_vectors(stage.run).detach()
