"""Incremental zeta affinity of two clusters: closed walks that visit both.

Such a walk is split at the last sample m of the other cluster that it visits: one walk arrives at m from anywhere,
one leaves m for home and stays there. Both grow from m, and meet where it starts.
"""

import numpy as np
from numba import njit

from reprolib.graph._walks import add, clear, step

# work vectors: what is gained; arrivals at m, all and of one step; leaves from m, all and of one step
GAIN, ARRIVE, ARRIVE_FIRST, LEAVE, LEAVE_FIRST, EXITS = range(6)
Q, P, FREE = 6, 7, 8  # the last step of each, and a free one; they change places


@njit(cache=True, nogil=True)
def zeta_diagonal(c, n_terms, walk, clusters, state, work):
    """Diagonal of G_c for the members of c, into `state[0]`: closed walks within c."""
    value, at = work
    i = clusters.head[c]
    while i >= 0:
        row, spare, total = 0, 1, 1.0
        add(value, at, row, i, 1.0)
        for _ in range(n_terms):
            step(walk.out, walk.z, clusters.label, c, c, value, at, row, spare)
            row, spare = spare, row
            total += value[row, i]
        clear(value, at, row)
        state[0, i] = total
        i = clusters.follow[i]


@njit(cache=True, nogil=True)
def zeta_affinity(a, b, order, walk, clusters, state, work, keep):
    """Incremental zeta affinity of a and b with walks of `order` steps: (lower bound, room above).

    Sum over both clusters of (1/|c|) * sum_i ln([G_ab]_ii / [G_c]_ii). `keep` stores [G_ab]_ii in
    `state[0]` for the samples of both clusters: the pair has been merged.
    """
    value, at = work
    low, room = 0.0, 0.0
    for side in range(2):
        home, away = (a, b) if side == 0 else (b, a)
        _find_exits(home, away, walk, clusters, value, at)
        total, rest = 0.0, 0.0
        for t in range(1, at[EXITS, 0] + 1):
            rest += _returns_through(at[EXITS, t], home, away, order, walk, clusters.label, work)
        clear(value, at, EXITS)
        for t in range(1, at[GAIN, 0] + 1):
            i = at[GAIN, t]
            total += np.log1p(value[GAIN, i] / state[0, i])
            if keep:
                state[0, i] += value[GAIN, i]
        clear(value, at, GAIN)
        low += total / clusters.size[home]
        room += rest / clusters.size[home]
    return low, room


@njit(cache=True, nogil=True)
def _find_exits(home, away, walk, clusters, value, at):
    """The samples of `away` with an edge home, found from the smaller of the two clusters."""
    near = clusters.size[away] <= clusters.size[home]
    ptr, idx, val = walk.out if near else walk.back
    i = clusters.head[away if near else home]
    while i >= 0:
        for e in range(ptr[i], ptr[i + 1]):
            if clusters.label[idx[e]] == (home if near else away):
                add(value, at, EXITS, i if near else idx[e], val[e])
        i = clusters.follow[i]


@njit(cache=True, nogil=True)
def _spread(m, edges, z, label, home, away, grown, value, at, total, first, last, free):
    """Walks of 1 to `grown` steps between m and samples at home, within home and `away`.

    Adds them to vector `total`, those of one step to `first`, and leaves those of `grown` steps,
    wherever they are, in a vector: returns it and the free one.
    """
    add(value, at, last, m, 1.0)
    for u in range(grown):
        step(edges, z, label, home, away, value, at, last, free)
        last, free = free, last
        for t in range(1, at[last, 0] + 1):
            i = at[last, t]
            if label[i] == home:
                add(value, at, total, i, value[last, i])
                if u == 0:
                    add(value, at, first, i, value[last, i])
    return last, free


@njit(cache=True, nogil=True)
def _gather(edges, z, v, w, value, at):
    """Add to the gain, where vector v is not 0, v times one more step of z P on vector w."""
    ptr, idx, val = edges
    for t in range(1, at[v, 0] + 1):
        i, total = at[v, t], 0.0
        for e in range(ptr[i], ptr[i + 1]):
            total += val[e] * value[w, idx[e]]
        add(value, at, GAIN, i, z * total * value[v, i])


@njit(cache=True, nogil=True)
def _returns_through(m, home, away, order, walk, label, work):
    """Add the closed walks whose last sample away from home is m to the gain; a bound of the rest.

    With q_u(i) the walks of u steps from i to m and p_s(i) those of s steps from m to i, the sum
    over s and u of p_s q_u is complete up to s + u = order + 1: all products of the first
    order - 1 steps, and p_order q_1 and p_1 q_order, which are gathered where q_1 or p_1 is not 0.
    """
    (value, at), z = work, walk.z
    grown = max(order - 1, 1)
    q, free = _spread(m, walk.back, z, label, home, away, grown, value, at, ARRIVE, ARRIVE_FIRST, Q, FREE)
    p, free = _spread(m, walk.out, z, label, home, home, grown, value, at, LEAVE, LEAVE_FIRST, P, free)
    for t in range(1, at[LEAVE, 0] + 1):
        i = at[LEAVE, t]
        add(value, at, GAIN, i, value[LEAVE, i] * value[ARRIVE, i])
    if order > 1:
        _gather(walk.back, z, ARRIVE_FIRST, p, value, at)
        _gather(walk.out, z, LEAVE_FIRST, q, value, at)

    # what is left out: p_s q_u with s or u above `grown`, but for the two products gathered
    scale, seen, peak, mass = z / (1.0 - z), z if order > 1 else 1.0, 0.0, 0.0
    for t in range(1, at[q, 0] + 1):
        peak = max(peak, value[q, at[q, t]])
    for t in range(1, at[p, 0] + 1):
        mass += value[p, at[p, t]]
    late = scale * peak
    peak_first, peak_later, mass_first, mass_later = 0.0, late, 0.0, 0.0
    for t in range(1, at[ARRIVE, 0] + 1):
        i = at[ARRIVE, t]
        peak_first = max(peak_first, value[ARRIVE_FIRST, i])
        peak_later = max(peak_later, value[ARRIVE, i] - value[ARRIVE_FIRST, i] + late)
    for t in range(1, at[LEAVE, 0] + 1):
        i = at[LEAVE, t]
        mass_first += value[LEAVE_FIRST, i]
        mass_later += value[LEAVE, i] - value[LEAVE_FIRST, i]
    for v in (ARRIVE, ARRIVE_FIRST, LEAVE, LEAVE_FIRST, q, p):
        clear(value, at, v)
    return scale * mass * (seen * peak_first + peak_later) + late * (seen * mass_first + mass_later)
