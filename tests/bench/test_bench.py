"""The bench runs, prints every row, and writes only where it is told to. No time is asserted."""

import json
import sys

import numpy as np
import pytest

from reprolib.bench import classical, run


def test_quick_bench_prints_peers_and_floors(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run.main(["knn", "--quick"]) == 0
    printed = capsys.readouterr().out
    for row in (
        "reprolib ",
        "k-NN graph, scikit-learn",
        "floor, float32",
        "fraction of the float32",
    ):
        assert row in printed
    assert list(tmp_path.iterdir()) == []


def test_json_holds_the_seconds(tmp_path, capsys):
    path = tmp_path / "bench.json"
    run.main(["scaling", "--quick", "--json", str(path)])
    written = json.loads(path.read_text())
    rows = written["results"]["scaling"]
    assert set(rows) == {f"{part} n={n}" for part in ("graph", "merges") for n in (898, 1797)}
    assert all(value > 0 for value in rows.values())
    assert written["machine"]["versions"]["torch"]


def test_unknown_bench_is_named():
    with pytest.raises(ValueError, match="knn"):
        run.run(["kn"])


def test_ceiling_is_a_rate():
    assert 1e8 < run.gemm_ceiling(64, "float32", repeats=1) < 1e15


def test_methods_are_measured_over_n_until_they_take_too_long(capsys, monkeypatch):
    clock = [0.0]

    def greedy(x):
        clock[0] += 1
        if len(x) == 20:
            raise MemoryError("needs 2.0 GiB")

    def takes(exponent):
        def work(x):
            clock[0] += len(x) ** exponent

        return work

    works = {"linear": takes(1), "square": takes(2), "greedy": greedy}
    monkeypatch.setattr(classical, "_methods", lambda: works)
    monkeypatch.setattr(classical, "_peers", dict)
    monkeypatch.setattr(classical.time, "perf_counter", lambda: clock[0])
    monkeypatch.setattr(classical, "LIMIT", 1000.0)
    rows = classical.measure(np.zeros((40, 2), np.float32), [10, 20, 40])
    assert [entry.get("seconds") for entry in rows["linear"].values()] == [10.0, 20.0, 40.0]
    assert [entry.get("seconds") for entry in rows["square"].values()] == [100.0, 400.0, None]
    assert rows["square"]["40"] == {"left_out": "40 rows would take some 1600 s"}
    assert rows["greedy"]["20"] == rows["greedy"]["40"] == {"left_out": "needs 2.0 GiB"}
    assert "left out: needs 2.0 GiB" in capsys.readouterr().out


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux says what a step took")
def test_memory_of_a_step_does_not_hide_behind_an_earlier_one():
    def work(x):
        return np.ones(30_000_000).sum()  # 229 MiB

    found = [classical._measured(work, np.zeros((2, 2)), []) for _ in range(2)]
    assert all(200 < entry["peak_mb"] < 260 for entry in found)


def test_quick_bench_of_methods_has_every_method_and_its_ratio(capsys, tmp_path):
    path = tmp_path / "methods.json"
    assert run.main(["methods", "--quick", "--json", str(path)]) == 0
    rows = json.loads(path.read_text())["results"]["methods"]
    printed = capsys.readouterr().out
    for name in classical._methods():
        assert rows[name]["1797"]["seconds"] > 0 and name in classical.BESIDE
    assert " x average linkage on the graph, scikit-learn" in printed
