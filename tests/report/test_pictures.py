"""Pictures of a clustering: which images are chosen, which are marked, in which order clusters stand."""

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pytest
from made_pictures import numbered, write
from matplotlib.patches import Rectangle

from reprolib.data.images import Images
from reprolib.experiments.paper import Paper
from reprolib.report import pictures
from reprolib.report.pictures import Pictured

matplotlib.use("Agg")

#         0  1  2  3  4  5  6  7  8  9 10 11
Y = [0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2]
# cluster 7 is class 0 with one of class 1; 3 is class 1; 5 is class 2 with one of class 0
CLUSTERS = [7, 7, 7, 5, 3, 3, 3, 7, 5, 5, 5, 5]


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


def pictured(root, y=Y, labels=CLUSTERS, shape=(1, 4, 4), **more):
    images = numbered(y, shape)
    return Pictured(write(root, images, {"labels": labels}, **more), images=images)


def tiles(figure):
    """Rows of a sheet from top to bottom: the number of each image from left to right."""
    drawn = {}
    for image in figure.axes[0].images:
        left, _, bottom, top = image.get_extent()
        drawn.setdefault((top + bottom) / 2, []).append((left, int(np.asarray(image.get_array()).flat[0])))
    return [[number for _, number in sorted(drawn[row])] for row in sorted(drawn)]


def marks(figure):
    found = [text.get_text() for text in figure.axes[0].texts if text.get_text().startswith("✗ ")]
    return [text for text in found if text != "✗ of another class"]


def frames(figure):
    return sum(isinstance(patch, Rectangle) for patch in figure.axes[0].patches)


def counts(figure):
    """The numbers written on a confusion matrix, as an array; 0 where none is."""
    axes = figure.axes[0]
    found = np.zeros((len(axes.get_yticks()), len(axes.get_xticks())), int)
    for text in axes.texts:
        column, row = text.get_position()
        found[row, column] = int(text.get_text())
    return found


def test_a_sheet_shows_right_then_wrong_images_of_each_cluster(tmp_path):
    sheet = pictures.contact_sheet(pictured(tmp_path))
    assert tiles(sheet) == [[0, 1, 2, 7], [4, 5, 6], [8, 9, 10, 11, 3]]
    assert marks(sheet) == ["✗ 1", "✗ 0"]
    assert frames(sheet) == 2
    rows = [text.get_text() for text in sheet.axes[0].texts if "images," in text.get_text()]
    assert rows == ["cluster of 0\n4 images, 75%", "cluster of 1\n3 images, 100%", "cluster of 2\n5 images, 80%"]


def test_images_are_spread_over_a_cluster(tmp_path):
    made = pictured(tmp_path, [0] * 20 + [1] * 20, [0] * 30 + [1] * 10)
    assert tiles(pictures.contact_sheet(made, n_right=4, n_wrong=2)) == [[0, 5, 10, 15, 20, 25], [30, 32, 35, 37]]


def test_confusion_stands_in_the_order_of_the_classes(tmp_path):
    figure = pictures.confusion(pictured(tmp_path))
    assert counts(figure).tolist() == [[3, 0, 1], [1, 3, 0], [0, 0, 4]]
    assert [label.get_text() for label in figure.axes[0].get_xticklabels()] == ["0", "1", "2"]
    colours = np.asarray(figure.axes[0].images[0].get_array())  # (3, 3, 4)
    blue = colours[..., 2] > colours[..., 0]
    assert blue.tolist() == np.eye(3, dtype=bool).tolist()


def test_more_clusters_than_classes_and_a_class_without_one(tmp_path):
    # clusters 0, 2 and 3 are all class 0, the largest takes it; class 1 shares cluster 1 with class 2
    made = pictured(tmp_path, [0] * 9 + [1, 2, 2], [0, 0, 2, 2, 2, 2, 3, 3, 3, 1, 1, 1])
    assert made.classes == {2: 0, 1: 2, 3: -1, 0: -1}
    assert counts(pictures.confusion(made)).tolist() == [[4, 0, 3, 2], [0, 1, 0, 0], [0, 2, 0, 0]]
    assert tiles(pictures.contact_sheet(made)) == [[2, 3, 4, 5], [10, 11, 9], [6, 7, 8], [0, 1]]
    assert made.says() == (
        "6 of 12 images (50.0%) lie in the cluster of their class. The most frequent mistakes: 5 of class 0 in a "
        "cluster without class, 1 of class 1 in the cluster of 2. No cluster is left for class 1."
    )


def test_no_mistake_and_one_image_a_cluster(tmp_path):
    made = pictured(tmp_path, [0, 1, 2], [2, 0, 1])
    assert made.says() == "3 of 3 images (100.0%) lie in the cluster of their class."
    sheet = pictures.contact_sheet(made)
    assert tiles(sheet) == [[0], [1], [2]]
    assert "1 image, 100%" in sheet.axes[0].texts[0].get_text()
    figure = pictures.mistakes(made)
    assert marks(figure) == [] and "no mistake" in figure.axes[0].texts[0].get_text()


def test_colour_images(tmp_path):
    made = pictured(tmp_path, shape=(3, 4, 5))
    assert made.pixels.shape == (12, 4, 5, 3)
    assert tiles(pictures.contact_sheet(made))[0] == [0, 1, 2, 7]
    assert pictures.sheet(made.pixels).size == (5 * pictures.COLUMNS, 4)


def test_largest_q_comes_first_and_the_distance_decides_between_equals(tmp_path):
    y, labels = [0, 0, 0, 1, 1, 1, 1, 0], [0, 0, 0, 0, 0, 1, 1, 1]
    u = np.zeros((8, 2))
    u[3], u[4] = (0.2, 0), (0.1, 0)
    arrays = {"points": np.arange(8), "u_phase 2": u, "q_max": np.array([1, 1, 1, 0.9, 0.9, 1, 1, 0.95])}
    images = numbered(y)
    entry = write(tmp_path, images, {"ae": labels, "q": labels}, arrays)
    by, numbers = Pictured(entry, images=images).mistakes()
    assert by == "largest q" and numbers.tolist() == [7, 4, 3]
    by, numbers = Pictured(entry, "ae", images=images).mistakes()
    assert by == "nearest to the mean of their cluster, after phase 2" and numbers.tolist() == [7, 4, 3]
    figure = pictures.mistakes(Pictured(entry, images=images), 2)
    assert tiles(figure) == [[7, 4]] and marks(figure) == ["✗ 0\nnot 1", "✗ 1\nnot 0"]


def test_the_stage_with_the_clusters_of_the_result_tells_its_mistakes(tmp_path):
    sf, rc = [0, 0, 0, 1, 1, 1], [1, 0, 0, 1, 1, 1]
    first, last = np.zeros((6, 3)), np.zeros((6, 3))
    first[2], last[0] = 9, 9
    arrays = {
        "points": np.arange(6),
        "pca_0": first,
        "clusters_0": np.arange(6),
        "pca_1": last,
        "clusters_1": np.array(sf),
    }
    history = [{"period": 0, "n_clusters": 1200}, {"period": 1, "n_clusters": 2}]
    images = numbered([0, 0, 1, 1, 1, 1])
    entry = write(tmp_path, images, {"SF": sf, "RC": rc}, arrays, history)
    names = [stage[0] for stage in Pictured(entry, images=images).stages()]
    assert names == ["1,200 clusters of pixels", "2 clusters, period 1"]
    for result, expected in (("SF", [2]), ("RC", [2, 0])):
        by, numbers = Pictured(entry, result, images=images).mistakes()
        assert by == "nearest to the mean of their cluster, 2 clusters, period 1"
        assert numbers.tolist() == expected


def test_without_vectors_the_pixels_tell(tmp_path):
    made = pictured(tmp_path, [0, 0, 1, 0, 1], [0, 0, 0, 0, 1])
    assert [stage[0] for stage in made.stages()] == ["pixels"]
    by, numbers = made.mistakes()
    assert "pixels" in by and numbers.tolist() == [2]


def test_stored_thumbnails_are_shown_and_all_images_counted():
    (entry,) = Paper("jule").select(method="KMeans", dataset="usps", profile="cpu", tag="main", random_state=0)
    made = Pictured(entry)
    assert made.pixels.shape == (2000, 16, 16) and made.shown[-1] == 9293 and made.ink
    assert "of 9,298 images" in made.says()
    (entry,) = Paper("jule").select(method="JULE", dataset="coil20", profile="cpu", tag="main", random_state=0)
    made = Pictured(entry, "SF")  # vectors of all images, thumbnails of every fourth
    numbers = made.mistakes(1440)[1]
    assert 0 < len(numbers) < 360 and not (numbers % 4).any()
    assert (made.taken[numbers] != made.y[numbers]).all()


def test_names_of_classes():
    found = {}
    for paper, dataset in (("dcss", "fashion-mnist"), ("jule", "coil20-last"), ("dcss", "digits-r0.5")):
        found[dataset] = Pictured(
            Paper(paper).select(dataset=dataset, random_state=0, profile="cpu", tag="main")[0]
        ).names
    assert found["fashion-mnist"][-1] == "boot" and len(found["fashion-mnist"]) == 10
    assert found["coil20-last"][18] == "19"
    assert found["digits-r0.5"] == list("0123456789")


def test_errors_say_what_to_do(tmp_path):
    entry = write(tmp_path / "a", numbered(Y), {"labels": CLUSTERS})
    with pytest.raises(ValueError, match=r"no thumbnails of 'made': pass images=load"):
        _ = Pictured(entry).pixels
    with pytest.raises(ValueError, match="made"):
        Pictured(entry, images=numbered(Y[::-1]))
    unlabelled = Images(numbered(Y).pixels)
    with pytest.raises(ValueError, match="holds no classes"):
        Pictured(write(tmp_path / "b", unlabelled, {"labels": CLUSTERS}))
