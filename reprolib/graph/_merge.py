"""The sequential merge loop of graph degree linkage, compiled by numba.

Every cluster owns two short lists. Its *boundary* holds (sample, out, in): the edge weight to and from each sample
outside it. Its *adjacency* holds (cluster, U_out, U_in) for each cluster joined to it. A merge adds two boundaries,
rebuilds one row of U from the sum and adds two columns.
"""

from typing import NamedTuple

import numpy as np
from numba import njit

from reprolib.graph._partition import absorb, replay, tournament

EXACT, RELEASED = 0, 1
SPARE = 4  # room for more at the end of each list
# JULE.torch uses its local term only while the table is wider than this
RELEASED_LOCAL_MIN = 100


class Lists(NamedTuple):
    """Lists of entries (index, two values) in one pool, free from `end[0]` on.

    List c has `length[c]` entries from `start[c]` on, and room for `room[c]`.
    """

    start: np.ndarray
    length: np.ndarray
    room: np.ndarray
    index: np.ndarray
    value: np.ndarray
    end: np.ndarray


@njit(cache=True, nogil=True)
def _move(lists, c, pool, room):
    """Move list c to the end of a pool."""
    s, k, at = lists.start[c], lists.length[c], pool.end[0]
    pool.index[at : at + k] = lists.index[s : s + k]
    pool.value[at : at + k] = lists.value[s : s + k]
    pool.start[c], pool.room[c] = at, room
    pool.end[0] += room


@njit(cache=True, nogil=True)
def _with_free(lists, needed):
    """The lists, moved to a fresh pool unless `needed` entries are free at the end of theirs."""
    start, length, room, index, _, end = lists
    if end[0] + needed <= len(index):
        return lists
    size = 2 * (length.sum() + SPARE * np.count_nonzero(length)) + needed
    fresh = Lists(start, length, room, np.empty(size, np.int32), np.empty((size, 2)), end)
    end[0] = 0
    for c in range(len(start)):
        _move(lists, c, fresh, length[c] + SPARE if length[c] else 0)
    return fresh


@njit(cache=True, nogil=True)
def _with_room(lists, c, needed):
    """The lists with room for `needed` entries in list c, moved to the end of the pool if it must."""
    if needed > lists.room[c]:
        lists = _with_free(lists, needed)
        _move(lists, c, lists, needed)
    return lists


@njit(cache=True, nogil=True)
def _touch(j, mark, touched, count):
    if not mark[j]:
        mark[j] = True
        touched[count] = j
        count += 1
    return count


@njit(cache=True, nogil=True)
def _merge_boundaries(a, b, boundary, labels, acc, mark, touched):
    """Give a the sum of the boundaries of a and b, both labelled a; how many clusters it touches.

    Adds U(a, i), the sum of out * in over its samples of each cluster i, to `acc[:, 0]`.
    """
    start, length, room, sample, degree, end = boundary
    p, p_end = start[a], start[a] + length[a]
    q, q_end = start[b], start[b] + length[b]
    begin = at = end[0]
    count = 0
    while p < p_end or q < q_end:
        if q == q_end or (p < p_end and sample[p] < sample[q]):
            m, d_out, d_in = sample[p], degree[p, 0], degree[p, 1]
            p += 1
        elif p == p_end or sample[q] < sample[p]:
            m, d_out, d_in = sample[q], degree[q, 0], degree[q, 1]
            q += 1
        else:
            m, d_out, d_in = sample[p], degree[p, 0] + degree[q, 0], degree[p, 1] + degree[q, 1]
            p += 1
            q += 1
        i = labels[m]
        if i != a:
            sample[at], degree[at, 0], degree[at, 1] = m, d_out, d_in
            at += 1
            if d_out > 0.0 and d_in > 0.0:
                count = _touch(i, mark, touched, count)
                acc[i, 0] += d_out * d_in
    start[a], length[a], length[b] = begin, at - begin, 0
    end[0] = at
    return count


@njit(cache=True, nogil=True)
def _score(c, start, length, index, value, size, weight, k_c, n_left, mode, top):
    """Criterion of equation 7 for cluster c: (score, nearest neighbour, its affinity)."""
    if mode == RELEASED and n_left <= RELEASED_LOCAL_MIN:
        weight = 0.0
    k = min(k_c, n_left - 1) if mode == EXACT else k_c
    best = -1
    top[:k] = 0.0
    for p in range(start, start + length):
        j = index[p]
        # the released table is upper triangular: a column sees smaller indices only
        if mode == RELEASED and j > c:
            continue
        a = value[p, 0] / (size[c] * size[c]) + value[p, 1] / (size[j] * size[j])
        if a > top[0] or (a == top[0] and a > 0.0 and j < best):
            best = j
        if a <= top[k - 1]:
            continue
        t = k - 1
        while t > 0 and top[t - 1] < a:
            top[t] = top[t - 1]
            t -= 1
        top[t] = a
    if best < 0:
        return -1.0, -1, 0.0
    score = top[0]
    if weight > 0.0 and k > 1:
        gap = 0.0
        for t in range(1, k):
            gap += top[0] - top[t]
        score += weight * gap / (k - 1)
    return score, best, top[0]


@njit(cache=True, nogil=True)
def merge_loop(boundary, adjacency, clusters, n_target, weight, k_c, mode):
    """Greedy merges to `n_target` clusters: (merges, affinities). Changes all that it is given."""
    n_initial = len(clusters.size)
    scores, affinity, top = np.full(n_initial, -1.0), np.zeros(n_initial), np.empty(k_c)
    nearest = np.full(n_initial, -1, np.int64)
    tree = tournament(scores)
    merges = np.empty((n_initial - n_target, 2), np.int32)
    affinities = np.empty(len(merges))
    acc, mark, touched = np.zeros((n_initial, 2)), np.zeros(n_initial, np.bool_), np.empty(n_initial, np.int64)
    changed, done = np.arange(n_initial), 0
    start, length, room, index, value, _ = adjacency
    while True:
        n_left = n_initial - done
        for c in changed:
            s, k = start[c], length[c]
            found = _score(c, s, k, index, value, clusters.size, weight, k_c, n_left, mode, top)
            scores[c], nearest[c], affinity[c] = found
            replay(tree, scores, c)
        winner = tree[1]
        if done == len(merges) or nearest[winner] < 0:
            return merges[:done], affinities[:done]
        a, b = min(winner, nearest[winner]), max(winner, nearest[winner])
        merges[done, 0], merges[done, 1], affinities[done] = a, b, affinity[winner]
        done += 1

        absorb(clusters, a, b)
        count = 0
        if mode == EXACT:
            boundary = _with_free(boundary, boundary.length[a] + boundary.length[b])
            count = _merge_boundaries(a, b, boundary, clusters.label, acc, mark, touched)
        for c in (a, b):
            for p in range(start[c], start[c] + length[c]):
                j = index[p]
                if j != a and j != b:
                    count = _touch(j, mark, touched, count)
                    acc[j, 1] += value[p, 1]
                    if mode == RELEASED:
                        acc[j, 0] += value[p, 0]
        length[a], length[b] = 0, 0
        if count > room[a]:
            adjacency = _with_room(adjacency, a, count + SPARE)
            index, value = adjacency.index, adjacency.value
        length[a] = count
        for t in range(count):
            j, p = touched[t], start[a] + t
            index[p], value[p, 0], value[p, 1] = j, acc[j, 0], acc[j, 1]

        for j in touched[:count]:
            s, k = start[j], 0
            for p in range(s, s + length[j]):
                if index[p] != a and index[p] != b:
                    index[s + k] = index[p]
                    value[s + k, 0], value[s + k, 1] = value[p, 0], value[p, 1]
                    k += 1
            length[j] = k
            if k == room[j]:
                adjacency = _with_room(adjacency, j, 2 * (k + 1))
                index, value = adjacency.index, adjacency.value
                s = start[j]
            index[s + k], value[s + k, 0], value[s + k, 1] = a, acc[j, 1], acc[j, 0]
            length[j] = k + 1
            acc[j, 0], acc[j, 1] = 0.0, 0.0
            mark[j] = False
        touched[count], touched[count + 1] = a, b
        changed = touched[: count + 2]
        # the number of neighbours that count changes for all at these two points
        n_left = n_initial - done
        if (mode == EXACT and n_left <= k_c) or (mode == RELEASED and n_left == RELEASED_LOCAL_MIN):
            changed = np.arange(n_initial)
