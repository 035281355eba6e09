"""Training on a CUDA device: recorded steps equal eager ones, the CPU's and float64; same seed, same labels."""

import copy

import numpy as np
import pytest
import torch
from test_trainer import EVERY, assert_same_bits, made, state

from reprolib import load
from reprolib.kernels.knn import knn
from reprolib.kernels.pairwise import pairwise_loss
from reprolib.methods import DCSS, DEC, JULE, AEKMeans
from reprolib.networks import autoencoders
from reprolib.training import trainer
from reprolib.training.trainer import Run, Steps

pytestmark = [pytest.mark.cuda, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]


@pytest.fixture(autouse=True)
def small_and_exact(monkeypatch):
    monkeypatch.setattr(autoencoders, "HIDDEN", (16, 16, 24))
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)


def on_cuda(name):
    model, X = made(name)
    longer = {"pretrain_epochs": 5} if "pretrain_epochs" in model.get_params() else {}
    return model.set_params(device="cuda", **longer), X


def assert_close(one, other, tolerance):
    """Losses of all epochs; labels of a tiny fit hang on rounding."""
    losses = [np.array([row["loss"] for row in model.history_]) for model in (one, other)]
    np.testing.assert_allclose(*losses, rtol=tolerance, atol=tolerance)


@EVERY
def test_recorded_steps_equal_eager_ones(name, monkeypatch):
    model, X = on_cuda(name)
    recorded = copy.deepcopy(model).fit(X)
    monkeypatch.setattr(Run, "steps_of", lambda run, stage: Steps(stage, None))
    eager = copy.deepcopy(model).fit(X)
    assert_close(recorded, eager, 1e-2 if model.precision == "bfloat16" else 1e-4)


@EVERY
def test_steps_are_recorded(name, monkeypatch):
    replays = []
    replay = torch.cuda.CUDAGraph.replay
    monkeypatch.setattr(torch.cuda.CUDAGraph, "replay", lambda graph: (replays.append(1), replay(graph))[1])
    model, X = on_cuda(name)
    model.fit(X)
    assert replays


@EVERY
def test_no_step_waits_for_the_device(name):
    model, X = on_cuda(name)
    run = Run(model, model.inputs(X))
    for stage in model.stages(run, X):
        stage.build()
        stage.begin()
        if stage.epochs:
            stage.begin_epoch()
            for batch in stage.batches():
                stage.schedule()
                stage.step(batch)  # lazy states
                torch.cuda.set_sync_debug_mode("error")
                try:
                    stage.schedule()
                    stage.step(batch)
                finally:
                    torch.cuda.set_sync_debug_mode("default")
        stage.end()


@EVERY
def test_same_seed_same_bits_twice(name):
    model, X = on_cuda(name)
    assert_same_bits_on_cuda(copy.deepcopy(model).fit(X), copy.deepcopy(model).fit(X))


@pytest.mark.parametrize("name", ["DCSS", "VaDE", "JULE", "precise", "profeat", "images"])
@pytest.mark.parametrize("after", [1, 3])
def test_a_killed_fit_goes_on_to_the_same_bits(name, after, tmp_path, monkeypatch):
    monkeypatch.setattr(trainer, "SAVE_SECONDS", 0.0)
    model, X = on_cuda("DCSS" if name == "images" else name)
    if name == "images":  # convolutions, channels last
        X = load("digits", size=16, subset=60)
    whole, epochs, train = copy.deepcopy(model).fit(X), [], Run._train_epoch

    class Killed(Exception):
        pass

    def killed(run, *parts):
        if len(epochs) == after:
            raise Killed
        epochs.append(1)
        return train(run, *parts)

    monkeypatch.setattr(Run, "_train_epoch", killed)
    with pytest.raises(Killed):
        copy.deepcopy(model).fit(X, checkpoint=tmp_path / "c")
    monkeypatch.setattr(Run, "_train_epoch", train)
    assert_same_bits_on_cuda(whole, copy.deepcopy(model).fit(X, checkpoint=tmp_path / "c"))


def assert_same_bits_on_cuda(one, other):
    for model in (one, other):
        model.modules_.cpu()
    assert_same_bits(one, other)


@pytest.mark.parametrize("method", [AEKMeans, DEC, DCSS])
@pytest.mark.parametrize("side", [16, 28])
def test_first_epochs_equal_the_cpu(method, side):
    """Convolutions, in batches, at full width: what two devices may differ by is rounding."""
    digits = load("digits", size=side, subset=300)
    options = dict(n_clusters=4, pretrain_epochs=2, phase1_epochs=0, phase2_epochs=0, batch_size=100)
    losses = [
        [row["loss"] for row in method(device=device, **options).fit(digits).history_] for device in ("cpu", "cuda")
    ]
    np.testing.assert_allclose(losses[1], losses[0], rtol=2e-3)


@EVERY
def test_a_step_of_every_stage_equals_float64(name):
    """Loss and gradients from one state: on CUDA in float32, on the CPU with the network in float64."""
    model, X = made(name)
    if name == "JULE":
        model.set_params(**JULE.VARIANTS["nearest"])
    if "released" in name or name in ("precise", "profeat") or model.precision == "bfloat16":
        pytest.skip("draws its own noise on each device")
    run = Run(model, model.inputs(X))
    other = Run(copy.deepcopy(model).set_params(device="cuda"), model.inputs(X))
    for stage, mirror in zip(model.stages(run, X), other.model.stages(other, X), strict=True):
        for each in (stage, mirror):
            each.build()
            each.schedule()
        stage.begin()
        if not stage.epochs:
            continue
        stage.begin_epoch()
        run.modules.train()
        other.modules.load_state_dict(run.modules.state_dict())
        other.tensors = {key: value.to(other.device) for key, value in run.tensors.items()}
        other.numbers = dict(run.numbers)
        if hasattr(stage, "target"):
            mirror.target = stage.target.to(other.device)
        other.modules.train()
        network = run.modules["network"].double()
        hook = getattr(network, "encoder", network).register_forward_pre_hook(lambda _, given: given[0].double())
        batch = next(iter(stage.batches()))
        told = [float(each.step(on)["loss"]) for each, on in ((stage, batch), (mirror, batch.to(other.device)))]
        assert told[1] == pytest.approx(told[0], rel=1e-4, abs=1e-5), stage.name
        pairs = zip(other.modules.parameters(), run.modules.parameters(), strict=True)
        grads = [(p.grad.double().cpu(), q.grad.double()) for p, q in pairs if q.grad is not None]
        # a bias before a normalisation has gradient 0: its rounding is that of the others
        largest = max(float(literal.norm()) for _, literal in grads)
        for mine, literal in grads:
            assert float((mine - literal).norm()) <= 2e-3 * float(literal.norm()) + 1e-4 * largest, stage.name
        hook.remove()
        network.float()
        stage.end()


def test_no_matrix_of_all_pairs_in_memory():
    n, before = 60_000, torch.cuda.memory_allocated()
    x = torch.randn(n, 32, device="cuda")
    torch.cuda.reset_peak_memory_stats()
    knn(x, 20)
    assert torch.cuda.max_memory_allocated() - before < n * n // 4
    q = torch.softmax(torch.randn(n, 10, device="cuda"), 1).requires_grad_()
    torch.cuda.reset_peak_memory_stats()
    pairwise_loss(q)[0].backward()
    assert torch.cuda.max_memory_allocated() - before < n * n // 4


def test_state_is_whole(tmp_path):
    """What a GPU saves, a CPU loads: labels of new data agree where they are not at a tie."""
    model, X = on_cuda("DEC")
    model.fit(X)
    model.save(tmp_path / "model")
    loaded = DEC.load(tmp_path / "model")
    loaded.modules_.cpu()
    assert np.isfinite(state(loaded)[0]["embedding"]).all()
    np.testing.assert_allclose(loaded.transform(X), model.transform(X), rtol=1e-3, atol=1e-4)
