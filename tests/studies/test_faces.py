"""LFW's protocol against a literal version, and Table 7's path on faces that are drawn here."""

import itertools

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F

from reprolib import load
from reprolib.data.images import Images, to_float_images
from reprolib.methods import JULE
from reprolib.networks.embedding import ConvEmbedding
from reprolib.studies.faces import (
    FacePairs,
    best_threshold,
    cosine_similarity,
    fine_tune,
    load_lfw_pairs,
    verify,
    verify_faces,
)


def verify_pairs(first, second, same, folds):
    return verify(cosine_similarity(first, second), same, folds)


def accuracy_at(scores, same, threshold):
    return sum((s > threshold) == t for s, t in zip(scores, same, strict=True)) / len(scores)


def literal_protocol(first, second, same, folds):
    """Fold by fold, every threshold tried, in float64."""
    scores = [
        float(a @ b / (np.sqrt(a @ a) * np.sqrt(b @ b)))
        for a, b in zip(first.astype(float), second.astype(float), strict=True)
    ]
    accuracies = []
    for fold in sorted(set(folds)):
        others = [i for i in range(len(same)) if folds[i] != fold]
        own = [i for i in range(len(same)) if folds[i] == fold]
        ranked = sorted(scores[i] for i in others)
        tried = [ranked[0] - 1, *((a + b) / 2 for a, b in itertools.pairwise(ranked)), ranked[-1] + 1]
        best = max(tried, key=lambda t: accuracy_at([scores[i] for i in others], [same[i] for i in others], t))
        accuracies.append(accuracy_at([scores[i] for i in own], [same[i] for i in own], best))
    mean = sum(accuracies) / len(accuracies)
    variance = sum((a - mean) ** 2 for a in accuracies) / (len(accuracies) - 1)
    return accuracies, mean, np.sqrt(variance / len(accuracies))


def some_pairs(n=120, n_folds=10, seed=0):
    rng = np.random.default_rng(seed)
    same = rng.integers(2, size=n).astype(bool)
    first = rng.normal(size=(n, 5)).astype(np.float32)
    noise = rng.normal(size=(n, 5)).astype(np.float32)
    second = np.where(same[:, None], first + noise, noise)
    return first, second, same, rng.permutation(np.arange(n) % n_folds)


@pytest.mark.parametrize("seed", range(4))
def test_protocol_is_the_literal_one(seed):
    pairs = some_pairs(seed=seed)
    accuracies, mean, error = literal_protocol(*pairs)
    found = verify_pairs(*pairs)
    np.testing.assert_allclose(found.fold_accuracies, accuracies)
    assert found.accuracy == pytest.approx(mean) and 0.5 < mean < 1
    assert found.standard_error == pytest.approx(error)


def test_a_fold_does_not_choose_its_own_threshold():
    scores = np.array([0.1, 0.2, 0.8, 0.9, 0.1, 0.2, 0.8, 0.9])
    same = np.array([0, 0, 1, 1, 1, 1, 0, 0], bool)  # the second fold contradicts the first
    found = verify(scores, same, np.repeat([0, 1], 4))
    # the best on the other fold is to call all pairs alike, or all different
    np.testing.assert_array_equal(found.fold_accuracies, [0.5, 0.0])
    assert found.thresholds[1] == pytest.approx(0.5) and np.isinf(found.thresholds[0])


@pytest.mark.parametrize("seed", range(3))
def test_threshold_is_the_best_of_all(seed):
    rng = np.random.default_rng(seed)
    scores = rng.integers(8, size=40) / 8  # many ties
    same = rng.random(40) < scores
    chosen = accuracy_at(scores, same, best_threshold(scores, same))
    assert chosen == max(accuracy_at(scores, same, t) for t in np.linspace(-1, 2, 97))


def test_threshold_between_separate_scores_and_at_the_ends():
    same = np.array([False, False, True])
    assert best_threshold(np.array([0.0, 0.2, 1.0]), same) == pytest.approx(0.6)
    assert best_threshold(np.array([0.0, 0.2, 1.0]), np.ones(3, bool)) == -np.inf
    assert best_threshold(np.array([0.0, 0.2, 1.0]), np.zeros(3, bool)) == np.inf
    # equal scores cannot be told apart
    assert np.isinf(best_threshold(np.zeros(3), same))


def test_invariances():
    first, second, same, folds = some_pairs()
    found = verify_pairs(first, second, same, folds)
    rng = np.random.default_rng(5)
    order = rng.permutation(len(same))
    shuffled = verify_pairs(first[order], second[order], same[order], folds[order])
    scaled = verify_pairs(first * rng.uniform(0.1, 9, (len(same), 1)), second, same, folds)
    named = verify_pairs(second, first, same, 100 - folds)
    assert found.accuracy == pytest.approx(shuffled.accuracy) == pytest.approx(scaled.accuracy)
    np.testing.assert_allclose(named.fold_accuracies, found.fold_accuracies[::-1])


def test_cosine_of_zeros_is_zero():
    found = cosine_similarity(np.array([[0.0, 0], [3, 4]]), np.array([[1.0, 2], [4, 3]]))
    np.testing.assert_allclose(found, [0, 24 / 25])


def test_clear_errors():
    first, second, same, folds = some_pairs()
    with pytest.raises(ValueError, match="one shape"):
        verify_pairs(first, second[:, :3], same, folds)
    with pytest.raises(ValueError, match="contains NaN"):
        verify_pairs(first * np.nan, second, same, folds)
    with pytest.raises(ValueError, match="one length"):
        verify_pairs(first, second, same[:5], folds)
    with pytest.raises(ValueError, match="at least two folds"):
        verify_pairs(first, second, same, np.zeros(len(same)))
    with pytest.raises(ValueError, match="same must hold"):
        verify_pairs(first, second, folds, folds)
    with pytest.raises(ValueError, match="scores must be finite"):
        verify(np.full(4, np.inf), np.ones(4), np.arange(4))


def digits_as_faces(n_train=400, n_pairs=200):
    """Digits stand for people: training images of all ten, and pairs of other images of them."""
    digits = load("digits")
    order = np.random.default_rng(0).permutation(digits.n)
    train, rest = digits.take(order[:n_train]), digits.take(order[n_train:])
    half = rest.n // 2
    same = rest.labels[:half] == rest.labels[half : 2 * half]
    chosen = np.concatenate([np.flatnonzero(same)[: n_pairs // 2], np.flatnonzero(~same)[: n_pairs // 2]])
    chosen = chosen[np.random.default_rng(1).permutation(len(chosen))]
    pairs = FacePairs(
        rest.pixels[chosen], rest.pixels[half + chosen], same[chosen], np.arange(len(chosen)) * 10 // len(chosen)
    )
    return train, pairs


def tiny_model(**other):
    parameters = dict(n_epochs=6, batch_size=20, channels=8, embedding_dim=16, device="cpu")
    return JULE(10, **(parameters | other))


def test_table_7_on_digits():
    train, pairs = digits_as_faces()
    assert len(pairs.same) > 100 and 0.3 < pairs.same.mean() < 0.7
    rows = verify_faces(train, pairs, [60, 400], tiny_model(n_epochs=10))
    assert [(row["row"], row["n_train"]) for row in rows] == [
        (row, n) for n in (60, 400) for row in ("Supervised", "OURS")
    ]
    for row in rows:
        again = verify(row["scores"], pairs.same, pairs.folds)
        assert row["accuracy"] == again.accuracy == pytest.approx(row["fold_accuracies"].mean())
    # 0.5 is chance
    assert rows[2]["accuracy"] > 0.85 and rows[3]["accuracy"] > 0.75


def test_row_ours_never_reads_the_labels():
    train, pairs = digits_as_faces(n_train=100, n_pairs=80)
    other = Images(train.pixels, 9 - train.labels[::-1], name="digits")
    model = tiny_model(n_epochs=1)
    ours, theirs = ({row["row"]: row for row in verify_faces(images, pairs, [100], model)} for images in (train, other))
    np.testing.assert_array_equal(ours["OURS"]["scores"], theirs["OURS"]["scores"])
    assert not np.array_equal(ours["Supervised"]["scores"], theirs["Supervised"]["scores"])
    assert not hasattr(model, "labels_")


def test_fine_tuning_lowers_the_softmax_loss_and_leaves_the_network():
    train, _ = digits_as_faces(n_train=300)
    network = ConvEmbedding((1, 8, 8), 16, 8, generator=torch.Generator().manual_seed(0))
    before = {name: value.clone() for name, value in network.state_dict().items()}
    tuned = fine_tune(network, train, train.labels, tiny_model())
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    targets = torch.from_numpy(train.labels)
    errors = []
    for trained in (network.eval(), tuned):
        with torch.no_grad():
            features = trained.features(to_float_images(train.pixels))[-1]
        # a linear probe by least squares reads the classes off the features
        wide = torch.cat([features, torch.ones(len(features), 1)], 1).double()
        probe = torch.linalg.lstsq(wide, F.one_hot(targets, 10).double()).solution
        errors.append(((wide @ probe).argmax(1) != targets).double().mean())
    assert errors[1] < min(0.1, errors[0])


def test_fine_tuning_refuses_labels_that_do_not_fit():
    train, _ = digits_as_faces(n_train=30)
    network = ConvEmbedding((1, 8, 8), 16, 8)
    for labels in (np.zeros(30), train.labels[:10]):
        with pytest.raises(ValueError, match="one of at least two classes an image"):
            fine_tune(network, train, labels, tiny_model())


def test_faces_that_do_not_fit_are_refused():
    train, pairs = digits_as_faces(n_train=30)
    with pytest.raises(ValueError, match="sizes must be from 2 to the 30"):
        verify_faces(train, pairs, [31], tiny_model())
    with pytest.raises(ValueError, match="no labels for the supervised row"):
        verify_faces(Images(train.pixels), pairs, [30], tiny_model())
    with pytest.raises(ValueError, match="load both with one size"):
        verify_faces(train, pairs._replace(first=pairs.first[..., :7]), [30], tiny_model())


def test_lfw_is_read_from_its_folder(tmp_path):
    """A folder laid out as LFW's, with ten folds of one pair of each kind."""
    home = tmp_path / "lfw_home"
    lines = ["10\t1"]
    for fold in range(10):
        for person in "AB":
            folder = home / "lfw_funneled" / f"{person}{fold}"
            folder.mkdir(parents=True)
            for number in (1, 2):
                pixels = np.full((250, 250, 3), 20 * fold + 5 * number, np.uint8)
                pixels[:62] = 255  # cut off
                Image.fromarray(pixels).save(folder / f"{person}{fold}_{number:04d}.jpg", quality=100)
        lines += [f"A{fold}\t1\t2", f"A{fold}\t1\tB{fold}\t2"]
    (home / "pairs.txt").write_text("\n".join(lines))
    for other in ("pairsDevTrain.txt", "pairsDevTest.txt"):
        (home / other).write_text("")
    pairs = load_lfw_pairs(tmp_path, 55)
    assert pairs.first.shape == pairs.second.shape == (20, 3, 55, 55)
    np.testing.assert_array_equal(pairs.same, [True, False] * 10)
    np.testing.assert_array_equal(pairs.folds, np.repeat(np.arange(10), 2))
    expected = 20 * pairs.folds + 5
    assert abs(pairs.first.mean((1, 2, 3)) - expected).max() < 2
    assert abs(pairs.second.mean((1, 2, 3)) - expected - 5).max() < 2


def test_missing_lfw_says_how_to_get_it(tmp_path):
    with pytest.raises(FileNotFoundError, match="fetch_lfw_pairs.*10_folds"):
        load_lfw_pairs(tmp_path, 55)
