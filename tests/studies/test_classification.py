"""Runs of Table 8: settings, records that are scored again, and a killed run that goes on."""

import json

import numpy as np
import pytest

from reprolib.data import load
from reprolib.data.images import Images
from reprolib.experiments import records
from reprolib.studies import classification, classify, patch_network

COMMITTED = classification.load_runs("jule")
SMALL = {
    "train": "first",
    "test": "second",
    "sizes": [20, 40],
    "representations": ["whitened", "conv1", "ip"],
    "n_codes": 6,
    "n_patches": 200,
    "network": {"n_clusters": 2, "n_epochs": 1, "channels": 4, "embedding_dim": 8},
    "source": "a test",
    "reduced": "nearly all",
}


def some_images(n, seed):
    rng = np.random.default_rng(seed)
    y = rng.integers(2, size=n)
    lying = np.broadcast_to((np.arange(9) // 2 % 2)[:, None], (n, 3, 9, 9))
    waves = np.where(y[:, None, None, None], lying, lying.swapaxes(2, 3))
    return Images((200 * waves + 9 * rng.random((n, 3, 9, 9))).astype(np.uint8), y, name="stripes")


@pytest.fixture
def small(monkeypatch):
    """A setting that takes a second, and images that lie nowhere."""
    monkeypatch.setattr(classification, "setting", lambda paper, profile: SMALL)
    sets = {"first": some_images(50, 0), "second": some_images(30, 1)}
    monkeypatch.setattr(load, "load", sets.__getitem__)
    return sets


@pytest.mark.parametrize("entry", COMMITTED, ids=[e["path"].rsplit("/", 1)[1] for e in COMMITTED])
def test_committed_records_are_scored_again_from_their_predictions(entry):
    found = classification.rescore(entry)
    assert found == {row["n_train"]: row["accuracy"] for row in entry["rows"]}
    assert set(found) == set(classification.setting("jule", entry["profile"])["sizes"])
    assert not records.is_stale(entry)
    try:
        test = load.load(entry["test"]["name"])
    except FileNotFoundError:
        return
    assert test.sha256 == entry["test"]["sha256"]
    np.testing.assert_array_equal(test.labels, records.load_arrays(entry)["y"])


def test_settings_name_data_sets_and_representations_that_exist():
    for profile in ("cpu", "paper"):
        chosen = classification.setting("jule", profile)
        assert set(chosen["representations"]) <= set(classify.REPRESENTATIONS)
        assert {chosen["train"], chosen["test"]} <= {row["name"] for row in load.available()} | {
            f"{name}-{part}" for name in ("cifar10", "cifar10-jpeg") for part in ("train", "test")
        }
    with pytest.raises(ValueError, match="unknown profile 'gpu'.*cpu"):
        classification.setting("jule", "gpu")
    with pytest.raises(ValueError, match="unknown paper"):
        classification.setting("julia", "cpu")


@pytest.mark.filterwarnings("ignore:the k-NN graph has")
def test_a_run_writes_what_it_found_and_is_not_repeated(small, tmp_path, monkeypatch):
    paths = classification.run("jule", "cpu", 3, root=tmp_path, device="cpu")
    assert [path.name for path in paths] == [
        f"codes-first-cpu-{name}-seed3.json" for name in SMALL["representations"]
    ]
    for entry in classification.load_runs("jule", root=tmp_path):
        stored = records.load_arrays(entry)
        np.testing.assert_array_equal(stored["y"], small["second"].labels)
        found = {row["n_train"]: row["accuracy"] for row in entry["rows"]}
        assert classification.rescore(entry) == found
        assert entry["parameters"]["n_codes"] == 6 and entry["train"]["n"] == 50
        learned = entry["representation"] != "whitened"
        assert ("network" in entry["parameters"]) == bool(entry["network"]) == learned
        assert not learned or len(entry["network"]["losses"]) > 0
        assert entry["rows"][1]["accuracy"] > 0.8
    before = [path.stat().st_mtime_ns for path in paths]
    assert classification.run("jule", "cpu", 3, root=tmp_path, device="cpu") == paths
    assert [path.stat().st_mtime_ns for path in paths] == before

    # a run that was killed after its first code: the CNN is read, not learned, and the result is the same
    kept = [json.loads(path.read_text())["rows"] for path in paths]
    for path in paths[1:]:
        path.unlink()
    monkeypatch.setattr(patch_network, "learn_patch_network", None)
    classification.run("jule", "cpu", 3, root=tmp_path, device="cpu")
    again = [json.loads(path.read_text())["rows"] for path in paths]
    scores = [[[row["accuracy"], row["C"]] for row in rows] for rows in (*kept, *again)]
    assert scores[:3] == scores[3:] and paths[0].stat().st_mtime_ns == before[0]


@pytest.mark.filterwarnings("ignore:the k-NN graph has")
def test_another_setting_or_a_damaged_record_is_run_again(small, tmp_path, monkeypatch):
    monkeypatch.setitem(SMALL, "representations", ["whitened"])
    (path,) = classification.run("jule", "cpu", 0, root=tmp_path, device="cpu")
    monkeypatch.setitem(SMALL, "n_codes", 5)
    classification.run("jule", "cpu", 0, root=tmp_path, device="cpu")
    assert records.read(path)["parameters"]["n_codes"] == 5
    path.write_text("{")
    classification.run("jule", "cpu", 0, root=tmp_path, device="cpu")
    assert records.read(path)["parameters"]["n_codes"] == 5


def test_curves_pair_seeds_by_their_number():
    def run(name, seed, accuracy):
        rows = [{"n_train": 20, "accuracy": accuracy}, {"n_train": 10, "accuracy": 0.25}]
        return {"representation": name, "random_state": seed, "rows": rows}

    # seed 1 of the codebook is missing; files come in any order
    entries = [run("conv1", 2, 0.75), run("conv1", 0, 0.5), run("conv1", 1, 0.0)]
    found = classification.curves([*entries, run("whitened", 0, 0.25), run("whitened", 2, 0.625)])
    assert list(found["conv1"]) == [10, 20]
    assert found["conv1"][20] == {0: 0.5, 1: 0.0, 2: 0.75}
    assert classification.gains(found, "conv1", "whitened", 20).tolist() == [0.25, 0.125]
    assert classification.gains(found, "conv1", "conv2", 20).size == 0
