"""Missing runs: which they are, what they cost, and workers that outlive what goes wrong in one of them."""

import dataclasses
import json
import os
import signal
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest
import torch

from reprolib.experiments import cost, records, reproduce, run, single, workers
from reprolib.experiments.paper import Paper, papers
from reprolib.experiments.plan import plan
from reprolib.methods.autoencoder import Pretrain
from reprolib.training import checkpoint

HERE = ("usps", "coil20", "digits")
FAST = cost.Device(1e15, 0.0)


@pytest.fixture
def some_data(monkeypatch):
    """As if only HERE were there."""
    monkeypatch.setattr(reproduce, "is_here", HERE.__contains__)


def entry(paper="dcss", method="KMeans", tag="main", seed=0, **parameters):
    place = {"paper": paper, "dataset": "digits", "profile": "smoke", "variant": "paper"}
    return place | {"method": method, "tag": tag, "seed": seed, "parameters": parameters}


def listed(tmp_path, *entries):
    path = tmp_path / "list.json"
    path.write_text(json.dumps(entries))
    return reproduce.listed(path, tmp_path / "runs")


def test_the_gaps_are_the_papers_cells_first_and_known_ones_last(some_data, tmp_path):
    tasks = reproduce.gaps([], "paper", tmp_path)
    names = [(t.item.paper, t.item.stem) for t in tasks]
    assert len(set(names)) == len(names)
    assert {t.item.dataset for t in tasks} == {"usps", "coil20"} and {t.item.profile for t in tasks} == {"paper"}
    order = [(t.rank, t.cost.seconds(cost.this_device())) for t in tasks]
    assert order == sorted(order)
    stems = {stem for _, stem in names}
    # three seeds, one where none is taken; DCSS's own, those beside it, a deviation
    assert {f"DCSS-usps-paper-main-seed{k}" for k in range(3)} <= stems
    assert "ACGDL-usps-paper-main-seed0" in stems and "ACGDL-usps-paper-main-seed1" not in stems
    by_stem = {t.item.stem: t for t in tasks}
    joint = by_stem["DCSS-usps-paper-joint-seed0"]
    # 60 epochs of phase 1 belong to the schedule of the other profile
    assert (joint.item.variant, joint.item.parameters["phase1_epochs"], joint.rank) == ("joint", 200, 1)
    assert "DCSS-usps-paper-phase1-10-seed0" not in stems
    # the same parameters and images as at profile cpu
    assert by_stem["JULE-usps-paper-main-seed0"].rank == 2 and by_stem["DCSS-usps-paper-main-seed0"].rank == 0
    moved = by_stem["ACGDL-usps-paper-transfer-mnist-test-ip-seed1"]
    assert moved.item.features == "jule/mnist-test/ip" and moved.rank == 2
    assert moved.item.needed_model.name == "JULE-mnist-test-paper-main-seed1.safetensors"


def test_a_run_with_a_record_is_no_gap(some_data, tmp_path):
    tasks = reproduce.gaps(["jule"], "smoke", tmp_path)
    task = next(t for t in tasks if t.item.method == "KMeans")
    path = single.execute(task.item)
    assert records.read(path)["executed"] == "script"
    again = reproduce.gaps(["jule"], "smoke", tmp_path)
    assert {t.item.stem for t in tasks} - {t.item.stem for t in again} == {task.item.stem}


def test_a_list_names_the_runs_and_their_order(tmp_path):
    tasks = listed(tmp_path, entry(method="DCSS", tag="alpha-0.5", seed=2, alpha=0.5), entry())
    assert [t.item.stem for t in tasks] == ["DCSS-digits-smoke-alpha-0.5-seed2", "KMeans-digits-smoke-main-seed0"]
    assert tasks[0].item.parameters["alpha"] == 0.5 and tasks[0].item.runs == tmp_path / "runs/dcss"
    with pytest.raises(ValueError, match="Did you mean 'parameters'"):
        listed(tmp_path, entry() | {"parameter": {}})
    with pytest.raises(ValueError, match="a run of the list: seed missing"):
        listed(tmp_path, {k: v for k, v in entry().items() if k != "seed"})


def test_costs_follow_passes_samples_and_clusters():
    def parts(method, dataset, n, side, **given):
        item = plan("dcss", {"method": method, "dataset": dataset, "profile": "paper"} | given)
        return {p.name: p for p in cost.estimate(item, n, (1, side, side), []).parts}

    dcss, joint = parts("DCSS", "usps", 9298, 16), parts("DCSS", "usps", 9298, 16, variant="joint", tag="joint")
    assert {name: p.passes for name, p in dcss.items()} == {"pretrain": 200, "phase 1": 200, "phase 2": 20}
    # K successive passes of the pretraining's step
    assert dcss["phase 1"].flops == pytest.approx(10 * dcss["pretrain"].flops, rel=1e-3)
    assert joint["phase 1"].flops == pytest.approx(dcss["pretrain"].flops, rel=1e-3)
    assert 5 < dcss["phase 1"].calls / joint["phase 1"].calls < 10
    assert parts("DEC", "usps", 9298, 16)["phase 1"].flops < dcss["pretrain"].flops  # no decoder
    given = {"dataset": "usps", "profile": "cpu", "warmup_epochs": 7, "tag": "seven"}
    item = plan("separation", given)
    found = {p.name: p for p in cost.estimate(item, 9298, (1, 16, 16), []).parts}
    assert {name: p.passes for name, p in found.items()} == {"pretrain": 3, "warm-up": 7, "phase 1": 15}
    # the changed images are encoded too; and, every fifth epoch, 11 times all images for the radii
    assert found["warm-up"].flops > 1.9 * found["pretrain"].flops


@pytest.mark.parametrize("paper", papers())
def test_what_a_paper_lacks_can_be_planned(paper):
    assert {task.item.paper for task in reproduce.gaps([paper], "cpu")} <= {paper}


def test_a_cost_is_the_longer_of_products_and_calls_and_pretraining_can_be_there():
    part = cost.Part("pretrain", 10, flops=1e6, calls=100, batch=50)
    whole = cost.Cost((part, dataclasses.replace(part, name="phase 1")), 1000, host=5.0, memory=1.0, disk=0.0)
    launches, products = cost.Device(1e15, 1e-3), cost.Device(1e9, 1e-9)
    a_pass = 20 * 100 * 1e-3 + cost.EPOCH_SECONDS
    assert whole.seconds(launches) == pytest.approx(5 + 2 * 10 * a_pass)
    assert whole.seconds(launches, ["pretrain"]) == pytest.approx(5 + 10 * a_pass)
    assert whole.seconds(launches, crowd=3.0) == pytest.approx(5 + 2 * 10 * (3 * 2.0 + cost.EPOCH_SECONDS))
    assert whole.seconds(products) == pytest.approx(5 + 2 * 10 * (1.0 + cost.EPOCH_SECONDS))


def test_jules_passes_are_those_of_its_periods():
    item = plan("jule", {"dataset": "usps", "profile": "paper"})
    (part,) = cost.estimate(item, 9298, (1, 16, 16), []).parts
    entry = Paper("jule").select(method="JULE", dataset="usps", tag="main", profile="cpu")[0]
    assert part.passes == item.parameters["n_epochs"] * entry["history"][-1]["period"]


def test_an_epoch_of_iterations_costs_the_same_whatever_the_samples():
    item = plan("precise", {})
    few, many = (cost.estimate(item, n, (1, 8, 8), []) for n in (300, 3000))
    assert few.parts[0].flops * 300 == pytest.approx(many.parts[0].flops * 3000)
    for device in (cost.Device(1e15, 1e-3), cost.Device(1e9, 1e-9)):
        assert few.seconds(device) == pytest.approx(many.seconds(device))


def test_rounds_cost_their_steps_and_memory_grows_with_the_batch():
    given = {"dataset": "digits", "profile": "cpu", "precision": "float32", "tag": "x"}
    found = cost.estimate(plan("profeat", given), 1797, (1, 8, 8), [])
    passes = {part.name: part.passes for part in found.parts}
    # whole batches of 256, 256, 128 and 500 of 1,797 images: 7, 7, 14 and 3 a pass; three rounds
    assert passes == {"pretext": 58, "refine": 2 * 15, "scan": 3 * 43, "self-labelling": 3 * 34}
    members = cost.estimate(plan("profeat", given | {"ensemble": 3}), 1797, (1, 8, 8), [])
    assert {part.name: part.passes for part in members.parts} == {name: 3 * n for name, n in passes.items()}
    wide = cost.estimate(plan("profeat", given | {"pretext_batch": 1024}), 1797, (1, 8, 8), [])
    by_name = {part.name: part for part in found.parts}
    assert wide.memory > found.memory and by_name["pretext"].flops > 1.1 * by_name["self-labelling"].flops
    for dataset, n, learned in (("cifar10", 60_000, 50_000), ("stl10-all", 113_000, 5_000)):
        item = plan("profeat", {"dataset": dataset, "profile": "paper", "network": "narrow", "width": 4, "tag": "x"})
        assert cost.estimate(item, n, (3, 16, 16), []).n == learned


def test_a_method_without_stages_costs_what_the_nearest_record_took():
    item = plan("jule", {"method": "ACZell", "dataset": "mnist", "profile": "paper"})
    took = [
        dict(method="ACZell", tag="main", dataset={"n": n}, seconds={"fit": s}, peak_memory_mb=1000)
        for n, s in ((100, 1), (35000, 50))
    ]
    found = cost.estimate(item, 70000, (1, 28, 28), took)
    assert found.seconds(FAST) == pytest.approx(cost.RUN_SECONDS + 50 * 2**cost.GROWTH)
    assert found.memory == pytest.approx(2.0)


def faulty(connection):
    """A worker in which the tag of a run says how it ends."""

    def execute(item, begun):
        if item.tag == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        raised = {"memory": MemoryError("none left"), "driver": RuntimeError("CUDA error: unspecified launch failure")}
        raised |= {"full": OSError(28, "No space left on device")}
        if item.tag in raised:
            raise raised[item.tag]
        Path(item.runs, f"{item.stem}.pid").write_text(str(os.getpid()))
        return single.execute(item, begun)

    workers.execute = execute
    real(connection)


real = workers.work


def test_a_fault_ends_one_run_and_the_next_call_has_it_again(tmp_path, monkeypatch, capsys):
    faults = ("killed", "memory", "driver", "full")
    asked = [entry(seed=0), *(entry(tag=tag, n_init=2) for tag in faults), entry(seed=1), entry(seed=2)]
    monkeypatch.setattr(workers, "work", faulty)
    assert not workers.run_all(listed(tmp_path, *asked), 2, FAST, 1e9)
    said = capsys.readouterr().out
    for tag, reason in zip(faults, ("status -9", "MemoryError", "CUDA error", "No space left"), strict=True):
        assert f"failed: KMeans-digits-smoke-{tag}-seed0: " in said and reason in said
    assert "3 runs done, 4 failed, 0 left" in said
    assert len(list(tmp_path.glob("runs/dcss/*.json"))) == 3
    assert [t.item.tag for t in listed(tmp_path, *asked)] == list(faults)


def test_a_run_that_another_process_is_at_or_has_done_is_passed_over(tmp_path, capsys):
    tasks = listed(tmp_path, entry(method="AEKMeans"), entry())
    done = single.execute(tasks[1].item)
    written = done.stat().st_mtime_ns
    with tasks[0].item.lock():
        assert workers.run_all(tasks, 1, FAST, 1e9)
    said = capsys.readouterr().out
    assert f"left, {workers.TAKEN}: 1, AEKMeans-digits-smoke-main-seed0" in said and "1 runs done, 0 failed" in said
    assert done.stat().st_mtime_ns == written
    assert not (tmp_path / "runs/dcss/executed").exists()  # the other's log


def test_one_process_takes_run_after_run(tmp_path, monkeypatch):
    monkeypatch.setattr(workers, "work", faulty)
    assert workers.run_all(listed(tmp_path, *(entry(seed=k) for k in range(3))), 1, FAST, 1e9)
    assert len({path.read_text() for path in tmp_path.glob("runs/dcss/*.pid")}) == 1


def test_at_the_end_of_the_budget_the_checkpoint_stays_and_the_next_call_ends_the_same(tmp_path, capsys):
    asked = entry(method="AEKMeans", tag="long", pretrain_epochs=6, phase2_epochs=0)
    (task,) = listed(tmp_path, asked)

    class Ends(workers.Workers):
        """The budget ends as soon as there is a checkpoint."""

        @property
        def end(self):
            return 0.0 if task.item.checkpoint.exists() else float("inf")

        @end.setter
        def end(self, value):
            pass

    stopped = Ends(1, [task], FAST, 1e9)
    stopped.run()
    assert stopped.left == {task.item.stem: "stopped at the end of the budget; goes on from its checkpoint"}
    (again,) = listed(tmp_path, asked)
    assert 0 < again.done < 6
    assert workers.run_all([again], 1, FAST, 1e9)
    (tmp_path / "whole").mkdir()
    (whole,) = listed(tmp_path / "whole", asked)
    path = single.execute(whole.item)
    found = [records.load_arrays(records.read(p)) for p in (path, task.item.runs / f"{task.item.stem}.json")]
    np.testing.assert_array_equal(*(f["ae"] for f in found))


SHORT = {"method": "AEKMeans", "pretrain_epochs": 3, "phase2_epochs": 0, "tag": "short"}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The labels of an uninterrupted run of SHORT."""
    path = single.execute(plan("dcss", SHORT | {"runs_dir": str(tmp_path_factory.mktemp("whole"))}))
    return records.load_arrays(records.read(path))["ae"]


@pytest.mark.parametrize("fault", ["memory", "driver", "disk"])
def test_a_fault_costs_an_epoch_at_most(tmp_path, monkeypatch, whole, fault):
    item = plan("dcss", SHORT | {"runs_dir": str(tmp_path)})
    raised = {"memory": torch.OutOfMemoryError("CUDA out of memory"), "driver": RuntimeError("CUDA error: launch")}
    error = raised.get(fault, OSError(28, "No space left on device"))
    epochs, begin, step, write = [], Pretrain.begin_epoch, Pretrain.step, checkpoint.write_atomically

    def fails(self, batch):
        if self.run.epoch == 1:
            raise error
        return step(self, batch)

    def full(path, function):
        if len(epochs) == 2:
            raise error
        write(path, function)

    monkeypatch.setattr(Pretrain, "begin_epoch", lambda self: (begin(self), epochs.append(self.run.epoch)))
    with monkeypatch.context() as patch:
        patch.setattr(*((checkpoint, "write_atomically", full) if fault == "disk" else (Pretrain, "step", fails)))
        with pytest.raises(type(error), match=str(error.args[-1])):
            single.execute(item)
    path = single.execute(item)
    assert epochs == [0, 1, 1, 2]
    np.testing.assert_array_equal(records.load_arrays(records.read(path))["ae"], whole)


def test_nothing_is_begun_that_cannot_end(tmp_path, capsys):
    tasks = listed(tmp_path, entry(), entry(method="DCSS"))
    slow = cost.Device(1e6, 1.0)
    assert workers.run_all(tasks, 1, slow, workers.GRACE + 30)
    said = capsys.readouterr().out
    assert "1 runs done, 0 failed, 1 left" in said and "left, no time left: 1, DCSS-digits-smoke-main-seed0" in said


def test_two_that_share_a_pretraining_do_not_make_it_at_once(tmp_path):
    same = [entry(method=method) for method in ("DEC", "DCN")]
    tasks = listed(tmp_path, *same, entry(method="DCN", seed=1), entry(method="DEC", tag="d", latent_dim=5), entry())
    assert tasks[0].pretraining == tasks[1].pretraining != tasks[2].pretraining
    crew = workers.Workers(9, tasks, FAST, 1e9)

    def begin():
        task = crew._next()
        if task is not None:
            crew.busy[len(crew.busy)] = None, task, 0.0, 1.0
        return task

    assert [begin() for _ in range(5)] == [tasks[0], tasks[2], tasks[3], tasks[4], None]
    crew.pretrained.add(tasks[0].pretraining)
    assert begin() is tasks[1]


def test_what_needs_a_model_waits_for_it(tmp_path):
    on = entry("jule", tag="on-digits-ip", features="jule/digits/ip")
    tasks = listed(tmp_path, on, entry("jule", "JULE"))
    crew = workers.Workers(2, tasks, FAST, 1e9)
    assert crew._next() is tasks[1] and crew._next() is None
    model = tasks[0].item.needed_model
    model.parent.mkdir(parents=True)
    model.touch()
    assert crew._next() is tasks[0]


def test_what_runs_takes_corrects_what_is_expected(tmp_path):
    tasks = listed(tmp_path, entry(seed=0), entry(seed=1), entry(method="DCSS"))
    crew = workers.Workers(1, tasks, FAST, 1e9)
    before = [crew.expected(task) for task in tasks]
    crew.ratio["KMeans", "smoke"] = 3.0
    assert [crew.expected(task) for task in tasks] == [3 * before[0], 3 * before[1], before[2]]


def test_runs_that_end_together_correct_once_and_other_profiles_not_at_all(tmp_path, monkeypatch):
    tasks = listed(tmp_path, *(entry(seed=k) for k in range(4)), entry(seed=4) | {"profile": "cpu"})
    crew = workers.Workers(4, tasks, FAST, 1e9)
    before = [crew.expected(task) for task in tasks]
    monkeypatch.setattr(workers, "read", lambda path: {})
    monkeypatch.setattr(workers, "told", lambda record: "")
    connections = [Mock(recv=lambda: ("ended", "")) for _ in tasks[:3]]
    crew.idle = [(Mock(), connection) for connection in connections]
    monkeypatch.setattr(workers.time, "monotonic", lambda: 100.0)
    for task in tasks[:3]:
        crew._give(task)
    monkeypatch.setattr(workers.time, "monotonic", lambda: 100.0 + 2 * before[0])
    for connection in connections:
        crew._hear(connection)
    assert [crew.expected(task) / b for task, b in zip(tasks, before, strict=True)] == pytest.approx([2, 2, 2, 2, 1])


def test_what_a_checkpoint_holds_is_taken_from_the_first_stages(tmp_path):
    (task,) = listed(tmp_path, entry(method="DCSS"))
    passes = {part.name: part.passes for part in task.cost.parts}
    slow = cost.Device(1e9, 1e-5)
    resumed = dataclasses.replace(task, done=passes["pretrain"])
    crew = workers.Workers(1, [resumed], slow, 1e9)
    # its phases are left, and of these a pass costs what it costs
    assert crew.expected(resumed) == pytest.approx(task.cost.seconds(slow, ["pretrain"]))
    a_pass = crew.expected(resumed) - crew.expected(dataclasses.replace(resumed, done=resumed.done + 1))
    (phase,) = [part for part in task.cost.parts if part.name == "phase 1"]
    only = dataclasses.replace(task.cost, parts=(dataclasses.replace(phase, passes=1),), host=0.0)
    assert a_pass == pytest.approx(only.seconds(slow))
    assert crew.expected(dataclasses.replace(resumed, done=sum(passes.values()))) == pytest.approx(task.cost.host)


def test_each_process_has_a_device_of_its_own(monkeypatch, tmp_path):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,7")
    seen = []

    class Context:
        Pipe = staticmethod(lambda: (None, type("End", (), {"close": lambda self: None})()))

        class Process:
            def __init__(self, **_):
                pass

            def start(self):
                seen.append((os.environ["CUDA_VISIBLE_DEVICES"], "OMP_NUM_THREADS" in os.environ))

    monkeypatch.setattr(workers.multiprocessing, "get_context", lambda kind: Context)
    crew = workers.Workers(3, [], FAST, 1e9)
    for _ in range(3):
        crew._start()
    assert seen == [("4", True), ("7", True), ("4", True)]
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "4,7"


def test_without_jupyter_a_run_is_a_script_with_the_same_record(tmp_path, monkeypatch):
    notebook, script = tmp_path / "notebook", tmp_path / "script"
    asked = {"method": "AEKMeans"}
    (there,) = run.run("dcss", asked, [0], runs_dir=notebook)
    monkeypatch.setattr(run, "find_spec", lambda name: None)
    (path,) = run.run("dcss", asked, [0], runs_dir=script)
    one, other = records.read(there), records.read(path)
    assert other["executed"] == "script" and "executed" not in one
    assert one["metrics"] == other["metrics"] and one["parameters"] == other["parameters"]
    assert set(other) - {"executed"} == set(one)
    assert run.run("dcss", asked, [0], runs_dir=script) == [path]
    with pytest.raises(run.RunFailed, match="(?s)n_clusters.*log: .*too-many"):
        run.run("dcss", {"method": "KMeans", "n_clusters": 1700, "tag": "too-many"}, [0], runs_dir=script)
