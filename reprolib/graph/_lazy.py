"""The merge loop of incremental linkage: pairs as a sparse graph of clusters, evaluated lazily.

A pair's affinity is known as an interval [low, high]. Only the pair with the highest `high` is
refined, until no other can beat it: most pairs are never computed beyond their first term.
"""

import numpy as np
from numba import njit

from reprolib.graph._partition import absorb, replay, tournament
from reprolib.graph._walks import path_affinity, path_vectors
from reprolib.graph._zeta import zeta_affinity, zeta_diagonal

PATH, ZETA = 0, 1
# A dense float64 solve knows these small differences of numbers near 1 to about nine digits, so
# affinities that agree to TIE are equal; KNOWN is the width at which two are compared, and STATED
# the one of the affinity that is returned.
KNOWN, TIE, STATED = 1e-10, 1e-9, 1e-8


@njit(cache=True, nogil=True)
def _rivals(tree, leaves, high, bar, found, most):
    """Up to `most` pairs with `high` of at least `bar`, the winner's subtree first."""
    stack = np.empty(64, np.int64)
    stack[0], depth, count = 1, 1, 0
    while depth > 0 and count < most:
        depth -= 1
        node = stack[depth]
        if high[tree[node]] < bar:
            continue
        if node >= leaves:
            found[count] = tree[node]
            count += 1
        else:
            stack[depth], stack[depth + 1] = 2 * node + 1, 2 * node
            depth += 2
    return count


@njit(cache=True, nogil=True)
def _unlink(h, c, first, after, before):
    if before[h] >= 0:
        after[before[h]] = after[h]
    else:
        first[c] = after[h]
    if after[h] >= 0:
        before[after[h]] = before[h]


@njit(cache=True, nogil=True)
def _link(h, c, owner, first, after, before):
    owner[h], before[h], after[h] = c, -1, first[c]
    if first[c] >= 0:
        before[first[c]] = h
    first[c] = h


@njit(cache=True, nogil=True)
def _ends(e, owner):
    """The clusters of a pair, the smaller first."""
    return min(owner[2 * e], owner[2 * e + 1]), max(owner[2 * e], owner[2 * e + 1])


@njit(cache=True, nogil=True)
def _evaluate(e, kind, z, known, max_order, walk, clusters, state, work, keep):
    owner, order, low, high = known
    a, b = _ends(e, owner)
    order[e] = min(order[e], max_order)
    if kind == PATH:
        value, room = path_affinity(a, b, order[e], z, walk, clusters, state, work)
    else:
        value, room = zeta_affinity(a, b, order[e], z, walk, clusters, state, work, keep)
    low[e], high[e] = value, value + (room if order[e] < max_order else 0.0)


@njit(cache=True, nogil=True)
def lazy_loop(pairs, n_target, kind, z, max_order, walk, clusters, work):
    """Greedy merges until `n_target` clusters are left: (merges, affinities).

    `pairs` int64 (m, 2): clusters joined by an edge in either direction. Changes `clusters`.
    """
    n_initial, n_pairs = len(clusters.size), len(pairs)
    state = np.zeros((2, len(clusters.label)))
    for c in range(n_initial):
        if kind == PATH:
            path_vectors(c, z, max_order, walk, clusters, state, work)
        else:
            zeta_diagonal(c, z, max_order, walk, clusters, state, work)

    # pair e is the two half-edges 2e and 2e + 1, each in the list of the cluster that owns it
    owner = np.empty(2 * n_pairs, np.int64)
    after = np.empty(2 * n_pairs, np.int64)
    before = np.empty(2 * n_pairs, np.int64)
    first = np.full(n_initial, -1, np.int64)
    leaves = 1
    while leaves < n_pairs:
        leaves *= 2
    low, high = np.full(leaves, -1.0), np.full(leaves, -1.0)
    order = np.ones(leaves, np.int64)
    known = (owner, order, low, high)
    for e in range(n_pairs):
        _link(2 * e, pairs[e, 0], owner, first, after, before)
        _link(2 * e + 1, pairs[e, 1], owner, first, after, before)
        _evaluate(e, kind, z, known, max_order, walk, clusters, state, work, False)
    tree = tournament(high, leaves)

    merges = np.empty((n_initial - n_target, 2), np.int32)
    affinities = np.empty(len(merges))
    found = np.empty(leaves, np.int64)
    seen = np.full(n_initial, -1, np.int64)
    for done in range(len(merges)):
        best = -1
        while high[tree[1]] > 0.0:
            e = tree[1]
            if high[e] - low[e] <= KNOWN * high[e]:
                count = _rivals(tree, leaves, high, low[e] * (1.0 - TIE), found, leaves)
                best = e
                for t in range(count):
                    r = found[t]
                    if high[r] - low[r] > KNOWN * high[r]:
                        e, best = r, -1
                        break
                    if _ends(r, owner) < _ends(best, owner):
                        best = r
                if best >= 0:
                    break
            elif low[e] > 0.0 and _rivals(tree, leaves, high, low[e] * (1.0 - TIE), found, 2) == 1:
                best = e
                break
            order[e] += 1
            _evaluate(e, kind, z, known, max_order, walk, clusters, state, work, False)
            replay(tree, leaves, high, e)
        if best < 0:
            return merges[:done], affinities[:done]

        # one deep evaluation of the pair that won: its room shrinks by z with each step
        room = (high[best] - low[best]) / high[best]
        if room > STATED:
            order[best] += int(np.ceil(np.log(STATED / room) / np.log(z)))
        _evaluate(best, kind, z, known, max_order, walk, clusters, state, work, True)
        a, b = _ends(best, owner)
        merges[done, 0], merges[done, 1], affinities[done] = a, b, low[best]
        absorb(clusters, a, b)
        if kind == PATH:
            path_vectors(a, z, max_order, walk, clusters, state, work)

        h = first[a]
        while h >= 0:
            seen[owner[h ^ 1]] = done
            h = after[h]
        h = first[b]
        while h >= 0:
            following, e, other = after[h], h // 2, owner[h ^ 1]
            if other == a or seen[other] == done:
                _unlink(h ^ 1, other, first, after, before)
                low[e], high[e] = -1.0, -1.0
                replay(tree, leaves, high, e)
            else:
                _link(h, a, owner, first, after, before)
            h = following
        h = first[a]
        while h >= 0:
            e = h // 2
            order[e] = 1
            _evaluate(e, kind, z, known, max_order, walk, clusters, state, work, False)
            replay(tree, leaves, high, e)
            h = after[h]
    return merges, affinities
