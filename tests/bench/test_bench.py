"""The bench runs, prints every row, and writes only where it is told to. No time is asserted."""

import json
import sys

import numpy as np
import pytest

from reprolib.bench import classical, run, timing


def test_quick_bench_prints_peers_and_floors(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert list(run.run(["knn"], quick=True)) == ["knn"]
    printed = capsys.readouterr().out
    graphs = [name for name in classical.WORKS if name.startswith("k-NN graph")]
    assert len(graphs) == 3 and "AC-GDL" not in printed
    for row in (*graphs, "floor of the graph, float32", ", fraction "):
        assert row in printed
    assert list(tmp_path.iterdir()) == []


def test_unknown_bench_is_named():
    with pytest.raises(ValueError, match="knn"):
        run.run(["kn"])


def test_ceiling_is_a_rate():
    assert 1e8 < timing.gemm_ceiling(64, "float32", repeats=1) < 1e15


def test_methods_are_measured_over_n_until_they_take_too_long(capsys, monkeypatch):
    clock = [0.0]

    def greedy(x):
        clock[0] += 1
        if len(x) == 20:
            raise MemoryError("needs 2.0 GiB")

    def absent(x):
        raise ImportError("No module named 'no_such_package'")

    def takes(exponent):
        def work(x):
            clock[0] += len(x) ** exponent

        return work

    works = {"linear": takes(1), "square": takes(2), "greedy": greedy, "absent": absent}
    monkeypatch.setattr(timing.time, "perf_counter", lambda: clock[0])
    monkeypatch.setattr(timing, "LIMIT", 1000.0)
    rows = timing.grow(works, np.zeros((40, 2), np.float32), [10, 20, 40])
    assert list(rows) == ["linear", "square", "greedy"]
    assert [entry.get("seconds") for entry in rows["linear"].values()] == [10.0, 20.0, 40.0]
    assert [entry.get("seconds") for entry in rows["square"].values()] == [100.0, 400.0, None]
    assert rows["square"]["40"] == {"left_out": "40 rows would take some 1600 s"}
    assert rows["greedy"]["20"] == rows["greedy"]["40"] == {"left_out": "needs 2.0 GiB"}
    printed = capsys.readouterr().out
    assert "left out: needs 2.0 GiB" in printed
    assert "absent is left out: No module named 'no_such_package'" in printed


def test_the_smallest_of_short_repeats_counts_and_long_work_is_taken_once(monkeypatch):
    clock, calls = [0.0], []
    takes = {"short": iter([3.0, 1.0, 2.0]), "long": iter([9.0]), "even": iter([2.0] * 3)}

    def work(name):
        calls.append(name)
        clock[0] += next(takes[name])

    monkeypatch.setattr(timing.time, "perf_counter", lambda: clock[0])
    found = timing.measure({name: lambda name=name: work(name) for name in takes}, 3)
    assert {name: entry["seconds"] for name, entry in found.items()} == {"short": 1.0, "long": 9.0, "even": 2.0}
    assert calls == ["short", "long", "even", "even", "short", "short", "even"]


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux says what a step took")
def test_memory_of_a_step_does_not_hide_behind_an_earlier_one():
    works = {name: lambda: np.ones(30_000_000).sum() for name in "ab"}  # 229 MiB each
    assert all(200 < entry["peak_mb"] < 260 for entry in timing.measure(works, 1).values())


def test_quick_bench_of_methods_has_every_method_and_its_ratio(capsys, tmp_path):
    path = tmp_path / "methods.json"
    run.run(["methods"], True, path)
    written = json.loads(path.read_text())
    assert written["machine"]["versions"]["torch"]
    rows = written["results"]["methods"]
    printed = capsys.readouterr().out
    for name, (_, peer) in classical.OURS.items():
        assert rows[name]["1797"]["seconds"] > 0 and peer in classical.PEERS
    assert " x average linkage on the graph, scikit-learn" in printed
