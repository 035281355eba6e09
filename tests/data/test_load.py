"""Loading by name, the cache, and what happens to bad files."""

import hashlib
import json
import os
import pickle
from pathlib import Path

import numpy as np
import pytest

from reprolib.data import cache, readers
from reprolib.data.catalogue import TABLE
from reprolib.data.load import Images, available, data_root, fetch, load, verify
from reprolib.files import write_atomically

RNG = np.random.default_rng(0)
PIXELS = RNG.integers(0, 256, (12, 1, 6, 5), dtype=np.uint8)
LABELS = np.arange(12) % 3


@pytest.fixture
def root(tmp_path):
    np.savez_compressed(tmp_path / "own.npz", images=PIXELS, labels=LABELS)
    return tmp_path


def test_digits_are_built_in_and_the_known_arrays(tmp_path):
    digits = load("digits", root=tmp_path / "nowhere")
    assert digits.shape == (1797, 1, 8, 8) and digits.pixels.max() == 255
    assert digits.sha256 == TABLE["digits"].sha256
    assert not (tmp_path / "nowhere").exists()
    assert "the arrays that the book used" in verify("digits", tmp_path)
    assert "built in" in fetch("digits", tmp_path)


def test_own_npz_with_and_without_labels(root):
    own = load("own", root=root)
    np.testing.assert_array_equal(own.pixels, PIXELS)
    np.testing.assert_array_equal(own.labels, LABELS)
    np.savez(root / "bare.npz", images=PIXELS[:, 0])
    assert load("bare", root=root).labels is None
    assert "no hash of it" in verify("own", root)


def test_data_root_is_the_argument_then_the_environment_then_the_home(monkeypatch, tmp_path):
    monkeypatch.setenv("REPROLIB_DATA", str(tmp_path))
    assert data_root() == tmp_path and data_root("x") == Path("x")
    monkeypatch.delenv("REPROLIB_DATA")
    assert data_root() == Path.home() / ".cache" / "reprolib"


def test_subset_gray_and_size_are_done_and_recorded(root):
    few = load("own", root=root, subset=5, size=4)
    assert few.shape == (5, 1, 4, 4)
    assert few.transforms["subset"] == "5 of 12, evenly spaced" and few.transforms["size"] == [4, 4]
    np.testing.assert_array_equal(load("own", root=root, subset=6).pixels, PIXELS[::2])
    np.testing.assert_array_equal(load("own", root=root, subset=slice(2, 4)).pixels, PIXELS[2:4])
    np.testing.assert_array_equal(load("own", root=root, subset=[7, 1]).labels, LABELS[[7, 1]])
    np.savez(root / "colour.npz", images=RNG.integers(0, 256, (4, 3, 5, 5), dtype=np.uint8))
    gray = load("colour", root=root, gray=True)
    assert gray.shape == (4, 1, 5, 5) and "gray" in gray.transforms


@pytest.mark.parametrize("subset", [0, 13, -1, True, 2.5, [], [12], [-1], [[1]], [0.5]])
def test_bad_subsets_are_refused(root, subset):
    with pytest.raises(ValueError, match="subset"):
        load("own", root=root, subset=subset)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("mnst", "Did you mean 'mnist'"),
        ("MNIST", "Did you mean 'mnist'"),
        ("digits-test", "'digits'"),
        ("owm", "Did you mean 'own'"),
        ("../own", "unknown data set"),
        ("", "unknown data set"),
    ],
)
def test_unknown_names_offer_the_nearest(root, name, says):
    for ask in (load, verify):
        with pytest.raises(ValueError, match=says):
            ask(name, root=root)


def test_only_known_data_sets_can_be_fetched(root):
    with pytest.raises(ValueError, match="unknown data set to fetch 'own'"):
        fetch("own", root)
    with pytest.raises(TypeError, match="string"):
        load(3)


def test_a_missing_data_set_says_how_to_get_it(tmp_path):
    with pytest.raises(FileNotFoundError, match="data fetch usps") as caught:
        load("usps", root=tmp_path)
    assert "REPROLIB_DATA" in str(caught.value) and "torchvision" in str(caught.value)
    assert "missing" in verify("usps", tmp_path)


def test_available_lists_every_data_set_and_own_files(root):
    rows = {row["name"]: row for row in available(root)}
    assert set(rows) == {*TABLE, "own"}
    assert rows["digits"]["found"] == "scikit-learn" and rows["mnist"]["found"] == ""
    assert rows["own"]["found"].endswith("own.npz")
    assert len({tuple(row) for row in map(tuple, rows.values())}) <= 2  # the same keys in each


# --- bad files ------------------------------------------------------------------------------------


def test_truncated_npz_is_refused_at_every_length(root):
    whole = (root / "own.npz").read_bytes()
    for length in [0, 1, 30, len(whole) // 2, len(whole) - 1]:
        (root / "own.npz").write_bytes(whole[:length])
        with pytest.raises(ValueError, match=r"own\.npz cannot be read.*fetch it again"):
            load("own", root=root)
    assert "damaged" in verify("own", root)


def test_a_flipped_byte_in_an_npz_is_noticed(root):
    path = root / "own.npz"
    whole = bytearray(path.read_bytes())
    whole[len(whole) // 3] ^= 255
    path.write_bytes(whole)
    with pytest.raises(ValueError, match="damaged"):
        load("own", root=root)


class Bomb:
    """Unpickling this leaves a file behind."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_pickles_are_refused_and_not_run(root):
    trap = root / "trap"
    np.savez(root / "evil.npz", images=np.array([Bomb(trap)], dtype=object))
    (root / "plain.npz").write_bytes(pickle.dumps(Bomb(trap)))
    for name in ("evil", "plain"):
        with pytest.raises(ValueError, match="pickled objects, which are refused"):
            load(name, root=root)
    batch = pickle.dumps({"data": Bomb(trap), "labels": [0]})
    (root / "batch").write_bytes(batch)
    with pytest.raises(ValueError, match="mkdir, which is refused"):
        readers.read_cifar(root, [("batch", hashlib.md5(batch).hexdigest())], "labels")
    assert not trap.exists()


@pytest.mark.parametrize(
    ("arrays", "says"),
    [
        ({"x": PIXELS}, "must hold an array 'images'.*it holds: x"),
        ({"images": PIXELS.astype(float)}, "uint8"),
        ({"images": PIXELS.reshape(12, -1)}, r"shape \(n, h, w\)"),
        ({"images": PIXELS, "labels": LABELS[:5]}, "one integer an image"),
        ({"images": PIXELS, "labels": LABELS - 1}, ">= 0"),
    ],
)
def test_npz_with_wrong_arrays_is_refused(root, arrays, says):
    np.savez(root / "wrong.npz", **arrays)
    with pytest.raises((ValueError, TypeError), match=says) as caught:
        load("wrong", root=root)
    assert "wrong.npz" in str(caught.value)


def test_a_bare_npy_under_the_name_npz_is_refused(root):
    with open(root / "bare.npz", "wb") as stream:
        np.save(stream, PIXELS)
    with pytest.raises(ValueError, match="cannot be read as an .npz"):
        load("bare", root=root)


# --- the cache ------------------------------------------------------------------------------------


def test_cache_round_trip_and_wrong_checksum(tmp_path):
    path = cache.write_images(tmp_path, "usps", Images(PIXELS, LABELS), "a test")
    loaded = load("usps", root=tmp_path)
    note = json.loads((tmp_path / "cache" / "usps.json").read_text())
    assert loaded.sha256 == note["arrays_sha256"] and note["source"] == "a test"
    assert "another version" in verify("usps", tmp_path)
    np.savez_compressed(path, images=PIXELS[::-1], labels=LABELS)
    with pytest.raises(ValueError, match="wrong checksum: expected SHA-256"):
        load("usps", root=tmp_path)
    assert "damaged" in verify("usps", tmp_path)


def test_an_unfinished_cache_counts_as_missing(tmp_path, monkeypatch):
    cache.write_images(tmp_path, "usps", Images(PIXELS, LABELS), "a test")

    def killed(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(cache.json, "dumps", killed)
    with pytest.raises(KeyboardInterrupt):
        cache.write_images(tmp_path, "usps", Images(PIXELS[::-1], LABELS), "a test")
    monkeypatch.undo()
    with pytest.raises(FileNotFoundError, match="data fetch usps"):
        load("usps", root=tmp_path)


def test_a_failed_write_leaves_the_old_file_and_no_litter(tmp_path):
    path = tmp_path / "x"
    path.write_bytes(b"old")

    def fail(stream):
        stream.write(b"half")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        write_atomically(path, fail)
    assert path.read_bytes() == b"old" and os.listdir(tmp_path) == ["x"]


def test_a_damaged_note_is_told(tmp_path):
    cache.write_images(tmp_path, "usps", Images(PIXELS, LABELS), "a test")
    for text in ("{", "[]", "{}"):
        (tmp_path / "cache" / "usps.json").write_text(text)
        with pytest.raises(ValueError, match="usps.json is damaged"):
            load("usps", root=tmp_path)
    assert "damaged" in verify("usps", tmp_path)


def fixed_route(monkeypatch, pixels, labels):
    routes = {"usps": (("a test", lambda name, folder: (pixels, labels)),)}
    monkeypatch.setattr("reprolib.data.fetch.ROUTES", routes)


def test_a_read_only_folder_is_read_but_not_written(root, monkeypatch):
    fixed_route(monkeypatch, PIXELS, LABELS)
    root.chmod(0o555)
    try:
        assert load("own", root=root).n == 12
        # the mode alone must stop root too, which CI is
        with pytest.raises(PermissionError, match="read-only. Set REPROLIB_DATA"):
            fetch("usps", root)
        assert sorted(os.listdir(root)) == ["own.npz"]
    finally:
        root.chmod(0o755)
    assert "12 images from a test" in fetch("usps", root)


def test_a_folder_that_cannot_be_made_is_told(tmp_path, monkeypatch):
    fixed_route(monkeypatch, PIXELS, LABELS)
    (tmp_path / "file").write_text("")
    with pytest.raises(PermissionError, match="cannot be created.*REPROLIB_DATA"):
        fetch("usps", tmp_path / "file" / "below")


# --- the real files, where they are ---------------------------------------------------------------


@pytest.mark.parametrize("name", ["mnist", "fashion-mnist", "usps", "coil20", "orl", "cifar10-jpeg"])
def test_real_files_are_the_known_arrays(name):
    try:
        images = load(name)
    except FileNotFoundError:
        pytest.skip(f"{name} is not in the data root {data_root()}")
    assert images.sha256 == TABLE[name].sha256
    assert images.shape == (TABLE[name].n, *TABLE[name].shape)
    if name == "mnist":
        test = load("mnist-test")
        assert test.n == 10_000 and test.name == "mnist-test"
        np.testing.assert_array_equal(test.pixels, images.pixels[60_000:])
        assert load("mnist-train").n == 60_000
