"""Patches, codes and the classifier on them, against literal float64 versions."""

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from sklearn.svm import LinearSVC

from reprolib.data.images import Images
from reprolib.methods import JULE
from reprolib.studies import codes as patches
from reprolib.studies.classify import FOLDS, L2SVM, PENALTIES, choose_svm, classify, standardise
from reprolib.studies.patch_network import LAYERS, PatchEmbedding, layer_representation, learn_patch_network


def some_images(n, channels, height, width, seed=0):
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, (n, channels, height, width), dtype=np.uint8)
    images[0] = 77  # every patch of it is constant
    images[1, :, : height // 2] = 200  # some of its patches are
    return images


def literal_normalise(patch):
    mean = sum(patch) / len(patch)
    variance = sum((v - mean) ** 2 for v in patch) / (len(patch) - 1)
    return (patch - mean) / np.sqrt(variance + 10)


def literal_features(images, mean, matrix, codes, size):
    """Patch by patch, in float64."""
    n, _, height, width = images.shape
    rows, columns = height - size + 1, width - size + 1
    out = np.zeros((n, 4, len(codes)))
    for i in range(n):
        for y in range(rows):
            for x in range(columns):
                patch = images[i, :, y : y + size, x : x + size].astype(float).ravel()
                white = matrix @ (literal_normalise(patch) - mean)
                z = np.array([np.sqrt(((white - code) ** 2).sum()) for code in codes])
                lower, right = y >= np.ceil(rows / 2), x >= np.ceil(columns / 2)
                out[i, 2 * int(lower) + int(right)] += np.maximum(0, z.mean() - z)
    return out.reshape(n, -1)


@pytest.mark.parametrize("shape", [(4, 3, 9, 8), (4, 1, 7, 7), (3, 3, 5, 9)])
def test_features_equal_the_literal_pipeline(shape):
    images, size = some_images(*shape), 4
    whitening = patches.fit_whitening(patches.sample_patches(images, 300, size=size))
    codes = torch.from_numpy(np.random.default_rng(1).normal(size=(9, len(whitening.mean))).astype(np.float32))
    expected = literal_features(
        images, whitening.mean.double().numpy(), whitening.matrix.double().numpy(), codes.double().numpy(), size
    )
    found = patches.encode(images, whitening, codes, size=size, device="cpu")
    assert found.shape == (shape[0], 36) and found.dtype == np.float32
    assert expected.max() > 1
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


def test_features_do_not_depend_on_blocks_or_on_other_images(monkeypatch):
    images = some_images(7, 3, 8, 8)
    whitening = patches.fit_whitening(patches.sample_patches(images, 200))
    # not patches themselves: a distance of 0 would be known to a root of the precision only
    codes = torch.randn(12, 108, generator=torch.Generator().manual_seed(0))
    together = patches.encode(images, whitening, codes, device="cpu")
    monkeypatch.setitem(patches.BLOCK_BYTES, "cpu", 1)
    alone = patches.encode(images[::-1], whitening, codes, device="cpu")[::-1]
    # distances expanded into float32 products of 108 terms: the tolerance of the literal pipeline
    np.testing.assert_allclose(alone, together, rtol=1e-4, atol=1e-4)


def test_whitening_is_the_inverse_root_of_the_covariance():
    raw = patches.sample_patches(some_images(20, 3, 12, 12), 2000, size=3)
    whitening = patches.fit_whitening(raw)
    normalised = np.array([literal_normalise(row) for row in raw.double().numpy()])
    covariance = np.cov(normalised.T)
    matrix = whitening.matrix.double().numpy()
    np.testing.assert_allclose(matrix, matrix.T, atol=1e-6)
    assert (np.linalg.eigvalsh(matrix) > 0).all()
    unit = matrix @ (covariance + 0.1 * np.eye(27)) @ matrix
    np.testing.assert_allclose(unit, np.eye(27), atol=1e-4)
    np.testing.assert_allclose(whitening(raw).mean(0), 0, atol=1e-4)


def test_contrast_normalisation():
    rows = torch.tensor([[5.0, 5, 5, 5], [0, 0, 0, 255], [1, 2, 3, 4]])
    found = patches.normalise_contrast(rows)
    expected = [literal_normalise(row) for row in rows.double().numpy()]
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert (found[0] == 0).all()
    brighter = patches.normalise_contrast(rows[2:] + 100)
    np.testing.assert_allclose(brighter, found[2:], atol=1e-6)


def test_drawn_patches_are_windows_of_the_images():
    # a pixel tells its image, row and column
    images = (100 * np.arange(2)[:, None, None] + 10 * np.arange(6)[:, None] + np.arange(7)).astype(np.uint8)
    drawn = patches.sample_patches(images, 500, size=3).numpy().reshape(500, 3, 3)
    corner = drawn[:, :1, :1]
    window = 10 * np.arange(3)[:, None] + np.arange(3)
    np.testing.assert_array_equal(drawn - corner, np.broadcast_to(window, drawn.shape))
    places = {int(c) for c in corner.ravel()}
    assert places == {100 * i + 10 * y + x for i in range(2) for y in range(4) for x in range(5)}


def test_drawn_patches_keep_their_channels_and_follow_the_seed():
    images = np.zeros((2, 3, 6, 6), np.uint8) + np.array([10, 20, 30], np.uint8)[:, None, None]
    drawn = patches.sample_patches(images, 5, size=2).numpy()
    np.testing.assert_array_equal(drawn, np.repeat([[10, 20, 30]], 4, axis=1).repeat(5, 0))
    images = some_images(5, 1, 9, 9)
    first = patches.sample_patches(images, 50, random_state=3)
    assert torch.equal(first, patches.sample_patches(images, 50, random_state=3))
    assert not torch.equal(first, patches.sample_patches(images, 50, random_state=4))


@pytest.mark.parametrize("rows, columns", [(27, 27), (2, 3), (5, 2)])
def test_every_position_lies_in_one_quadrant(rows, columns):
    masks = patches.quadrants(rows, columns).reshape(4, rows, columns)
    assert (masks.sum(0) == 1).all()
    top, left = round(rows / 2 + 1e-9), round(columns / 2 + 1e-9)
    assert (masks[0, :top, :left] == 1).all() and (masks[3, top:, left:] == 1).all()
    assert (masks[1, :top, left:] == 1).all() and (masks[2, top:, :left] == 1).all()


def test_triangle_of_a_vector_on_a_code_and_of_equal_codes():
    codes = torch.tensor([[0.0, 0], [3, 4], [6, 8]])
    found = patches.triangle(torch.tensor([[3.0, 4]]), codes)
    np.testing.assert_allclose(found, [[0, 10 / 3, 0]], atol=1e-5)
    assert (patches.triangle(torch.tensor([[1.0, 1]]), codes[:1].repeat(3, 1)) == 0).all()


def test_every_code_is_the_mean_of_its_patches():
    vectors = torch.randn(400, 5, generator=torch.Generator().manual_seed(0))
    codes = patches.learn_codebook(vectors, 6, random_state=1)
    nearest = torch.cdist(vectors, codes).argmin(1)
    means = torch.stack([vectors[nearest == k].mean(0) for k in range(6)])
    assert (means - codes).norm(dim=1).max() < 0.1
    assert not torch.equal(codes, patches.learn_codebook(vectors, 6, random_state=2))


def test_clear_errors():
    images = some_images(3, 3, 8, 8)
    with pytest.raises(ValueError, match="patches of 9x9 pixels do not fit images of 8x8"):
        patches.sample_patches(images, 10, size=9)
    with pytest.raises(TypeError, match="0..255: pass uint8"):
        patches.sample_patches(images / 255, 10)
    with pytest.raises(ValueError, match="n_patches must be at least 2"):
        patches.sample_patches(images, 1)
    raw = patches.sample_patches(images, 40)
    whitening = patches.fit_whitening(raw)
    with pytest.raises(ValueError, match="n_codes must be from 1 to the 40 patches, got 41"):
        patches.learn_codebook(raw, 41)
    codes = patches.learn_codebook(whitening(raw), 4)
    with pytest.raises(ValueError, match="empty quadrant.*at least 7x7"):
        patches.encode(images[:, :, :6], whitening, codes)
    with pytest.raises(ValueError, match="do not fit images of 5x8"):
        patches.encode(images[:, :, :5], whitening, codes)
    with pytest.raises(ValueError, match="have 1 channels"):
        patches.encode(images[:, :1], whitening, codes)


def literal_block(maps, weight, bias, norm):
    """Convolution 3x3 with padding 1, normalisation, ReLU, pool with ceiling: float64, pixel by pixel."""
    n, _, height, width = maps.shape
    padded = np.pad(maps, ((0, 0), (0, 0), (1, 1), (1, 1)))
    out = np.empty((n, len(weight), height, width))
    for y in range(height):
        for x in range(width):
            window = padded[:, None, :, y : y + 3, x : x + 3]
            out[:, :, y, x] = (window * weight).sum((2, 3, 4)) + bias
    mean, variance, scale, shift = (
        v.detach().double().numpy()[:, None, None]
        for v in (norm.running_mean, norm.running_var, norm.weight, norm.bias)
    )
    out = np.maximum((out - mean) / np.sqrt(variance + norm.eps) * scale + shift, 0)
    pooled = [[out[:, :, y : y + 2, x : x + 2].max((2, 3)) for x in range(0, width, 2)] for y in range(0, height, 2)]
    return np.array(pooled).transpose(2, 3, 0, 1)


def test_patch_network_is_the_papers():
    network = PatchEmbedding((3, 6, 6), generator=torch.Generator().manual_seed(0))
    batch = torch.randn(20, 3, 6, 6, generator=torch.Generator().manual_seed(1))
    network(batch)  # running statistics other than 0 and 1
    network.eval()
    maps = batch[:4].double().numpy()
    expected = {}
    for name, convolution, norm in zip(("conv1", "conv2"), network.convolutions, network.norms, strict=True):
        weight, bias = (p.detach().double().numpy() for p in convolution.parameters())
        maps = literal_block(maps, weight, bias, norm)
        expected[name] = maps.reshape(4, -1)
    expected["conv1&2"] = np.hstack([expected["conv1"], expected["conv2"]])
    weight, bias = (p.detach().double().numpy() for p in network.inner_product.parameters())
    expected["ip"] = expected["conv2"] @ weight.T + bias
    sizes = {"conv1": 450, "conv2": 200, "conv1&2": 650, "ip": 160}
    for layer in LAYERS:
        found = layer_representation(network, layer, (3, 6, 6))(batch[:4].flatten(1))
        assert found.shape == (4, sizes[layer])
        np.testing.assert_allclose(found, expected[layer], rtol=1e-3, atol=1e-5)
    with pytest.raises(ValueError, match="unknown layer 'conv3'.*conv1"):
        layer_representation(network, "conv3", (3, 6, 6))


@pytest.mark.filterwarnings("ignore:the k-NN graph has")
def test_patch_network_learns_and_repeats():
    raw = patches.sample_patches(some_images(20, 3, 10, 10), 300)
    white = patches.fit_whitening(raw)(raw).view(-1, 3, 6, 6).numpy()
    model = JULE(5, n_epochs=1, channels=4, embedding_dim=8, device="cpu", random_state=7)
    first, again = (learn_patch_network(white, model)[0].state_dict() for _ in range(2))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not hasattr(model, "network_")
    other = PatchEmbedding((3, 6, 6), 8, 4).state_dict()
    assert first.keys() == other.keys()
    # biases start at 0: only training moves them
    assert all(first[f"norms.{i}.bias"].abs().max() > 0 for i in (0, 1))
    with pytest.raises(ValueError, match="n_clusters=301"):
        learn_patch_network(white, JULE(301))


def test_svm_is_liblinears():
    X, y = load_digits(return_X_y=True)
    X = (X[:300] / 16).astype(np.float32)
    ours = L2SVM(C=100.0).fit(X, y[:300])
    theirs = LinearSVC(C=100.0 / 300, tol=1e-8, max_iter=100_000, dual=True, random_state=0)
    theirs.fit(X, y[:300])
    np.testing.assert_allclose(ours.coef_, theirs.coef_, atol=2e-2)
    np.testing.assert_allclose(ours.intercept_, theirs.intercept_, atol=2e-2)
    assert (ours.predict(X) == theirs.predict(X)).all()
    with pytest.raises(ValueError, match="two classes"):
        L2SVM().fit(X, np.zeros(300))
    with pytest.raises(ValueError, match="one label a row"):
        L2SVM().fit(X, y[:200])


def test_penalty_is_the_best_in_cross_validation():
    rng = np.random.default_rng(0)
    y = rng.integers(3, size=90)
    # the class stands in a few of many columns: a large penalty fits the noise
    X = rng.normal(size=(90, 200)).astype(np.float32)
    X[np.arange(90), y] += 2
    parts = np.array_split(np.arange(90), FOLDS)
    found = []
    for C in PENALTIES:
        right = []
        for part in parts:
            rest = np.setdiff1d(np.arange(90), part)
            right.append(np.mean(L2SVM(C).fit(X[rest], y[rest]).predict(X[part]) == y[part]))
        found.append(np.mean(right))
    chosen = choose_svm(X, y)
    assert chosen.C == PENALTIES[int(np.argmax(found))] < max(PENALTIES)
    whole = L2SVM(chosen.C).fit(X, y)  # in all 200 columns, where the choice saw 90 coordinates
    assert chosen.coef_.shape == whole.coef_.shape == (3, 200)
    np.testing.assert_allclose(chosen.coef_, whole.coef_, atol=2e-3)
    tall = choose_svm(X[:, :5], y)
    np.testing.assert_array_equal(tall.coef_, L2SVM(tall.C).fit(X[:, :5], y).coef_)


def test_standardised_by_the_first_alone():
    rng = np.random.default_rng(0)
    first, second = (rng.normal(3, 2, (n, 4)).astype(np.float32) for n in (50, 7))
    first[:, 0] = second[:, 0] = 5  # a constant column
    a, b = standardise(first, second)
    wide = first.astype(float)
    deviation = np.sqrt(wide.var(0, ddof=1) + 0.01)
    np.testing.assert_allclose(a, (wide - wide.mean(0)) / deviation, atol=1e-5)
    np.testing.assert_allclose(b, (second - wide.mean(0)) / deviation, atol=1e-5)


def stripes(n, seed, labels=None):
    """Class 0: stripes that lie; class 1: stripes that stand. Their phases and brightness are random."""
    rng = np.random.default_rng(seed)
    y = rng.integers(2, size=n)
    phase, bright = rng.integers(4, size=(n, 1, 1)), rng.integers(100, 256, (n, 1, 1, 1))
    wave = (np.arange(10) + phase) // 2 % 2  # (n, 1, 10)
    lying = np.broadcast_to(wave.transpose(0, 2, 1), (n, 10, 10))
    mask = np.where(y[:, None, None] == 0, lying, np.broadcast_to(wave, (n, 10, 10)))
    noise = rng.integers(0, 10, (n, 3, 10, 10))
    pixels = (mask[:, None] * bright * 0.9 + noise).astype(np.uint8)
    return Images(pixels, y if labels is None else labels(y), name="stripes")


TINY = dict(n_codes=8, n_patches=300, device="cpu")


def tiny_network(train):
    """A CNN of patches after one epoch a period."""
    model = JULE(2, n_epochs=1, channels=4, embedding_dim=8, device="cpu")
    white = patches.whitened_patches(train, 300)[1]
    return learn_patch_network(white.view(-1, 3, 6, 6).numpy(), model)[0]


@pytest.mark.filterwarnings("ignore:the k-NN graph has")
def test_classification_from_codes():
    train, test = stripes(80, 0), stripes(60, 1)
    names = ("whitened", *LAYERS)
    network, rows = tiny_network(train), []
    for name in names:
        given = {"representation": name, "network": None if name == "whitened" else network}
        rows += classify(train, test, [10, 80], **given, **TINY)
    assert [(row["representation"], row["n_train"]) for row in rows] == [(name, n) for name in names for n in (10, 80)]
    for row in rows:
        assert row["predicted"].shape == (60,) and row["C"] in PENALTIES
        assert row["n_train"] == 10 or np.mean(row["predicted"] == test.labels) > 0.9
    again = classify(train, Images(test.pixels), [10], **TINY)  # labels of the unseen are not asked
    np.testing.assert_array_equal(again[0]["predicted"], rows[0]["predicted"])


def test_classification_refuses_what_does_not_fit():
    train, test = stripes(20, 0), stripes(10, 1)
    with pytest.raises(ValueError, match="unknown representation 'conv'"):
        classify(train, test, [20], representation="conv", **TINY)
    with pytest.raises(ValueError, match="'conv1' is a layer of the patch CNN: pass the network"):
        classify(train, test, [20], representation="conv1", **TINY)
    for sizes in ([], [9], [21]):
        with pytest.raises(ValueError, match="sizes must be from 10 to the 20"):
            classify(train, test, sizes, **TINY)
    with pytest.raises(ValueError, match="images 'array' have no labels"):
        classify(Images(train.pixels), test, [20], **TINY)
    with pytest.raises(ValueError, match="differ in shape"):
        classify(train, Images(test.pixels[:, :, :8], test.labels), [20], **TINY)
