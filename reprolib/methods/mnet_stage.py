"""The second phase of DCSS, on the latent space of any autoencoder method: X + MNet (paper 004)."""

from __future__ import annotations

from typing import Any

import torch

from reprolib.kernels.pairwise import pairwise_loss
from reprolib.kernels.soft_assignment import fuzzy_memberships
from reprolib.methods.autoencoder import EMBED_ROWS, AutoencoderRun
from reprolib.networks.autoencoders import MNet

PHASE_1 = "phase 1"  # the method's own training
PHASE_2 = "phase 2"


class MNetRun(AutoencoderRun):
    """A run that ends with MNet on its latent space, if the model has `phase2_epochs`.

    Paper 004, section 3.2: pairs are told similar or dissimilar by the memberships p of the latent space
    for the first `u_epochs` T_2 epochs (equation 4), by q itself from then on (equation 5). The encoder
    is trained along, the decoder is left as it is.
    """

    def __init__(self, model: Any, *arguments: Any) -> None:
        # before a restore, which must know how many networks there are
        self.widths = {"width": model.mnet_width, "n_hidden": 3}
        self.clip = 0.0
        super().__init__(model, *arguments)

    def schedule(self) -> list[tuple[str, int]]:
        epochs = self.model.phase2_epochs
        return [(PHASE_2, epochs)] if epochs else []

    def prepare(self, stage: str) -> None:
        if stage != PHASE_2:
            return
        model = self.model
        mnet = MNet(model.latent_dim, model.n_clusters, generator=self.generator, **self.widths)
        self.modules["mnet"] = mnet.to(self.device)
        groups = [
            {"params": list(mnet.parameters()), "lr": model.mnet_rate},
            {"params": list(self.network.encoder.parameters()), "lr": model.encoder_rate},
        ]
        self.optimizers[PHASE_2] = torch.optim.Adam(groups)

    def train_batch(self, stage: str, batch: torch.Tensor) -> dict[str, float]:
        model = self.model
        latent = self.encode(self.inputs[batch].to(self.device))
        q = self.modules["mnet"](latent)  # (b, K)
        similarity = q.detach()
        if self.epoch < model.u_epochs:
            similarity = fuzzy_memberships(latent.detach(), self.centers.detach(), model.m)
        if self.clip:  # as released: no gradient passes where q is set to 0 or 1
            q = torch.where(q > 1 - self.clip, 1.0, torch.where(q < self.clip, 0.0, q))
        loss, n_similar, n_dissimilar = pairwise_loss(
            q, similarity, zeta=model.zeta, gamma=model.gamma
        )
        self.step(PHASE_2, loss)
        pairs = len(batch) ** 2
        return {
            "loss": float(loss.detach()) / pairs,
            "similar": n_similar / pairs,
            "dissimilar": n_dissimilar / pairs,
        }

    def end_epoch(self, stage: str) -> None:
        if stage == PHASE_2 and self.epoch <= self.model.u_epochs:
            self.refresh_centers()

    def report_interval(self, stage: str) -> int:
        return 1 if stage == PHASE_2 else super().report_interval(stage)

    @torch.no_grad()
    def refresh_centers(self) -> None:
        """Set the centers to the means of all latent vectors weighted by p^m: paper 004, equation 3."""
        latent = self.embed()
        weights = fuzzy_memberships(latent, self.centers, self.model.m) ** self.model.m  # (n, K)
        total = weights.sum(0)[:, None]
        # a center that no sample has weight for stays
        means = weights.T @ latent / total.clamp_min(torch.finfo(latent.dtype).tiny)
        self.centers.copy_(torch.where(total > 0, means, self.centers))

    @torch.no_grad()
    def soft_assignments(self, latent: torch.Tensor) -> torch.Tensor | None:
        if "mnet" not in self.modules:
            return None
        mnet = self.modules["mnet"].eval()
        return torch.cat([mnet(part) for part in latent.split(EMBED_ROWS)])
