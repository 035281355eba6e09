"""The merge loop of incremental linkage: pairs as a sparse graph of clusters, evaluated lazily.

A pair's affinity is known as an interval [low, high]. Only the pair with the highest `high` is refined, until no
other can beat it: most pairs are never computed beyond their first term.
"""

from typing import NamedTuple

import numpy as np
from numba import njit

from reprolib.graph._partition import absorb, replay, tournament
from reprolib.graph._walks import path_affinity, path_vectors
from reprolib.graph._zeta import zeta_affinity, zeta_diagonal

PATH, ZETA = 0, 1
# A dense float64 solve knows these small differences of numbers near 1 to about nine digits, so affinities that
# agree to TIE are equal; KNOWN is the width at which two are compared, STATED that of the affinity returned.
KNOWN, TIE, STATED = 1e-10, 1e-9, 1e-8


class Pairs(NamedTuple):
    """Pairs of clusters: the steps evaluated, and the interval of the affinity, -1 for none.

    Pair e is the two half-edges 2e and 2e + 1, each in the list of the cluster that owns it.
    """

    owner: np.ndarray
    order: np.ndarray
    low: np.ndarray
    high: np.ndarray


@njit(cache=True, nogil=True)
def _rivals(tree, high, bar, found, most):
    """Up to `most` pairs with `high` of at least `bar`, the winner's subtree first."""
    leaves = len(tree) // 2
    stack = np.empty(64, np.int64)
    stack[0], depth, count = 1, 1, 0
    while depth > 0 and count < most:
        depth -= 1
        node = stack[depth]
        if high[tree[node]] < bar or node - leaves > tree[node]:
            continue
        if node >= leaves:
            found[count] = tree[node]
            count += 1
        else:
            stack[depth], stack[depth + 1] = 2 * node + 1, 2 * node
            depth += 2
    return count


@njit(cache=True, nogil=True)
def _ends(e, owner):
    """The clusters of a pair, the smaller first."""
    return min(owner[2 * e], owner[2 * e + 1]), max(owner[2 * e], owner[2 * e + 1])


@njit(cache=True, nogil=True)
def _evaluate(e, kind, pairs, max_order, walk, clusters, state, work, keep):
    owner, order, low, high = pairs
    a, b = _ends(e, owner)
    order[e] = min(order[e], max_order)
    if kind == PATH:
        value, room = path_affinity(a, b, order[e], walk, clusters, state, work)
    else:
        value, room = zeta_affinity(a, b, order[e], walk, clusters, state, work, keep)
    low[e], high[e] = value, value + (room if order[e] < max_order else 0.0)


@njit(cache=True, nogil=True)
def _best(tree, kind, pairs, max_order, walk, clusters, state, work, found):
    """The pair of highest affinity, refined as far as it takes; -1 when none is above zero."""
    owner, order, low, high = pairs
    while high[tree[1]] > 0.0:
        e = tree[1]
        bar = low[e] * (1.0 - TIE)
        if high[e] - low[e] <= KNOWN * high[e]:
            best = e
            for r in found[: _rivals(tree, high, bar, found, len(found))]:
                if high[r] - low[r] > KNOWN * high[r]:
                    e, best = r, -1
                    break
                if _ends(r, owner) < _ends(best, owner):
                    best = r
            if best >= 0:
                return best
        elif low[e] > 0.0 and _rivals(tree, high, bar, found, 2) == 1:
            return e
        order[e] += 1
        _evaluate(e, kind, pairs, max_order, walk, clusters, state, work, False)
        replay(tree, high, e)
    return -1


@njit(cache=True, nogil=True)
def lazy_loop(joined, n_target, kind, max_order, walk, clusters, work):
    """Greedy merges until `n_target` clusters are left: (merges, affinities).

    `joined` int64 (m, 2): clusters joined by an edge in either direction. Changes `clusters`.
    """
    n_initial, n_pairs = len(clusters.size), len(joined)
    state = np.zeros((2, len(clusters.label)))
    for c in range(n_initial):
        if kind == PATH:
            path_vectors(c, max_order, walk, clusters, state, work)
        else:
            zeta_diagonal(c, max_order, walk, clusters, state, work)

    owner = joined.copy().ravel()
    after, first = np.empty(2 * n_pairs, np.int64), np.full(n_initial, -1)
    for h in range(2 * n_pairs):
        after[h], first[owner[h]] = first[owner[h]], h
    # one more than there are, so that the tournament has a winner without any
    low, high = np.full(n_pairs + 1, -1.0), np.full(n_pairs + 1, -1.0)
    pairs = Pairs(owner, np.ones(n_pairs, np.int64), low, high)
    for e in range(n_pairs):
        _evaluate(e, kind, pairs, max_order, walk, clusters, state, work, False)
    tree = tournament(high)

    merges = np.empty((n_initial - n_target, 2), np.int32)
    affinities = np.empty(len(merges))
    found = np.empty(n_pairs + 1, np.int64)
    seen = np.full(n_initial, -1)
    for done in range(len(merges)):
        best = _best(tree, kind, pairs, max_order, walk, clusters, state, work, found)
        if best < 0:
            return merges[:done], affinities[:done]
        # one deep evaluation of the pair that won: its room shrinks by z with each step
        room = (high[best] - low[best]) / high[best]
        if room > STATED:
            pairs.order[best] += int(np.ceil(np.log(STATED / room) / np.log(walk.z)))
        _evaluate(best, kind, pairs, max_order, walk, clusters, state, work, True)
        a, b = _ends(best, owner)
        merges[done, 0], merges[done, 1], affinities[done] = a, b, low[best]
        absorb(clusters, a, b)
        if kind == PATH:
            path_vectors(a, max_order, walk, clusters, state, work)

        kept = -1
        for c in (a, b):
            h = first[c]
            while h >= 0:
                following, e, other = after[h], h // 2, owner[h ^ 1]
                if high[e] >= 0.0:
                    if other == b or seen[other] == done:  # within a, or a has it already
                        low[e], high[e] = -1.0, -1.0
                        replay(tree, high, e)
                    else:
                        seen[other] = done
                        owner[h], after[h], kept = a, kept, h
                h = following
        first[a] = kept
        h = kept
        while h >= 0:
            pairs.order[h // 2] = 1
            _evaluate(h // 2, kind, pairs, max_order, walk, clusters, state, work, False)
            replay(tree, high, h // 2)
            h = after[h]
    return merges, affinities
