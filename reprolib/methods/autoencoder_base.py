"""What DCSS and the autoencoder methods share as estimators."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import numpy as np
import torch
from sklearn.base import BaseEstimator, ClusterMixin

from reprolib.checks import unknown_name
from reprolib.data.images import sealed_labels
from reprolib.kernels.soft_assignment import squared_distances
from reprolib.methods.autoencoder import EMBED_ROWS, AutoencoderRun, Centers, Stage, as_inputs
from reprolib.methods.autoencoder import build_autoencoder as build
from reprolib.training.checkpoint import load_checkpoint, save_checkpoint

PRECISIONS = ("float32", "bfloat16")


class AutoencoderEstimator(ClusterMixin, BaseEstimator):
    """Pretrain an autoencoder, then cluster its latent vectors while training on.

    Subclasses name their loop in `_run` and set their parameters; all have `n_clusters`,
    `latent_dim`, `pretrain_epochs`, `pretrain_rate`, `batch_size`, `precision`, `device`,
    `random_state` and `verbose`.

    After `fit`: `labels_` int32 (n,); `stage_labels_`, the labels at the end of each stage by its name,
    those of k-means at "pretrain"; `embedding_` float32 (n, latent_dim) the latent vectors u;
    `centers_` float32 (n_clusters, latent_dim); `history_` one dict an epoch.
    """

    _run: ClassVar[type[AutoencoderRun]]

    def fit(
        self,
        X: Any,
        y: None = None,
        *,
        monitor: Callable[[Stage], None] | None = None,
        checkpoint: str | os.PathLike | None = None,
        pretrained: str | os.PathLike | None = None,
    ) -> AutoencoderEstimator:
        """Cluster `Images`, an image array (n, h, w) or (n, c, h, w), or features (n, d).

        Gray images of 16 to 32 pixels a side go through convolutions, all else through the fully
        connected autoencoder. `monitor` is called with a `Stage` after each epoch past the
        pretraining. `checkpoint` names a file written after every epoch: a killed fit started again
        with it ends with the same labels. `pretrained` names a file with the autoencoder, which is
        read if it is there and written if not, so that methods can share it. Raises ValueError on bad
        data or parameters, CheckpointError when a file is another run's.
        """
        if self.precision not in PRECISIONS:
            raise unknown_name("precision", self.precision, PRECISIONS)
        for name in ("batch_size", "latent_dim"):
            if getattr(self, name) < 1 + (name == "batch_size"):
                raise ValueError(f"{name} is too small: {getattr(self, name)}")
        with sealed_labels():
            run = self._run(self, X, monitor, checkpoint, pretrained)
            run.train()
            self.embedding_ = run.embed().cpu().numpy()
        self.stage_labels_ = run.stage_labels
        self.labels_ = self.stage_labels_[run.stages[-1][0]]
        self.centers_ = run.centers.detach().cpu().numpy().copy()
        self.modules_ = run.modules
        self.input_shape_ = tuple(run.inputs.shape[1:])
        self.history_ = run.history
        return self

    @torch.no_grad()
    def transform(self, X: Any) -> np.ndarray:
        """Latent vectors float32 (n, latent_dim) of data of the fitted shape."""
        inputs = as_inputs(X)
        if tuple(inputs.shape[1:]) != self.input_shape_:
            raise ValueError(
                f"this model was fitted on inputs of shape {self.input_shape_}, got "
                f"{tuple(inputs.shape[1:])}"
            )
        network = self.modules_["network"].eval()
        device = next(network.parameters()).device
        parts = [network.encode(part.to(device)).cpu() for part in inputs.split(EMBED_ROWS)]
        return torch.cat(parts).numpy()

    def predict(self, X: Any) -> np.ndarray:
        """Labels int32 (n,) of data of the fitted shape, by MNet where there is one."""
        centers = self.modules_["centers"].values
        latent = torch.from_numpy(self.transform(X)).to(centers.device)
        return self.assign(self.modules_, latent).astype(np.int32)

    @staticmethod
    @torch.no_grad()
    def assign(modules: Mapping[str, torch.nn.Module], latent: torch.Tensor) -> np.ndarray:
        """Labels (n,) of latent vectors (n, latent_dim): MNet's, else those of the nearest centers."""
        if "mnet" in modules:
            mnet = modules["mnet"].eval()
            labels = [mnet(part).argmax(1) for part in latent.split(EMBED_ROWS)]
            return torch.cat(labels).cpu().numpy()
        return squared_distances(latent, modules["centers"].values).argmin(1).cpu().numpy()

    def save(self, path: str | os.PathLike) -> None:
        """Write the fitted model to one safetensors file, atomically."""
        tensors = {
            f"{name}.{key}": value
            for name, module in self.modules_.items()
            for key, value in module.state_dict().items()
        }
        for name in ("labels", "embedding", "centers"):
            tensors[f"fitted.{name}"] = torch.from_numpy(getattr(self, f"{name}_"))
        state = {
            "parameters": self.get_params(),
            "input_shape": list(self.input_shape_),
            "history": self.history_,
        }
        save_checkpoint(path, tensors, state)

    @classmethod
    def load(cls, path: str | os.PathLike) -> AutoencoderEstimator:
        """Read a model written by `save`. Raises CheckpointError when the file is damaged."""
        tensors, state = load_checkpoint(path)
        model = cls(**state["parameters"])
        model.input_shape_, model.history_ = tuple(state["input_shape"]), state["history"]
        for name in ("labels", "embedding", "centers"):
            setattr(model, f"{name}_", tensors.pop(f"fitted.{name}").numpy())
        model.modules_ = {
            "network": build(model.input_shape_, model.latent_dim, None),
            "centers": Centers(model.n_clusters, model.latent_dim),
            **model._more_modules(),
        }
        for name, module in model.modules_.items():
            start = f"{name}."
            module.load_state_dict(
                {k.removeprefix(start): v for k, v in tensors.items() if k.startswith(start)}
            )
            module.eval()
        return model

    def _more_modules(self) -> dict[str, torch.nn.Module]:
        """Networks beside the autoencoder, unfitted, as `fit` made them."""
        return {}
