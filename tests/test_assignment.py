"""The stored assignments of the evaluation page belong to the data and script that they name."""

import json
from pathlib import Path

import numpy as np
import pytest

from reprolib.data import load

FILE = Path(__file__).parents[1] / "book" / "foundations" / "assignment.npz"


def test_stored_assignments_are_what_their_provenance_says():
    stored = np.load(FILE, allow_pickle=False)
    made = json.loads(str(stored["provenance"]))
    n = made["dataset"]["n"]
    assert (FILE.parents[2] / made["made_by"]).is_file()
    assert stored["seeds"].shape == (len(made["seeds"]), n)
    assert stored["iterations"].shape == (len(made["iterations"]), n)
    assert stored["y"].shape == stored["thirty"].shape == (n,)
    for name, n_clusters in (("y", 10), ("seeds", 10), ("iterations", 10), ("thirty", 30)):
        assert stored[name].dtype == np.uint8
        assert set(np.unique(stored[name])) == set(range(n_clusters))
    # seeds differ, and the iterations of seed 0 approach its final state
    assert len({row.tobytes() for row in stored["seeds"]}) == len(made["seeds"])
    to_the_end = (stored["iterations"] == stored["seeds"][0]).mean(axis=1)
    assert to_the_end[-1] > 0.9 > to_the_end[0]


def test_stored_classes_are_those_of_mnist_test():
    try:
        images = load.load("mnist-test")
    except FileNotFoundError:
        pytest.skip(f"mnist is not in the data root {load.data_root()}")
    stored = np.load(FILE, allow_pickle=False)
    assert json.loads(str(stored["provenance"]))["dataset"]["sha256"] == images.sha256
    np.testing.assert_array_equal(stored["y"], images.labels)
