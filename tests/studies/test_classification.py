"""Runs of Table 8: settings, records that hold what was found, and a killed run that goes on."""

import numpy as np
import pytest

from reprolib.data import load as datasets
from reprolib.data.images import Images, LabelsSealedError, sealed_labels
from reprolib.experiments import records
from reprolib.experiments import run as experiment
from reprolib.studies import classify
from reprolib.studies.classify import PatchCodes

COMMITTED = records.load_records("jule", task="classification", profile=None, tag=None)
SMALL = dict(
    train="first",
    sizes=[20, 40],
    n_codes=6,
    n_patches=200,
    n_clusters=2,
    network={"n_epochs": 1, "channels": 4, "embedding_dim": 8},
    device="cpu",
)


def some_images(n, seed):
    rng = np.random.default_rng(seed)
    y = rng.integers(2, size=n)
    lying = np.broadcast_to((np.arange(9) // 2 % 2)[:, None], (n, 3, 9, 9))
    waves = np.where(y[:, None, None, None], lying, lying.swapaxes(2, 3))
    return Images((200 * waves + 9 * rng.random((n, 3, 9, 9))).astype(np.uint8), y, name="stripes")


@pytest.fixture
def unseen(monkeypatch):
    """Images to classify; those to learn from lie nowhere."""
    first = some_images(50, 0)
    monkeypatch.setattr(classify, "load", {"first": first}.__getitem__)
    return some_images(30, 1)


def test_the_committed_records_are_thirteen_and_name_their_setting():
    assert len(COMMITTED) == 13
    for entry in COMMITTED:
        name, rows = entry["parameters"]["representation"], entry["history"]
        assert entry["tag"].removesuffix("-nearest") == name
        assert [row["n_train"] for row in rows if row["stage"] == "svm"] == [625, 1250, 2500, 5000]
        assert [len(row["losses"]) for row in rows if row["stage"] == "network"] == [60] * (name != "whitened")
    try:
        train = datasets.load(entry["parameters"]["train"])
    except FileNotFoundError:
        return
    assert {r["train"]["sha256"] for e in COMMITTED for r in e["history"] if "train" in r} == {train.sha256}


@pytest.mark.parametrize(("profile", "dataset"), [("cpu", "cifar10-jpeg"), ("paper", "cifar10")])
def test_a_run_is_planned_as_any_other(profile, dataset):
    asked = {"method": "PatchCodes", "dataset": f"{dataset}-test", "profile": profile}
    with pytest.raises(ValueError, match="-p tag=representation-conv1"):
        experiment.plan("jule", asked | {"representation": "conv1"})
    for name in classify.REPRESENTATIONS:
        plan = experiment.plan("jule", asked | {"representation": name, "tag": name})
        assert plan.takes_seed and plan.parameters["train"] == f"{dataset}-train"
        assert plan.code["behaviours"].keys() == {"codes", "JULE/paper"}
        same = [e for e in COMMITTED if e["tag"] == name and e["profile"] == profile]
        assert len(same) == 3 * (profile == "cpu" and name != "ip")
        assert all(entry["parameters"] == plan.recorded for entry in same)


@pytest.mark.filterwarnings("ignore:the k-NN graph has")
def test_a_fit_predicts_and_a_run_that_goes_on_finds_its_network(unseen, tmp_path, monkeypatch):
    found = {}
    for name in ("whitened", "conv1", "ip"):
        model = PatchCodes(**SMALL, representation=name).fit(unseen, shared=tmp_path)
        assert model.results_.keys() == {"n20", "n40"}
        assert np.mean(model.results_["n40"] == unseen.labels) > 0.8
        steps = [row["stage"] for row in model.history_]
        learned = [] if name == "whitened" else ["network"]
        assert steps == [*learned, "whitening", "codebook", "encoding", "svm", "svm"]
        assert all(row["seconds"] > 0 for row in model.history_)
        found[name] = model
    assert len(list(tmp_path.iterdir())) == 1
    losses = found["conv1"].history_[0]["losses"]
    assert len(losses) > 0 and found["ip"].history_[0]["losses"] == losses
    # the network is read, not learned; another setting or another data set does not take it
    monkeypatch.setattr(classify, "learn_patch_network", None)
    again = PatchCodes(**SMALL, representation="conv1").fit(unseen, shared=tmp_path)
    for result, predicted in again.results_.items():
        np.testing.assert_array_equal(predicted, found["conv1"].results_[result])
    for changed in ({"n_patches": 201}, {"random_state": 1}, {"n_clusters": 3}):
        with pytest.raises(TypeError, match="not callable"):
            PatchCodes(**SMALL | changed, representation="conv1").fit(unseen, shared=tmp_path)
    monkeypatch.setattr(classify, "load", {"first": some_images(50, 2)}.__getitem__)
    with pytest.raises(TypeError, match="not callable"):
        PatchCodes(**SMALL, representation="conv1").fit(unseen, shared=tmp_path)


def test_no_label_of_the_images_is_read(unseen, monkeypatch):
    fitted = PatchCodes(**SMALL).fit(unseen).results_["n40"]
    blind = Images(unseen.pixels, None, name="blind")
    np.testing.assert_array_equal(PatchCodes(**SMALL).fit(blind).results_["n40"], fitted)
    with pytest.raises(ValueError, match="train='cifar10-train'"):
        PatchCodes().fit(blind)
    with sealed_labels(), pytest.raises(LabelsSealedError):
        PatchCodes(**SMALL).fit(unseen)


def test_a_run_leaves_a_record_of_accuracies(unseen, tmp_path, monkeypatch):
    monkeypatch.setattr(datasets, "load", lambda name, **options: unseen)
    asked = {k: v for k, v in SMALL.items() if k != "device"} | {
        "method": "PatchCodes",
        "dataset": "folder:somewhere",
        "tag": "small",
        "runs_dir": str(tmp_path),
    }
    plan = experiment.plan("jule", asked)
    model, images = plan.estimator(), plan.images()
    monitor = plan.monitor(images)
    path = plan.record(model, images, monitor, plan.fit(model, images, monitor))
    entry = records.read(path)
    predicted = model.results_["n40"]
    assert entry["metrics"]["n40"] == {"accuracy": round(np.mean(predicted == unseen.labels), 6)}
    assert entry["task"] == "classification" and records.rescore(entry) == entry["metrics"]
    assert entry["seconds"].keys() == {"whitening", "codebook", "encoding", "svm"}
    assert plan.is_finished() and "n40 accuracy" in records.told(entry)
    assert not records.load_records("jule", root=tmp_path, profile=None, tag=None), "it is no clustering"
