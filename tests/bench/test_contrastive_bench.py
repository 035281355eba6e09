"""The bench of the contrastive loss: one value and gradient by both ways; the table says what was measured."""

import pytest
import torch

from reprolib.bench import contrastive
from reprolib.bench import run as bench
from reprolib.kernels.contrastive import contrastive_loss


def test_quick_bench_runs_both_ways_for_both_kinds_of_positives(capsys):
    found = bench.run(["contrastive"], True)["contrastive"]
    assert {n: list(kinds) for n, kinds in found["sizes"].items()} == {"128": ["views", "clusters"]}
    for entry in found["sizes"]["128"].values():
        assert entry["ours"]["seconds"] > 0 and entry["plain"]["seconds"] > 0
    assert "times ours" in capsys.readouterr().out


def test_table_shows_the_ratio_the_share_of_the_floor_and_memory():
    entry = {"ours": {"seconds": 0.5, "peak_mb": 3.2}, "plain": {"seconds": 1.25, "peak_mb": None}}
    (line,) = contrastive.table({"rate": 1e10, "sizes": {"1024": {"views": entry}}}).rows
    assert line == ["1,024", "views", "0.5000", "1.2500", "2.5", "0.16", "3", ""]


@pytest.mark.parametrize("clusters", [1, 3, 1000])
def test_both_ways_are_one_loss(clusters):
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(40, 5, generator=generator, dtype=torch.float64, requires_grad=True)
    votes = torch.randint(clusters, (20, 2), generator=generator)
    values = [loss(z, votes, 0.1) for loss in (contrastive_loss, contrastive.plain_loss)]
    torch.testing.assert_close(*values)
    torch.testing.assert_close(*(torch.autograd.grad(value, z)[0] for value in values))
