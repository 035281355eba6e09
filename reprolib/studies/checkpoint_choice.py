"""What an epoch of the pretraining chosen by its label accuracy would buy.

The released code of paper 004 keeps the epoch whose k-means clusters agree best with the true labels. Here
k-means looks at every epoch of the same pretraining; nothing is chosen.
"""

from typing import Any, ClassVar

from sklearn.cluster import KMeans

from reprolib.methods.autoencoder import PRETRAIN, STARTS, Pretrain, latent_vectors
from reprolib.methods.dec import AEKMeans
from reprolib.training.monitor import Report
from reprolib.training.trainer import Run, Stage, as_numpy


class Watched(Pretrain):
    """A pretraining that reports the clusters of k-means after each of its epochs."""

    report_every = 1

    def report(self) -> Report:
        """k-means as at the end of the pretraining; periods count down to 0, the last epoch."""
        latent = as_numpy(latent_vectors(self.run))
        means = KMeans(self.model.n_clusters, n_init=STARTS, random_state=self.run.seed)
        return Report(PRETRAIN, self.run.epoch - self.epochs, means.fit_predict(latent), latent)


class AEKMeansByEpoch(AEKMeans):
    """`AEKMeans` whose monitor is told of every epoch of the pretraining."""

    behaviours: ClassVar = ("AEKMeans",)

    def stages(self, run: Run, X: Any = None) -> list[Stage]:
        """Those of AE + k-means, the first one watched."""
        return [Watched(run, self.pretrain_epochs), *super().stages(run, X)[1:]]
