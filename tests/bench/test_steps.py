"""The bench of training steps: every member runs, the report is complete, FLOPs are counted by hand too."""

import json
import math
import sys

import numpy as np
import pytest
import torch

from reprolib.bench import run as bench
from reprolib.bench import steps
from reprolib.bench.steps import MEMBERS, PRECISIONS, count_flops
from reprolib.networks.autoencoders import build_autoencoder
from reprolib.studies import clustpy

RATES = {"float32": 1e9, "bfloat16": 1e9}
SIZE = 16


@pytest.fixture
def no_clustpy(monkeypatch):
    monkeypatch.setitem(sys.modules, "clustpy", None)


def test_quick_bench_runs_every_member_without_clustpy(no_clustpy, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(steps.timing, "gemm_ceiling", lambda d, precision: RATES[precision])
    path = tmp_path / "bench.json"
    bench.run(["family"], True, path)
    found = json.loads(path.read_text())["results"]["family"]
    assert (found["clustpy"], found["batch"], found["rates"]) == (None, SIZE, RATES)
    assert list(found["steps"]) == ["16x16"]
    rows = found["steps"]["16x16"]
    assert list(rows) == list(MEMBERS)
    for row in rows.values():
        assert row["clustpy"] is None and row["flops"] > 0
        assert all(0 < row[precision] < math.inf for precision in PRECISIONS)
    printed = capsys.readouterr().out
    assert "clustpy is left out" in printed
    assert all(name in printed for name in MEMBERS)


def test_table_shows_shares_of_the_floor_and_the_ratio():
    row = {"float32": 0.4, "bfloat16": 0.1, "clustpy": 0.6, "flops": 2e7}
    rates = {"float32": 1e8, "bfloat16": 4e8}
    found = {"batch": 8, "rates": rates, "steps": {"16x16": {"a": row, "b": row | {"clustpy": None}}}}
    shown = steps.table(found, "16x16")
    # 2e7 FLOPs take 0.2 s and 0.05 s
    assert shown.rows[0] == ["a", "400.0", "0.50", "100.0", "0.50", "600.0", "1.50"]
    assert shown.rows[1] == ["b", "400.0", "0.50", "100.0", "0.50", "", ""]


def test_flops_of_one_convolution_by_hand():
    network = build_autoencoder((1, 28, 28), 10)
    images = torch.rand(3, 1, 28, 28)
    # 14 x 14 outputs of 32 channels, each a sum over 5 x 5 pixels of one channel
    assert count_flops(lambda: network.encoder[0](images)) == 2 * 3 * 14 * 14 * 32 * 25
    # 7 x 7 inputs of 128 / 2 channels, each spread over 5 x 5 pixels of 32 channels
    maps = torch.rand(3, 64, 7, 7)
    assert count_flops(lambda: network.decoder[5](maps)) == 2 * 3 * 7 * 7 * 64 * 25 * 32


def test_flops_of_a_dense_step_by_hand():
    network = build_autoencoder((12,), 4)
    inputs = torch.rand(3, 12)
    widths = [12, 500, 500, 2000, 4, 2000, 500, 500, 12]
    products = [a * b for a, b in zip(widths[:-1], widths[1:], strict=True)]

    def step():
        network(inputs)[1].sum().backward()

    # forward, gradients of weights, gradients of inputs but for those of the first layer
    assert count_flops(step) == 2 * 3 * (3 * sum(products) - products[0])


def test_successive_runs_count_once_a_cluster():
    images = np.random.default_rng(0).integers(0, 256, (4 * SIZE, 16, 16), dtype=np.uint8)
    batch = torch.arange(SIZE)
    counted = {}
    for name in ("DCSS phase 1, joint", "DCSS phase 1, successive"):
        stage = steps.start(name, images, SIZE, "float32")
        counted[name] = count_flops(lambda stage=stage: stage.step(batch))
    joint, successive = counted.values()
    assert successive == pytest.approx(10 * joint, rel=1e-3)


@pytest.mark.parametrize("name", ["AE pretraining", "DCN", "DKM"])
def test_clustpy_takes_the_same_gradient(name, monkeypatch):
    pytest.importorskip("clustpy.deep")
    images = np.random.default_rng(0).integers(0, 256, (4 * SIZE, 16, 16), dtype=np.uint8)
    stage, batch = steps.start(name, images, SIZE, "float32"), torch.arange(SIZE)
    theirs, make = [], clustpy.network_of
    monkeypatch.setattr(clustpy, "network_of", lambda x: theirs.append(make(x)) or theirs[0])
    clustpy.step(name, stage, batch)()
    stage.step(batch)
    networks = (stage.run.modules["network"], theirs[0].network)
    mine, found = (dict(x.named_parameters()) for x in networks)
    for key, parameter in mine.items():
        scale = parameter.grad.abs().max().item()
        torch.testing.assert_close(found[key].grad, parameter.grad, rtol=1e-3, atol=1e-4 * scale)
