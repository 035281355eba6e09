"""Walks within two clusters, and the incremental path integral by walks from their boundary.

Let P_ab be the transition matrix on the union of clusters a and b, and G_ab = (I - z P_ab)^-1 its sum over
walks. A walk that leaves a and comes back crosses the boundary twice, so both affinities need walks that start
there, and each further step is at most z times as heavy. Every term is positive: a sum cut short is a lower
bound, and row sums at most 1 bound the rest.

Sparse vectors lie in two arrays, all empty between calls: vector v is `value[v]`, dense, and its support is
`at[v, 1:]`, of length `at[v, 0]`.
"""

from typing import NamedTuple

import numpy as np
from numba import njit


class Edges(NamedTuple):
    """A sparse matrix by rows."""

    ptr: np.ndarray
    idx: np.ndarray
    val: np.ndarray


class Walk(NamedTuple):
    """Row-stochastic P by rows and by columns, and the weight z of a step."""

    out: Edges
    back: Edges
    z: float


@njit(cache=True, nogil=True)
def add(value, at, v, j, amount):
    if amount <= 0.0:
        return
    if value[v, j] == 0.0:
        at[v, 0] += 1
        at[v, at[v, 0]] = j
    value[v, j] += amount


@njit(cache=True, nogil=True)
def clear(value, at, v):
    for t in range(1, at[v, 0] + 1):
        value[v, at[v, t]] = 0.0
    at[v, 0] = 0


@njit(cache=True, nogil=True)
def step(edges, z, label, a, b, value, at, v, w):
    """One step of z P within clusters a and b: from vector v, emptied, into w, empty before."""
    ptr, idx, val = edges
    for t in range(1, at[v, 0] + 1):
        i = at[v, t]
        amount = z * value[v, i]
        value[v, i] = 0.0
        for e in range(ptr[i], ptr[i + 1]):
            j = idx[e]
            if label[j] == a or label[j] == b:
                add(value, at, w, j, amount * val[e])
    at[v, 0] = 0


@njit(cache=True, nogil=True)
def _dot(value, at, v, w):
    if at[v, 0] > at[w, 0]:
        v, w = w, v
    total = 0.0
    for t in range(1, at[v, 0] + 1):
        total += value[v, at[v, t]] * value[w, at[v, t]]
    return total


@njit(cache=True, nogil=True)
def path_vectors(c, n_terms, walk, clusters, state, work):
    """Row and column sums of G_c for the members of c, into `state[0]` and `state[1]`."""
    label, head, follow, z = clusters.label, clusters.head[c], clusters.follow, walk.z
    old, new = work[0][0], work[0][1]
    for side in range(2):
        ptr, idx, val = walk.back if side == 0 else walk.out
        i = head
        while i >= 0:
            old[i] = 1.0
            i = follow[i]
        for _ in range(n_terms):
            i = head
            while i >= 0:
                total = 0.0
                for e in range(ptr[i], ptr[i + 1]):
                    if label[idx[e]] == c:
                        total += val[e] * old[idx[e]]
                new[i] = 1.0 + z * total
                i = follow[i]
            old, new = new, old
        i = head
        while i >= 0:
            state[side, i] = old[i]
            old[i], new[i] = 0.0, 0.0
            i = follow[i]


@njit(cache=True, nogil=True)
def path_affinity(a, b, order, walk, clusters, state, work):
    """Incremental path integral of a and b with `order` steps: (lower bound, room above it).

    For side a: z^2 / |a|^2 * g' G_ab f, where g (f) holds, for each sample of b, the walks from all of a that
    arrive there (the walks that leave from there and end anywhere in a). Vectors 0 and 1 are g and f of the
    larger cluster, 2 and 3 those of the smaller one.
    """
    label, follow, z = clusters.label, clusters.follow, walk.z
    value, at = work
    small, large = (b, a) if clusters.size[b] < clusters.size[a] else (a, b)
    for side in range(2):
        ptr, idx, val = walk.out if side == 0 else walk.back
        near, far = state[side], state[1 - side]
        i = clusters.head[small]
        while i >= 0:
            for e in range(ptr[i], ptr[i + 1]):
                j = idx[e]
                if label[j] == large:
                    add(value, at, 1 - side, i, z * val[e] * far[j])
                    add(value, at, 2 + side, j, z * val[e] * near[i])
            i = follow[i]
    low, room = 0.0, 0.0
    for left, size in ((0, clusters.size[large]), (2, clusters.size[small])):
        met, rest = _meet(left, left + 1, order, a, b, walk, label, work)
        low += met / size**2
        room += rest / size**2
    return low, room


@njit(cache=True, nogil=True)
def _meet(left, right, order, a, b, walk, label, work):
    """Sum over t <= `order` of left' (z P_ab)^t right, and a bound of the rest; empties both."""
    (value, at), z = work, walk.z
    total, room, spare = 0.0, 0.0, 4
    if at[left, 0] > 0 and at[right, 0] > 0:
        total = _dot(value, at, left, right)
        for t in range(order):
            # walks grow from both ends in turn, so that neither spreads far
            if t % 2 == 0:
                step(walk.back, z, label, a, b, value, at, right, spare)
                right, spare = spare, right
            else:
                step(walk.out, z, label, a, b, value, at, left, spare)
                left, spare = spare, left
            total += _dot(value, at, left, right)
        mass, peak = 0.0, 0.0
        for t in range(1, at[left, 0] + 1):
            mass += value[left, at[left, t]]
        for t in range(1, at[right, 0] + 1):
            peak = max(peak, value[right, at[right, t]])
        room = mass * peak * z / (1.0 - z)
    clear(value, at, left)
    clear(value, at, right)
    return total, room
