"""The map between the book's equations and the functions that compute them.

A page prints a labelled equation, `(eq-<paper>-<n>)=` above a `{math}` block, and names its function in
the text right below: "Code: `reprolib.module.function`". Both directions are checked: the name must
resolve, and the function's docstring must cite the paper. Values are compared in the tests that COVERED
names, or below.
"""

import importlib
import inspect
import re
from pathlib import Path

import numpy as np
import pytest

from reprolib.graph.digraph import edge_weights, knn_digraph
from reprolib.methods.jule_run import period_lengths
from reprolib.training import inverse_decay

BOOK = Path(__file__).parents[1] / "book"
PAPERS = {"jule": "paper 002"}
EQUATION = re.compile(
    r"^\((eq-(\w+)-[\w-]+)\)=\n```\{math\}\n(.*?)\n```\n(.*?)(?=^```|^\(eq-|^#)", re.M | re.S
)
NAME = re.compile(r"`(reprolib\.[\w.]+)`")

# equation: the test that compares values (and gradients, for losses) with a literal float64 version
COVERED = {
    "eq-jule-1": "test_jule.test_fit_sets_what_it_promises",
    "eq-jule-2": "test_jule.test_fit_sets_what_it_promises",
    "eq-jule-3": "test_linkage.test_every_merge_equals_the_literal_reference",
    "eq-jule-4": "test_equations.test_weights_and_bandwidth_of_equation_4",
    "eq-jule-5": "test_networks.test_literal_forward_pass",
    "eq-jule-6": "test_linkage.test_merge_affinities_are_those_of_the_merged_pair",
    "eq-jule-7": "test_linkage.test_every_merge_equals_the_literal_reference",
    "eq-jule-8": "test_linkage.test_merge_affinities_are_those_of_the_merged_pair",
    "eq-jule-9": "test_jule.test_fit_sets_what_it_promises",
    "eq-jule-10": "test_losses.test_value_and_gradient_equal_the_literal_loss",
    "eq-jule-11": "test_losses.test_value_and_gradient_equal_the_literal_loss",
    "eq-jule-sigma": "test_equations.test_weights_and_bandwidth_of_equation_4",
    "eq-jule-gdl": "test_linkage.test_dense_affinity_table_is_symmetric_and_literal",
    "eq-jule-period": "test_equations.test_a_period_merges_the_ceiling_of_eta_times_n_c",
    "eq-jule-rate": "test_equations.test_inverse_policy_is_the_printed_formula",
    "eq-jule-readings": "test_losses.test_value_and_gradient_equal_the_literal_loss",
    "eq-jule-collapse": (
        "test_losses.test_unhinged_loss_prefers_collapse_until_negatives_are_gamma_times_farther"
    ),
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


def test_every_equation_of_the_paper_is_printed():
    labels = set(equations())
    assert {f"eq-jule-{n}" for n in range(1, 12)} <= labels


@pytest.mark.parametrize("label", sorted(equations()))
def test_an_equation_names_functions_that_cite_the_paper(label):
    paper, names = equations()[label]
    assert names, f"no `reprolib...` function is named below {label}"
    for name in names:
        target = resolve(name)
        assert callable(target), f"{name} is no function or class"
        source = inspect.getdoc(target) or ""
        assert PAPERS[paper] in source, f"{name} does not cite {PAPERS[paper]}"


def test_the_list_of_covering_tests_is_complete_and_true():
    assert set(COVERED) == set(equations())
    for test in set(COVERED.values()):
        module, function = test.split(".")
        text = (Path(__file__).parent / f"{module}.py").read_text()
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
        assert inverse_decay(step, 0.01, 1e-4, 0.75) == pytest.approx(
            0.01 * (1 + 0.0001 * step) ** -0.75, rel=1e-12
        )
