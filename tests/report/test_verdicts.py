"""Verdicts: cases where the right answer is known, and how often chance gives another."""

import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from reprolib.report import compare
from reprolib.report.compare import (
    FAILS,
    HOLDS,
    MARGIN,
    NOT_RUN,
    PARTLY,
    UNKNOWN,
    above,
    alike,
    combined,
    difference,
    reaches,
)

STABLE, FLIPPED = pd.Series([0.789, 0.790, 0.791]), pd.Series([0.79, 0.79, 0.87])
NOISY, BETTER = pd.Series([0.70, 0.80, 0.75]), pd.Series([0.72, 0.82, 0.77])

# what is asked, scores, beside what, paired, the answer
CASES = [
    (reaches, STABLE, 0.872, False, FAILS),
    (reaches, FLIPPED, 0.872, False, UNKNOWN),  # one lucky seed of three
    (reaches, FLIPPED, 0.500, False, HOLDS),
    (reaches, STABLE, 0.791, False, HOLDS),
    (reaches, STABLE, 0.805, False, HOLDS),  # lower by less than the margin
    (reaches, 0.917, 0.911, False, HOLDS),  # a method without a seed
    (reaches, 0.017, 0.911, False, FAILS),
    (reaches, STABLE[:1], 0.5, False, UNKNOWN),  # one seed decides nothing
    (above, BETTER, NOISY, False, UNKNOWN),  # hidden by the spread of the starts
    (above, BETTER, NOISY + [0.001, -0.001, 0], True, HOLDS),  # seen when the starts are shared
    (above, NOISY, BETTER + [0.001, -0.001, 0], True, FAILS),
    (above, STABLE, STABLE[::-1], True, FAILS),  # as good as none
    (above, STABLE[:1], 0.1, False, UNKNOWN),
    (above, 0.912, 0.905, False, FAILS),  # two exact numbers always differ
    (above, 0.95, 0.90, False, HOLDS),
    (above, STABLE, STABLE[:1], False, UNKNOWN),
    (alike, STABLE, STABLE[::-1], True, HOLDS),
    (alike, NOISY, BETTER, False, UNKNOWN),  # a null result with a wide interval is no equivalence
    (alike, BETTER, STABLE - 0.2, False, FAILS),
    (alike, STABLE[:1], STABLE[:1], False, UNKNOWN),
]


@pytest.mark.parametrize(("rule", "ours", "other", "paired", "answer"), CASES)
def test_the_answer_is_known(rule, ours, other, paired, answer):
    assert rule(difference(ours, other, paired=paired)) == answer


def test_the_printed_effect_bounds_what_no_effect_means():
    found = difference(pd.Series([0.005, -0.004, 0.012, 0.001]))
    assert found.low < 0 < found.high < MARGIN
    assert above(found) == FAILS
    assert above(found, printed=0.007) == UNKNOWN  # the interval holds both
    assert above(found, printed=0.05) == FAILS


def test_intervals_are_students_and_welchs():
    rng = np.random.default_rng(1)
    for n, m in ((2, 3), (3, 3), (5, 2)):
        ours, other = pd.Series(rng.normal(0.8, 0.02, n)), pd.Series(rng.normal(0.7, 0.1, m))
        found = difference(ours, other)
        expected = stats.ttest_ind(ours, other, equal_var=False).confidence_interval(0.95)
        assert (found.low, found.high) == pytest.approx((expected.low, expected.high))
        assert found.n == min(n, m)
        found = difference(ours, 0.75)
        expected = stats.ttest_1samp(ours, 0.75).confidence_interval(0.95)
        assert (found.low + 0.75, found.high + 0.75) == pytest.approx((expected.low, expected.high))
    shifted = pd.Series(ours.to_numpy(), index=[3, 1, 9, 0, 2])
    paired = difference(shifted, shifted[::-1] - 0.1, paired=True)
    assert paired.gap == paired.low == paired.high == pytest.approx(0.1)
    assert difference(shifted, shifted[:2], paired=True).n == 2


def test_one_seed_and_exact_numbers_say_so():
    one = difference(pd.Series([0.8]), 0.7)
    assert (one.low, one.high, one.n) == (-math.inf, math.inf, 1)
    assert str(one) == "+0.100, one seed"
    assert str(difference(0.8, 0.7)) == "+0.100"
    assert str(difference(STABLE, 0.7)).replace("\u00a0", " ") == "+0.090 [+0.088, +0.092], 3 seeds"


def test_a_claim_of_many_comparisons():
    assert combined([]) == NOT_RUN
    assert combined([HOLDS, HOLDS]) == HOLDS
    assert combined([HOLDS, UNKNOWN]) == combined([HOLDS, FAILS]) == PARTLY
    assert combined([HOLDS, HOLDS, FAILS], most=True) == HOLDS
    assert combined([HOLDS, FAILS], most=True) == PARTLY
    assert combined([FAILS, UNKNOWN]) == FAILS
    assert combined([FAILS, UNKNOWN, UNKNOWN]) == combined([UNKNOWN]) == UNKNOWN


def rates(rule, effect, std, n):
    """How often each answer comes out of normal differences of n seeds with a known mean, as on the page."""
    drawn = np.random.default_rng(0).normal(effect, std, (2000, n))
    room = stats.t.ppf(0.975, n - 1) * drawn.std(1, ddof=1) / math.sqrt(n)
    found = [rule(compare.Difference(g, g - r, g + r, n)) for g, r in zip(drawn.mean(1), room, strict=True)]
    return {answer: found.count(answer) / len(found) for answer in compare.ANSWERS}


@pytest.mark.parametrize("n", [3, 5, 10])
def test_chance_seldom_gives_a_wrong_answer(n):
    # no effect: 2.5 % of the intervals lie above zero
    assert rates(above, 0.0, 0.05, n)[HOLDS] < 0.04
    # an effect as large as what three seeds can see is never denied for long
    assert rates(above, 0.05, 0.05, n)[FAILS] < 0.06
    assert rates(reaches, -0.1, 0.05, n)[HOLDS] < 0.01
    # a wide spread is no equivalence
    assert rates(alike, 0.05, 0.05, n)[HOLDS] < 0.03
