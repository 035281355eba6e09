"""VaDE: the ELBO by its formula, its mixture, and a fit that survives a kill."""

import math
import warnings

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score
from sklearn.mixture import GaussianMixture
from test_dec import TINY, blobs, started

from reprolib.methods.autoencoder import PHASE_1, PHASE_2, latent_vectors
from reprolib.methods.dec import AEKMeans
from reprolib.methods.vade import LIMITS, VaDE, log_responsibilities, mixture_divergence, reconstruction_cost
from reprolib.training.trainer import Run


def literal_elbo(x, decode, mean, log_variance, noise, means, log_variances, weights, log_noise):
    """The ELBO of each sample, one sample, one component and one dimension after the other."""
    found = []
    for i in range(len(x)):
        z = [mean[i][j] + math.exp(log_variance[i][j] / 2) * noise[i][j] for j in range(len(mean[i]))]
        likelihood = 0.0
        for pixel, expected in zip(x[i], decode(z), strict=True):
            likelihood -= (pixel - expected) ** 2 / (2 * math.exp(log_noise))
            likelihood -= math.log(2 * math.pi * math.exp(log_noise)) / 2
        joint = []  # log p(z, c)
        for c in range(len(means)):
            value = math.log(weights[c])
            for j in range(len(z)):
                variance = math.exp(log_variances[c][j])
                value -= math.log(2 * math.pi * variance) / 2
                value -= (z[j] - means[c][j]) ** 2 / (2 * variance)
            joint.append(value)
        highest = max(joint)
        total = sum(math.exp(value - highest) for value in joint)
        elbo = likelihood
        for c in range(len(means)):
            log_gamma = joint[c] - highest - math.log(total)
            gamma = math.exp(log_gamma)
            for j in range(len(z)):
                variance = math.exp(log_variances[c][j])
                spread = math.exp(log_variance[i][j]) + (mean[i][j] - means[c][j]) ** 2
                elbo -= gamma * (math.log(variance) + spread / variance) / 2
            elbo += gamma * (math.log(weights[c]) - log_gamma)
        elbo += sum(1 + value for value in log_variance[i]) / 2
        found.append(elbo)
    return np.array(found)


def problem(b, k, d, pixels, seed=0):
    """Arguments of `literal_elbo` by name, with a linear decoder's matrix, float64."""
    rng = np.random.default_rng(seed)
    weights = rng.dirichlet(np.ones(k))
    return {
        "x": rng.random((b, pixels)),
        "matrix": rng.normal(size=(d, pixels)) / 3,
        "mean": rng.normal(size=(b, d)),
        "log_variance": rng.normal(size=(b, d)) - 1,
        "noise": rng.normal(size=(b, d)),
        "means": rng.normal(size=(k, d)),
        "log_variances": rng.normal(size=(k, d)) / 2,
        "logits": np.log(weights),
        "log_noise": np.array(-1.5),
    }


def literal_mean(p):
    weights = np.exp(p["logits"]) / np.exp(p["logits"]).sum()
    names = ("mean", "log_variance", "noise", "means", "log_variances")
    rest = [p[name].tolist() for name in names]
    found = literal_elbo(p["x"], lambda z: np.array(z) @ p["matrix"], *rest, weights, float(p["log_noise"]))
    return found.mean()


def fast_mean(p):
    latent = p["mean"] + p["noise"] * (p["log_variance"] / 2).exp()
    prior = p["means"], p["log_variances"], torch.log_softmax(p["logits"], 0)
    log_gamma = log_responsibilities(latent, *prior)
    cost = reconstruction_cost(p["x"], latent @ p["matrix"], p["log_noise"])
    return -(cost + mixture_divergence(p["mean"], p["log_variance"], log_gamma, *prior)).mean()


def degenerate(name):
    p = problem(4, 3, 2, 5, seed=3)
    if name == "duplicates":
        for key in ("x", "mean", "log_variance", "means", "log_variances"):
            p[key] = np.repeat(p[key][:1], len(p[key]), axis=0)
    elif name == "empty component":
        p["logits"][1] = -600.0
    elif name == "far apart":
        p["means"] = p["means"] * 100
    return p


@pytest.mark.parametrize(
    "p",
    [
        problem(5, 3, 2, 7),
        problem(1, 1, 1, 1, seed=1),
        problem(3, 6, 4, 2, seed=2),
        degenerate("duplicates"),
        degenerate("empty component"),
        degenerate("far apart"),
    ],
    ids=["random", "one of all", "batch below K", "duplicates", "empty component", "far apart"],
)
def test_elbo_and_gradients_equal_the_literal_reference(p):
    tensors = {name: torch.from_numpy(a.copy()).requires_grad_() for name, a in p.items()}
    value = fast_mean(tensors)
    assert value.item() == pytest.approx(literal_mean(p), rel=1e-10)
    value.backward()
    step = 1e-5
    for name in p.keys() - {"noise", "x"}:
        slopes = np.zeros(p[name].shape)
        for index in np.ndindex(p[name].shape):
            sides = []
            for sign in (1, -1):
                moved = p | {name: p[name].copy()}
                moved[name][index] += sign * step
                sides.append(literal_mean(moved))
            slopes[index] = (sides[0] - sides[1]) / (2 * step)
        scale = np.abs(slopes).max() + 1
        np.testing.assert_allclose(tensors[name].grad.numpy(), slopes, rtol=1e-5, atol=1e-7 * scale, err_msg=name)


def test_the_divergence_is_what_samples_of_the_posterior_say():
    p = {name: torch.from_numpy(a) for name, a in problem(3, 4, 2, 1, seed=5).items()}
    prior = p["means"], p["log_variances"], torch.log_softmax(p["logits"], 0)
    log_gamma = log_responsibilities(p["mean"], *prior)
    found = mixture_divergence(p["mean"], p["log_variance"], log_gamma, *prior)
    generator = torch.Generator().manual_seed(0)
    n = 200_000
    for i in range(3):
        q = torch.distributions.Normal(p["mean"][i], (p["log_variance"][i] / 2).exp())
        z = q.mean + q.stddev * torch.randn(n, 2, generator=generator, dtype=torch.double)
        c = torch.multinomial(log_gamma[i].exp(), n, replacement=True, generator=generator)
        component = torch.distributions.Normal(prior[0][c], (prior[1][c] / 2).exp())
        ratio = q.log_prob(z).sum(1) + log_gamma[i][c]
        ratio -= component.log_prob(z).sum(1) + prior[2][c]
        error = ratio.std() / n**0.5
        assert abs(ratio.mean() - found[i]) < 5 * error and error < 0.05 * found[i]
    assert (found > 0).all()
    # a posterior that is the only component
    one = prior[0][:1], prior[1][:1], torch.zeros(1, dtype=torch.double)
    nothing = mixture_divergence(*one[:2], torch.zeros(1, 1, dtype=torch.double), *one)
    assert nothing.abs().item() < 1e-12


def test_no_nan_at_the_limits_of_float32():
    latent = torch.tensor([[0.0, 0.0], [1e3, -1e3]], requires_grad=True)
    means = torch.tensor([[0.0, 0.0], [1e3, 1e3], [-1e3, 0.0]], requires_grad=True)
    log_variances = torch.tensor([[LIMITS[0]] * 2, [LIMITS[1]] * 2, [0.0, LIMITS[0]]])
    log_weights = torch.log_softmax(torch.tensor([0.0, -1e4, -80.0]), 0)
    prior = means, log_variances.requires_grad_(), log_weights
    log_gamma = log_responsibilities(latent, *prior)
    torch.testing.assert_close(log_gamma.exp().sum(1), torch.ones(2))
    assert log_gamma.argmax(1).tolist() == [0, 1]
    value = mixture_divergence(latent, torch.full((2, 2), LIMITS[0]), log_gamma, *prior).sum()
    value.backward()
    assert value.isfinite()
    assert all(t.grad.isfinite().all() for t in (latent, means, log_variances))


def test_the_loss_of_a_batch_is_the_literal_elbo():
    X, _ = blobs()
    stage = started(VaDE(3, **TINY), X)
    run, network = stage.run, stage.run.modules["network"]
    for p in run.modules["log_variance"].parameters():  # at zero it would hide the features
        torch.nn.init.normal_(p, std=0.02, generator=torch.Generator().manual_seed(1))
    batch = torch.arange(20, 60)
    generator = torch.Generator()
    generator.set_state(run.generator.get_state())
    noise = torch.randn(40, 3, generator=generator)
    losses = stage.losses(run.inputs[batch], batch)
    assert torch.equal(generator.get_state(), run.generator.get_state())
    mixture = run.modules["mixture"]
    with torch.no_grad():
        hidden = network.encoder[:-1](run.inputs[batch])
        mean = network.encode(run.inputs[batch])
        log_variance = run.modules["log_variance"](hidden)
        expected = literal_elbo(
            X[20:60].astype(float),
            lambda z: network.decode(torch.tensor([z]).float())[0].double().numpy(),
            *(t.double().tolist() for t in (mean, log_variance, noise)),
            *(t.double().tolist() for t in (stage.centers, mixture.log_variances)),
            mixture.log_weights.exp().double().tolist(),
            mixture.log_noise.item(),
        )
    assert sum(losses.values()).item() == pytest.approx(-expected.mean(), rel=1e-4)


def test_the_mixture_starts_from_a_fit_to_the_latent_means():
    X, _ = blobs()
    stage = started(VaDE(3, **TINY), X)
    run, network = stage.run, stage.run.modules["network"]
    u = latent_vectors(run)
    latent = u.double().numpy()
    fitted = GaussianMixture(3, covariance_type="diag", n_init=5, random_state=0).fit(latent)
    assert adjusted_rand_score(fitted.predict(latent), VaDE.assign(run.modules, u)) == 1
    order = np.argsort(fitted.means_[:, 0])
    own = np.argsort(stage.centers.detach().numpy()[:, 0])
    mixture = run.modules["mixture"]
    np.testing.assert_allclose(stage.centers.detach().numpy()[own], fitted.means_[order], rtol=1e-3, atol=1e-3)
    variances = mixture.log_variances.detach().exp().numpy()[own]
    np.testing.assert_allclose(variances, fitted.covariances_[order], rtol=0.02)
    with torch.no_grad():
        decoded = network(run.inputs)[1]
        error = (decoded - run.inputs).square().mean().log()
        posterior = run.modules["log_variance"](network.encoder[:-1](run.inputs))
    torch.testing.assert_close(mixture.log_noise.detach(), error)
    assert (posterior < mixture.log_variances.logsumexp(0)).all()


def test_every_part_is_trained_and_the_bound_rises():
    X, _ = blobs()
    stage = started(VaDE(3, **TINY), X)
    run = stage.run
    before = {
        f"{name}.{key}": value.clone()
        for name, module in run.modules.items()
        for key, value in module.named_parameters()
    }
    losses = [run._train_epoch(stage)["loss"] for _ in range(8)]
    assert losses[-1] < losses[0]
    for name, module in run.modules.items():
        for key, value in module.named_parameters():
            assert not torch.equal(value, before[f"{name}.{key}"]), f"{name}.{key}"


def fitted_state(model):
    return {f"{n}.{k}": v for n, m in model.modules_.items() for k, v in m.state_dict().items()}


def test_the_seed_alone_decides():
    X, y = blobs()
    torch.manual_seed(1)
    one = VaDE(3, **TINY).fit(X)
    torch.manual_seed(2)
    two = VaDE(3, **TINY).fit(X)
    np.testing.assert_array_equal(one.labels_, two.labels_)
    a, b = fitted_state(one), fitted_state(two)
    assert a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)
    assert one.labels_.dtype == np.int32 and adjusted_rand_score(y, one.labels_) > 0.5


@pytest.mark.parametrize("name", [PHASE_1, PHASE_2])
def test_a_killed_fit_goes_on_and_ends_the_same(name, tmp_path, monkeypatch):
    X, _ = blobs()
    settings = TINY | dict(phase2_epochs=2 * (name == PHASE_2), u_epochs=1)
    whole = VaDE(3, **settings).fit(X)

    class Killed(Exception):
        pass

    original = Run._train_epoch

    def dying(self, stage):
        if stage.name == name and self.epoch == 1:
            raise Killed
        return original(self, stage)

    with monkeypatch.context() as patch:
        patch.setattr(Run, "_train_epoch", dying)
        with pytest.raises(Killed):
            VaDE(3, **settings).fit(X, checkpoint=tmp_path / "run.ckpt")
    resumed = VaDE(3, **settings).fit(X, checkpoint=tmp_path / "run.ckpt")
    np.testing.assert_array_equal(resumed.labels_, whole.labels_)
    a, b = fitted_state(resumed), fitted_state(whole)
    assert a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize("phase2_epochs", [0, 1])
def test_save_and_load(phase2_epochs, tmp_path):
    X, _ = blobs()
    model = VaDE(3, **TINY, phase2_epochs=phase2_epochs).fit(X)
    assert ("mnet" in model.modules_) == bool(phase2_epochs)
    model.save(tmp_path / "model.safetensors")
    back = VaDE.load(tmp_path / "model.safetensors")
    np.testing.assert_array_equal(back.labels_, model.labels_)
    np.testing.assert_allclose(back.transform(X), model.embedding_, atol=1e-5)
    a, b = fitted_state(model), fitted_state(back)
    assert a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)
    np.testing.assert_array_equal(back.predict(X), model.labels_)
    if phase2_epochs:
        return
    mixture = back.modules_["mixture"]  # the components of largest density at the means
    weights, variances = (t.detach().exp().numpy() for t in (mixture.log_weights, mixture.log_variances))
    for u, label in zip(model.embedding_, model.labels_, strict=True):
        squared = ((u - model.centers_) ** 2 / variances).sum(1)
        score = np.log(weights) - (squared + np.log(variances).sum(1)) / 2
        assert score.argmax() == label


def test_degenerate_data():
    X, _ = blobs()
    assert set(VaDE(1, **TINY).fit(X).labels_) == {0}
    few = VaDE(9, **TINY | dict(batch_size=4)).fit(X[:12])  # batches smaller than K
    images = np.full((12, 1, 16, 16), 0.5, np.float32)  # constant but for one
    images[0, 0, 3, 4] = 1.0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # fewer distinct samples than clusters
        models = [
            few,
            VaDE(3, **TINY).fit(np.repeat(np.eye(2, 6, dtype=np.float32), 12, axis=0)),
            VaDE(3, **TINY).fit(images),
            VaDE(3, **TINY, phase2_epochs=1).fit(np.eye(9)[[0] * 11 + [1]]),
        ]
    for model in models:
        assert np.isfinite(model.embedding_).all()
        assert all(value.isfinite().all() for value in fitted_state(model).values())
        assert all(math.isfinite(entry["loss"]) for entry in model.history_)
    two = models[1].labels_
    assert len(set(two[:12])) == 1 and len(set(two[12:])) == 1 and two[0] != two[12]


def test_bfloat16_stays_close():
    X, y = blobs()
    half = VaDE(3, **TINY, precision="bfloat16").fit(X)
    assert half.embedding_.dtype == np.float32
    assert all(value.dtype != torch.bfloat16 for value in fitted_state(half).values())
    assert adjusted_rand_score(y, half.labels_) > 0.5


def test_digits_without_labels(tmp_path):
    X, y = load_digits(n_class=5, return_X_y=True)
    X = (X[:400] / 16).astype(np.float32)
    settings = dict(latent_dim=5, pretrain_epochs=6, device="cpu", batch_size=100)
    start = AEKMeans(5, **settings).fit(X, shared=tmp_path)
    model = VaDE(5, **settings, phase1_epochs=6).fit(X, shared=tmp_path)
    assert model.history_[:6] == start.history_[:6], "one pretraining for both"
    assert normalized_mutual_info_score(y[:400], model.labels_) > 0.5
