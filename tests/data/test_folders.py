"""Image folders of one's own, and the zip of cifar10-jpeg: what is read and what is refused."""

import os
import zipfile

import numpy as np
import pytest
from PIL import Image

from reprolib.data.load import load

RNG = np.random.default_rng(0)


def save(path, size=(6, 4), mode="L", value=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    shape = (size[1], size[0], {"L": 1, "RGB": 3, "RGBA": 4}[mode])
    array = RNG.integers(0, 256, shape, dtype=np.uint8) if value is None else np.full(shape, value)
    Image.fromarray(array.astype(np.uint8).squeeze(), mode=None).save(path)
    return array


def test_folder_with_labels(tmp_path):
    arrays = [save(tmp_path / c / f"{i}.png") for c in ("b", "a") for i in range(2)]
    (tmp_path / "a" / "notes.txt").write_text("not an image")
    (tmp_path / ".hidden").mkdir()
    images = load(f"folder:{tmp_path}")
    assert images.shape == (4, 1, 4, 6) and list(images.labels) == [0, 0, 1, 1]
    np.testing.assert_array_equal(images.pixels[2, 0], arrays[0].squeeze())
    assert images.name == tmp_path.name and images.transforms == {}


def test_folder_without_labels_and_with_mixed_colour(tmp_path):
    save(tmp_path / "a.png", mode="RGB")
    gray = save(tmp_path / "b.png")
    clear = np.zeros((4, 6, 4), np.uint8)
    Image.fromarray(clear).save(tmp_path / "c.png")
    images = load(f"folder:{tmp_path}")
    assert images.shape == (3, 3, 4, 6) and images.labels is None
    for channel in range(3):
        np.testing.assert_array_equal(images.pixels[1, channel], gray.squeeze())
    assert (images.pixels[2] == 255).all()  # what is transparent is shown on white


def test_folder_with_mixed_sizes_needs_size(tmp_path):
    save(tmp_path / "a.png", size=(6, 4))
    save(tmp_path / "b.png", size=(8, 8))
    save(tmp_path / "c.png", size=(6, 4))
    with pytest.raises(ValueError, match=r"a.png 4x6 and b.png 8x8.*Pass size="):
        load(f"folder:{tmp_path}")
    images = load(f"folder:{tmp_path}", size=(5, 7))
    assert images.shape == (3, 1, 5, 7) and images.transforms["size"] == [5, 7]


def test_bad_folders_are_told_apart(tmp_path):
    with pytest.raises(FileNotFoundError, match="folder:PATH"):
        load(f"folder:{tmp_path / 'nothing'}")
    with pytest.raises(ValueError, match="holds no images"):
        load(f"folder:{tmp_path}")
    save(tmp_path / "a" / "1.png")
    save(tmp_path / "2.png")
    with pytest.raises(ValueError, match="both beside and inside"):
        load(f"folder:{tmp_path}")
    (tmp_path / "2.png").unlink()
    save(tmp_path / "a" / "deep" / "3.png")
    with pytest.raises(ValueError, match="one level of sub-folders"):
        load(f"folder:{tmp_path}")


def test_unreadable_and_deep_colour_images_are_named(tmp_path):
    save(tmp_path / "a.png")
    broken = tmp_path / "b.png"
    broken.write_bytes((tmp_path / "a.png").read_bytes()[:40])
    with pytest.raises(ValueError, match=r"b\.png cannot be read"):
        load(f"folder:{tmp_path}")
    Image.fromarray(np.full((4, 6), 4000, np.uint16)).save(broken)
    with pytest.raises(ValueError, match=r"b\.png.*more than 8 bits"):
        load(f"folder:{tmp_path}")


# --- the zip of cifar10-jpeg ----------------------------------------------------------------------


def jpeg_zip(root, value=10):
    with zipfile.ZipFile(root / "cifar10-jpeg.zip", "w") as archive:
        for part, label in (("test", "cat"), ("train", "dog"), ("train", "ant")):
            save(root / "one.jpg", mode="RGB", value=value)
            archive.write(root / "one.jpg", f"{part}/{label}/0000.jpg")
    (root / "one.jpg").unlink()


def test_cifar10_jpeg_is_decoded_train_first_and_cached(tmp_path):
    jpeg_zip(tmp_path)
    first = load("cifar10-jpeg", root=tmp_path)
    assert first.shape == (3, 3, 4, 6) and list(first.labels) == [0, 2, 1]
    again = load("cifar10-jpeg", root=tmp_path)
    assert (tmp_path / "cache" / "cifar10-jpeg.npz").is_file() and again.sha256 == first.sha256
    jpeg_zip(tmp_path, value=200)
    with pytest.raises(ValueError, match="changed after"):
        load("cifar10-jpeg", root=tmp_path)
    with pytest.raises(ValueError, match="needs the 20000 images"):
        (tmp_path / "cache" / "cifar10-jpeg.json").unlink()
        load("cifar10-jpeg-test", root=tmp_path)


def test_cifar10_jpeg_is_read_from_a_read_only_folder(tmp_path):
    jpeg_zip(tmp_path)
    tmp_path.chmod(0o555)
    try:
        assert load("cifar10-jpeg", root=tmp_path).n == 3
        assert os.listdir(tmp_path) == ["cifar10-jpeg.zip"]
    finally:
        tmp_path.chmod(0o755)


def test_a_truncated_zip_is_told(tmp_path):
    jpeg_zip(tmp_path)
    whole = (tmp_path / "cifar10-jpeg.zip").read_bytes()
    (tmp_path / "cifar10-jpeg.zip").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match="no readable zip"):
        load("cifar10-jpeg", root=tmp_path)
