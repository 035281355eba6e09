"""SWITCH: today's estimators and monitors under the contract of the new ones. This file goes.

With the new estimators plan.py takes `Log` from `reprolib.training.monitor`, and `model.trains`,
`model.fit(..., shared=)`, `model.results_`, `model.history_` in place of the functions here.
"""

from typing import Any

from reprolib.training import phase_log
from reprolib.training.monitor import StageLog


def is_jule(model: Any) -> bool:
    return type(model).__name__ == "JULE"


def trains(model: Any) -> bool:
    return is_jule(model) or hasattr(model, "pretrain_epochs") or getattr(model, "trains", False)


def fit(model: Any, X: Any, *, monitor: Any, checkpoint: Any, shared: Any) -> None:
    if is_jule(model):
        model.fit(X, monitor=monitor, checkpoint=checkpoint)
    elif hasattr(model, "pretrain_epochs"):
        model.fit(X, monitor=monitor, checkpoint=checkpoint, pretrained=shared)
    else:
        model.fit(X, monitor=monitor, checkpoint=checkpoint, shared=shared)


def results(model: Any) -> dict[str, Any]:
    if is_jule(model):
        return {"SF": model.labels_, "RC": model.labels_rc_}
    if hasattr(model, "stage_labels_"):
        return {phase_log.RESULTS[stage]: ids for stage, ids in model.stage_labels_.items()}
    return getattr(model, "results_", None) or {"labels": model.labels_}


class JuleLog(StageLog):
    """What `Log` will be, for JULE."""

    def finished(self, history: Any) -> list[dict]:
        return self.timed(history)

    def seconds(self, history: Any) -> dict[str, float]:
        return {}

    def kept(self, images: Any) -> dict:
        return self.arrays


class FamilyLog(phase_log.PhaseLog):
    """What `Log` will be, for the autoencoder methods."""

    def finished(self, history: Any) -> list[dict]:
        return self.epochs(history)

    def seconds(self, history: Any) -> dict[str, float]:
        return phase_log.seconds_by_stage(history)

    def kept(self, images: Any) -> dict:
        return self.arrays | phase_log.samples(images, self.arrays)


def log(plan: Any, labels: Any, **options: Any) -> Any:
    found = (JuleLog if plan.method == "JULE" else FamilyLog)(labels, **options)
    found.similarity = plan.parameters.get("zeta", 0.8)
    return found
