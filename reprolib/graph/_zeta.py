"""Incremental zeta affinity of two clusters: closed walks that visit both.

Such a walk is split at the last sample m of the other cluster that it visits: a walk that arrives
at m from anywhere in the union, then one that leaves m for home and stays there. Walks of both
sorts are grown step by step from m, and meet at the sample i where the closed walk starts.
"""

import numpy as np
from numba import njit

from reprolib.graph._walks import add, clear, step


@njit(cache=True, nogil=True)
def zeta_diagonal(c, z, n_terms, walk, clusters, state, work):
    """Diagonal of G_c for the members of c, into `state[0]`: closed walks within c."""
    i = clusters.head[c]
    while i >= 0:
        row, row_at = work.value[0], work.support[0]
        spare, spare_at = work.value[1], work.support[1]
        count = add(i, 1.0, row, row_at, 0)
        total = 1.0
        for _ in range(n_terms):
            count = step(
                walk.out_ptr, walk.out_idx, walk.out_val, walk.stay, clusters.label, c, c, z,
                row, row_at, count, spare, spare_at,
            )  # fmt: skip
            row, spare, row_at, spare_at = spare, row, spare_at, row_at
            total += row[i]
        clear(row, row_at, count)
        state[0, i] = total
        i = clusters.follow[i]


@njit(cache=True, nogil=True)
def zeta_affinity(a, b, order, z, walk, clusters, state, work, keep):
    """Incremental zeta affinity of a and b with walks of `order` steps: (lower bound, room above).

    Sum over both clusters of (1/|c|) * sum_i ln([G_ab]_ii / [G_c]_ii). `keep` stores [G_ab]_ii in
    `state[0]` for the samples of both clusters: the pair has been merged.
    """
    low, room = 0.0, 0.0
    for side in range(2):
        home, away = (a, b) if side == 0 else (b, a)
        gain, gain_at = work.value[0], work.support[0]
        n_gain, rest = _returns(home, away, order, z, walk, clusters, work)
        total = 0.0
        for t in range(n_gain):
            i = gain_at[t]
            total += np.log1p(gain[i] / state[0, i])
            if keep:
                state[0, i] += gain[i]
            gain[i] = 0.0
        low += total / clusters.size[home]
        room += rest / clusters.size[home]
    return low, room


@njit(cache=True, nogil=True)
def _returns(home, away, order, z, walk, clusters, work):
    """Closed walks at each sample of `home` that visit `away`, into work vector 0.

    Split at the last sample m of `away` on the walk: any walk i -> m in the union, then a step home
    and a walk that stays there. Returns the number of samples reached and a bound of the rest.
    """
    label = clusters.label
    exits, exit_mark = work.support[6], work.value[6]
    n_exits = 0
    if clusters.size[away] <= clusters.size[home]:
        m = clusters.head[away]
        while m >= 0:
            for e in range(walk.out_ptr[m], walk.out_ptr[m + 1]):
                if label[walk.out_idx[e]] == home and walk.out_val[e] > 0.0:
                    exits[n_exits] = m
                    n_exits += 1
                    break
            m = clusters.follow[m]
    else:
        i = clusters.head[home]
        while i >= 0:
            for e in range(walk.in_ptr[i], walk.in_ptr[i + 1]):
                if label[walk.in_idx[e]] == away:
                    n_exits = add(walk.in_idx[e], walk.in_val[e], exit_mark, exits, n_exits)
            i = clusters.follow[i]
        clear(exit_mark, exits, n_exits)

    n_gain, rest = 0, 0.0
    for t in range(n_exits):
        n_gain, rest_of_exit = _returns_through(
            exits[t], home, away, order, z, walk, label, work, n_gain
        )
        rest += rest_of_exit
    return n_gain, rest


@njit(cache=True, nogil=True)
def _gather(ptr, idx, val, stay, z, i, vector):
    """One entry of z P times a vector that vanishes outside the clusters in question."""
    total = stay[i] * vector[i]
    for e in range(ptr[i], ptr[i + 1]):
        total += val[e] * vector[idx[e]]
    return z * total


@njit(cache=True, nogil=True)
def _returns_through(m, home, away, order, z, walk, label, work, n_gain):
    """Add the closed walks whose last sample away from home is m: (samples reached, rest).

    With q_u(i) the walks of u steps from i to m and p_s(i) those of s steps from m to i, the sum
    over s and u of p_s q_u is complete up to s + u = order + 1: all products of the first
    order - 1 steps, and p_order q_1 and p_1 q_order, which are gathered where q_1 or p_1 is not 0.
    """
    value, support = work.value, work.support
    out_ptr, out_idx, out_val = walk.out_ptr, walk.out_idx, walk.out_val
    in_ptr, in_idx, in_val = walk.in_ptr, walk.in_idx, walk.in_val
    grown = max(order - 1, 1)
    spare, spare_at = value[3], support[3]

    arrive, arrive_at, n_arrive = value[1], support[1], 0
    q_first, q_first_at, n_q_first = value[7], support[7], 0
    q, q_at = value[2], support[2]
    n_q = add(m, 1.0, q, q_at, 0)
    for u in range(grown):
        n_q = step(in_ptr, in_idx, in_val, walk.stay, label, home, away, z,
                   q, q_at, n_q, spare, spare_at)  # fmt: skip
        q, spare, q_at, spare_at = spare, q, spare_at, q_at
        for t in range(n_q):
            i = q_at[t]
            if label[i] == home:
                n_arrive = add(i, q[i], arrive, arrive_at, n_arrive)
                if u == 0:
                    n_q_first = add(i, q[i], q_first, q_first_at, n_q_first)

    leave, leave_at, n_leave = value[4], support[4], 0
    p_first, p_first_at, n_p_first = value[8], support[8], 0
    p, p_at, n_p = value[5], support[5], 0
    for e in range(out_ptr[m], out_ptr[m + 1]):
        i = out_idx[e]
        if label[i] == home:
            n_p = add(i, z * out_val[e], p, p_at, n_p)
            n_p_first = add(i, z * out_val[e], p_first, p_first_at, n_p_first)
    for s in range(grown):
        if s > 0:
            n_p = step(out_ptr, out_idx, out_val, walk.stay, label, home, home, z,
                       p, p_at, n_p, spare, spare_at)  # fmt: skip
            p, spare, p_at, spare_at = spare, p, spare_at, p_at
        for t in range(n_p):
            n_leave = add(p_at[t], p[p_at[t]], leave, leave_at, n_leave)

    for t in range(n_leave):
        i = leave_at[t]
        n_gain = add(i, leave[i] * arrive[i], value[0], support[0], n_gain)
    if order > 1:
        for t in range(n_q_first):
            i = q_first_at[t]
            deep = _gather(in_ptr, in_idx, in_val, walk.stay, z, i, p)
            n_gain = add(i, deep * q_first[i], value[0], support[0], n_gain)
        for t in range(n_p_first):
            i = p_first_at[t]
            deep = _gather(out_ptr, out_idx, out_val, walk.stay, z, i, q)
            n_gain = add(i, p_first[i] * deep, value[0], support[0], n_gain)

    # what is left out: p_s q_u with s or u above `grown`, but for the two products gathered
    scale, peak, mass = z / (1.0 - z), 0.0, 0.0
    for t in range(n_q):
        peak = max(peak, q[q_at[t]])
    for t in range(n_p):
        mass += p[p_at[t]]
    late = scale * peak
    peak_first, peak_later, mass_first, mass_later = 0.0, late, 0.0, 0.0
    for t in range(n_arrive):
        i = arrive_at[t]
        peak_first = max(peak_first, q_first[i])
        peak_later = max(peak_later, arrive[i] - q_first[i] + late)
    for t in range(n_leave):
        i = leave_at[t]
        mass_first += p_first[i]
        mass_later += leave[i] - p_first[i]
    seen = z if order > 1 else 1.0
    rest = scale * mass * (seen * peak_first + peak_later) + late * (seen * mass_first + mass_later)

    clear(arrive, arrive_at, n_arrive)
    clear(q_first, q_first_at, n_q_first)
    clear(q, q_at, n_q)
    clear(leave, leave_at, n_leave)
    clear(p_first, p_first_at, n_p_first)
    clear(p, p_at, n_p)
    return n_gain, rest
