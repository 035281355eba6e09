"""Paper 001: terms and Algorithm 1 against literal float64 references, invariants, degenerate input, signs."""

import copy
import inspect
import itertools
import math
import re
import warnings

import numpy as np
import pytest
import torch
from sklearn.datasets import make_blobs

from reprolib.data.load import load
from reprolib.methods import DEC, InterClassSeparation
from reprolib.methods.autoencoder import Pretrain
from reprolib.methods.separation import (
    choose_negatives,
    entropy_constraint,
    separation,
    signs_of_failure,
    spread_radius,
)
from reprolib.training.trainer import Run

SHORT = dict(latent_dim=3, pretrain_epochs=1, phase1_epochs=2, batch_size=20, n_augmentations=3, device="cpu")
PRINTED = SHORT | InterClassSeparation.VARIANTS["printed"]
TINY = SHORT | {"warmup_epochs": 1}


def vectors(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.fixture(scope="module")
def digits():
    return load("digits", subset=60)


# The terms


@pytest.mark.parametrize("squared", [True, False])
@pytest.mark.parametrize("margin", [0.0, 0.24, 2.0])
def test_separation_and_its_gradient_equal_the_literal_sum(squared, margin):
    u = [vectors(7, 4, seed=s).requires_grad_() for s in range(3)]
    terms = []
    for a, p, n in zip(*u, strict=True):
        near = sum((x - y) ** 2 for x, y in zip(a, p, strict=True))
        far = sum((x - y) ** 2 for x, y in zip(a, n, strict=True))
        near, far = (near, far) if squared else (near.sqrt(), far.sqrt())
        value = near - far + margin
        terms.append(value if value > 0 else 0 * value)
    expected = torch.stack(terms)
    found = separation(*u, margin, squared=squared)
    torch.testing.assert_close(found, expected)
    assert 0 < (found > 0).sum() < 7 or margin == 2.0 and not squared
    pairs = zip(torch.autograd.grad(found.sum(), u), torch.autograd.grad(expected.sum(), u), strict=True)
    for mine, literal in pairs:
        torch.testing.assert_close(mine, literal)


@pytest.mark.parametrize("squared", [True, False])
def test_collapse_is_a_stationary_point_and_a_gap_costs_nothing(squared):
    u = vectors(1, 4).expand(5, 4).clone().requires_grad_()
    hinges = separation(u, u.detach(), u.detach(), 0.24, squared=squared)
    assert torch.equal(hinges, torch.full((5,), 0.24, dtype=torch.float64))
    (gradient,) = torch.autograd.grad(hinges.sum(), u)
    assert torch.equal(gradient, torch.zeros_like(gradient))  # and not nan, of a root at 0
    away = u.detach() + torch.tensor([0.0, 0.0, 0.5, 0.0])
    assert separation(u.detach(), u.detach(), away, 0.24 if squared else 0.5, squared=squared).amax() < 1e-12


def test_entropy_constraint_and_its_gradient_equal_the_literal_sum():
    logits = vectors(6, 4).requires_grad_()
    q = logits.softmax(1)
    rows = sum(-x * x.log() for row in q for x in row) / 6
    means = [sum(q[i, k] for i in range(6)) / 6 for k in range(4)]
    expected = rows - sum(-m * m.log() for m in means)
    found = entropy_constraint(q)
    torch.testing.assert_close(found, expected)
    (mine,), (literal,) = (torch.autograd.grad(v, logits, retain_graph=True) for v in (found, expected))
    torch.testing.assert_close(mine, literal)


def test_bounds_of_the_entropy_constraint():
    hot = torch.eye(5, dtype=torch.float64).repeat(3, 1)
    assert entropy_constraint(hot).item() == pytest.approx(-math.log(5))
    alike = vectors(1, 5).softmax(1).expand(8, 5)
    assert entropy_constraint(alike).item() == pytest.approx(0, abs=1e-12)
    assert entropy_constraint(torch.ones(4, 1)).item() == 0.0
    for seed in range(20):
        value = entropy_constraint((4 * vectors(9, 5, seed=seed)).softmax(1)).item()
        assert -math.log(5) <= value <= 1e-12


# Algorithm 1


def literal_negatives(latent, positive, radius, keys, rule):
    chosen = []
    for i, (a, p) in enumerate(zip(latent, positive, strict=True)):
        others = [j for j in range(len(latent)) if j != i]
        near = {j: math.dist(a, latent[j]) for j in others}
        allowed = [j for j in others if near[j] > radius[i] and math.dist(p, latent[j]) > radius[i]]
        allowed = others if rule == "any" else allowed
        if not allowed:
            chosen.append(max(others, key=near.get))
        elif rule == "nearest":
            chosen.append(min(allowed, key=near.get))
        else:
            chosen.append(max(allowed, key=lambda j: keys[i][j]))
    return chosen


@pytest.mark.parametrize("rule", ["outside", "nearest", "any"])
@pytest.mark.parametrize("size", [0.0, 1.5, 2.5, 50.0])
def test_negatives_equal_the_slow_search(rule, size):
    latent = vectors(40, 3)
    positive = latent + vectors(40, 3, seed=1)
    radius = size * torch.rand(40, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    keys = torch.rand(40, 40, generator=torch.Generator().manual_seed(3))
    chosen, outside = choose_negatives(latent, positive, radius, keys, rule)
    assert chosen.tolist() == literal_negatives(latent, positive, radius, keys, rule)
    assert (chosen != torch.arange(40)).all()
    # wherever one is outside, so is the chosen one
    for i, j in enumerate(chosen) if rule != "any" else ():
        far = min((latent[i] - latent[j]).norm(), (positive[i] - latent[j]).norm()) > radius[i]
        assert far == outside[i].any() == outside[i, j]


def test_what_is_near_the_positive_alone_is_no_negative():
    latent = torch.tensor([[0.0], [1.0], [-1.5]])
    positive = torch.tensor([[0.9], [1.0], [-1.5]])
    chosen, _ = choose_negatives(latent, positive, torch.full((3,), 0.95), torch.eye(3).flip(1), "outside")
    assert chosen[0] == 2


def test_radius_of_a_spread():
    distances = vectors(6, 10).abs()
    for row, most, sigma in zip(
        distances, spread_radius(distances), spread_radius(distances, "two sigma"), strict=True
    ):
        values = row.tolist()
        assert most == max(values)
        assert sigma.item() == pytest.approx(np.mean(values) + 2 * np.std(values))


def test_on_blobs_negatives_are_rarely_of_the_anchors_class():
    points, y = make_blobs([60] * 5, 4, cluster_std=1.0, centers=20 * np.eye(5, 4), random_state=0)
    latent, rng = torch.from_numpy(points), np.random.default_rng(0)
    augmented = latent[:, None] + torch.from_numpy(rng.normal(size=(300, 10, 4)))
    radius = spread_radius((augmented - latent[:, None]).norm(dim=2))
    keys = torch.from_numpy(rng.random((300, 300)))
    wrong = {}
    for rule in ("outside", "any"):
        chosen, _ = choose_negatives(latent, augmented[:, 0], radius, keys, rule)
        wrong[rule] = np.mean(y == y[chosen])
    assert wrong["outside"] < 0.1 < 0.15 < wrong["any"]  # by chance .2


@pytest.mark.parametrize("rule", ["outside", "nearest", "any"])
def test_images_that_coincide_and_two_images(rule):
    latent, keys = torch.zeros(5, 2), torch.rand(5, 5)
    chosen, outside = choose_negatives(latent, latent, torch.zeros(5), keys, rule)
    assert not outside.any() and (chosen != torch.arange(5)).all() and (chosen < 5).all()
    chosen, _ = choose_negatives(latent[:2], latent[:2], torch.ones(2), keys[:2, :2], rule)
    assert chosen.tolist() == [1, 0]


# A step


def started(model, X, number):
    """The stage of that number at its beginning, those before it trained."""
    run = Run(model, model.inputs(X))
    stages = model.stages(run, X)
    run.train(stages[:number])
    stage = stages[number]
    stage.build()
    stage.begin()
    stage.begin_epoch()
    run.modules.train()
    return stage


WEIGHTS = dict(reconstruction_weight=0.7, clustering_weight=0.3, separation_weight=1.9, entropy_weight=0.4)


@pytest.mark.parametrize("changes", [{"squared": True}, {"sphere": True, "squared": False}, {"warmup_epochs": 1}])
def test_a_step_descends_the_weighted_sum(changes, digits):
    model = InterClassSeparation(3, **PRINTED | WEIGHTS | {"margin": 1.0} | changes)
    numbers = (1, 2) if "warmup_epochs" in changes else (1,)
    for number in numbers:
        stage = started(model, digits, number)
        run, batch = stage.run, torch.arange(5, 25)
        inputs, noise = run.inputs[batch], torch.Generator()
        noise.set_state(run.noise.get_state())
        network = copy.deepcopy(run.modules["network"])
        u = network.encode(torch.cat([inputs, model.augmented(inputs, noise)]))
        decoded = network.decode(u[:20])
        keys = torch.rand(20, 20, generator=noise)
        loss = 0.7 * (decoded - inputs).square().mean() / run.inputs.var()
        z = u / u.norm(dim=1, keepdim=True) if model.sphere else u
        chosen = literal_negatives(
            z[:20].tolist(), z[20:].tolist(), run.tensors["radius"][batch].tolist(), keys, "outside"
        )
        power = 2 if model.squared else 1
        hinges = [
            (z[i] - z[20 + i]).norm() ** power - (z[i] - z[j]).norm() ** power + 1.0 for i, j in enumerate(chosen)
        ]
        loss = loss + 1.9 * sum(h for h in hinges if h > 0) / 20
        if stage.name != "warm-up":
            q = 1 / (1 + (u[:20, None] - stage.centers.detach()).square().sum(2))
            q = q / q.sum(1, keepdim=True)
            p = run.tensors["target"][batch]
            loss = loss + 0.3 * (p * (p / q).log()).sum() / 20
            mean = q.mean(0)
            loss = loss + 0.4 * ((mean * mean.log()).sum() - (q * q.log()).sum() / 20)
        expected = torch.autograd.grad(loss, list(network.parameters()))
        told = stage.step(batch)
        assert told["loss"].item() == pytest.approx(loss.item(), rel=1e-4)
        assert told["active"].item() == pytest.approx(sum(h > 0 for h in hinges).item() / 20)
        assert 0 < told["active"] < 1
        for mine, literal in zip(run.modules["network"].parameters(), expected, strict=True):
            torch.testing.assert_close(mine.grad, literal, rtol=1e-3, atol=1e-4 * float(1 + literal.abs().max()))


@pytest.mark.parametrize("rule", ["maximum", "two sigma"])
def test_the_radius_is_that_of_each_images_augmentations(rule, digits, monkeypatch):
    made = itertools.cycle([0.5, 0.9, 0.8])
    monkeypatch.setattr(InterClassSeparation, "augmented", lambda self, x, generator: x * next(made))
    stage = started(InterClassSeparation(3, **PRINTED, radius=rule), digits, 1)
    network = stage.run.modules["network"].eval()
    with torch.no_grad():
        u, *others = (network.encode(stage.run.inputs * by) for by in (1.0, 0.5, 0.9, 0.8))
    spread = np.stack([(v - u).double().norm(dim=1).numpy() for v in others], 1)
    expected = spread.max(1) if rule == "maximum" else spread.mean(1) + 2 * spread.std(1)
    np.testing.assert_allclose(stage.run.tensors["radius"].numpy(), expected, rtol=1e-4)


@pytest.mark.parametrize("name", ["radius", "target"])
def test_what_is_computed_anew_every_few_epochs(name, digits, monkeypatch):
    kept, whole = [], Run._train_epoch

    def watched(self, stage):
        row = whole(self, stage)
        if name in self.tensors:
            kept.append(self.tensors[name].clone())
        return row

    monkeypatch.setattr(Run, "_train_epoch", watched)
    model = InterClassSeparation(3, **PRINTED | {"phase1_epochs": 5}, **{f"{name}_interval": 2})
    model.fit(digits)
    assert [torch.equal(a, b) for a, b in itertools.pairwise(kept)] == [True, False, True, False]


# Whole fits


@pytest.mark.parametrize("variant", InterClassSeparation.VARIANTS)
def test_fit(variant, digits):
    model = InterClassSeparation(4, **TINY | {"warmup_epochs": 2} | InterClassSeparation.VARIANTS[variant]).fit(digits)
    stages = ["pretrain"] + ["warm-up"] * model.warmup_epochs + ["phase 1"] * 2
    assert [row["stage"] for row in model.history_] == stages
    assert list(model.results_) == ["ae", "u"] and model.labels_.shape == (60,)
    nearest = ((model.embedding_[:, None] - model.centers_) ** 2).sum(2).argmin(1)
    np.testing.assert_array_equal(model.labels_, nearest)
    np.testing.assert_array_equal(model.predict(digits), model.labels_)
    for row in model.history_[1:]:
        assert 0 <= row["active"] <= 1 and 0 <= row["outside"] <= 1 and row["far"] > 0 < row["spread"]
        assert row["far"] <= 4 if model.sphere else True
    assert {"clustering", "entropy"} <= set(model.history_[-1])


@pytest.mark.parametrize("network", ["shallow", "deep", "paper 004"])
def test_networks_and_whose_pretraining_is_shared(network, tmp_path):
    small = load("digits", size=16, subset=60)
    model = InterClassSeparation(3, **TINY, network=network)
    model.fit(small, shared=tmp_path)
    run = Run(DEC(3, latent_dim=3, pretrain_epochs=1, batch_size=20, device="cpu"), model.inputs(small))
    run.shared = tmp_path
    assert run._shared_file(Pretrain(run, 1)).exists() == (network == "paper 004")
    (path,) = tmp_path.iterdir()
    written = path.stat().st_mtime_ns
    again = InterClassSeparation(3, **TINY, network=network).fit(small, shared=tmp_path)
    assert path.stat().st_mtime_ns == written
    np.testing.assert_array_equal(again.embedding_, model.embedding_)


def test_color_images_of_any_size():
    pixels = np.random.default_rng(0).integers(0, 256, (24, 3, 13, 37), dtype=np.uint8)
    for network in ("shallow", "deep"):
        model = InterClassSeparation(2, **TINY, network=network).fit(pixels)
        assert model.modules_["network"](model.prepare(pixels))[1].shape == pixels.shape


def test_a_killed_fit_goes_on_with_what_is_older_than_an_epoch(digits, tmp_path, monkeypatch):
    parameters = TINY | {"phase1_epochs": 5, "radius_interval": 3, "target_interval": 4}
    whole = InterClassSeparation(3, **parameters).fit(digits)
    original = Run._train_epoch

    def dying(self, stage):
        if stage.name == "phase 1" and self.epoch == 2:
            raise KeyboardInterrupt
        return original(self, stage)

    monkeypatch.setattr(Run, "_train_epoch", dying)
    with pytest.raises(KeyboardInterrupt):
        InterClassSeparation(3, **parameters).fit(digits, checkpoint=tmp_path / "run")
    monkeypatch.setattr(Run, "_train_epoch", original)
    resumed = InterClassSeparation(3, **parameters).fit(digits, checkpoint=tmp_path / "run")
    np.testing.assert_array_equal(resumed.embedding_, whole.embedding_)
    np.testing.assert_array_equal(resumed.centers_, whole.centers_)


def test_one_cluster(digits):
    model = InterClassSeparation(1, **TINY).fit(digits)
    assert set(model.labels_) == {0} and model.history_[-1]["entropy"] == 0.0


@pytest.mark.parametrize("n", [2, 3, 21])  # fewer than a batch, and a batch of one left over
def test_few_images(n, digits):
    model = InterClassSeparation(2, **TINY).fit(digits.pixels[:n])
    assert model.labels_.shape == (n,) and np.isfinite(model.embedding_).all()


@pytest.mark.filterwarnings("ignore:the triplets are inert")
def test_flat_images_and_images_that_coincide(digits):
    flat = np.repeat(np.arange(0, 250, 10, dtype=np.uint8), 64).reshape(25, 8, 8)
    flat[-1] = digits.pixels[0, 0]  # images of one value each are refused, all but one are not
    twice = np.repeat(digits.pixels[:2], 12, axis=0)
    for pixels, changes in ((flat, {}), (twice, {"rotation": 0.0, "scale": 0.0, "erasing": 0.0})):
        for variant in (PRINTED, TINY | {"shift": 0.0, "shear": 0.0}):
            model = InterClassSeparation(2, **variant | changes).fit(pixels)
            assert np.isfinite(model.embedding_).all() and np.isfinite(model.centers_).all()
    with pytest.raises(ValueError, match="constant"):
        InterClassSeparation(2, **TINY).fit(np.full((25, 8, 8), 7, np.uint8))


@pytest.mark.parametrize(("name", "value"), [("scale", 1.0), ("erasing", 1.2), ("flip", 1.01)])
def test_shares_have_a_bound(name, value, digits):
    with pytest.raises(ValueError, match=f"{name} must be .* 1, got {value}"):
        InterClassSeparation(3, **TINY | {name: value}).fit(digits)
    if value > 1:
        InterClassSeparation(3, **TINY | {name: 1.0, "pretrain_epochs": 0, "phase1_epochs": 0}).fit(digits)


def test_rows_of_features_are_refused():
    with pytest.raises(ValueError, match="images"):
        InterClassSeparation(3).fit(np.random.default_rng(0).random((30, 8)))


# Signs of failure


@pytest.mark.parametrize(
    ("active", "growth", "signs"),
    [
        (0.5, 1.0, []),
        (0.03, 4.9, []),
        (0.01, 1.0, ["inert"]),
        (0.81, 1.0, ["no farther"]),
        (0.5, 5.1, ["runs away"]),
        (0.0, 60.0, ["inert", "runs away"]),
    ],
)
def test_signs_of_failure(active, growth, signs):
    rows = [{"loss": 1.0}, {"active": 0.5, "far": 2.0, "spread": 3.0}]
    rows.append({"active": active, "far": 7.0, "spread": 3.0 * growth})
    found = signs_of_failure(rows, 0.24)
    assert len(found) == len(signs) and all(sign in told for sign, told in zip(signs, found, strict=True))
    assert signs_of_failure(rows[:1], 0.24) == []


def test_a_fit_warns_and_doing_what_it_says_helps(digits):
    slow = PRINTED | {"learning_rate": 1e-5, "phase1_epochs": 1, "rotation": 0.0, "scale": 0.0, "erasing": 0.0}
    with pytest.warns(UserWarning, match="inert.*sphere=True") as caught:
        InterClassSeparation(3, **slow | {"margin": 0.0}).fit(digits)
    assert caught[0].filename == __file__
    with warnings.catch_warnings(record=True) as later:
        warnings.simplefilter("always")
        InterClassSeparation(3, **slow | {"margin": 2.0, "sphere": True}).fit(digits)
        InterClassSeparation(3, **slow | {"margin": 0.0, "separation_weight": 0.0}).fit(digits)
    assert not [told for told in later if "inert" in str(told.message)]


# How well each parameter is known


def test_the_source_says_of_each_parameter_how_well_it_is_known():
    own = InterClassSeparation.__annotations__.keys() - {"VARIANTS", "STAGE"}
    line = re.compile(r"^    (\w+): .*  # (?:certain|inferred|ours): \w", re.M)
    assert own == set(line.findall(inspect.getsource(InterClassSeparation)))


def test_a_report_has_the_assignments_and_the_stage_that_it_ends(digits):
    reports = []
    model = InterClassSeparation(3, **TINY | {"phase1_epochs": 1}).fit(digits, monitor=reports.append)
    assert [(report.stage, report.period) for report in reports] == [("warm-up", 1), ("phase 1", 2)]
    distances = ((model.embedding_[:, None] - model.centers_) ** 2).sum(2)
    expected = 1 / (1 + distances)
    np.testing.assert_allclose(reports[-1].q, expected / expected.sum(1, keepdims=True), rtol=1e-3, atol=1e-5)
