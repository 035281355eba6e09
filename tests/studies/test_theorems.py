"""The theorems of DCSS in exact arithmetic, their bounds against every pair on a lattice, and where
they end: counterexamples at each threshold, and one step of a printed proof that fails."""

import itertools
import math
from fractions import Fraction
from operator import mul

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from reprolib.kernels.pairwise import pairwise_loss
from reprolib.kernels.soft_assignment import fuzzy_memberships, squared_distances
from reprolib.studies import theorems

HALF = Fraction(1, 2)
unhurried = settings(deadline=None)  # a busy machine is no failure


@st.composite
def rows(draw, count):
    """`count` soft assignments of one K as exact fractions; zeros, ties and near one-hots are common."""
    k = draw(st.integers(2, 8))
    found = []
    for _ in range(count):
        weights = draw(st.lists(st.integers(0, 6), min_size=k, max_size=k))
        # peaks mostly on one entry, or few triples would share a neighbour
        peak = draw(st.sampled_from([0, 0, 0, 1]))
        weights[peak] += draw(st.sampled_from([0, 6, 20, 100, 1000, 10**6]))
        assume(sum(weights))
        found.append([Fraction(w, sum(weights)) for w in weights])
    return found


def inner(a, b):
    return sum(map(mul, a, b))


def leaders(row):
    """Indices of the largest entry, more than one for a tie."""
    return {i for i, x in enumerate(row) if x == max(row)}


def fill(maximum, size):
    """The row of this maximum with its mass in as few entries as it can."""
    row, left = [], Fraction(1)
    for _ in range(size):
        row.append(min(maximum, left))
        left -= row[-1]
    return row


@unhurried
@given(rows(2))
def test_theorem_1_no_product_exceeds_the_smaller_maximum(pair):
    a, b = pair
    assert inner(a, b) <= min(max(a), max(b))
    bound = float(theorems.product_bound(float(max(a)), float(max(b))))
    assert bound == float(min(max(a), max(b)))
    assert float(inner(a, b)) <= theorems.largest_product(max(a), max(b)) + 1e-12


@unhurried
@given(st.integers(1, 60), st.integers(1, 60))
def test_the_largest_product_is_that_of_two_packed_rows(x, y):
    a, b = Fraction(x, 60), Fraction(y, 60)
    exact = inner(fill(a, 60), fill(b, 60))
    found = float(theorems.largest_product(float(a), float(b)))
    assert found == pytest.approx(float(exact), abs=1e-12)
    slack = min(a, b) - exact
    assert 0 <= slack <= Fraction(1, 8)
    assert (slack == Fraction(1, 8)) == (a == b == Fraction(3, 4))


def lattice(k, parts):
    """Every row of k multiples of 1 / parts: integers (rows, k)."""
    cuts = itertools.product(range(parts + 1), repeat=k)
    return np.array([c for c in cuts if sum(c) == parts])


@pytest.mark.parametrize(("k", "parts"), [(2, 30), (3, 18), (4, 12)])
def test_bounds_are_attained_among_all_pairs_of_a_lattice(k, parts):
    points = lattice(k, parts)
    product = points @ points.T  # (n, n), in units of 1 / parts^2
    peak = points.max(1)
    lead = points == peak[:, None]
    together = lead.astype(int) @ lead.T.astype(int) > 0
    single = lead.sum(1) == 1
    apart = ~(together & single[:, None] & single)  # a tie may go either way
    for x in np.unique(peak):
        sure = np.ix_(peak >= x, peak >= x)
        bound = theorems.largest_product_apart_from(x / parts)
        assert product[sure][apart[sure]].max() / parts**2 == pytest.approx(bound, abs=1e-12)
    for x, y in itertools.product(np.unique(peak), repeat=2):
        block = np.ix_(peak == x, peak == y)
        here, a, b = product[block] / parts**2, x / parts, y / parts
        largest = theorems.largest_product(a, b)
        assert here.max() == pytest.approx(largest, abs=1e-12)
        away = here[apart[block]].max()
        assert away == pytest.approx(theorems.largest_product_apart(a, b), abs=1e-12)
        least = here[together[block]].min(initial=1)
        bound = theorems.smallest_product_together(a, b, k)
        assert least >= bound - 1e-12
        if min(a, b) >= 0.5:
            assert least == pytest.approx(bound, abs=1e-12)


def test_the_printed_step_of_theorem_1_can_lower_the_product():
    """Equations 10 to 13 move mass to the argmax of q_j; it has to be that of q_i."""
    q_i, q_j = [Fraction(1, 10), Fraction(9, 10)], [Fraction(8, 10), Fraction(2, 10)]
    as_printed = [Fraction(1), Fraction(0)]
    assert inner(q_i, as_printed) < inner(q_i, q_j) < max(q_i)
    # nor must a maximal vector be one-hot: with a tie in q_i every q_j on it is
    tied = [HALF, HALF, Fraction(0)]
    for share in (Fraction(0), Fraction(1, 3), Fraction(1)):
        assert inner(tied, [share, 1 - share, Fraction(0)]) == max(tied)


@unhurried
@given(rows(2))
def test_corollary_1_1_gives_at_least_zeta_and_a_larger_one(pair):
    a, b = pair
    zeta = inner(a, b)
    assert min(max(a), max(b)) >= zeta
    if zeta >= HALF:
        assert max(*a, *b) >= theorems.larger_maximum(float(zeta)) - 1e-12


@pytest.mark.parametrize("zeta", [HALF, Fraction(4, 5), Fraction(1)])
def test_corollary_1_1_is_not_strict_and_the_larger_maximum_is_attained(zeta):
    one_hot, a = [Fraction(1), Fraction(0)], [zeta, 1 - zeta]
    assert inner(a, one_hot) == zeta == max(a)
    top = float(theorems.larger_maximum(float(zeta)))
    assert top**2 + (1 - top) ** 2 == pytest.approx(float(zeta))


@unhurried
@given(rows(4), st.fractions(0, 1))
def test_corollary_1_3_holds_for_any_zeta(four, zeta):
    a, near_a, b, near_b = four
    zeta = min(zeta, inner(a, near_a), inner(b, near_b))  # each has a similar neighbour
    if leaders(a) & leaders(b):
        assert inner(a, b) >= zeta**2


def test_corollary_1_3_needs_its_neighbours_when_clusters_are_many():
    for k in (2, 3, 4, 5, 10):
        flat = torch.full((2, k), 1 / k, dtype=torch.float64)
        flat[:, 0] += 1e-3  # together, without a tie
        flat[:, 1] -= 1e-3
        _, n_similar, n_dissimilar = pairwise_loss(flat)
        assert n_similar == 0 and n_dissimilar == (4 if k > 5 else 0)


@unhurried
@given(rows(2))
def test_theorem_2_more_than_one_half_means_one_common_largest_entry(pair):
    a, b = pair
    if inner(a, b) > HALF:
        assert leaders(a) == leaders(b) and len(leaders(a)) == 1
    if not leaders(a) & leaders(b):
        assert inner(a, b) < HALF


@unhurried
@given(st.fractions(HALF, 1, max_denominator=1000).filter(lambda z: z > HALF))
def test_above_one_half_the_sharp_bound_is_below_zeta_and_the_printed_one_need_not_be(zeta):
    bound = 2 * zeta * (1 - zeta)
    assert bound < zeta and bound <= 2 * (1 - zeta)
    assert theorems.similar_means_together(float(zeta))
    found = float(theorems.largest_product_apart_from(float(zeta)))
    assert found == pytest.approx(float(bound), abs=1e-12)
    assert (2 * (1 - zeta) < zeta) == (zeta > Fraction(2, 3))


@pytest.mark.parametrize("k", [2, 3, 10])
def test_at_one_half_two_halves_are_a_counterexample(k):
    rest = [Fraction(0)] * (k - 2)
    halves, leaning = [HALF, HALF, *rest], [Fraction(1, 10), Fraction(9, 10), *rest]
    assert inner(halves, halves) == inner(halves, leaning) == HALF
    # numpy gives a tie to the first index, so the two rows get different labels
    assert np.argmax(np.array(halves, float)) != np.argmax(np.array(leaning, float))
    assert not theorems.similar_means_together(0.5)
    assert theorems.similar_means_together(math.nextafter(0.5, 1))


def test_at_one_half_only_a_tie_can_break_it_and_below_nothing_is_needed():
    points = lattice(3, 12)
    for x, y in itertools.product(points.tolist(), repeat=2):
        if 2 * inner(x, y) >= 12**2:
            assert leaders(x) & leaders(y)
            assert leaders(x) == leaders(y) or len(leaders(x)) + len(leaders(y)) > 2
    near = Fraction(1, 1000)
    a, b = [HALF + near, HALF - near], [HALF - near, HALF + near]
    assert leaders(a) != leaders(b) and inner(a, b) == HALF - 2 * near**2
    assert not theorems.similar_means_together(float(inner(a, b)))


@unhurried
@given(rows(3))
def test_theorem_3_and_corollary_2_1_for_any_zeta_above_one_half(triple):
    i, j, k = triple
    zeta = min(inner(i, j), inner(i, k))
    if zeta > HALF:
        assert leaders(j) == leaders(k)
        assert inner(j, k) >= zeta**2
        bound = theorems.shared_neighbor_product(float(zeta), len(i))
        assert float(inner(j, k)) >= bound - 1e-12


@pytest.mark.parametrize("zeta", [Fraction(51, 100), Fraction(3, 5), Fraction(4, 5), Fraction(1)])
def test_theorem_3_is_sharp_and_says_nothing_about_similarity(zeta):
    rest, zero = 1 - zeta, Fraction(0)
    for i, j, k in (([1, 0], [zeta, rest], [zeta, rest]), ([1, 0, 0], [zeta, rest, zero], [zeta, zero, rest])):
        assert inner(i, j) == inner(i, k) == zeta
        bound = float(theorems.shared_neighbor_product(float(zeta), len(i)))
        assert float(inner(j, k)) == pytest.approx(bound, abs=1e-12)
        if len(i) == 3 and zeta < 1:
            assert inner(j, k) == zeta**2 < zeta  # not dissimilar, and not similar either


def test_theorem_3_fails_completely_at_one_half():
    i, j, k = [HALF, HALF], [Fraction(1), Fraction(0)], [Fraction(0), Fraction(1)]
    assert inner(i, j) == inner(i, k) == HALF and inner(j, k) == 0
    assert theorems.shared_neighbor_product(0.5, 2) == 0


@pytest.mark.parametrize(("zeta", "gamma", "dissimilar"), [(0.6, 0.4, True), (0.625, 0.375, False), (0.8, 0.2, False)])
def test_a_narrow_zone_tells_two_neighbours_of_one_sample_dissimilar(zeta, gamma, dissimilar):
    """zeta^2 > 1 - zeta only above (sqrt(5) - 1) / 2, inside the range of Figure 10."""
    rows = torch.tensor([[1, 0, 0], [zeta, 1 - zeta, 0], [zeta, 0, 1 - zeta]], dtype=torch.float64)
    _, _, n_dissimilar = pairwise_loss(rows, zeta=zeta, gamma=gamma)
    assert n_dissimilar == 2 * dissimilar
    assert (gamma < theorems.shared_neighbor_product(zeta, 3)) != dissimilar
    assert (zeta > (math.sqrt(5) - 1) / 2) != dissimilar


@unhurried
@given(rows(6), st.sampled_from([(0.8, 0.2), (0.7, 0.3), (0.55, 0.3)]))
def test_the_masks_of_a_batch_obey_theorems_2_and_3(batch, thresholds):
    zeta, gamma = thresholds
    q = torch.tensor([[float(x) for x in row] for row in batch], dtype=torch.float64)
    product = q @ q.T
    similar, dissimilar = product >= zeta, product <= gamma
    found = pairwise_loss(q, zeta=zeta, gamma=gamma)
    assert found[1:] == (similar.sum().item(), dissimilar.sum().item())
    labels = q.argmax(1)
    assert (labels[:, None] == labels)[similar].all()
    shared = similar.int() @ similar.int() > 0
    assert not (shared & dissimilar).any()


def test_an_ambiguous_pair_passes_nothing_in_either_direction():
    """Changing the q of an ambiguous partner leaves the gradient of the row as it is."""
    p = torch.tensor([[1, 0], [0.95, 0.05], [0.5, 0.5], [0, 1], [0.6, 0.4]]).double()
    q = torch.softmax(torch.randn(5, 2, generator=torch.Generator().manual_seed(0)), 1).double()

    def gradient(q):
        leaf = q.clone().requires_grad_()
        return torch.autograd.grad(pairwise_loss(leaf, p)[0], leaf)[0]

    before, product = gradient(q), p @ p.T
    ambiguous = (product > 0.2) & (product < 0.8)
    assert ambiguous[2].all() and (before[2] == 0).all() and (before[0] != 0).any()
    for j in range(5):
        changed = q.clone()
        changed[j] = torch.tensor([0.123, 0.877])
        after = gradient(changed)
        same = (after == before).all(1)
        assert torch.equal(same, ambiguous[j])


@pytest.mark.parametrize("k", [2, 10])
def test_one_cluster_for_all_is_a_minimum_of_equation_5_but_not_of_equation_4(k):
    collapsed = torch.eye(k).double()[torch.zeros(12, dtype=torch.long)]
    p = torch.eye(k).double()[torch.arange(12) % k]
    assert pairwise_loss(collapsed)[0].item() == 0
    assert pairwise_loss(collapsed, p)[0].item() > 0


points = st.tuples(st.integers(0, 2**32 - 1), st.integers(2, 9), st.floats(1.1, 4.0))


@unhurried
@given(points)
def test_the_weights_of_a_sample_lie_between_those_of_a_flat_and_a_one_hot_row(drawn):
    seed, k, m = drawn
    generator = torch.Generator().manual_seed(seed)
    u, centers = (torch.randn(n, 2, generator=generator).double() for n in (20, k))
    weights = (fuzzy_memberships(u, centers, m) ** m).sum(1)
    assert (weights >= k ** (1 - m) * (1 - 1e-12)).all() and (weights <= 1 + 1e-12).all()
    # far away every center is at nearly one distance
    far = fuzzy_memberships(u[:1] + 1e9, centers, m) ** m
    assert far.sum().item() == pytest.approx(k ** (1 - m), rel=1e-4)


@unhurried
@given(points)
def test_the_alternation_never_raises_the_fuzzy_objective(drawn):
    seed, k, m = drawn
    generator = torch.Generator().manual_seed(seed)
    u, centers = (torch.randn(n, 3, generator=generator).double() for n in (25, k))

    def objective(p, centers):
        return (p**m * squared_distances(u, centers)).sum().item()

    p = torch.softmax(torch.randn(25, k, generator=generator), 1).double()
    values = [objective(p, centers)]
    for _ in range(6):
        p = fuzzy_memberships(u, centers, m)  # equation 2
        values.append(objective(p, centers))
        centers = (p**m).T @ u / (p**m).sum(0)[:, None]  # equation 3
        values.append(objective(p, centers))
    assert all(b <= a * (1 + 1e-12) for a, b in itertools.pairwise(values))


@pytest.mark.parametrize("m", [1.3, 1.5, 1.7, 3.0])
def test_a_misread_exponent_is_another_fuzziness(m):
    generator = torch.Generator().manual_seed(0)
    u, centers = (torch.randn(n, 3, generator=generator).double() for n in (30, 4))
    squared = ((u[:, None] - centers) ** 2).sum(2)

    def normalised(weights):
        return weights / weights.sum(1, keepdim=True)

    def close(a, b):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-12)

    close(normalised(squared.sqrt() ** (-2 / (m - 1))), fuzzy_memberships(u, centers, m))
    # 2 / (m - 1) on squared distances, and 1 / (m - 1) on distances
    close(normalised(squared ** (-2 / (m - 1))), fuzzy_memberships(u, centers, (1 + m) / 2))
    close(normalised(squared.sqrt() ** (-1 / (m - 1))), fuzzy_memberships(u, centers, 2 * m - 1))


@pytest.mark.parametrize("bad", [0.0, -0.1, 1.1, math.nan])
def test_maxima_and_thresholds_outside_their_range_are_refused(bad):
    for call in (
        lambda: theorems.product_bound(bad, 0.5),
        lambda: theorems.largest_product([0.5, 0.5], bad),
        lambda: theorems.largest_product_apart(bad, 0.5),
        lambda: theorems.smallest_product_together(bad, 0.5, 3),
        lambda: theorems.largest_product_apart_from(bad),
        lambda: theorems.similar_means_together(bad),
        lambda: theorems.shared_neighbor_product(bad, 3),
    ):
        with pytest.raises(ValueError, match=r"\(0, 1\]"):
            call()
    with pytest.raises(ValueError, match="zeta must lie"):
        theorems.larger_maximum(bad)


def test_too_few_clusters_or_too_small_a_maximum_are_refused():
    for k in (0, 1):
        with pytest.raises(ValueError, match="at least 2"):
            theorems.shared_neighbor_product(0.8, k)
    with pytest.raises(ValueError, match="at least 1/K"):
        theorems.smallest_product_together(0.3, 0.9, 3)


@pytest.mark.parametrize("zeta, holds", [(0.8, [1, 1, 1]), (0.51, [1, 1, 1]), (0.5, [1, 0, 0]), (0.3, [1, 0, 0])])
def test_the_lattice_finds_where_the_theorems_end(zeta, holds):
    found = theorems.theorems_on_a_lattice(zeta)
    assert [name for name, _ in found] == ["Theorem 1", "Theorem 2", "Theorem 3"]
    assert [fine for _, fine in found] == holds
    with pytest.raises(ValueError, match="zeta"):
        theorems.theorems_on_a_lattice(1.2)
