r"""Inter-class separation: DEC with reconstruction, a triplet constraint and an entropy constraint (paper 001).

The text of the paper that we have lost its equations and most numbers. Equations 1 to 4 are certain in form, as they
cite DEC; 5 to 7 are reconstructed from the sentences around them. Of every parameter below is said where it comes
from: *certain*, the text says it; *inferred*, the text hints at it; *ours*, nothing does.
"""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from reprolib.kernels.augment import augment
from reprolib.kernels.soft_assignment import dec_loss, student_t, target_distribution
from reprolib.methods import autoencoder
from reprolib.methods.autoencoder import PHASE_1, AutoencoderMethod, FromStart, Pretrain
from reprolib.methods.base import Count, Natural, OfImages, Positive, Weight
from reprolib.networks.autoencoders import PooledAutoencoder
from reprolib.training.monitor import Report
from reprolib.training.trainer import Run, Stage, as_numpy

WARM_UP = "warm-up"
INERT, BAD = 0.02, 0.8  # shares of active hinges: below, nothing is learned; above, negatives are no farther
RUNAWAY = 5.0  # times the first spread of the latent vectors
# the text where it speaks, and nothing where it is silent: see `InterClassSeparation`
PRINTED = dict(sphere=False, margin=0.24, warmup_epochs=0, shift=0.0, shear=0.0)


def separation(anchor: Tensor, positive: Tensor, negative: Tensor, margin: float, *, squared: bool = True) -> Tensor:
    """Hinges (b,) of latent vectors (b, d): max(0, |a - p|^2 - |a - n|^2 + margin), or of plain distances.

    Source: paper 001, section 3.3, equation 5; the form is inferred from what the text says of its margin, whether
    distances are squared is not known. Where all three are one point it is the margin, with gradient 0.
    """
    near, far = _distances(anchor, positive, squared), _distances(anchor, negative, squared)
    return (near - far + margin).clamp_min(0)


def _distances(u: Tensor, others: Tensor, squared: bool) -> Tensor:
    """Distances (b,) of the rows of u and others (b, d); the plain ones have gradient 0 at 0."""
    return (u - others).square().sum(1) if squared else torch.linalg.vector_norm(u - others, dim=1)


def entropy_constraint(q: Tensor) -> Tensor:
    """Mean entropy of the rows of q (b, K) less the entropy of their mean, nats, in [-log K, 0]: to be minimised.

    Least for rows sure of one cluster each, all clusters as often; 0 for rows alike. Source: paper 001, section 3.3,
    equation 6, after Bridle et al. 1992; the sign is inferred from its aim.
    """
    return torch.special.entr(q).sum(1).mean() - torch.special.entr(q.mean(0)).sum()


def spread_radius(distances: Tensor, rule: str = "maximum") -> Tensor:
    """Radius (b,) of an image's augmentations from their latent distances to it (b, n_augmentations).

    "maximum", or "two sigma": mean and two standard deviations. Source: paper 001, Algorithm 1, which speaks of the
    distribution of the augmented images; both rules are ours.
    """
    if rule == "two sigma":
        return distances.mean(1) + 2 * distances.std(1, correction=0)
    return distances.amax(1)


def choose_negatives(
    latent: Tensor, positive: Tensor, radius: Tensor, keys: Tensor, rule: str = "outside"
) -> tuple[Tensor, Tensor]:
    """For each of b images another one of them as its negative, int64 (b,), and which are outside, bool (b, b).

    latent and positive (b, d) of the images and of one augmentation of each; radius (b,) as in `spread_radius`; keys
    (b, b), uniform random numbers. Outside is what is farther than the radius from the anchor and from its positive.
    "outside": the one with the largest key among those, which is the paper's drawing until one is found, from b - 1
    draws without return; where none is found, the farthest from the anchor. "nearest" outside, and "any" other image,
    are our ablations. At least 2 images; O(b^2 d), no wait for the device.

    Source: paper 001, section 3.3, Algorithm 1, whose steps are inferred.
    """
    near, to_positive = (
        torch.cdist(u, latent, compute_mode="donot_use_mm_for_euclid_dist") for u in (latent, positive)
    )
    itself = torch.eye(len(latent), dtype=torch.bool, device=latent.device)
    outside = (torch.minimum(near, to_positive) > radius[:, None]) & ~itself  # (b, b)
    allowed = ~itself if rule == "any" else outside
    order = -near if rule == "nearest" else keys
    best = order.masked_fill(~allowed, -torch.inf).argmax(1)
    chosen = torch.where(allowed.any(1), best, near.masked_fill(itself, -1.0).argmax(1))
    return chosen, outside


class Separated(Stage):
    """Steps on anchors, one augmentation of each and negatives from the batch: reconstruction and separation.

    Algorithm 1 as a batch does it: every `radius_interval` epochs the radius of each image from `n_augmentations` of
    them, by running statistics, which costs as many passes of all images through the encoder, without gradients; then
    in every step negatives from the batch, whose latent vectors are there: O(b^2 d). A step encodes 2 b images and
    decodes b. Source: paper 001, section 3.3 and equation 1.
    """

    def begin(self) -> None:
        super().begin()
        self.run.tensors["variance"] = self.run.inputs.var().to(self.run.device)

    def begin_epoch(self) -> None:
        if self.run.epoch % self.model.radius_interval == 0:
            self.renew("radius", self.run.over_all(self.radius))  # (n,)

    def renew(self, name: str, value: Tensor) -> None:
        """Keep a tensor in the checkpoint, on the memory that it has."""
        kept = self.run.tensors.get(name)
        if kept is None or kept.shape != value.shape:
            self.run.tensors[name] = value
        else:
            kept.copy_(value)

    def radius(self, inputs: Tensor) -> Tensor:
        """Radius (b,) of inputs (b, ...) by the networks as they stand."""
        run, model = self.run, self.model
        latent = model.separated(autoencoder.encode(run, inputs))
        changed = (model.augmented(inputs, run.noise) for _ in range(model.n_augmentations))
        spread = [model.separated(autoencoder.encode(run, each)) - latent for each in changed]
        return spread_radius(torch.stack([d.norm(dim=1) for d in spread], 1), model.radius)

    def step(self, batch: Tensor) -> dict[str, Tensor]:
        run, model = self.run, self.model
        batch = batch.to(run.device)
        inputs, network = run.batch(batch), run.modules["network"]
        with run.autocast():
            both = network.encode(torch.cat([inputs, model.augmented(inputs, run.noise)])).float()  # (2 b, d)
            latent, changed = both.chunk(2)
            decoded = network.decode(latent).float()
        anchor, positive = model.separated(latent), model.separated(changed)
        keys = torch.rand(len(batch), len(batch), generator=run.noise, device=run.device)
        with torch.no_grad():
            chosen, outside = choose_negatives(anchor, positive, run.tensors["radius"][batch], keys, model.negatives)
        negative = anchor[chosen]
        hinges = separation(anchor, positive, negative, model.margin, squared=model.squared)
        # of images of unit variance, as the paper has them (section 4.3)
        error = F.mse_loss(decoded, inputs) / run.tensors["variance"]
        losses = {"reconstruction": model.reconstruction_weight * error}
        losses |= {"separation": model.separation_weight * hinges.mean()} | self.clustering(latent, batch)
        loss = sum(losses.values())
        run.descend(PHASE_1, loss)
        told = {"loss": loss} | losses | {"far": _distances(anchor, negative, model.squared).mean()}
        told |= {"active": (hinges > 0).double().mean(), "spread": latent.var(0).mean().sqrt()}
        told["outside"] = outside.double().sum() / (len(batch) * (len(batch) - 1))
        return {name: value.detach() for name, value in told.items()}

    def clustering(self, latent: Tensor, batch: Tensor) -> dict[str, Tensor]:
        """Weighted terms of the latent vectors (b, d) of samples `batch` (b,) and the centers."""
        return {}


class WarmUp(Separated):
    """Reconstruction and separation before there are centers: ours, the paper goes from three epochs to all terms."""

    name = WARM_UP

    def build(self) -> None:
        super().build()
        weights = self.run.modules["network"].parameters()
        self.run.optimizers = {PHASE_1: self.run.adam(weights, lr=self.model.learning_rate)}


class Separate(Separated, FromStart):
    """All four terms (paper 001, equation 7); the target distribution P of all images is fixed for some epochs."""

    def optimizer(self) -> torch.optim.Optimizer:
        trained = [*self.run.modules["network"].parameters(), self.centers]
        return self.run.adam(trained, lr=self.model.learning_rate)

    @torch.no_grad()
    def begin_epoch(self) -> None:
        super().begin_epoch()
        if self.run.epoch % self.model.target_interval == 0:
            q = student_t(autoencoder.latent_vectors(self.run), self.centers)
            self.renew("target", target_distribution(q))  # (n, K)

    @torch.no_grad()
    def report(self) -> Report:
        found = super().report()
        q = student_t(torch.from_numpy(found.embedding), self.centers.cpu())
        return replace(found, q=as_numpy(q))

    def clustering(self, latent: Tensor, batch: Tensor) -> dict[str, Tensor]:
        divergence = dec_loss(latent, self.centers, self.run.tensors["target"][batch])
        entropy = entropy_constraint(student_t(latent, self.centers))
        return {"clustering": self.model.clustering_weight * divergence, "entropy": self.model.entropy_weight * entropy}


def signs_of_failure(history: Sequence[Mapping[str, Any]], margin: float) -> list[str]:
    """What the rows of a history tell without labels: inert triplets, negatives no farther, a scale that runs away."""
    rows, found = [row for row in history if "active" in row], []
    if not rows:
        return found
    active, far, growth = rows[-1]["active"], rows[-1]["far"], rows[-1]["spread"] / max(rows[0]["spread"], 1e-30)
    against = f"the margin of {margin} against distances to the negatives of {far:.3g} in the mean"
    if active < INERT:
        found.append(
            f"the triplets are inert: {active:.1%} of the hinges are active in the last epoch, {against}: take a "
            "margin near that distance, with sphere=True, where distances have a bound"
        )
    if active > BAD:
        found.append(
            f"negatives are no farther than augmentations: {active:.0%} of the hinges are active in the last epoch, "
            f"{against}: take milder augmentations, or a smaller margin"
        )
    if growth > RUNAWAY:
        found.append(
            f"the scale of the latent vectors runs away, {growth:.1f} times what it was: take sphere=True, where "
            "distances have a bound, or a smaller separation_weight"
        )
    return found


class InterClassSeparation(OfImages, AutoencoderMethod):
    """Deep clustering by inter-class separation (Das, Ghosh and Bhowmick 2019, paper 001), of images alone.

    Reconstruction first; then the weighted sum (equation 7) of reconstruction, DEC's divergence, a triplet constraint
    on an image, its augmentation and a negative that lies outside the spread of its augmentations (Algorithm 1), and
    an entropy constraint. The text's margin of 0.24 leaves latent vectors as they are with hardly a triplet that has a
    gradient (the variant "printed", of which `fit` warns). So the defaults separate directions, by a margin near the
    mean distance to negatives, which has half of the hinges active, and for some epochs before there are centers.
    In `history_`: "active", the share of hinges above 0; "outside", of the others of a batch outside the spread;
    "far", the mean distance to negatives; "spread", the deviation of latent vectors.
    """

    # Of each parameter, how well it is known: certain, inferred or ours. A page and a test read these lines.
    network: Literal["shallow", "deep", "paper 004"] = "shallow"  # certain: two, their sizes lost; the last ours
    pretrain_epochs: Natural = 3  # certain: of reconstruction alone
    warmup_epochs: Natural = 15  # ours: of reconstruction and separation, before there are centers
    learning_rate: Positive = 1e-3  # ours: lost
    reconstruction_weight: Weight = 1.0  # ours: lambda_1; all four lost, which belongs to which inferred
    clustering_weight: Weight = 1.0  # ours: lambda_2
    separation_weight: Weight = 1.0  # ours: lambda_3
    entropy_weight: Weight = 1.0  # ours: lambda_4
    margin: Weight = 2.0  # ours: alpha; printed are 0.24 and, for the deep network, 0.3, of a scale not known
    squared: bool = True  # inferred: the distances of equation 5
    sphere: bool = True  # ours: separate latent vectors of unit length
    radius: Literal["maximum", "two sigma"] = "maximum"  # inferred: how far an image's augmentations reach
    negatives: Literal["outside", "nearest", "any"] = "outside"  # inferred: which of a batch; the others are ablations
    n_augmentations: Count = 10  # ours: for a radius
    radius_interval: Count = 5  # ours: epochs between two; one takes the time of two epochs' steps
    target_interval: Count = 1  # ours: epochs between two targets P
    rotation: Weight = 15.0  # certain: degrees; how many, and how much below, is ours
    scale: Weight = 0.15  # certain: up and down
    erasing: Weight = 0.3  # certain: of a side
    flip: Weight = 0.0  # certain: probability, for some data set; but it changes a digit
    shift: Weight = 0.1  # ours: of a side
    shear: Weight = 0.2  # ours: of the height
    VARIANTS: ClassVar = {"paper": {}, "printed": PRINTED}
    STAGE: ClassVar = Separate

    def check_parameters(self) -> None:
        super().check_parameters()
        for name in ("scale", "erasing", "flip"):
            if (value := getattr(self, name)) > 1 or value == 1 and name == "scale":
                bound = "below" if name == "scale" else "at most"
                raise ValueError(f"{name} must be {bound} 1, got {value}: it is a share")

    def autoencoder(self, shape: tuple[int, ...], generator: torch.Generator) -> nn.Module:
        if self.network == "paper 004":
            return super().autoencoder(shape, generator)
        return PooledAutoencoder(shape, self.latent_dim, self.network, generator)

    def stages(self, run: Run, X: Any = None) -> list[Stage]:
        """Pretraining, the warm-up if it has epochs, all terms and, if it has epochs, the pairs."""
        first, *others = super().stages(run, X)
        if self.network != "paper 004":  # else the family's
            first.shared = (*Pretrain.shared, "network")
        warm = [WarmUp(run, self.warmup_epochs)] if self.warmup_epochs else []
        return [first, *warm, *others]

    def finish(self, run: Run) -> dict[str, np.ndarray]:
        """What the family keeps; warn of signs of failure."""
        for sign in signs_of_failure(run.history, self.margin) if self.separation_weight else ():
            warnings.warn(sign, stacklevel=3)
        return super().finish(run)

    def augmented(self, inputs: Tensor, generator: torch.Generator) -> Tensor:
        """Another random change of each of the images (b, c, h, w)."""
        names = "rotation", "scale", "shift", "shear", "erasing", "flip"
        return augment(inputs, generator, **{name: getattr(self, name) for name in names})

    def separated(self, latent: Tensor) -> Tensor:
        """Latent vectors (b, d) as the separation and Algorithm 1 see them."""
        return F.normalize(latent, dim=1) if self.sphere else latent
