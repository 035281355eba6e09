"""Archives of records: packed, checked and taken into a book, and what is refused."""

import io
import json
import tarfile

import pytest

from reprolib.experiments import archive, records
from reprolib.files import write_atomically
from tools import gpu
from tools.gpu import pack

ABOUT = {"commit": "abc", "machine": {"device_name": "a GPU"}}


@pytest.fixture
def files(folder):
    """Records of `folder`, by their names in an archive, and a report."""
    found = {f"runs/jule/{p.name}": p for p in folder.iterdir() if p.suffix in (".json", ".npz")}
    return found | {"reports/bench.json": next(folder.glob("KMeans*cpu*.json"))}


def taken(book):
    return sorted(path.name for path in (book / "jule/runs").glob("*"))


def repacked(path, change):
    """The archive with its members, a dict of bytes, changed, and with hashes that fit."""
    manifest, contents = archive.unpack([path])
    change(contents)
    changed = path.with_name("changed.tar.gz")
    scratch = path.with_name("scratch")
    scratch.mkdir(exist_ok=True)
    files = {}
    for i, (name, data) in enumerate(contents.items()):
        files[name] = scratch / str(i)
        files[name].write_bytes(data)
    return pack(changed, files, ABOUT)


def test_records_come_back_as_they_were_in_one_archive_or_in_parts(files, folder, tmp_path, monkeypatch):
    whole = pack(tmp_path / "a.tar.gz", files, ABOUT)
    assert [path.name for path in whole] == ["a.tar.gz"]
    said = archive.take(whole, book=tmp_path / "one")
    assert (
        "commit abc on a GPU" in said[0]
        and said[-1] == f"{len(list(folder.glob('*.json')))} records, {len(list(folder.glob('*.json')))} of them new"
    )
    monkeypatch.setattr(gpu, "PART_BYTES", 4000)
    parts = pack(tmp_path / "b.tar.gz", files, ABOUT)
    assert len(parts) > 2 and max(p.stat().st_size for p in parts) <= 4000
    archive.take(parts[::-1], book=tmp_path / "two")
    for book in ("one", "two"):
        for name, path in files.items():
            if name.startswith("runs"):
                assert (tmp_path / book / "jule/runs" / path.name).read_bytes() == path.read_bytes()
        assert (tmp_path / book / "gpu/bench.json").is_file()
    with pytest.raises(ValueError, match="name all its parts"):
        archive.take(parts[:-1], book=tmp_path / "three")


def test_a_record_that_differs_stays_unless_forced(files, tmp_path):
    paths, book = pack(tmp_path / "a.tar.gz", files, ABOUT), tmp_path / "book"
    archive.take(paths, book=book)
    assert archive.take(paths, book=book)[-1].endswith(" 0 of them new")
    own = next((book / "jule/runs").glob("KMeans*cpu*.json"))
    own.write_text(own.read_text() + "\n")
    other = next((book / "jule/runs").glob("JULE*.json"))
    other.unlink()
    with pytest.raises(ValueError, match=f"{own.name}: there already"):
        archive.take(paths, book=book)
    assert own.read_text().endswith("\n\n") and not other.exists()  # nothing at all was taken
    archive.take(paths, book=book, force=True)
    assert not own.read_text().endswith("\n\n") and other.exists()


def test_a_checkpoint_comes_along_and_never_replaces_one(tmp_path):
    source = tmp_path / "source"
    source.write_bytes(b"there")
    names = ("checkpoints/jule/JULE-digits-smoke-main-seed0-0a1b.ckpt", "checkpoints/jule/JULE-x-seed0-0a1b.log")
    paths = pack(tmp_path / "a.tar.gz", dict.fromkeys(names, source), ABOUT)
    archive.take(paths, book=tmp_path / "book")
    here = tmp_path / "book/jule/runs/checkpoints"
    assert sorted(path.name for path in here.iterdir()) == [name.split("/")[-1] for name in names]
    own = here / names[0].split("/")[-1]
    own.write_bytes(b"further on")
    archive.take(paths, book=tmp_path / "book")
    assert own.read_bytes() == b"further on"
    archive.take(paths, book=tmp_path / "book", force=True)
    assert own.read_bytes() == b"there"
    paths = pack(tmp_path / "b.tar.gz", {"checkpoints/jul/x.ckpt": source}, ABOUT)
    with pytest.raises(ValueError, match="Did you mean 'jule'"):
        archive.take(paths, book=tmp_path / "book")


def edited(name, **changed):
    def change(contents):
        key = next(n for n in contents if name in n and n.endswith(".json") and n.startswith("runs"))
        contents[key] = json.dumps(json.loads(contents[key]) | changed).encode()

    return change


def wrong_metrics(contents):
    key = next(n for n in contents if "KMeans" in n and n.endswith(".json") and n.startswith("runs"))
    entry = json.loads(contents[key])
    entry["metrics"]["labels"]["acc"] += 1e-4
    contents[key] = json.dumps(entry).encode()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (edited("KMeans", behaviours={"KMean": 1}), "Did you mean 'KMeans'"),
        (edited("KMeans", behaviours={"KMeans": 99}), "number of behaviour KMeans"),
        (edited("KMeans", schema=1), "not a run record of schema"),
        (edited("KMeans", tag="other"), "holds the record of"),
        (edited("KMeans", paper="dcss"), "holds the record of"),
        (wrong_metrics, "do not give its metrics again"),
        (lambda c: c.pop(next(n for n in c if n.endswith(".npz"))), "No such file"),
        (lambda c: c.pop(next(n for n in c if "KMeans" in n and n.endswith(".json"))), "no record names it"),
    ],
)
def test_what_the_book_cannot_stand_by_is_refused_whole(files, tmp_path, change, message):
    paths = repacked(
        *pack(tmp_path / "a.tar.gz", {n: p for n, p in files.items() if n.startswith("runs")}, ABOUT), change
    )
    with pytest.raises((ValueError, OSError), match=message):
        archive.take(paths, book=tmp_path / "book")
    assert not (tmp_path / "book").exists()


def test_hashes_are_checked(files, tmp_path):
    (path,) = pack(tmp_path / "a.tar.gz", files, ABOUT)
    manifest, contents = archive.unpack([path])
    name = next(n for n in contents if n.endswith(".npz"))
    manifest["files"][name] = "0" * 64
    by_hand(path, {"manifest.json": json.dumps(manifest).encode(), **contents})
    with pytest.raises(ValueError, match=f"{name}: not as the manifest says"):
        archive.take([path], book=tmp_path / "book")


def by_hand(path, contents, **about):
    with tarfile.open(path, "w:gz") as file:
        for name, data in contents.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            for key, value in about.get(name, {}).items() if about else ():
                setattr(member, key, value)
            file.addfile(member, io.BytesIO(data))


@pytest.mark.parametrize(
    "name",
    [
        "../x.json",
        "/etc/x.json",
        "runs/../x.json",
        "runs/jule/../../x.json",
        "runs/jule/.x/y.json",
        "x.json",
        "runs/jule/x.py",
    ],
)
def test_a_member_that_leads_elsewhere_is_refused(tmp_path, name):
    path = tmp_path / "a.tar.gz"
    manifest = json.dumps({"format": 1, "files": {}}).encode()
    by_hand(path, {"manifest.json": manifest, name: b"{}"})
    with pytest.raises(ValueError, match="nothing is taken"):
        archive.take([path], book=tmp_path / "book")
    source = tmp_path / "source"
    write_atomically(source, lambda stream: stream.write(b"{}"))
    with pytest.raises(ValueError, match="nothing is taken"):
        pack(tmp_path / "b.tar.gz", {name: source}, ABOUT)


def test_a_packing_that_is_killed_leaves_the_archive_before(files, tmp_path, monkeypatch):
    monkeypatch.setattr(gpu, "PART_BYTES", 4000)
    before = pack(tmp_path / "a.tar.gz", files, ABOUT)

    def killed(path, write):
        if path.name.endswith(".02"):
            raise KeyboardInterrupt
        write_atomically(path, write)

    with monkeypatch.context() as patch:
        patch.setattr(gpu, "write_atomically", killed)
        with pytest.raises(KeyboardInterrupt):
            pack(tmp_path / "a.tar.gz", files, ABOUT | {"steps": {}})
    assert "steps" not in archive.unpack(before)[0]
    fewer = pack(tmp_path / "a.tar.gz", dict(list(files.items())[:2]), ABOUT)
    assert sorted(tmp_path.glob("*.gz*")) == fewer


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.DIRTYPE])
def test_links_and_folders_are_refused(tmp_path, kind):
    path, name = tmp_path / "a.tar.gz", "runs/jule/x.json"
    by_hand(path, {"manifest.json": b"{}", name: b""}, **{name: {"type": kind, "linkname": "/etc/passwd"}})
    with pytest.raises(ValueError, match="no regular file"):
        archive.take([path], book=tmp_path / "book")


def test_a_name_that_is_there_twice_is_refused(tmp_path):
    path = tmp_path / "a.tar.gz"
    with tarfile.open(path, "w:gz") as file:
        for _ in range(2):
            file.addfile(tarfile.TarInfo("reports/x.json"), io.BytesIO())
    with pytest.raises(ValueError, match="there twice"):
        archive.take([path], book=tmp_path / "book")


def test_every_name_of_a_record_fits_into_an_archive():
    stem = records.stem("SCLS", "digits-r0.1", "cpu", "alpha=0.5 conv1&2", 3)
    archive.check_member(f"runs/jule/{stem}.json")
    archive.check_member(f"logs/jule/{stem}.log")
