"""JULE as an estimator: schedule, variants, seeds, sealed labels, resume, bad input."""

import copy
import os
import signal
import subprocess
import sys
import time
import warnings

import numpy as np
import pytest
import torch
from sklearn.base import clone

from reprolib import metrics
from reprolib.data import load
from reprolib.data.images import Images, LabelsSealedError
from reprolib.graph.strays import DisconnectedGraphWarning, join_disconnected
from reprolib.kernels.triplets import sample_triplets
from reprolib.methods import ACGDL, ACPIC, JULE, ACZell
from reprolib.methods.classical import KMeans
from reprolib.methods.jule import inverse_decay, period_lengths
from reprolib.networks.embedding import embed
from reprolib.training.checkpoint import CheckpointError, load_checkpoint, save_checkpoint
from reprolib.training.trainer import Run

# two epochs of full steps learn enough to tell a good network from a lost one
SMALL = dict(n_epochs=2, channels=8, embedding_dim=16, dampening=0.0)


@pytest.fixture(scope="module")
def digits():
    return load.load("digits", subset=400)


@pytest.fixture(scope="module")
def fitted(digits):
    return JULE(10, random_state=3, **SMALL).fit(digits)


def test_schedule_of_the_paper():
    assert period_lengths(1762, 10, 0.9) == [1762, 176, 17, 10]  # figure 1
    assert len(period_lengths(144, 20, 0.2)) - 1 == 9
    assert period_lengths(20, 20, 0.9) == [20]
    with pytest.raises(ValueError, match="unrolling_rate"):
        period_lengths(100, 10, 0.0)


def test_inverse_policy():
    assert inverse_decay(0, 0.01, 1e-4, 0.75) == 0.01
    assert inverse_decay(10_000, 0.01, 1e-4, 0.75) == pytest.approx(0.01 * 2**-0.75)


def test_fit_sets_what_it_promises(digits, fitted):
    assert fitted.labels_.shape == fitted.results_["RC"].shape == (400,)
    assert len(np.unique(fitted.labels_)) == len(np.unique(fitted.results_["RC"])) == 10
    assert np.array_equal(fitted.labels_, fitted.results_["SF"])
    np.testing.assert_allclose(np.linalg.norm(fitted.embedding_, axis=1), 1.0, atol=1e-5)
    assert len(fitted.history_) == 2 * (len(fitted.n_clusters_by_period_) - 1)
    assert metrics.nmi(digits.labels, fitted.labels_) > 0.5
    assert JULE(10, random_state=3, **SMALL).fit_predict(digits).tolist() == fitted.labels_.tolist()


@pytest.mark.parametrize("variant", JULE.VARIANTS)
def test_same_seed_same_labels_other_seed_other_weights(digits, variant):
    one, two, other = (JULE(10, random_state=seed, **SMALL | JULE.VARIANTS[variant]).fit(digits) for seed in (0, 0, 1))
    assert np.array_equal(one.labels_, two.labels_)
    assert np.array_equal(one.embedding_, two.embedding_)
    assert not np.array_equal(one.embedding_, other.embedding_)


def test_labels_are_sealed_inside_fit_and_a_monitor_changes_nothing(digits, fitted):
    seen = []

    def spy(stage):
        with pytest.raises(LabelsSealedError):
            _ = digits.labels
        seen.append(stage.n_clusters)
        stage.labels[:] = 0
        stage.embedding[:] = 0

    watched = JULE(10, random_state=3, **SMALL).fit(digits, monitor=spy)
    assert seen == fitted.n_clusters_by_period_
    assert np.array_equal(watched.labels_, fitted.labels_)


def test_arrays_and_images_give_the_same_labels(digits, fitted):
    array = digits.pixels[:, 0]
    assert np.array_equal(JULE(10, random_state=3, **SMALL).fit(array).labels_, fitted.labels_)


def test_clone_and_params_keep_every_parameter():
    model = JULE(7, **JULE.VARIANTS["released"] | {"gamma": 3.0})
    assert clone(model).get_params() == model.get_params()
    assert model.gamma == 3.0 and model.n_negatives == 20


def test_save_and_load_give_the_same_predictions(digits, fitted, tmp_path):
    fitted.save(tmp_path / "model.safetensors")
    loaded = JULE.load(tmp_path / "model.safetensors")
    assert np.array_equal(loaded.predict(digits), fitted.predict(digits))
    assert np.array_equal(loaded.labels_, fitted.labels_)
    assert metrics.accuracy(fitted.labels_, fitted.predict(digits)) > 0.85
    with pytest.raises(ValueError, match="fitted on inputs of shape"):
        fitted.transform(np.zeros((3, 9, 9), np.uint8))
    assert fitted.predict(digits.pixels[:1]).shape == (1,)


def test_an_interrupted_fit_ends_as_the_uninterrupted_one(digits, fitted, tmp_path):
    class Stop(Exception):
        pass

    def stop(stage):
        if stage.period == 1:
            raise Stop

    path = tmp_path / "run.safetensors"
    with pytest.raises(Stop):
        JULE(10, random_state=3, **SMALL).fit(digits, monitor=stop, checkpoint=path)
    again = JULE(10, random_state=3, **SMALL).fit(digits, checkpoint=path)
    assert np.array_equal(again.labels_, fitted.labels_)
    assert np.array_equal(again.results_["RC"], fitted.results_["RC"])
    assert np.array_equal(again.embedding_, fitted.embedding_)
    assert len(again.history_) == len(fitted.history_)


SCRIPT = """
import sys, torch
torch.set_num_threads(1)
from reprolib import load
from reprolib.methods import JULE
images = load("digits", subset=400)
model = JULE(10, random_state=3, n_epochs=4, unrolling_rate=0.5, channels=8, embedding_dim=16)
from reprolib.training import trainer as run
save = run.Run._save
def slow(self):
    save(self)
    print(self.at, self.epoch, flush=True)
    if sys.argv[2] == "slow":
        import time; time.sleep(0.2)
run.Run._save = slow
model.fit(images, checkpoint=sys.argv[1])
import numpy as np
np.save(sys.argv[1] + ".npy", np.stack(list(model.results_.values())))
"""


def test_kill_9_and_resume_give_the_same_labels(tmp_path):
    def start(name, pace):
        command = [sys.executable, "-c", SCRIPT, str(tmp_path / name), pace]
        return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)

    whole = start("whole", "fast")
    whole.communicate(timeout=300)
    assert whole.returncode == 0
    killed = start("killed", "slow")
    for _ in range(7):  # four epochs and a merge, then two epochs of the second period
        assert killed.stdout.readline()
    time.sleep(0.25)  # somewhere inside the next epoch or its pause
    os.kill(killed.pid, signal.SIGKILL)
    assert killed.wait() == -signal.SIGKILL
    assert not (tmp_path / "killed.npy").exists()
    resumed = start("killed", "fast")
    lines = resumed.communicate(timeout=300)[0].splitlines()
    assert lines and lines[0].split()[0] == "1", "did not go on from the second period"
    expected, got = np.load(tmp_path / "whole.npy"), np.load(tmp_path / "killed.npy")
    assert np.array_equal(expected, got)


def test_a_foreign_or_damaged_checkpoint_is_refused(digits, tmp_path):
    path = tmp_path / "run.safetensors"
    JULE(10, random_state=3, **SMALL).fit(digits, checkpoint=path)
    with pytest.raises(CheckpointError, match="other data or parameters"):
        JULE(10, random_state=4, **SMALL).fit(digits, checkpoint=path)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(CheckpointError, match="delete it"):
        JULE(10, random_state=3, **SMALL).fit(digits, checkpoint=path)


def test_checkpoint_writes_are_atomic(tmp_path, monkeypatch):
    path = tmp_path / "c.safetensors"
    save_checkpoint(path, {"a": torch.zeros(3)}, {"step": 1})

    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="choose a folder"):
        save_checkpoint(path, {"a": torch.ones(3)}, {"step": 2})
    monkeypatch.undo()
    tensors, state = load_checkpoint(path)
    assert state == {"step": 1} and torch.equal(tensors["a"], torch.zeros(3))
    assert [p.name for p in tmp_path.iterdir()] == ["c.safetensors"]


def test_an_unwritable_checkpoint_folder_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="cannot write"):
        save_checkpoint(tmp_path / "file" / "c.safetensors", {}, {})


def first_period(model, images):
    """The first period of a fit, at its beginning."""
    run = Run(model, model.inputs(images))
    stage = model.stages(run, images)[0]
    stage.build()
    stage.begin()
    run.modules["network"].train()
    return stage


def test_released_gradient_reaches_anchors_only(digits):
    """At gamma = 1 the released arithmetic leaves no gradient for positives and negatives."""
    model = JULE(5, n_neighbors=5, **SMALL | JULE.VARIANTS["released"])
    stage = first_period(model, digits.pixels[:100])
    run = stage.run
    network, state = copy.deepcopy(run.modules["network"]), run.generator.get_state()
    batch = torch.arange(60)
    assert stage.step(batch)["n_triplets"] > 0
    x = network(run.inputs[batch])
    triplets = sample_triplets(
        run.tensors["labels"][:60],
        model.n_negatives,
        negatives="random",
        ordered=False,
        generator=torch.Generator().set_state(state),
    )
    near = (x[triplets.anchor] - x[triplets.positive].detach()).square().sum(-1)[:, None]  # (p, 1)
    far = (x[triplets.anchor][:, None] - x[triplets.negative].detach()).square().sum(-1)  # (p, q)
    (near - far + model.margin).clamp(min=0).mean().backward()
    for mine, literal in zip(run.modules["network"].parameters(), network.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, literal.grad, rtol=1e-3, atol=1e-6)


def test_batch_statistics_leave_the_running_ones_alone(digits, fitted):
    before = [norm.running_mean.clone() for norm in fitted.network_.norms]
    images = torch.from_numpy(digits.pixels).float() / 255
    batch = embed(fitted.network_, images, batch_size=100, statistics="batch")
    assert all(torch.equal(a, norm.running_mean) for a, norm in zip(before, fitted.network_.norms, strict=True))
    assert not np.allclose(batch, embed(fitted.network_, images), atol=1e-4)


def test_bfloat16_trains_close_to_float32(digits, fitted):
    half = JULE(10, random_state=3, precision="bfloat16", **SMALL).fit(digits)
    assert half.embedding_.dtype == np.float32
    assert not np.array_equal(half.embedding_, fitted.embedding_)
    cosine = (half.embedding_ * fitted.embedding_).sum(1)
    assert np.median(cosine) > 0.9


def test_a_batch_of_one_image_is_left_out(digits):
    model = JULE(5, n_neighbors=5, batch_size=100, **SMALL)
    stage = first_period(model, digits.pixels[:201])
    assert stage.run._train_epoch(stage)["n_batches"] == 2


def test_colour_images_and_every_loss_run(digits):
    colour = np.repeat(digits.pixels, 3, axis=1)[:150]
    for loss in ("affinity", "linear", "hinge"):
        labels = JULE(5, triplet_loss=loss, **SMALL).fit_predict(colour)
        assert len(np.unique(labels)) == 5


def test_a_disconnected_graph_warns_and_still_gives_the_asked_clusters():
    rng = np.random.default_rng(0)
    features = np.concatenate([rng.normal(c, 0.01, (30, 2)) for c in (1, 5, 9)]) + [0.0, 1.0]
    with pytest.warns(DisconnectedGraphWarning, match="Raise n_neighbors"):
        labels = ACGDL(2, n_neighbors=5).fit_predict(features)
    assert len(np.unique(labels)) == 2


def test_join_disconnected_takes_the_nearest_means():
    features = np.array([[0.0], [0.1], [5.0], [5.2], [9.0]])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        joined = join_disconnected(features, np.array([0, 0, 1, 1, 2]), 2)
    assert joined[0] == joined[1] != joined[2] == joined[3] == joined[4]


BAD = [
    (np.full((30, 8, 8), 7, np.uint8), {}, "constant"),
    (np.full((30, 8, 8), np.nan), {}, "finite"),
    (np.zeros((30, 8)), {}, "shape"),
    (np.arange(5 * 64, dtype=np.uint8).reshape(5, 8, 8), {}, "n_neighbors"),
    (None, dict(n_clusters=399), "initial clusters"),
    (None, dict(n_clusters=401), "more than the 400"),
    (None, dict(n_clusters=0), "n_clusters"),
    (None, dict(triplet_loss="hing"), "hinge"),
    (None, dict(unrolling_rate=1.5), "unrolling_rate"),
    (None, dict(batch_size=1), "batch_size"),
    (None, dict(device="cuda:9"), "auto"),
]


@pytest.mark.parametrize(("X", "change", "message"), BAD)
def test_bad_input_is_named(digits, X, change, message):
    images = digits if X is None else X
    with pytest.raises((ValueError, TypeError), match=message):
        JULE(**(dict(n_clusters=4) | SMALL | change)).fit(images)


@pytest.mark.parametrize("Method", [ACGDL, ACPIC, ACZell, KMeans])
def test_the_other_methods_share_the_conventions(digits, Method):
    model = Method(10)
    labels = model.fit_predict(digits)
    assert labels.shape == (400,) and len(np.unique(labels)) == 10
    assert metrics.nmi(digits.labels, labels) > 0.6
    features = digits.pixels.reshape(400, -1)
    assert np.array_equal(clone(model).fit_predict(features), labels)
    with pytest.raises(ValueError):
        Method(401).fit(digits)
    with pytest.raises(ValueError):
        Method(2).fit(np.full((40, 3), np.nan))


@pytest.mark.parametrize(
    ("name", "n_clusters", "n_initial", "nmi", "acc"),
    [
        ("coil20", 20, 457, 0.9146, 0.7889),
        ("orl", 40, 108, 0.7619, 0.4875),
        ("usps", 10, 1590, 0.7562, 0.5745),
        ("mnist-test", 10, 1762, 0.8559, 0.8523),
    ],
)
def test_acgdl_meets_the_public_toolbox(name, n_clusters, n_initial, nmi, acc):
    """Partitions of the public gactoolbox (GDL-U, K = 20, a = 1, unit raw pixels), to four decimals."""
    try:
        images = load.load(name)
    except (FileNotFoundError, OSError) as error:
        pytest.skip(f"{name} is not in the data root: {error}")
    assert isinstance(images, Images)
    model = ACGDL(n_clusters).fit(images)
    assert model.n_initial_clusters_ == n_initial
    assert round(metrics.nmi(images.labels, model.labels_), 4) == nmi
    assert round(metrics.accuracy(images.labels, model.labels_), 4) == acc
