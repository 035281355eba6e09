"""The triplets that a CUDA graph replays, as a mask: the same triplets, loss and gradient as by index."""

import numpy as np
import pytest
import torch

from reprolib.kernels.triplets import sample_triplets, squared_distances, triplet_mask
from reprolib.methods.jule import masked_triplet_loss, weighted_triplet_loss

LABELS = {
    "some": [0, 1, 0, 2, 1, 2, 0, 3, 3, 3],
    "two clusters": [0, 0, 0, 0, 0, 0, 0, 1, 0, 0],
    "one cluster": [4] * 6,
    "no pair": [0, 1, 2, 3, 4],
    "few others": [7, 7, 7, 7, 2],
}
EVERY = pytest.mark.parametrize("name", LABELS)


def made(name):
    labels = torch.tensor(LABELS[name])
    x = torch.randn(len(labels), 4, generator=torch.Generator().manual_seed(len(labels)), dtype=torch.float64)
    x = torch.nn.functional.normalize(x).requires_grad_()
    return labels, x, squared_distances(x, x)


@EVERY
@pytest.mark.parametrize("ordered", [True, False])
@pytest.mark.parametrize("kind", ["hinge", "linear", "affinity"])
def test_mask_equals_index_arrays(name, ordered, kind):
    labels, x, distances = made(name)
    triplets = sample_triplets(labels, 3, distances=distances, ordered=ordered)
    taken = triplet_mask(labels, 3, distances=distances, ordered=ordered)
    listed = [(int(i), int(j), int(k)) for i, j, ks in zip(*triplets, strict=True) for k in ks]
    assert sorted(map(tuple, taken.nonzero().tolist())) == sorted(listed)
    weigh = {"kind": kind, "gamma": 1.5, "margin": 0.2, "sigma2": 0.7}
    loss, count = masked_triplet_loss(distances, taken, **weigh)
    assert count == len(listed)
    (gradient,) = torch.autograd.grad(loss, x, retain_graph=True)
    if not listed:
        assert loss == 0 and not gradient.any()
        return
    expected = weighted_triplet_loss(distances, triplets, **weigh)
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(gradient, torch.autograd.grad(expected, x)[0])


@EVERY
@pytest.mark.parametrize("ordered", [True, False])
def test_random_negatives_are_as_many_and_of_other_clusters(name, ordered):
    labels, _, distances = made(name)
    options = {"negatives": "random", "distances": distances, "ordered": ordered}
    generator = torch.Generator().manual_seed(0)
    taken = triplet_mask(labels, 3, generator=generator, **options)
    triplets = sample_triplets(labels, 3, generator=generator, **options)
    assert taken.sum() == triplets.negative.numel()
    i, j, k = taken.nonzero(as_tuple=True)
    assert (labels[i] == labels[j]).all() and (labels[i] != labels[k]).all() and (i != j).all()


def test_random_negatives_are_drawn_evenly():
    labels = torch.tensor([0, 0, 1, 2, 3, 4, 5])
    generator, times = torch.Generator().manual_seed(1), 2000
    options = {"negatives": "random", "distances": torch.zeros(7, 7), "generator": generator}
    drawn = sum(triplet_mask(labels, 2, **options)[0, 1].int() for _ in range(times))
    assert drawn[:2].sum() == 0
    np.testing.assert_allclose(drawn[2:] / times, 2 / 5, atol=0.06)
