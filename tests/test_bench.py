"""The bench runs, prints every row, and writes only where it is told to. No time is asserted."""

import json

import pytest

from reprolib import bench


def test_quick_bench_prints_peers_and_floors(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert bench.main(["knn", "--quick"]) == 0
    printed = capsys.readouterr().out
    for row in ("reprolib ", "scikit-learn, brute", "floor, float32", "fraction of the float32"):
        assert row in printed
    assert list(tmp_path.iterdir()) == []


def test_json_holds_the_seconds(tmp_path, capsys):
    path = tmp_path / "bench.json"
    bench.main(["acgdl", "--quick", "--json", str(path)])
    written = json.loads(path.read_text())
    assert set(written["seconds"]["acgdl"]) == {"k-NN graph", "AC-GDL"}
    assert all(value > 0 for value in written["seconds"]["acgdl"].values())
    assert written["machine"]["versions"]["torch"]


def test_unknown_bench_is_named():
    with pytest.raises(ValueError, match="knn"):
        bench.run(["kn"])


def test_ceiling_is_a_rate():
    assert 1e8 < bench.gemm_ceiling(64, "float32", repeats=1) < 1e15
