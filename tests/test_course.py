"""Notebooks of a course: no MyST left, stubs are cells, no solution reaches a student, checks say what is wrong."""

import re
from pathlib import Path

import jupytext
import nbformat
import numpy as np
import pytest
import torch
from nbclient import NotebookClient
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from scipy import special, stats
from scipy.spatial.distance import cdist

from tools import course, notebooks

PAGES = notebooks.pages()
PAPERS = {"jule": "JULE", "dcss": "DCSS", "separation": "Separation", "precise": "Precise", "profeat": "ProFeat"}
EXERCISES = [Path(f"book/{paper}/exercises.md") for paper in PAPERS]
CODE_OR_FORMULA = re.compile(r"^```.*?^```|\$\$.*?\$\$|(`+)[^`]+\1", re.DOTALL | re.MULTILINE)
MYST = re.compile(r":::|^`{3,}\{|\{[\w:-]+\}`|^\([\w-]+\)=|\]\([^)]*\.md[)#]|^:label:", re.MULTILINE)


def words(notebook, kind="markdown"):
    return "\n\n".join(cell.source for cell in notebook.cells if cell.cell_type == kind)


def converted(text, page="book/jule/method.md", **values):
    """The Markdown of a page with this text, and these values glued by a cell."""
    outputs = [
        new_output(
            "display_data", {"application/papermill.record/text/plain": value}, metadata={"scrapbook": {"name": name}}
        )
        for name, value in values.items()
    ]
    made = new_notebook(cells=[new_code_cell("glue(...)", outputs=outputs), new_markdown_cell(text)])
    return words(course.convert(made, Path(page), solutions=False))


@pytest.mark.parametrize("solutions", [False, True])
@pytest.mark.parametrize("page", PAGES, ids=str)
def test_no_page_shows_myst_in_jupyter(page, solutions):
    notebook = course.convert(notebooks.convert(page), page, solutions=solutions)
    nbformat.validate(notebook)
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            # first code blocks of any length, so that a directive's fence is not taken for one
            assert not re.search(r"^[`:]{3,}\s*\{", cell.source, re.MULTILINE), cell.source
            assert not MYST.search(CODE_OR_FORMULA.sub("", cell.source)), cell.source
            assert cell.source.count("$$") % 2 == 0
    assert any(cell.cell_type == "code" for cell in notebook.cells)


@pytest.mark.parametrize(
    "text, expected",
    [
        ("of {math}`x^2` and $y$", "of $x^2$ and $y$"),
        ("```{math}\nx\n```", "$$\nx\n$$"),
        ("- item\n\n  ```{math}\n  x\n  ```", "- item\n\n  $$\n  x\n  $$"),
        ("(eq-new)=\n```{math}\nx\n```\nend", "$$\nx\n$$\n\nend"),
        ("`{math}` is {math}`a`", "`{math}` is $a$"),
        ("```python\n{math}`a`\n```", "```python\n{math}`a`\n```"),
        ("```{note}\nOf $a\n+ b$.\n```", "> **Note**\n>\n> Of $a + b$."),
        (
            ":::{admonition} Costs {math}`n`\n:class: note\nall of it\n\nand\n:::",
            "> **Costs $n$**\n>\n> all of it\n>\n> and",
        ),
        ("```{dropdown} More\n- a\n- b\n```", "> **More**\n>\n> - a\n> - b"),
        ("```{figure} a.png\n:alt: a curve\nwords\n```", "*a curve (see the page)*"),
        ("[here](results.md), [there](../dcss/method.md)", "[here](jule-results.ipynb), [there](dcss-method.ipynb)"),
        ("[again](../rerun.md)", "again (page *Run it again*)"),
        ("{doc}`results`", "[Results](jule-results.ipynb)"),
        ("{ref}`why <jule-strays>`", "[why](jule-ablations.ipynb#Stray-clusters)"),
        ("[it](#eq-jule-gdl)", "[it](#The-affinity-of-two-clusters)"),
        ("{glue:text}`here:.2f`, {glue:text}`word`, {glue:text}`gone`", "0.13, two of 3, (see the page)"),
        ("% nobody reads this", ""),
    ],
)
def test_markup_becomes_plain(text, expected):
    assert converted(text, here="0.125123", word="'two of 3'") == expected


def test_citations_are_authors_and_years_with_a_list():
    said = converted(
        "By {cite:t}`yang2016jule`, later {cite:p}`yang2016jule,sadeghi2024dcss` and {cite}`zhang2012gdl`."
    )
    assert said.startswith("By Yang et al. (2016), later (Yang et al., 2016; Sadeghi and Armanfard")
    assert "and (Zhang et al., 2012)." in said
    listed = said.split("## References")[1]
    assert listed.count("\n- ") == 3 and "Joint unsupervised learning" in listed


def test_equations_carry_the_numbers_that_references_say():
    page = Path("book/kernels.md")
    notebook = course.convert(notebooks.convert(page), page, solutions=True)
    labels = re.findall(r"^\$\$ \(([\w-]+)\)", page.read_text(), re.MULTILINE)
    assert re.findall(r"\\tag\{(\d+)\}", words(notebook)) == [str(n + 1) for n in range(len(labels))]
    number = labels.index("kernels-eq-bound") + 1
    assert f"Bound ({number}) uses norms" in words(notebook)


def test_a_name_after_code_has_its_lines_below():
    said = converted("Code: `reprolib.methods.jule.period_lengths`.\n\nNext.")
    assert "```python\ndef period_lengths(" in said and said.endswith("</details>\n\nNext.")


@pytest.mark.parametrize("text", ["{new}`x`", "```{new}\nx\n```"])
def test_markup_without_a_plain_form_is_an_error(text):
    with pytest.raises(ValueError, match=r"method\.md: no plain form of the (role|directive) \{new\}; write one in"):
        converted(text)


def test_tags_of_the_book_fold_cells_in_jupyter():
    cells = [new_code_cell("1", metadata={"tags": tags}) for tags in (["hide-input"], ["remove-cell"], ["parameters"])]
    made = course.convert(new_notebook(cells=cells), PAGES[0], solutions=False).cells
    assert made[0].metadata == {"tags": ["hide-input"], "jupyter": {"source_hidden": True}}
    assert made[1].metadata["jupyter"] == {"source_hidden": True, "outputs_hidden": True}
    assert made[2].metadata == {"tags": ["parameters"]}


def solutions_of(page):
    """Cells between the start and the end of a solution, as (type, source)."""
    found, inside = [], False
    for cell in notebooks.convert(page).cells:
        if cell.cell_type == "code" and inside:
            found.append(cell.source)
        for mark in re.findall(r"\{(solution-(?:start|end))\}", cell.source):
            inside = mark == "solution-start"
    return found


@pytest.mark.parametrize("page", EXERCISES, ids=str)
def test_a_student_gets_stubs_and_checks_and_no_solution(page):
    student, teacher = (course.convert(notebooks.convert(page), page, solutions=both) for both in (False, True))
    hidden = solutions_of(page)
    assert len(hidden) >= 7
    sources = [cell.source for cell in student.cells]
    assert not set(hidden) & set(sources) and "Solution of" not in words(student)
    folded = {cell.source for cell in teacher.cells if cell.metadata.get("jupyter", {}).get("source_hidden")}
    assert set(hidden) < folded and not any(text in words(student) for text in folded)
    stubs = [cell for cell in student.cells if "exercise" in cell.metadata.get("tags", [])]
    for stub in stubs:
        name = re.match(r"def (\w+)\(", stub.source)[1]
        assert stub.source.endswith("..."), name
        at = sources.index(f"check_{name}({name})")
        assert student.cells[at].metadata["tags"] == ["raises-exception"]
    paper = PAPERS[page.parent.name]
    titles = re.findall(r"^### Exercise (.*)\n*", words(student), re.MULTILINE)
    assert [title.split(":")[0] for title in titles] == [f"{paper} {n + 1}" for n in range(7)]
    efforts = re.findall(r"^\*(\d+) minutes, (★+)(☆*)\*$", words(student), re.MULTILINE)
    assert len(efforts) == 7 and all(len(full + empty) == 3 for _, full, empty in efforts)
    assert efforts[:2] == [("2", "★", "☆☆")] * 2 and all(int(minutes) > 2 for minutes, *_ in efforts[2:])


@pytest.fixture(scope="module")
def checks():
    """Everything that a student's cells define, before any stub is filled in."""
    names = {}
    for page in EXERCISES:
        made = course.convert(notebooks.convert(page), page, solutions=False)
        scope = names[page.parent.name] = {}
        for cell in made.cells:
            if cell.cell_type == "code" and "raises-exception" not in cell.metadata.get("tags", []):
                exec(cell.source, scope)
    return names


def beyond_the_anchor_alone(latent, positive, radius, keys):
    near = cdist(latent, latent)
    outside = (near > radius[:, None]) & ~np.eye(len(near), dtype=bool)
    return np.where(outside.any(1), np.where(outside, keys, -1).argmax(1), near.argmax(1))


def columns_for_rows(pixels, y, moved):
    distances, counts = cdist(moved, pixels), np.zeros((10, 10), int)
    np.fill_diagonal(distances, np.inf)
    np.add.at(counts, (y[distances.argmin(1)], y), 1)
    return counts


def without_masks(x, layers):
    g = np.ones((len(x), 1))
    for W, _ in layers[::-1]:
        g = g @ W
    return g


def unscaled(x, layers, penalty):
    """A sum over points, of a linear critic."""
    w = layers[-1][0]
    return [2 * penalty * len(x) * (1 - 1 / np.linalg.norm(w)) * w]


@np.errstate(invalid="ignore")
def divided(p):
    return p / p.sum(1, keepdims=True)


@np.errstate(invalid="ignore")
def by_densities(x, centers, deviation):
    density = np.exp(-(cdist(x, centers) ** 2) / (2 * deviation**2))
    return density / density.sum(1, keepdims=True)


def first_pixels(u, kernel, side):
    full = np.zeros(2 * len(u) + len(kernel))
    for i, value in enumerate(u):
        full[2 * i : 2 * i + len(kernel)] += value * kernel
    return full[:side]


def others_softmax(u, tau):
    return special.softmax(np.where(np.eye(len(u)), -np.inf, u @ u.T / tau), axis=1)


def with_itself(u, positive, tau):
    return special.softmax(u @ u.T / tau, axis=1) - positive / positive.sum(1, keepdims=True)


def as_anchor_alone(u, positive, tau):
    return (others_softmax(u, tau) - positive / positive.sum(1, keepdims=True)) @ u / (tau * len(u))


def unweighted(logits, t_f):
    """A mean over images, not over clusters."""
    p = special.softmax(logits, axis=1)
    kept = p.max(1) > t_f
    return (p - np.eye(p.shape[1])[p.argmax(1)])[kept].mean(0)


WRONG = [
    (
        "jule",
        "after_period",
        lambda n_c, eta: n_c - int(eta * n_c),
        r"1762 clusters, eta 0.9: got 177, expected 176\. Think of",
    ),
    ("jule", "affinity", lambda W, a, b: W[np.ix_(a, b)].sum(), r"clusters \d+ and \d+: got .* expected .*whose size"),
    ("jule", "mutual_pairs", lambda nearest: (nearest[nearest] == np.arange(len(nearest))).sum(), "how often a pair"),
    ("jule", "merged_row", lambda W, Y, a, b: (np.zeros(Y.shape[1]),) * 2, "exact row of 0 and 1: got .*four products"),
    ("jule", "plain_linkage", lambda graph, labels, n: [(0, 1)], r"got \[\[0 1\]\], expected .* which name is kept"),
    ("jule", "triplet_gradient", lambda x, gamma, released: -x, "gamma 2.0, exact: got .*the sign of each distance"),
    ("jule", "cnn_updates", lambda *sizes: 1, "eta 0.9: got 1, expected .*last batch"),
    ("jule", "smallest_k", lambda images, n: 1, "a warning at your K_s = 1: got True, expected False.*a larger K_s"),
    ("jule", "smallest_k", lambda images, n: 30, "a warning at K_s = 29, one below yours: got False.*a smaller K_s"),
    (
        "dcss",
        "pair_kind",
        lambda p, q, zeta, gamma: int(p @ q > zeta) - int(p @ q < gamma),
        "at zeta: got 0, expected 1",
    ),
    ("dcss", "new_centre", lambda p_k, u, m: p_k @ u / p_k.sum(), r"m 1\.5: got .*the power of the memberships"),
    ("dcss", "memberships", lambda d2, m: 1 / d2 / (1 / d2).sum(1, True), r"m 1\.05: got .*the exponent"),
    ("dcss", "memberships", lambda d2, m: (s := d2 ** (-1 / (m - 1))) / s.sum(1, True), "a power that overflows"),
    (
        "dcss",
        "second_order",
        lambda losses, theta: torch.zeros_like(theta),
        "got length 0, expected about .* before run k",
    ),
    ("dcss", "adam_ratio", lambda g: g.sum(0).abs(), "paths measured over 100 batches: got .*two means"),
    ("dcss", "gradient", lambda q, p, zeta, gamma: q, "'zeta': 0.8.* got .*sign of each pair"),
    ("dcss", "merged_loss", lambda a, b, n_a, n_b: 1, "groups of 4 and 4: got 1, expected .*an image with itself"),
    ("dcss", "best_cut", lambda r, R: 0.75, "all lines tried: got 0.75, expected .*inner ring"),
    (
        "separation",
        "hinge",
        lambda a, p, n, margin: ((a - p) ** 2).sum() - ((a - n) ** 2).sum() + margin,
        r"negative far: got -23\.76, expected 0.*never negative",
    ),
    (
        "separation",
        "hinge",
        lambda a, p, n, margin: max(0, abs(a - p).sum() - abs(a - n).sum() + margin),
        r"too near: got 1\.24, expected 3\.24.*squares",
    ),
    (
        "separation",
        "entropies",
        lambda q: stats.entropy(q.mean(0)) - stats.entropy(q, axis=1).mean(),
        "any rows: got .*the sign of each entropy",
    ),
    (
        "separation",
        "entropies",
        lambda q: (q.mean(0) * np.log(q.mean(0).clip(1e-9))).sum() - (q * np.log(q.clip(1e-9))).sum(),
        "any rows: got .*a mean over images",
    ),
    ("separation", "turning_point", lambda f_1, f_2: 0.5, r"frequencies 100 and 50: got 0\.5, expected .*the odds"),
    (
        "separation",
        "turning_point",
        lambda f_1, f_2: f_2 / (f_1 + f_2),
        r"frequencies 100 and 50: got 0\.33\d*, expected 0\.66",
    ),
    (
        "separation",
        "negatives",
        lambda latent, positive, radius, keys: keys.argmax(1),
        r"radius up to 0\.0: got .*the anchor itself",
    ),
    ("separation", "negatives", beyond_the_anchor_alone, r"radius up to 1\.5: got .*both distances"),
    ("separation", "expected_draws", lambda N, M: N / M, r"1 of 6 outside: got 6\.?, expected 3\.5.*the gaps"),
    (
        "separation",
        "gradients",
        lambda a, p, n, margin: [2 * (n - p), 2 * (p - a), 2 * (a - n)],
        "std 3, anchor: got .*hinges that are silent",
    ),
    ("separation", "margin_for", lambda share, near, far: 0.24, r"share at your margin for 0\.1: got .*expected 0\.1"),
    (
        "separation",
        "margin_for",
        lambda share, near, far: np.quantile(far - near, 1 - share),
        r"share at your margin for 0\.1: got 0\.[89]\d*, expected 0\.1.*the order",
    ),
    ("separation", "active_share", lambda margin, near, d: 0.5, r"d = 2, margin 0\.24, near 0\.0: got 0\.5, expected"),
    (
        "separation",
        "active_share",
        lambda margin, near, d: special.betainc((d - 1) / 2, (d - 1) / 2, (margin + near) / 4),
        r"d = 2, margin 3\.9, near 0\.3: got nan, expected 1.*never above 4",
    ),
    ("separation", "largest_margin", lambda K: 2, r"K = 2: got 2, expected 4.*the bound of part 3"),
    (
        "separation",
        "landings",
        lambda pixels, y, moved: np.diag(np.bincount(y)),
        "no change: got .*the image's own original",
    ),
    ("separation", "landings", columns_for_rows, "got .*which class is the row"),
    ("precise", "earth_mover", lambda a, b: abs(a - b).mean(), r"another order: got 1\.3\d*, expected 0.*cross"),
    ("precise", "earth_mover", lambda a, b: abs(a.mean() - b.mean()), r"the same mean: got 0.*, expected 1\.?\. Think"),
    (
        "precise",
        "overflow",
        lambda largest, eta, gamma, tau: tau + int(np.log(largest / eta) / np.log(gamma)) + 1,
        "largest 1000, eta 1, gamma 2, tau 50: got 60, expected 59.*after step tau, which is not 0",
    ),
    (
        "precise",
        "overflow",
        lambda largest, eta, gamma, tau: tau * int(np.log(largest / eta) / np.log(gamma)),
        "got 450, expected 59",
    ),
    ("precise", "input_gradient", without_masks, r"one hidden layer: got \[.*the masks"),
    ("precise", "penalty_gradient", unscaled, "linear, W of layer 1: got .* b points"),
    (
        "precise",
        "penalty_gradient",
        lambda x, layers, penalty: [0 * W for W, _ in layers],
        "linear.*got .*v held fixed",
    ),
    (
        "precise",
        "one_output",
        lambda weight, bias, penalty, eta: (weight.sum(0), bias.sum(), penalty, eta),
        r"shape of the weight, 1 outputs: got \[7\], expected \[1 7\]",
    ),
    (
        "precise",
        "one_output",
        lambda weight, bias, penalty, eta: (weight.mean(0)[None], bias.mean()[None], penalty, eta),
        "loss of the critic, 10 outputs: got .*the sum of the outputs",
    ),
    (
        "precise",
        "one_output",
        lambda weight, bias, penalty, eta: (weight.sum(0)[None], bias.sum()[None], len(bias) * penalty, eta),
        "loss of the generator, 10 outputs: got .* an n-th of it",
    ),
    ("precise", "best_slope", lambda W, penalty: 1, r"W = 1\.0, penalty 100\.0: got 1, expected 1\.005.*derivative"),
    ("precise", "tight", lambda p: np.full(p.shape, 1 / p.shape[1]), "any table, cross entropy: got .*the divergence"),
    ("precise", "tight", lambda p: p, "any table, sums of rows: got .*rows of probabilities"),
    ("precise", "tight", divided, r"never made, sums of rows: got \[.* nan\], expected .*0 / 0"),
    (
        "precise",
        "posterior",
        lambda x, centers, deviation: special.softmax(-(cdist(x, centers) ** 2) / deviation**2, axis=1),
        "near: got .*twice the squared deviation",
    ),
    ("precise", "posterior", by_densities, r"far away: got \[\[nan.*densities that underflow"),
    (
        "precise",
        "same_pads",
        lambda side, kernel, stride: (kernel // 2, kernel // 2),
        r"28 pixels, kernel 5, stride 2: got \[2 2\], expected \[1 2\].*odd zero",
    ),
    (
        "precise",
        "same_pads",
        lambda side, kernel, stride: (
            (total := (-(-side // stride) - 1) * stride + kernel - side) // 2,
            total - total // 2,
        ),
        r"8 pixels, kernel 1, stride 2: got \[-1 \s*0\], expected \[0 0\]",
    ),
    ("precise", "deconvolved", first_pixels, r"7 pixels: got .*where the window of each output begins"),
    (
        "precise",
        "purity_by_chance",
        lambda n, classes, clusters: 1 / classes,
        r"100 images, 10 classes, 10 clusters: got 0\.1, expected 0\.27.*the largest count",
    ),
    (
        "precise",
        "purity_by_chance",
        lambda n, classes, clusters: (
            (1 - stats.poisson.cdf(np.arange(n), n / classes / clusters) ** classes).sum() / n * classes
        ),
        r"300 images, 2 classes, 30 clusters: got .*, expected 0\.62",
    ),
    (
        "precise",
        "information_by_chance",
        lambda n, classes, clusters: (classes - 1) * (clusters - 1) / n,
        r"2000 images, 10 classes, 10 clusters: got 0\.0405, expected 0\.02\d*.* degrees of freedom",
    ),
    (
        "precise",
        "information_by_chance",
        lambda n, classes, clusters: (classes * clusters - 1) / (2 * n),
        r"2000 images, 10 classes, 10 clusters: got 0\.02\d*, expected 0\.02.* degrees of freedom",
    ),
    (
        "profeat",
        "n_positives",
        lambda n: (n * (n - 1)).sum(),
        r"counts \[1, 1, 1\]: got 0, expected 6.*views, not images",
    ),
    ("profeat", "n_positives", lambda n: (4 * n**2).sum(), r"got 12, expected 6.*its own partner"),
    (
        "profeat",
        "ends",
        lambda K, w: (-w * np.log(K), -w * np.log(K)),
        r"K = 10, lambda 5\.0: got \[-11\.5129 -11\.5129\]",
    ),
    ("profeat", "ends", lambda K, w: (0, np.log(K)), r"got \[0\. +2\.3026\], expected .*the entropy of even clusters"),
    ("profeat", "pull", with_itself, r"counts \[1, 1, 1\]: got .*who is in the softmax"),
    ("profeat", "pull", lambda u, positive, tau: others_softmax(u, tau) - positive, "shares that sum to one"),
    ("profeat", "gradient", as_anchor_alone, r"counts \[1, 1, 1\]: got .*both roles"),
    ("profeat", "through_norm", lambda z, du: du, "seed 0: got .*a change along z"),
    ("profeat", "through_norm", lambda z, du: du / np.linalg.norm(z, axis=1, keepdims=True), "changes no direction"),
    ("profeat", "least_agreement", lambda E, t_e, m: t_e, r"E = 3, t_e = 1, 2 links: got 1, expected 0.*others each"),
    ("profeat", "least_agreement", lambda E, t_e, m: E - m * (E - t_e), r"E = 3, t_e = 1, 2 links: got -1, expected 0"),
    (
        "profeat",
        "kept_share",
        lambda sizes, B, t_c: stats.hypergeom.sf(t_c - 1, sizes.sum(), sizes, B),
        r"groups \[50, 50\], batch 10, t_c 5: got \[0\.6\d* 0\.6\d*\], expected .*in the group already",
    ),
    (
        "profeat",
        "kept_share",
        lambda sizes, B, t_c: 1.0 * (sizes * B / sizes.sum() > t_c),
        r"groups \[300, 200, 100\], batch 60, t_c 12: got \[1\. 1\. 0\.\], expected",
    ),
    ("profeat", "bias_gradient", unweighted, r"t_f 0\.4: got .*each with its own mean"),
    (
        "profeat",
        "least_bias",
        lambda t_f: np.log(t_f / (1 - t_f)),
        r"t_f 0\.5: got -?0\.?, expected 0\.69.*two outer logits",
    ),
    (
        "profeat",
        "largest_gain",
        lambda s: s.max() * np.log(2),
        r"shares \[0\.4, 0\.3, 0\.2, 0\.1\]: got 0\.27\d*, expected 0\.08",
    ),
    (
        "profeat",
        "largest_gain",
        lambda s: (s.max() - np.sort(s)[:2].sum()) * np.log(2),
        r"shares \[0\.4, .*\]: got 0\.06\d*, expected 0\.08.* least to merge",
    ),
    ("profeat", "cut_cost", lambda f: -np.log(1 - f), r"f = 0\.02: got 0\.02\d*, expected 0\.09\d*.*the variable"),
]


@pytest.mark.parametrize(
    "paper, name, wrong, message", WRONG, ids=lambda value: value if isinstance(value, str) else ""
)
def test_a_wrong_answer_is_told_what_came_what_was_expected_and_what_to_think_of(checks, paper, name, wrong, message):
    check = checks[paper][f"check_{name}"]
    with pytest.raises(AssertionError) as told:
        check(wrong)
    assert re.search(message, str(told.value).replace("\n", " ")), told.value
    with pytest.raises(AssertionError, match="got None. Write the function where its dots stand"):
        check(lambda *_, **__: None)


def test_every_check_of_a_student_has_a_wrong_answer_here(checks):
    named = {(paper, name) for paper, scope in checks.items() for name in scope if name.startswith("check_")}
    assert named == {(paper, f"check_{name}") for paper, name, *_ in WRONG}


PAGE = """\
---
kernelspec: {display_name: Python 3, language: python, name: python3}
---

# Small

````{exercise-start} JULE 1: Twice
:label: ex-jule-after-period
````

*2 minutes*

```python
def twice(x):
    ...
```

```{code-cell} ipython3
def check_twice(twice):
    assert twice(3) == 6, f"got {twice(3)}, expected 6"
```

````{exercise-end}
````

````{solution-start} ex-jule-after-period
:class: dropdown
````

Add it.

```{code-cell} ipython3
def twice(x):
    return x + x

check_twice(twice)
```

````{solution-end}
````

```{code-cell} ipython3
print("the end")
```
"""


def run(notebook, folder):
    client = NotebookClient(notebook, timeout=60, kernel_name="python3", resources={"metadata": {"path": str(folder)}})
    return client.execute()


def test_both_copies_run_from_top_to_bottom(tmp_path):
    def copy(solutions):
        made = jupytext.reads(PAGE, fmt="md:myst")
        return course.convert(made, Path("book/jule/exercises.md"), solutions=solutions)

    student, teacher = run(copy(False), tmp_path), run(copy(True), tmp_path)
    errors = [o for cell in student.cells for o in cell.get("outputs", []) if o.output_type == "error"]
    assert [error.evalue for error in errors] == ["got None, expected 6"]
    for notebook in (student, teacher):
        assert notebook.cells[-1].outputs[0].text == "the end\n"
    filled = copy(False)
    stub = next(cell for cell in filled.cells if "exercise" in cell.metadata.get("tags", []))
    stub.source = "def twice(x):\n    return 2 * x"
    assert not [o for cell in run(filled, tmp_path).cells for o in cell.get("outputs", []) if o.output_type == "error"]


def test_a_copy_that_somebody_edited_is_kept(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(notebooks, "pages", lambda root=None: EXERCISES[:1])
    first = course.write(tmp_path)
    assert [path.relative_to(tmp_path).as_posix() for path in first] == [
        "student/jule-exercises.ipynb",
        "teacher/jule-exercises.ipynb",
    ]
    answered = nbformat.read(first[0], as_version=4)
    assert not any(cell.get("outputs") for cell in answered.cells)
    answered.cells[-1].source = "my answer"
    nbformat.write(answered, first[0])
    assert course.write(tmp_path) == first[1:]
    assert "has been edited and is kept" in capsys.readouterr().err
    assert "my answer" in first[0].read_text()
