"""What is known about each data set: size, parts, source, and the hash of the book's copy."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reprolib.files import load_yaml


@dataclass(frozen=True)
class DataSet:
    """What is known about a data set before it is there.

    parts: NAME-train are the first `n_first` images, NAME-test the rest; mat: stems of .mat files that circulate;
    made_from: data sets put one after the other at loading, part by part; change: a function of made.py that is then
    applied to a single one, and what it takes beside the images.
    """

    what: str
    n: int
    shape: tuple[int, int, int]  # (c, h, w)
    how: str  # where people get it
    n_first: int = 0  # images in the first of two parts; 0: no parts are known
    parts: tuple[str, ...] = ("train", "test")
    mat: tuple[str, ...] = ()
    made_from: tuple[str, ...] = ()
    change: tuple[Any, ...] = ()
    n_unlabelled: int = 0  # the last images, whose class is not known: no score counts them
    sha256: str = ""  # of the arrays that the book used
    classes: tuple[str, ...] = ()  # their names, where they are no numbers from 0
    idx: tuple[str, ...] = ()  # SHA-256 of MNIST's four files, in the order of fetch.IDX_FILES


TABLE = {
    name: DataSet(**{key: tuple(value) if isinstance(value, list) else value for key, value in about.items()})
    for name, about in load_yaml(Path(__file__).with_suffix(".yml")).items()
}
