"""The weighted triplet loss against a literal float64 transcription of paper 002, equation 11."""

import itertools
import math

import pytest
import torch
from torch.nn import functional as F

from reprolib.kernels.triplets import sample_triplets, squared_distances
from reprolib.methods.jule import weighted_triplet_loss


def literal_loss(x, labels, kind, gamma, margin, sigma2, n_negatives):
    """Loops over anchors, positives and nearest negatives; gradients flow through every term."""
    terms = []
    for i, j in itertools.permutations(range(len(x)), 2):
        if labels[i] != labels[j]:
            continue
        others = [k for k in range(len(x)) if labels[k] != labels[i]]
        others.sort(key=lambda k: float(((x[i] - x[k]) ** 2).sum().detach()))
        for k in others[:n_negatives]:
            near, far = ((x[i] - x[j]) ** 2).sum(), ((x[i] - x[k]) ** 2).sum()
            if kind == "affinity":
                terms.append(torch.exp(-far / sigma2) - gamma * torch.exp(-near / sigma2))
            else:
                value = gamma * near - far + margin
                terms.append(value.clamp(min=0) if kind == "hinge" else value - margin)
    return torch.stack(terms).mean()


def batch(seed, labels, d=6):
    generator = torch.Generator().manual_seed(seed)
    raw = torch.randn(len(labels), d, generator=generator, dtype=torch.float64)
    return raw.requires_grad_(), torch.tensor(labels)


@pytest.mark.parametrize("kind", ["linear", "hinge", "affinity"])
@pytest.mark.parametrize("gamma", [1.0, 2.0])
@pytest.mark.parametrize("labels", [[0, 0, 1, 1, 2, 2, 2, 1], [0, 0, 1], [3, 3, 3, 3, 5, 9, 1, 2]])
def test_value_and_gradient_equal_the_literal_loss(kind, gamma, labels):
    raw, labels = batch(0, labels)
    n_negatives = min(3, min(int((labels != c).sum()) for c in labels))
    x = F.normalize(raw)
    expected = literal_loss(x, labels.tolist(), kind, gamma, 0.2, 0.7, n_negatives)
    (expected_grad,) = torch.autograd.grad(expected, raw)
    x = F.normalize(raw)
    distances = squared_distances(x, x)
    triplets = sample_triplets(labels, n_negatives, distances=distances)
    loss = weighted_triplet_loss(distances, triplets, kind=kind, gamma=gamma, margin=0.2, sigma2=0.7)
    (grad,) = torch.autograd.grad(loss, raw)
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(grad, expected_grad)


def test_gradient_is_orthogonal_to_the_embedding():
    raw, labels = batch(1, [0, 0, 1, 1, 2, 2])
    x = F.normalize(raw)
    distances = squared_distances(x, x)
    triplets = sample_triplets(labels, 2, distances=distances)
    weighted_triplet_loss(distances, triplets).backward()
    assert float((raw.grad * raw.detach()).sum(1).abs().max()) < 1e-12


@pytest.mark.parametrize("labels", [[0] * 6, list(range(6)), [0, 1]])
def test_no_triplet_without_a_pair_or_a_second_cluster(labels):
    _, labels = batch(0, labels)
    distances = torch.rand(len(labels), len(labels))
    for negatives in ("nearest", "random"):
        triplets = sample_triplets(labels, 5, negatives=negatives, distances=distances)
        assert triplets.negative.numel() == 0


def test_random_negatives_are_distinct_foreign_and_follow_the_generator():
    labels = torch.randint(0, 4, (60,), generator=torch.Generator().manual_seed(0))
    draws = [
        sample_triplets(labels, 10, negatives="random", generator=torch.Generator().manual_seed(seed))
        for seed in (1, 1, 2)
    ]
    triplets = draws[0]
    assert triplets.negative.shape[1] == 3  # one less than the clusters in the batch
    assert torch.all(labels[triplets.negative] != labels[triplets.anchor][:, None])
    assert all(len(set(row.tolist())) == 3 for row in triplets.negative)
    assert torch.equal(draws[0].negative, draws[1].negative)
    assert not torch.equal(draws[0].negative, draws[2].negative)


def test_unordered_pairs_are_half_of_the_ordered_ones():
    labels = torch.tensor([0, 0, 0, 1, 1])
    distances = torch.rand(5, 5)
    both = sample_triplets(labels, 1, distances=distances)
    half = sample_triplets(labels, 1, distances=distances, ordered=False)
    assert len(both.anchor) == 8 and len(half.anchor) == 4
    assert torch.all(half.anchor < half.positive)


def test_hinge_is_bounded_on_the_sphere():
    raw, labels = batch(2, [0, 0, 1, 1])
    distances = squared_distances(F.normalize(raw), F.normalize(raw))
    triplets = sample_triplets(labels, 2, distances=distances)
    loss = weighted_triplet_loss(distances, triplets, kind="hinge", gamma=2.0, margin=0.2)
    assert 0.0 <= float(loss.detach()) <= 4 * 2.0 + 0.2


@pytest.mark.parametrize(("far", "direction"), [(0.5, 1), (0.7, -1)])
def test_unhinged_loss_prefers_collapse_until_negatives_are_gamma_times_farther(far, direction):
    """Shrinking squared distances lowers the linear loss while far < gamma * near, else raises it."""
    labels = torch.tensor([0, 0, 1, 1])
    near = 0.3
    distances = torch.full((4, 4), far, dtype=torch.float64)
    for i, j in ((0, 1), (2, 3)):
        distances[i, j] = distances[j, i] = near
    triplets = sample_triplets(labels, 2, distances=distances)
    now, shrunk = (float(weighted_triplet_loss(s * distances, triplets, kind="linear", gamma=2.0)) for s in (1.0, 0.25))
    assert math.copysign(1, now - shrunk) == direction
