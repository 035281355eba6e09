"""The embedding explorer: what is packed into the page. What a browser makes of it: tests/test_site.py."""

import base64
import io
import json
import re

import matplotlib
import numpy as np
import pytest
from made_pictures import numbered, write
from PIL import Image

from reprolib.experiments.paper import Paper
from reprolib.experiments.records import load_arrays
from reprolib.files import BOOK
from reprolib.report.explorer import explorer
from reprolib.report.pictures import COLUMNS, Pictured

matplotlib.use("Agg")
SCRIPT = BOOK / "_static" / "explorer.js"


def unpacked(text, width=1):
    return np.frombuffer(base64.b64decode(text), "<u2").astype(int).reshape(-1, width).squeeze()


def embedded(html):
    return json.loads(re.search(r'<script type="application/json">(.*?)</script>', html, re.DOTALL)[1])


@pytest.fixture
def made(tmp_path):
    """Two stages of 60 images in 12 clusters, then in 3; the record has vectors of every other one."""
    rng = np.random.default_rng(0)
    y = np.arange(120) % 3
    y[:4] = 1
    points = np.arange(0, 120, 2)
    last = np.eye(5)[y[points]] * 4 + rng.normal(size=(60, 5)) * 0.2
    labels = np.array([5, 9, 7])[y]
    labels[2] = 9
    arrays = {"points": points, "pca_0": -last[:, :3], "clusters_0": points % 12, "pca_1": last}
    arrays["clusters_1"] = labels[points]
    history = [{"period": 0, "n_clusters": 1200}, {"period": 1, "n_clusters": 3}]
    images = numbered(y, (3, 4, 5))
    return Pictured(write(tmp_path, images, {"SF": labels}, arrays, history, dataset="</script>"), images=images)


def test_the_page_holds_what_was_packed(made):
    packed = explorer(made)
    data = embedded(packed._repr_html_())
    assert data == json.loads(json.dumps(packed.data))
    assert data["numbers"] == list(range(0, 120, 2))
    assert unpacked(data["truth"]).tolist() == made.y[::2].tolist()
    assert data["names"] == ["0", "1", "2"] and data["title"] == "KMeans on </script>, seed 0"
    assert [stage["name"] for stage in data["stages"]] == ["1,200 clusters of pixels", "3 clusters, period 1"]


def test_a_cluster_stands_for_its_match_or_its_most_frequent_class(made):
    first, last = explorer(made).data["stages"]
    ids = np.array(last["ids"])
    assert dict(zip(last["ids"], last["stands"], strict=True)) == made.classes == {5: 0, 9: 1, 7: 2}
    assert ids[unpacked(last["clusters"])].tolist() == made.labels[::2].tolist()
    assert first["ids"] == [0, 2, 4, 6, 8, 10]
    for c, stands in zip(first["ids"], first["stands"], strict=True):
        assert stands == np.bincount(made.y[::2][made.arrays["clusters_0"] == c]).argmax()


def test_neighbours_are_the_nearest_in_the_vectors_of_the_record(made):
    for stage, key in zip(explorer(made).data["stages"], ("pca_0", "pca_1"), strict=True):
        vectors = made.arrays[key]
        far = np.linalg.norm(vectors[:, None] - vectors[None], axis=2)
        np.fill_diagonal(far, np.inf)
        assert unpacked(stage["near"], 5).tolist() == np.argsort(far, axis=1)[:, :5].tolist()


def test_stages_are_turned_alike_and_keep_distances(made):
    first, last = (unpacked(stage["xyz"], 3) / 32767.5 - 1 for stage in explorer(made).data["stages"])
    # the first three numbers of the vectors are those of the first stage with the other sign
    assert all(np.corrcoef(first[:, d], last[:, d])[0, 1] > 0.9 for d in range(2))
    vectors = made.arrays["pca_0"]
    apart = np.linalg.norm(vectors[:1] - vectors, axis=1)
    found = np.linalg.norm(first[:1] - first, axis=1)
    assert np.allclose(found / found.max(), apart / apart.max(), atol=1e-3)
    assert np.abs(first).max() <= 1
    shares = [stage["share"] for stage in explorer(made).data["stages"]]
    assert shares[0] is None and 0.9 < shares[1] < 1


def test_images_at_hand_travel_in_the_page(made):
    images = explorer(made).data["images"]
    kind, _, text = images["file"].partition(",")
    assert kind == "data:image/png;base64" and (images["width"], images["height"], images["ink"]) == (5, 4, False)
    pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(text))))
    for place, number in ((0, 0), (41, 82)):
        row, column = divmod(unpacked(images["places"])[place], COLUMNS)
        tile = pixels[row * 4 : row * 4 + 4, column * 5 : column * 5 + 5]
        assert (tile == number).all()


def test_a_stage_that_is_a_result_is_matched_over_all_images():
    (entry,) = Paper("dcss").select(method="DCSS", dataset="usps", profile="cpu", tag="main", random_state=0)
    *_, last = explorer(Pictured(entry)).data["stages"]
    matched = Pictured(entry, "q").classes
    assert last["stands"] == [matched[c] for c in last["ids"]] and -1 in last["stands"]


def test_two_images_and_one_stage(tmp_path):
    images = numbered([0, 1])
    data = explorer(Pictured(write(tmp_path, images, {"labels": [3, 3]}), images=images)).data
    assert data["neighbours"] == 1 and unpacked(data["stages"][0]["near"]).tolist() == [1, 0]
    assert data["stages"][0]["stands"] == [0]


def test_a_map_has_at_most_so_many_images_evenly_spaced(made, monkeypatch):
    monkeypatch.setattr("reprolib.report.explorer.MOST", 20)
    packed = explorer(made).data
    assert packed["numbers"] == list(range(0, 120, 6))
    assert unpacked(packed["truth"]).tolist() == made.y[::6].tolist()
    assert unpacked(packed["stages"][1]["near"]).max() == 19


def test_a_collapsed_embedding_is_one_point(tmp_path):
    images = numbered([0, 0, 1, 1])
    arrays = {"points": np.arange(4), "u_phase 1": np.ones((4, 5))}
    entry = write(tmp_path, images, {"u": [0, 0, 0, 0]}, arrays)
    (stage,) = embedded(explorer(Pictured(entry, images=images))._repr_html_())["stages"]
    assert len(set(unpacked(stage["xyz"]).tolist())) == 1 and stage["stands"] == [0]


def test_a_record_with_fewer_thumbnails_than_points():
    (entry,) = Paper("jule").select(method="JULE", dataset="coil20", profile="cpu", tag="main", random_state=0)
    packed = explorer(Pictured(entry, "SF"))
    assert len(packed.data["numbers"]) == 360 and packed.data["images"]["file"] == "thumbs/coil20.png"
    assert unpacked(packed.data["images"]["places"]).tolist() == list(range(360))
    assert len(packed._repr_html_()) < 200_000


def test_nothing_is_loaded_from_elsewhere(made):
    text = SCRIPT.read_text()
    assert len(text) < 30_000
    for word in ("http:", "https:", "fetch(", "XMLHttpRequest", "import ", "eval(", "innerHTML"):
        assert word not in text
    assert "//" not in re.sub(r"[A-Za-z0-9+/=]{16,}", "", explorer(made)._repr_html_())  # base64 may hold slashes


def test_the_slider_begins_at_the_end_of_a_warm_up():
    asked = dict(method="InterClassSeparation", dataset="usps", profile="cpu", tag="main", random_state=0)
    (entry,) = Paper("separation").select(**asked)
    stages = Pictured(entry, "u").stages()
    assert [name for name, *_ in stages] == ["after the warm-up", "after phase 1"]
    arrays = load_arrays(entry)
    for (*_, clusters), result in zip(stages, ("ae", "u"), strict=True):
        np.testing.assert_array_equal(clusters, arrays[result][arrays["points"]])
