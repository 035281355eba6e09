"""DCSS from single k-means starts: each start begins where the pretraining ended, and changes no other."""

import numpy as np
import pytest
from sklearn.cluster import KMeans

from reprolib.data.load import load
from reprolib.experiments.paper import resolve
from reprolib.methods import AEKMeans
from reprolib.studies.kmeans_starts import DCSSByStart

SMALL = {"pretrain_epochs": 2, "phase1_epochs": 1, "phase2_epochs": 2, "batch_size": 50, "device": "cpu"}
RESULTS = [f"{what}-{start:02}" for start in (1, 2, 3) for what in ("ae", "q", "u")]


@pytest.fixture(scope="module")
def digits():
    return load("digits", size=16, subset=100)


@pytest.fixture(scope="module")
def three(digits):
    return DCSSByStart(n_starts=3, **SMALL).fit(digits)


def test_every_start_is_one_of_kmeans_on_the_same_pretrained_latent_vectors(digits, three):
    assert list(three.results_) == RESULTS
    pretrained = {name: SMALL[name] for name in ("pretrain_epochs", "batch_size", "device")}
    latent = AEKMeans(**pretrained, phase1_epochs=0).fit(digits).embedding_
    for start in (1, 2, 3):
        found = KMeans(10, n_init=1, random_state=start).fit(latent)
        np.testing.assert_array_equal(three.results_[f"ae-{start:02}"], found.labels_)
        (told,) = {row["inertia"] for row in three.history_ if row.get("start") == start}
        assert told == pytest.approx(found.inertia_)


def test_a_start_ends_as_it_does_alone(digits, three, monkeypatch):
    # the third start, with none before it: the same bits
    first = DCSSByStart.stages
    monkeypatch.setattr(DCSSByStart, "stages", lambda self, run, X=None: [s := first(self, run, X), s[:1] + s[5:]][1])
    alone = DCSSByStart(n_starts=3, **SMALL).fit(digits)
    assert list(alone.results_) == RESULTS[6:]
    for name in RESULTS[6:]:
        np.testing.assert_array_equal(alone.results_[name], three.results_[name])
    np.testing.assert_array_equal(alone.embedding_, three.embedding_)


def test_a_killed_run_goes_on_to_the_same_labels(digits, three, tmp_path, monkeypatch):
    def killed(self):
        raise KeyboardInterrupt

    seen = []
    with monkeypatch.context() as patch:
        patch.setattr("reprolib.studies.kmeans_starts.PairsOfOneStart.end_epoch",
                      lambda self: seen.append(0) if len(seen) < 3 else killed(self))  # fmt: skip
        with pytest.raises(KeyboardInterrupt):
            DCSSByStart(n_starts=3, **SMALL).fit(digits, checkpoint=tmp_path / "run")
    # the kill fell into the second start's phase 2, whose centers were left alone until then
    monkeypatch.setattr("reprolib.studies.kmeans_starts.PairsOfOneStart.end_epoch", lambda self: None)
    went_on = DCSSByStart(n_starts=3, **SMALL).fit(digits, checkpoint=tmp_path / "run")
    whole = DCSSByStart(n_starts=3, **SMALL).fit(digits)
    for name in RESULTS:
        np.testing.assert_array_equal(went_on.results_[name], whole.results_[name])


def test_as_an_experiment_it_has_the_parameters_of_dcss_not_those_of_the_other_methods():
    own, study = (resolve("dcss", "usps", "cpu", method=name) for name in ("DCSS", "DCSSByStart"))
    assert study == own | {"n_starts": 7}
