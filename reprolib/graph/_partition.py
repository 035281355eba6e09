"""What both merge loops change: the partition, and the tournament whose winner merges next."""

from typing import NamedTuple

import numpy as np
from numba import njit


class Clusters(NamedTuple):
    """Current partition: label by sample, and members by cluster as linked lists."""

    label: np.ndarray
    head: np.ndarray
    tail: np.ndarray
    follow: np.ndarray
    size: np.ndarray


def member_lists(labels: np.ndarray) -> Clusters:
    """The partition of labels int32 (n,) in 0..c-1, members in the order of their indices."""
    size = np.bincount(labels)
    order = np.argsort(labels, kind="stable").astype(np.int32)
    end = np.cumsum(size)
    follow = np.full(len(labels), -1, np.int32)
    follow[order[:-1]] = np.where(labels[order[:-1]] == labels[order[1:]], order[1:], -1)
    return Clusters(labels.copy(), order[end - size], order[end - 1], follow, size.astype(np.float64))


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
def replay(tree, scores, changed):
    """Replay the matches of leaf `changed` up to the root; a tie goes to the smaller index."""
    node = (len(tree) // 2 + changed) // 2
    while node >= 1:
        left, right = tree[2 * node], tree[2 * node + 1]
        tree[node] = right if scores[right] > scores[left] else left
        node //= 2


@njit(cache=True, nogil=True)
def tournament(scores):
    """Tree whose root, node 1, holds the index of the largest score.

    The leaves are its second half, a power of two; those beyond the scores repeat the last index.
    """
    leaves = 1
    while leaves < len(scores):
        leaves *= 2
    tree = np.minimum(np.arange(2 * leaves) % leaves, len(scores) - 1)
    for leaf in range(0, leaves, 2):
        replay(tree, scores, leaf)
    return tree
