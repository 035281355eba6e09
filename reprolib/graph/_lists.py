"""The lists of the merge loop: what each cluster's edges reach, and which clusters they join.

Every cluster owns two short lists in shared pools. Its *boundary* holds (sample, out, in): the edge
weight to and from each sample outside it. Its *adjacency* holds (cluster, U_out, U_in) for each
cluster joined to it.
"""

import numpy as np
from numba import njit


@njit(cache=True, nogil=True)
def grow(array, needed):
    if needed <= len(array):
        return array
    bigger = np.empty(max(needed, 2 * len(array)), array.dtype)
    bigger[: len(array)] = array
    return bigger


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
def boundaries(out_ptr, out_idx, out_val, in_ptr, in_idx, in_val, labels, n_initial):
    """Sorted union of the rows of S_out and S_in, without a cluster's own samples."""
    total = len(out_idx) + len(in_idx)
    start = np.zeros(n_initial, np.int64)
    length = np.zeros(n_initial, np.int64)
    sample = np.empty(total, np.int32)
    degree = np.empty((total, 2), np.float64)
    end = 0
    for c in range(n_initial):
        start[c] = end
        p, p_end, q, q_end = out_ptr[c], out_ptr[c + 1], in_ptr[c], in_ptr[c + 1]
        while p < p_end or q < q_end:
            m = np.int32(2147483647)
            if p < p_end:
                m = out_idx[p]
            if q < q_end and in_idx[q] < m:
                m = in_idx[q]
            d_out, d_in = 0.0, 0.0
            if p < p_end and out_idx[p] == m:
                d_out = out_val[p]
                p += 1
            if q < q_end and in_idx[q] == m:
                d_in = in_val[q]
                q += 1
            if labels[m] != c:
                sample[end] = m
                degree[end, 0] = d_out
                degree[end, 1] = d_in
                end += 1
        length[c] = end - start[c]
    return start, length, sample, degree, end


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
def _put(c, i, value, side, adj_start, adj_len, adj_idx, adj_val):
    s = adj_start[c]
    for p in range(s, s + adj_len[c]):
        if adj_idx[p] == i:
            adj_val[p, side] = value
            return
    p = s + adj_len[c]
    adj_idx[p] = i
    adj_val[p, side] = value
    adj_val[p, 1 - side] = 0.0
    adj_len[c] += 1


@njit(cache=True, nogil=True)
def adjacencies(start, length, sample, degree, labels, n_initial):
    """Symmetric adjacency lists (cluster, U_out, U_in) with room for one more entry in two."""
    acc = np.zeros((n_initial, 2))
    mark = np.zeros(n_initial, np.bool_)
    touched = np.empty(n_initial, np.int32)
    row_ptr = np.zeros(n_initial + 1, np.int64)
    row_idx = np.empty(max(16, 8 * n_initial), np.int32)
    row_val = np.empty(len(row_idx), np.float64)
    degree_of = np.zeros(n_initial, np.int64)
    for c in range(n_initial):
        k = add_row(start[c], length[c], sample, degree, labels, acc, mark, touched, 0)
        end = row_ptr[c]
        row_idx = grow(row_idx, end + k)
        row_val = grow(row_val, end + k)
        for t in range(k):
            i = touched[t]
            row_idx[end + t] = i
            row_val[end + t] = acc[i, 0]
            acc[i, 0] = 0.0
            mark[i] = False
            degree_of[c] += 1
            degree_of[i] += 1
        row_ptr[c + 1] = end + k
    adj_start = np.zeros(n_initial, np.int64)
    adj_cap = np.zeros(n_initial, np.int64)
    end = 0
    for c in range(n_initial):
        adj_start[c] = end
        adj_cap[c] = degree_of[c] + 4
        end += adj_cap[c]
    adj_len = np.zeros(n_initial, np.int64)
    adj_idx = np.empty(max(end, 1), np.int32)
    adj_val = np.empty((max(end, 1), 2), np.float64)
    for c in range(n_initial):
        for p in range(row_ptr[c], row_ptr[c + 1]):
            i = row_idx[p]
            _put(c, i, row_val[p], 0, adj_start, adj_len, adj_idx, adj_val)
            _put(i, c, row_val[p], 1, adj_start, adj_len, adj_idx, adj_val)
    return adj_start, adj_len, adj_cap, adj_idx, adj_val, end


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
