"""Behaviours: today's are those of probes.yml; each of a table of mutations is seen; the rules of ageing."""

import inspect
import textwrap

import pytest
import yaml

from reprolib.__main__ import main
from reprolib.experiments import paper, probes, records, traces
from reprolib.files import as_yaml
from reprolib.kernels import soft_assignment
from reprolib.methods import autoencoder, dcss, dec, jule, precise, profeat, scan, separation, simclr, starts, vade
from reprolib.studies import codes
from reprolib.training.trainer import Run

NAMES = traces.known()


@pytest.mark.parametrize("name", NAMES)
def test_behaves_as_its_records_were_made(name):
    found = probes.differences(probes.behaviours()[name][-1], traces.compute(name))
    assert not found, probes.advice(name, found)


def test_the_file_is_as_accept_writes_it():
    text = probes.PROBES.read_text(encoding="utf-8")
    assert text.endswith("\n" + as_yaml(probes.behaviours())) and "&id" not in text


def test_file_and_code_know_the_same_names():
    assert sorted(probes.behaviours(), key=str.lower) == NAMES


def test_every_record_names_known_behaviours_and_none_is_stale():
    for entry in [r for p in paper.papers() for r in records.load_records(p, profile=None, tag=None)]:
        assert set(entry["behaviours"]) <= set(NAMES), entry["path"]
        assert not records.is_stale(entry), entry["path"]


def test_counts_are_neither_none_nor_all():
    for name, entries in probes.behaviours().items():
        numbers = entries[-1]["numbers"]
        for key in ("phase 2, similar", "phase 2, dissimilar"):
            assert all(0 < share < 1 for share in numbers.get(key, [])), (name, key)
        triplets = [v for k, v in numbers.items() if k.endswith("n_triplets")]
        assert all(0 < count < 30 * 29 * 20 for part in triplets for count in part), name


# What a mutation changes: id, whose behaviour must tell it, where, old text, new text
NET = '{"params": list(encoder.parameters()), "lr": m.encoder_rate},'
PAIRS = "found = pairwise_loss(q, similarity, zeta=model.zeta, gamma=model.gamma)"
MUTATIONS = [
    ("JULE/paper", jule, "decay_rate", "inverse_decay(step,", "inverse_decay(0,"),
    ("JULE/paper", jule.Period, "begin", "if model.decay_restarts:", "if False:"),
    ("JULE/released", jule.Period, "begin", "if model.decay_restarts:", "if True:"),
    ("JULE/paper", jule.Period, "build", ', "weight_decay"', ""),
    ("JULE/paper", jule.Period, "build", '"dampening", ', ""),
    ("JULE/paper", jule.Period, "build", "**options", '**options | {"momentum": 0.8}'),
    ("JULE/paper", jule.Period, "step", "(model.loss_scale * loss)", "loss"),
    ("JULE/paper", jule.JULE, "digraph", ", self.bandwidth", ""),
    ("JULE/printed", jule.JULE, "digraph", ", self.bandwidth", ""),
    ("JULE/nearest", jule.JULE, "link", '"local_weight", ', ""),
    ("JULE/nearest", jule.JULE, "link", ', "n_neighbor_clusters"', ""),
    ("JULE/released", jule.JULE, "link", ' | {"mode": self.linkage_mode}', ""),
    ("JULE/released", jule, "features_of", "statistics=model.feature_statistics", 'statistics="running"'),
    ("JULE/released", jule.Period, "step", 'model.gradient == "released"', "False"),
    ("JULE/paper", jule.Period, "step", '"margin": model.margin', '"margin": model.margin + 0.002'),
    ("JULE/paper", jule.Period, "step", '"gamma": model.gamma', '"gamma": 1.0'),
    (
        "JULE/nearest",
        jule.Period,
        "step",
        "triplets(labels, model.n_negatives",
        "triplets(labels, 1 + model.n_negatives",
    ),
    ("JULE/paper", Run, "_restore", 'state["numbers"]', 'state["numbers"] | {"step": 0}'),
    ("JULE/paper", Run, "_restore", "optimizer.load_state_dict(held)", "pass"),
    ("JULE/paper", Run, "_restore", 'self.generator.set_state(tensors["generator"])', "pass"),
    ("JULE/paper", Run, "autocast", "enabled=half", "enabled=False"),
    ("DCSS/joint", Run, "autocast", "enabled=half", "enabled=False"),
    ("DCSS/released", dcss.PerCluster, "optimizer", ", momentum=MOMENTUM", ""),
    ("DCSS/joint", dcss.PerCluster, "step", " ** model.m ", " "),
    ("DCSS/joint", dcss.PerCluster, "step", "+ model.alpha * centering)", "+ 1.05 * model.alpha * centering)"),
    ("DCSS/joint", dcss.PerCluster, "end_epoch", "self.run.epoch %", "(self.run.epoch + 1) %"),
    ("DCSS/joint", dcss.PerCluster, "optimizer", "adam(weights, lr=rate)", "adam(weights, lr=10 * rate)"),
    ("DCSS/joint", dcss, "refresh_centers", "centers, m) ** m", "centers, m)"),
    ("DCSS/joint", autoencoder.Pairs, "end_epoch", "<= self.model.u_epochs", "< 0"),
    ("DCSS/joint", autoencoder.Pairs, "end_epoch", "<= self.model.u_epochs", "< self.model.u_epochs"),
    ("DCSS/joint", autoencoder.Pairs, "build", NET, ""),
    ("DCSS/joint", autoencoder.Pairs, "build", "m.encoder_rate", "m.mnet_rate"),
    ("DCSS/joint", autoencoder.Pairs, "memberships", "self.centers.detach(), self.model.m", "self.centers.detach()"),
    ("DCSS/joint", autoencoder.Pairs, "step", "zeta=model.zeta", "zeta=model.zeta + 0.01"),
    (
        "DCSS/joint",
        autoencoder.Pairs,
        "step",
        PAIRS,
        f"{PAIRS}; found = (found[0] - (1 - q.square().sum(1)).sum(), *found[1:])",
    ),
    ("DCSS/joint", autoencoder.Pairs, "branch", "self.run.epoch < self.model.u_epochs", "True"),
    ("DCSS/released", autoencoder.Pairs, "step", "if model.clip:", "if False:"),
    ("DEC", starts, "kmeans_start", "n_init=N_INIT", "n_init=1"),
    ("DEC", starts, "kmeans_start", "random_state=seed", "random_state=0"),
    ("DEC", Run, "_shared_file", "{self.fingerprint(stage.shared)[:16]}", "shared"),
    (
        "DEC",
        Run,
        "fingerprint",
        "for k in (known if names is None else names)",
        'for k in known if k != "random_state"',
    ),
    ("AEKMeans", autoencoder.Pretrain, "build", "lr=model.pretrain_rate", "lr=1e-3"),
    ("AEKMeans", autoencoder.Pretrain, "build", "lr=model.pretrain_rate", "lr=10 * model.pretrain_rate"),
    ("AEKMeans", autoencoder.Pretrain, "build", "rate)", "rate, betas=(0.9, 0.99))"),
    ("DEC", dec.OneLoss, "optimizer", "lr=self.model.learning_rate", "lr=1e-4"),
    ("DEC", dec.OneLoss, "optimizer", "lr=self", "lr=10 * self"),
    ("DEC", dec.Target, "clustering", "return ", "self.begin_epoch(); return "),
    ("DEC", soft_assignment, "target_distribution", "q / frequency", "q"),
    ("DCN", dec.RunningMeans, "after_step", 'kept["counts"].copy_(after)', "pass"),
    ("DCN", dec.RunningMeans, "clustering", ".mean()", ".mean() * 2"),
    (
        "IDEC",
        dec.TargetAndReconstruction,
        "clustering",
        "soft_assignment.dec_loss(",
        "1.05 * soft_assignment.dec_loss(",
    ),
    ("DKM", dec.Softmin, "clustering", "-self.inverse_temperature", "-500"),
    ("VaDE", vade, "mixture_divergence", " - log_weights", ""),
    ("VaDE", vade, "mixture_divergence", " - (1 + log_variance).sum(1) / 2", ""),
    ("VaDE", vade, "mixture_divergence", "energy / 2 + log_gamma", "energy / 2"),
    ("VaDE", vade, "reconstruction_cost", "error.sum(1) * torch.exp(-log_noise)", "error.sum(1)"),
    ("VaDE", vade.NegativeELBO, "losses", "noise * torch.exp(log_variance / 2)", "0 * noise"),
    ("InterClassSeparation/paper", separation.InterClassSeparation, "separated", "if self.sphere", "if False"),
    ("InterClassSeparation/paper", separation.InterClassSeparation, "augmented", "inputs, generator", "inputs, None"),
    ("InterClassSeparation/printed", separation.Separated, "radius", "model.n_augmentations", "1"),
    ("InterClassSeparation/printed", separation.Separated, "step", ' / run.tensors["variance"]', ""),
    ("InterClassSeparation/printed", separation.Separate, "optimizer", ", self.centers]", "]"),
    ("InterClassSeparation/printed", separation, "choose_negatives", "torch.minimum(near, to_positive)", "near"),
    ("InterClassSeparation/paper", separation, "entropy_constraint", ".mean() -", ".mean() +"),
    ("PreciseFeature/paper", precise.Adversarial, "build", "model.beta_1, model.beta_2", "model.beta_1, 0.99"),
    ("PreciseFeature/paper", precise.Adversarial, "build", "rate, betas", "rate / 2, betas"),
    ("PreciseFeature/paper", precise.Adversarial, "schedule", "self.t + 1", "self.t + 9"),
    ("PreciseFeature/paper", precise.Adversarial, "schedule", "1 - self.t", "1 - 0 * self.t"),
    ("PreciseFeature/paper", precise.Adversarial, "imagine", " * self.loudness", ""),
    ("PreciseFeature/paper", precise.Adversarial, "classify", "if self.model.augmented", "if False"),
    ("PreciseFeature/paper", precise.Adversarial, "criticise", "shares * real + (1 - shares) * fake", "real"),
    ("PreciseFeature/paper", precise, "penalised", "2 * weight", "weight"),
    ("PreciseFeature/paper", precise, "staircase", "t // interval", "t / interval"),
    ("PreciseFeature/released", precise.Adversarial, "turns", "n_class << self.doubled", "n_class"),
    ("PreciseFeature/released", precise.Adversarial, "turns", "n_critic << self.doubled", "n_critic"),
    ("PreciseFeature/released", precise.Adversarial, "criticise", "values.mean(-1).chunk", "values.sum(-1).chunk"),
    ("SimCLR/paper", simclr.Contrast, "build", "momentum=model.momentum", "momentum=0.5"),
    ("SimCLR/released", simclr.Contrast, "step", '"anchors": model.anchors', '"anchors": "both"'),
    ("SimCLR/paper", simclr.SimCLR, "moments", "(255 * count)", "(200 * count)"),
    ("SCAN/paper", scan, "scan_loss", "-entropy_weight", "entropy_weight"),
    ("SCAN/paper", scan.Scan, "step", "model.strong_views", "model.views"),
    ("SCAN/paper", scan.Scan, "step", "first + (drawn", "first + (0 * drawn"),
    ("SCAN/paper", scan.SelfLabel, "step", "self.views(batch[None], model.strong_views)", "plain"),
    ("ProFeat/paper", profeat.Refine, "clusters", "well_connected(votes, model.t_c", "well_connected(votes, 19"),
    ("ProFeat/paper", profeat.Refine, "clusters", '"votes": votes', '"votes": None'),
    ("codes", codes, "learn_codebook", "ITERATIONS", "1"),
    ("codes", codes, "normalise_contrast", "variance + CONTRAST", "variance + 1"),
]


@pytest.mark.parametrize(
    ("name", "owner", "function", "old", "new"), MUTATIONS, ids=[f"{i}-{m[0]}-{m[2]}" for i, m in enumerate(MUTATIONS)]
)
def test_sees_a_mutation(name, owner, function, old, new, monkeypatch):
    whole = getattr(owner, function)
    source = textwrap.dedent(inspect.getsource(whole))
    assert source.count(old) == 1, f"the mutation of {function} must be written anew: {old}"
    scope = dict(inspect.unwrap(whole).__globals__)
    exec(compile(source.replace(old, new), "mutated", "exec"), scope)
    monkeypatch.setattr(owner, function, scope[function])
    assert probes.differences(probes.behaviours()[name][-1], traces.compute(name))


def test_sees_that_seeds_share_a_pretraining(monkeypatch):
    kept = tuple(k for k in autoencoder.Pretrain.shared if k != "random_state")
    monkeypatch.setattr(autoencoder.Pretrain, "shared", kept)
    found = probes.differences(probes.behaviours()["DEC"][-1], traces.compute("DEC"))
    assert any("1 files of 2 seeds" in line for line in found)


# The rules


def behaviour(loss=1.0, labels="aabb"):
    numbers = {"loss": [loss, 2.0], "n_triplets": 40, "bfloat16, loss": loss}
    return {"plan": {"labels": labels, "rates": [0.1]}, "numbers": numbers}


@pytest.mark.parametrize(
    ("changed", "seen"),
    [
        (behaviour(), []),
        (behaviour(loss=1.001), []),
        (behaviour(loss=1.003), ["loss[0]"]),
        (behaviour(loss=1.06), ["loss[0]", "bfloat16, loss"]),
        (behaviour(labels="abbb"), ["labels"]),
        (behaviour() | {"plan": {"labels": "aabb", "rates": [0.1001]}}, ["rates[0]"]),
        (behaviour() | {"plan": {"labels": "aabb"}}, ["rates[0]"]),
        (behaviour() | {"numbers": behaviour()["numbers"] | {"n_triplets": 41}}, ["n_triplets"]),
        (behaviour() | {"numbers": behaviour()["numbers"] | {"more": 1.0}}, ["more"]),
        (behaviour(loss=float("nan")), ["loss[0]", "bfloat16, loss"]),
    ],
)
def test_differences(changed, seen):
    found = probes.differences(behaviour(), changed)
    assert [line.split(":")[0] for line in found] == seen
    assert all("before" in line and "now" in line for line in found)


@pytest.fixture
def book(tmp_path, monkeypatch):
    """A probes.yml of two methods with a comment at its head."""
    path = tmp_path / "probes.yml"
    monkeypatch.setattr(probes, "PROBES", path)
    first = {"id": 1, "since": "a5b42c2", "why": "as the records were made"}
    path.write_text("# the head\n" + as_yaml({name: [first | behaviour()] for name in ("DEC", "KMeans")}))
    return path


@pytest.fixture
def computes(monkeypatch):
    """Let today's behaviour of every name be the one given."""
    return lambda found: monkeypatch.setattr(traces, "compute", lambda name: found)


def test_accept_appends_and_keeps_the_rest(book, computes):
    before = book.read_text().splitlines()
    computes(behaviour(loss=2.0))
    entry = probes.accept("DEC", "a  wanted\nchange")
    after = book.read_text().splitlines()
    start = before.index("KMeans:")
    added = after.index("KMeans:") - start
    assert added > 0 and after[0] == "# the head"
    assert after[:start] == before[:start] and after[start + added :] == before[start:]
    found = yaml.safe_load(book.read_text())
    assert found["DEC"][-1] == entry and [e["id"] for e in found["DEC"]] == [1, 2]
    assert entry["why"] == "a wanted change" and entry["numbers"]["loss"] == [2.0, 2.0]
    assert len(found["KMeans"]) == 1


def test_only_that_methods_records_age(book, computes):
    of_dec, of_both = ({"behaviours": {n: 1 for n in names}} for names in (["DEC"], ["DEC", "KMeans"]))
    of_kmeans = {"behaviours": {"KMeans": 1}}
    assert not any(map(probes.is_stale, (of_dec, of_both, of_kmeans)))
    computes(behaviour(loss=2.0))
    probes.accept("DEC", "meant")
    assert [probes.is_stale(e) for e in (of_dec, of_both, of_kmeans)] == [True, True, False]
    assert probes.latest("DEC", "KMeans") == {"DEC": 2, "KMeans": 1}


def test_accept_adds_a_new_method(book, computes):
    computes(behaviour())
    probes.accept("DKM", "new")
    assert probes.latest("DKM") == {"DKM": 1}


@pytest.mark.parametrize(
    ("name", "why", "message"), [("DECC", "x", "DEC"), ("DEC", " ", "say why"), ("DEC", "x", "behaves as before")]
)
def test_accept_refuses(book, computes, name, why, message):
    computes(behaviour())
    before = book.read_bytes()
    with pytest.raises(ValueError, match=message):
        probes.accept(name, why)
    assert book.read_bytes() == before


def test_unknown_names_are_told(book):
    with pytest.raises(ValueError, match="KMeans"):
        probes.latest("KMean")
    assert probes.is_stale({"behaviours": {"Gone": 1}})


def test_report_counts_and_tells_what_changed(book, computes, monkeypatch, capsys):
    monkeypatch.setattr(traces, "known", lambda: ["DEC", "IDEC"])
    computes(behaviour(loss=2.0))
    assert probes.report_changes() == 3
    told = capsys.readouterr().out
    assert "loss[0]: 1.0 before, 2.0 now" in told and "3 of 3 behaviours changed" in told
    assert "not in book/probes.yml" in told and 'probe accept IDEC --why "..."' in told
    assert "KMeans does not behave" in told and "no longer has it" in told
    computes(behaviour())
    assert probes.report_changes() == 2


def test_commands_name_what_is_wrong(capsys):
    assert main(["probe", "accept", "JULE/papr", "--why", "x"]) == 2
    assert "JULE/paper" in capsys.readouterr().err
    assert main(["replay", "jule", "--sample", "0"]) == 2
    assert "at least 1" in capsys.readouterr().err
