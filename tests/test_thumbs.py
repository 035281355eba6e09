"""The stored thumbnails: they are images of the records' data sets, in the order of the records' points."""

import json

import numpy as np
import pytest

from reprolib.data.catalogue import TABLE
from reprolib.data.load import load
from reprolib.experiments.paper import Paper
from reprolib.files import file_sha256
from reprolib.report import pictures
from tools import thumbs

STORED = pictures.manifest()
SHEET = pytest.mark.parametrize("about", STORED.values(), ids=lambda about: about["dataset"])


def test_every_sheet_is_in_the_manifest_and_they_are_small():
    files = {path.stem: path.stat().st_size for path in pictures.THUMBS.glob("*.png")}
    assert set(files) == {about["dataset"] for about in STORED.values()} == set(thumbs.SETS)
    assert sum(files.values()) < 1_000_000


@SHEET
def test_a_sheet_is_the_file_of_the_manifest(about):
    assert file_sha256(pictures.THUMBS / f"{about['dataset']}.png") == about["file_sha256"]
    images = pictures.thumbnails(about)
    assert images.shape == (about["images"], *about["shape"]) and images.dtype == np.uint8
    assert len(np.unique(images.reshape(len(images), -1), axis=0)) > 0.9 * len(images)


@SHEET
def test_a_sheet_belongs_to_records_and_holds_their_points(about):
    entries = [
        entry
        for name in ("jule", "dcss")
        for entry in Paper(name).select(dataset=about["dataset"], profile=None, tag=None)
    ]
    same = [entry for entry in entries if entry["dataset"]["sha256"] == about["data_sha256"]]
    assert same and all(entry["dataset"]["n"] == about["of"] for entry in same)
    points = [p for p in (pictures.load_arrays(entry).get("points") for entry in same[:40]) if p is not None]
    shown = pictures.Pictured(same[0]).shown
    assert points and all(set(shown) <= set(p) for p in points)


@SHEET
def test_no_more_than_a_quarter_of_a_set_is_stored_and_its_terms_are_told(about):
    known = TABLE[about["dataset"]].n if about["dataset"] in TABLE else about["of"]
    assert about["terms"] and 4 * about["images"] <= about["whole"] == known
    assert not about["dataset"].startswith("orl")


@SHEET
def test_the_images_are_those_of_the_data_set(about):
    try:
        images = load(about["dataset"], **thumbs.SETS[about["dataset"]][0])
    except FileNotFoundError as error:
        pytest.skip(str(error))
    assert images.sha256 == about["data_sha256"]
    chosen = np.arange(about["images"]) * images.n // about["images"]
    assert np.array_equal(pictures.thumbnails(about), images.pixels[chosen, 0])


def test_the_tool_writes_the_stored_sheets_again(tmp_path, monkeypatch):
    monkeypatch.setattr(thumbs, "THUMBS", tmp_path)
    monkeypatch.setattr(thumbs, "SETS", {"usps": thumbs.SETS["usps"]})
    try:
        thumbs.main()
    except FileNotFoundError as error:
        pytest.skip(str(error))
    (written,) = json.loads((tmp_path / "manifest.json").read_text())
    kept = STORED[written["data_sha256"]]
    compressed = {"file_sha256"}  # may differ with the version of zlib, the images may not
    assert {k: v for k, v in written.items() if k not in compressed} == {
        k: kept[k] for k in kept if k not in compressed
    }
    assert file_sha256(tmp_path / "usps.png") == written["file_sha256"]
    monkeypatch.setattr(pictures, "THUMBS", tmp_path)
    again = pictures.thumbnails(written)
    monkeypatch.undo()
    assert np.array_equal(again, pictures.thumbnails(kept))
