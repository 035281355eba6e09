"""VaDE: the autoencoder of the family made variational, with a Gaussian mixture as its prior."""

import math
from typing import ClassVar

import numpy as np
import torch
from sklearn.mixture import GaussianMixture
from torch import Tensor, nn

from reprolib.graph.strays import cluster_means
from reprolib.methods.autoencoder import AutoencoderMethod, latent_vectors, reconstruct
from reprolib.methods.dec import OneLoss
from reprolib.training.trainer import ROWS

MIXTURE_STARTS = 5  # of expectation maximisation on the pretrained latent vectors
REG_COVAR = 1e-6  # scikit-learn's
FIRST_SHARE = 0.01  # of the components' variance that a posterior starts with
LIMITS = (-14.0, 14.0)  # of every log-variance; the lower is about the rounding of 8-bit pixels


def log_responsibilities(latent: Tensor, means: Tensor, log_variances: Tensor, log_weights: Tensor) -> Tensor:
    """Logarithms of gamma = p(c | z) (b, K), rows whose exponentials sum to 1.

    latent z (b, d); means and log_variances (K, d) of the components, log_weights (K,); float32 or float64,
    differentiable. Source: VaDE (Jiang et al. 2017), section 3.2, where q(c | x) is p(c | z) at one z. O(bKd).
    """
    squared = (latent[:, None] - means).square() * torch.exp(-log_variances)  # (b, K, d)
    return torch.log_softmax(log_weights - (squared + log_variances).sum(2) / 2, dim=1)


def mixture_divergence(mean: Tensor, log_variance: Tensor, log_gamma: Tensor, *prior: Tensor) -> Tensor:
    """KL divergence (b,) of q(z | x) q(c | x) from the mixture p(z, c), nats, never negative.

    mean and log_variance (b, d) of the normal q(z | x), log_gamma (b, K) of q(c | x), the prior's means,
    log_variances and log_weights as in `log_responsibilities`; float32 or float64, differentiable. Source: VaDE
    (Jiang et al. 2017), section 3.2: all terms of the ELBO but the reconstruction. O(bKd).
    """
    means, log_variances, log_weights = prior
    spread = (mean[:, None] - means).square() + log_variance.exp()[:, None]  # (b, K, d)
    energy = (log_variances + spread * torch.exp(-log_variances)).sum(2)  # (b, K)
    terms = energy / 2 + log_gamma - log_weights
    return (log_gamma.exp() * terms).sum(1) - (1 + log_variance).sum(1) / 2


def reconstruction_cost(inputs: Tensor, decoded: Tensor, log_noise: Tensor) -> Tensor:
    """-log p(x | z) (b,) in nats of inputs (b, ...): normal around `decoded`, all pixels of one `log_noise`."""
    error = (inputs - decoded).square().flatten(1)  # (b, D)
    constant = error.shape[1] * (log_noise + math.log(2 * math.pi))
    return (error.sum(1) * torch.exp(-log_noise) + constant) / 2


def fit_mixture(
    points: np.ndarray, n_clusters: int, seed: int, labels: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Weights (K,), means (K, d) and variances (K, d) of a diagonal mixture on points float64 (n, d), by EM.

    With `labels` (n,), each of the K clusters used, the mixture that is likeliest for them: one M-step, no EM.
    """
    if labels is None:
        options = {"covariance_type": "diag", "n_init": MIXTURE_STARTS, "random_state": seed}
        found = GaussianMixture(n_clusters, **options).fit(points)
        return found.weights_, found.means_, found.covariances_
    means = cluster_means(points, labels)
    # EM adds as much, so that a cluster of one point has a density
    variances = cluster_means((points - means[labels]) ** 2, labels) + REG_COVAR
    return np.bincount(labels) / len(labels), means, variances


class Mixture(nn.Module):
    """What VaDE trains beside its networks and `Centers`, the component means."""

    def __init__(self, n_clusters: int, latent_dim: int) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.zeros(n_clusters))  # of the weights
        self.log_variances = nn.Parameter(torch.zeros(n_clusters, latent_dim))
        self.log_noise = nn.Parameter(torch.zeros(()))  # of the pixels

    @property
    def log_weights(self) -> Tensor:
        """Logarithms of the mixture weights (K,)."""
        return torch.log_softmax(self.logits, dim=0)


def prior(modules: nn.ModuleDict) -> tuple[Tensor, Tensor, Tensor]:
    """Means (K, d), log-variances (K, d) and log-weights (K,) of the mixture."""
    mixture = modules["mixture"]
    return modules["centers"].values, mixture.log_variances, mixture.log_weights


class NegativeELBO(OneLoss):
    """The negative ELBO of one sample z for each x."""

    moves_centers = True

    def build(self) -> None:
        run, model = self.run, self.model
        last = run.modules["network"].encoder[-1]
        head = run.module("log_variance", nn.Linear(last.in_features, last.out_features))
        for values in head.parameters():
            nn.init.zeros_(values)
        run.module("mixture", Mixture(model.n_clusters, model.latent_dim))
        super().build()

    def optimizer(self) -> torch.optim.Optimizer:
        adam, modules = super().optimizer(), self.run.modules
        parts = [*modules["log_variance"].parameters(), *modules["mixture"].parameters()]
        adam.add_param_group({"params": parts})
        return adam

    @torch.no_grad()
    def start(self, labels: np.ndarray) -> None:
        run, mixture = self.run, self.run.modules["mixture"]
        latent = latent_vectors(run).cpu().double().numpy()  # (n, d)
        # EM adds a constant to the variances and subtracts squares: neither depends on the scale now
        shift, scale = latent.mean(0), latent.std() or 1.0
        scaled, given = (latent - shift) / scale, labels if self.model.start != "kmeans" else None
        weights, means, variances = fit_mixture(scaled, self.model.n_clusters, run.seed, given)
        variances = variances * scale**2  # (K, d)
        self.centers.copy_(torch.from_numpy(means * scale + shift))
        mixture.log_variances.copy_(torch.from_numpy(np.log(variances)))
        mixture.logits.copy_(torch.from_numpy(np.log(weights)))
        errors = run.over_all(lambda x: (reconstruct(run, x)[1] - x).square().sum(dtype=torch.float64)[None])
        mixture.log_noise.copy_((errors.sum() / run.inputs.numel()).log())
        # small, so that the first samples stay where the mixture was fitted
        first = torch.from_numpy(np.log(FIRST_SHARE * (weights @ variances)))  # (d,)
        run.modules["log_variance"].bias.copy_(first.clamp(*LIMITS))
        self.after_step()

    def losses(self, inputs: Tensor, batch: Tensor) -> dict[str, Tensor]:
        run, network = self.run, self.run.modules["network"]
        with run.autocast():
            features = network.encoder[:-1](inputs)
            mean = network.encoder[-1](features).float()  # (b, d)
            log_variance = run.modules["log_variance"](features).float().clamp(*LIMITS)
            noise = torch.randn(mean.shape, generator=run.noise, device=run.device)
            latent = mean + noise * torch.exp(log_variance / 2)
            decoded = network.decode(latent).float()
        mixture = prior(run.modules)
        log_gamma = log_responsibilities(latent, *mixture)  # (b, K)
        divergence = mixture_divergence(mean, log_variance, log_gamma, *mixture).mean()
        cost = reconstruction_cost(inputs, decoded, run.modules["mixture"].log_noise).mean()
        return {"reconstruction": cost, "divergence": divergence}

    @torch.no_grad()
    def after_step(self, batch: Tensor | None = None) -> None:
        """Keep the trained log-variances within LIMITS, where no exponential leaves float32."""
        mixture = self.run.modules["mixture"]
        mixture.log_variances.clamp_(*LIMITS)
        mixture.log_noise.clamp_(*LIMITS)


class VaDE(AutoencoderMethod):
    """Variational deep embedding (Jiang, Zheng, Tan, Tang and Zhou 2017): a VAE with a mixture prior.

    A normal posterior around each latent vector, its log-variances from a second linear layer on the encoder's
    features; as the prior a mixture of K diagonal Gaussians, trained along, from expectation maximisation on the
    pretrained latent vectors. Labels are the components of largest gamma at the posterior mean; `centers_` are the
    component means, `embedding_` the posterior means. In `history_`, `loss` is the negative ELBO in nats a sample.

    Pixels are normal around the linear decoder's output, where the authors take Bernoulli ones for MNIST; their
    variance starts at the pretrained squared error and is trained. The authors' learning rate is 2e-3, lowered over
    time.
    """

    STAGE: ClassVar = NegativeELBO

    @staticmethod
    @torch.no_grad()
    def assign(modules: nn.ModuleDict, latent: Tensor) -> Tensor:
        """Labels (n,) of latent vectors (n, latent_dim): MNet's, else the components of largest gamma."""
        if "mnet" in modules:
            return AutoencoderMethod.assign(modules, latent)
        mixture = prior(modules)
        return torch.cat([log_responsibilities(u, *mixture).argmax(1) for u in latent.split(ROWS)])
