"""DCSS: an autoencoder with a loss for each cluster, then pairwise similarities (paper 004)."""

from __future__ import annotations

from typing import Any

import torch

from reprolib.checks import unknown_name
from reprolib.kernels.soft_assignment import fuzzy_memberships
from reprolib.methods.autoencoder_base import AutoencoderEstimator
from reprolib.methods.mnet_stage import PHASE_1, PHASE_2, MNetRun
from reprolib.networks.autoencoders import MNet

# What the paper and its released code do differently, and the cheap reading of phase 1
VARIANTS: dict[str, dict[str, Any]] = {
    "paper": dict(
        runs="successive",
        optimizer="adam",
        learning_rate=1e-5,
        memberships="each run",
        mnet_hidden=3,
        clip=0.0,
    ),
    "released": dict(
        runs="successive",
        optimizer="sgd",
        learning_rate=1e-6,
        memberships="each batch",
        mnet_hidden=2,
        clip=0.01,
    ),
}
VARIANTS["joint"] = VARIANTS["paper"] | dict(runs="joint")
CHOICES: dict[str, tuple[str, ...]] = {
    "runs": ("successive", "joint"),
    "optimizer": ("adam", "sgd"),
    "memberships": ("each run", "each batch"),
}
MOMENTUM = 0.9  # of the released code's plain gradient steps


def phase_1_losses(
    inputs: torch.Tensor,
    decoded: torch.Tensor,
    latent: torch.Tensor,
    centers: torch.Tensor,
    weights: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Reconstruction and centering loss of each run, (K,) and (K,): paper 004, equations 1b and 1c.

    inputs, decoded (b, ...); latent (b, d); centers (K, d); weights p^m (b, K). Sums over the batch.
    """
    error = (inputs - decoded).flatten(1).square().sum(1)  # (b,)
    distance = (latent[:, None] - centers).square().sum(2)  # (b, K)
    return error @ weights, (weights * distance).sum(0)


class DCSSRun(MNetRun):
    """Phase 1, K runs a batch or one, then phase 2."""

    def __init__(self, model: DCSS, *arguments: Any) -> None:
        self.settings = model.settings()
        super().__init__(model, *arguments)

    def schedule(self) -> list[tuple[str, int]]:
        self.widths["n_hidden"] = self.settings["mnet_hidden"]
        self.clip = self.settings["clip"]
        return [(PHASE_1, self.model.phase1_epochs), *super().schedule()]

    def prepare(self, stage: str) -> None:
        super().prepare(stage)
        if stage == PHASE_1:
            parameters, rate = self.network.parameters(), self.settings["learning_rate"]
            if self.settings["optimizer"] == "adam":
                self.optimizers[PHASE_1] = torch.optim.Adam(parameters, lr=rate)
            else:
                self.optimizers[PHASE_1] = torch.optim.SGD(parameters, lr=rate, momentum=MOMENTUM)

    def begin(self, stage: str) -> None:
        if stage == PHASE_1:
            self.kmeans()

    def train_batch(self, stage: str, batch: torch.Tensor) -> dict[str, float]:
        if stage == PHASE_2:
            return super().train_batch(stage, batch)
        inputs = self.inputs[batch].to(self.device)
        model, centers = self.model, self.centers.detach()
        joint = self.settings["runs"] == "joint"
        weights, sums = None, torch.zeros(2)
        for k in range(1 if joint else model.n_clusters):
            latent, decoded = self.reconstruct(inputs)
            if weights is None or self.settings["memberships"] == "each run":
                weights = fuzzy_memberships(latent.detach(), centers, model.m) ** model.m  # (b, K)
            run = slice(None) if joint else slice(k, k + 1)
            parts = phase_1_losses(inputs, decoded, latent, centers[run], weights[:, run])
            reconstruction, centering = (part.sum() for part in parts)
            self.step(PHASE_1, reconstruction + model.alpha * centering)
            sums += torch.stack([reconstruction, centering]).detach().cpu()
        reconstruction, centering = (sums / model.n_clusters).tolist()  # means over runs: Figure 4
        return {
            "loss": reconstruction + model.alpha * centering,
            "reconstruction": reconstruction,
            "centering": centering,
        }

    def end_epoch(self, stage: str) -> None:
        super().end_epoch(stage)
        if stage == PHASE_1 and self.epoch % self.model.center_interval == 0:
            self.refresh_centers()


class DCSS(AutoencoderEstimator):
    """Deep clustering with self-supervision using pairwise data similarities (paper 004).

    Phase 1 trains an autoencoder in K successive runs a batch, each with the loss of one cluster
    (equations 1 to 3); phase 2 trains MNet and the encoder by pairs (equations 4 and 5).
    `phase2_epochs=0` is DCSS_u, phase 1 alone. Symbols of the paper: `alpha`, fuzziness `m`,
    `center_interval` T_1, `phase1_epochs` MaxIter_1, `u_epochs` T_2, `phase2_epochs` MaxIter_2, `zeta`
    and `gamma`. `variant` sets what the paper and its released code do differently; "joint" takes the
    losses of the K runs in one step, K times cheaper. The parameters after it override it one by one.
    """

    _run = DCSSRun

    def __init__(
        self,
        n_clusters: int = 10,
        *,
        latent_dim: int = 10,
        pretrain_epochs: int = 200,
        pretrain_rate: float = 1e-3,
        phase1_epochs: int = 200,
        phase2_epochs: int = 20,
        batch_size: int = 500,
        alpha: float = 0.1,
        m: float = 1.5,
        center_interval: int = 2,
        u_epochs: int = 5,
        zeta: float = 0.8,
        gamma: float = 0.2,
        mnet_width: int = 128,
        mnet_rate: float = 1e-3,
        encoder_rate: float = 1e-5,
        precision: str = "float32",
        variant: str = "paper",
        runs: str | None = None,
        optimizer: str | None = None,
        learning_rate: float | None = None,
        memberships: str | None = None,
        mnet_hidden: int | None = None,
        clip: float | None = None,
        device: str = "auto",
        random_state: int = 0,
        verbose: bool = False,
    ) -> None:
        self.n_clusters = n_clusters
        self.latent_dim = latent_dim
        self.pretrain_epochs = pretrain_epochs
        self.pretrain_rate = pretrain_rate
        self.phase1_epochs = phase1_epochs
        self.phase2_epochs = phase2_epochs
        self.batch_size = batch_size
        self.alpha = alpha
        self.m = m
        self.center_interval = center_interval
        self.u_epochs = u_epochs
        self.zeta = zeta
        self.gamma = gamma
        self.mnet_width = mnet_width
        self.mnet_rate = mnet_rate
        self.encoder_rate = encoder_rate
        self.precision = precision
        self.variant = variant
        self.runs = runs
        self.optimizer = optimizer
        self.learning_rate = learning_rate
        self.memberships = memberships
        self.mnet_hidden = mnet_hidden
        self.clip = clip
        self.device = device
        self.random_state = random_state
        self.verbose = verbose

    def settings(self) -> dict[str, Any]:
        """Values of the variant's parameters in force: the variant's, or the override.

        Raises ValueError for an unknown variant or choice.
        """
        if self.variant not in VARIANTS:
            raise unknown_name("variant", self.variant, VARIANTS)
        settings = {
            name: value if getattr(self, name) is None else getattr(self, name)
            for name, value in VARIANTS[self.variant].items()
        }
        for name, valid in CHOICES.items():
            if settings[name] not in valid:
                raise unknown_name(name, settings[name], valid)
        return settings

    def _more_modules(self) -> dict[str, torch.nn.Module]:
        if not self.phase2_epochs:
            return {}
        hidden = self.settings()["mnet_hidden"]
        return {"mnet": MNet(self.latent_dim, self.n_clusters, self.mnet_width, hidden)}
