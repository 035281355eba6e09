"""The sequential merge loop of graph degree linkage, compiled by numba.

A merge adds two boundaries, rebuilds one row of U from the sum and adds two columns (`_lists`).
"""

import numpy as np
from numba import njit

from reprolib.graph._lists import absorb, add_row, compact, merge_boundaries, replay, tournament

EXACT, RELEASED = 0, 1
SPARE = 4  # room for more at the end of each adjacency list
# JULE.torch uses its local term only while the table is wider than this
RELEASED_LOCAL_MIN = 100


@njit(cache=True, nogil=True)
def _score(c, start, count, adj_idx, adj_val, size, weight, k_c, n_left, mode, top):
    """Criterion of equation 7 for cluster c: (score, nearest neighbour, its affinity)."""
    if mode == RELEASED and n_left <= RELEASED_LOCAL_MIN:
        weight = 0.0
    k = min(k_c, n_left - 1) if mode == EXACT else k_c
    best = -1
    for t in range(k):
        top[t] = 0.0
    for p in range(start, start + count):
        j = adj_idx[p]
        # the released table is upper triangular: a column sees smaller indices only
        if mode == RELEASED and j > c:
            continue
        a = adj_val[p, 0] / (size[c] * size[c]) + adj_val[p, 1] / (size[j] * size[j])
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
def merge_loop(
    start, length, sample, degree, adj_start, adj_len, adj_cap, adj_idx, adj_val,
    clusters, n_target, weight, k_c, mode,
):  # fmt: skip
    """Greedy merges to `n_target` clusters: (merges, affinities). Changes `clusters` and the lists."""
    n_initial, end, adj_end = len(start), len(sample), len(adj_idx)
    labels, size = clusters.label, clusters.size
    leaves = 1
    while leaves < n_initial:
        leaves *= 2
    scores = np.full(leaves, -np.inf)
    nearest = np.full(n_initial, -1, np.int64)
    affinity = np.zeros(n_initial)
    top = np.empty(max(k_c, 1))
    for c in range(n_initial):
        scores[c], nearest[c], affinity[c] = _score(
            c, adj_start[c], adj_len[c], adj_idx, adj_val, size, weight, k_c, n_initial, mode, top
        )
    tree = tournament(scores, leaves)

    merges = np.empty((max(n_initial - n_target, 0), 2), np.int32)
    affinities = np.empty(len(merges))
    acc = np.zeros((n_initial, 2))
    mark = np.zeros(n_initial, np.bool_)
    touched = np.empty(n_initial, np.int32)
    n_left, done = n_initial, 0
    while n_left > n_target:
        winner = tree[1]
        if nearest[winner] < 0:
            break
        a, b = min(winner, nearest[winner]), max(winner, nearest[winner])
        merges[done, 0], merges[done, 1] = a, b
        affinities[done] = affinity[winner]
        done += 1
        n_left -= 1

        absorb(clusters, a, b)
        scores[b] = -np.inf
        nearest[b] = -1
        replay(tree, leaves, scores, b)

        needed = length[a] + length[b]
        if end + needed > len(sample):
            sample, degree, end = compact(start, length, sample, degree, 0, needed)
        end = merge_boundaries(a, b, start, length, sample, degree, end, labels)

        n_touched = 0
        if mode == EXACT:
            n_touched = add_row(start[a], length[a], sample, degree, labels, acc, mark, touched, 0)
        for c in (a, b):
            for p in range(adj_start[c], adj_start[c] + adj_len[c]):
                j = adj_idx[p]
                if j == a or j == b:
                    continue
                if not mark[j]:
                    mark[j] = True
                    touched[n_touched] = j
                    n_touched += 1
                acc[j, 1] += adj_val[p, 1]
                if mode == RELEASED:
                    acc[j, 0] += adj_val[p, 0]
        adj_len[b] = 0

        needed = n_touched + SPARE
        if needed > adj_cap[a]:
            if adj_end + needed > len(adj_idx):
                adj_idx, adj_val, adj_end = compact(
                    adj_start, adj_len, adj_idx, adj_val, SPARE, needed
                )
                adj_cap[:] = np.where(adj_len > 0, adj_len + SPARE, 0)
            adj_start[a], adj_cap[a] = adj_end, needed
            adj_end += needed
        for t in range(n_touched):
            j = touched[t]
            p = adj_start[a] + t
            adj_idx[p], adj_val[p, 0], adj_val[p, 1] = j, acc[j, 0], acc[j, 1]
        adj_len[a] = n_touched

        for t in range(n_touched):
            j = touched[t]
            s, k = adj_start[j], 0
            for p in range(s, s + adj_len[j]):
                i = adj_idx[p]
                if i == a or i == b:
                    continue
                adj_idx[s + k] = i
                adj_val[s + k, 0], adj_val[s + k, 1] = adj_val[p, 0], adj_val[p, 1]
                k += 1
            if k + 1 > adj_cap[j]:
                room = 2 * (k + 1)
                if adj_end + room > len(adj_idx):
                    adj_len[j] = k
                    adj_idx, adj_val, adj_end = compact(
                        adj_start, adj_len, adj_idx, adj_val, SPARE, 0
                    )
                    adj_cap[:] = np.where(adj_len > 0, adj_len + SPARE, 0)
                    s = adj_start[j]
                else:
                    adj_idx[adj_end : adj_end + k] = adj_idx[s : s + k]
                    adj_val[adj_end : adj_end + k] = adj_val[s : s + k]
                    adj_start[j], adj_cap[j] = adj_end, room
                    s = adj_end
                    adj_end += room
            adj_idx[s + k] = a
            adj_val[s + k, 0], adj_val[s + k, 1] = acc[j, 1], acc[j, 0]
            adj_len[j] = k + 1
            acc[j, 0], acc[j, 1] = 0.0, 0.0
            mark[j] = False
        touched[n_touched] = a
        changed = touched[: n_touched + 1]
        # the number of neighbours that count changes for all at these two points
        if (mode == EXACT and n_left <= k_c) or (mode == RELEASED and n_left == RELEASED_LOCAL_MIN):
            changed = np.flatnonzero(scores > -np.inf).astype(np.int32)
        for c in changed:
            scores[c], nearest[c], affinity[c] = _score(
                c, adj_start[c], adj_len[c], adj_idx, adj_val, size, weight, k_c, n_left, mode, top
            )
            replay(tree, leaves, scores, c)
    return merges[:done], affinities[:done]
