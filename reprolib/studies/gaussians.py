"""Eight Gaussians by number of noise variables, lambda, rate and width (paper 003, section IV-B): who fails, and why?

All seeds of a setting, with lambda 1 and with Algorithm 1's 100, learn side by side in one stack of networks. Run it as
`python -m reprolib.studies.gaussians`: it goes on where it was killed. Page: precise/gaussians.
"""

import itertools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from reprolib import metrics
from reprolib.data.made import CENTERS, DEVIATION, eight_gaussians
from reprolib.files import BOOK, locked, write_atomically
from reprolib.methods.precise import Adversarial, PreciseFeature, classifier_loss
from reprolib.training.checkpoint import File
from reprolib.training.trainer import Run

RESULTS = BOOK / "precise" / "gaussians.json"
N_NOISE = 0, 1, 2, 3, 4, 8  # the paper's six experiments
WEIGHTS = {1.0: 1.0, 100.0: 10.0}  # lambda and eta: ours, with a tenth of the ratio; Algorithm 1's
POINTS, SEEN = 50_000, 2_000  # to learn from, and of others, to look at
RIGHT = 0.99  # of ACC: all eight blobs are told apart
NEAR = 5.0  # standard deviations of a blob within which a made sample is on it
# at a tenth of the rate not ten times as long, which a core does not have
LENGTHS = {1e-3: 2000, 1e-4: 5000}
SETTINGS = [
    {"width": 8, "learning_rate": rate, "n_noise": n_noise, "n_iterations": n, "log_every": n // 20}
    for (rate, n), n_noise in itertools.product(LENGTHS.items(), N_NOISE)
]
FIXED = dict(n_clusters=8, network="dense", batch_size=100, device="cpu")


class Stack(Adversarial):
    """Adversarial training of `n_seeds` networks for each lambda; what each of them tells, after every epoch."""

    report_every = 0

    def __init__(self, run: Run, epochs: int, n_seeds: int) -> None:
        super().__init__(run, epochs)
        self.weights = [pair for pair in WEIGHTS.items() for _ in range(n_seeds)]
        self.copies = (len(self.weights),)

    def build(self) -> None:
        super().build()
        self.penalty, self.eta = torch.tensor(self.weights, device=self.run.device).T
        self.points, self.y = eight_gaussians(SEEN, 1)

    @torch.no_grad()
    def end_epoch(self) -> None:
        """Add a row for each network: scores on points that none has seen, and what G makes."""
        run, n = self.run, self.copies[0]
        real = torch.from_numpy(self.points).to(run.device).expand(n, -1, -1)
        logits = run.modules["C"](real)
        made, y = self.imagine(-(-SEEN // self.model.batch_size))
        made, y = made.transpose(0, 1).flatten(1, 2), y.transpose(0, 1).flatten(1)
        gaps = run.modules["D"](real).mean((1, 2)) - run.modules["D"](made).mean((1, 2))
        found = {
            "distance": gaps,
            "near": on_blobs(made),
            "fake_accuracy": (run.modules["C"](made).argmax(-1) == y).double().mean(-1),
            "cross_entropy": classifier_loss(run.modules["C"](made), y),
            "entropy": torch.special.entr(logits.softmax(-1)).sum(-1).mean(-1),
        }
        labels = logits.argmax(-1).cpu().numpy()
        for i in range(n):
            row = {"acc": metrics.accuracy(self.y, labels[i]), "nmi": metrics.nmi(self.y, labels[i], "arithmetic")}
            row |= {name: float(values[i]) for name, values in found.items()}
            kept = run.numbers.setdefault(str(i), {})
            for name, value in row.items():
                kept.setdefault(name, []).append(float(f"{value:.4g}"))


def on_blobs(points: Tensor) -> Tensor:
    """Share (...) of points (..., b, 2) within five standard deviations of a center."""
    centers = torch.as_tensor(CENTERS, dtype=points.dtype, device=points.device)
    return (torch.cdist(points, centers).amin(-1) < NEAR * DEVIATION).double().mean(-1)


def train(n_seeds: int = 5, checkpoint: File | None = None, **parameters: Any) -> list[dict[str, Any]]:
    """Rows of a setting of `PreciseFeature`: `seed`, `penalty`, and by epoch scores and what G makes."""
    model = PreciseFeature(**FIXED | parameters)
    model.check_parameters()
    run = Run(model, torch.from_numpy(eight_gaussians(POINTS, 0)[0]), checkpoint=checkpoint)
    stack = Stack(run, -(-model.n_iterations // model.log_every), n_seeds)
    run.train([stack])
    rows = enumerate(stack.weights)
    return [{"seed": i % n_seeds, "penalty": weight} | run.numbers[str(i)] for i, (weight, _) in rows]


def results(path: Path = RESULTS) -> list[dict[str, Any]]:
    """The rows that `study` has written, none before it has."""
    return json.loads(path.read_text()) if path.exists() else []


def study(path: Path = RESULTS, settings: Sequence[Mapping[str, Any]] = SETTINGS, n_seeds: int = 5) -> None:
    """Train what of the settings is not yet in the file; write it after each, atomically, with where it was made."""
    for setting in settings:
        done = results(path)
        if any(setting.items() <= row.items() for row in done):
            continue
        name = "-".join(f"{key}-{value}" for key, value in setting.items())
        kept = path.parent / "runs" / "checkpoints" / f"gaussians-{name}.ckpt"
        with locked(kept.with_suffix(".lock"), kept.stem):
            found = train(n_seeds, kept, **setting, verbose=True)
        made_by = {"torch": torch.__version__, "cpu": torch.backends.cpu.get_cpu_capability()}
        rows = [*done, *({**setting, **made_by, **row} for row in found)]
        text = "[" + ",\n ".join(map(json.dumps, rows)) + "]\n"
        write_atomically(path, lambda stream, text=text: stream.write(text.encode()))
        kept.unlink(missing_ok=True)


if __name__ == "__main__":
    study()
