"""What the interval of a mean difference tells about a claim, and what it cannot tell.

A claim asks one of three things of a difference: is it above zero, does it reach a printed number, is it as
good as none? Each answer is read off the interval of the mean by Student's t: *holds*, *does not hold*, or
*cannot tell* where the interval holds both. One seed has no interval, and so it decides nothing.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.stats import t

CONFIDENCE = 0.95
MARGIN = 0.02  # of ACC, NMI, ARI: a smaller difference is as good as none
HOLDS, FAILS, UNKNOWN = ANSWERS = ("holds", "does not hold", "cannot tell")
PARTLY, REDUCED, NOT_RUN = "holds in part", "at reduced scale", "not run"

Scores = pd.Series | float  # by seed; one number for what has no seed: a printed number, an exact method


@dataclass(frozen=True)
class Difference:
    """A mean difference, its 95 % interval, and the seeds on the side that has fewer; 0 between two numbers."""

    gap: float
    low: float
    high: float
    n: int

    @property
    def interval(self) -> str:
        """As "+0.012 [−0.003, +0.027]"; the mean alone where there is no interval."""
        told = f"{self.gap:+.3f}"
        if 0 < self.high - self.low < math.inf:
            told += f"\u00a0[{self.low:+.3f},\u00a0{self.high:+.3f}]"
        return told.replace("-", "−")

    def __str__(self) -> str:
        seeds = {0: "", 1: ", one seed"}.get(self.n, f", {self.n} seeds")
        return f"{self.interval}{seeds}"


def difference(ours: Scores, other: Scores = 0.0, *, paired: bool = False) -> Difference:
    """The mean of ours less that of the other, with its interval by Student's t.

    paired: seed by seed, for the seeds that both have; otherwise as by Welch, whose degrees of freedom count
    two sides with spreads of their own. One seed on a side has no interval: it is the whole line.
    """
    if paired:
        ours, other = (ours - other).dropna(), 0.0
    sides = [side for side in (ours, other) if isinstance(side, pd.Series)]
    gap = float(np.mean(ours) - np.mean(other))
    if not sides:
        return Difference(gap, gap, gap, 0)
    n = min(map(len, sides))
    if n < 2:
        return Difference(gap, -math.inf, math.inf, n)
    parts = [side.var() / len(side) for side in sides]
    spread = math.sqrt(sum(parts))
    if spread == 0:
        return Difference(gap, gap, gap, n)
    freedom = sum(parts) ** 2 / sum(part**2 / (len(side) - 1) for part, side in zip(parts, sides, strict=True))
    room = float(t.ppf((1 + CONFIDENCE) / 2, freedom)) * spread
    return Difference(gap, gap - room, gap + room, n)


def above(found: Difference, printed: float | None = None) -> str:
    """Whether a difference is above zero.

    printed: the paper's difference. An interval around zero says no where it stays below that, or, where
    the paper prints none, below MARGIN; it cannot tell where it holds both.
    """
    if found.low > (0 if found.n else MARGIN):  # two exact numbers always differ
        return HOLDS
    return FAILS if found.high < (printed if printed and printed > 0 else MARGIN) else UNKNOWN


def reaches(found: Difference) -> str:
    """Whether a mean, less the printed number, is at least as good up to MARGIN."""
    if found.low > -MARGIN:
        return HOLDS
    return FAILS if found.high < 0 else UNKNOWN


def alike(found: Difference) -> str:
    """Whether a difference is as good as none: the whole interval lies within MARGIN of zero."""
    if -MARGIN < found.low and found.high < MARGIN:
        return HOLDS
    return FAILS if found.low > MARGIN or found.high < -MARGIN else UNKNOWN


def combined(answers: Iterable[str], *, most: bool = False) -> str:
    """The verdict on a claim from the answers for its comparisons.

    *holds*: all do, or with `most` more than half. *holds in part*: some do. Without one that holds: *does not
    hold* if at least half say so, else *cannot tell*.
    """
    answers = list(answers)
    good, bad = answers.count(HOLDS), answers.count(FAILS)
    if not answers:
        return NOT_RUN
    if good == len(answers) or (most and 2 * good > len(answers)):
        return HOLDS
    if good:
        return PARTLY
    return FAILS if 2 * bad >= len(answers) else UNKNOWN
