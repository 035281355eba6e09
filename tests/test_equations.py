"""The map between the book's equations and the functions that compute them.

A page prints a labelled equation, `(eq-<paper>-<n>)=` above a `{math}` block, and names its function in
the text right below: "Code: `reprolib.module.function`". Both directions are checked: the name must
resolve, and the function's docstring must cite the paper and the equation, or what CITES says where the
paper gives no number. Values are compared in the tests that COVERED names, or below.
"""

import importlib
import inspect
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from reprolib import load
from reprolib.graph.digraph import edge_weights, knn_digraph, one_link_clusters
from reprolib.graph.linkage import degree_affinity, graph_degree_linkage
from reprolib.methods import JULE
from reprolib.methods.jule import Triplets, inverse_decay, period_lengths, weighted_triplet_loss
from reprolib.training.trainer import Run
from tools import sources

BOOK = Path(__file__).parents[1] / "book"
PAPERS = {
    "jule": "paper 002",
    "dcss": "paper 004",
    "separation": "paper 001",
    "precise": "paper 003",
    "profeat": "paper 000",
}
EQUATION = re.compile(r"^\((eq-(\w+)-[\w-]+)\)=\n```\{math\}\n(.*?)\n```\n(.*?)(?=^```|^\(eq-|^#)", re.M | re.S)
NAME = re.compile(r"`(reprolib\.[\w.]+)`")
NUMBERS = re.compile(r"equations? (\d+[abc]?(?:(?:, | and )\d+[abc]?)*)")
# what a docstring cites for an equation that has no number in the paper
CITES = {
    "eq-jule-sigma": "equation 4",
    "eq-jule-gdl": "Zhang et al. 2012",
    "eq-jule-period": "section 3.6",
    "eq-jule-rate": "section 4.1.2",
    "eq-jule-readings": "equations 10 and 11",
    "eq-jule-collapse": "equations 10 and 11",
    "eq-dcss-t1": "Theorem 1",
    "eq-dcss-t2": "Theorem 2",
    "eq-dcss-t3": "Theorem 3",
}

# equation: the test that compares values (and gradients, for losses) with a literal float64 version
COVERED = {
    "eq-jule-1": "test_equations.test_each_step_changes_its_own_unknown_only",
    "eq-jule-2": "test_equations.test_each_step_changes_its_own_unknown_only",
    "eq-jule-3": "test_linkage.test_every_merge_equals_the_literal_reference",
    "eq-jule-4": "test_equations.test_weights_and_bandwidth_of_equation_4",
    "eq-jule-5": "test_embedding.test_literal_forward_pass",
    "eq-jule-6": "test_equations.test_the_losses_of_the_periods_add_up_to_that_of_the_run",
    "eq-jule-7": "test_linkage.test_every_merge_equals_the_literal_reference",
    "eq-jule-8": "test_equations.test_the_losses_of_the_periods_add_up_to_that_of_the_run",
    "eq-jule-9": "test_equations.test_the_losses_of_the_periods_add_up_to_that_of_the_run",
    "eq-jule-10": "test_equations.test_regrouped_cluster_loss_is_the_weighted_triplet_loss",
    "eq-jule-11": "test_losses.test_value_and_gradient_equal_the_literal_loss",
    "eq-jule-sigma": "test_equations.test_weights_and_bandwidth_of_equation_4",
    "eq-jule-gdl": "test_linkage.test_dense_affinity_table_is_symmetric_and_literal",
    "eq-jule-period": "test_equations.test_a_period_merges_the_ceiling_of_eta_times_n_c",
    "eq-jule-rate": "test_equations.test_inverse_policy_is_the_printed_formula",
    "eq-jule-readings": "test_losses.test_value_and_gradient_equal_the_literal_loss",
    "eq-jule-collapse": ("test_losses.test_unhinged_loss_prefers_collapse_until_negatives_are_gamma_times_farther"),
    "eq-dcss-1": "test_dcss.test_run_losses_are_equations_1b_and_1c_and_sum_to_the_fuzzy_objective",
    "eq-dcss-2": "test_soft_assignment.test_memberships_equal_the_textbook_ratios",
    "eq-dcss-3": "test_dcss.test_centers_are_refreshed_by_equation_3_and_lower_the_fuzzy_objective",
    "eq-dcss-4": "test_pairwise.test_value_counts_and_gradient_equal_the_literal_loss",
    "eq-dcss-5": "test_pairwise.test_value_counts_and_gradient_equal_the_literal_loss",
    "eq-separation-1": "test_separation.test_a_step_descends_the_weighted_sum",
    "eq-separation-2": "test_soft_assignment.test_student_t_and_its_gradient_equal_the_literal_formula",
    "eq-separation-3": "test_soft_assignment.test_target_distribution_equals_the_literal_formula",
    "eq-separation-4": "test_soft_assignment.test_dec_loss_and_gradient_equal_the_literal_loss",
    "eq-separation-5": "test_separation.test_separation_and_its_gradient_equal_the_literal_sum",
    "eq-separation-6": "test_separation.test_entropy_constraint_and_its_gradient_equal_the_literal_sum",
    "eq-separation-7": "test_separation.test_a_step_descends_the_weighted_sum",
    "eq-precise-1": "test_cue.test_cross_entropy_and_its_parts_equal_the_literal_sums",
    "eq-precise-2": "test_cue.test_cross_entropy_and_its_parts_equal_the_literal_sums",
    "eq-precise-3": "test_cue.test_cross_entropy_and_its_parts_equal_the_literal_sums",
    "eq-precise-4": "test_cue.test_the_estimate_is_the_mean_over_drawn_pairs",
    "eq-precise-5": "test_precise.test_losses_equal_the_literal_sums",
    "eq-precise-6": "test_precise.test_losses_equal_the_literal_sums",
    "eq-precise-7": "test_precise.test_losses_equal_the_literal_sums",
    "eq-precise-8": ("test_precise.test_the_staircase_does_not_compound_and_equation_8_read_literally_overflows"),
    "eq-profeat-1": "test_contrastive.test_value_and_gradient_equal_equation_1_written_out",
    "eq-profeat-2": "test_profeat.test_equation_2_equals_the_literal_sum",
    "eq-profeat-3": "test_contrastive.test_connections_and_their_threshold_equal_the_literal_count",
    "eq-dcss-t1": "test_theorems.test_theorem_1_no_product_exceeds_the_smaller_maximum",
    "eq-dcss-t2": "test_theorems.test_bounds_are_attained_among_all_pairs_of_a_lattice",
    "eq-dcss-t3": "test_theorems.test_theorem_3_and_corollary_2_1_for_any_zeta_above_one_half",
}


def equations() -> dict[str, tuple[str, list[str]]]:
    """Label: (paper, names of functions in the text below the equation), over chapters of papers."""
    found = {}
    for page in sorted(BOOK.rglob("*.md")):
        for label, paper, _, below in EQUATION.findall(page.read_text()):
            if paper in PAPERS:
                found[label] = (paper, NAME.findall(below))
    return found


def resolve(name: str) -> object:
    parts = name.split(".")
    for cut in range(len(parts), 0, -1):
        try:
            target = importlib.import_module(".".join(parts[:cut]))
        except ModuleNotFoundError:
            continue
        for attribute in parts[cut:]:
            target = getattr(target, attribute)
        return target
    raise AssertionError(f"{name} cannot be imported")


def test_the_lines_beside_an_equation_are_those_that_run():
    for _, names in equations().values():
        for name in names:
            _, lines = sources.lines_of(name)
            assert lines == inspect.getsource(resolve(name)).rstrip()
    assert sources.lines_of("reprolib.methods.jule.JULE.stages")[1].lstrip().startswith("def stages")
    assert sources.lines_of("reprolib.methods.JULE") == sources.lines_of("reprolib.methods.jule.JULE")
    for wrong in ("reprolib.methods.jule.nothing", "reprolib.nowhere.f"):
        with pytest.raises(LookupError, match=wrong):
            sources.lines_of(wrong)


def test_every_equation_of_the_paper_is_printed():
    labels = set(equations())
    assert {f"eq-jule-{n}" for n in range(1, 12)} <= labels
    assert {f"eq-dcss-{n}" for n in range(1, 6)} <= labels
    assert {f"eq-separation-{n}" for n in range(1, 8)} <= labels  # the eighth defines ACC
    assert {f"eq-precise-{n}" for n in range(1, 9)} <= labels  # the ninth is of a data set
    assert {f"eq-profeat-{n}" for n in range(1, 4)} <= labels


@pytest.mark.parametrize("label", sorted(equations()))
def test_an_equation_names_functions_that_cite_the_paper(label):
    paper, names = equations()[label]
    assert names, f"no `reprolib...` function is named below {label}"
    for name in names:
        target = resolve(name)
        assert callable(target), f"{name} is no function or class"
        source = inspect.getdoc(target) or ""
        assert PAPERS[paper] in source, f"{name} does not cite {PAPERS[paper]}"
        if label in CITES:
            assert CITES[label] in source, f"{name} does not cite {CITES[label]}"
        else:
            number = label.rpartition("-")[2]
            cited = re.findall(r"\d+", " ".join(NUMBERS.findall(source)))
            assert number in cited, f"{name} does not cite equation {number}"


def test_the_list_of_covering_tests_is_complete_and_true():
    assert set(COVERED) == set(equations())
    for test in set(COVERED.values()):
        module, function = test.split(".")
        (path,) = Path(__file__).parent.rglob(f"{module}.py")
        text = path.read_text()
        assert f"def {function}(" in text, f"{test} does not exist"


def test_weights_and_bandwidth_of_equation_4():
    X = np.random.default_rng(0).normal(size=(30, 4)).astype(np.float32)
    digraph = knn_digraph(X, 5, bandwidth=0.7)
    points = X.astype(np.float64)
    distances = ((points[:, None] - points[None]) ** 2).sum(-1)
    np.fill_diagonal(distances, np.inf)
    nearest = np.argsort(distances, axis=1)[:, :5]
    squared = np.take_along_axis(distances, nearest, 1)
    sigma2 = 0.7 / (30 * 5) * sum(squared[i, j] for i in range(30) for j in range(5))
    assert digraph.sigma2 == pytest.approx(sigma2, rel=1e-6)
    expected = np.zeros((30, 30))
    for i in range(30):
        for j in nearest[i]:
            expected[i, j] = np.exp(-distances[i, j] / sigma2)
    np.testing.assert_allclose(digraph.to_csr().toarray(), expected, rtol=1e-5)
    assert edge_weights(np.zeros((3, 2)))[1] == 0.0
    with pytest.raises(ValueError, match="positive"):
        edge_weights(squared, bandwidth=0.0)


@pytest.mark.parametrize("eta", [0.2, 0.5, 0.9, 1.0])
def test_a_period_merges_the_ceiling_of_eta_times_n_c(eta):
    counts = period_lengths(1762, 10, eta)
    for before, after in zip(counts, counts[1:], strict=False):
        merges = -(-round(before * eta * 10) // 10)  # the ceiling, in tenths to avoid rounding
        assert after == max(before - merges, 10)


def test_inverse_policy_is_the_printed_formula():
    for step in (0, 1, 777, 100_000):
        assert inverse_decay(step, 0.01, 1e-4, 0.75) == pytest.approx(0.01 * (1 + 0.0001 * step) ** -0.75, rel=1e-12)


def step_losses(digraph, labels, merges, local_weight, n_neighbor_clusters):
    """Equation 7 at each merge, from the whole affinity table: losses (7), and regrouped as in (10).

    Also whether the merge is the one of smallest loss, as equation 8's greedy search asks.
    """
    labels, losses, regrouped = labels.copy(), [], []
    for kept, absorbed in merges:
        names = np.unique(labels)
        table = degree_affinity(digraph, labels)
        best = None
        for i in range(len(names)):
            ranked = np.sort(np.delete(table[i], i))[::-1][:n_neighbor_clusters]
            factor = local_weight / (len(ranked) - 1)
            loss = -ranked[0] - factor * sum(ranked[0] - ranked[k] for k in range(1, len(ranked)))
            if best is None or loss < best[0]:
                weight = 1 + 1 / local_weight
                triples = [weight * ranked[0] - ranked[k] for k in range(1, len(ranked))]
                best = (loss, {names[i], names[table[i].argmax()]}, -factor * sum(triples))
        assert best[1] == {kept, absorbed}
        losses.append(best[0])
        regrouped.append(best[2])
        labels[labels == absorbed] = kept
    return np.array(losses), np.array(regrouped)


def small_graph():
    X = np.random.default_rng(0).normal(size=(80, 3)).astype(np.float32)
    digraph = knn_digraph(X, 8)
    return digraph, one_link_clusters(digraph.indices[:, 0])


@pytest.mark.parametrize("local_weight", [0.5, 1.0])
def test_the_losses_of_the_periods_add_up_to_that_of_the_run(local_weight):
    """On fixed features: (6) in one go, (8) period by period from the labels so far, (9) their sum."""
    digraph, start = small_graph()
    options = dict(local_weight=local_weight, n_neighbor_clusters=5)
    whole = graph_degree_linkage(digraph, start, 3, **options)
    run, regrouped = step_losses(digraph, start, whole.merges, local_weight, 5)
    np.testing.assert_allclose(run, regrouped, rtol=1e-12)  # (10) only regroups (9)

    labels, periods = start, []
    for target in period_lengths(int(start.max()) + 1, 3, 0.5)[1:]:
        part = graph_degree_linkage(digraph, labels, target, **options)
        periods.append(step_losses(digraph, labels, part.merges, local_weight, 5)[0].sum())
        labels = part.labels
    assert len(periods) > 2
    assert sum(periods) == pytest.approx(run.sum(), rel=1e-9)
    assert np.array_equal(labels, whole.labels)


def test_regrouped_cluster_loss_is_the_weighted_triplet_loss():
    """(10) for one merge is (11) on clusters: the same mean, times lambda, with gamma = lambda'."""
    affinities = np.array([0.9, 0.5, 0.4, 0.2, 0.1])  # of N[1] .. N[K_c]
    local_weight, k_c = 0.5, 5
    gamma = 1 + 1 / local_weight
    literal = 0.0
    for k in range(1, k_c):
        literal -= local_weight / (k_c - 1) * (gamma * affinities[0] - affinities[k])
    distances = torch.from_numpy(-np.log(np.append(1.0, affinities)))[None]  # A = exp(-d^2)
    triplets = Triplets(torch.tensor([0]), torch.tensor([1]), torch.tensor([[2, 3, 4, 5]]))
    loss = weighted_triplet_loss(distances, triplets, kind="affinity", gamma=gamma)
    assert local_weight * float(loss) == pytest.approx(literal, rel=1e-12)


def test_each_step_changes_its_own_unknown_only():
    """(2a) merges clusters and leaves theta; (2b) trains theta and leaves y."""
    model = JULE(10, n_epochs=1, channels=2, embedding_dim=8, n_neighbors=10)
    images = load("digits").take(np.arange(300))
    run = Run(model, model.inputs(images))
    period = model.stages(run, images)[0]
    period.build()
    period.begin()

    def theta():
        return torch.cat([p.detach().flatten() for p in run.modules["network"].parameters()])

    def y():
        return run.tensors["labels"].numpy().copy()

    weights, labels = theta(), y()
    run._train_epoch(period)
    assert np.array_equal(y(), labels) and not torch.equal(theta(), weights)
    weights = theta()
    period.end()
    assert torch.equal(theta(), weights) and y().max() < labels.max()
    pairs = set(zip(labels.tolist(), y().tolist(), strict=True))
    assert len(pairs) == labels.max() + 1, "a merge may join clusters, never split one"
