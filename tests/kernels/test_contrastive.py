"""The contrastive loss against equation 1 written out: float64, sums over the pairs of two lists, nothing else."""

import itertools
import math

import pytest
import torch
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from reprolib.kernels import contrastive
from reprolib.kernels.contrastive import agreement, connections, contrastive_loss, well_connected


def literal_pairs(votes, agreeing, kept, b):
    """The lists P and N of ordered pairs of views, from b images' votes (lists) and who is kept."""
    positive, negative = [], []
    for i, j in itertools.product(range(2 * b), repeat=2):
        x, y = i % b, j % b
        if i == j or not (kept[x] and kept[y]):
            continue
        c = sum(k == other for k, other in zip(votes[x], votes[y], strict=True))  # equation 3
        connected = x == y or (len(votes[x]) > 0 and c >= agreeing)
        (positive if connected else negative).append((i, j))
    return positive, negative


def literal_loss(z, votes, temperature, agreeing=None, kept=None, anchors="both", reduction="anchor"):
    """Equation 1; autograd of it in float64 is the gradient."""
    b = len(z) // 2
    votes = [[]] * b if votes is None else votes.tolist()
    agreeing = len(votes[0]) if agreeing is None else agreeing
    kept = [True] * b if kept is None else kept.tolist()
    positive, negative = literal_pairs(votes, agreeing, kept, b)
    rows = list(z.double())

    def sim(i, j):
        return (rows[i] * rows[j]).sum() / (rows[i].square().sum() * rows[j].square().sum()).sqrt()

    similarity = {pair: sim(*pair) / temperature for pair in positive + negative}
    terms = []
    for i in range(2 * b if anchors == "both" else b):
        below = sum(torch.exp(s) for (k, _), s in similarity.items() if k == i)
        terms.append([-torch.log(torch.exp(similarity[pair]) / below) for pair in positive if pair[0] == i])
    flat = sum(terms, [])
    if not flat:
        return 0.0 * z.double().sum()
    if reduction == "anchor":
        means = [sum(own) / len(own) for own in terms if own]
        return sum(means) / len(means)
    return sum(flat) / (len(flat) if reduction == "pair" else 1)


def draw(b, e, k, seed=0, d=6, share=1.0):
    """Projections (2b, d) of any length, exact in float32, votes (b, e) of k clusters, and who is kept."""
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.rand(2 * b, 1, generator=generator) * 5 + 0.1
    z = (torch.randn(2 * b, d, generator=generator) * lengths).double()
    votes = torch.randint(0, k, (b, e), generator=generator)
    return z, votes, torch.rand(b, generator=generator) < share


def cases():
    """Name: (z, votes, temperature, options)."""
    z, votes, kept = draw(7, 3, 2, 1, share=0.6)
    ragged, many, few = draw(13, 2, 3, 2, share=0.7)
    return {
        "unanimous": (z, votes, 0.5, {}),
        "two of three": (z, votes, 0.5, {"agreeing": 2}),
        "one of three": (z, votes, 0.1, {"agreeing": 1}),
        "some kept": (z, votes, 0.3, {"kept": kept}),
        "ragged": (ragged, many, 0.2, {}),
        "ragged, some kept": (ragged, many, 0.2, {"agreeing": 1, "kept": few}),
        "one cluster": (z, 0 * votes, 0.5, {}),
        "no votes": (z, None, 0.5, {"kept": kept}),
        "no model": (z, votes[:, :0], 0.1, {}),
        "one image": (z[:2], votes[:1], 0.5, {}),
        "two images": (z[:4], votes[:2], 0.5, {}),
        "one kept": (z, votes, 0.5, {"kept": torch.arange(7) == 3}),
        "none kept": (z, votes, 0.5, {"kept": torch.zeros(7, dtype=torch.bool)}),
        "alike": (torch.ones(14, 6).double(), votes, 0.5, {"agreeing": 2}),
        "opposite": (z * torch.tensor([1.0, -1.0]).repeat(7)[:, None], votes, 0.5, {}),
    }


every_case = pytest.mark.parametrize("name", cases())
every_way = pytest.mark.parametrize(
    ("anchors", "reduction"), [*itertools.product(contrastive.ANCHORS, contrastive.REDUCTIONS)]
)


def both(name, dtype=torch.float64, **way):
    """Value and gradient: ours, and the literal ones."""
    z, votes, temperature, options = cases()[name]
    found = []
    for loss, leaf in ((contrastive_loss, z.to(dtype)), (literal_loss, z)):
        leaf.requires_grad_()
        value = loss(leaf, votes, temperature, **options, **way)
        found += [value.detach(), torch.autograd.grad(value, leaf)[0]]
    return found


@every_case
@every_way
def test_value_and_gradient_equal_equation_1_written_out(name, anchors, reduction):
    value, gradient, literal, slope = both(name, anchors=anchors, reduction=reduction)
    assert value.shape == () and value.dtype == torch.float64
    torch.testing.assert_close(value, literal, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(gradient, slope, rtol=1e-10, atol=1e-11)


@every_case
def test_float32_agrees_with_equation_1_written_out(name):
    value, gradient, literal, slope = both(name, torch.float32)
    assert value.dtype == gradient.dtype == torch.float32
    torch.testing.assert_close(value.double(), literal, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(gradient.double(), slope, rtol=1e-4, atol=1e-5)


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@every_case
def test_a_gpu_agrees_and_its_recording_too(name):
    z, votes, temperature, options = cases()[name]
    z = z.float().cuda().requires_grad_()
    votes = None if votes is None else votes.cuda()
    options = {k: v.cuda() if isinstance(v, torch.Tensor) else v for k, v in options.items()}

    def work():
        value = contrastive_loss(z, votes, temperature, **options)
        return value.detach(), *torch.autograd.grad(value, z)

    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        eager = work()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        recorded = work()
    graph.replay()
    _, _, literal, slope = both(name)
    for value, gradient in (eager, recorded):
        torch.testing.assert_close(value.cpu().double(), literal, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(gradient.cpu().double(), slope, rtol=1e-4, atol=1e-5)


@every_case
@pytest.mark.parametrize("size", [1, 2, 4, 5, 100])
def test_the_block_size_does_not_matter(name, size, monkeypatch):
    monkeypatch.setattr(contrastive, "BLOCK_IMAGES", size)
    for anchors in contrastive.ANCHORS:
        value, gradient, literal, slope = both(name, anchors=anchors)
        torch.testing.assert_close(value, literal, rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(gradient, slope, rtol=1e-10, atol=1e-11)


@pytest.mark.parametrize("name", ["two of three", "some kept", "none kept", "one image", "no votes"])
@every_way
def test_gradient_agrees_with_finite_differences(name, anchors, reduction):
    z, votes, temperature, options = cases()[name]
    options |= {"anchors": anchors, "reduction": reduction}
    z.requires_grad_()
    assert torch.autograd.gradcheck(lambda x: contrastive_loss(x, votes, temperature, **options), (z,))


def test_gradient_takes_the_upstream_factor_and_no_gradient_changes_no_value():
    z, votes, temperature, options = cases()["ragged, some kept"]
    z.requires_grad_()
    value = contrastive_loss(z, votes, temperature, **options)
    once, thrice = (torch.autograd.grad(factor * value, z, retain_graph=True)[0] for factor in (1, 3))
    torch.testing.assert_close(3 * once, thrice)
    with torch.no_grad():
        alone = contrastive_loss(z, votes, temperature, **options)
    assert alone == value and not alone.requires_grad
    assert contrastive_loss(z.detach(), votes, temperature, **options) == value


def nt_xent(z, temperature, anchors="both"):
    """Chen et al. 2020 as it is usually written: cross entropy of a 2b x 2b matrix without its diagonal."""
    n = len(z)
    unit = F.normalize(z, dim=1)
    logits = (unit @ unit.T / temperature).fill_diagonal_(-math.inf)
    rows = n if anchors == "both" else n // 2
    return F.cross_entropy(logits[:rows], (torch.arange(n) + n // 2)[:rows] % n)


@pytest.mark.parametrize("anchors", contrastive.ANCHORS)
def test_distinct_clusters_are_nt_xent(anchors):
    z, _, _ = draw(300, 1, 1)
    votes = torch.randperm(300, generator=torch.Generator().manual_seed(1))[:, None] - 100
    z.requires_grad_()
    expected = nt_xent(z, 0.1, anchors)
    for given in (votes, None, votes[:, :0], votes.repeat(1, 3)):
        agreeing = 3 if given is None else None  # of no votes all agree on nothing
        found = contrastive_loss(z, given, 0.1, anchors=anchors, agreeing=agreeing)
        torch.testing.assert_close(found, expected)
        torch.testing.assert_close(*(torch.autograd.grad(x, z, retain_graph=True)[0] for x in (found, expected)))


@pytest.mark.parametrize("reduction", ["anchor", "pair"])
def test_equal_embeddings_cost_the_logarithm_of_the_others(reduction):
    z = torch.ones(40, 3)
    _, votes, kept = draw(20, 2, 3, share=0.5)
    expected = torch.tensor(math.log(2 * 20 - 1))
    torch.testing.assert_close(contrastive_loss(z, None, 0.1, reduction=reduction), expected)
    torch.testing.assert_close(contrastive_loss(z, votes, 0.1, reduction=reduction), expected)
    among = torch.tensor(math.log(2 * int(kept.sum()) - 1))
    torch.testing.assert_close(contrastive_loss(z, votes, 0.1, kept=kept, reduction=reduction), among)


def test_names_of_clusters_do_not_matter_nor_does_the_order_of_images():
    z, votes, kept = draw(20, 3, 4, share=0.8)
    options = {"agreeing": 2, "reduction": "pair"}
    value = contrastive_loss(z, votes, 0.2, kept=kept, **options)
    names = torch.stack([torch.randperm(4, generator=torch.Generator().manual_seed(s)) * 7 - 5 for s in range(3)])
    renamed = torch.stack([names[e][votes[:, e]] for e in range(3)], 1)
    assert not torch.equal(renamed, votes)
    assert contrastive_loss(z, renamed, 0.2, kept=kept, **options) == value
    order = torch.randperm(20, generator=torch.Generator().manual_seed(9))
    moved = contrastive_loss(z[torch.cat([order, order + 20])], votes[order], 0.2, kept=kept[order], **options)
    torch.testing.assert_close(moved, value)


def test_discarded_images_are_as_if_they_were_not_there():
    z, votes, kept = draw(40, 2, 3, share=0.5)
    z.requires_grad_()
    left = kept.repeat(2)
    for reduction in contrastive.REDUCTIONS:
        value = contrastive_loss(z, votes, 0.2, kept=kept, reduction=reduction)
        alone = contrastive_loss(z[left], votes[kept], 0.2, reduction=reduction)
        torch.testing.assert_close(value, alone)
        gradient, expected = (torch.autograd.grad(x, z)[0] for x in (value, alone))
        torch.testing.assert_close(gradient, expected)
        assert (gradient[~left] == 0).all() and (gradient[left] != 0).any()


def test_unanimity_is_equality_of_label_tuples_and_an_equivalence():
    _, votes, _ = draw(40, 3, 2)
    related = agreement(votes, votes) == 3
    equal = [[a == b for b in votes.tolist()] for a in votes.tolist()]
    assert related.tolist() == equal and 0 < related.sum() < 1600
    assert related.diagonal().all() and torch.equal(related, related.T)
    assert torch.equal((related.int() @ related.int()) > 0, related)  # transitive
    some = agreement(votes, votes) >= 2
    assert not torch.equal((some.int() @ some.int()) > 0, some), "two of three are no equivalence"


def test_what_the_loss_takes_as_positive_is_symmetric_apart_from_the_negatives_and_shrinks_with_agreeing():
    """Read off the loss: with temperature 1 and unit vectors along axes, the gradient shows who pulls whom."""
    b, e = 8, 3
    _, votes, kept = draw(b, e, 4, 4, share=0.8)  # each image has a negative, or its positives would not pull
    z = torch.eye(2 * b).double().requires_grad_()
    seen = []
    for agreeing in range(1, e + 1):
        value = contrastive_loss(z, votes, 1.0, agreeing=agreeing, kept=kept, reduction="sum")
        pull = torch.autograd.grad(value, z)[0]  # (i, j) from both anchors: of a negative > 0, of a positive < 0
        positive, negative = (set(map(tuple, side.nonzero().tolist())) for side in (pull < -1e-9, pull > 1e-9))
        literal = literal_pairs(votes.tolist(), agreeing, kept.tolist(), b)
        assert (positive, negative) == tuple(map(set, literal))
        for pairs in (positive, negative):
            assert {(j, i) for i, j in pairs} == pairs
        assert not positive & negative
        seen.append(positive)
    assert seen[0] > seen[1] > seen[2]


def test_bfloat16_is_computed_in_float32_under_autocast_too():
    z, votes, kept = draw(30, 2, 3, share=0.8)
    half = z.bfloat16().requires_grad_()
    full = half.detach().float().requires_grad_()
    expected = contrastive_loss(full, votes, 0.1, kept=kept)
    for enabled in (False, True):
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            found = contrastive_loss(half, votes, 0.1, kept=kept)
            same = contrastive_loss(full, votes, 0.1, kept=kept)
        assert found.dtype == torch.float32 and found == expected == same
        (gradient,) = torch.autograd.grad(found, half)
        torch.testing.assert_close(gradient, torch.autograd.grad(expected, full, retain_graph=True)[0].bfloat16())


def test_rows_of_zeros_are_at_right_angles_to_all_and_give_finite_gradients():
    z = torch.zeros(8, 3, requires_grad=True)
    value = contrastive_loss(z, None, 0.1)
    torch.testing.assert_close(value, torch.tensor(math.log(7)))
    assert (torch.autograd.grad(value, z)[0] == 0).all()
    some = draw(4, 1, 1, d=3)[0].float()
    some[2] = 0
    some.requires_grad_()
    (gradient,) = torch.autograd.grad(contrastive_loss(some, None, 0.1), some)
    assert gradient.isfinite().all() and gradient.abs().max() < 10


@pytest.mark.parametrize("temperature", [1e-3, 1e3])
def test_extreme_temperatures_neither_overflow_nor_underflow(temperature):
    z, votes, _ = draw(20, 1, 3)
    small, exact = z.float().requires_grad_(), z.requires_grad_()
    values = [contrastive_loss(x, votes, temperature) for x in (small, exact)]
    torch.testing.assert_close(values[0].double(), values[1], rtol=1e-4, atol=1e-5)
    gradients = [torch.autograd.grad(*pair)[0] for pair in zip(values, (small, exact), strict=True)]
    torch.testing.assert_close(gradients[0].double(), gradients[1], rtol=1e-2, atol=1e-2)
    reference = nt_xent(exact, temperature)
    torch.testing.assert_close(contrastive_loss(exact, None, temperature), reference)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_what_is_not_finite_makes_the_loss_nan(bad):
    z = draw(5, 1, 1)[0]
    z[7, 2] = bad
    assert contrastive_loss(z, None, 0.1).isnan()


class Sizes(TorchDispatchMode):
    """The numbers of elements of what operations give that are no views."""

    def __init__(self):
        super().__init__()
        self.found = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        self.found += [x.numel() for x in [out] if isinstance(x, torch.Tensor)]
        return out


@pytest.mark.parametrize(("anchors", "views"), [("both", 2), ("first", 1)])
def test_no_square_is_made_and_only_vectors_are_saved(anchors, views, monkeypatch):
    b, d, size = 300, 6, 10
    monkeypatch.setattr(contrastive, "BLOCK_IMAGES", size)
    z, votes, kept = draw(b, 3, 2, d=d, share=0.8)
    z.requires_grad_()
    sizes, saved = Sizes(), []
    with sizes, torch.autograd.graph.saved_tensors_hooks(lambda x: saved.append(x.numel()) or x, lambda x: x):
        contrastive_loss(z, votes, 0.1, kept=kept, anchors=anchors).backward()
        connections(votes, 2, kept)
    assert max(sizes.found) == views * size * 2 * b
    assert 0 < max(saved) <= 2 * b * d


def test_on_a_gpu_nothing_waits_for_the_device():
    """With tensors that have shapes and a device alone: to read one on the host is an error, as in a recording."""
    with FakeTensorMode():
        z = torch.empty(64, 8, device="cuda", requires_grad=True)
        votes = torch.empty(32, 3, dtype=torch.int64, device="cuda")
        kept = well_connected(votes, 2, 2, torch.empty(32, dtype=torch.bool, device="cuda"))
        for anchors, reduction in itertools.product(contrastive.ANCHORS, contrastive.REDUCTIONS):
            for given in (votes, None):
                loss = contrastive_loss(z, given, 0.1, kept=kept, anchors=anchors, reduction=reduction)
                assert loss.device.type == "cuda" and loss.requires_grad  # the gradient comes with the value
        with pytest.raises(DataDependentOutputException):
            float(loss.detach())


def literal_connections(votes, agreeing, kept):
    """Equation 3 and section 2.4, by loops."""
    counts = []
    for i, mine in enumerate(votes.tolist()):
        others = [j for j in range(len(votes)) if j != i and kept[i] and kept[j]]
        agree = [sum(k == other for k, other in zip(mine, votes[j].tolist(), strict=True)) for j in others]
        counts.append(sum(c >= agreeing for c in agree))
    return counts


@pytest.mark.parametrize("size", [1, 7, 100])
@pytest.mark.parametrize("agreeing", [1, 2, 3])
def test_connections_and_their_threshold_equal_the_literal_count(agreeing, size, monkeypatch):
    monkeypatch.setattr(contrastive, "BLOCK_IMAGES", size)
    _, votes, kept = draw(23, 3, 2, share=0.7)
    found = connections(votes, agreeing, kept)
    expected = literal_connections(votes, agreeing, kept.tolist())
    assert found.dtype == torch.int64 and found.tolist() == expected and max(expected) > 1
    for threshold in (0, 1, 2, 4):
        left = well_connected(votes, threshold, agreeing, kept)
        assert left.tolist() == [c >= max(threshold, 1) for c in expected]  # C_x: those with connections
    everyone = connections(votes, agreeing)
    assert everyone.tolist() == literal_connections(votes, agreeing, [True] * 23)
    if agreeing == 3:
        assert torch.equal(connections(votes), everyone)


def test_pruning_is_done_once_and_a_second_time_would_discard_more():
    votes = torch.tensor([[0, 0], [0, 1], [1, 1], [1, 2]])  # a chain, where one of two agrees
    assert connections(votes, 1).tolist() == [1, 2, 2, 1]
    left = well_connected(votes, 2, 1)
    assert left.tolist() == [False, True, True, False]
    assert not well_connected(votes, 2, 1, left).any()
    assert connections(votes[:, :0]).tolist() == [0] * 4


@pytest.mark.parametrize(
    ("changes", "error", "said"),
    [
        ({"z": torch.zeros(5, 2)}, ValueError, r"z must be \(2b, d\)"),
        ({"z": torch.zeros(0, 2)}, ValueError, "not empty"),
        ({"z": torch.zeros(8)}, ValueError, r"got \(8,\)"),
        ({"z": torch.zeros(8, 2, dtype=torch.int64)}, TypeError, "floating point"),
        ({"temperature": 0.0}, ValueError, "positive and finite, got 0.0"),
        ({"temperature": math.nan}, ValueError, "positive and finite, got nan"),
        ({"votes": torch.zeros(5, 3, dtype=torch.int64)}, ValueError, r"4 images need votes \(4, e\)"),
        ({"votes": torch.zeros(4, dtype=torch.int64)}, ValueError, r"got \(4,\)"),
        ({"votes": torch.zeros(4, 3)}, TypeError, "votes must be integers"),
        ({"kept": torch.ones(4)}, TypeError, "kept bool"),
        ({"kept": torch.ones(8, dtype=torch.bool)}, ValueError, r"kept \(4,\)"),
        ({"agreeing": 0}, ValueError, "from 1 to the 3 models that vote, got 0"),
        ({"agreeing": 4}, ValueError, "from 1 to the 3 models that vote, got 4"),
        ({"anchors": "second"}, ValueError, "unknown anchors 'second'.*both, first"),
        ({"reduction": "mean"}, ValueError, "unknown reduction 'mean'.*anchor, pair, sum"),
    ],
)
def test_wrong_input_is_told(changes, error, said):
    given = {"z": torch.zeros(8, 2), "votes": torch.zeros(4, 3, dtype=torch.int64), "temperature": 0.5} | changes
    with pytest.raises(error, match=said):
        contrastive_loss(given.pop("z"), given.pop("votes"), given.pop("temperature"), **given)
