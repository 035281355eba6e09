"""Metrics against literal definitions and scikit-learn, and the properties that pages rely on."""

import doctest
import itertools
import math
from collections import Counter

import numpy as np
import pytest
import sklearn.metrics as oracle
from hypothesis import given
from hypothesis import strategies as st

from reprolib import metrics

small = st.integers(1, 30).flatmap(
    lambda n: st.tuples(
        st.lists(st.integers(0, 4), min_size=n, max_size=n), st.lists(st.integers(0, 4), min_size=n, max_size=n)
    )
)


def literal_accuracy(y, labels):
    """Try every one-to-one map of clusters to classes; -1 stands for no class."""
    clusters, classes = sorted(set(labels)), sorted(set(y))
    classes += [-1] * max(0, len(clusters) - len(classes))
    best = 0
    for chosen in itertools.permutations(classes, len(clusters)):
        to_class = dict(zip(clusters, chosen, strict=True))
        best = max(best, sum(to_class[b] == a for a, b in zip(y, labels, strict=True)))
    return best / len(y)


def literal_nmi(y, labels, average):
    """Sum over the joint distribution as the definition has it, in float64."""
    n = len(y)
    joint, py, pl = Counter(zip(y, labels, strict=True)), Counter(y), Counter(labels)
    information = sum(c / n * math.log(c * n / (py[a] * pl[b])) for (a, b), c in joint.items())
    h_y = -sum(c / n * math.log(c / n) for c in py.values())
    h_l = -sum(c / n * math.log(c / n) for c in pl.values())
    if len(py) == len(pl) == 1:
        return 1.0
    mean = {"geometric": math.sqrt(h_y * h_l), "arithmetic": (h_y + h_l) / 2, "max": max(h_y, h_l)}[average]
    return 0.0 if mean == 0 else information / mean


def literal_ari(y, labels):
    """Count pairs one by one."""
    pairs = list(itertools.combinations(range(len(y)), 2))
    if not pairs:
        return 1.0
    same_y = [y[i] == y[j] for i, j in pairs]
    same_l = [labels[i] == labels[j] for i, j in pairs]
    both = sum(a and b for a, b in zip(same_y, same_l, strict=True))
    expected = sum(same_y) * sum(same_l) / len(pairs)
    most = (sum(same_y) + sum(same_l)) / 2
    return 1.0 if most == expected else (both - expected) / (most - expected)


def literal_purity(y, labels):
    groups = {c: [a for a, b in zip(y, labels, strict=True) if b == c] for c in set(labels)}
    return sum(Counter(g).most_common(1)[0][1] for g in groups.values()) / len(y)


@given(small)
def test_scores_equal_their_literal_definitions(pair):
    y, labels = pair
    assert metrics.accuracy(y, labels) == pytest.approx(literal_accuracy(y, labels), abs=1e-12)
    assert metrics.purity(y, labels) == pytest.approx(literal_purity(y, labels), abs=1e-12)
    assert metrics.ari(y, labels) == pytest.approx(literal_ari(y, labels), abs=1e-12)
    for average in metrics.AVERAGES:
        ours = metrics.nmi(y, labels, average=average)
        assert ours == pytest.approx(max(0.0, literal_nmi(y, labels, average)), abs=1e-9)


@pytest.mark.parametrize("n_clusters", [1, 3, 10, 25])
def test_scores_equal_scikit_learn(n_clusters):
    rng = np.random.default_rng(n_clusters)
    y = rng.integers(0, 10, 2000)
    labels = np.where(rng.random(2000) < 0.6, y % n_clusters, rng.integers(0, n_clusters, 2000))
    for average in metrics.AVERAGES:
        expected = oracle.normalized_mutual_info_score(y, labels, average_method=average)
        # scikit-learn's geometric mean of a zero entropy is a tiny number, not zero
        assert metrics.nmi(y, labels, average=average) == pytest.approx(expected, abs=1e-9)
    assert metrics.ari(y, labels) == pytest.approx(oracle.adjusted_rand_score(y, labels), abs=1e-12)
    table = oracle.cluster.contingency_matrix(y, labels)
    np.testing.assert_array_equal(metrics.confusion(y, labels), table)


@given(small, st.randoms(use_true_random=False))
def test_scores_do_not_depend_on_the_numbering(pair, random):
    y, labels = np.array(pair[0]), np.array(pair[1])
    ids = random.sample(range(1000), 5)
    order = random.sample(range(len(y)), len(y))
    before = metrics.summary(y, labels)
    after = metrics.summary(y[order] + 7, np.array(ids)[labels][order])
    assert after == pytest.approx(before, abs=1e-12)


@given(small)
def test_orders_between_scores(pair):
    s = metrics.summary(*pair)
    assert s["nmi_max"] <= s["nmi_arithmetic"] + 1e-12
    assert s["nmi_arithmetic"] <= s["nmi_geometric"] + 1e-12
    assert s["acc"] <= s["purity"]
    assert all(math.isfinite(v) for v in s.values())
    assert s["ari"] <= 1
    assert all(0 <= v <= 1 for k, v in s.items() if k != "ari")


@given(small, st.integers(1, 31))
def test_batches_are_averaged_by_their_sizes_and_flatter(pair, size):
    y, labels = map(np.array, pair)
    whole, batched = metrics.summary(y, labels), metrics.batch_means(y, labels, size)
    assert batched.keys() == whole.keys()
    parts = [(pair[0][i : i + size], pair[1][i : i + size]) for i in range(0, len(y), size)]
    agreeing = sum(literal_purity(*part) * len(part[0]) for part in parts)
    assert batched["purity"] == pytest.approx(agreeing / len(y), abs=1e-12)
    assert batched["purity"] >= whole["purity"] - 1e-12 and batched["acc"] >= whole["acc"] - 1e-12
    assert batched["purity"] >= batched["acc"] - 1e-12
    if size >= len(y):
        assert batched == pytest.approx(whole)


def test_random_labels_score_in_batches_what_chance_gives():
    rng, n = np.random.default_rng(0), 20_000
    y, labels = rng.permutation(np.arange(n) % 10), rng.integers(0, 10, n)
    batched = metrics.batch_means(y, labels)
    # standard errors over 200 batches: 0.002
    assert batched["purity"] == pytest.approx(0.27, abs=0.01)
    assert batched["ari"] == pytest.approx(0, abs=0.005) and metrics.purity(y, labels) < 0.13
    # a data set sorted by class is no problem in batches of one class
    assert metrics.batch_means(np.sort(y), labels)["purity"] == 1.0


def test_a_batch_has_at_least_one_sample():
    with pytest.raises(ValueError, match="at least 1 sample a batch; got 0"):
        metrics.batch_means([0, 1], [0, 1], size=0)


def test_perfect_and_trivial_partitions():
    y = [0, 0, 1, 1, 2]
    perfect = metrics.summary(y, [4, 4, 9, 9, 0])
    assert perfect == pytest.approx(dict.fromkeys(perfect, 1.0))
    one = metrics.summary(y, [0] * 5)
    assert [one[k] for k in one if k.startswith("nmi")] == [0.0, 0.0, 0.0]
    assert one["ari"] == 0.0 and one["acc"] == one["purity"] == 0.4
    assert set(metrics.summary([3, 3], [1, 1]).values()) == {1.0}
    assert metrics.summary([0], [0])["ari"] == 1.0
    singletons = metrics.summary(y, range(5))
    assert singletons["purity"] == 1.0 and singletons["acc"] == 0.6


def test_match_is_one_to_one_and_gives_the_accuracy():
    rng = np.random.default_rng(1)
    y, labels = rng.integers(0, 4, 200), rng.integers(10, 17, 200)
    mapping = metrics.match(y, labels)
    assert len(mapping) == len(set(mapping.values())) == 4
    agree = np.mean([mapping.get(b, -1) == a for a, b in zip(y, labels, strict=True)])
    assert agree == metrics.accuracy(y, labels)


def test_large_ids_need_no_large_table():
    assert metrics.accuracy([0, 2**62], [2**62, 5]) == 1.0


def test_any_integer_type_and_no_overflow():
    y = np.repeat(np.arange(10, dtype=np.uint8), 20_000)
    assert metrics.ari(y, y.astype(np.int16)) == 1.0
    assert metrics.accuracy(list(y[:30]), y[:30].astype(np.uint64)) == 1.0


@pytest.mark.parametrize(
    ("y", "labels", "error", "says"),
    [
        ([0, 1], [0, 1, 2], ValueError, "2 samples and labels has 3"),
        ([], [], ValueError, "empty"),
        ([[0, 1]], [[0, 1]], ValueError, "argmax"),
        ([0.0, 1.0], [0, 1], TypeError, "dtype float64"),
        ([0, 1], [0.0, float("nan")], TypeError, "labels.*integers"),
        ([0, 1], [-1, 0], ValueError, "negative id -1.*noise"),
        (["a", "b"], [0, 1], TypeError, "return_inverse"),
        ([True, False], [0, 1], TypeError, "bool"),
    ],
)
def test_bad_input_is_refused(y, labels, error, says):
    for score in (metrics.accuracy, metrics.nmi, metrics.ari, metrics.purity, metrics.summary, metrics.batch_means):
        with pytest.raises(error, match=says):
            score(y, labels)


def test_unknown_normaliser_names_the_nearest():
    with pytest.raises(ValueError, match="Did you mean 'arithmetic'"):
        metrics.nmi([0, 1], [0, 1], average="arithmetical")


def test_the_docstrings_tell_the_truth():
    outcome = doctest.testmod(metrics)
    assert outcome.attempted > 5 and outcome.failed == 0
