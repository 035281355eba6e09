"""DCSS: its losses and centers by their equations, phases that resume, what it refuses."""

import numpy as np
import pytest
import torch
from test_dec import blobs, started

from reprolib import load
from reprolib.methods import autoencoder, dcss
from reprolib.methods.autoencoder import PHASE_1, PHASE_2, PRETRAIN, latent_vectors
from reprolib.methods.dcss import DCSS, phase_1_losses, refresh_centers
from reprolib.training.checkpoint import CheckpointError
from reprolib.training.trainer import Run

TINY = dict(
    latent_dim=3,
    pretrain_epochs=2,
    phase1_epochs=2,
    phase2_epochs=3,
    u_epochs=1,
    batch_size=40,
    learning_rate=1e-3,
    mnet_width=8,
    device="cpu",
)


def literal_memberships(u, centers, m):
    """Equation 2 with explicit loops."""
    p = np.zeros((len(u), len(centers)))
    for i, point in enumerate(u):
        distances = [np.linalg.norm(point - center) for center in centers]
        for k in range(len(centers)):
            p[i, k] = 1 / sum((distances[k] / other) ** (2 / (m - 1)) for other in distances)
    return p


def test_run_losses_are_equations_1b_and_1c_and_sum_to_the_fuzzy_objective():
    rng = np.random.default_rng(0)
    x, decoded = rng.random((7, 1, 4, 5)), rng.random((7, 1, 4, 5))
    u, centers = rng.normal(size=(7, 3)), rng.normal(size=(4, 3))
    weights = literal_memberships(u, centers, 1.5) ** 1.5
    arrays = (torch.from_numpy(a) for a in (x, decoded, u, centers, weights))
    reconstruction, centering = phase_1_losses(*arrays)
    for k in range(4):
        error = sum(weights[i, k] * ((x[i] - decoded[i]) ** 2).sum() for i in range(7))
        spread = sum(weights[i, k] * ((u[i] - centers[k]) ** 2).sum() for i in range(7))
        assert reconstruction[k].item() == pytest.approx(error, rel=1e-12)
        assert centering[k].item() == pytest.approx(spread, rel=1e-12)
    fuzzy = sum(weights[i, k] * ((u[i] - centers[k]) ** 2).sum() for i in range(7) for k in range(4))
    assert centering.sum().item() == pytest.approx(fuzzy, rel=1e-12)


def test_centers_are_refreshed_by_equation_3_and_lower_the_fuzzy_objective():
    X, _ = blobs()
    stage = started(DCSS(3, **TINY), X)
    stage.centers.data += 0.3 * torch.randn(3, 3, generator=torch.Generator().manual_seed(0))
    u = latent_vectors(stage.run).double().numpy()
    before = stage.centers.detach().double().numpy()

    def objective(centers):
        weights = literal_memberships(u, centers, 1.5) ** 1.5
        return (weights * ((u[:, None] - centers) ** 2).sum(2)).sum()

    weights = literal_memberships(u, before, 1.5) ** 1.5
    expected = (weights.T @ u) / weights.sum(0)[:, None]
    refresh_centers(stage.run)
    np.testing.assert_allclose(stage.centers.detach().numpy(), expected, rtol=1e-3, atol=1e-4)
    assert objective(stage.centers.detach().double().numpy()) <= objective(before) * (1 + 1e-6)


def test_successive_passes_take_k_steps_and_the_joint_one_step():
    X, _ = blobs()
    steps = {}
    for passes in ("successive", "joint"):
        stage = started(DCSS(3, passes=passes, **TINY), X)
        counted = []
        stage.run.descend = lambda name, loss, counted=counted: counted.append(float(loss.detach()))
        found = stage.step(torch.arange(40))
        steps[passes] = counted
        assert found["loss"].item() == pytest.approx(sum(counted) / 3, rel=1e-4)
    assert len(steps["successive"]) == 3 and len(steps["joint"]) == 1
    # without a step in between, the K passes are the terms of the joint one
    assert sum(steps["successive"]) == pytest.approx(steps["joint"][0], rel=1e-4)


def test_memberships_once_a_batch_keep_the_first_passes_weights(monkeypatch):
    X, _ = blobs()
    calls = []

    def counted(latent, centers, m, run=dcss.fuzzy_memberships):
        calls.append(len(latent))
        return run(latent, centers, m)

    monkeypatch.setattr(dcss, "fuzzy_memberships", counted)
    for memberships, expected in (("each run", 3), ("each batch", 1)):
        stage = started(DCSS(3, memberships=memberships, **TINY), X)
        calls.clear()
        stage.step(torch.arange(40))
        assert len(calls) == expected


def test_pairs_are_told_by_u_first_and_by_q_later(monkeypatch):
    X, _ = blobs()
    seen = []

    def looked(q, similarity, run=autoencoder.pairwise_loss, **options):
        seen.append(torch.equal(similarity, q.detach()))
        return run(q, similarity, **options)

    monkeypatch.setattr(autoencoder, "pairwise_loss", looked)
    DCSS(3, **TINY).fit(X)
    batches = 3
    assert seen == [False] * batches + [True] * 2 * batches


def test_the_released_settings_build_and_clip():
    X, _ = blobs()
    options = {k: v for k, v in TINY.items() if k != "learning_rate"}
    model = DCSS(3, **options | DCSS.VARIANTS["released"]).fit(X)
    assert sum(isinstance(layer, torch.nn.Linear) for layer in model.modules_["mnet"].layers) == 3
    assert model.learning_rate == 1e-6
    stage = started(model, X, number=2)
    q = torch.tensor([[0.995, 0.005, 0.0], [0.2, 0.5, 0.3]], requires_grad=True)
    stage.run.modules["mnet"].forward = lambda latent: q[:2]
    stage.run.epoch, grads = 2, []
    stage.run.descend = lambda name, loss: grads.append(torch.autograd.grad(loss, q)[0])
    stage.step(torch.arange(2))
    assert grads[0][0].abs().max() == 0, "no gradient where q is set to 0 or 1"


@pytest.mark.parametrize("stop", [PRETRAIN, PHASE_1, PHASE_2])
def test_a_killed_fit_goes_on_and_ends_the_same(stop, tmp_path, monkeypatch):
    X, _ = blobs()
    whole = DCSS(3, **TINY).fit(X)
    path = tmp_path / "run.ckpt"

    class Killed(Exception):
        pass

    original = Run._train_epoch

    def dying(self, stage):
        if stage.name == stop and self.epoch == 1:
            raise Killed
        return original(self, stage)

    monkeypatch.setattr(Run, "_train_epoch", dying)
    with pytest.raises(Killed):
        DCSS(3, **TINY).fit(X, checkpoint=path)
    monkeypatch.setattr(Run, "_train_epoch", original)
    resumed = DCSS(3, **TINY).fit(X, checkpoint=path)
    np.testing.assert_array_equal(resumed.labels_, whole.labels_)
    np.testing.assert_array_equal(resumed.embedding_, whole.embedding_)
    losses = [[entry["loss"] for entry in model.history_] for model in (resumed, whole)]
    assert losses[0] == losses[1]
    with pytest.raises(CheckpointError, match="other data or parameters"):
        DCSS(3, **TINY | {"alpha": 0.5}).fit(X, checkpoint=path)


def test_a_pretrained_autoencoder_is_shared(tmp_path):
    X, _ = blobs()
    alone = DCSS(3, **TINY).fit(X)
    first = DCSS(3, **TINY).fit(X, shared=tmp_path)
    again = DCSS(3, **TINY | {"alpha": 1.0}).fit(X, shared=tmp_path)
    np.testing.assert_array_equal(alone.labels_, first.labels_)
    assert again.history_[:2] == first.history_[:2]
    DCSS(3, **TINY | {"pretrain_epochs": 3}).fit(X, shared=tmp_path)
    assert len(list(tmp_path.iterdir())) == 2
    next(tmp_path.iterdir()).write_bytes(b"damaged")
    next(reversed(list(tmp_path.iterdir()))).write_bytes(b"damaged")
    with pytest.raises(CheckpointError):
        DCSS(3, **TINY).fit(X, shared=tmp_path)


def test_images_of_digits_go_through_convolutions(tmp_path):
    images = load("digits", subset=120, size=16)
    stages = []
    options = TINY | {"phase1_epochs": 1, "phase2_epochs": 1}
    model = DCSS(10, **options).fit(images, monitor=stages.append)
    assert model.labels_.dtype == np.int32 and model.labels_.shape == (120,)
    assert [stage.period for stage in stages] == [0, 1, 2]
    assert [stage.stage for stage in stages] == [PRETRAIN, PHASE_1, PHASE_2]
    assert stages[1].q is None and stages[2].q.shape == (120, 10)
    np.testing.assert_array_equal(stages[2].q.argmax(1), model.labels_)
    assert list(model.results_) == ["ae", "u", "q"]
    for stage, labels in zip(stages, model.results_.values(), strict=True):
        np.testing.assert_array_equal(labels, stage.labels)
    np.testing.assert_array_equal(model.predict(images), model.labels_)
    assert model.embedding_.shape == (120, 3) and model.centers_.shape == (10, 3)
    np.testing.assert_allclose(model.transform(images), model.embedding_, atol=1e-5)
    model.save(tmp_path / "model.safetensors")
    back = DCSS.load(tmp_path / "model.safetensors")
    np.testing.assert_allclose(back.transform(images), model.embedding_, atol=1e-5)
    np.testing.assert_array_equal(back.labels_, model.labels_)
    with pytest.raises(ValueError, match="fitted on inputs of shape"):
        back.transform(load("digits", subset=20, size=20))


def test_one_cluster_small_batches_and_phase_1_alone():
    X, y = blobs()
    assert set(DCSS(1, **TINY).fit(X).labels_) == {0}
    small = TINY | {"batch_size": 2, "phase1_epochs": 1, "phase2_epochs": 1}
    assert DCSS(3, **small).fit(X).labels_.shape == (90,)
    alone = DCSS(3, **TINY | {"phase2_epochs": 0}).fit(X)
    nearest = ((alone.embedding_[:, None] - alone.centers_) ** 2).sum(2).argmin(1)
    np.testing.assert_array_equal(alone.labels_, nearest)
    assert "mnet" not in alone.modules_


def test_duplicates_on_a_center_give_no_nan():
    X = np.repeat(np.eye(3, 6, dtype=np.float32), 10, axis=0)
    model = DCSS(3, **TINY).fit(X)
    assert np.isfinite(model.embedding_).all() and np.isfinite(model.centers_).all()
    assert all(len(set(part)) == 1 for part in model.labels_.reshape(3, 10))


@pytest.mark.parametrize(
    "options, message",
    [
        (dict(n_clusters=91), "n_clusters=91"),
        (dict(passes="jointly"), "unknown passes 'jointly'"),
        (dict(center_interval=0), "center_interval must be at least 1"),
        (dict(precision="float16"), "unknown precision"),
        (dict(batch_size=1), "batch_size must be at least 2"),
        (dict(m=1.0), "m must be above 1, got 1.0"),
        (dict(learning_rate=0), "learning_rate must be above 0"),
        (dict(zeta=0.2, gamma=0.8), "zeta"),
    ],
)
def test_wrong_parameters_are_refused(options, message):
    X, _ = blobs()
    with pytest.raises(ValueError, match=message):
        DCSS(**{"n_clusters": 3, **TINY, **options}).fit(X)


@pytest.mark.parametrize(
    "options, message",
    [
        (dict(n_clusters=3.0), "n_clusters must be a whole number; got 3.0"),
        (dict(n_clusters=True), "n_clusters must be a whole number; got True"),
        (dict(alpha=float("nan")), "alpha must be a finite number; got nan"),
        (dict(alpha=False), "alpha must be a finite number; got False"),
        (dict(verbose=1), "verbose must be True or False; got 1"),
        (dict(device=None), "device must be text; got None"),
        (dict(random_state="0"), "random_state must be a whole number or RandomState or NoneType"),
    ],
)
def test_parameters_of_a_wrong_type_are_refused(options, message):
    with pytest.raises(TypeError, match=message):
        DCSS(**options).check_parameters()
    DCSS(np.int64(3), alpha=np.float32(1), verbose=np.True_).check_parameters()
