"""Replays: what is drawn, what is compared, what is written."""

import json

import numpy as np
import pytest

from reprolib.data import load as datasets
from reprolib.experiments import paper, records, replay
from reprolib.experiments.plan import plan
from reprolib.methods import KMeans


@pytest.fixture
def book(tmp_path, monkeypatch):
    """Records of K-means on digits, seeds 0 and 1, seed 2 with a label changed, and one on features."""
    monkeypatch.setattr(records, "BOOK", tmp_path)
    monkeypatch.setattr(replay, "REPLAYS", tmp_path / "replays.yml")
    replay.REPLAYS.write_text("# the head\n")
    images = datasets.load("digits")
    for seed, learned in ((0, {}), (1, {}), (2, {}), (0, {"features": "jule/coil20/ip"})):
        labels = KMeans(10, random_state=seed).fit(images).labels_
        if seed == 2:
            labels[0] = (labels[0] + 1) % 10
        records.record(
            tmp_path / "jule" / "runs",
            paper="jule",
            method="KMeans",
            images=images,
            dataset="digits",
            profile="smoke",
            parameters={"n_clusters": 10, "n_init": 10} | learned,
            random_state=seed,
            assignments={"labels": labels},
            code={"commit": None, "dirty": None, "behaviours": {"KMeans": 1}},
            tag="features" if learned else "main",
            seconds={},
        )
    return tmp_path


def by_seed(seed):
    (entry,) = records.load_records("jule", random_state=seed, tag="main", profile=None)
    return entry


def test_equal_labels_and_the_agreement_of_the_seeds(book):
    row = replay.replay(by_seed(0))
    found = row["results"]["labels"]
    assert found["equal"] and found["same"] == found["ari"] == 1
    assert 0 < found["between_seeds"] < 1
    assert found["then"] == found["now"]
    assert row["record"] == "jule/KMeans-digits-smoke-main-seed0"
    assert row["machine"]["threads"] == by_seed(0)["machine"]["threads"]


def test_one_other_label(book):
    found = replay.replay(by_seed(2))["results"]["labels"]
    assert not found["equal"] and found["same"] == round(1796 / 1797, 4) and found["ari"] < 1


def test_run_appends_and_tells(book, capsys):
    first = replay.run("jule", 1, method="KMeans")
    second = replay.run("jule", 3, dataset="digits", seed=1)
    assert replay.replays() == first + second
    assert replay.REPLAYS.read_text().startswith("# the head\n")
    told = capsys.readouterr().out
    assert "1 records of jule are of features" in told and "equal labels" in told


def test_draws_repeat_and_leave_models_out(book):
    drawn = replay.draw("jule", 2, seed=5)
    assert drawn == replay.draw("jule", 2, seed=5)
    assert len({entry["path"] for entry in drawn}) == 2
    assert not any(map(replay.needs_model, replay.draw("jule", 100)))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sample": 0}, "at least 1"),
        ({"sample": 1, "method": "KMean"}, "KMeans"),
        ({"sample": 1, "dataset": "digit"}, "digits"),
        ({"sample": 1, "method": "ACGDL"}, "with records"),
    ],
)
def test_draw_refuses(book, options, message):
    with pytest.raises(ValueError, match=message):
        replay.draw("jule", **options)


def test_refuses_other_data_and_features(book, monkeypatch):
    (entry,) = records.load_records("jule", tag="features", profile=None)
    with pytest.raises(ValueError, match="model that is not here"):
        replay.replay(entry)
    entry = by_seed(0)
    entry["dataset"]["sha256"] = "0" * 64
    with pytest.raises(ValueError, match="another version"):
        replay.replay(entry)


@pytest.mark.parametrize("name", paper.papers())
def test_every_committed_record_can_be_planned_again(name):
    seen = set()
    for entry in records.load_records(name, profile=None, tag=None):
        setting = {k: entry[k] for k in (*replay.SETTING, "random_state")} | entry["parameters"]
        key = repr(setting | {"dataset": entry["dataset"]["name"], "random_state": 0})
        if not replay.needs_model(entry) and key not in seen:
            seen.add(key)
            made = plan(name, setting | {"dataset": entry["dataset"]["name"]})
            assert json.loads(json.dumps(made.recorded)) == entry["parameters"]
            assert made.stem in entry["path"]


def test_committed_replays_are_of_the_records_that_are_there():
    loaded = [r for p in ("jule", "dcss") for r in records.load_records(p, profile=None, tag=None)]
    known = {replay.name_of(r): r["metrics"] for r in loaded}
    for row in replay.replays():
        for name, found in row["results"].items():
            recorded = {metric: round(known[row["record"]][name][metric], 4) for metric in found["then"]}
            assert found["then"] == recorded, f"{row['record']} was replaced: replay it, or drop its replay"
            assert not found["equal"] or np.isclose(found["ari"], 1)
