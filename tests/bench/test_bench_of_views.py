"""The bench of views: the peers draw from the same recipe, and the table says what was measured."""

import sys

import pytest
import torch

from reprolib.bench import run as bench
from reprolib.bench import views
from reprolib.kernels.views import RECIPES


def test_the_bench_runs_and_tells_what_is_left_out(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "kornia.augmentation", None)
    found = bench.run(["views"], True)["views"]
    (row,) = found["views"].values()
    assert set(row) == {views.OURS, views.LOOP, "floor"} and min(row.values()) > 0
    printed = capsys.readouterr().out
    assert "kornia is left out" in printed and "simclr, 3x8x8" in printed


def test_the_table_divides_by_our_time():
    row = {views.OURS: 0.5, views.LOOP: 20.0, views.KORNIA: 2.0, "floor": 0.05}
    (line,) = views.table({"size": 100, "views": {"a": row}}).rows
    assert list(line) == ["a", "200", "40.0", "4.0", "0.100"]


def test_the_cost_is_that_of_the_floor():
    """Of 1,024 views of 3x32x32: 150 FLOPs a pixel, a byte read and four written a channel, 22 numbers a view."""
    expected = {"flops": 150 * 1024 * 1024, "bytes": 1024 * (3 * 1024 * 5 + 22 * 4)}
    assert views.cost(1024, 3, 32, 32) == expected


@pytest.mark.parametrize(("name", "c", "side"), views.KINDS)
def test_peers_draw_from_the_same_recipe(name, c, side):
    ramp = torch.linspace(0, 1, side)
    image = (255 * torch.outer(ramp, ramp.sqrt())).byte() * torch.tensor([1, 0, 1][:c]).byte()[:, None, None]
    torch.manual_seed(0)
    made = views.ways(RECIPES[name], image.expand(600, -1, -1, -1), torch.Generator().manual_seed(0))
    moments = [torch.stack([x.mean((1, 2, 3)), x.std((1, 2, 3))]) for x in (work() for work in made.values())]
    for theirs in moments[1:]:
        torch.testing.assert_close(theirs.mean(1), moments[0].mean(1), atol=0.03, rtol=0)
        torch.testing.assert_close(theirs.std(1), moments[0].std(1), atol=0.02, rtol=0)
