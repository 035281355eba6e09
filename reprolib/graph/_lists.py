"""The lists of the merge loop: what each cluster's edges reach, and which clusters they join.

Every cluster owns two short lists in shared pools. Its *boundary* holds (sample, out, in): the edge
weight to and from each sample outside it. Its *adjacency* holds (cluster, U_out, U_in) for each
cluster joined to it.
"""

import numpy as np
from numba import njit

from reprolib.graph._walks import Clusters


def member_lists(labels: np.ndarray) -> Clusters:
    """The partition of labels int32 (n,) in 0..c-1, members in the order of their indices."""
    n, size = len(labels), np.bincount(labels)
    order = np.argsort(labels, kind="stable").astype(np.int32)
    end = np.cumsum(size)
    follow = np.full(n, -1, np.int32)
    follow[order[:-1]] = np.where(labels[order[:-1]] == labels[order[1:]], order[1:], -1)
    return Clusters(
        labels.copy(), order[end - size], order[end - 1], follow, size.astype(np.float64)
    )


@njit(cache=True, nogil=True)
def absorb(clusters, a, b):
    """Make the members of b members of a."""
    i = clusters.head[b]
    while i >= 0:
        clusters.label[i] = a
        i = clusters.follow[i]
    clusters.follow[clusters.tail[a]] = clusters.head[b]
    clusters.tail[a] = clusters.tail[b]
    clusters.size[a] += clusters.size[b]


@njit(cache=True, nogil=True)
def compact(start, length, index, values, spare, needed):
    """Move the live lists to fresh arrays; `spare` is room at each non-empty list, `needed` at the end."""
    total = 0
    for c in range(len(start)):
        if length[c]:
            total += length[c] + spare
    new_index = np.empty(max(2 * total, total + needed, 64), index.dtype)
    new_values = np.empty((len(new_index), 2), values.dtype)
    end = 0
    for c in range(len(start)):
        s, k = start[c], length[c]
        new_index[end : end + k] = index[s : s + k]
        new_values[end : end + k] = values[s : s + k]
        start[c] = end
        if k:
            end += k + spare
    return new_index, new_values, end


@njit(cache=True, nogil=True)
def merge_boundaries(a, b, start, length, sample, degree, end, labels):
    """Append the sum of the boundaries of a and b (both now labelled a) to the pool."""
    p, p_end = start[a], start[a] + length[a]
    q, q_end = start[b], start[b] + length[b]
    begin = end
    while p < p_end or q < q_end:
        m = np.int32(2147483647)
        if p < p_end:
            m = sample[p]
        if q < q_end and sample[q] < m:
            m = sample[q]
        d_out, d_in = 0.0, 0.0
        if p < p_end and sample[p] == m:
            d_out += degree[p, 0]
            d_in += degree[p, 1]
            p += 1
        if q < q_end and sample[q] == m:
            d_out += degree[q, 0]
            d_in += degree[q, 1]
            q += 1
        if labels[m] != a:
            sample[end] = m
            degree[end, 0] = d_out
            degree[end, 1] = d_in
            end += 1
    start[a], length[a], length[b] = begin, end - begin, 0
    return end


@njit(cache=True, nogil=True)
def add_row(begin, count, sample, degree, labels, acc, mark, touched, n_touched):
    """Add U(c, i) = sum of out * in over the boundary samples of each cluster i to `acc[:, 0]`."""
    for p in range(begin, begin + count):
        if degree[p, 0] > 0.0 and degree[p, 1] > 0.0:
            i = labels[sample[p]]
            if not mark[i]:
                mark[i] = True
                touched[n_touched] = i
                n_touched += 1
            acc[i, 0] += degree[p, 0] * degree[p, 1]
    return n_touched


@njit(cache=True, nogil=True)
def tournament(scores, leaves):
    """Tree whose root, node 1, holds the index of the largest score; leaf i is node `leaves` + i."""
    tree = np.empty(2 * leaves, np.int64)
    tree[leaves:] = np.arange(leaves)
    for node in range(leaves - 1, 0, -1):
        left, right = tree[2 * node], tree[2 * node + 1]
        tree[node] = right if scores[right] > scores[left] else left
    return tree


@njit(cache=True, nogil=True)
def replay(tree, leaves, scores, changed):
    """Replay the matches of leaf `changed` up to the root; a tie goes to the smaller index."""
    node = (leaves + changed) // 2
    while node >= 1:
        left, right = tree[2 * node], tree[2 * node + 1]
        tree[node] = right if scores[right] > scores[left] else left
        node //= 2
