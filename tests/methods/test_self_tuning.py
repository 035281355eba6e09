"""SC-ST and SC-LS beside literal references: local scales, rotation cost, landmark weights."""

import numpy as np
import pytest
from sklearn.metrics import adjusted_rand_score

from reprolib.methods import self_tuning
from reprolib.methods.self_tuning import (
    SCLS,
    SCST,
    align,
    givens_rotation,
    landmark_vectors,
    landmark_weights,
    local_full_affinity,
    local_knn_affinity,
    rotation_cost,
)
from reprolib.methods.spectral import SCNJW


def normal(n, d, seed):
    return np.random.default_rng(seed).standard_normal((n, d))


def dense_squared(x, y):
    return np.array([[np.sum((a - b) ** 2) for b in y] for a in x])


def literal_rotation(angles, k):
    rotation, angles = np.eye(k), iter(angles)
    for i in range(k):
        for j in range(i + 1, k):
            angle = next(angles)
            plane = np.eye(k)
            plane[i, i] = plane[j, j] = np.cos(angle)
            plane[i, j], plane[j, i] = -np.sin(angle), np.sin(angle)
            rotation = rotation @ plane
    return rotation


def literal_cost(angles, vectors):
    z = vectors @ literal_rotation(angles, vectors.shape[1])
    total = 0.0
    for row in z:
        largest = max(entry**2 for entry in row)
        total += sum(entry**2 / largest for entry in row)
    return total / len(z)


@pytest.mark.parametrize("k", [1, 2, 3, 6])
def test_rotation_cost_and_gradient_beside_the_literal_ones(k):
    rng = np.random.default_rng(k)
    vectors, angles = rng.standard_normal((25, k)), rng.uniform(-3, 3, k * (k - 1) // 2)
    rotation = givens_rotation(angles, k)
    np.testing.assert_allclose(rotation, literal_rotation(angles, k), atol=1e-12)
    np.testing.assert_allclose(rotation.T @ rotation, np.eye(k), atol=1e-12)
    cost, gradient = rotation_cost(angles, vectors)
    assert cost == pytest.approx(literal_cost(angles, vectors), rel=1e-12)
    assert 1.0 <= cost <= k + 1e-12
    step = 1e-6
    numeric = [
        (literal_cost(angles + e, vectors) - literal_cost(angles - e, vectors)) / (2 * step)
        for e in step * np.eye(len(angles))
    ]
    np.testing.assert_allclose(gradient, np.array(numeric).reshape(-1), atol=1e-7)
    scaled = rotation_cost(angles, vectors * rng.uniform(0.1, 9.0, (25, 1)))
    assert scaled[0] == pytest.approx(cost, rel=1e-12)
    np.testing.assert_allclose(scaled[1], gradient, atol=1e-12)


@pytest.mark.parametrize("k", [2, 5])
def test_align_undoes_a_rotation_of_indicators(k):
    rng = np.random.default_rng(0)
    labels = rng.integers(0, k, 80)
    angles = rng.choice([-0.5, 0.5], k * (k - 1) // 2)
    mixed = np.eye(k)[labels] @ literal_rotation(angles, k)
    assert literal_cost(0 * angles, mixed) > 1.2
    rotated, cost = align(mixed)
    assert cost == pytest.approx(1.0, abs=1e-6)
    np.testing.assert_allclose(rotated @ rotated.T, mixed @ mixed.T, atol=1e-10)
    assert adjusted_rand_score(labels, np.abs(rotated).argmax(axis=1)) == 1.0


def test_align_lowers_the_cost_that_it_states():
    vectors = np.linalg.qr(normal(60, 4, 2))[0]
    rotated, cost = align(vectors)
    assert cost == pytest.approx(literal_cost(np.zeros(6), rotated), rel=1e-10)
    assert cost < literal_cost(np.zeros(6), vectors) - 0.1


def test_local_scales_by_their_formula():
    # far apart, so that the floor of 0.004 plays no part
    x = normal(40, 5, 3).astype(np.float32)
    squared = dense_squared(x.astype(np.float64), x.astype(np.float64))
    scale = np.sqrt(np.sort(squared, axis=1)[:, 4])  # the fourth neighbour: column 0 is the sample
    expected = np.exp(-squared / np.outer(scale, scale))
    np.fill_diagonal(expected, 0.0)
    np.testing.assert_allclose(local_full_affinity(x, 4), expected, rtol=1e-6)
    rank = np.argsort(np.argsort(squared, axis=1), axis=1)
    near = (rank >= 1) & (rank <= 6)
    found = local_knn_affinity(x, 6, 4).toarray()
    np.testing.assert_allclose(found, np.where(near | near.T, expected, 0.0), rtol=1e-5)
    np.testing.assert_allclose(local_knn_affinity(30 * x, 6, 4).toarray(), found, rtol=1e-4)


def test_the_floor_of_the_scales():
    x = np.repeat(normal(5, 3, 0), 10, axis=0).astype(np.float32)
    x[0] += 0.01
    squared = dense_squared(x.astype(np.float64), x.astype(np.float64))
    full, near = local_full_affinity(x, 7), local_knn_affinity(x, 9, 7).toarray()
    assert full[0, 1] == pytest.approx(np.exp(-squared[0, 1] / 0.004), rel=1e-6)
    assert full[1, 2] == near[1, 2] == 1.0
    assert near[0, 1] == pytest.approx(full[0, 1], rel=1e-5)


def test_local_scales_separate_what_one_bandwidth_joins():
    """Two tight clusters side by side and a wide one far off, which sets the common bandwidth."""
    rng = np.random.default_rng(0)
    first, far = np.eye(6)[0], np.eye(6)[1]
    second = first + 0.2 * np.eye(6)[2]
    X = np.repeat([first, second, far], 60, axis=0)
    X += np.repeat([0.02, 0.02, 0.25], 60)[:, None] * rng.standard_normal((180, 6))
    y = np.repeat(range(3), 60)
    assert adjusted_rand_score(y, SCST(3, graph="full").fit(X).labels_) == 1.0
    assert adjusted_rand_score(y, SCNJW(3, graph="full").fit(X).labels_) < 0.7


def test_the_rotation_is_kept_and_the_scale_neighbor_checked():
    X = normal(60, 3, 1)
    fitted = SCST(4, n_neighbors=10, scale_neighbor=5).fit(X)
    assert 1.0 < fitted.rotation_cost_ < 4.0
    with pytest.raises(ValueError, match="from 1 to n_neighbors=6"):
        SCST(3, n_neighbors=6).fit(X)
    with pytest.raises(ValueError, match="from 1 to n - 1=59, got 60"):
        SCST(3, graph="full", scale_neighbor=60).fit(X)


def literal_weights(x, landmarks, r):
    squared = dense_squared(x, landmarks)
    h = squared.mean()
    weights = np.zeros_like(squared)
    for i, row in enumerate(squared):
        nearest = np.argsort(row)[:r]
        kernel = np.exp(-row[nearest] / (2 * h**2))
        weights[i, nearest] = kernel / kernel.sum()
    return weights


@pytest.mark.parametrize("r", [1, 3, 8])
def test_landmark_weights_by_their_formula(r, monkeypatch):
    monkeypatch.setattr(self_tuning.spectral, "BLOCK_MIB", 11 * 8 * 8 / 2**20)  # 11 rows
    x, landmarks = 0.4 * normal(50, 4, 0), 0.4 * normal(8, 4, 1)
    found = landmark_weights(x.astype(np.float32), landmarks.astype(np.float32), r)
    np.testing.assert_allclose(found.toarray(), literal_weights(x, landmarks, r), rtol=1e-4)
    np.testing.assert_allclose(found.sum(axis=1), 1.0)


def test_landmark_weights_do_not_vanish_far_from_every_landmark():
    # h, the mean squared distance, is small beside the distance of the first sample
    x = np.vstack([[1e-2, 0.0], 1e-4 * normal(2000, 2, 0)]).astype(np.float32)
    weights = landmark_weights(x, x[1:9], 3)
    np.testing.assert_allclose(weights.sum(axis=1), 1.0)


def test_landmark_vectors_are_those_of_a_dense_svd():
    z = literal_weights(0.5 * normal(70, 3, 2), 0.5 * normal(12, 3, 3), 4)
    scaled = z / np.sqrt(z.sum(axis=0))
    left, singular, _ = np.linalg.svd(scaled, full_matrices=False)
    assert singular[0] == pytest.approx(1.0) and singular[1] < 0.999
    np.testing.assert_allclose(np.abs(left[:, 0]), 70**-0.5)  # the constant that is left out
    found = landmark_vectors(self_tuning.sparse.csr_array(z), 4)
    np.testing.assert_allclose(np.abs(np.sum(found * left[:, 1:5], axis=0)), 1.0, atol=1e-8)


def test_landmark_vectors_beyond_the_rank_are_zero():
    z = np.repeat(np.eye(3), 5, axis=0)  # three separate groups
    z = np.hstack([z, np.zeros((15, 2))])  # and two landmarks without samples
    found = landmark_vectors(self_tuning.sparse.csr_array(z), 4)
    np.testing.assert_allclose(found[:, 2:], 0.0)
    np.testing.assert_allclose(found[:, :2].T @ found[:, :2], np.eye(2), atol=1e-12)
    np.testing.assert_allclose(found.sum(axis=0), 0.0, atol=1e-12)


@pytest.mark.parametrize("landmarks", ["kmeans", "random"])
def test_scls_takes_fewer_landmarks_from_few_images(landmarks):
    X = np.repeat(np.eye(3), 20, axis=0) + 0.05 * normal(60, 3, 0)
    with pytest.warns(UserWarning, match="1000 landmarks .* 60 images: 30 are taken"):
        fitted = SCLS(3, landmarks=landmarks).fit(X)
    assert fitted.n_landmarks_ == 30 and fitted.labels_.dtype == np.int32
    assert adjusted_rand_score(np.repeat(range(3), 20), fitted.labels_) == 1.0
    again = SCLS(3, landmarks=landmarks, n_landmarks=30).fit(X)
    np.testing.assert_array_equal(again.labels_, fitted.labels_)


@pytest.mark.filterwarnings("ignore:Number of distinct clusters")
def test_scls_on_duplicates_and_one_cluster():
    X = np.repeat(normal(6, 8, 0), 12, axis=0)
    labels = SCLS(6, n_landmarks=20).fit(X).labels_
    assert len(set(labels)) <= 6
    for group in labels.reshape(6, 12):
        assert len(set(group)) == 1
    assert set(SCLS(1, n_landmarks=20).fit(X).labels_) == {0}
    alike = np.outer(np.arange(1, 30), X[0])  # the same but for brightness
    assert set(SCLS(2, n_landmarks=10).fit(alike).labels_) <= {0, 1}


def test_scls_refuses_wrong_input():
    X = normal(30, 4, 0)
    with pytest.raises(ValueError, match="more than the 30 images"):
        SCLS(31).fit(X)
    with pytest.raises(ValueError, match="15 landmarks of 30 images are too few for 15 clusters"):
        SCLS(15, n_landmarks=15).fit(X)
    with pytest.raises(ValueError, match="n_nearest=9"):
        SCLS(2, n_landmarks=8, n_nearest=9).fit(X)
    with pytest.raises(ValueError, match="kmeans"):
        SCLS(2, landmarks="centres").fit(X)
    with pytest.raises(ValueError, match="NaN"):
        SCLS(2).fit(np.where(X > 1, np.nan, X))
    with pytest.raises(ValueError, match="constant"):
        SCLS(2).fit(np.full((30, 4, 4), 7, np.uint8))
