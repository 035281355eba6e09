"""What an epoch of the pretraining chosen by its label accuracy would buy.

The released code of paper 004 keeps the epoch whose k-means clusters agree best with the true labels. Here
k-means looks at every epoch of the same pretraining; nothing is chosen.
"""

from typing import Any, ClassVar

from reprolib.methods.autoencoder import PRETRAIN, Pretrain, latent_vectors
from reprolib.methods.dec import AEKMeans
from reprolib.methods.starts import kmeans_start
from reprolib.training.monitor import Report
from reprolib.training.trainer import Run, Stage, as_numpy


class Watched(Pretrain):
    """A pretraining that reports the clusters of k-means after each of its epochs."""

    report_every = 1

    def report(self) -> Report:
        """k-means as at the end of the pretraining; periods count down to 0, the last epoch."""
        latent = as_numpy(latent_vectors(self.run))
        labels, _ = kmeans_start(latent, self.model.n_clusters, self.run.seed)
        return Report(PRETRAIN, self.run.epoch - self.epochs, labels, latent)


class AEKMeansByEpoch(AEKMeans):
    """`AEKMeans` whose monitor is told of every epoch of the pretraining."""

    behaviours: ClassVar = ("AEKMeans",)

    def stages(self, run: Run, X: Any = None) -> list[Stage]:
        """Those of AE + k-means, the first one watched."""
        return [Watched(run, self.pretrain_epochs), *super().stages(run, X)[1:]]
