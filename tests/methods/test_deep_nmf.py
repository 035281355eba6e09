"""NMF-D against literal float64 updates; residuals that never rise."""

import numpy as np
import pytest

from reprolib import load
from reprolib.methods.nmf import NMFD, descend, nndsvd_coefficients


def literal_deep_update(X, bases, H):
    """Algorithm 1 of Trigeorgis et al. 2014, in its own orientation: X (d, n) ~ Z_1 ... Z_m H."""
    X, H, m = X.T, H.T, len(bases)
    bases = list(bases)
    for i in range(m):
        psi, rest = np.eye(len(X)), H
        for Z in bases[:i]:
            psi = psi @ Z
        for Z in reversed(bases[i + 1 :]):
            rest = Z @ rest
        bases[i] = np.linalg.pinv(psi) @ X @ np.linalg.pinv(rest)
    psi = np.linalg.multi_dot([np.eye(len(X)), *bases])
    A, B = psi.T @ X, psi.T @ psi
    plus, minus = lambda M: (abs(M) + M) / 2, lambda M: (abs(M) - M) / 2
    return bases, (H * np.sqrt((plus(A) + minus(B) @ H) / (minus(A) + plus(B) @ H))).T


def factors(seed, widths, n=50, d=12):
    rng = np.random.default_rng(seed)
    sizes = [d, *widths]
    bases = [rng.normal(size=pair) for pair in zip(sizes, widths, strict=False)]
    return rng.normal(size=(n, d)), bases, rng.random((n, widths[-1]))


@pytest.mark.parametrize("widths", [(4,), (6, 4), (4, 4), (7, 5, 3)])
def test_deep_update_is_the_literal_one(widths):
    X, bases, H = factors(0, widths)
    for _ in range(3):
        bases2, H2 = literal_deep_update(X, bases, H)
        norm = np.linalg.norm(X - H @ np.linalg.multi_dot([np.eye(12), *bases]).T)
        bases, H, errors = descend(X, bases, H, 1, 1e-5)
        assert errors == [pytest.approx(norm, rel=1e-10)]
        np.testing.assert_allclose(H, H2, rtol=1e-6, atol=1e-9)
        for Z, Z2 in zip(bases, bases2, strict=True):
            np.testing.assert_allclose(Z, Z2, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("widths", [(4,), (6, 4), (7, 5, 3)])
def test_deep_objective_never_rises(widths):
    for seed in range(4):
        X, bases, H = factors(seed, widths)
        before = np.inf
        for _ in range(60):
            bases, H, _ = descend(X, bases, H, 1, 1e-5)
            assert H.min() >= 0
            norm = np.linalg.norm(X - H @ np.linalg.multi_dot([np.eye(12), *bases]).T)
            assert norm <= before * (1 + 1e-12)
            before = norm


def test_deep_errors_fall_on_float32_images_and_the_tolerance_stops():
    images = load("digits", subset=300)
    fitted = NMFD(10, layers=(30, 20), max_iter=60).fit(images)
    assert np.all(np.diff(fitted.errors_) < 1e-5) and len(fitted.errors_) > 10
    assert fitted.embedding_.dtype == np.float32 and fitted.embedding_.shape == (300, 20)
    assert fitted.labels_.dtype == np.int32 and set(fitted.labels_) == set(range(10))
    again = NMFD(10, layers=(30, 20), max_iter=60).fit(images)
    np.testing.assert_array_equal(fitted.labels_, again.labels_)
    assert len(NMFD(10, layers=(30, 20), max_iter=60, tol=0.5).fit(images).errors_) == 2


def test_layers_are_no_wider_than_what_they_factorise():
    X = np.random.default_rng(0).random((30, 18))
    assert NMFD(3, max_iter=5).fit(X).embedding_.shape == (30, 18)
    assert NMFD(3, layers=(4, 9), max_iter=5).fit(X).embedding_.shape == (30, 4)
    for layers in ((), (4, 0)):
        with pytest.raises(ValueError, match="layers"):
            NMFD(3, layers=layers).fit(X)


def test_nndsvd_by_its_definition():
    X = np.abs(np.random.default_rng(0).normal(size=(30, 12)))
    u, s, vt = np.linalg.svd(X, full_matrices=False)
    expected = np.empty((30, 6))
    for j in range(6):
        best = []
        for sign in (1, -1):
            a, b = np.maximum(sign * u[:, j], 0), np.maximum(sign * vt[j], 0)
            norms = np.linalg.norm(a), np.linalg.norm(b)
            best.append((norms[0] * norms[1], a / max(norms[0], 1e-12)))
        weight, side = max(best, key=lambda pair: pair[0])
        expected[:, j] = np.sqrt(s[j] * weight) * side
    np.testing.assert_allclose(nndsvd_coefficients(-X, 6, 0), expected, atol=1e-6)
