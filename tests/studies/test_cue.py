"""Equations 1 to 4 of paper 003 against literal float64 sums, and which assignments of the blocks can be fetched."""

import math
from itertools import permutations

import numpy as np
import pytest

from reprolib.studies.cue import (
    blocks,
    cue_values,
    decomposition,
    estimated_cross_entropy,
    expected_cross_entropy,
    expected_entropy,
    fetched,
)


def tables(seed, m=6, k=4):
    """A joint (m, k) with zeros, among them a whole cluster's in one row, and an approximation without."""
    rng = np.random.default_rng(seed)
    p = rng.exponential(size=(m, k)) * (rng.random((m, k)) < 0.7)
    p[0] = [0.3, 0, 0, 0]
    return p / p.sum(), rng.dirichlet(np.ones(k), m)


def literal(p, q):
    """Expected cross-entropy, divergence and entropy, x by x as equations 1 and 2 write them."""
    cross = divergence = entropy = 0.0
    for row, approximation in zip(p, q, strict=True):
        px = sum(row)
        for pxy, qy in zip(row, approximation, strict=True):
            if pxy > 0:
                py = pxy / px
                cross += px * -(py * math.log(qy))
                divergence += px * py * math.log(py / qy)
                entropy += px * -(py * math.log(py))
    return cross, divergence, entropy


@pytest.mark.parametrize("seed", range(5))
def test_cross_entropy_and_its_parts_equal_the_literal_sums(seed):
    p, q = tables(seed)
    cross, divergence, entropy = literal(p, q)
    assert expected_cross_entropy(p, q) == pytest.approx(cross, rel=1e-12)
    assert decomposition(p, q) == pytest.approx((divergence, entropy), rel=1e-12)
    assert divergence + entropy == pytest.approx(cross, rel=1e-12)
    assert expected_entropy(p) == pytest.approx(entropy, rel=1e-12)


@pytest.mark.parametrize("seed", range(20))
def test_the_bound_holds_and_is_tight_for_the_posterior_alone(seed):
    p, q = tables(seed)
    p[p.sum(1) == 0] = 1 / 24
    p /= p.sum()
    posterior = p / p.sum(1, keepdims=True)
    assert expected_cross_entropy(p, posterior) == pytest.approx(expected_entropy(p), rel=1e-12)
    for part in (1.0, 1e-2, 1e-3):  # the bound opens with the square of the error
        mixed = (1 - part) * posterior + part * q
        assert expected_cross_entropy(p, mixed) > expected_entropy(p) + 1e-3 * part**2
    unseen = np.vstack([p, np.zeros(4)])  # what q says where p has nothing is free
    assert expected_cross_entropy(unseen, np.vstack([posterior, q[:1]])) == pytest.approx(
        expected_entropy(p), rel=1e-12
    )


def test_ruling_out_what_occurs_costs_infinitely_much_and_certainty_nothing():
    p = np.array([[0.5, 0.0], [0.1, 0.4]])
    assert expected_cross_entropy(p, np.eye(2)) == math.inf
    sure = np.eye(2) / 2
    assert [math.copysign(1, value) for value in (expected_entropy(sure), expected_cross_entropy(sure, np.eye(2)))] == [
        1,
        1,
    ]
    assert expected_entropy(np.full((3, 10), 1 / 30)) == pytest.approx(math.log(10), rel=1e-12)


def test_the_estimate_is_the_mean_over_drawn_pairs():
    p, q = tables(1)
    (estimate,) = estimated_cross_entropy(p, q, 50, np.random.default_rng(7))
    counts = np.random.default_rng(7).multinomial(50, p.ravel()).reshape(p.shape)
    pairs = [(i, j) for i in range(6) for j in range(4) for _ in range(counts[i, j])]
    y = np.eye(4)[[j for _, j in pairs]]  # one-hot, a row for each pair drawn
    total = sum(y[i, j] * math.log(q[x, j]) for i, (x, _) in enumerate(pairs) for j in range(4))
    assert len(pairs) == 50
    assert estimate == pytest.approx(-total / 50, rel=1e-12)


@pytest.mark.parametrize("n", [10, 1000])
def test_the_estimate_is_unbiased_and_its_error_falls_with_the_root_of_n(n):
    p, q = tables(2)
    drawn = estimated_cross_entropy(p, q, n, np.random.default_rng(0), repeats=20_000)
    expected = expected_cross_entropy(p, q)
    deviation = math.sqrt((p * np.log(q) ** 2).sum() - expected**2)
    assert drawn.shape == (20_000,)
    assert drawn.mean() == pytest.approx(expected, abs=5 * deviation / math.sqrt(n * 20_000))
    assert drawn.std() == pytest.approx(deviation / math.sqrt(n), rel=0.03)


def test_the_blocks_are_those_of_figure_1():
    features = blocks()
    color, shape, size = features.T
    assert features.shape == (100, 3) == np.unique(features, axis=0).shape
    for values, count in ((color, 10), (shape, 20), (size, 5)):
        assert np.array_equal(np.bincount(values), np.full(count, 100 // count))
    for one, other in ((color, size), (shape, size), (color, shape // 2)):  # independent
        met = np.unique(np.stack([one, other]), axis=1, return_counts=True)[1]
        assert len(met) == (one.max() + 1) * (other.max() + 1) and met.min() == met.max()


color, shape, size = blocks().T
ONE = np.eye(10)
# what decides p(y|x): table of p(y|x); values of the cue, and the distance of what is fetched from what there is
ASSIGNMENTS = {
    "color": (ONE[color], 10, 0.0),
    "shape in pairs": (ONE[shape // 2], 20, 0.5),
    "size, five left empty": (ONE[size], 5, 0.0),
    "size, a coin for two": ((ONE[2 * size] + ONE[2 * size + 1]) / 2, 5, 0.0),
    "size and half of the shapes": (ONE[2 * size + shape % 2], 100, 0.9),
    "color or shape, by a coin": ((ONE[color] + ONE[shape // 2]) / 2, 100, 0.9),
    "dealt": (ONE[np.random.default_rng(0).permutation(100) % 10], 100, 0.9),
    "not looked at": (np.full((100, 10), 0.1), 1, 0.0),
}


@pytest.mark.parametrize("name", ASSIGNMENTS)
def test_what_is_fetched_when_the_basket_decides_the_cue(name):
    posterior, n_values, distance = ASSIGNMENTS[name]
    p = posterior / 100
    values = cue_values(p, blocks())
    assert set(values) == set(range(n_values))
    found = fetched(p, values)
    assert found.sum() == pytest.approx(1.0, rel=1e-12)
    assert np.abs(found - 0.01).sum() / 2 == pytest.approx(distance, abs=1e-12)
    np.testing.assert_allclose(fetched(p, np.zeros(100, int)), 0.01)  # free within the basket: p(x) of any assignment


def test_the_commonest_value_is_fetched_and_the_first_of_equals():
    p = np.array([[0.1, 0], [0.1, 0], [0.3, 0], [0, 0.25], [0, 0.25]])
    np.testing.assert_allclose(fetched(p, np.array([0, 1, 0, 1, 0])), [0.125, 0, 0.375, 0, 0.5])
    values = np.array([1, 0, 0, 1, 1])
    np.testing.assert_allclose(fetched(p, values), [0, 0.125, 0.375, 0.25, 0.25])
    many = np.array([[0.4], [0.3], [0.3]])  # two samples of a value outweigh a larger one
    np.testing.assert_allclose(fetched(many, np.array([0, 1, 1])), [0, 0.5, 0.5])
    rounded = np.array([[0.3, 0], [0.1, 0], [0.2, 0], [0, 0.4]])  # 0.1 + 0.2 is not 0.3, and yet no more
    np.testing.assert_allclose(fetched(rounded, np.array([0, 1, 1, 0])), [0.6, 0, 0, 0.4])


def test_samples_of_different_weight_have_one_cue():
    p = np.array([[0.1, 0.2], [0.2, 0.4], [0.1, 0.0]])
    assert cue_values(p, np.array([[5, 0], [5, 1], [3, 2]])).tolist() == [1, 1, 0]


@pytest.mark.parametrize("seed", range(10))
def test_no_more_values_come_than_there_are_baskets(seed):
    rng = np.random.default_rng(seed)
    p = ONE[rng.permutation(100) % 10] / 100
    for values in (shape, color, size):
        found = fetched(p, values)
        n_values = values.max() + 1
        assert len(set(values[found > 0])) <= 10
        assert np.abs(found - 0.01).sum() / 2 >= 1 - 10 / n_values - 1e-12


def test_of_all_even_assignments_only_those_by_the_precise_feature_can_be_fetched():
    features = np.stack(np.divmod(np.arange(6), 3), axis=1)  # two colours times three shapes
    assignments = sorted(set(permutations([0, 0, 1, 1, 2, 2])))
    passed = []
    for labels in assignments:
        p = np.eye(3)[list(labels)] / 6
        assert expected_entropy(p) == 0.0
        if np.allclose(fetched(p, cue_values(p, features)), 1 / 6):
            passed.append(labels)
    assert len(assignments) == 90
    assert passed == [(*order, *order) for order in permutations(range(3))]


def test_tables_that_are_none_are_refused():
    p, q = tables(0)
    for wrong in (p * 2, np.array([[1.5, -0.5]]), p[0] / p[0].sum()):
        with pytest.raises(ValueError, match="must be a table of probabilities with sum 1"):
            expected_entropy(wrong)
    for wrong in (q * 2, q[:3], q.T, np.tile([1.5, -0.5, 0, 0], (6, 1))):
        with pytest.raises(ValueError, match="rows with sum 1"):
            expected_cross_entropy(p, wrong)
    with pytest.raises(ValueError, match="give features that tell them apart"):
        cue_values(np.eye(2) / 2, np.zeros((2, 1), int))
    with pytest.raises(ValueError, match="leave it out"):
        cue_values(np.array([[1.0, 0.0], [0.0, 0.0]]), np.arange(2)[:, None])
