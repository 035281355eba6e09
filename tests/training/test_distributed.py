"""Two processes on the CPU, speaking through gloo, take the step that one takes with the whole batch."""

from datetime import timedelta

import pytest
import torch
import torch.distributed as dist
from torch import nn

from reprolib import load
from reprolib.kernels.contrastive import contrastive_loss
from reprolib.methods import ProFeat
from reprolib.training import distributed, trainer
from reprolib.training.trainer import Run, Stage

N, B, D = 48, 16, 5
PROCESSES = 2


class Model:
    """What a run asks of a method."""

    device, random_state, verbose, batch_size = "cpu", 0, False, B

    def plain_parameters(self):
        return {}

    get_params = plain_parameters

    def set_params(self):
        return self


class Network(nn.Module):
    def __init__(self, generator):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(D, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Linear(8, 4))
        for weight in self.parameters():
            nn.init.normal_(weight, generator=generator)

    def forward(self, x):
        return self.layers(x)


class Contrast(Stage):
    """Steps on two noisy views of each image, some of them in one cluster, some discarded."""

    name, report_every = "contrast", 1
    fails_at = None

    def build(self):
        network = self.run.module("network", Network(self.run.generator))
        self.run.optimizers = {"sgd": torch.optim.SGD(network.parameters(), 0.1, momentum=0.9)}

    def begin_epoch(self):
        if self.run.epoch == self.fails_at:
            raise InterruptedError

    def step(self, batch):
        noise = torch.randn(2, len(batch), D, generator=self.run.noise)  # of the whole batch, as it is for one process
        both = self.run.batch(distributed.part(batch)) + distributed.part(noise, 1)
        z = self.run.modules["network"](both.flatten(0, 1))
        z = distributed.gathered(z.unflatten(0, (2, -1)), 1).flatten(0, 1)
        loss = contrastive_loss(z, batch[:, None] % 3, 0.5, kept=batch % 5 > 0)
        self.run.descend("sgd", loss)
        return {"loss": loss.detach(), "rank": distributed.rank()}

    def report(self):
        return self.run.epoch


def fit(folder, name, fails_at=None):
    """The run, and what its monitor was told."""
    told = []
    inputs = torch.randn(N, D, generator=torch.Generator().manual_seed(1))
    run = Run(Model(), inputs, monitor=told.append, checkpoint=folder / f"{name}.ckpt")
    run.fingerprint = lambda: name
    stage = Contrast(run, 3)
    stage.fails_at = fails_at
    try:
        run.train([stage])
    except InterruptedError:
        pass
    return run, told


def one_step(factor):
    """Gathered parts, the loss, and the averaged gradients of a network whose input is this process's part."""
    generator = torch.Generator().manual_seed(2)
    network = distributed.share_statistics(Network(generator))
    x, votes = torch.randn(2, B, D, generator=generator), torch.randint(0, 3, (B, 2), generator=generator)
    z = network(distributed.part(x, 1).flatten(0, 1))
    whole = distributed.gathered(z.unflatten(0, (2, -1)), 1).flatten(0, 1)
    loss = contrastive_loss(whole, distributed.gathered(distributed.part(votes)), 0.2) * factor
    loss.backward()
    distributed.average(weight.grad for weight in network.parameters())
    return {"z": whole.detach(), "loss": loss.detach()} | {k: v.grad for k, v in network.named_parameters()}


def normalised():
    """What batch normalisation makes of this process's part of images, and what it keeps; then in evaluation mode."""
    generator = torch.Generator().manual_seed(3)
    layer = nn.BatchNorm2d(3, momentum=0.3)
    nn.init.normal_(layer.weight, generator=generator)
    layer = distributed.share_statistics(nn.Sequential(layer))
    x = torch.randn(6, 3, 4, 5, generator=generator) * 3 + 7
    x = x.contiguous(memory_format=torch.channels_last)
    found = [distributed.gathered(layer(distributed.part(x.to(kind)))) for kind in (torch.float32, torch.bfloat16)]
    found += [distributed.gathered(layer.eval()(distributed.part(x)))]
    return [values.detach() for values in found] + list(layer.state_dict().values())


def profeat():
    """Losses by stage of a tiny fit of every step of ProFeat, and its labels."""
    steps = dict(pretext_steps=3, scan_steps=3, label_steps=2, round_steps=3, rounds=2, ensemble=2, t_c=1)
    small = dict(network="narrow", width=2, views="digits", strong_views="digits", n_neighbors=4, t_f=0.3)
    batches = dict(pretext_batch=20, scan_batch=20, label_batch=20)
    model = ProFeat(n_clusters=3, device="cpu", **steps, **small, **batches).fit(load("digits", subset=60))
    return [[row["stage"], row["loss"]] for row in model.history_], torch.from_numpy(model.labels_)


def state(run):
    return dict(run.modules.state_dict()) | {
        f"momentum.{i}": held["momentum_buffer"] for i, held in enumerate(run.optimizers["sgd"].state.values())
    }


def work(rank, folder):
    """What each process does; the tests read what it leaves."""
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/store", rank=rank, world_size=PROCESSES, timeout=timedelta(seconds=60)
    )
    try:
        found = {"step": one_step(1.0), "factors": one_step(1.0 + rank)}
        saved, save = [], trainer.save_checkpoint
        trainer.save_checkpoint = lambda *given: (saved.append(given[0].name), save(*given))
        run, told = fit(folder, "two")
        found |= {"saved": saved, "state": state(run), "losses": [row["loss"] for row in run.history], "told": told}
        found |= {"ranks": [row["rank"] for row in run.history]}
        fit(folder, "killed", fails_at=1)
        run, again = fit(folder, "killed")
        found |= {"resumed": state(run), "again": again}
        integers = torch.arange(3) + rank
        halves = [torch.full((2,), float(rank)), None, integers, torch.tensor(rank, dtype=torch.float64)]
        distributed.average(halves)
        distributed.average([])
        found["averaged"] = halves
        found["parts"] = [distributed.part(torch.arange(6)), distributed.part(torch.arange(8).view(2, 4), 1)]
        found["half"] = distributed.gathered(torch.full((1, 2), rank + 0.5, dtype=torch.bfloat16))
        found["normalised"], found["profeat"] = normalised(), profeat()
        try:
            distributed.part(torch.arange(7))
        except ValueError as error:
            found["few"] = str(error)
        torch.save(found, folder / f"{rank}.pt")
    finally:
        dist.destroy_process_group()


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    """What each of two processes found, and their folder."""
    folder = tmp_path_factory.mktemp("processes")
    torch.multiprocessing.spawn(work, (folder,), PROCESSES)
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(PROCESSES)], folder


def test_loss_and_gradients_are_those_of_one_process(both):
    alone = one_step(1.0)
    for found in both[0]:
        for name, value in alone.items():
            torch.testing.assert_close(found["step"][name], value, rtol=1e-5, atol=1e-6, msg=name)
    assert alone["z"].shape == (2 * B, 4) and alone["layers.0.weight"].abs().max() > 1e-3


def test_the_gradient_is_that_of_the_mean_of_the_losses(both):
    alone = one_step(1.5)
    for rank, found in enumerate(both[0]):
        torch.testing.assert_close(found["factors"]["loss"], alone["loss"] * (1 + rank) / 1.5)
        for name in alone.keys() - {"loss"}:
            torch.testing.assert_close(found["factors"][name], alone[name], rtol=1e-5, atol=1e-6, msg=name)


def test_a_fit_equals_that_of_one_process(both, tmp_path):
    run, told = fit(tmp_path, "one")
    expected = state(run)
    assert len(expected) == 15 and told == [1, 2, 3]
    for found in both[0]:
        assert found["losses"] == pytest.approx([row["loss"] for row in run.history], rel=1e-5)
        for name, value in expected.items():
            torch.testing.assert_close(found["state"][name], value, rtol=1e-4, atol=1e-5, msg=name)


def test_processes_agree_to_the_bit_and_the_first_alone_tells_and_writes(both):
    (first, second), folder = both
    for key in ("state", "resumed"):
        assert all(torch.equal(value, second[key][name]) for name, value in first[key].items()), key
    assert first["losses"] == second["losses"] and first["ranks"] == second["ranks"] == [0.5] * 3
    assert (first["told"], first["again"]) == ([1, 2, 3], [2, 3]) and second["told"] == second["again"] == []
    assert set(first["saved"]) == {"two.ckpt", "killed.ckpt"} and second["saved"] == []
    assert sorted(path.name for path in folder.glob("*.ckpt*")) == ["killed.ckpt", "two.ckpt"]


def test_a_killed_fit_of_two_goes_on_to_the_same_bits(both):
    for found in both[0]:
        assert all(torch.equal(value, found["resumed"][name]) for name, value in found["state"].items())


def test_batch_normalisation_sees_the_whole_batch(both):
    expected = normalised()
    for found in both[0]:
        for one, other in zip(found["normalised"], expected, strict=True):
            tolerance = 1e-2 if one.dtype == torch.bfloat16 else 1e-5
            torch.testing.assert_close(one, other, rtol=tolerance, atol=tolerance)


def test_profeat_takes_the_steps_of_one_process_and_both_go_the_same_way(both):
    (first, labels), (second, others) = (found["profeat"] for found in both[0])
    assert first == second and torch.equal(labels, others)
    alone = profeat()[0]
    assert {stage for stage, _ in alone} >= {"pretext", "refine", "scan"}
    pretexts = [[loss for stage, loss in rows if stage == "pretext"] for rows in (first, alone)]
    assert pretexts[0] == pytest.approx(pretexts[1], rel=1e-4)  # later ones hang on who is whose neighbour
    assert [stage for stage, _ in first] == [stage for stage, _ in alone]


def test_parts_and_means(both):
    first, second = both[0]
    assert [x.tolist() for x in first["parts"]] == [[0, 1, 2], [[0, 1], [4, 5]]]
    assert [x.tolist() for x in second["parts"]] == [[3, 4, 5], [[2, 3], [6, 7]]]
    for rank, found in enumerate(both[0]):
        mean, none, integers, double = found["averaged"]
        assert mean.tolist() == [0.5, 0.5] and none is None and integers.tolist() == [rank, rank + 1, rank + 2]
        assert double == 0.5 and double.dtype == torch.float64
        assert found["half"].tolist() == [[0.5, 0.5], [1.5, 1.5]] and found["half"].dtype == torch.bfloat16
        assert found["few"] == "2 processes cannot share 7 samples evenly: choose batches that they divide"


def test_alone_all_is_given_back():
    x = torch.arange(6.0)
    assert distributed.size() == 1 and distributed.rank() == 0
    assert distributed.gathered(x) is x and torch.equal(distributed.part(x), x)
    distributed.average([x])
    distributed.wait()
    assert torch.equal(x, torch.arange(6.0))
