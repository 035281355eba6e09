"""scikit-learn's own checks of an estimator, on a small instance of each method.

A check that cannot pass stands beside its instance with the reason; it must go on failing, or go.
"""

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.utils.estimator_checks import check_estimator
from sklearn.utils.validation import check_is_fitted

from reprolib.methods import (
    ACGDL,
    ACPIC,
    DCN,
    DCSS,
    DEC,
    DKM,
    IDEC,
    JULE,
    NMFD,
    NMFLP,
    SCAN,
    SCLS,
    SCNJW,
    SCST,
    ACLink,
    ACZell,
    AEKMeans,
    InterClassSeparation,
    KMeans,
    NCuts,
    PreciseFeature,
    ProFeat,
    SimCLR,
    VaDE,
)
from reprolib.networks import autoencoders

# name: (instance, {check: why it cannot pass})
ESTIMATORS = {
    "KMeans": (KMeans(3, n_init=2), {}),
    "ACLink": (ACLink(3), {}),
    "ACGDL": (ACGDL(3, n_neighbors=5), {}),
    "ACPIC": (ACPIC(3, n_neighbors=5), {}),
    "ACZell": (ACZell(3, n_neighbors=5), {}),
    "SCNJW": (SCNJW(3, n_neighbors=5), {}),
    "NCuts": (NCuts(3, n_neighbors=5), {}),
    "SCST": (SCST(3, n_neighbors=5, scale_neighbor=3), {}),
    "SCLS": (SCLS(2, n_landmarks=8, n_nearest=3), {}),
    "NMFLP": (
        NMFLP(3, n_neighbors=3, n_init=1, max_iter=10),
        {"check_clustering": "fits standardised data, though the tag says not negative only"},
    ),
    "NMFD": (NMFD(3, layers=(4,), max_iter=10), {}),
}
SMALL = dict(latent_dim=2, pretrain_epochs=8, pretrain_rate=0.01, phase1_epochs=1, batch_size=20)
FEW = PreciseFeature(3, width=2, n_noise=2, n_iterations=3, log_every=2, batch_size=10, device="cpu")
ESTIMATORS["PreciseFeature"] = (FEW, {"check_clustering": "three iterations do not find three blobs"})
ESTIMATORS |= {
    method.__name__: (method(3, **SMALL, mnet_width=8, device="cpu"), {})
    for method in (AEKMeans, DEC, IDEC, DCN, DKM, VaDE, DCSS)
}


@pytest.fixture(autouse=True)
def small_networks(monkeypatch):
    monkeypatch.setattr(autoencoders, "HIDDEN", (16, 16, 24))


@pytest.mark.parametrize("method", [JULE, InterClassSeparation, SimCLR, SCAN, ProFeat])
def test_a_method_of_images_alone_says_so(method):
    tags = method().__sklearn_tags__().input_tags
    assert tags.three_d_array and not tags.two_d_array
    with pytest.warns(match=f"Can't test estimator {method.__name__} which requires input"):
        assert not [c for c in check_estimator(method(), on_fail=None) if c["status"] == "failed"]


@pytest.mark.parametrize("name", ESTIMATORS)
@pytest.mark.filterwarnings("ignore:the k-NN graph has")
def test_check_estimator(name):
    estimator, expected = ESTIMATORS[name]
    found = check_estimator(estimator, on_skip=None, on_fail=None)
    failed = {c["check_name"]: c["exception"] for c in found if c["status"] == "failed"}
    assert len(found) > 40
    assert {k: v for k, v in failed.items() if k not in expected} == {}
    assert set(expected) <= set(failed)


@pytest.mark.parametrize("name", ESTIMATORS)
def test_numbers_of_numpy_and_a_random_state_are_parameters(name):
    rng = np.random.default_rng(0)
    X = np.abs(rng.normal(size=(24, 4)) + 5 * np.repeat(np.eye(4)[:3], 8, axis=0))
    plain = clone(ESTIMATORS[name][0])
    with pytest.raises(NotFittedError):
        check_is_fitted(plain)
    given = {k: v for k, v in plain.get_params().items() if type(v) in (int, float)}
    kinds = {int: np.int64, float: np.float32}
    numbers = {k: kinds[type(v)](v) for k, v in given.items()}
    plain.set_params(**{k: v.item() for k, v in numbers.items()})  # .1 is another one in float32
    numpys = clone(plain).set_params(**numbers)
    np.testing.assert_array_equal(numpys.fit(X).labels_, plain.fit(X).labels_)
    assert numpys.n_features_in_ == 4
    if "random_state" in given:
        states = [clone(plain).set_params(random_state=np.random.RandomState(7)) for _ in range(2)]
        np.testing.assert_array_equal(*[state.fit(X).labels_ for state in states])


@pytest.mark.parametrize("name", ESTIMATORS)
def test_parameters_of_another_kind_are_refused(name):
    X = np.random.default_rng(0).random((24, 4))
    for parameter, value in ESTIMATORS[name][0].get_params().items():
        wrong = clone(ESTIMATORS[name][0]).set_params(**{parameter: 1j})
        with pytest.raises((TypeError, ValueError), match=parameter):
            wrong.fit(X)
        if isinstance(value, str):
            with pytest.raises(ValueError, match=f"unknown {parameter} 'nonsense'.*{value}"):
                wrong.set_params(**{parameter: "nonsense"}).fit(X)
