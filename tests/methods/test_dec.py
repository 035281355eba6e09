"""AE+k-means, DEC, IDEC, DCN and DKM: losses and centers by their papers' formulas, MNet on top."""

import numpy as np
import pytest
import torch
from sklearn.metrics import adjusted_rand_score

from reprolib.methods.autoencoder import PHASE_1, latent_vectors
from reprolib.methods.dec import DCN, DEC, DKM, IDEC, AEKMeans
from reprolib.training.checkpoint import CheckpointError
from reprolib.training.trainer import Run

TINY = dict(
    latent_dim=3, pretrain_epochs=2, phase1_epochs=2, learning_rate=1e-3, batch_size=40, mnet_width=8, device="cpu"
)
METHODS = [AEKMeans, DEC, IDEC, DCN, DKM]


def blobs(n=90, d=12, k=3, seed=0):
    rng = np.random.default_rng(seed)
    y = np.arange(n) % k
    return (np.eye(k, d)[y] * 3 + 0.3 * rng.normal(size=(n, d))).astype(np.float32), y


def started(model, X, number=1):
    """The stage of that number at its beginning, those before it trained; its run is `stage.run`."""
    run = Run(model, model.inputs(X))
    stages = model.stages(run, X)
    run.train(stages[:number])
    stage = stages[number]
    stage.build()
    stage.begin()
    stage.begin_epoch()
    for module in run.modules.values():
        module.train()
    return stage


def literal_student(u, centers):
    q = np.array([[1 / (1 + ((a - c) ** 2).sum()) for c in centers] for a in u])
    return q / q.sum(1, keepdims=True)


def seen(stage, batch):
    """Latent vectors, reconstructions and centers of a batch, float64, in the mode of the run."""
    with torch.no_grad():
        u, decoded = stage.run.modules["network"](stage.run.inputs[batch])
    return [a.double().numpy() for a in (u, decoded, stage.centers.detach())]


def test_dec_and_idec_minimise_the_divergence_from_the_target():
    X, _ = blobs()
    batch = torch.arange(40)
    for method, weight in ((DEC, 1.0), (IDEC, 0.1)):
        stage = started(method(3, **TINY), X)
        everything = latent_vectors(stage.run).double().numpy()
        centers = stage.centers.detach().double().numpy()
        q = literal_student(everything, centers)
        target = q**2 / q.sum(0)
        target /= target.sum(1, keepdims=True)
        np.testing.assert_allclose(stage.target.numpy(), target, rtol=1e-4)
        u, decoded, centers = seen(stage, batch)
        q = literal_student(u, centers)
        divergence = (target[:40] * np.log(target[:40] / q)).sum(1).mean()
        losses = stage.losses(stage.run.inputs[batch], batch)
        assert losses["clustering"].item() == pytest.approx(weight * divergence, rel=1e-3)
        if method is IDEC:
            error = ((decoded - X[:40]) ** 2).mean()
            assert losses["reconstruction"].item() == pytest.approx(error, rel=1e-4)
        assert ("reconstruction" in losses) == (method is IDEC)


def test_dkm_softens_the_nearest_center():
    X, _ = blobs()
    stage = started(DKM(3, **TINY), X)
    batch = torch.arange(40)
    u, decoded, centers = seen(stage, batch)
    squared = ((u[:, None] - centers) ** 2).sum(2)
    nearness = np.exp(-1000 * (squared - squared.min(1, keepdims=True)))
    nearness /= nearness.sum(1, keepdims=True)
    losses = stage.losses(stage.run.inputs[batch], batch)
    expected = (nearness * squared).sum(1).mean()
    assert losses["clustering"].item() == pytest.approx(expected, rel=1e-3)
    # the weight of 1 is against a sum over pixels
    error = ((decoded - X[:40]) ** 2).sum(1).mean()
    assert losses["reconstruction"].item() == pytest.approx(error, rel=1e-4)


def test_dcn_moves_a_center_as_one_sample_after_the_other_would():
    X, _ = blobs()
    stage = started(DCN(3, **TINY), X)
    batch = torch.arange(40)
    counts = stage.run.tensors["counts"].double().numpy().copy()
    assert counts.sum() == 90
    u, decoded, centers = seen(stage, batch)
    own = centers[stage.run.tensors["assigned"][:40].numpy()]
    losses = stage.losses(stage.run.inputs[batch], batch)
    expected = 0.05 / 2 * ((u - own) ** 2).sum(1).mean()
    assert losses["clustering"].item() == pytest.approx(expected, rel=1e-4)
    error = ((decoded - X[:40]) ** 2).sum(1).mean()
    assert losses["reconstruction"].item() == pytest.approx(error, rel=1e-4)
    stage.after_step(batch)
    labels = ((u[:, None] - centers) ** 2).sum(2).argmin(1)
    for point, label in zip(u, labels, strict=True):
        counts[label] += 1
        centers[label] += (point - centers[label]) / counts[label]
    np.testing.assert_allclose(stage.centers.detach().numpy(), centers, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(stage.run.tensors["assigned"][:40].numpy(), labels)
    np.testing.assert_array_equal(stage.run.tensors["counts"].numpy(), counts)


def test_which_centers_a_step_moves():
    X, _ = blobs()
    for method, by_gradient in ((DEC, True), (IDEC, True), (DKM, True), (DCN, False)):
        stage = started(method(3, **TINY), X)
        parameters = [p for g in stage.run.optimizers[PHASE_1].param_groups for p in g["params"]]
        assert any(p is stage.centers for p in parameters) == by_gradient


@pytest.mark.parametrize("method", METHODS)
def test_fit_with_and_without_mnet(method, tmp_path):
    X, y = blobs()
    plain = method(3, **TINY).fit(X)
    assert plain.labels_.dtype == np.int32 and adjusted_rand_score(y, plain.labels_) > 0.5
    nearest = ((plain.embedding_[:, None] - plain.centers_) ** 2).sum(2).argmin(1)
    np.testing.assert_array_equal(plain.labels_, nearest)
    np.testing.assert_array_equal(plain.labels_, method(3, **TINY).fit(X).labels_)
    refined = method(3, **TINY, phase2_epochs=2, u_epochs=1).fit(X)
    assert "mnet" in refined.modules_ and refined.labels_.shape == (90,)
    assert [e["stage"] for e in refined.history_[-2:]] == ["phase 2"] * 2
    refined.save(tmp_path / "model.safetensors")
    back = method.load(tmp_path / "model.safetensors")
    np.testing.assert_allclose(back.transform(X), refined.embedding_, atol=1e-5)


@pytest.mark.parametrize("method", [DEC, DCN])
def test_a_killed_fit_goes_on_and_ends_the_same(method, tmp_path, monkeypatch):
    X, _ = blobs()
    whole = method(3, **TINY).fit(X)

    class Killed(Exception):
        pass

    original = Run._train_epoch

    def dying(self, stage):
        if stage.name == PHASE_1 and self.epoch == 1:
            raise Killed
        return original(self, stage)

    monkeypatch.setattr(Run, "_train_epoch", dying)
    with pytest.raises(Killed):
        method(3, **TINY).fit(X, checkpoint=tmp_path / "run.ckpt")
    monkeypatch.setattr(Run, "_train_epoch", original)
    resumed = method(3, **TINY).fit(X, checkpoint=tmp_path / "run.ckpt")
    np.testing.assert_array_equal(resumed.embedding_, whole.embedding_)
    np.testing.assert_array_equal(resumed.centers_, whole.centers_)
    other = DKM(3, **TINY)
    with pytest.raises(CheckpointError):
        other.fit(X, checkpoint=tmp_path / "run.ckpt")


def test_methods_share_one_pretrained_autoencoder(tmp_path):
    X, _ = blobs()
    alone = DKM(3, **TINY).fit(X)
    AEKMeans(3, **TINY).fit(X, shared=tmp_path)
    (path,) = tmp_path.iterdir()
    written = path.read_bytes()
    shared = DKM(3, **TINY).fit(X, shared=tmp_path)
    assert path.read_bytes() == written and shared.history_[0]["seconds"] > 0
    np.testing.assert_array_equal(alone.embedding_, shared.embedding_)


@pytest.mark.parametrize("method", METHODS)
def test_one_cluster_and_an_empty_one(method):
    X = np.repeat(np.eye(2, 6, dtype=np.float32), 12, axis=0)
    assert set(method(1, **TINY).fit(X).labels_) == {0}
    with pytest.warns(match="distinct clusters"):  # three clusters of two distinct samples
        model = method(3, **TINY).fit(X)
    assert np.isfinite(model.centers_).all() and np.isfinite(model.embedding_).all()
