"""NMF-LP and NMF-D against literal float64 updates; objectives that never rise; bad input."""

import numpy as np
import pytest
import scipy.sparse as sp
from sklearn.decomposition import non_negative_factorization
from sklearn.metrics import adjusted_rand_score

from reprolib import load
from reprolib.data.images import as_features
from reprolib.kernels.knn import knn
from reprolib.methods import nmf
from reprolib.methods.base import unit_rows
from reprolib.methods.nmf import NMFD, NMFLP


def start(seed, n=40, d=9, k=3):
    """Unit rows with structure, positive factors and the dense 0-1 graph of 5 neighbours."""
    rng = np.random.default_rng(seed)
    X = rng.random((k, d))[rng.integers(k, size=n)] ** 3 + 0.2 * rng.random((n, d))
    X /= np.linalg.norm(X, axis=1, keepdims=True)
    distances = ((X[:, None] - X[None]) ** 2).sum(2)
    np.fill_diagonal(distances, np.inf)
    W = np.zeros((n, n))
    for i in range(n):
        for j in np.argsort(distances[i], kind="stable")[:5]:
            W[i, j] = W[j, i] = 1
    return X, rng.random((d, k)), rng.random((n, k)), W


def literal_objective(X, U, V, W, weight):
    """The docstring of NMFLP, the regulariser summed over pairs of neighbours."""
    Y = V @ U.T
    total = (X * np.log(np.where(X > 0, X, 1) / Y) - X + Y).sum()
    i, j = np.nonzero(W)
    # a pair stands twice in W: half of lambda/2 (D(a||b) + D(b||a)) each time
    return total + weight / 4 * ((V[i] - V[j]) * (np.log(V[i]) - np.log(V[j]))).sum()


def literal_step(X, U, V, W, weight):
    """The authors' updates with dense systems, without half steps."""
    L = np.diag(W.sum(1)) - W
    Y = V * ((X / (V @ U.T)) @ U)
    V = np.stack([np.linalg.solve(U[:, k].sum() * np.eye(len(X)) + weight * L, Y[:, k]) for k in range(3)], 1)
    return U * ((X / (V @ U.T)).T @ V) / V.sum(0), V


def blobs(seed=0, n=60):
    rng = np.random.default_rng(seed)
    centers = np.kron(np.eye(3), np.ones(6))  # (3, 18)
    y = np.repeat(np.arange(3), n // 3)
    return (centers[y] + 0.2 * rng.random((n, 18))).astype(np.float32), y


def rings(seed=0, n=300):
    """Two concentric rings; the constant third feature keeps them apart on the unit sphere."""
    rng = np.random.default_rng(seed)
    y = np.arange(n) % 2
    angle, radius = rng.uniform(0, 2 * np.pi, n), np.where(y, 0.4, 1.2)
    plane = np.stack([np.cos(angle), np.sin(angle)], 1) * radius[:, None] + 2
    return np.c_[plane, np.full(n, 2.0)].astype(np.float32), y


def test_laplacian_is_that_of_the_dense_graph():
    X, _, _, W = start(0)
    L = nmf.neighbor_laplacian(X.astype(np.float32), 5)
    assert sp.issparse(L)
    np.testing.assert_array_equal(L.toarray(), np.diag(W.sum(1)) - W)


@pytest.mark.parametrize("weight", [0.0, 0.3, 100.0])
def test_objective_is_the_literal_one(weight):
    X, U, V, W = start(1)
    X[0, :3] = 0
    L = weight * sp.csr_array(np.diag(W.sum(1)) - W)
    expected = literal_objective(X, U, V, W, weight)
    assert nmf.lp_objective(X, U, V, L) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("weight", [0.0, 0.3, 100.0])
@pytest.mark.parametrize("block", [2048, 7])
def test_step_is_the_literal_one(weight, block, monkeypatch):
    monkeypatch.setattr(nmf, "BLOCK_ROWS", block)
    X, U, V, W = start(2)
    L = weight * sp.csr_array(np.diag(W.sum(1)) - W)
    for _ in range(3):
        U2, V2 = literal_step(X, U, V, W, weight)
        U, V = nmf.lp_step(X, U, V, L)
        np.testing.assert_allclose(V, V2, rtol=1e-4)
        np.testing.assert_allclose(U, U2, rtol=1e-4)


def test_without_a_graph_it_is_the_nmf_of_scikit_learn():
    X, U, V, W = start(3)
    W2, H2, _ = non_negative_factorization(
        X,
        W=V.copy(),
        H=np.ascontiguousarray(U.T),
        init="custom",
        n_components=3,
        solver="mu",
        beta_loss="kullback-leibler",
        max_iter=20,
        tol=0,
    )
    for _ in range(20):
        U, V = nmf.lp_step(X, U, V, sp.csr_array((40, 40)))
    np.testing.assert_allclose(V, W2, rtol=1e-5)
    np.testing.assert_allclose(U.T, H2, rtol=1e-5)


@pytest.mark.parametrize("weight", [0.0, 0.01, 0.1, 1.0, 10.0, 100.0])
def test_objective_never_rises(weight):
    X, U, V, W = start(4)
    L = weight * sp.csr_array(np.diag(W.sum(1)) - W)
    objectives = [literal_objective(X, U, V, W, weight)]
    for _ in range(40):
        U, V = nmf.lp_step(X, U, V, L)
        objectives.append(literal_objective(X, U, V, W, weight))
    assert np.all(np.diff(objectives) <= 1e-11 * objectives[0])
    assert objectives[-1] < 0.8 * objectives[0]


def test_half_steps_are_what_keeps_it_from_rising():
    # neighbours that differ much, where log a/b is not 1 - b/a: the authors' step alone rises
    X, U, V, W = start(4)
    L = 0.3 * sp.csr_array(np.diag(W.sum(1)) - W)
    before, rises = literal_objective(X, U, V, W, 0.3), 0
    for _ in range(25):
        _, bare = literal_step(X, U, V, W, 0.3)
        rises += literal_objective(X, U, bare, W, 0.3) > before * (1 + 1e-6)
        U, V = nmf.lp_step(X, U, V, L)
        after = literal_objective(X, U, V, W, 0.3)
        assert after <= before * (1 + 1e-12)
        before = after
    assert rises > 0


@pytest.mark.parametrize("weight", [0.0, 100.0])
def test_objective_falls_on_float32_images(weight):
    X = unit_rows(load("digits", subset=300))
    L = weight * nmf.neighbor_laplacian(X, 5) if weight else sp.csr_array((300, 300))
    U, V = NMFLP(10, max_iter=0)._start(X, 10, L, 0)
    double = [a.astype(np.float64) for a in (X, U, V)]
    objectives = [nmf.lp_objective(*double, L)]
    for _ in range(40):
        U, V = nmf.lp_step(X, U, V, L)
        assert U.dtype == V.dtype == np.float32 and U.min() >= 0 and V.min() >= 0
        objectives.append(nmf.lp_objective(double[0], U.astype(float), V.astype(float), L))
    assert np.all(np.diff(objectives) <= 1e-6 * objectives[1])


def test_step_follows_the_order_of_samples_and_the_scale():
    X, U, V, W = start(6)
    L = 10 * sp.csr_array(np.diag(W.sum(1)) - W)
    U2, V2 = nmf.lp_step(X, U, V, L)
    order = np.random.default_rng(0).permutation(len(X))
    U3, V3 = nmf.lp_step(X[order], U, V[order], L[order][:, order])
    np.testing.assert_allclose(V3, V2[order], rtol=1e-6)
    np.testing.assert_allclose(U3, U2, rtol=1e-6)
    # the divergence is linear in X: with the weight as many times larger V stays the same
    U4, V4 = nmf.lp_step(4 * X, 4 * U, V, 4 * L)
    np.testing.assert_allclose(V4, V2, rtol=1e-6)
    np.testing.assert_allclose(U4, 4 * U2, rtol=1e-6)


def test_graph_pulls_neighbours_together():
    images = load("digits", subset=300)
    _, neighbors = knn(unit_rows(images), 5)

    def spread(weight):
        V = NMFLP(10, graph_weight=weight, n_init=1).fit(images).embedding_
        gaps = np.linalg.norm(V[:, None] - V[neighbors], axis=2)
        return gaps.mean() / np.linalg.norm(V - V.mean(0), axis=1).mean()

    assert spread(100) < 0.5 * spread(0)


def test_lp_fit_sets_what_it_promises():
    images = load("digits", subset=300)
    fitted = NMFLP(10, n_components=7, n_init=2, max_iter=15).fit(images)
    assert fitted.labels_.dtype == np.int32 and set(fitted.labels_) == set(range(10))
    assert fitted.embedding_.shape == (300, 7) and fitted.components_.shape == (7, 64)
    np.testing.assert_allclose(np.linalg.norm(fitted.components_, axis=1), 1, rtol=1e-5)
    again = NMFLP(10, n_components=7, n_init=2, max_iter=15).fit(images)
    np.testing.assert_array_equal(fitted.labels_, again.labels_)
    assert fitted.objective_ == again.objective_
    other = NMFLP(10, n_components=7, n_init=2, max_iter=15, random_state=1).fit(images)
    assert other.objective_ != fitted.objective_
    # unit rows: a power of two changes no bit
    scaled = NMFLP(10, n_components=7, n_init=2, max_iter=15).fit(as_features(images) * 4)
    np.testing.assert_array_equal(fitted.labels_, scaled.labels_)


def test_more_starts_are_not_worse_than_their_first():
    X = unit_rows(load("digits", subset=200))
    one, many = (NMFLP(10, n_init=i, max_iter=10).fit(X).objective_ for i in (1, 6))
    assert many <= one


METHODS = [NMFLP(3), NMFLP(3, graph_weight=0), NMFD(3, layers=(6, 3))]


@pytest.mark.parametrize("method", METHODS, ids=["lp", "lp-no-graph", "deep"])
def test_blobs_succeed_in_any_order(method):
    X, y = blobs()
    order = np.random.default_rng(1).permutation(len(X))
    assert adjusted_rand_score(y, method.fit_predict(X)) == 1
    assert adjusted_rand_score(y[order], method.fit_predict(X[order])) == 1
    assert adjusted_rand_score(y, method.fit_predict(4 * X)) == 1


@pytest.mark.parametrize("method", METHODS[1:], ids=["lp-no-graph", "deep"])
def test_rings_fail_without_a_graph(method):
    X, y = rings()
    method.set_params(n_clusters=2)
    assert adjusted_rand_score(y, method.fit_predict(X)) < 0.2
    method.set_params(n_clusters=3)


@pytest.mark.parametrize("method", METHODS, ids=["lp", "lp-no-graph", "deep"])
def test_degenerate_input(method):
    X, _ = blobs(n=30)
    params = method.get_params()
    make = lambda **kw: type(method)(**(params | kw))  # noqa: E731
    assert not make(n_clusters=1).fit_predict(X).any()
    black = X.copy()
    black[:2] = 0  # two black images have no direction
    assert np.isfinite(make().fit(black).embedding_).all()
    copies = np.repeat(X[[0, 10, 20]], 8, axis=0)
    assert adjusted_rand_score(np.repeat(range(3), 8), make().fit_predict(copies)) == 1
    with pytest.warns(match="distinct clusters"):
        assert set(make(n_clusters=5).fit_predict(copies)) <= set(range(5))
    with pytest.raises(ValueError, match="n_clusters=31"):
        make(n_clusters=31).fit(X)
    with pytest.raises(ValueError, match="n_clusters must be at least 1"):
        make(n_clusters=0).fit(X)
    with pytest.raises(ValueError, match="identical"):
        make().fit(np.ones((9, 4)))
    X[3, 1] = np.nan
    with pytest.raises(ValueError, match="NaN"):
        make().fit(X)


def test_lp_parameters_out_of_range():
    X, _ = blobs(n=30)
    with pytest.raises(ValueError, match="n_neighbors=30"):
        NMFLP(3, n_neighbors=30).fit(X)
    NMFLP(3, n_neighbors=30, graph_weight=0, n_init=1).fit(X)  # no graph, no neighbours needed
    with pytest.raises(ValueError, match="n_components must be from 1 to the 30"):
        NMFLP(3, n_components=31).fit(X)
    for wrong in (dict(graph_weight=-1.0), dict(n_init=0)):
        with pytest.raises(ValueError, match="must be at least"):
            NMFLP(3, **wrong).fit(X)
    with pytest.raises(ValueError, match="unknown negative 'clap'"):
        NMFLP(3, negative="clap").fit(X)


def test_negative_features():
    X, y = blobs()
    X = X - 0.3
    with pytest.raises(ValueError, match='negative="clip"'):
        NMFLP(3).fit(X)
    clipped = NMFLP(3, negative="clip").fit_predict(X)
    assert adjusted_rand_score(y, clipped) == 1
    np.testing.assert_array_equal(clipped, NMFLP(3).fit_predict(np.maximum(X, 0)))
    assert adjusted_rand_score(y, NMFD(3, layers=(6, 3)).fit_predict(X)) == 1
