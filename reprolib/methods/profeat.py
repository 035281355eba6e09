"""ProFeat: SimCLR and SCAN in turns, the embedding refined by the images that are sure of their cluster (paper 000)."""

from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from reprolib.kernels.contrastive import well_connected
from reprolib.methods.base import Count, Natural, Positive, Weight
from reprolib.methods.scan import SCAN
from reprolib.methods.simclr import Contrast, Features, unit_features
from reprolib.training.trainer import Run, Stage, as_numpy


class Refine(Contrast):
    """Contrastive steps among confident images alone, those of one cluster positives (section 2.2, and 2.4).

    g and p go on from the round before. One model's images are confident above t_s; an ensemble's, where at least t_c
    others of the batch are in one cluster with it by at least t_e models.
    """

    name, unlabelled, shared = "refine", False, ()

    def __init__(self, run: Run, *options: int) -> None:
        super().__init__(run, *options)
        self.report_every = self.epochs

    @property
    def rate(self) -> float:
        return self.model.round_rate

    @torch.no_grad()
    def begin(self) -> None:
        run, model = self.run, self.model
        votes = torch.stack([run.tensors[f"labels.{e}"] for e in range(model.ensemble)], 1)  # (n, E)
        run.tensors["votes"] = votes
        if model.ensemble > 1:  # whose images are sure by what else is in the batch
            return
        run.tensors["sure"] = sure = run.tensors["confidence.0"] > model.t_s
        share = float(sure[: self.n].double().mean())
        shares = torch.bincount(votes[: self.n, 0][sure[: self.n]], minlength=model.n_clusters)
        largest = float(shares.max() / shares.sum().clamp_min(1))
        if share < model.round_from or largest > model.round_largest:
            self.stop(
                f"left out with all later ones: {share:.1%} of the images have a probability above t_s={model.t_s}, "
                f"{largest:.0%} of them in one cluster, which round_from={model.round_from} and "
                f"round_largest={model.round_largest} do not let through: take more scan_steps, or a smaller t_s",
                self.round - 1,
            )

    def clusters(self, batch: Tensor) -> dict[str, Any]:
        run, model = self.run, self.model
        votes = run.tensors["votes"][batch]
        if model.ensemble > 1:
            kept = well_connected(votes, model.t_c, model.agreeing)
        else:
            kept = run.tensors["sure"][batch]
        return {"votes": votes, "agreeing": model.agreeing, "kept": kept}

    @torch.no_grad()
    def report(self) -> Features:
        latent = unit_features(self.run, self.member)
        labels = self.model.by_kmeans(latent, self.run.seed)
        return Features(self.name, self.period(), labels, latent)


class ProFeat(SCAN):
    """ProFeat (Kim, Im and Cho, paper 000): rounds of SCAN, between which confident images refine the embedding g.

    The first round is SCAN. In each later one g goes on along equation 1, with the images of a cluster as positives,
    and the clustering step begins anew from it. With `ensemble` E > 1 models do so side by side and an image is
    confident where they agree (section 2.4); what is kept is the first, chosen beforehand. Not in the paper, off by
    default: `round_from` and `round_largest`, the share of images that must be confident, and the largest share of
    them that one cluster may have, for a round of one model to be begun.
    After `fit` `results_`: those of SCAN in the first round; "profeat"; "member-2" on, the other models' last labels.
    """

    rounds: Count = 10  # the paper's iterations
    ensemble: Count = 1  # E
    t_s: Weight = 0.99  # 0 takes all images
    t_e: Natural = 0  # models that must agree; 0 for all. The paper's "more than 5 of 5" cannot be
    t_c: Natural = 0  # connections within a batch
    round_steps: Count = 4_850  # 50 epochs of 97
    round_rate: Positive = 0.4  # the paper names one rate, and not whether it begins anew
    round_from: Weight = 0.0  # ours
    round_largest: Weight = 1.0  # ours
    RESULTS: ClassVar = SCAN.RESULTS | {"profeat": "ProFeat"}

    @property
    def agreeing(self) -> int:
        """Models that must agree for two images to be connected."""
        return self.t_e or self.ensemble

    def check_parameters(self) -> None:
        super().check_parameters()
        if self.t_e > self.ensemble:
            raise ValueError(
                f"t_e must be at most ensemble={self.ensemble}, got {self.t_e}: so many models cannot agree; 0 is all"
            )
        if self.t_c >= self.pretext_batch:
            raise ValueError(
                f"t_c must be below pretext_batch={self.pretext_batch}, got {self.t_c}: a batch has no more others"
            )

    def stages(self, run: Run, X: Any = None) -> list[Stage]:
        """The pretext and SCAN of every member; then, in each round, all embeddings first."""
        found: list[Stage] = []
        for number in range(self.rounds):
            steps, stage = (self.round_steps, Refine) if number else (self.pretext_steps, Contrast)
            found += [stage(run, steps, self.pretext_batch, number, e) for e in range(self.ensemble)]
            for e in range(self.ensemble):
                found += self.clustering(run, number, e)
        return found

    def finish(self, run: Run) -> dict[str, np.ndarray]:
        """What SCAN leaves, and the last labels of each member."""
        first, *others = (as_numpy(run.tensors[f"labels.{e}"]) for e in range(self.ensemble))
        return super().finish(run) | {"profeat": first} | {f"member-{e + 2}": found for e, found in enumerate(others)}
