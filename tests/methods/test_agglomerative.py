"""AC-GDL, AC-PIC and AC-Zell as estimators: shapes that they find and miss, invariances, bad input."""

import numpy as np
import pytest
from sklearn.datasets import make_blobs, make_circles, make_moons
from sklearn.metrics import adjusted_rand_score

from reprolib.data.images import Images
from reprolib.graph.strays import DisconnectedGraphWarning
from reprolib.methods import ACGDL, ACPIC, ACLink, ACZell, KMeans

METHODS = [ACGDL, ACPIC, ACZell]


def shape(name, n=240, seed=0):
    """Points of a plane off the origin (n, 3), whose directions keep the shape."""
    if name == "blobs":
        centers = [[-1, 0], [1, 0], [0, 1.5]]
        points, y = make_blobs(n, centers=centers, cluster_std=0.2, random_state=seed)
    elif name == "rings":
        points, y = make_circles(n, noise=0.04, factor=0.4, random_state=seed)
    else:
        noise = 0.05 if name == "moons" else 0.25
        points, y = make_moons(n, noise=noise, random_state=seed)
    points = (points - points.mean(0)) / np.abs(points).max()
    return np.c_[points + 1.5, np.full(n, 1.5)], y


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", ["moons", "rings", "blobs"])
def test_shapes_are_found_where_centres_and_averages_fail(method, name):
    X, y = shape(name)
    labels = method(len(set(y)), n_neighbors=10).fit(X).labels_
    assert labels.dtype == np.int32 and adjusted_rand_score(y, labels) == 1.0
    for other in (KMeans, ACLink):
        score = adjusted_rand_score(y, other(len(set(y))).fit(X).labels_)
        assert score == 1.0 if name == "blobs" else score < 0.5


@pytest.mark.parametrize("method", METHODS)
def test_moons_that_touch_are_missed(method):
    scores = []
    for seed in range(3):
        X, y = shape("noisy moons", seed=seed)
        scores.append(adjusted_rand_score(y, method(2, n_neighbors=10).fit(X).labels_))
    assert np.mean(scores) < 0.7


@pytest.mark.parametrize("method", METHODS)
def test_the_order_and_the_scale_of_the_samples_change_names_only(method):
    X, y = shape("noisy moons")
    order = np.random.default_rng(1).permutation(len(X))
    scales = np.random.default_rng(2).choice([0.25, 1.0, 8.0], (len(X), 1))
    plain = method(3, n_neighbors=10).fit(X).labels_
    assert adjusted_rand_score(plain[order], method(3, n_neighbors=10).fit(X[order]).labels_) == 1
    assert adjusted_rand_score(plain, method(3, n_neighbors=10).fit(scales * X).labels_) == 1
    np.testing.assert_array_equal(plain, method(3, n_neighbors=10).fit(X).labels_)


@pytest.mark.parametrize("method", METHODS)
def test_duplicates_parts_and_one_cluster(method):
    X = np.repeat(np.eye(4), 15, axis=0)
    options = {"n_neighbors": 5}
    assert adjusted_rand_score(np.repeat(range(4), 15), method(4, **options).fit(X).labels_) == 1
    with pytest.warns(DisconnectedGraphWarning, match="has 4 parts"):
        labels = method(2, **options).fit(X + 1e-3 * np.random.default_rng(0).random(X.shape)).labels_
    assert set(labels) == {0, 1}
    assert all(len(set(part)) == 1 for part in labels.reshape(4, 15))
    assert set(method(1, n_neighbors=10).fit(shape("noisy moons")[0]).labels_) == {0}


@pytest.mark.parametrize("method", METHODS)
def test_images_are_flattened_and_wrong_input_refused(method):
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (40, 5, 4), dtype=np.uint8)
    flat = pixels.reshape(40, 20).astype(np.float32)
    images = Images(pixels, np.arange(40) % 4)
    options = {"n_neighbors": 6}
    np.testing.assert_array_equal(method(3, **options).fit(images).labels_, method(3, **options).fit(flat).labels_)
    for wrong, message in (
        (flat[:6], "n_neighbors=6 needs at least 7"),
        (np.where(np.arange(40)[:, None] == 3, np.nan, flat), "NaN"),
        (np.full((40, 5, 4), 9, np.uint8), "constant"),
    ):
        with pytest.raises(ValueError, match=message):
            method(3, **options).fit(wrong)
    with pytest.raises(ValueError, match="n_clusters"):
        method(41, **options).fit(flat)
