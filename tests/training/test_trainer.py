"""The one loop: nothing in a step waits for the device, and a fit killed anywhere ends with the same bits."""

import shutil

import numpy as np
import pytest
import torch
from torch.optim import optimizer as optimizers
from torch.utils._python_dispatch import TorchDispatchMode

from reprolib import load
from reprolib.methods import (
    DCN,
    DCSS,
    DEC,
    DKM,
    IDEC,
    JULE,
    AEKMeans,
    InterClassSeparation,
    PreciseFeature,
    ProFeat,
    VaDE,
)
from reprolib.networks import autoencoders
from reprolib.training.checkpoint import CheckpointError, load_checkpoint
from reprolib.training.trainer import Run, Stage

AE = dict(
    n_clusters=3,
    latent_dim=3,
    pretrain_epochs=2,
    phase1_epochs=3,
    phase2_epochs=2,
    u_epochs=1,
    batch_size=20,
    learning_rate=1e-3,
    mnet_width=8,
    device="cpu",
)
CNN = dict(n_clusters=3, n_neighbors=5, n_epochs=2, batch_size=25, unrolling_rate=0.4)
CNN |= dict(channels=3, embedding_dim=6, device="cpu")
GAN = dict(n_clusters=3, network="dense", width=2, n_noise=2, batch_size=20, n_iterations=7, log_every=3, device="cpu")
TURNS = dict(
    n_clusters=3, network="narrow", width=2, views="digits", strong_views="simclr", pretext_steps=4, device="cpu"
)
TURNS |= dict(pretext_batch=20, scan_steps=4, scan_batch=20, label_steps=4, label_batch=20, t_f=0.3, t_s=0.0)
TURNS |= dict(rounds=2, round_steps=4, n_neighbors=5, guard=True)
FITS = {
    "DCSS": (DCSS, AE),
    "DCSS joint": (DCSS, AE | DCSS.VARIANTS["joint"] | {"center_interval": 1}),
    "DCSS released": (DCSS, AE | DCSS.VARIANTS["released"]),
    "AEKMeans": (AEKMeans, AE),
    "DEC": (DEC, AE),
    "IDEC": (IDEC, AE),
    "DCN": (DCN, AE),
    "DKM": (DKM, AE),
    "VaDE": (VaDE, AE | {"precision": "bfloat16"}),
    "separation": (
        InterClassSeparation,
        AE | {"n_augmentations": 2, "warmup_epochs": 2, "radius_interval": 2, "target_interval": 2},
    ),
    "separation printed": (
        InterClassSeparation,
        AE | InterClassSeparation.VARIANTS["printed"] | {"n_augmentations": 2, "radius_interval": 2},
    ),
    "JULE": (JULE, CNN),
    "JULE printed": (JULE, CNN | JULE.VARIANTS["printed"]),
    "JULE released": (JULE, CNN | JULE.VARIANTS["released"]),
    "precise": (PreciseFeature, GAN | {"ramp": 4, "decay": True, "averaging": 0.9, "growth_interval": 2}),
    "profeat": (ProFeat, TURNS | {"ensemble": 2, "t_c": 1}),
    "precise released": (PreciseFeature, GAN | PreciseFeature.VARIANTS["released"]),
}
EVERY = pytest.mark.parametrize("name", FITS)


@pytest.fixture(autouse=True)
def small_networks(monkeypatch):
    monkeypatch.setattr(autoencoders, "HIDDEN", (16, 16, 24))


def made(name):
    """A model, and what it is fitted to."""
    method, parameters = FITS[name]
    rng = np.random.default_rng(0)
    rows = (np.eye(3, 8)[np.arange(46) % 3] * 3 + 0.3 * rng.normal(size=(46, 8))).astype(np.float32)
    return method(**parameters), load("digits", subset=60) if method in (JULE, InterClassSeparation, ProFeat) else rows


class Waits(TorchDispatchMode):
    """Count the reads of a tensor's value on the host, those of an optimizer's own step count left out."""

    found = 0
    counting = True

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if self.counting and func is torch.ops.aten._local_scalar_dense.default:
            self.found += 1
        return func(*args, **(kwargs or {}))


@pytest.fixture
def waits():
    mode = Waits()

    def count(on):
        return lambda *_: setattr(mode, "counting", on)

    hooks = [  # the count of Adam's steps lies on the host
        optimizers.register_optimizer_step_pre_hook(count(False)),
        optimizers.register_optimizer_step_post_hook(count(True)),
    ]
    yield mode
    for hook in hooks:
        hook.remove()


@EVERY
def test_no_step_waits_for_the_device(name, waits):
    model, X = made(name)
    run = Run(model, model.inputs(X))
    n_steps = 0
    for stage in model.stages(run, X):
        stage.build()
        stage.begin()
        if stage.epochs:
            stage.begin_epoch()
            for batch in stage.batches():
                with waits:
                    stage.schedule()
                    stage.step(batch)
                n_steps += 1
        stage.end()
    assert n_steps > 2 and waits.found == 0
    with waits:
        float(torch.ones(2).sum())
    assert waits.found == 1, "the count counts"


def state(model):
    """Every learned array, and the rows of the history without their seconds."""
    found = {
        f"{name}.{key}": value.numpy()
        for name, module in model.modules_.items()
        for key, value in module.state_dict().items()
    }
    found |= {"embedding": model.embedding_} | model.results_
    rows = [{k: v for k, v in row.items() if k != "seconds"} for row in model.history_]
    return found, rows


def assert_same_bits(one, other):
    (mine, my_rows), (found, rows) = state(one), state(other)
    assert my_rows == rows and mine.keys() == found.keys()
    for key, value in mine.items():
        np.testing.assert_array_equal(found[key], value, err_msg=key)


@EVERY
def test_a_fit_killed_after_any_save_ends_with_the_same_bits(name, tmp_path, monkeypatch):
    whole, X = made(name)
    saves, save = [], Run._save

    def copying(self):
        save(self)
        saves.append(shutil.copy(self.checkpoint, tmp_path / f"{len(saves)}.ckpt"))

    monkeypatch.setattr(Run, "_save", copying)
    whole.fit(X, checkpoint=tmp_path / "run.ckpt")
    monkeypatch.setattr(Run, "_save", save)
    assert len(saves) > 3
    assert_same_bits(made(name)[0].fit(X), whole)
    for path in saves:
        assert_same_bits(made(name)[0].fit(X, checkpoint=path), whole)


@EVERY
def test_a_saved_model_comes_back_whole(name, tmp_path):
    model, X = made(name)
    model.fit(X).save(tmp_path / "model.safetensors")
    back = type(model).load(tmp_path / "model.safetensors")
    assert_same_bits(back, model)
    assert back.get_params() == model.get_params()
    learned = {key for key in vars(model) if key.endswith("_")}
    assert learned == {key for key in vars(back) if key.endswith("_")}
    np.testing.assert_array_equal(back.predict(X), model.predict(X))
    np.testing.assert_array_equal(back.transform(X), model.transform(X))
    other = DKM if type(model) is not DKM else DEC
    with pytest.raises(CheckpointError, match=f"no {other.__name__} but {type(model).__name__}"):
        other.load(tmp_path / "model.safetensors")


def test_what_an_optimizer_keeps_comes_back_in_the_layout_of_its_weight(tmp_path):
    model = DCSS(**AE | {"phase1_epochs": 0, "phase2_epochs": 0})
    X = load("digits", size=16, subset=60)
    whole = Run(model, model.inputs(X), checkpoint=tmp_path / "run.ckpt")
    stage = model.stages(whole, X)[0]
    stage.build()
    whole._train_epoch(stage)
    again = Run(model, model.inputs(X), checkpoint=tmp_path / "run.ckpt")
    again._restore(model.stages(again, X))
    for weight, held in again.optimizers["pretrain"].state.items():
        assert held["exp_avg"].stride() == weight.stride()
    assert any(not weight.is_contiguous() for weight in again.modules.parameters())


def test_the_record_knows_all_devices_of_a_fit(tmp_path):
    model, X = made("DEC")
    run = Run(model, model.inputs(X), checkpoint=tmp_path / "run.ckpt")
    run.numbers["devices"] = ["cuda"]
    stage = model.stages(run, X)[0]
    stage.build()
    run._train_epoch(stage)
    assert model.fit(X, checkpoint=tmp_path / "run.ckpt").devices_ == ["cuda", "cpu"]


def test_a_stage_trains_with_its_own_optimizers_alone():
    model, X = made("DCSS")
    run = Run(model, model.inputs(X))
    run.train(model.stages(run, X))
    assert list(run.optimizers) == ["phase 2"]


def test_the_checkpoint_holds_what_a_schedule_counts(tmp_path):
    model, X = made("JULE released")  # its decay does not begin anew with a period
    model.fit(X, checkpoint=tmp_path / "run.ckpt")
    _, stored = load_checkpoint(tmp_path / "run.ckpt")
    assert stored["numbers"]["step"] == sum(row["n_batches"] for row in model.history_) > 0


def test_what_is_shared_is_told_apart_by_data_seed_and_settings(tmp_path):
    model, X = made("DEC")
    changes = [{}, {"random_state": 1}, {"latent_dim": 4}, {"pretrain_rate": 0.1}, {"batch_size": 15}]
    for number, change in enumerate(changes, 1):
        DEC(**AE | change).fit(X, shared=tmp_path)
        assert len(list(tmp_path.iterdir())) == number
    DEC(**AE).fit(X + 1, shared=tmp_path)
    assert len(list(tmp_path.iterdir())) == len(changes) + 1
    before = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    again = DKM(**AE | {"n_clusters": 2}).fit(X, shared=tmp_path)
    assert before == {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    assert again.history_[:2] == DEC(**AE).fit(X, shared=tmp_path).history_[:2]


class Made(Stage):
    """Steps that return given losses."""

    name, report_every = "made", 0

    def __init__(self, run, losses):
        super().__init__(run, 1)
        self.losses = losses

    def batches(self):
        return iter(self.losses)

    def step(self, loss):
        return {"loss": torch.tensor(loss, dtype=torch.float32), "count": 2}


def test_losses_are_summed_in_float64():
    model, X = made("DEC")
    run = Run(model, model.inputs(X))
    run.train([Made(run, [1e8, 1.0, 1.0, -1e8])])  # float32 would lose the ones
    assert run.history[0]["loss"] == 0.5 and run.history[0]["count"] == 2


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_loss_that_is_no_number_stops_the_fit(bad):
    model, X = made("DEC")
    run = Run(model, model.inputs(X))
    with pytest.raises(FloatingPointError, match="stage 'made', epoch 0: lower the learning rate"):
        run.train([Made(run, [1.0, bad])])
