"""A tournament tree over scores, shared by the merge loops."""

from numba import njit


@njit(cache=True, nogil=True)
def replay(tree, leaves, scores, changed):
    """Replay the matches of leaf `changed` up to the root; a tie goes to the smaller index."""
    node = (leaves + changed) // 2
    while node >= 1:
        left, right = tree[2 * node], tree[2 * node + 1]
        tree[node] = right if scores[right] > scores[left] else left
        node //= 2
