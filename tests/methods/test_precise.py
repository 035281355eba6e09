"""Paper 003: losses against literal float64 references, the penalty without second derivatives, Algorithm 1's order."""

import copy
import math

import numpy as np
import pytest
import torch

from reprolib.data.load import load
from reprolib.methods import PreciseFeature
from reprolib.methods.precise import (
    Adversarial,
    changed,
    classifier_loss,
    critic_loss,
    generator_loss,
    penalised,
    staircase,
)
from reprolib.networks.adversarial import Linear, PiecewiseLinear, judge
from reprolib.training.trainer import Run

TINY = dict(n_clusters=3, network="dense", width=2, n_noise=2, batch_size=10, n_iterations=2, log_every=1, device="cpu")


def drawn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.fixture(scope="module")
def digits():
    return load("digits", subset=60)


def begun(X, **parameters):
    model = PreciseFeature(**TINY | parameters)
    run = Run(model, model.inputs(X))
    stage = model.stages(run)[0]
    stage.build()
    return stage


# The losses


def test_losses_equal_the_literal_sums():
    real, fake, slopes, logits = drawn(5), drawn(5, seed=1), drawn(5, seed=2).abs(), drawn(5, 3, seed=3)
    y = torch.tensor([0, 2, 1, 1, 0])
    gap = sum(float(f) for f in fake) / 5 - sum(float(r) for r in real) / 5
    expected = gap + 7.0 * sum((float(s) - 1) ** 2 for s in slopes) / 5
    assert float(critic_loss(real, fake, slopes, 7.0)) == pytest.approx(expected)
    q = logits.exp() / logits.exp().sum(1, keepdim=True)
    entropy = -sum(math.log(q[i, y[i]]) for i in range(5)) / 5
    assert float(classifier_loss(logits, y)) == pytest.approx(entropy)
    expected = -sum(float(f) for f in fake) / 5 + 2.5 * entropy
    assert float(generator_loss(fake, logits, y, 2.5)) == pytest.approx(expected)


def test_a_stack_has_the_losses_of_each():
    real, fake, slopes, logits = drawn(2, 5), drawn(2, 5, seed=1), drawn(2, 5, seed=2), drawn(2, 5, 3, seed=3)
    y, penalty = torch.tensor([[0, 2, 1, 1, 0], [1, 1, 1, 2, 0]]), torch.tensor([1.0, 100.0], dtype=torch.float64)
    for i in range(2):
        alone = critic_loss(real[i], fake[i], slopes[i], float(penalty[i]))
        torch.testing.assert_close(critic_loss(real, fake, slopes, penalty)[i], alone)
        alone = generator_loss(fake[i], logits[i], y[i], float(penalty[i]))
        torch.testing.assert_close(generator_loss(fake, logits, y, penalty)[i], alone)


def double_backward(critic, points, penalty):
    """Equation 5's last term by second derivatives, and its gradients."""
    points = points.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(critic(points).sum(), points, create_graph=True)
    slopes = gradient.flatten(1).norm(dim=1)
    value = penalty * (slopes - 1).square().mean()
    return slopes, torch.autograd.grad(value, [*critic.parameters()], allow_unused=True)


@pytest.mark.parametrize("outputs", [1, 10])
@pytest.mark.parametrize("shape, dense", [((1, 16, 16), False), ((3, 28, 28), False), ((1, 5, 5), True), ((2,), True)])
def test_penalty_equals_double_backward(shape, dense, outputs):
    critic = judge(shape, outputs, 3, dense=dense, random=torch.Generator().manual_seed(0)).double()
    points = drawn(6, *shape)
    surrogate, slopes = penalised(critic, points, 10.0)
    found = torch.autograd.grad(surrogate, [*critic.parameters()], allow_unused=True)
    expected_slopes, expected = double_backward(critic, points, 10.0)
    torch.testing.assert_close(slopes, expected_slopes)
    for weight, *pair in zip(critic.parameters(), found, expected, strict=True):
        mine, literal = (torch.zeros_like(weight) if g is None else g for g in pair)
        torch.testing.assert_close(mine, literal)
    assert sum(float(g.abs().sum()) for g in found if g is not None) > 0


def test_penalty_of_a_stack_takes_each_ones_lambda():
    stack = judge((2,), 1, 1, copies=(3,), random=torch.Generator().manual_seed(0)).double()
    points, weights = drawn(3, 6, 2), torch.tensor([1.0, 10.0, 0.0], dtype=torch.float64)
    found = torch.autograd.grad(penalised(stack, points, weights)[0].sum(), [*stack.parameters()], allow_unused=True)
    for i in range(3):
        alone = judge((2,), 1, 1).double()
        alone.load_state_dict({name: weight[i] for name, weight in stack.state_dict().items()})
        _, expected = double_backward(alone, points[i], float(weights[i]))
        for mine, literal in zip(found, expected, strict=True):
            if mine is not None:
                torch.testing.assert_close(mine[i], literal)
            else:  # a bias moves no slope
                assert literal is None or not literal.any()


def linear_critic(weight):
    layer = Linear(len(weight), 1, (), None).double()
    layer.weight.data = torch.tensor([weight], dtype=torch.float64)
    return PiecewiseLinear(layer)


def test_penalty_of_a_linear_critic_is_that_of_its_weight_wherever_it_is_taken():
    for weight, length in (([0.6, 0.8], 1.0), ([3.0, 4.0], 5.0), ([0.3, -0.4], 0.5)):
        critic = linear_critic(weight)
        for share in (0.0, 0.3, 1.0):
            points = share * drawn(4, 2) + (1 - share) * drawn(4, 2, seed=1)
            surrogate, slopes = penalised(critic, points, 10.0)
            torch.testing.assert_close(slopes, torch.full((4,), length, dtype=torch.float64))
            (gradient,) = torch.autograd.grad(surrogate, critic[0].weight)
            expected = 20 * (length - 1) / length * torch.tensor([weight], dtype=torch.float64)
            torch.testing.assert_close(gradient, expected)
            assert float(critic_loss(points[:, 0], points[:, 0], slopes, 10.0)) == pytest.approx(10 * (length - 1) ** 2)


def test_a_flat_critic_has_a_finite_gradient():
    critic = linear_critic([0.0, 0.0])
    surrogate, slopes = penalised(critic, drawn(4, 2), 10.0)
    assert not slopes.any()
    assert torch.isfinite(torch.autograd.grad(surrogate, critic[0].weight)[0]).all()


def test_ten_averaged_outputs_are_the_paper_s_one_at_a_tenth():
    paper, released = PreciseFeature(), PreciseFeature(**PreciseFeature.VARIANTS["released"])
    assert (released.critic_outputs, paper.critic_outputs) == (10, 1)
    ten = judge((2,), 10, 2, random=torch.Generator().manual_seed(0)).double()
    one = copy.deepcopy(ten)  # whose output is the sum of the ten
    one[-1].weight.data = ten[-1].weight.detach().sum(0, keepdim=True)
    one[-1].bias.data = ten[-1].bias.detach().sum(1, keepdim=True)
    real, fake, logits, y = drawn(6, 2), drawn(6, 2, seed=1), drawn(6, 10, seed=2), torch.arange(6)
    losses = {}
    for name, critic, model in (("ten", ten, released), ("one", one, paper)):
        slopes = penalised(critic, (real + fake) / 2, model.penalty)[1]
        of_real, of_fake = critic(real).mean(-1), critic(fake).mean(-1)
        d = critic_loss(of_real, of_fake, slopes, model.penalty)
        losses[name] = d, generator_loss(of_fake, logits, y, model.eta)
    torch.testing.assert_close([10 * loss for loss in losses["ten"]], [*losses["one"]])


def test_the_staircase_does_not_compound_and_equation_8_read_literally_overflows():
    found = [staircase(t, 10.0, 1.2, 30_000) for t in (0, 29_999, 30_000, 899_999)]
    assert found == pytest.approx([10.0, 10.0, 12.0, 10 * 1.2**29])
    eta, t = 10.0, 0
    while math.isfinite(eta) and t < 900_000:
        t += 1
        eta *= 1.2 ** (t // 30_000)
    assert 30_000 < t < 34_000


# Algorithm 1


def test_an_iteration_has_the_steps_of_algorithm_1(digits, monkeypatch):
    taken = []
    stage = begun(digits)
    usual = Adversarial.descend
    monkeypatch.setattr(Adversarial, "descend", lambda self, name, loss: (taken.append(name), usual(self, name, loss)))
    for batch in stage.batches():
        stage.schedule()
        stage.step(batch)
    assert "".join(taken) == "DDDDDCCCCG"


def test_the_released_steps_double_after_a_third(digits):
    stage, found = begun(digits, **PreciseFeature.VARIANTS["released"], n_iterations=6), []
    for stage.run.epoch in range(6):
        for batch in stage.batches():
            found.append((len(batch), *stage.turns(), stage.branch()))
    assert found == [(5, 5, 2, False)] * 2 + [(10, 10, 4, True)] * 4


def test_each_step_moves_its_own_network_alone(digits, monkeypatch):
    stage = begun(digits)
    usual = Adversarial.descend

    def watched(self, name, loss):
        before = {of: copy.deepcopy(network.state_dict()) for of, network in self.run.modules.items()}
        usual(self, name, loss)
        for of, network in self.run.modules.items():
            same = all(torch.equal(v, before[of][k]) for k, v in network.state_dict().items())
            assert same == (of != name)

    monkeypatch.setattr(Adversarial, "descend", watched)
    stage.schedule_at = next(iter(stage.batches()))
    stage.schedule()
    stage.step(stage.schedule_at)


def test_c_never_sees_a_real_image_while_it_learns():
    stage, seen = begun(np.random.default_rng(0).random((40, 16, 16)), network="convolutional"), []
    modules = stage.run.modules
    modules["G"].register_forward_hook(lambda _, given, made: 0 * made + 0.5)
    modules["C"].register_forward_pre_hook(lambda _, given: seen.append(given[0].detach()))
    for batch in stage.batches():
        stage.schedule()
        stage.step(batch)
    assert len(seen) == 5 and all((images == 0.5).all() for images in seen)


def test_ids_are_drawn_by_the_prior(digits):
    stage = begun(digits, n_clusters=2, prior=(0.1, 0.9), batch_size=1000)
    next(iter(stage.batches()))
    stage.schedule()
    _, y = stage.imagine(20)
    assert float(y.double().mean()) == pytest.approx(0.9, abs=0.01)
    stage = begun(digits, batch_size=1000)
    next(iter(stage.batches()))
    stage.schedule()
    shares = torch.bincount(stage.imagine(20)[1].flatten()) / 20_000
    assert shares.tolist() == pytest.approx([1 / 3] * 3, abs=0.02)


def test_noise_grows_and_rates_fall_and_averages_follow(digits):
    stage = begun(digits, n_iterations=8, ramp=4, decay=True, averaging=0.75)
    first = [p.detach().clone() for p in stage.run.modules["C"].parameters()]
    loudness, rates, expected = [], [], first
    for stage.run.epoch in range(8):
        for batch in stage.batches():
            stage.schedule()
            stage.step(batch)
            loudness.append(float(stage.loudness))
            rates.append(stage.run.optimizers["G"].param_groups[0]["lr"] / 1e-4)
            now = stage.run.modules["C"].parameters()
            expected = [0.75 * a + 0.25 * b.detach() for a, b in zip(expected, now, strict=True)]
    assert loudness == [0.25, 0.5, 0.75, 1, 1, 1, 1, 1]
    assert rates == pytest.approx([1 - t / 8 for t in range(8)])
    for mine, literal in zip(stage.run.modules["averaged C"].parameters(), expected, strict=True):
        torch.testing.assert_close(mine, literal)
        assert mine.grad_fn is None  # or it would remember every step
    assert stage.model.found_in(stage.run.modules, "C") is stage.run.modules["averaged C"]


def test_changed_images_are_each_their_own_and_pass_the_gradient_on():
    images = torch.full((4, 3, 16, 16), 0.5, requires_grad=True)
    found = changed(images, torch.Generator().manual_seed(0))
    assert found.shape == images.shape and len({float(x.sum()) for x in found}) == 4
    (gradient,) = torch.autograd.grad(found.sum(), images)
    assert gradient.abs().sum() > 0


# The estimator


def test_what_a_fit_leaves(digits):
    model = PreciseFeature(**TINY | {"n_iterations": 5, "log_every": 2}).fit(digits)
    assert model.labels_.shape == (60,) and model.embedding_.shape == (60, 3)
    assert np.array_equal(model.predict(digits), model.labels_)
    assert len(model.history_) == 3
    row = model.history_[-1]
    assert {"distance", "cross_entropy", "fake_accuracy", "entropy", "slope", "eta"} <= set(row)
    assert 0 <= row["entropy"] <= math.log(3) and 0 <= row["fake_accuracy"] <= 1
    made = model.generate(4, random_state=1)
    assert made.shape == (3, 4, 1, 8, 8) and 0 <= made.min() and made.max() <= 1
    assert np.array_equal(made, model.generate(4, random_state=1))
    assert not np.array_equal(made, model.generate(4, random_state=2))


@pytest.mark.parametrize("averaging", [0.0, 0.5])
def test_a_saved_model_assigns_and_generates_the_same(digits, tmp_path, averaging):
    model = PreciseFeature(**TINY | {"averaging": averaging}).fit(digits)
    model.save(tmp_path / "model")
    again = PreciseFeature.load(tmp_path / "model")
    assert np.array_equal(again.transform(digits), model.embedding_)
    assert np.array_equal(again.generate(2), model.generate(2))


def test_reports_hold_samples_of_images_and_none_of_features(digits):
    reports = []
    PreciseFeature(**TINY).fit(digits, monitor=reports.append)
    assert [r.period for r in reports] == [1, 2]
    found = reports[-1].arrays(np.arange(5))
    assert found["generated"].shape == (3, 10, 1, 8, 8) and found["generated"].dtype == np.uint8
    PreciseFeature(**TINY).fit(drawn(60, 2).numpy(), monitor=reports.append)
    assert "generated" not in reports[-1].arrays(np.arange(5))


@pytest.mark.parametrize("parameters", [{"n_clusters": 1}, {"n_noise": 0}, {"n_clusters": 1, "prior": (1.0,)}])
def test_degenerate_settings_train(digits, parameters):
    model = PreciseFeature(**TINY | parameters).fit(digits)
    assert all(math.isfinite(value) for value in model.history_[-1].values() if isinstance(value, float))
    assert model.labels_.max() < model.n_clusters


@pytest.mark.parametrize(
    "parameters, told",
    [
        ({"prior": (0.5, 0.2, 0.2)}, "add up to 0.9: divide by the sum"),
        ({"prior": (0.5, 0.5, 0.0)}, "probabilities above 0"),
        ({"prior": (0.1, 0.9)}, "one probability for each of n_clusters=3, got 2"),
        ({"averaging": 1.0}, "averaging must be below 1"),
        ({"beta_2": 1.0}, "beta_2 must be below 1"),
        ({"network": "convolutional"}, "load the images with size=28, or take network='dense'"),
    ],
)
def test_parameters_that_cannot_be_meant_are_refused(digits, parameters, told):
    with pytest.raises(ValueError, match=told):
        PreciseFeature(**TINY | parameters).fit(digits)


def test_images_outside_the_range_of_g_are_refused():
    images = np.random.default_rng(0).normal(size=(20, 8, 8))
    with pytest.raises(ValueError, match=r"must lie in \[0, 1\].*: divide by the range"):
        PreciseFeature(**TINY).fit(images)


def test_a_loss_that_is_no_number_ends_the_fit(digits):
    with pytest.raises(FloatingPointError, match="lower the learning rate"):
        PreciseFeature(**TINY | {"learning_rate": 1e30, "n_iterations": 9}).fit(digits)
