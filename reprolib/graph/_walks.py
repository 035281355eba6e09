"""Walks within two clusters, and the incremental path integral by walks from their boundary.

Let P_ab be the transition matrix on the union of clusters a and b, and G_ab = (I - z P_ab)^-1 its
sum over walks. A walk that leaves a and comes back crosses the boundary twice, so both affinities
need walks that start there, and each further step is at most z times as heavy. Every term is
positive: a sum cut short is a lower bound, and row sums at most 1 bound the rest.
"""

from typing import NamedTuple

import numpy as np
from numba import njit


class Walk(NamedTuple):
    """Row-stochastic P without its diagonal, by rows and by columns; `stay` is the diagonal."""

    out_ptr: np.ndarray
    out_idx: np.ndarray
    out_val: np.ndarray
    in_ptr: np.ndarray
    in_idx: np.ndarray
    in_val: np.ndarray
    stay: np.ndarray


class Clusters(NamedTuple):
    """Current partition: label by sample, and members by cluster as linked lists."""

    label: np.ndarray
    head: np.ndarray
    tail: np.ndarray
    follow: np.ndarray
    size: np.ndarray


class Work(NamedTuple):
    """Sparse work vectors, all zero between calls: dense values (9, n) and their supports."""

    value: np.ndarray
    support: np.ndarray


@njit(cache=True, nogil=True)
def add(j, amount, value, support, count):
    if amount <= 0.0:
        return count
    if value[j] == 0.0:
        support[count] = j
        count += 1
    value[j] += amount
    return count


@njit(cache=True, nogil=True)
def clear(value, support, count):
    for t in range(count):
        value[support[t]] = 0.0


@njit(cache=True, nogil=True)
def step(ptr, idx, val, stay, label, a, b, z, value, support, count, fresh, fresh_support):
    """One step of z P within clusters a and b: adds into `fresh`, empties `value`."""
    n_fresh = 0
    for t in range(count):
        i = support[t]
        v = z * value[i]
        value[i] = 0.0
        n_fresh = add(i, v * stay[i], fresh, fresh_support, n_fresh)
        for e in range(ptr[i], ptr[i + 1]):
            j = idx[e]
            if label[j] == a or label[j] == b:
                n_fresh = add(j, v * val[e], fresh, fresh_support, n_fresh)
    return n_fresh


@njit(cache=True, nogil=True)
def _dot(left, left_support, n_left, right, right_support, n_right):
    total = 0.0
    if n_left <= n_right:
        for t in range(n_left):
            total += left[left_support[t]] * right[left_support[t]]
    else:
        for t in range(n_right):
            total += left[right_support[t]] * right[right_support[t]]
    return total


@njit(cache=True, nogil=True)
def path_vectors(c, z, n_terms, walk, clusters, state, work):
    """Row and column sums of G_c for the members of c, into `state[0]` and `state[1]`."""
    label, old, new = clusters.label, work.value[0], work.value[1]
    for side in range(2):
        ptr, idx, val = walk.in_ptr, walk.in_idx, walk.in_val
        if side == 1:
            ptr, idx, val = walk.out_ptr, walk.out_idx, walk.out_val
        i = clusters.head[c]
        while i >= 0:
            old[i] = 1.0
            i = clusters.follow[i]
        for _ in range(n_terms):
            i = clusters.head[c]
            while i >= 0:
                total = walk.stay[i] * old[i]
                for e in range(ptr[i], ptr[i + 1]):
                    if label[idx[e]] == c:
                        total += val[e] * old[idx[e]]
                new[i] = 1.0 + z * total
                i = clusters.follow[i]
            old, new = new, old
        i = clusters.head[c]
        while i >= 0:
            state[side, i] = old[i]
            old[i], new[i] = 0.0, 0.0
            i = clusters.follow[i]


@njit(cache=True, nogil=True)
def path_affinity(a, b, order, z, walk, clusters, state, work):
    """Incremental path integral of a and b with `order` steps: (lower bound, room above it).

    For side a: z^2 / |a|^2 * g' G_ab f, where g (f) holds, for each sample of b, the walks from
    all of a that arrive there (the walks that leave from there and end anywhere in a).
    """
    label, x, y = clusters.label, state[0], state[1]
    small, large = a, b
    if clusters.size[b] < clusters.size[a]:
        small, large = b, a
    g, f, k, h = work.value[0], work.value[1], work.value[2], work.value[3]
    g_at, f_at, k_at, h_at = work.support[0], work.support[1], work.support[2], work.support[3]
    n_g, n_f, n_k, n_h = 0, 0, 0, 0
    i = clusters.head[small]
    while i >= 0:
        for e in range(walk.out_ptr[i], walk.out_ptr[i + 1]):
            j = walk.out_idx[e]
            if label[j] == large:
                n_f = add(i, z * walk.out_val[e] * y[j], f, f_at, n_f)
                n_k = add(j, z * walk.out_val[e] * x[i], k, k_at, n_k)
        for e in range(walk.in_ptr[i], walk.in_ptr[i + 1]):
            j = walk.in_idx[e]
            if label[j] == large:
                n_g = add(i, z * walk.in_val[e] * x[j], g, g_at, n_g)
                n_h = add(j, z * walk.in_val[e] * y[i], h, h_at, n_h)
        i = clusters.follow[i]
    low, room = _meet(0, 1, n_g, n_f, order, z, a, b, walk, label, work)
    low_back, room_back = _meet(2, 3, n_k, n_h, order, z, a, b, walk, label, work)
    scale, scale_back = clusters.size[large] ** 2, clusters.size[small] ** 2
    return low / scale + low_back / scale_back, room / scale + room_back / scale_back


@njit(cache=True, nogil=True)
def _meet(p, q, n_left, n_right, order, z, a, b, walk, label, work):
    """Sum over t <= `order` of left' (z P_ab)^t right, and a bound of the rest; empties both."""
    left, left_at = work.value[p], work.support[p]
    right, right_at = work.value[q], work.support[q]
    spare, spare_at = work.value[4], work.support[4]
    total, room = 0.0, 0.0
    if n_left > 0 and n_right > 0:
        total = _dot(left, left_at, n_left, right, right_at, n_right)
        for t in range(order):
            # walks grow from both ends in turn, so that neither spreads far
            if t % 2 == 0:
                n_right = step(
                    walk.in_ptr, walk.in_idx, walk.in_val, walk.stay, label, a, b, z,
                    right, right_at, n_right, spare, spare_at,
                )  # fmt: skip
                right, spare, right_at, spare_at = spare, right, spare_at, right_at
            else:
                n_left = step(
                    walk.out_ptr, walk.out_idx, walk.out_val, walk.stay, label, a, b, z,
                    left, left_at, n_left, spare, spare_at,
                )  # fmt: skip
                left, spare, left_at, spare_at = spare, left, spare_at, left_at
            total += _dot(left, left_at, n_left, right, right_at, n_right)
        mass, peak = 0.0, 0.0
        for t in range(n_left):
            mass += left[left_at[t]]
        for t in range(n_right):
            peak = max(peak, right[right_at[t]])
        room = mass * peak * z / (1.0 - z)
    clear(left, left_at, n_left)
    clear(right, right_at, n_right)
    return total, room
