"""The bench of adversarial iterations: both ways take the same step, and the table says what was measured."""

import numpy as np
import pytest
import torch

from reprolib.bench import adversarial
from reprolib.bench import run as bench
from reprolib.methods.precise import Adversarial, PreciseFeature, penalised
from reprolib.networks.adversarial import judge


def test_quick_bench_runs_both_ways(capsys):
    found = bench.run(["adversarial"], True)["adversarial"]
    assert list(found["widths"]) == ["2"] and all(value > 0 for value in found["widths"]["2"].values())
    assert "times ours" in capsys.readouterr().out


def test_table_shows_shares_of_the_floor_and_the_ratio():
    row = {"ours": 0.5, "usual": 0.6, "flops": 2e10}
    (line,) = adversarial.table({"batch": 8, "rate": 1e11, "widths": {"8": row}}).rows
    assert line == ["8", "0.500", "0.600", "1.20", "20.0", "0.40", "5.2"]


@pytest.mark.parametrize("outputs", [1, 10])
def test_both_penalties_have_one_gradient(outputs):
    critic = judge((1, 28, 28), outputs, 2, random=torch.Generator().manual_seed(0)).double()
    points = torch.rand(5, 1, 28, 28, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    weights = [w for name, w in critic.named_parameters() if name.endswith("weight")]
    found = [
        torch.autograd.grad(way(critic, points, 10.0)[0], weights) for way in (penalised, adversarial.double_backward)
    ]
    for mine, usual in zip(*found, strict=True):
        torch.testing.assert_close(mine, usual)


def test_the_usual_way_draws_each_batch_apart():
    images = np.random.default_rng(0).integers(0, 256, (20, 28, 28), dtype=np.uint8)
    model = PreciseFeature(3, width=1, batch_size=5, device="cpu")
    calls = {}
    for kind in (Adversarial, adversarial.Usual):
        step = adversarial.iteration(kind, model, images)
        generator = step.__closure__[1].cell_contents.run.modules["G"]
        calls[kind] = []
        generator.register_forward_hook(lambda *given, kind=kind: calls[kind].append(len(given[1][0])))
        step()
    assert calls == {Adversarial: [45, 5], adversarial.Usual: [5] * 10}
