"""Run records: written atomically, aged by code and not by words, re-scored from the commit."""

import dataclasses
import json
import os
from pathlib import Path

import numpy as np
import pytest

from reprolib import metrics
from reprolib.data import load as datasets
from reprolib.experiments import paper, probes, records
from reprolib.experiments.plan import plan

CODE = {"commit": None, "dirty": None, "behaviours": {"KMeans": 0}}
COMMITTED = [r for p in paper.papers() for r in records.load_records(p, task=None, profile=None, tag=None)]
# a reader's own images leave records there too, but not where the images lie
COMMITTED = [r for r in COMMITTED if not r["dataset"]["name"].startswith("folder-")]


@pytest.fixture(scope="module")
def digits():
    return datasets.load("digits")


def write(folder, images, *, seed=0, labels=None, **changed):
    ids = np.random.default_rng(seed).integers(0, 10, images.n) if labels is None else labels
    given = dict(
        paper="jule",
        method="KMeans",
        images=images,
        dataset="digits",
        profile="smoke",
        parameters={"n_clusters": 10},
        random_state=seed,
        assignments={"labels": ids},
        code=CODE,
        seconds={"fit": 1.0 + seed},
        root=folder,
    )
    return records.record(**given | changed)


def at_hand(entry):
    """The record's data set, resized as recorded, if this machine has it; digits always are."""
    name, transforms = entry["dataset"]["name"], entry["dataset"]["transforms"]
    known = paper.profiles(entry["paper"])["profiles"][entry["profile"]]
    load = dict(known.get(name, {}).get("load") or {})
    if "size" in transforms:  # a transferred model takes the images in its own size
        load["size"] = tuple(transforms["size"])
    try:
        return datasets.load(name, **load)
    except FileNotFoundError:
        assert name != "digits"
        return None


@pytest.mark.parametrize("entry", COMMITTED, ids=[Path(r["path"]).stem for r in COMMITTED])
def test_committed_records_are_rescored_from_their_assignment(entry):
    images = at_hand(entry)
    assert entry["metrics"], "a committed record without metrics proves nothing"
    assert records.rescore(entry, images) == entry["metrics"]
    parts = [entry[k] for k in ("method",)] + [entry["dataset"]["name"], entry["profile"]]
    assert Path(entry["path"]).stem == records.stem(*parts, entry["tag"], entry["random_state"])


def test_a_record_holds_what_the_scores_and_the_reader_need(tmp_path, digits):
    path = write(tmp_path, digits, arrays={"pca_0": np.zeros((5, 3), np.float16)})
    (entry,) = records.load_records("jule", root=tmp_path, profile=None, tag=None)
    assert path.name == "KMeans-digits-smoke-main-seed0.json" == Path(entry["path"]).name
    assert entry["dataset"]["sha256"] == digits.sha256
    assert entry["dataset"]["n"] == 1797
    arrays = records.load_arrays(entry)
    assert {k: v.dtype for k, v in arrays.items()} == {"labels": np.uint8, "y": np.uint8, "pca_0": np.float16}
    expected = metrics.summary(digits.labels, arrays["labels"])
    assert entry["metrics"]["labels"] == pytest.approx(expected, abs=1e-6)
    assert entry["peak_memory_mb"] > 10
    assert {"python", "torch", "numpy", "scipy", "scikit-learn", "numba"} <= set(entry["versions"])


def test_images_that_were_learned_from_are_not_scored(tmp_path, digits):
    path = write(tmp_path, digits, parameters={"n_clusters": 10, "n_train": 1000})
    entry, ids = records.read(path), np.random.default_rng(0).integers(0, 10, 1797)
    assert entry["metrics"]["labels"] == pytest.approx(metrics.summary(digits.labels[1000:], ids[1000:]), abs=1e-6)
    assert records.rescore(entry, digits) == entry["metrics"]
    whole = write(tmp_path, digits, seed=1, labels=ids, parameters={"n_clusters": 10, "n_train": 1797})
    assert records.read(whole)["metrics"]["labels"] == pytest.approx(metrics.summary(digits.labels, ids), abs=1e-6)


def test_a_run_tells_the_scores_that_its_record_counts(tmp_path):
    given = {"dataset": "digits", "n_train": 1000, "tag": "x", "runs_dir": str(tmp_path)}
    assert plan("profeat", given).monitor(datasets.load("digits")).scored == slice(1000, 1797)


def test_images_whose_class_is_not_known_are_not_scored(tmp_path, digits, monkeypatch):
    known = {"digits": dataclasses.replace(records.TABLE["digits"], n_unlabelled=97)}
    monkeypatch.setattr(records, "TABLE", known)
    ids = np.random.default_rng(0).integers(0, 10, 1797)
    entry = records.read(write(tmp_path, digits, parameters={"n_clusters": 10, "n_train": 1000}))
    expected = metrics.summary(digits.labels[1000:1700], ids[1000:1700])
    assert entry["metrics"]["labels"] == pytest.approx(expected, abs=1e-6)


def test_writing_the_same_run_twice_gives_the_same_bytes(tmp_path, digits):
    first = write(tmp_path / "a", digits).with_suffix(".npz").read_bytes()
    assert first == write(tmp_path / "b", digits).with_suffix(".npz").read_bytes()


def test_a_changed_assignment_does_not_pass_for_the_recorded_one(tmp_path, digits):
    path = write(tmp_path, digits)
    (entry,) = records.load_records("jule", root=tmp_path, profile=None, tag=None)
    np.savez_compressed(path.with_suffix(".npz"), labels=digits.labels, y=digits.labels)
    with pytest.raises(ValueError, match="not the file its record was written with"):
        records.rescore(entry)


def test_rescoring_refuses_another_version_of_the_data(tmp_path, digits):
    write(tmp_path, digits)
    (entry,) = records.load_records("jule", root=tmp_path, profile=None, tag=None)
    assert records.rescore(entry, digits) == records.rescore(entry) == entry["metrics"]
    with pytest.raises(ValueError, match="another version of the data set"):
        records.rescore(entry, digits.take(slice(0, 1000)))


def test_a_wrong_number_in_the_json_is_found(tmp_path, digits):
    path = write(tmp_path, digits)
    entry = json.loads(path.read_text())
    entry["metrics"]["labels"]["acc"] = 0.99
    path.write_text(json.dumps(entry))
    entry = records.read(path)
    assert records.rescore(entry) != entry["metrics"]


@pytest.mark.parametrize("broken", [1, 2])
def test_a_write_that_fails_leaves_the_old_file_and_no_rubbish(tmp_path, digits, monkeypatch, broken):
    path = write(tmp_path, digits)
    before, names = path.read_bytes(), sorted(os.listdir(tmp_path))
    calls, replace = [], os.replace

    def failing(source, target):
        calls.append(target)
        if len(calls) == broken:
            raise OSError("disk full")
        replace(source, target)

    monkeypatch.setattr(os, "replace", failing)
    with pytest.raises(OSError, match="disk full"):
        write(tmp_path, digits, labels=np.zeros(digits.n, int))
    assert path.read_bytes() == before
    assert sorted(os.listdir(tmp_path)) == names
    entry = records.read(path)
    if broken == 1:
        assert records.rescore(entry) == entry["metrics"]
    else:  # the .npz is new, the JSON old: the pair must not count as a finished run
        with pytest.raises(ValueError, match="Restore both"):
            records.load_arrays(entry)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (dict(assignments={"labels": np.zeros(3, int)}), "must be 1797 integers"),
        (dict(assignments={"labels": np.full(1797, -1)}), "must be 1797 integers"),
        (dict(assignments={"labels": np.zeros(1797)}), "must be 1797 integers"),
        (dict(arrays={"y": np.zeros(3)}), "multiple values"),
        (dict(arrays={"labels": np.zeros(3)}), "multiple values"),
        (dict(tagg="x"), "Did you mean 'tag'"),
    ],
)
def test_bad_input_is_refused_before_anything_is_written(tmp_path, digits, changed, message):
    with pytest.raises((ValueError, TypeError), match=message):
        write(tmp_path, digits, **changed)
    assert not list(tmp_path.iterdir())


def test_images_without_labels_are_recorded_without_metrics(tmp_path, digits):
    blind = datasets.Images(digits.pixels, None, name="mine")
    write(tmp_path, blind)
    (entry,) = records.load_records("jule", root=tmp_path, profile=None, tag=None)
    assert entry["metrics"] == {} == records.rescore(entry)
    assert "y" not in records.load_arrays(entry)


def test_filters_select_and_unknown_keys_name_the_nearest(tmp_path, digits):
    for seed in range(3):
        write(tmp_path, digits, seed=seed)
    write(tmp_path, digits, tag="other")
    assert len(records.load_records("jule", root=tmp_path, profile=None, tag=None)) == 4
    assert len(records.load_records("jule", root=tmp_path, tag="main", profile=None)) == 3
    assert len(records.load_records("jule", root=tmp_path, random_state=[0, 1], tag="main", profile=None)) == 2
    assert not records.load_records("jule", root=tmp_path, dataset="usps", profile=None, tag=None)
    with pytest.raises(ValueError, match="Did you mean 'dataset'"):
        records.load_records("jule", root=tmp_path, datset="usps", profile=None, tag=None)


@pytest.mark.parametrize("said", [{}, {"profile": "cpu"}, {"tag": "main"}])
def test_a_query_that_does_not_say_profile_and_tag_is_an_error(tmp_path, said):
    # runs of other scales and settings have the same seeds: one would hide the other
    for ask in (
        lambda: records.load_records("jule", root=tmp_path, **said),
        lambda: paper.Paper("jule").select(**said),
    ):
        with pytest.raises(TypeError, match="keyword-only argument.*'(tag|profile)'"):
            ask()


@pytest.mark.parametrize("text", ["{", '{"schema": 99}', "[]"])
def test_a_file_that_is_no_record_is_named(tmp_path, text):
    (tmp_path / "odd.json").write_text(text)
    with pytest.raises(ValueError, match="odd.json"):
        records.load_records("jule", root=tmp_path, profile=None, tag=None)


def test_a_record_is_stale_when_its_behaviour_is_not_the_last():
    assert not records.is_stale({"behaviours": {}})
    now = probes.latest("KMeans", "JULE/paper")
    assert set(now) == {"KMeans", "JULE/paper"} and not records.is_stale({"behaviours": now})
    assert records.is_stale({"behaviours": now | {"KMeans": now["KMeans"] - 1}})
    assert records.is_stale({"behaviours": now | {"a method that is gone": 1}})
    with pytest.raises(ValueError, match="unknown behaviour 'KMean'.*'KMeans'"):
        probes.latest("KMean")


def test_no_committed_record_is_stale():
    assert not [entry["path"] for entry in COMMITTED if records.is_stale(entry)]


def test_a_record_is_written_a_row_a_line(tmp_path, digits):
    rows = [{"epoch": e, "loss": 0.5} for e in range(3)]
    path = write(tmp_path, digits, history=rows)
    lines = path.read_text().splitlines()
    assert lines.count('  {"epoch": 1, "loss": 0.5},') == 1 and len(lines) < 40
    assert json.loads(path.read_text()) == {k: v for k, v in records.read(path).items() if k != "path"}


def test_a_record_is_told_in_one_line(tmp_path, digits):
    entry = records.read(write(tmp_path, digits, seconds={"fit": 1.26}))
    scores = entry["metrics"]["labels"]
    nmi, acc = scores["nmi_geometric"], scores["acc"]
    assert records.told(entry) == f"labels NMI {nmi:.3f} ACC {acc:.3f}; 1.3 s"
    blind = datasets.Images(digits.pixels, None, name="mine")
    path = write(tmp_path, blind, labels=digits.labels, seconds={"fit": 1})
    assert records.told(records.read(path)) == "no labels; 1.0 s"


def test_a_classification_is_scored_by_its_accuracy_and_read_when_asked_for(tmp_path, digits):
    labels = np.roll(digits.labels, 1)
    write(tmp_path, digits, labels=labels, task="classification")
    assert records.load_records("jule", root=tmp_path, profile=None, tag=None) == []
    (entry,) = records.load_records("jule", root=tmp_path, task="classification", profile=None, tag=None)
    right = round(float(np.mean(labels == digits.labels)), 6)
    assert entry["metrics"] == {"labels": {"accuracy": right}} == records.rescore(entry, digits)
    assert records.load_records("jule", root=tmp_path, task=None, profile=None, tag=None) == [entry]
