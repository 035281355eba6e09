"""SC-NJW and N-Cuts: graphs and eigenvectors beside dense ones, shapes, degenerate input."""

import numpy as np
import pytest
import scipy.linalg
from scipy import sparse
from sklearn.datasets import make_blobs, make_circles, make_moons
from sklearn.metrics import adjusted_rand_score

from reprolib import checks
from reprolib.data.images import Images
from reprolib.graph.strays import DisconnectedGraphWarning
from reprolib.methods import spectral
from reprolib.methods.classical import KMeans
from reprolib.methods.self_tuning import SCLS, SCST
from reprolib.methods.spectral import SCNJW, NCuts, full_affinity, knn_affinity, leading_vectors, radius_affinity

METHODS = {
    "SC-NJW": lambda k, **options: SCNJW(k, n_neighbors=10, **options),
    "N-Cuts": lambda k, **options: NCuts(k, n_neighbors=10, **options),
    "SC-ST": lambda k, **options: SCST(k, n_neighbors=10, **options),
    "SC-LS": lambda k, **options: SCLS(k, n_landmarks=75, **options),
}
ON_GRAPHS = [name for name in METHODS if name != "SC-LS"]


def on_sphere(points):
    """Points of the plane by stereographic projection: of unit length, shapes kept."""
    squared = np.sum(points**2, axis=1, keepdims=True)
    return np.hstack([2 * points, squared - 1]) / (squared + 1)


def shape(name, n=300, seed=0):
    if name == "moons":
        points, labels = make_moons(n, noise=0.05, random_state=seed)
    elif name == "noisy moons":
        points, labels = make_moons(n, noise=0.25, random_state=seed)
    elif name == "rings":
        points, labels = make_circles(n, noise=0.04, factor=0.4, random_state=seed)
    else:
        centers = [[-1, 0], [1, 0], [0, 1.5]]
        points, labels = make_blobs(n, centers=centers, cluster_std=0.15, random_state=seed)
    return on_sphere(points), labels


def unit_normal(n, d, seed):
    x = np.random.default_rng(seed).standard_normal((n, d))
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)


def dense_squared(x):
    x = x.astype(np.float64)
    return np.array([[np.sum((a - b) ** 2) for b in x] for a in x])


def dense_vectors(affinity, k, offset=0.0):
    """Leading eigenvectors of the normalised affinity by a full dense decomposition, and values."""
    degrees = affinity.sum(axis=1) + 2 * offset
    degrees[degrees == 0] = 1.0
    root = np.diag(degrees**-0.5)
    values, vectors = np.linalg.eigh(root @ (affinity + offset * np.eye(len(affinity))) @ root)
    assert values[-k] - values[-k - 1] > 1e-6, "the reference itself is not determined"
    return values[::-1][:k], vectors[:, ::-1][:, :k]


def random_graph(n, seed, parts=1, density=0.1):
    """A sparse symmetric affinity with the given number of connected parts of unequal size."""
    rng = np.random.default_rng(seed)
    bounds = np.sort(rng.choice(np.arange(8, n - 8, 8), parts - 1, replace=False))
    blocks = []
    for size in np.diff([0, *bounds, n]):
        upper = np.triu(rng.random((size, size)) * (rng.random((size, size)) < density), 1)
        path = np.diag(rng.random(size - 1) + 0.1, 1)
        blocks.append(upper + upper.T + path + path.T)
    order = rng.permutation(n)
    return scipy.linalg.block_diag(*blocks)[np.ix_(order, order)]


def assert_same_span(found, reference):
    np.testing.assert_allclose(found.T @ found, np.eye(found.shape[1]), atol=1e-7)
    np.testing.assert_allclose(found @ found.T, reference @ reference.T, atol=1e-6)


@pytest.mark.parametrize("bandwidth", [0.5, 1.0])
def test_knn_affinity_is_equation_4_without_direction(bandwidth):
    x, k = unit_normal(40, 5, 0), 6
    squared = dense_squared(x)
    np.fill_diagonal(squared, np.inf)
    near = np.argsort(squared, axis=1)[:, :k]
    sigma2 = bandwidth * np.mean([squared[i, near[i]] for i in range(40)])
    directed = np.zeros((40, 40))
    for i in range(40):
        directed[i, near[i]] = np.exp(-squared[i, near[i]] / sigma2)
    found = knn_affinity(x, k, bandwidth).toarray()
    np.testing.assert_allclose(found, (directed + directed.T) / 2, rtol=1e-5)


def test_full_affinity_by_its_formula():
    x = unit_normal(30, 4, 1)
    squared = dense_squared(x)
    expected = np.exp(-squared / (0.05 * squared.mean()))
    np.fill_diagonal(expected, 0.0)
    np.testing.assert_allclose(full_affinity(x), expected, rtol=1e-9, atol=1e-300)
    np.testing.assert_allclose(full_affinity(100 * x), expected, rtol=1e-4, atol=1e-300)


def test_radius_affinity_by_its_formula(monkeypatch):
    monkeypatch.setattr(spectral, "BLOCK_MIB", 7 * 30 * 8 / 2**20)  # 7 rows
    x = unit_normal(30, 3, 2)
    squared = dense_squared(x)
    expected = np.exp(-((squared / (0.05 * squared.max())) ** 2))
    assert np.sum((expected > 0) & (expected < 1e-6)) > 0
    expected[expected < 1e-6] = 0.0
    found = radius_affinity(x)
    np.testing.assert_allclose(found.toarray(), expected, rtol=1e-8)
    assert found.nnz == np.count_nonzero(expected) < 900


# 12 n_vectors and more go to ARPACK, up to 10 n_vectors to the dense solver
@pytest.mark.parametrize("n, k", [(40, 4), (60, 5), (200, 5), (150, 8)])
@pytest.mark.parametrize("parts", [1, 3])
def test_leading_vectors_span_the_dense_ones(n, k, parts):
    dense = random_graph(n, seed=n, parts=parts)
    values, reference = dense_vectors(dense, k)
    found, degrees = leading_vectors(sparse.csr_array(dense), k)
    assert_same_span(found, reference)
    np.testing.assert_allclose(degrees, dense.sum(axis=1))
    scaled = dense / np.sqrt(degrees[:, None] * degrees)
    np.testing.assert_allclose(np.sum(found * (scaled @ found), axis=0), values, atol=1e-7)


@pytest.mark.parametrize("n, k", [(40, 4), (120, 5)])
@pytest.mark.parametrize("offset", [0.0, 0.5])
def test_leading_vectors_of_a_dense_affinity_and_with_an_offset(n, k, offset):
    affinity = full_affinity(unit_normal(n, 3, 5)) + offset * np.eye(n)
    reference = dense_vectors(affinity, k, offset)[1]
    assert_same_span(leading_vectors(affinity, k, offset=offset)[0], reference)
    assert_same_span(leading_vectors(sparse.csr_array(affinity), k, offset=offset)[0], reference)


@pytest.mark.parametrize("n, k", [(12, 9), (12, 12), (30, 25)])
def test_vectors_of_negative_eigenvalues(n, k):
    dense = random_graph(n, seed=1)
    values, vectors = np.linalg.eigh(dense / np.sqrt(np.outer(dense.sum(0), dense.sum(0))))
    assert values[n - k] < -0.1
    found = leading_vectors(sparse.csr_array(dense), k)[0]
    assert_same_span(found, vectors[:, n - k :])


def test_a_sample_without_edges_is_a_part_of_its_own():
    dense = random_graph(100, seed=3)
    dense[7] = dense[:, 7] = 0.0
    found, degrees = leading_vectors(sparse.csr_array(dense), 3)
    assert degrees[7] == 1.0
    np.testing.assert_allclose(np.sum(found[7] ** 2), 1.0, atol=1e-12)
    np.testing.assert_allclose(found.T @ found, np.eye(3), atol=1e-8)


@pytest.mark.parametrize("bridge", [0.0, 1e-14, 1e-9])
@pytest.mark.parametrize("form", [np.asarray, sparse.csr_array])
@pytest.mark.parametrize("seed", range(3))
def test_repeated_eigenvalues_are_not_missed(seed, form, bridge):
    """Five groups that hang together by next to nothing: one Lanczos process finds fewer."""
    dense = scipy.linalg.block_diag(*[random_graph(60, seed=10 * seed + i) for i in range(5)])
    ends = 60 * np.arange(1, 5)
    dense[ends, ends - 1] = dense[ends - 1, ends] = bridge
    assert_same_span(leading_vectors(form(dense), 5, seed)[0], dense_vectors(dense, 5)[1])


def test_a_long_chain():
    """Lanczos iterations are slow on a path: its gaps are of the order of 1 / n^2."""
    n = 1500
    chain = sparse.diags_array([np.ones(n - 1), np.ones(n - 1)], offsets=[-1, 1], format="csr")
    found = leading_vectors(chain, 3)[0]
    position = np.arange(n)
    for index in range(3):
        wave = np.cos(np.pi * index * position / (n - 1))
        wave[[0, -1]] /= np.sqrt(2.0)
        wave /= np.linalg.norm(wave)
        assert abs(found[:, index] @ wave) == pytest.approx(1.0, abs=1e-6)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", ["moons", "rings", "blobs"])
def test_shapes_that_spectral_clustering_finds(method, name):
    X, y = shape(name)
    k = len(set(y))
    labels = METHODS[method](k).fit(X).labels_
    assert labels.dtype == np.int32 and set(labels) == set(range(k))
    assert adjusted_rand_score(y, labels) == 1.0
    by_means = adjusted_rand_score(y, KMeans(k).fit(X).labels_)
    assert by_means == 1.0 if name == "blobs" else by_means < 0.35


@pytest.mark.parametrize("method", METHODS)
def test_moons_that_touch_are_not_found(method):
    X, y = shape("noisy moons")
    assert adjusted_rand_score(y, METHODS[method](2).fit(X).labels_) < 0.6


@pytest.mark.parametrize("method, found", [(SCNJW, False), (NCuts, False), (SCST, True)])
def test_on_all_pairs_one_bandwidth_is_too_wide_for_the_moons(method, found):
    """A twentieth of the mean squared distance bridges the gap; local scales do not."""
    X, y = shape("moons")
    score = adjusted_rand_score(y, method(2, graph="full").fit(X).labels_)
    assert score == 1.0 if found else 0.5 < score < 0.95


def test_n_cuts_rounds_the_generalised_eigenvectors(monkeypatch):
    rounded = []

    def discretize(vectors, run=spectral.discretize, **options):
        rounded.append(vectors)
        return run(vectors, **options)

    monkeypatch.setattr(spectral, "discretize", discretize)
    X, _ = shape("noisy moons")
    NCuts(4, n_neighbors=10).fit(X)
    affinity = knn_affinity(X.astype(np.float32), 10).toarray()
    degrees = np.diag(affinity.sum(axis=1))
    reference = scipy.linalg.eigh(degrees - affinity, degrees)[1][:, :4]
    np.testing.assert_allclose(np.abs(np.diag(rounded[0].T @ degrees @ reference)), 1.0, atol=1e-5)


def test_rows_are_clustered_by_direction():
    vectors = unit_normal(80, 3, 0).astype(np.float64)
    lengths = np.random.default_rng(1).uniform(0.01, 100.0, (80, 1))
    labels, other = (SCNJW(4)._labels(rows, np.ones(80), 0) for rows in (vectors, lengths * vectors))
    assert adjusted_rand_score(labels, other) == 1.0


def normalised_cut(affinity, labels):
    cuts = [affinity[labels == c][:, labels != c].sum() / affinity[labels == c].sum() for c in np.unique(labels)]
    return sum(cuts)


def test_the_cut_of_n_cuts_is_smaller_than_that_of_k_means_and_of_random_moves():
    X, y = shape("noisy moons")
    affinity = knn_affinity(X.astype(np.float32), 10).toarray()
    labels = NCuts(2, n_neighbors=10).fit(X).labels_
    cut = normalised_cut(affinity, labels)
    assert cut < normalised_cut(affinity, KMeans(2).fit(X).labels_)
    assert cut < normalised_cut(affinity, y)
    rng = np.random.default_rng(0)
    for _ in range(20):
        moved = labels.copy()
        moved[rng.choice(300, 5, replace=False)] ^= 1
        assert cut < normalised_cut(affinity, moved)


@pytest.mark.parametrize("method", METHODS)
def test_the_order_of_the_samples_changes_names_only(method):
    X, y = shape("rings")
    order = np.random.default_rng(1).permutation(len(X))
    plain, moved = METHODS[method](2).fit(X).labels_, METHODS[method](2).fit(X[order]).labels_
    assert adjusted_rand_score(plain[order], moved) == 1.0


@pytest.mark.parametrize("method", METHODS)
def test_scale_of_the_features_and_repetition_change_nothing(method):
    X = shape("noisy moons")[0]
    first = METHODS[method](2, random_state=3).fit(X).labels_
    np.testing.assert_array_equal(first, METHODS[method](2, random_state=3).fit(X).labels_)
    np.testing.assert_array_equal(first, METHODS[method](2, random_state=3).fit(256 * X).labels_)


@pytest.mark.parametrize("method", ON_GRAPHS)
def test_more_parts_than_clusters_are_joined_with_a_warning(method):
    centers = np.eye(4)
    X = np.repeat(centers, 15, axis=0) + 0.01 * unit_normal(60, 4, 0)
    with pytest.warns(DisconnectedGraphWarning):
        labels = METHODS[method](3).fit(X).labels_
    assert set(labels) == {0, 1, 2}
    for part in labels.reshape(4, 15):
        assert len(set(part)) == 1


@pytest.mark.parametrize("method", ON_GRAPHS)
@pytest.mark.parametrize("n_clusters", [4, 5])
def test_at_least_as_many_clusters_as_parts(method, n_clusters):
    X = np.repeat(np.eye(4), 40, axis=0) + 0.01 * unit_normal(160, 4, 0)
    labels = METHODS[method](n_clusters).fit(X).labels_
    assert set(labels) == set(range(n_clusters))
    table = {(part, label) for part, label in zip(np.repeat(range(4), 40), labels, strict=True)}
    assert len(table) == n_clusters  # no cluster holds images of two parts


@pytest.mark.parametrize("graph", ["knn", "full"])
@pytest.mark.parametrize("method", [SCNJW, NCuts, SCST])
@pytest.mark.filterwarnings("ignore:Number of distinct clusters", "ignore:the k-NN graph has")
def test_duplicates_dark_images_and_one_cluster(method, graph):
    distinct = unit_normal(6, 8, 0)
    X = np.vstack([np.repeat(distinct, 12, axis=0), np.zeros((3, 8))])
    options = {"n_neighbors": 8, "graph": graph}
    labels = method(6, **options).fit(X[:72]).labels_
    assert adjusted_rand_score(np.repeat(range(6), 12), labels) == 1.0
    assert set(method(1, **options).fit(X[:72]).labels_) == {0}
    assert len(set(method(2, **options).fit(X).labels_)) == 2
    alike = np.outer(np.arange(1, 20), distinct[0])  # the same but for brightness
    labels = method(2, **options).fit(alike).labels_
    assert labels.shape == (19,) and set(labels) <= {0, 1}


def test_images_without_a_near_one_join_the_nearest_mean_in_n_cuts():
    """Two crowds, and lone images that lean a little towards one of them."""
    axes = np.eye(12)
    crowds = np.repeat(axes[:2], [30, 20], axis=0) + 0.02 * unit_normal(50, 12, 0)
    lone = axes[2:] + 0.1 * np.repeat(axes[:2], [3, 7], axis=0)
    for seed in range(3):
        labels = NCuts(2, graph="full", random_state=seed).fit(np.vstack([crowds, lone])).labels_
        assert len(set(labels[:30])) == len(set(labels[30:50])) == 1 and labels[0] != labels[30]
        assert set(labels[50:53]) == {labels[0]} and set(labels[53:]) == {labels[30]}


@pytest.mark.parametrize("graph", ["knn", "full"])
@pytest.mark.parametrize("method", [SCNJW, NCuts, SCST])
def test_as_many_clusters_as_samples(method, graph):
    labels = method(9, n_neighbors=8, graph=graph).fit(unit_normal(9, 5, 0)).labels_
    assert 1 < len(set(labels)) <= 9 and labels.min() == 0


@pytest.mark.parametrize("method", [SCNJW, NCuts, SCST])
def test_wrong_input_is_refused(method):
    X = unit_normal(30, 4, 0)
    with pytest.raises(ValueError, match="n_neighbors=30 needs at least 31"):
        method(3, n_neighbors=30).fit(X)
    with pytest.raises(ValueError, match="more than the 30 images"):
        method(31).fit(X)
    with pytest.raises(ValueError, match="at least 1"):
        method(0).fit(X)
    with pytest.raises(ValueError, match="knn"):
        method(3, graph="nearest").fit(X)
    with pytest.raises(ValueError, match="NaN"):
        method(3).fit(np.where(np.arange(30)[:, None] == 4, np.nan, X))
    with pytest.raises(ValueError, match="constant"):
        method(3).fit(np.full((30, 4, 4), 7, np.uint8))
    assert method(3, n_neighbors=30, graph="full").fit(X).labels_.shape == (30,)


def test_a_full_graph_that_does_not_fit_is_refused_before_it_is_made(monkeypatch):
    with pytest.raises(MemoryError, match=r"1048576\.0 GiB.*available: use less"):
        checks.check_memory(2**50, "this", "use less")
    asked = []
    monkeypatch.setattr(spectral, "check_memory", lambda needed, *text: asked.append(needed))
    full_affinity(unit_normal(50, 3, 0))
    assert asked == [8 * 50 * 50]


def test_images_are_flattened_and_normalised():
    pixels = np.random.default_rng(0).integers(0, 256, (60, 5, 4), dtype=np.uint8)
    flat = pixels.reshape(60, 20).astype(np.float32)
    labels = SCNJW(4, n_neighbors=6).fit(Images(pixels, np.arange(60) % 4)).labels_
    np.testing.assert_array_equal(labels, SCNJW(4, n_neighbors=6).fit(flat).labels_)
