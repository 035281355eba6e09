"""Paper 000: losses against literal float64 references, what each stage may touch, gates, and a fit that goes on."""

import math
import warnings

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from reprolib.data.load import load
from reprolib.methods import SCAN, ProFeat, SimCLR, scan, simclr
from reprolib.methods.scan import balanced_cross_entropy, scan_loss, signs
from reprolib.methods.simclr import Contrast, cosine
from reprolib.networks.resnet import Classifier, Projection, ResNet
from reprolib.training.trainer import Run

K = 3
TINY = dict(n_clusters=K, network="narrow", width=2, views="digits", pretext_steps=3, pretext_batch=20, device="cpu")
FEW = TINY | dict(strong_views="digits", n_neighbors=4, scan_steps=3, scan_batch=20, label_steps=2, label_batch=20)
ROUNDS = FEW | dict(rounds=2, round_steps=3, t_f=0.3, t_s=0.3)


@pytest.fixture(scope="module")
def digits():
    return load("digits", subset=50)


@pytest.fixture(autouse=True)
def _quiet():
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*collapsed.*")
        yield


def drawn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def begun(X, method=ProFeat, **parameters):
    model = method(**(ROUNDS if method is ProFeat else FEW if method is SCAN else TINY) | parameters)
    run = Run(model, model.inputs(X))
    return run, model.stages(run)


def trained(X, stop=None, **parameters):
    """A run after its first `stop` stages, and the next one, begun."""
    run, stages = begun(X, **parameters)
    run.train(stages[:stop])
    stage = stages[stop]
    stage.build()
    stage.begin()
    return run, stage


# Losses


def test_equation_2_equals_the_literal_sum():
    p, others = drawn(6, K).softmax(1), drawn(6, K, seed=1).softmax(1)
    consistency = -sum(math.log(sum(float(p[i, k] * others[i, k]) for k in range(K))) for i in range(6)) / 6
    mean = [sum(float(p[i, k]) for i in range(6)) / 6 for k in range(K)]
    found = scan_loss(p, others, 5.0)
    assert float(found[0]) == pytest.approx(consistency)
    assert float(found[1]) == pytest.approx(5 * sum(h * math.log(h) for h in mean))


def test_equation_2_at_its_ends():
    sure, even = torch.eye(K).repeat(4, 1), torch.full((8, K), 1 / K)
    assert float(sum(scan_loss(sure, sure, 5.0))) == pytest.approx(-5 * math.log(K))
    assert float(sum(scan_loss(even, even, 5.0))) == pytest.approx(math.log(K) - 5 * math.log(K), rel=1e-6)
    opposite = sure.roll(1, 1).requires_grad_()
    loss = sum(scan_loss(opposite, sure, 5.0))  # log of 0
    loss.backward()
    assert loss.detach().isfinite() and opposite.grad.isfinite().all()


def test_equation_2_has_the_right_gradient():
    logits = drawn(5, K).requires_grad_(), drawn(5, K, seed=1).requires_grad_()
    assert torch.autograd.gradcheck(lambda a, b: sum(scan_loss(a.softmax(1), b.softmax(1), 2.0)), logits)


def test_balanced_cross_entropy_is_the_released_weighting():
    logits, labels = drawn(9, 4), torch.tensor([0, 0, 0, 0, 1, 1, 2, 2, 2])  # the last class is absent
    kept = torch.tensor([1, 1, 0, 1, 1, 1, 1, 0, 0]).bool()
    n, counts = int(kept.sum()), torch.bincount(labels[kept], minlength=4)
    weights = torch.where(counts > 0, n / counts.double(), 1.0)
    expected = F.cross_entropy(logits[kept], labels[kept], weight=weights)
    torch.testing.assert_close(balanced_cross_entropy(logits, labels, kept), expected)
    same = torch.tensor([0, 0, 1, 1, 2, 2, 3, 3])
    plain = F.cross_entropy(logits[:8], same)
    torch.testing.assert_close(balanced_cross_entropy(logits[:8], same, torch.ones(8).bool()), plain)


def test_nothing_confident_is_a_loss_of_0_without_a_gradient():
    logits = drawn(4, K).requires_grad_()
    loss = balanced_cross_entropy(logits, torch.zeros(4, dtype=torch.int64), torch.zeros(4).bool())
    loss.backward()
    assert float(loss.detach()) == 0 and not logits.grad.any()


def test_the_rate_falls_to_a_thousandth():
    assert cosine(0, 500, 0.4) == pytest.approx(0.4) and cosine(500, 500, 0.4) == pytest.approx(0.0004)
    assert cosine(250, 500, 0.4) == pytest.approx((0.4 + 0.0004) / 2)
    rates = [cosine(t, 500, 0.4) for t in range(500)]
    assert rates == sorted(rates, reverse=True)


def test_signs_are_those_of_the_assignments():
    q = torch.tensor([[0.98, 0.02, 0.0], [0.6, 0.4, 0.0], [0.0, 0.1, 0.9], [0.2, 0.5, 0.3]])
    found = signs(q, 0.95)
    assert found["confident"] == 0.25 and found["largest"] == 0.5 and found["smallest"] == 0.25
    mean = q.mean(0)
    assert found["entropy"] == pytest.approx(float(-(mean * mean.log()).sum()))
    assert found["row_entropy"] == pytest.approx(float(torch.special.entr(q).sum(1).mean()))


# Networks


@pytest.mark.parametrize(
    "layout, stem, shape, n_features, last",
    [
        ("resnet18", "plain", (3, 32, 32), 16, 4),
        ("resnet18", "pooled", (3, 96, 96), 16, 7),
        ("narrow", "strided", (1, 28, 28), 8, 4),
    ],
)
def test_the_embedding_halves_as_described(layout, stem, shape, n_features, last):
    network = ResNet(shape[0], layout, 2, stem)
    seen = []
    network[-2].register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].shape))
    assert network(torch.randn(2, *shape)).shape == (2, n_features) and network.n_features == n_features
    assert seen[0][2:] == (last, last)


def test_resnet18_of_full_width_is_torchvision_s():
    from torchvision.models import resnet18

    ours, theirs = ResNet(3, "resnet18", 64, "plain"), resnet18()
    body = [m for name, m in theirs.named_children() if name.startswith("layer")]
    ours_body = [m for m in ours if type(m).__name__ == "BasicBlock"]
    assert [p.shape for m in ours_body for p in m.parameters()] == [p.shape for m in body for p in m.parameters()]
    assert ours.n_features == 512


def test_weights_come_from_the_generator_alone():
    def made(seed):
        generator = torch.Generator().manual_seed(seed)
        network = Classifier(ResNet(1, "narrow", 2, "plain", generator), K, generator)
        return [*network.parameters(), *Projection(8, generator).parameters()]

    torch.manual_seed(1)
    first = made(0)
    torch.manual_seed(2)
    assert all(torch.equal(a, b) for a, b in zip(first, made(0), strict=True))
    assert any(not torch.equal(a, b) for a, b in zip(first, made(1), strict=True))


# Stages


@pytest.mark.parametrize("n_steps, size, passes", [(7, 20, [2, 2, 2, 1]), (2, 20, [2]), (3, 99, [1, 1, 1])])
def test_a_budget_is_in_steps_of_whole_batches(digits, n_steps, size, passes):
    run, _ = begun(digits)
    stage = Contrast(run, n_steps, size)
    found = []
    for run.epoch in range(stage.epochs):
        batches = [*stage.batches()]
        assert {len(batch) for batch in batches} == {min(size, 50)}
        assert len(torch.cat(batches).unique()) == sum(map(len, batches))
        found.append(len(batches))
    assert found == passes


def test_each_view_of_a_batch_is_its_own(digits):
    run, (stage, *_) = begun(digits)
    stage.build()
    seen = stage.views(torch.tensor([[0, 1], [0, 1]]), "digits")
    assert seen.shape == (4, 1, 8, 8) and seen.is_contiguous(memory_format=torch.channels_last)
    assert not torch.equal(seen[0], seen[2]) and not torch.equal(seen[1], seen[3])


def test_images_are_standardised_by_channel(digits):
    run, (stage, *_) = begun(digits)
    pixels = digits.pixels / 255
    mean, deviation = stage.model.moments(run)
    assert float(mean[0]) == pytest.approx(pixels.mean(), rel=1e-5)
    assert float(deviation[0]) == pytest.approx(pixels.std(), rel=1e-5)
    found = simclr.standardized(run.inputs, mean, deviation)
    torch.testing.assert_close(found, torch.from_numpy((pixels - pixels.mean()) / pixels.std()).float())


def test_float_images_are_taken_as_levels_and_refused_outside_of_0_and_1(digits):
    inputs = SimCLR.prepare(digits.pixels / 255)
    assert inputs.dtype == torch.uint8 and np.array_equal(inputs.numpy(), digits.pixels)
    with pytest.raises(ValueError, match=r"must lie in \[0, 1\].*got -1 to .*divide by the range"):
        SimCLR.prepare(2 * digits.pixels / 255 - 1)


def test_neighbors_are_those_of_the_projections_and_the_image_itself(digits):
    for mined_in in ("projection", "features"):
        run, stage = trained(digits, 1, mined_in=mined_in)
        with torch.no_grad():
            run.modules.eval()
            x = simclr.standardized(run.inputs, *run.model.moments(run))
            u = run.modules["g0"](x)
            u = F.normalize(run.modules["p0"](u) if mined_in == "projection" else u, dim=1).double()
        similar = (u @ u.T).fill_diagonal_(-9)
        found = run.tensors["neighbors.0"]
        assert found.shape == (50, 5) and torch.equal(found[:, 0], torch.arange(50).int())
        reached = similar.gather(1, found[:, 1:].long())
        torch.testing.assert_close(reached, similar.topk(4).values, atol=1e-5, rtol=0)


def test_an_image_meets_itself_as_often_as_any_neighbor_or_never(digits, monkeypatch):
    for itself, expected in ((True, 1 / 5), (False, 0.0)):
        run, stage = trained(digits, 1, self_neighbor=itself)
        met = []
        blank = torch.randn(100, 1, 8, 8)
        monkeypatch.setattr(stage, "views", lambda indices, _, met=met, blank=blank: met.append(indices) or blank)
        for _ in range(40):
            stage.step(torch.arange(50))
        images, others = torch.stack(met).chunk(2, 1)  # (40, 50) each
        assert float((images == others).double().mean()) == pytest.approx(expected, abs=0.04)
        allowed = run.tensors["neighbors.0"][images, :].long()
        assert (allowed == others[..., None]).any(-1).all()


def test_a_head_from_a_start_tells_the_nearest_center(digits):
    run, stage = trained(digits, 1, head="kmeans")
    found = simclr.over_images(run, run.modules["f0"].embedding)
    labels = scan.centers_of("kmeans", F.normalize(found, dim=1).numpy(), K, 0)[0]
    centers = torch.stack([found[labels == k].mean(0) for k in range(K)])
    logits = simclr.over_images(run, run.modules["f0"])
    nearest = torch.cdist(found, centers).square()
    spread = nearest[torch.arange(50), torch.from_numpy(labels).long()].mean()
    expected = (-nearest / spread).softmax(1)
    torch.testing.assert_close(logits.softmax(1), expected, atol=1e-4, rtol=0)


def weights_of(module):
    return {name: value.clone() for name, value in module.state_dict().items()}


def same(one, other):
    return all(torch.equal(one[name], other[name]) for name in one)


def test_images_behind_n_train_are_assigned_and_change_nothing(digits):
    first, other = digits.take(range(40)), load("digits", subset=90)
    pixels = np.concatenate([first.pixels, other.pixels[50:60]])
    alone, more = ProFeat(**ROUNDS).fit(first), ProFeat(**ROUNDS, n_train=40).fit(pixels)
    assert len(more.labels_) == 50
    np.testing.assert_allclose(more.embedding_[:40], alone.embedding_, atol=1e-5)  # blocks of another size
    for name, labels in alone.results_.items():
        assert (more.results_[name][:40] == labels).mean() > 0.9
    for told, row in zip(more.history_, alone.history_, strict=True):
        assert told["loss"] == pytest.approx(row["loss"], rel=1e-4)
    with pytest.raises(ValueError, match="n_train=51 and n_unlabelled=0 are more than the 50 images: 0 takes all"):
        ProFeat(**ROUNDS, n_train=51).fit(pixels)


def test_unlabelled_images_serve_the_pretext_alone(digits):
    steps = {name: 9 for name in ("pretext_steps", "scan_steps", "label_steps", "round_steps")}
    run, stages = begun(digits, **steps, n_train=20, n_unlabelled=20, pretext_batch=10, scan_batch=10, label_batch=10)
    met = {}
    for stage in stages:
        met[stage.name] = torch.cat([*stage.batches()]).sort().values.tolist()
    first, last = [*range(20)], [*range(30, 50)]
    assert met == {"pretext": first + last, "refine": first, "scan": first, "self-labelling": first}
    model = ProFeat(**ROUNDS, n_train=20, n_unlabelled=20).fit(digits)
    assert len(model.labels_) == 50


@pytest.mark.parametrize("separate", [True, False])
def test_scan_leaves_g_alone_or_trains_it(digits, separate):
    run, stages = begun(digits, separate=separate)
    run.train(stages[:1])
    before = weights_of(run.modules["g0"])
    run.train(stages[:3])
    assert same(before, weights_of(run.modules["g0"])) == separate
    assert not same(before, weights_of(run.modules["f0"].embedding))


def test_rounds_go_on_from_g_and_begin_the_head_anew(digits):
    run, stages = begun(digits)
    run.train(stages[:3])
    g, head = weights_of(run.modules["g0"]), weights_of(run.modules["f0"].head)
    run.train(stages[:4])
    assert not same(g, weights_of(run.modules["g0"]))
    g = weights_of(run.modules["g0"])
    stages[4].build()
    stages[4].begin()
    assert same(g, weights_of(run.modules["f0"].embedding)) and not same(head, weights_of(run.modules["f0"].head))


# Confident images


def test_one_model_keeps_what_is_above_t_s(digits):
    run, stage = trained(digits, 3)
    confidence = run.tensors["confidence.0"]
    run.model.t_s = float(confidence.median())
    stage.begin()
    found = stage.clusters(torch.arange(50))
    assert torch.equal(found["kept"], confidence > run.model.t_s) and found["agreeing"] == 1
    assert 0 < found["kept"].sum() < 50
    assert torch.equal(found["votes"][:, 0], run.tensors["labels.0"])
    run.model.t_s = float(confidence.max())  # strictly
    stage.begin()
    assert not run.tensors["sure"].any()
    told = stage.step(torch.arange(20))
    assert float(told["loss"]) == 0 and float(told["kept"]) == 0


def test_an_ensemble_keeps_what_has_connections(digits):
    run, stage = trained(digits, 6, ensemble=2, t_c=3)
    run.tensors["votes"] = torch.tensor([[0, 0]] * 4 + [[1, 0]] * 3 + [[2, 2]] * 43).int()
    found = stage.clusters(torch.arange(10))
    assert found["agreeing"] == 2
    assert found["kept"].tolist() == [True] * 4 + [False] * 3 + [False] * 3  # 3 others, 2 others, 2 others
    run.model.t_e = 1
    # by one of two models the first seven are together, so that each has six others
    assert stage.clusters(torch.arange(10))["kept"].tolist() == [True] * 7 + [False] * 3


def test_votes_are_those_of_the_round_before_for_every_member(digits):
    run, stages = begun(digits, ensemble=2)
    run.train(stages[:6])
    before = torch.stack([run.tensors["labels.0"], run.tensors["labels.1"]], 1)
    for i in (6, 7):
        stages[i].build()
        stages[i].begin()
        assert torch.equal(run.tensors["votes"], before)
    assert [(s.name, s.round, s.member) for s in stages[6:10]] == [
        ("refine", 1, 0), ("refine", 1, 1), ("scan", 1, 0), ("self-labelling", 1, 0),
    ]  # fmt: skip


# Gates


def test_self_labelling_is_left_out_where_too_few_are_confident(digits):
    model = SCAN(**FEW | {"label_from": 1.0})
    with pytest.warns(UserWarning, match="left out.*label_from=1.0: take more scan_steps, or a smaller t_f"):
        model.fit(digits)
    assert {row["stage"] for row in model.history_} == {"pretext", "scan"}
    np.testing.assert_array_equal(model.results_["labelled"], model.results_["scan"])
    SCAN(**FEW | {"label_from": 1.0, "t_f": 0.0}).fit(digits)  # the advice helps


def test_a_guarded_self_labelling_goes_back(digits, monkeypatch):
    run, stage = trained(digits, 2, guard=True, label_steps=8, learning_rate=0.05)
    kept = weights_of(run.modules["f0"])
    row = stage.row() | run.numbers["first signs"]
    run.history.append(row)
    stage.end_epoch()
    assert stage.epochs == 4  # nothing is wrong
    for wrong in ({"entropy": row["entropy"] - 0.06}, {"smallest": 0.49 * row["smallest"] - 1e-9},
                  {"row_entropy": 1.21 * row["row_entropy"]}):  # fmt: skip
        run.numbers.pop("off", None)
        with torch.no_grad():
            run.modules["f0"].head.weight.add_(1.0)
        run.history[-1] = row | wrong
        run.epoch = 2
        with pytest.warns(UserWarning, match="it went wrong by its signs"):
            stage.end_epoch()
        assert stage.epochs == 2 and same(kept, weights_of(run.modules["f0"]))
    stage.end()
    assert not any(name.startswith("good.") for name in run.tensors)


def test_a_round_is_not_begun_where_too_few_or_one_sided_images_are_confident(digits):
    for gate in ({"round_from": 1.1}, {"round_largest": 0.01}):
        model = ProFeat(**ROUNDS | gate | {"rounds": 3})
        with pytest.warns(UserWarning, match="left out with all later ones.*take more scan_steps, or a smaller t_s"):
            model.fit(digits)
        assert {row["round"] for row in model.history_} == {0}
        np.testing.assert_array_equal(model.results_["profeat"], model.results_["labelled"])


def test_an_ensemble_has_no_gate_of_one_model(digits):
    model = ProFeat(**ROUNDS | {"ensemble": 2, "round_from": 1.1, "round_largest": 0.01}).fit(digits)
    assert {row["round"] for row in model.history_} == {0, 1}


def test_a_collapse_ends_the_rounds_with_advice(digits, monkeypatch):
    monkeypatch.setattr(scan, "COLLAPSED", 1.1)
    model = ProFeat(**ROUNDS)
    with pytest.warns(UserWarning, match="collapsed, the largest has .*take a larger entropy_weight"):
        model.fit(digits)
    assert {(row["stage"], row["round"]) for row in model.history_} == {
        ("pretext", 0), ("scan", 0), ("self-labelling", 0),
    }  # fmt: skip


# Whole fits


def test_what_a_fit_leaves(digits):
    model = ProFeat(**ROUNDS | {"ensemble": 2}).fit(digits)
    assert list(model.results_) == ["kmeans", "scan", "labelled", "profeat", "member-2"]
    assert model.embedding_.shape == (50, 8) and model.labels_.dtype == np.int32
    np.testing.assert_allclose(np.linalg.norm(model.embedding_, axis=1), 1, rtol=1e-5)
    np.testing.assert_allclose(model.transform(digits), model.embedding_, atol=1e-5)
    assert (model.predict(digits) == model.results_["profeat"]).mean() > 0.9  # rounding between blocks
    rounds = [(row["stage"], row["round"], row["member"]) for row in model.history_]
    assert rounds == sorted(rounds, key=lambda key: key[1])
    assert all(math.isfinite(row["loss"]) for row in model.history_)
    assert "agreement" in model.history_[-1] and "kept" in model.history_[-1]


def test_a_report_keeps_ten_components_of_its_features_and_tells_the_purity():
    rng = np.random.default_rng(0)
    found, labels = rng.normal(size=(30, 64)), rng.integers(0, 3, 30)
    neighbors = np.stack([rng.permutation(30)[:4] for _ in range(20)])  # of the first, which were learned from
    report = simclr.Features("scan", 1, labels, found, neighbors=neighbors)
    kept = report.arrays(np.arange(0, 30, 2))["u_scan"].astype(float)
    centred = found - found.mean(0)
    u, s, _ = np.linalg.svd(centred, full_matrices=False)
    expected = (u * s)[::2, :10]
    signs_of = np.sign((kept * expected).sum(0))
    np.testing.assert_allclose(kept * signs_of, expected, atol=0.02)
    same = [labels[j] == labels[i] for i in range(20) for j in neighbors[i]]
    assert report.judged(labels) == {"purity": pytest.approx(np.mean(same))}
    assert simclr.Features("refine", 1, labels, found).judged(labels) == {}


def test_one_round_is_scan(digits):
    ours, theirs = ProFeat(**ROUNDS | {"rounds": 1}).fit(digits), SCAN(**FEW | {"t_f": 0.3}).fit(digits)
    np.testing.assert_array_equal(ours.results_["labelled"], theirs.labels_)
    np.testing.assert_array_equal(ours.results_["profeat"], theirs.labels_)


def test_a_saved_model_assigns_the_same(digits, tmp_path):
    model = ProFeat(**ROUNDS | {"ensemble": 2}).fit(digits)
    model.save(tmp_path / "model.safetensors")
    loaded = ProFeat.load(tmp_path / "model.safetensors")
    np.testing.assert_array_equal(loaded.predict(digits), model.predict(digits))
    np.testing.assert_array_equal(loaded.transform(digits), model.transform(digits))


class Killed(Exception):
    pass


@pytest.mark.parametrize("parameters", [{"ensemble": 2}, {"guard": True, "separate": False}, {"round_from": 1.1}])
def test_a_killed_fit_goes_on_to_the_same_bits_from_every_epoch(digits, tmp_path, monkeypatch, parameters):
    warnings.simplefilter("ignore")
    whole = ProFeat(**ROUNDS | parameters).fit(digits)
    train, ran = Run._train_epoch, []

    def dies_before_the_second(run, stage):
        if ran:
            raise Killed
        ran.append(stage.name)
        return train(run, stage)

    monkeypatch.setattr(Run, "_train_epoch", dies_before_the_second)
    for times in range(99):  # noqa: B007
        ran.clear()
        try:
            went_on = ProFeat(**ROUNDS | parameters).fit(digits, checkpoint=tmp_path / "run")
        except Killed:
            continue
        break
    assert times + 1 >= len(whole.history_) > 4
    np.testing.assert_array_equal(went_on.embedding_, whole.embedding_)
    for name, labels in whole.results_.items():
        np.testing.assert_array_equal(went_on.results_[name], labels)


def test_a_pretext_is_shared_between_methods(digits, tmp_path, monkeypatch):
    alone = SCAN(**FEW).fit(digits)
    pretext = SimCLR(**TINY).fit(digits, shared=tmp_path)
    np.testing.assert_array_equal(alone.results_["kmeans"], pretext.labels_)
    steps = []
    monkeypatch.setattr(Contrast, "step", lambda self, batch: steps.append(self.name))
    shared = SCAN(**FEW).fit(digits, shared=tmp_path)
    assert not steps
    np.testing.assert_array_equal(shared.labels_, alone.labels_)


def test_an_ensemble_shares_the_pretext_of_its_first_model_alone(digits, tmp_path, monkeypatch):
    alone = SCAN(**FEW).fit(digits)
    ProFeat(**ROUNDS | {"ensemble": 3, "rounds": 1}).fit(digits, shared=tmp_path)
    assert len([*tmp_path.iterdir()]) == 1
    steps, step = [], Contrast.step
    monkeypatch.setattr(Contrast, "step", lambda self, batch: steps.append(self.member) or step(self, batch))
    np.testing.assert_array_equal(SCAN(**FEW).fit(digits, shared=tmp_path).labels_, alone.labels_)
    assert not steps
    ProFeat(**ROUNDS | {"ensemble": 2, "rounds": 1}).fit(digits, shared=tmp_path)
    assert set(steps) == {1}
    SCAN(**FEW | {"n_train": 40}).fit(digits, shared=tmp_path)  # learns from other images
    assert set(steps) == {0, 1}


@pytest.mark.parametrize(
    "parameters",
    [dict(n_clusters=1), dict(n_neighbors=99), dict(pretext_batch=99, scan_batch=99, label_batch=99), dict(t_f=1.0),
     dict(t_s=1.0), dict(ensemble=3, t_e=2, t_c=19), dict(label_steps=0), dict(head="kmeans"), dict(anchors="first"),
     dict(reduction="sum", pretext_rate=1e-3, round_rate=1e-3), dict(precision="bfloat16")],
)  # fmt: skip
def test_degenerate_settings_train(digits, parameters):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = ProFeat(**ROUNDS | parameters).fit(digits)
    assert all(math.isfinite(row["loss"]) for row in model.history_)


@pytest.mark.parametrize(
    "parameters, told",
    [(dict(t_e=3, ensemble=2), "t_e must be at most ensemble=2, got 3.*0 is all"),
     (dict(t_c=20), "t_c must be below pretext_batch=20, got 20"),
     (dict(stem="conv"), "stem.*plain"), (dict(pretext_batch=1), "pretext_batch must be at least 2, got 1")],
)  # fmt: skip
def test_parameters_that_cannot_be_meant_are_refused(digits, parameters, told):
    with pytest.raises(ValueError, match=told):
        ProFeat(**ROUNDS | parameters).fit(digits)
