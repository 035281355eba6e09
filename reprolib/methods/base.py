"""What every estimator shares: parameters as fields, checked once; input; results; files."""

import math
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from numbers import Integral, Real
from types import UnionType
from typing import Annotated, Any, ClassVar, Literal, Self

import numpy as np
import torch
from sklearn.base import BaseEstimator, ClusterMixin, TransformerMixin
from sklearn.preprocessing import normalize
from sklearn.utils import Tags, check_random_state
from sklearn.utils.validation import check_is_fitted

from reprolib.checks import check_name, pick_device
from reprolib.data.images import as_features, as_pixels, is_features, sealed_labels, to_float_images
from reprolib.training.checkpoint import CheckpointError, File, load_checkpoint, save_checkpoint
from reprolib.training.monitor import Report
from reprolib.training.trainer import Run, under

# Types of parameters with a lowest value
Natural = Annotated[int, "at least", 0]
Count = Annotated[int, "at least", 1]
BatchSize = Annotated[int, "at least", 2]  # statistics of one sample are undefined
Weight = Annotated[float, "at least", 0]
Positive = Annotated[float, "above", 0]
Seed = int | np.random.RandomState | None
SEEDS = 2**31 - 1  # what a RandomState draws a seed below

# What a value of a kind may be, and what it is called
KINDS = {
    int: (Integral, "a whole number"),
    float: (Real, "a finite number"),
    bool: (bool | np.bool_, "True or False"),
    str: (str, "text"),
    tuple[int, ...]: (tuple | list, "a tuple of whole numbers"),
    tuple[float, ...]: (tuple | list, "a tuple of numbers"),
}


@dataclass(eq=False, repr=False)
class Estimator(ClusterMixin, BaseEstimator):
    """A clustering method: its fields are its parameters, checked by type, choice and range before a fit.

    A variant is a dict of overrides, as in `JULE(**JULE.VARIANTS["released"])`. After `fit`: `labels_` int32
    (n,), `results_`, all assignments by name, and `history_`, one dict an epoch.
    """

    n_clusters: Count = 10
    VARIANTS: ClassVar[dict[str, dict[str, Any]]] = {"paper": {}}
    MAIN: ClassVar[str] = ""  # the result that `labels_` holds; by default the last one
    trains: ClassVar[bool] = False

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        dataclass(eq=False, repr=False, kw_only=True)(cls)  # all but `n_clusters` by keyword

    def check_parameters(self) -> None:
        """Raise TypeError or ValueError for a parameter of the wrong type, choice or range, naming it."""
        hints = typing.get_type_hints(type(self), include_extras=True)
        for name in (field.name for field in fields(self)):
            value, hint, bound = getattr(self, name), hints[name], ()
            if typing.get_origin(hint) is Annotated:
                hint, *bound = typing.get_args(hint)
            if typing.get_origin(hint) is Literal:
                check_name(name, value, typing.get_args(hint))
                continue
            kinds = typing.get_args(hint) if isinstance(hint, UnionType) else (hint,)
            if not any(_fits(value, kind) for kind in kinds):
                wanted = " or ".join(KINDS[k][1] if k in KINDS else k.__name__ for k in kinds)
                got = f"{value!r} ({type(value).__name__})"
                raise TypeError(f"{name} must be {wanted}; got {got}")
            if bound and (value < bound[1] or bound == ["above", value]):
                raise ValueError(f"{name} must be {bound[0]} {bound[1]}, got {value}")

    def seed(self) -> int:
        """The whole number that starts every generator; a RandomState or None draws one."""
        state = self.random_state
        if isinstance(state, Integral):
            return int(state)
        return int(check_random_state(state).randint(SEEDS))

    def _keep(self, X: Any, results: Mapping[str, Any], history: Sequence[dict] = ()) -> Self:
        """Set what every `fit` leaves: results_, labels_, history_, and n_features_in_ of features (n, d)."""
        self.results_ = {name: np.asarray(ids, dtype=np.int32) for name, ids in results.items()}
        self.labels_ = self.results_[self.MAIN or list(results)[-1]]
        self.history_ = list(history)
        if is_features(X):
            self.n_features_in_ = np.asarray(X).shape[1]
        return self


class TrainedEstimator(TransformerMixin, Estimator):
    """An estimator whose fit is a list of stages.

    A method gives `prepare(X, to_cluster=True)`, network inputs float32 (n, ...) of what `fit` takes;
    `stages(run, X)` in order; and `finish(run)`, which sets what else is learned and returns the results by
    name. After `fit` also `embedding_` float32 (n, d), and the networks in `modules_` by name.
    """

    precision: Literal["float32", "bfloat16"] = "float32"
    device: str = "auto"
    random_state: Seed = 0
    verbose: bool = False
    trains: ClassVar[bool] = True

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = ["float32"]
        return tags

    def inputs(self, X: Any) -> torch.Tensor:
        """Network inputs float32 (n, ...) of what `fit` is given; ValueError for too few samples."""
        inputs = self.prepare(X)
        check_count(len(inputs), self.n_clusters)
        return inputs

    def fit(
        self,
        X: Any,
        y: None = None,
        *,
        monitor: Callable[[Report], None] | None = None,
        checkpoint: File | None = None,
        shared: File | None = None,
    ) -> Self:
        """Cluster what `prepare` takes.

        `monitor` is called with a `Report` as the fit goes on. `checkpoint`: a file from which a killed fit goes on to
        the same labels. `shared`: a folder of pretrained autoencoders that methods take over. Raises ValueError or
        TypeError on bad data or parameters, CheckpointError for a damaged or another run's file, FloatingPointError.
        """
        self.check_parameters()
        with sealed_labels():
            inputs = self.inputs(X)
            run = Run(self, inputs, monitor=monitor, checkpoint=checkpoint, shared=shared)
            run.train(self.stages(run, X))
            results = self.finish(run)
        self.modules_, self.input_shape_ = run.modules, tuple(inputs.shape[1:])
        self.seed_, self.devices_ = run.seed, run.numbers["devices"]
        return self._keep(X, results, run.history)

    def build(self, run: Run) -> None:
        """Make all networks of a fit, untrained, in `run.modules`."""
        for stage in self.stages(run, None):
            stage.build()

    def save(self, path: File) -> None:
        """Write the fitted model to one safetensors file, atomically. NotFittedError before a fit."""
        check_is_fitted(self, "labels_")
        fitted = {name: value for name, value in vars(self).items() if name.endswith("_")}
        modules, results, _ = (fitted.pop(k) for k in ("modules_", "results_", "labels_"))
        arrays = {name: fitted[name] for name in fitted if isinstance(fitted[name], np.ndarray)}
        tensors = {f"module.{name}": value for name, value in modules.state_dict().items()}
        tensors |= {f"result.{name}": torch.from_numpy(ids) for name, ids in results.items()}
        tensors |= {f"array.{name}": torch.from_numpy(value) for name, value in arrays.items()}
        state = {
            "class": type(self).__name__,
            "parameters": self.plain_parameters() | {"random_state": self.seed_},
            "results": list(results),
            "fitted": {name: fitted[name] for name in fitted if name not in arrays},
        }
        save_checkpoint(path, tensors, state)

    @classmethod
    def load(cls, path: File) -> Self:
        """Read a model that `save` wrote. Raises CheckpointError when it is damaged or another class's."""
        tensors, state = load_checkpoint(path)
        found = state.get("class") if isinstance(state, dict) else None
        if found != cls.__name__:
            held = f"no {cls.__name__} but {found or 'a file of another kind'}"
            raise CheckpointError(f"{path} holds {held}: load it by that class")
        # JSON knows no tuples
        model = cls(**{k: tuple(v) if isinstance(v, list) else v for k, v in state["parameters"].items()})
        try:
            pick_device(model.device)
        except ValueError:  # the device of the fit is not on this machine
            model.device = "auto"
        for name, value in (state["fitted"] | under(tensors, "array.")).items():
            setattr(model, name, value.numpy() if isinstance(value, torch.Tensor) else value)
        model.input_shape_ = tuple(model.input_shape_)
        model.results_ = {name: tensors[f"result.{name}"].numpy() for name in state["results"]}
        model.labels_ = model.results_[cls.MAIN or state["results"][-1]]
        run = Run(model, torch.empty(0, *model.input_shape_))
        model.build(run)
        model.modules_ = run.modules.eval()
        model.modules_.load_state_dict(under(tensors, "module."))
        return model

    def plain_parameters(self) -> dict[str, Any]:
        """`get_params`, ready for JSON: plain numbers, and for a RandomState the seed that it gives."""
        known = self.get_params()
        found = {k: v.item() if isinstance(v, np.generic) else v for k, v in known.items()}
        if not isinstance(found["random_state"], int):
            found["random_state"] = self.seed()
        return found

    def _fitting_inputs(self, X: Any) -> torch.Tensor:
        """Network inputs of the shape that the model was fitted on."""
        check_is_fitted(self, "labels_")
        inputs, shape = self.prepare(X, to_cluster=False), self.input_shape_
        if (found := tuple(inputs.shape[1:])) != shape:
            advice = f": load them with size={shape[1:]}" if len(shape) > 1 else ""
            raise ValueError(
                f"X has {math.prod(found)} features, but {type(self).__name__} is expecting "
                f"{math.prod(shape)} features as input: it was fitted on inputs of shape {shape}, got "
                f"{found}{advice}"
            )
        return inputs


class OfImages:
    """Mixin of methods that take images alone, no features: before `TrainedEstimator` among the bases."""

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array, tags.input_tags.three_d_array = False, True
        return tags

    @staticmethod
    def prepare(X: Any, *, to_cluster: bool = True) -> torch.Tensor:
        """Float images (n, c, h, w) of `Images` or an image array (n, h, w) or (n, c, h, w)."""
        return to_float_images(as_pixels(X, to_cluster=to_cluster))


def unit_rows(X: object) -> np.ndarray:
    """Float32 features (n, d) of unit length, from pixels or features (paper 002, section 4.1.3)."""
    return normalize(as_features(X)).astype(np.float32, copy=False)


def check_count(n: int, n_clusters: int) -> None:
    """ValueError when `n` samples cannot have `n_clusters` clusters."""
    if n_clusters > n:
        raise ValueError(f"n_clusters={n_clusters} is more than the {n} images: ask for fewer")


def _fits(value: Any, kind: Any) -> bool:
    if isinstance(value, bool | np.bool_):  # True is an Integral
        return kind is bool
    fits = isinstance(value, KINDS[kind][0] if kind in KINDS else kind)
    return fits and (kind is not float or math.isfinite(value))
