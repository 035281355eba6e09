r"""Precise feature: a classifier of what a Wasserstein GAN makes from cluster ids and noise (paper 003)."""

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from sklearn.utils.validation import check_is_fitted
from torch import Tensor, nn

from reprolib.data.images import as_features, as_pixels, check_features, is_features, to_float_images
from reprolib.kernels.augment import augment
from reprolib.methods.base import BatchSize, Count, Natural, Positive, TrainedEstimator, Weight
from reprolib.networks import adversarial
from reprolib.networks.adversarial import PiecewiseLinear
from reprolib.training.monitor import Report
from reprolib.training.trainer import ROWS, Run, Stage, as_numpy

# what the released code does and the paper does not say: ten outputs, whose losses are a tenth (see `PreciseFeature`)
RELEASED = dict(critic_outputs=10, penalty=10.0, eta=1.0, n_class=2, doubled=True)
SAMPLES_A_CLUSTER = 10  # of a report's picture
# "Ours*" (section IV-G) names the changes; how far they go is ours
CHANGES = {"rotation": 15.0, "scale": 0.15, "shift": 0.1, "shear": 0.0, "erasing": 0.0, "flip": 0.5}
CONTRAST, NOISE = 0.2, 0.05


def critic_loss(real: Tensor, fake: Tensor, slopes: Tensor, penalty: float | Tensor) -> Tensor:
    """E D(fake) - E D(real) + lambda E (|grad D| - 1)^2, over the last axis of each: L_D of equation 5.

    real, fake (..., b) are the critic's values and slopes (..., b) the norms of its gradient at points between. Source:
    paper 003, equation 5, after Gulrajani et al. 2017.
    """
    return fake.mean(-1) - real.mean(-1) + penalty * (slopes - 1).square().mean(-1)


def classifier_loss(logits: Tensor, y: Tensor) -> Tensor:
    """Cross entropy in nats of logits (..., b, K) and the ids y int64 (..., b) of the samples: L_C of equation 6.

    As a Monte Carlo estimate it bounds the expected entropy of the assignment, equations 3 and 4. Source: paper 003.
    """
    return -logits.log_softmax(-1).gather(-1, y[..., None]).squeeze(-1).mean(-1)


def generator_loss(fake: Tensor, logits: Tensor, y: Tensor, eta: float | Tensor) -> Tensor:
    """-E D(fake) + eta L_C: L_G of paper 003, equation 7; arguments as of the other two."""
    return -fake.mean(-1) + eta * classifier_loss(logits, y)


def staircase(t: int, eta: float, growth: float, interval: int) -> float:
    """The trade-off eta gamma^floor(t / tau) at iteration t: equation 8 as section IV-C and the released code have it.

    Read literally, equation 8 of paper 003 multiplies the eta of the step before, and overflows soon after t = tau.
    """
    return eta * growth ** (t // interval)


def penalised(critic: PiecewiseLinear, points: Tensor, penalty: float | Tensor) -> tuple[Tensor, Tensor]:
    """A sum whose gradient in the weights is that of the gradient penalty, and the slopes |grad D| (..., b) in it.

    points (..., b, *shape), at which the outputs of `critic` are added up. No second derivative is taken: for a
    piecewise linear critic the penalty's gradient is that of its derivative along v = 2 lambda (|g| - 1) g / (|g| b),
    with g, the input gradient, held fixed. So: a gradient, a forward pass of v, and one ordinary backward pass. Where g
    is 0 the penalty has no gradient, and v is taken as 0. Source of the penalty: paper 003, equation 5.
    """
    points = points.detach().requires_grad_()
    outputs, sides = critic.with_sides(points)
    (gradient,) = torch.autograd.grad(outputs.sum(), points)
    axes = tuple(range(outputs.ndim - 1, gradient.ndim))
    slopes = torch.linalg.vector_norm(gradient, dim=axes)  # (..., b)
    weight = penalty[..., None] if torch.is_tensor(penalty) else penalty
    factors = 2 * weight * (slopes - 1) / (slopes.where(slopes > 0, 1) * slopes.shape[-1])
    direction = gradient * factors.reshape(factors.shape + (1,) * len(axes))
    return critic.tangent(direction, sides).to(slopes.dtype).sum((-2, -1)), slopes


@dataclass(frozen=True)
class Imagined(Report):
    """A report with samples of the generator, uint8 (K, 10, c, h, w), for figures; None where it makes no images."""

    samples: np.ndarray | None = None

    def arrays(self, points: np.ndarray) -> dict[str, np.ndarray]:
        """What the generator makes of each id; the logits of some points, as the family's latent vectors."""
        made = {} if self.samples is None else {"generated": self.samples}
        return super().arrays(points) | made


class Adversarial(Stage):
    """Algorithm 1: in an iteration `n_critic` steps of D, `n_class` of C and one of G; an epoch has `log_every`.

    One pass of G makes the samples of all steps of D and C, as G rests until its own. `copies`: shape of a stack of
    networks that learn side by side; their losses are added, so that none touches another, and told in the mean.
    """

    name, report_every = "adversarial", 1
    copies: tuple[int, ...] = ()

    def build(self) -> None:
        run, model = self.run, self.model
        rate = torch.tensor(model.learning_rate, device=run.device) if run.on_cuda else model.learning_rate
        run.optimizers = {}
        for name, network in model.networks(run.inputs.shape[1:], run.generator, self.copies).items():
            weights = run.module(name, network).parameters()
            # in one kernel, on the host too: its many small steps are half of the time of a small network
            run.optimizers[name] = run.adam(weights, lr=rate, betas=(model.beta_1, model.beta_2), fused=True)
        for name in model.averaged():
            run.module(f"averaged {name}", copy.deepcopy(run.modules[name]).requires_grad_(False))
        prior = model.prior or [1 / model.n_clusters] * model.n_clusters
        self.bounds = torch.tensor([*accumulate(prior)][:-1], device=run.device)  # (K - 1,)
        self.eta, self.penalty = model.eta, model.penalty

    def batches(self) -> Iterator[Tensor]:
        """Of each iteration, the real samples of its steps of D: indices (n_critic, *copies, batch_size)."""
        run, model = self.run, self.model
        first = run.epoch * model.log_every
        self.doubled = model.doubled and 3 * first >= model.n_iterations
        shape = self.turns()[0], *self.copies, model.batch_size
        for self.t in range(first, min(first + model.log_every, model.n_iterations)):
            yield torch.randint(len(run.inputs), shape, generator=run.generator).to(run.inputs.device)

    def turns(self) -> tuple[int, int]:
        """Steps of D and of C in an iteration."""
        return self.model.n_critic << self.doubled, self.model.n_class << self.doubled

    def branch(self) -> bool:
        return self.doubled

    def schedule(self) -> None:
        model = self.model
        self.move("rise", staircase(self.t, 1.0, model.growth, model.growth_interval))
        self.move("loudness", min(1.0, (self.t + 1) / max(model.ramp, 1)))
        if model.decay:
            for name in self.run.optimizers:
                self.run.set_rate(name, model.learning_rate * (1 - self.t / model.n_iterations))

    def move(self, name: str, value: float) -> None:
        """Set a number that a step reads, on the memory that it has, without a copy from the host, which may wait."""
        if name in vars(self):
            getattr(self, name).fill_(value)
        else:
            setattr(self, name, torch.full((), value, device=self.run.device))

    def imagine(self, n_batches: int) -> tuple[Tensor, Tensor]:
        """Samples (n_batches, *copies, batch_size, ...) that G makes of ids and noise, and the ids."""
        run, model = self.run, self.model
        shape = n_batches, *self.copies, model.batch_size
        y = torch.bucketize(torch.rand(shape, generator=run.noise, device=run.device), self.bounds, right=True)
        z = torch.randn(*shape, model.n_noise, generator=run.noise, device=run.device) * self.loudness
        # not `one_hot`, which on the host looks whether the ids are in range
        given = torch.cat([z, y[..., None] == torch.arange(model.n_clusters, device=run.device)], -1)
        with run.autocast():
            made = run.modules["G"](given if self.copies else given.flatten(0, -2))
        return made.float().reshape(*shape, *run.inputs.shape[1:]), y

    def classify(self, samples: Tensor) -> Tensor:
        """Logits (*copies, b, K) of C while it learns."""
        if self.model.augmented:
            samples = changed(samples, self.run.noise)
        with self.run.autocast():
            return self.run.modules["C"](samples).float()

    def step(self, batch: Tensor) -> dict[str, Tensor]:
        run, model = self.run, self.model
        n_critic, n_class = self.turns()
        with torch.no_grad():
            fakes, ids = self.imagine(n_critic + n_class)
        for real, fake in zip(batch, fakes[:n_critic], strict=True):
            told = self.criticise(run.batch(real), fake)
        for fake, y in zip(fakes[n_critic:], ids[n_critic:], strict=True):
            logits = self.classify(fake)
            entropy = classifier_loss(logits, y)
            self.descend("C", entropy)
        told["loss"] = told["loss"] + entropy  # of D and C: neither may be no number
        told |= {"cross_entropy": entropy, "fake_accuracy": (logits.argmax(-1) == y).double()}
        fake, y = (each[0] for each in self.imagine(1))
        eta = self.eta * self.rise
        with run.autocast():
            value = run.modules["D"](fake).float().mean(-1)
        self.descend("G", generator_loss(value, self.classify(fake), y, eta))
        with torch.no_grad():
            for name in model.averaged():
                kept, now = (run.modules[of].parameters() for of in (f"averaged {name}", name))
                torch._foreach_lerp_([*kept], [*now], 1 - model.averaging)
        return {name: value.detach().mean() for name, value in (told | {"eta": eta}).items()}

    def criticise(self, real: Tensor, fake: Tensor) -> dict[str, Tensor]:
        """A step of D on real and made samples (*copies, b, ...); its loss, the distance that it sees, and slopes."""
        run, axis = self.run, len(self.copies)
        shares = torch.rand(real.shape[: axis + 1], generator=run.noise, device=run.device)
        shares = shares.reshape(*shares.shape, *[1] * (real.ndim - axis - 1))
        with run.autocast():
            surrogate, slopes = self.penalise(shares * real + (1 - shares) * fake)
            values = run.modules["D"](torch.cat([real, fake], axis)).float()
        # of ten outputs the mean, which is a tenth of the critic whose slope is held at 1
        of_real, of_fake = values.mean(-1).chunk(2, -1)  # (*copies, b)
        gap = of_fake.mean(-1) - of_real.mean(-1)
        self.descend("D", gap + surrogate)
        loss = critic_loss(of_real, of_fake, slopes, self.penalty)
        return {"loss": loss, "distance": -gap * values.shape[-1], "slope": slopes}

    def penalise(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """See `penalised`."""
        return penalised(self.run.modules["D"], points, self.penalty)

    def descend(self, name: str, loss: Tensor) -> None:
        """One step of one network along a loss (*copies,): no gradient of the others is taken."""
        optimizer = self.run.optimizers[name]
        optimizer.zero_grad(set_to_none=True)
        loss.sum().backward(inputs=[*self.run.modules[name].parameters()])
        optimizer.step()

    def summary(self, sums: dict[str, float], n_batches: int) -> dict[str, float]:
        """Means, and the mean entropy (nats) of C on at most 1,000 real samples: a sign without labels."""
        run, n = self.run, len(self.run.inputs)
        some = run.inputs[torch.arange(min(n, ROWS)) * n // min(n, ROWS)]
        with torch.no_grad():
            q = self.model.found_in(run.modules, "C")(some.to(run.device)).softmax(-1)
        return super().summary(sums, n_batches) | {"entropy": float(torch.special.entr(q).sum(-1).mean())}

    @torch.no_grad()
    def report(self) -> Report:
        run, model = self.run, self.model
        logits = run.over_all(model.found_in(run.modules, "C"))
        samples = None
        if run.inputs.ndim == 4:
            made = model.made(run.modules, SAMPLES_A_CLUSTER, 0)
            samples = as_numpy((255 * made).round().to(torch.uint8))
        labels = as_numpy(logits.argmax(1)).astype(np.int32)
        return Imagined(self.name, run.epoch, labels, as_numpy(logits), samples=samples)


def changed(images: Tensor, generator: torch.Generator) -> Tensor:
    """Images (b, c, h, w) changed at random as the paper's "Ours*" is taught: place, size, light, colour and noise."""
    moved = augment(images, generator, **CHANGES)
    gain, offset = (
        CONTRAST * (2 * torch.rand(*images.shape[:2], 1, 1, generator=generator, device=images.device) - 1)
        for _ in range(2)
    )
    noise = torch.randn(images.shape, generator=generator, device=images.device)
    return moved * (1 + gain) + offset + NOISE * noise


class PreciseFeature(TrainedEstimator):
    """Clustering by the classifier of a conditional WGAN-GP (Gan et al., paper 003), of images or features.

    G makes samples of a cluster id and noise, D (the critic) estimates their Earth mover distance to the real ones, C
    learns to read the id off them; G is to please D and to be easy for C. C never sees a real sample until it assigns
    them. Images take the convolutional networks of Figure 2, or "dense" ones, features those of section IV-B.
    The variant "released" has the released code's critic of ten outputs, whose mean is judged while the slope of their
    sum is held at 1: with its lambda and eta, a tenth of the paper's, the objective is the same; and its numbers of
    steps, which double after a third of the iterations.
    In `history_`, a row every `log_every` iterations: "distance", the Earth mover distance by D; "cross_entropy" and
    "fake_accuracy" of C on what G makes; "entropy" of C on real samples. After `fit` also `generate`.
    """

    network: Literal["convolutional", "dense"] = "convolutional"  # of images; features take dense layers
    width: Count = 64  # channels of D's and C's first convolution; dense layers have 8 times as many units
    n_noise: Natural = 128  # variables of z
    prior: tuple[float, ...] = ()  # p(y), n_clusters numbers; none for equal clusters
    n_iterations: Count = 900_000  # N
    log_every: Count = 1000
    batch_size: BatchSize = 100  # n
    n_critic: Count = 5  # N_critic
    n_class: Count = 4  # N_class
    doubled: bool = False  # both, after a third of the iterations
    critic_outputs: Count = 1
    penalty: Weight = 100.0  # lambda
    eta: Weight = 10.0
    growth: Positive = 1.2  # gamma
    growth_interval: Count = 30_000  # tau
    learning_rate: Positive = 1e-4  # alpha
    beta_1: Weight = 0.5
    beta_2: Weight = 0.9
    augmented: bool = False  # "Ours*": C sees changed samples
    ramp: Natural = 0  # ours: iterations over which the noise grows from nothing
    decay: bool = False  # ours: the rate falls to 0, linearly
    averaging: Weight = 0.0  # ours: share that an average of G's and of C's weights keeps in a step; 0 for none
    VARIANTS: ClassVar = {"paper": {}, "released": RELEASED}
    RESULTS: ClassVar = {"labels": "Precise feature"}

    def check_parameters(self) -> None:
        super().check_parameters()
        for name in ("beta_1", "beta_2", "averaging"):
            if getattr(self, name) >= 1:
                raise ValueError(f"{name} must be below 1, got {getattr(self, name)}: it is a share")
        if self.prior and len(self.prior) != self.n_clusters:
            raise ValueError(
                f"prior must hold one probability for each of n_clusters={self.n_clusters}, got {len(self.prior)}; "
                "leave it empty for equal clusters"
            )
        if self.prior and (min(self.prior) <= 0 or abs(sum(self.prior) - 1) > 1e-6):
            raise ValueError(
                f"prior must hold probabilities above 0 that add up to 1, got {self.prior}, which add up to "
                f"{sum(self.prior):g}: divide by the sum, and leave no cluster empty"
            )

    def prepare(self, X: Any, *, to_cluster: bool = True) -> Tensor:
        """Float images (n, c, h, w) in [0, 1], flattened for dense networks, or features (n, d)."""
        if is_features(X):
            return torch.from_numpy(as_features(X) if to_cluster else check_features(X, min_samples=1).copy())
        inputs = to_float_images(as_pixels(X, to_cluster=to_cluster))
        if inputs.min() < 0 or inputs.max() > 1:
            raise ValueError(
                f"float images must lie in [0, 1], which G's outputs do; got {inputs.min():.4g} to {inputs.max():.4g}: "
                "divide by the range, or pass uint8"
            )
        return inputs

    def networks(self, shape: Sequence[int], random: torch.Generator, copies: Sequence[int] = ()) -> dict[str, Any]:
        """Untrained G, D and C for inputs of this shape."""
        options = {"dense": self.network == "dense", "copies": copies, "random": random}
        return {
            "G": adversarial.generator(shape, self.n_noise + self.n_clusters, self.width, **options),
            "D": adversarial.judge(shape, self.critic_outputs, self.width, **options),
            "C": adversarial.judge(shape, self.n_clusters, self.width, **options),
        }

    def averaged(self) -> tuple[str, ...]:
        """Networks of which an average is kept."""
        return ("G", "C") if self.averaging else ()

    def found_in(self, modules: nn.ModuleDict, name: str) -> nn.Module:
        """G or C as it is used after training: the average, where one is kept."""
        return modules[f"averaged {name}" if name in self.averaged() else name]

    def stages(self, run: Run, X: Any = None) -> list[Stage]:
        """One: its epochs are `log_every` iterations, the last one the rest."""
        if self.augmented and run.inputs.ndim == 2:
            raise ValueError("augmented changes images; X holds features: leave it False")
        return [Adversarial(run, -(-self.n_iterations // self.log_every))]

    def finish(self, run: Run) -> dict[str, np.ndarray]:
        """Keep the logits of all samples; the ids that C gives them."""
        logits = run.over_all(self.found_in(run.modules, "C"))
        self.embedding_ = as_numpy(logits)
        return {"labels": as_numpy(logits.argmax(1))}

    @torch.no_grad()
    def transform(self, X: Any) -> np.ndarray:
        """Logits of C, float32 (n, n_clusters), of data of the fitted shape."""
        inputs, network = self._fitting_inputs(X), self.found_in(self.modules_, "C").eval()
        device = next(network.parameters()).device
        return torch.cat([network(part.to(device)).cpu() for part in inputs.split(ROWS)]).numpy()

    def predict(self, X: Any) -> np.ndarray:
        """Labels int32 (n,) of data of the fitted shape."""
        return self.transform(X).argmax(1).astype(np.int32)

    def generate(self, n_each: int = SAMPLES_A_CLUSTER, random_state: int = 0) -> np.ndarray:
        """What G makes of each id: float32 (n_clusters, n_each, *shape), the noise drawn anew."""
        check_is_fitted(self, "labels_")
        return as_numpy(self.made(self.modules_, n_each, random_state))

    @torch.no_grad()
    def made(self, modules: nn.ModuleDict, n_each: int, seed: int) -> Tensor:
        """As `generate`, by the networks of a run."""
        network, drawn = self.found_in(modules, "G"), torch.Generator().manual_seed(seed)
        z = torch.randn(self.n_clusters, n_each, self.n_noise, generator=drawn)
        ids = torch.eye(self.n_clusters)[:, None].expand(-1, n_each, -1)
        given = torch.cat([z, ids], -1).flatten(0, 1)
        made = network(given.to(next(network.parameters()).device))
        return made.unflatten(0, (self.n_clusters, n_each))
