"""Data sets made from others, and of points: what is kept, in which order, and which names are accepted."""

import dataclasses
import doctest
from fractions import Fraction

import numpy as np
import pytest

from reprolib import metrics
from reprolib.__main__ import main
from reprolib.data import catalogue, made
from reprolib.data.catalogue import TABLE
from reprolib.data.load import Images, available, data_root, fetch, load, verify

RNG = np.random.default_rng(0)
N, FIRST = 300, 200  # of the small stand-ins for the two sets

# the first numbers of the Mersenne Twister seeded with 0, as every NumPy has given them
DRAWS = [
    *(0.5488135039, 0.7151893664, 0.6027633761, 0.5448831829, 0.4236547993),
    *(0.6458941131, 0.4375872113, 0.8917730008, 0.9636627605, 0.3834415188),
]

# and of that seeded with 1
MARKS = [
    *(0.4170220047, 0.7203244934, 0.0001143748, 0.3023325726, 0.1467558908),
    *(0.0923385948, 0.1862602114, 0.3455607270, 0.3967674742, 0.5388167340),
]


@pytest.fixture
def root(tmp_path, monkeypatch):
    """A data root with a small mnist and fashion-mnist of 10 classes, N images each."""
    for name in ("mnist", "fashion-mnist"):
        small = dataclasses.replace(TABLE[name], n=N, n_first=FIRST)
        monkeypatch.setitem(catalogue.TABLE, name, small)
        pixels = RNG.integers(0, 256, (N, 5, 5), dtype=np.uint8)
        labels = np.concatenate([RNG.permutation(FIRST), RNG.permutation(N - FIRST)]) % 10
        np.savez(tmp_path / f"{name}.npz", images=pixels, labels=labels)
    return tmp_path


def flat(labels, **more):
    """Images of one pixel, each its own number modulo 256."""
    n = 2 if labels is None else len(labels)
    pixels = (np.arange(n) % 256).astype(np.uint8).reshape(n, 1, 1)
    return Images(pixels, labels, **more)


# --- 2MNIST ---------------------------------------------------------------------------------------


def test_2mnist_is_mnist_then_fashion_with_its_classes_numbered_on(root):
    both, first, second = (load(name, root=root) for name in ("2mnist", "mnist", "fashion-mnist"))
    assert both.name == "2mnist" and both.shape == (2 * N, 1, 5, 5)
    np.testing.assert_array_equal(both.pixels[:N], first.pixels)
    np.testing.assert_array_equal(both.pixels[N:], second.pixels)
    np.testing.assert_array_equal(both.labels[:N], first.labels)
    np.testing.assert_array_equal(both.labels[N:], second.labels + 10)
    assert not (root / "2mnist.npz").exists() and not (root / "cache").exists()


@pytest.mark.parametrize(("part", "cut"), [("train", slice(0, FIRST)), ("test", slice(FIRST, N))])
def test_a_part_of_2mnist_is_the_two_parts(root, part, cut):
    both = load(f"2mnist-{part}", root=root)
    first, second = (load(name, root=root) for name in ("mnist", "fashion-mnist"))
    assert both.name == f"2mnist-{part}"
    expected = np.concatenate([first.pixels[cut], second.pixels[cut]])
    np.testing.assert_array_equal(both.pixels, expected)
    expected = np.concatenate([first.labels[cut], second.labels[cut] + 10])
    np.testing.assert_array_equal(both.labels, expected)


def test_2mnist_is_listed_where_both_sets_are_and_says_what_to_fetch(root, capsys):
    def listed():
        return {row["name"]: row["found"] for row in available(root)}["2mnist"]

    assert listed() == "made from mnist and fashion-mnist"
    assert "which are here" in fetch("2mnist", root)
    (root / "fashion-mnist.npz").unlink()
    assert listed() == ""
    for ask in (load, fetch):
        for name in ("2mnist", "2mnist-test", "2mnist-r0.5"):
            with pytest.raises(FileNotFoundError, match="data fetch fashion-mnist`"):
                ask(name, root=root)
    assert "missing. Source: made from" in verify("2mnist-test", root)
    (root / "mnist.npz").unlink()
    assert main(["data", "fetch", "2mnist", "--root", str(root)]) == 1
    assert "data fetch mnist fashion-mnist`" in capsys.readouterr().err


def test_sets_of_other_shapes_or_without_labels_are_not_joined():
    square = Images(np.zeros((2, 4, 4), np.uint8), [0, 1], name="square")
    wide = Images(np.zeros((2, 4, 5), np.uint8), [0, 1], name="wide")
    with pytest.raises(ValueError, match=r"one shape.*square \(1, 4, 4\), wide \(1, 4, 5\)"):
        made.join([square, wide], "both")
    with pytest.raises(ValueError, match="labels of 'bare', which has none"):
        made.join([square, Images(square.pixels, name="bare")], "both")


# --- equal classes ----------------------------------------------------------------------------------


def test_equal_classes_are_the_first_images_of_each_in_file_order():
    images = flat([7, 3, 3, 7, 5, 7, 5, 3, 5, 7], name="few")
    kept = made.equal_classes(images, 2)
    np.testing.assert_array_equal(kept.pixels.ravel(), [0, 1, 2, 3, 4, 6])
    np.testing.assert_array_equal(kept.labels, [7, 3, 3, 7, 5, 5])
    assert kept.name == "few" and kept.transforms == {"balance": "6 of 10, the first 2 of each class"}
    with pytest.raises(ValueError, match="'few' has a class of 3 images; 4 of each are asked for"):
        made.equal_classes(images, 4)


def sized(sizes):
    """One image a sample, classes of these sizes one after the other."""
    return flat(np.repeat(np.arange(len(sizes)), sizes), name="some")


def test_capped_classes_are_the_first_images_in_hundreds():
    kept = made.capped_classes(sized([350, 199, 100]), 200)
    assert list(np.bincount(kept.labels)) == [200, 100, 100]
    expected = np.r_[0:200, 350:450, 549:649] % 256
    np.testing.assert_array_equal(kept.pixels.ravel(), expected)
    assert kept.transforms["balance"] == "400 of 649, the first of each class, in hundreds, at most 200"
    assert list(np.bincount(made.capped_classes(sized([350, 199]), 10_000).labels)) == [300, 100]
    with pytest.raises(ValueError, match="'some' has a class of fewer than 100 images"):
        made.capped_classes(sized([350, 99]), 200)


def test_cutting_the_largest_classes_to_the_next_size_ends_in_the_five_sets_of_usps():
    """The paper's rule, carried out step by step on the sizes of USPS, gives the caps of the catalogue."""
    sizes, caps = np.array([1553, 1269, 929, 824, 852, 716, 834, 792, 708, 821]) // 100 * 100, []
    while not caps or len(set(sizes)) > 1:
        if caps:
            largest, second = sorted(set(sizes), reverse=True)[:2]
            sizes[sizes == largest] = second
        caps.append(sizes.max())
        entry = TABLE[f"usps{caps[-1]}"]
        assert entry.change == ("capped_classes", caps[-1]) and entry.n == sizes.sum()
    assert len(caps) == 5 and caps[-1] == 700


def test_uniformity_is_the_entropy_of_the_shares_over_its_largest_value():
    assert made.uniformity(np.repeat([4, 9, 2], 7)) == pytest.approx(1)
    assert made.uniformity(np.full(5, 3)) == 0
    by_hand = -(0.25 * np.log(0.25) + 0.75 * np.log(0.75)) / np.log(2)
    assert made.uniformity(np.array([8, 1, 8, 8])) == pytest.approx(by_hand)
    rows = [made.uniformity(np.repeat(np.arange(3), sizes)) for sizes in ([9, 2, 1], [8, 3, 1], [5, 4, 3])]
    assert rows == sorted(rows) and 0 < rows[0] and rows[-1] < 1
    assert doctest.testmod(made).failed == 0


# --- other classes for the same images --------------------------------------------------------------


def test_the_artifact_is_the_first_pixel_and_the_class_of_the_artifact():
    images = Images(RNG.integers(0, 256, (10, 1, 3, 4), dtype=np.uint8), np.arange(10), name="some")
    before = images.pixels.copy()
    marked = made.artifact(images)
    np.testing.assert_array_equal(images.pixels, before)
    assert list(marked.labels) == [int(3 * draw) for draw in MARKS]
    values = np.array([26, 128, 230])  # .1, .5 and .9 of 255
    np.testing.assert_array_equal(marked.pixels[:, 0, 0, 0], values[marked.labels])
    marked.pixels[:, 0, 0, 0] = before[:, 0, 0, 0]
    np.testing.assert_array_equal(marked.pixels, before)
    assert marked.transforms == {"artifact": "first pixel 26, 128, 230 by class, seed 1"}


def test_the_artifact_tells_nothing_of_the_digit_and_has_the_digits_order():
    marked, digits = load("artifact-digits"), load("digits")
    assert marked.sha256 == TABLE["artifact-digits"].sha256 and marked.name == "artifact-digits"
    np.testing.assert_array_equal(marked.pixels[:, :, 1:], digits.pixels[:, :, 1:])
    assert metrics.nmi(digits.labels, marked.labels) < 0.01
    few = load("artifact-digits", subset=50)
    np.testing.assert_array_equal(few.pixels[:, :, 1:], load("digits", subset=50).pixels[:, :, 1:])
    assert "built in" in fetch("digits") and "made from digits" in fetch("artifact-digits")


@pytest.mark.parametrize(("part", "cut"), [("train", slice(0, FIRST)), ("test", slice(FIRST, N))])
def test_a_part_of_artifact_mnist_is_a_part_of_its_draw(root, part, cut, monkeypatch):
    small = dataclasses.replace(TABLE["artifact-mnist"], n=N, n_first=FIRST)
    monkeypatch.setitem(catalogue.TABLE, "artifact-mnist", small)
    whole, few = load("artifact-mnist", root=root), load(f"artifact-mnist-{part}", root=root)
    assert (whole.name, few.name) == ("artifact-mnist", f"artifact-mnist-{part}")
    np.testing.assert_array_equal(few.pixels, whole.pixels[cut])
    np.testing.assert_array_equal(few.labels, whole.labels[cut])
    # the digit's classes are those of the same part of the digits
    digits = load(f"mnist-{part}", root=root)
    np.testing.assert_array_equal(few.pixels[:, :, 1:], digits.pixels[:, :, 1:])
    # the imbalanced draw has numbers of its own: a half of class 0, three quarters of class 1
    kept, n = (np.bincount(x.labels) for x in (load("artifact-mnist-r0.5", root=root), whole))
    assert (np.abs(kept - n * [0.5, 0.75, 1]) < 5 * np.sqrt(n) / 2).all() and (kept[:2] < n[:2]).all()


def test_two_classes_join_the_others():
    faces = flat([30, 10, 20, 10, 40], name="faces")
    two = made.two_classes(faces, [1, 4])
    assert list(two.labels) == [0, 1, 0, 1, 1] and two.pixels is faces.pixels
    assert two.transforms == {"classes": "1 for 1, 4 of 4, counted from 1, else 0"}
    for wrong in (0, 5):
        with pytest.raises(ValueError, match=f"'faces' has 4 classes, counted from 1; got {wrong}"):
            made.two_classes(faces, [1, wrong])


def test_a_changed_set_needs_the_labels_of_its_source(root):
    np.savez(root / "usps.npz", images=RNG.integers(0, 256, (6, 16, 16), dtype=np.uint8))
    for name in ("usps-balanced", "usps700"):
        with pytest.raises(ValueError, match="labels of 'usps', which has none"):
            load(name, root=root)


# --- points -----------------------------------------------------------------------------------------


def test_eight_gaussians_are_the_printed_ones():
    points, labels = made.eight_gaussians(16_000, 3)
    assert (points.shape, points.dtype, labels.dtype) == ((16_000, 2), np.float32, np.int64)
    printed = [(1.414, 0), (-1.414, 0), (0, 1.414), (0, -1.414), (1, 1), (-1, 1), (-1, -1), (1, -1)]
    # five standard errors
    assert (np.abs(np.bincount(labels, minlength=8) - 2000) < 5 * np.sqrt(16_000 * 7 / 64)).all()
    for c, center in enumerate(printed):
        near = points[labels == c]
        np.testing.assert_allclose(near.mean(axis=0), center, atol=5 * 0.014 / 40)
        np.testing.assert_allclose(near.std(axis=0), 0.014, rtol=5 / 60)
    # each point is nearest to its own centre
    nearest = np.square(points[:, None] - np.array(printed)).sum(axis=2).argmin(axis=1)
    np.testing.assert_array_equal(nearest, labels)


def test_points_are_fixed_by_their_seed():
    first, again, other = (made.eight_gaussians(100, seed)[0] for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert not np.intersect1d(first, other).size


# --- the imbalanced draw --------------------------------------------------------------------------


@pytest.mark.parametrize("n_classes", [2, 3, 10, 20])
@pytest.mark.parametrize("r", ["0.1", "0.25", "0.5", "1"])
def test_retention_is_linear_from_r_to_1(n_classes, r):
    exact = Fraction(r)
    expected = [exact + (1 - exact) * Fraction(c, n_classes - 1) for c in range(n_classes)]
    found = made.retention(n_classes, float(r))
    np.testing.assert_allclose(found, [float(p) for p in expected], rtol=1e-14)
    assert found[-1] == 1.0


def test_an_image_is_kept_when_its_draw_is_below_the_probability_of_its_class():
    labels = [0, 1, 2, 0, 0, 1, 1, 2, 1, 0]
    chance = {0: 0.5, 1: 0.75, 2: 1.0}
    expected = [i for i, label in enumerate(labels) if DRAWS[i] < chance[label]]
    few = made.imbalanced(flat(labels), 0.5)
    assert list(few.pixels.ravel()) == expected and len(expected) < len(labels)
    assert list(few.labels) == [labels[i] for i in expected]
    assert few.transforms == {"imbalance": f"{len(expected)} of 10, r = 0.5, seed 0"}


def test_gaps_in_the_labels_do_not_count_as_classes():
    labels = np.array([0, 1, 2, 0, 0, 1, 1, 2, 1, 0])
    few, gaps = (made.imbalanced(flat(y), 0.5) for y in (labels, np.array([3, 8, 40])[labels]))
    np.testing.assert_array_equal(few.pixels, gaps.pixels)


@pytest.mark.parametrize("r", [0.1, 0.3, 0.5])
def test_the_number_kept_of_each_class_is_binomial(r):
    n_classes, each = 5, 4000
    labels = np.random.default_rng(1).permutation(n_classes * each) % n_classes
    kept = np.bincount(made.imbalanced(flat(labels), r).labels, minlength=n_classes)
    p = r + (1 - r) * np.arange(n_classes) / (n_classes - 1)
    # five standard deviations: one of a million draws lies outside
    assert (np.abs(kept - each * p) <= 5 * np.sqrt(each * p * (1 - p)) + 1e-9).all()
    assert kept[-1] == each and (np.diff(kept) > 0).all()


def test_a_smaller_r_keeps_a_part_and_r_1_keeps_all():
    whole = load("digits")
    small, large = (load(f"digits-r{r}") for r in (0.1, 0.4))
    rows = [{tuple(x) for x in few.pixels.reshape(few.n, -1)} for few in (small, large)]
    assert rows[0] < rows[1]
    everything = load("digits-r1")
    assert everything.sha256 == whole.sha256 and everything.name == "digits-r1"


def test_the_draw_is_the_same_every_time():
    first, again = load("digits-r0.3"), load("digits-r0.3")
    assert first.sha256 == again.sha256 == SHA256_DIGITS
    assert first.name == "digits-r0.3" and first.labels.max() == 9
    assert "the arrays that the book used" in verify("digits-r0.3")
    assert "built in" in fetch("digits-r0.3")


SHA256_DIGITS = "1277fc40b5d9877658abc0b099a7eb06b5c7656711372db0ea229ea066b96661"


def test_options_of_load_come_after_the_draw(root):
    few = load("digits-r0.3")
    part = load("digits-r0.3", size=6, gray=True, subset=7)
    assert part.shape == (7, 1, 6, 6) and list(part.transforms) == ["imbalance", "subset", "size", "resize"]
    assert part.transforms["subset"] == f"7 of {few.n}, evenly spaced"
    np.testing.assert_array_equal(part.labels, few.labels[np.arange(7) * few.n // 7])
    colours = RNG.integers(0, 256, (40, 3, 5, 5), dtype=np.uint8)
    np.savez(root / "colour.npz", images=colours, labels=np.arange(40) % 2)
    assert load("colour-r0.5", root=root, gray=True).shape[1] == 1


@pytest.mark.parametrize(("name", "source"), [("mnist-test-r0.9", "mnist-test"), ("2mnist-r0.9", "2mnist")])
def test_parts_and_made_sets_are_drawn_from_too(root, name, source):
    few, whole = load(name, root=root), load(source, root=root)
    assert few.name == name and few.sha256 == made.imbalanced(whole, 0.9).sha256


# --- names ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("digits-r0", "Valid: digits-r0.1.*above 0 and up to 1"),
        ("digits-r-0.5", "Did you mean 'digits-r0.5'"),
        ("digits-r1.5", "Did you mean 'digits-r0.5'.*above 0 and up to 1"),
        ("digits-r0.10", "Did you mean 'digits-r0.1'"),
        ("digits-r.3", "Did you mean 'digits-r0.3'"),
        ("mnist-test-r2", "Valid: mnist-test-r0.1"),
        ("digts-r0.3", "unknown data set 'digts-r0.3'. Did you mean 'digits-r0.3'"),
        ("digits-rx", "unknown data set 'digits-rx'. Did you mean 'digits'"),
        ("digits-r0.3-r0.3", "unknown data set"),
        ("-r0.3", "unknown data set"),
        ("2mnst", "Did you mean '2mnist'"),
        ("usps-700", "Did you mean 'usps700'"),
        ("usps1100", "Did you mean 'usps1"),
        ("artifact", "Did you mean 'artifact-"),
    ],
)
def test_bad_rates_and_names_are_refused_with_the_nearest(tmp_path, name, says):
    for ask in (load, fetch, verify):
        with pytest.raises(ValueError, match=says):
            ask(name, root=tmp_path)


def test_a_file_or_a_folder_of_that_name_comes_first(tmp_path):
    pixels = RNG.integers(0, 256, (6, 4, 4), dtype=np.uint8)
    np.savez(tmp_path / "own-r0.5.npz", images=pixels)
    assert load("own-r0.5", root=tmp_path).n == 6
    with pytest.raises(FileNotFoundError, match="no folder .*pictures-r0.5"):
        load(f"folder:{tmp_path}/pictures-r0.5", root=tmp_path)


def test_a_draw_needs_labels_two_classes_and_an_image_of_each():
    with pytest.raises(ValueError, match="'bare' has none"):
        made.imbalanced(flat(None, name="bare"), 0.5)
    with pytest.raises(ValueError, match="at least two classes; got 1"):
        made.imbalanced(flat([3, 3, 3]), 0.5)
    with pytest.raises(ValueError, match="no image of class 4 .*larger r"):
        made.imbalanced(flat([4, 5, 5]), 0.001)


# --- the real files, where they are ---------------------------------------------------------------


def real(name):
    try:
        return load(name)
    except FileNotFoundError:
        pytest.skip(f"{name} cannot be made in the data root {data_root()}")


def test_real_2mnist_has_20_classes_in_order():
    both = real("2mnist")
    assert both.shape == (140_000, 1, 28, 28) and both.sha256 == TABLE["2mnist"].sha256
    digits = [6903, 7877, 6990, 7141, 6824, 6313, 6876, 7293, 6825, 6958]
    assert list(np.bincount(both.labels)) == digits + [7000] * 10
    assert both.labels[:70_000].max() == 9 and both.labels[70_000:].min() == 10
    np.testing.assert_array_equal(both.pixels[70_000:], load("fashion-mnist").pixels)
    test = load("2mnist-test")
    assert test.n == 20_000 and list(np.bincount(test.labels))[10:] == [1000] * 10
    np.testing.assert_array_equal(test.pixels[:10_000], both.pixels[60_000:70_000])


def test_real_balanced_usps_has_as_many_of_each_digit_as_usps_of_its_rarest():
    few, usps = real("usps-balanced"), real("usps")
    least = np.bincount(usps.labels).min()
    assert few.name == "usps-balanced" and few.sha256 == TABLE[few.name].sha256
    assert list(np.bincount(few.labels)) == [least] * 10
    # its rarest digit is whole
    rarest = np.bincount(usps.labels).argmin()
    np.testing.assert_array_equal(few.pixels[few.labels == rarest], usps.pixels[usps.labels == rarest])
    assert load("usps-balanced", subset=100).n == 100


@pytest.mark.parametrize(("most", "index"), [(1500, 0.9851), (1200, 0.9911), (900, 0.9980), (800, 0.9992), (700, 1.0)])
def test_real_usps_is_cut_to_the_five_sets(most, index):
    few, usps = real(f"usps{most}"), real("usps")
    assert few.sha256 == TABLE[few.name].sha256 and few.n == TABLE[few.name].n
    sizes = np.bincount(usps.labels) // 100 * 100
    assert list(np.bincount(few.labels)) == list(np.minimum(sizes, most))
    np.testing.assert_array_equal(few.pixels[few.labels == 3], usps.pixels[usps.labels == 3][: min(800, most)])
    assert made.uniformity(few.labels) == pytest.approx(index, abs=5e-5)


def test_real_orl_has_36_men_and_4_women():
    faces, people = real("orl-gender"), real("orl")
    assert faces.sha256 == TABLE["orl-gender"].sha256
    np.testing.assert_array_equal(faces.pixels, people.pixels)
    assert sorted(set(people.labels[faces.labels == 1])) == [7, 9, 31, 34] and faces.labels.sum() == 40


def test_real_artifact_mnist_has_three_even_classes():
    marked, digits = real("artifact-mnist"), real("mnist")
    assert marked.sha256 == TABLE["artifact-mnist"].sha256
    assert (np.abs(np.bincount(marked.labels) - 70_000 / 3) < 5 * np.sqrt(70_000 * 2 / 9)).all()
    np.testing.assert_array_equal(marked.pixels[..., 1:], digits.pixels[..., 1:])


def test_real_mnist_is_drawn_within_the_binomial_bound():
    each = np.bincount(real("mnist").labels)
    for r in made.PAPER_RATES:
        kept = np.bincount(load(f"mnist-r{r}").labels)
        p = r + (1 - r) * np.arange(10) / 9
        assert (np.abs(kept - each * p) <= 5 * np.sqrt(each * p * (1 - p)) + 1e-9).all()
