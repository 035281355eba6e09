"""Images, the seal on their labels, and the forms of input that every method accepts."""

import threading

import numpy as np
import pytest
from PIL import Image
from scipy import sparse

from reprolib.checks import unknown_name
from reprolib.data.images import as_features, as_pixels, check_features, resize, to_gray
from reprolib.data.load import Images, LabelsSealedError, load, sealed_labels

RNG = np.random.default_rng(0)
PIXELS = RNG.integers(0, 256, (6, 3, 5, 4), dtype=np.uint8)


def test_images_carry_pixels_labels_and_record():
    images = Images(PIXELS, [0, 1, 2, 0, 1, 2], name="x", transforms={"a": 1})
    assert images.n == len(images) == 6 and images.shape == (6, 3, 5, 4)
    assert images.labels.dtype == np.int64 and images.pixels.dtype == np.uint8
    assert Images(PIXELS[:, 0]).shape == (6, 1, 5, 4) and Images(PIXELS).labels is None
    half = images.take(slice(0, 3))
    assert half.n == 3 and half.transforms == {"a": 1} and list(half.labels) == [0, 1, 2]
    assert "3 classes" in repr(images) and "no labels" in repr(Images(PIXELS))


def test_the_hash_depends_on_pixels_labels_and_shape_only():
    labels = np.arange(6)
    base = Images(PIXELS, labels).sha256
    assert base == Images(PIXELS.copy(), labels.astype(np.uint8), name="other").sha256
    changed = PIXELS.copy()
    changed[0, 0, 0, 0] ^= 1
    others = [
        Images(changed, labels).sha256,
        Images(PIXELS, labels[::-1]).sha256,
        Images(PIXELS).sha256,
        Images(PIXELS.reshape(6, 3, 4, 5), labels).sha256,
    ]
    assert len({base, *others}) == 5
    strided = np.asfortranarray(PIXELS)
    assert Images(strided, labels).sha256 == base


def test_sealed_labels_cannot_be_read_in_any_thread_and_open_again():
    images = load("digits")
    seen = []

    def read():
        try:
            seen.append(images.labels)
        except LabelsSealedError as error:
            seen.append(error)

    with sealed_labels():
        with sealed_labels():
            pass
        with pytest.raises(LabelsSealedError, match="monitor"):
            _ = images.labels
        with pytest.raises(LabelsSealedError):
            _ = images.take([0, 1]).labels
        thread = threading.Thread(target=read)
        thread.start()
        thread.join()
        assert images.sha256  # the record still gets its hash
        assert not hasattr(images, "_labels")
    assert isinstance(seen[0], LabelsSealedError)
    assert len(images.labels) == 1797


def test_the_seal_is_lifted_after_an_error():
    images = load("digits")
    with pytest.raises(ZeroDivisionError), sealed_labels():
        _ = 1 / 0
    assert images.labels is not None


@pytest.mark.parametrize(
    ("pixels", "labels", "error", "says"),
    [
        (PIXELS.astype(float), None, TypeError, "uint8"),
        (PIXELS.reshape(6, -1), None, ValueError, r"\(n, h, w\)"),
        (PIXELS.transpose(0, 2, 3, 1), None, ValueError, "channels first"),
        (PIXELS[..., :0], None, ValueError, "one pixel"),
        (PIXELS, [0, 1], ValueError, r"shape \(6,\); got shape \(2,\)"),
        (PIXELS, np.zeros(6), TypeError, "integers"),
        (PIXELS, [0, 1, 2, 3, 4, -1], ValueError, ">= 0"),
    ],
)
def test_images_refuse_bad_arrays(pixels, labels, error, says):
    with pytest.raises(error, match=says):
        Images(pixels, labels)


@pytest.mark.parametrize("dtype", [np.uint8, np.float32, np.float64, np.float16])
def test_as_pixels_takes_images_and_arrays(dtype):
    array = PIXELS.astype(dtype)
    expected = np.uint8 if dtype == np.uint8 else np.float32
    for X, shape in ((array, (6, 3, 5, 4)), (array[:, 0], (6, 1, 5, 4))):
        pixels = as_pixels(X)
        assert pixels.dtype == expected and pixels.shape == shape
        np.testing.assert_array_equal(pixels.reshape(X.shape), X)
        features = as_features(X)
        assert features.dtype == np.float32 and features.shape == (6, np.prod(shape[1:]))
        np.testing.assert_array_equal(features, X.reshape(6, -1))
    assert as_pixels(Images(PIXELS)).shape == (6, 3, 5, 4)


def test_as_features_takes_features_as_they_are():
    X = RNG.normal(size=(5, 7))
    assert as_features(X).dtype == np.float32
    np.testing.assert_array_equal(as_features(X), X.astype(np.float32))
    np.testing.assert_array_equal(as_features([[1, 2], [3, 4]]), [[1, 2], [3, 4]])


def with_nan(shape):
    X = RNG.random(shape)
    X[2, 1] = np.nan
    return X


@pytest.mark.parametrize(
    ("X", "error", "says"),
    [
        (with_nan((4, 3, 3)), ValueError, "finite.*1 of 4.*image 2"),
        (np.full((4, 3, 3), np.inf), ValueError, "infinity"),
        (np.full((4, 3, 3), 1e300), ValueError, "overflow"),
        (np.zeros((4, 3, 3), np.uint8), ValueError, "constant"),
        (np.arange(4, dtype=np.uint8).repeat(9).reshape(4, 3, 3), ValueError, "constant"),
        (np.tile(PIXELS[:1], (4, 1, 1, 1)), ValueError, "identical"),
        (PIXELS[:1], ValueError, "at least 2 images"),
        (PIXELS[:0], ValueError, "at least 2 images"),
        (PIXELS.astype(np.int64), TypeError, "int64"),
        (np.zeros((4, 3, 3), complex), TypeError, "complex"),
        (np.array([["a"]]), TypeError, "dtype"),
        (np.zeros(4), ValueError, r"got \(4,\)"),
        (np.zeros((2, 2, 2, 2, 2)), ValueError, "shape"),
        (np.zeros((4, 9, 9, 3)), ValueError, "transpose"),
    ],
)  # fmt: skip
def test_bad_images_are_refused(X, error, says):
    with pytest.raises(error, match=says):
        as_pixels(X)


@pytest.mark.parametrize(
    ("X", "error", "says"),
    [
        (with_nan((4, 3)), ValueError, "contains NaN"),
        (np.full((4, 3), 1e300), ValueError, "infinity or a value too large for dtype.'float32'"),
        (np.ones((1, 3)), ValueError, r"1 sample\(s\).*minimum of 2"),
        (np.ones((3, 0)), ValueError, r"0 feature\(s\).*minimum of 1"),
        (np.array([["a", "b"]] * 2), ValueError, "could not convert string"),
        (np.array([[None, 1]] * 2), ValueError, "contains NaN"),
        (np.array([[{}, 1]] * 2), TypeError, "must be a string or a real number"),
        (np.ones((3, 2), complex), ValueError, "Complex data not supported"),
        (sparse.csr_array(np.eye(3)), TypeError, "toarray"),
        (np.ones((4, 3)), ValueError, "identical"),
    ],
)
def test_bad_features_are_refused(X, error, says):
    with pytest.raises(error, match=says):
        as_features(X)


def test_check_features_wants_two_dimensions_and_enough_samples():
    with pytest.raises(ValueError, match="dim 3"):
        check_features(np.zeros((2, 2, 2)))
    with pytest.raises(ValueError, match="minimum of 5"):
        check_features(np.zeros((4, 2)), min_samples=5)


def test_unknown_name_offers_the_nearest_and_lists_all():
    message = str(unknown_name("method", "Jule", ["JULE", "ACGDL"]))
    assert message == "unknown method 'Jule'. Did you mean 'JULE'? Valid: ACGDL, JULE."
    assert "Did you mean" not in str(unknown_name("method", "zzz", ["JULE"]))
    assert isinstance(unknown_name("method", 3, []), ValueError)


def test_gray_is_what_pillow_computes_and_is_recorded():
    images = to_gray(Images(PIXELS, range(6)))
    expected = [np.asarray(Image.fromarray(p.transpose(1, 2, 0)).convert("L")) for p in PIXELS]
    np.testing.assert_array_equal(images.pixels[:, 0], expected)
    assert images.transforms == {"gray": "ITU-R 601-2 luma"} and list(images.labels) == list(range(6))
    assert to_gray(images) is images


def test_resize_averages_areas_and_is_recorded():
    checks = np.indices((8, 8)).sum(axis=0) % 2 * 255
    images = resize(Images(np.stack([checks, 255 - checks]).astype(np.uint8)), 4)
    # the filter is wide enough that a fine pattern becomes gray instead of an alias
    assert images.shape == (2, 1, 4, 4) and np.abs(images.pixels.astype(int) - 127).max() <= 32
    assert images.transforms == {"size": [4, 4], "resize": "bilinear, antialiased"}
    flat = resize(Images(np.full((2, 7, 5), 9, np.uint8)), (3, 11))
    assert flat.shape == (2, 1, 3, 11) and (flat.pixels == 9).all()
    assert resize(flat, (3, 11)) is flat


@pytest.mark.parametrize("size", [0, -3, 2.5, "8", (8,), (8, 0), (8, 8, 8), True])
def test_bad_sizes_are_refused(size):
    with pytest.raises(ValueError, match="size must be"):
        load("digits", size=size)
