"""Runs on one's own images: known by their data, named without a path, planned where the user stands."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image

from reprolib import __main__ as cli
from reprolib.data.load import is_own, load
from reprolib.experiments import paper as papers
from reprolib.experiments import records, run
from reprolib.training.checkpoint import CheckpointError

OWN = {"method": "KMeans", "profile": "smoke", "n_clusters": 2}
RNG = np.random.default_rng(0)
PIXELS = RNG.integers(0, 256, (8, 12, 10), dtype=np.uint8)


def photos(folder, n=6, first=0, size=(12, 10)):
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(first, first + n):
        Image.fromarray(RNG.integers(0, 256, size, dtype=np.uint8)).save(folder / f"{i}.png")
    return folder


def plan(tmp_path, dataset, paper="jule", **changed):
    return run.plan(paper, OWN | {"dataset": dataset, "runs_dir": str(tmp_path / "runs")} | changed)


def do(item):
    """What the page does."""
    images, model = item.images(), item.estimator()
    monitor = item.monitor(images)
    return records.read(item.record(model, images, monitor, item.fit(model, images, monitor)))


# --- known by their data --------------------------------------------------------------------------


def test_a_folder_that_grew_is_run_again(tmp_path):
    folder = photos(tmp_path / "photos")
    item = plan(tmp_path, f"folder:{folder}")
    assert do(item)["dataset"]["n"] == 6 and item.is_finished()
    (folder / "notes.txt").write_text("no image")
    assert item.is_finished()
    photos(folder, first=6)
    assert not item.is_finished()
    # nor does a file that cannot be reached bring the old record back
    (folder / ".link").symlink_to(tmp_path / "nowhere")
    assert not item.is_finished()
    assert do(item)["dataset"]["n"] == 12 and item.is_finished()


def test_a_replaced_npz_is_run_again(tmp_path, monkeypatch):
    monkeypatch.setenv("REPROLIB_DATA", str(tmp_path))
    np.savez(tmp_path / "mine.npz", images=PIXELS)
    item = plan(tmp_path, "mine")
    do(item)
    assert item.is_finished()
    np.savez(tmp_path / "mine.npz", images=PIXELS[::-1])
    assert not item.is_finished()


def test_data_that_are_not_here_leave_their_record(tmp_path):
    folder = photos(tmp_path / "photos")
    item = plan(tmp_path, f"folder:{folder}")
    do(item)
    shutil.rmtree(folder)
    assert item.is_finished()


def test_the_hash_of_data_is_computed_once_while_the_files_stay(tmp_path, monkeypatch):
    from reprolib.data import load as datasets

    loaded = []
    folder = photos(tmp_path / "photos")
    items = [plan(tmp_path, f"folder:{folder}", random_state=seed) for seed in (0, 1)]
    [do(item) for item in items]
    monkeypatch.setattr(datasets, "load", lambda name, **how: loaded.append(name) or load(name, **how))
    assert all(item.is_finished() for item in items * 2) and len(loaded) == 1


def test_a_checkpoint_does_not_go_on_with_other_data(tmp_path):
    folder = photos(tmp_path / "photos")
    item = plan(tmp_path, f"folder:{folder}", paper="dcss", method="DEC")
    images = item.images()

    def killed(report):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        item.fit(item.estimator(), images, killed)
    assert item.checkpoint.exists()
    photos(folder, first=6)
    with pytest.raises(CheckpointError, match="written with other data or parameters: delete it") as caught:
        do(item)
    assert str(item.checkpoint) in str(caught.value)
    item.checkpoint.unlink()  # as the message says
    assert do(item)["dataset"]["n"] == 12


# --- names ----------------------------------------------------------------------------------------


def name_of(dataset, tag="main"):
    return records.stem("KMeans", dataset, "paper", tag, 0)


def test_names_are_short_and_safe_and_of_one_data_set_only():
    deep = "/".join(["a-folder-name-of-forty-characters-or-so-" * 5] * 5)
    own = ["folder:/a/my photos", "folder:/a/my-photos", "folder:/b/my-photos", f"folder:/{deep}", f"folder:/x/{deep}"]
    own += ["folder:/a/照片", "folder:/a/图片", "folder:/", "my set", "my-set", "x" * 300, "x" * 299]
    found = [name_of(dataset) for dataset in own]
    assert len(set(found)) == len(own)
    for dataset, stem in zip(own, found, strict=True):
        assert len(stem) < 100 and stem.isascii() and not set(stem) & set("/ :")
        assert name_of(records.known_as(dataset)) == stem, "the name in a record leads to its file"
        assert "/a" not in records.known_as(dataset)
    assert found[1].startswith("KMeans-folder-my-photos-")
    assert name_of("folder:/a/../a/my photos") == found[0]
    assert len(name_of("usps", tag="t" * 300)) < 100 and name_of("usps", "é") != name_of("usps", "è")
    assert name_of("digits-r0.5", "conv1&2") == "KMeans-digits-r0.5-paper-conv1-2-seed0"


def test_a_record_of_a_deep_folder_holds_no_path(tmp_path):
    folder = photos(tmp_path / ("and-another-below-it-as-people-have-them-" * 3) / ("a-folder-name-" * 9))
    item = plan(tmp_path, f"folder:{folder}", verbose=True, paper="dcss", method="AEKMeans")
    entry = do(item)
    assert item.is_finished() and item.finished_record() == entry
    for file in (tmp_path / "runs").rglob("*.*"):
        assert "people" not in file.name and b"people" not in file.read_bytes()


def test_features_learned_on_a_folder_are_recorded_without_its_path(tmp_path, monkeypatch):
    monkeypatch.chdir(photos(tmp_path / "photos").parent)
    item = plan(tmp_path, "digits", method="ACGDL", features="jule/folder:photos/top-1", n_clusters=10)
    assert item.features == f"jule/folder:{tmp_path}/photos/top-1"
    assert str(tmp_path) not in json.dumps([item.recorded, item.tag, item.stem])
    assert item.tag == f"on-{records.known_as(f'folder:{tmp_path}/photos')}-top-1"


def test_a_run_does_not_replace_the_record_of_another(tmp_path):
    folder = photos(tmp_path / "photos")
    do(plan(tmp_path, f"folder:{folder}", tag="a b"))
    with pytest.raises(ValueError, match="another run .*tag 'a b'.* -p tag=other"):
        plan(tmp_path, f"folder:{folder}", tag="a-b")
    assert not plan(tmp_path, f"folder:{folder}", tag="other").is_finished()


# --- settings -------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["folder", "npz"])
def test_relative_places_are_those_of_where_the_user_stands(tmp_path, monkeypatch, capsys, kind):
    monkeypatch.chdir(tmp_path)
    photos(tmp_path / "my photos")
    (tmp_path / "data").mkdir()
    # a file that cannot be used is no reason not to use another
    np.savez(tmp_path / "data" / "aa.npz", images=PIXELS.astype(float))
    np.savez(tmp_path / "data" / "good.npz", images=PIXELS)
    monkeypatch.setenv("REPROLIB_DATA", "data")
    dataset, n = ("folder:my photos", 6) if kind == "folder" else ("good", 8)
    given = [f"-p{k}={v}" for k, v in (OWN | {"dataset": dataset, "runs_dir": "runs"}).items()]
    assert cli.main(["run", "jule", *given]) == 0, capsys.readouterr().err
    (path,) = (tmp_path / "runs").glob("*.json")
    assert records.read(path)["dataset"]["n"] == n and str(tmp_path) not in path.read_text()


def test_size_gray_and_subset_can_be_given_and_are_recorded(tmp_path):
    folder = photos(tmp_path / "photos")
    photos(folder, first=6, size=(7, 7))
    Image.fromarray(RNG.integers(0, 256, (9, 9, 3), dtype=np.uint8)).save(folder / "colour.png")
    dataset = f"folder:{folder}"
    with pytest.raises(ValueError, match="different sizes.*-p size=64"):
        run.run("jule", OWN | {"dataset": dataset}, runs_dir=tmp_path / "runs")
    how = {"size": [8, 6], "gray": True, "subset": 5}
    item = plan(tmp_path, dataset, **how)
    assert item.images().shape == (5, 1, 8, 6)
    assert do(item)["parameters"].items() >= how.items() and item.is_finished()
    assert not plan(tmp_path, dataset, **how | {"subset": 6}).is_finished()
    assert plan(tmp_path, dataset, size=8, gray=None).images().shape == (13, 3, 8, 8)
    with pytest.raises(TypeError, match="gray must be true or false; got 'maybe'"):
        plan(tmp_path, dataset, size=8, gray="maybe")
    with pytest.raises(ValueError, match="size must be a whole number"):
        run.run("jule", OWN | {"dataset": dataset, "size": "big"}, runs_dir=tmp_path / "runs")


def test_a_known_data_set_loaded_otherwise_needs_a_tag(tmp_path):
    dcss = {"method": "KMeans", "runs_dir": str(tmp_path)}
    assert "size" not in run.plan("dcss", dcss).recorded
    assert run.plan("dcss", dcss | {"size": 16, "gray": False}).recorded == run.plan("dcss", dcss).recorded
    with pytest.raises(ValueError, match="-p tag=size-8"):
        run.plan("dcss", dcss | {"size": 8})
    item = run.plan("dcss", dcss | {"size": 8, "tag": "size-8"})
    assert item.images().shape == (300, 1, 8, 8) and item.recorded["size"] == 8
    with pytest.raises(ValueError, match="learned features"):
        plan(tmp_path, "digits", method="ACGDL", features="jule/digits/top-1", size=8)


@pytest.mark.parametrize("paper", papers.papers())
def test_ones_own_images_take_the_schedule_of_the_profile(paper, tmp_path):
    entries = papers.profiles(paper)["profiles"]
    for method in papers.methods(paper):
        for profile in ("smoke", "cpu"):
            own = papers.resolve(paper, "folder:x", profile, {"n_clusters": 3}, method=method)
            assert own == papers.resolve(paper, "digits", profile, {"n_clusters": 3}, method=method)
        paper_s = papers.resolve(paper, "folder:x", "paper", {"n_clusters": 3})
        assert paper_s.items() >= papers.profiles(paper)["default"].items()
    assert papers.resolve(paper, "folder:x", "smoke", {"n_clusters": 3}) != paper_s
    assert "load" in entries["smoke"]["digits"] or paper == "jule"
    assert "load" not in papers.profile_entry(paper, "folder:x", "smoke")
    assert "smoke" in papers.profile_entry(paper, "folder:x", "smoke")["reduced"]


def test_a_list_stands_for_a_tuple(tmp_path):
    item = plan(tmp_path, f"folder:{photos(tmp_path / 'photos')}", method="NMFD", layers=[5, 3])
    assert item.parameters["layers"] == (5, 3)
    do(item)
    assert item.is_finished()


def test_ones_own_data_sets_are_told_from_the_tables(tmp_path):
    np.savez(tmp_path / "my set.npz", images=PIXELS)
    np.savez(tmp_path / "usps.npz", images=PIXELS)
    for name, own in {"folder:x": True, "my set": True, "my set-r0.5": True, "usps": False, "my": False}.items():
        assert is_own(name, tmp_path) == own
