"""Downloads, whole, short, damaged and hostile, through the script's own main."""

import io
import json
import os
import stat
import tarfile
import unicodedata
import zipfile
from pathlib import Path

import pytest
from PIL import Image

from lcad.data.build import archives
from lcad.data.build.manifest import read_manifest, verify
from lcad.io.images import read_image
from lcad.text.captions import read_captions
from scripts import prepare_data
from tests.conftest import random_photo


def photo_bytes(seed: int, width: int = 60, height: int = 40) -> bytes:
    buffer = io.BytesIO()
    random_photo(seed, width, height).save(buffer, "JPEG", quality=95)
    return buffer.getvalue()


def make_zip(path: Path, files: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return path


def make_tar(path: Path, files: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w") as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


@pytest.fixture
def run(tmp_path, capsys):
    """Run the script -> exit status and stderr; its output is `run.out`."""

    def call(*args: object, output: Path | None = tmp_path / "out") -> tuple[int, str]:
        options = [*args, *(("--output", output) if output else ())]
        status = prepare_data.main([str(option) for option in options])
        return status, capsys.readouterr().err

    call.out = tmp_path / "out"
    return call


@pytest.fixture
def coco(tmp_path):
    """A zip of three photos, and captions of two of them; arguments for the script."""
    archive = make_zip(tmp_path / "val2017.zip", {f"val2017/{i}.jpg": photo_bytes(i) for i in range(3)})
    captions = {"0.jpg": ["a red and white bus", "a red bus"], "1.jpg": ["a bus"]}
    (tmp_path / "caption_val.json").write_text(json.dumps(captions))
    return ["coco-stuff", "--split", "val", "--input", archive, "--captions", tmp_path / "caption_val.json"]


def test_coco_stuff(run, coco, tmp_path):
    status, errors = run(*coco)
    assert status == 0 and "warning: coco-stuff val: got 2 photos, expected about 2,400" in errors
    rows = read_manifest(run.out / "manifest.csv")
    assert [(row.file, row.caption, row.level) for row in rows] == [
        ("images/0.png", "a red and white bus", "complete"),
        ("images/1.png", "a bus", "scarce"),
    ]
    assert verify(run.out) == {} and not (run.out / "problems.txt").exists()
    assert read_captions(run.out / "images")["0.png"] == ["a red and white bus", "a red bus"]
    prepared, original = read_image(run.out / "images" / "0.png"), random_photo(0, 60, 40)
    assert prepared.size == (256, 256)
    middle, expected = prepared.getpixel((128, 128)), original.getpixel((30, 20))
    assert max(abs(a - b) for a, b in zip(middle, expected, strict=True)) < 12  # the centre stays the centre
    folder = tmp_path / "unpacked"
    zipfile.ZipFile(tmp_path / "val2017.zip").extractall(folder)
    other = tmp_path / "from_folder"
    run(*coco[:4], folder, *coco[5:], output=other)
    assert read_manifest(other / "manifest.csv") == rows


def test_levels_keep_the_photos(run, coco):
    run(*coco)
    times = [path.stat().st_mtime_ns for path in sorted((run.out / "images").iterdir())]
    assert run(*coco, "--level", "partial")[0] == 0
    partial = read_manifest(run.out / "manifest.csv")[0]
    assert partial.caption in ("a red bus", "a white bus") and partial.level == "partial"
    assert run(*coco, "--level", "scarce")[0] == 0
    assert {row.caption for row in read_manifest(run.out / "manifest.csv")} == {"a colorful image"}
    assert read_captions(run.out / "images")["0.png"] == ["a colorful image"]
    assert times == [path.stat().st_mtime_ns for path in sorted((run.out / "images").iterdir())]


def test_resuming_does_only_what_is_not_as_it_was(run, coco):
    run(*coco)
    first, second = sorted((run.out / "images").iterdir())
    before, kept = read_manifest(run.out / "manifest.csv"), first.stat().st_mtime_ns
    Image.new("RGB", (256, 256)).save(second)  # a whole photo, but another than the manifest says
    (run.out / "images" / "old.png").write_bytes(b"left over")
    status, errors = run(*coco)
    assert status == 0 and "1 files in images/ are not in the manifest: old.png" in errors
    assert read_manifest(run.out / "manifest.csv") == before
    assert first.stat().st_mtime_ns == kept
    (run.out / "manifest.csv").unlink()
    second.write_bytes(second.read_bytes()[:20])
    run(*coco)
    assert read_manifest(run.out / "manifest.csv") == before
    run(*coco, "--overwrite")
    assert first.stat().st_mtime_ns != kept


def test_missing_and_damaged_photos_are_named_and_the_rest_is_done(run, tmp_path, coco):
    captions = {f"{i}.jpg": ["a red bus"] for i in range(5)}
    (tmp_path / "caption_val.json").write_text(json.dumps(captions))
    data = photo_bytes(3)
    files = {"v/0.jpg": photo_bytes(0), "v/1.jpg": photo_bytes(1), "v/2.jpg": data[: len(data) // 2], "v/3.jpg": b""}
    archive = make_zip(tmp_path / "val2017.zip", files)
    content = bytearray(archive.read_bytes())
    content[content.find(photo_bytes(1)) + 300] ^= 255  # its checksum is wrong now
    archive.write_bytes(content)
    status, errors = run(*coco)
    assert status == 1
    listed = (run.out / "problems.txt").read_text().splitlines()
    for name, reason in {"1.jpg": "damaged", "2.jpg": "truncated", "3.jpg": "empty", "4.jpg": "missing"}.items():
        assert [name in line and reason in line for line in listed].count(True) == 1
        assert f"{name}'" in errors
    assert [row.file for row in read_manifest(run.out / "manifest.csv")] == ["images/0.png"]
    make_zip(archive, {f"v/{i}.jpg": photo_bytes(i) for i in range(5)})
    assert run(*coco)[0] == 0 and not (run.out / "problems.txt").exists()
    assert len(read_manifest(run.out / "manifest.csv")) == 5 and verify(run.out) == {}


def test_a_short_zip_loses_its_photos_only(run, tmp_path, coco):
    whole = make_zip(tmp_path / "more.zip", {"val2017/1.jpg": photo_bytes(1)})
    (tmp_path / "val2017.zip").write_bytes((tmp_path / "val2017.zip").read_bytes()[:-100])
    status, errors = run(*coco[:5], whole, *coco[5:])
    assert status == 1 and "val2017.zip: damaged, short" in errors and "'0.jpg': missing" in errors
    assert [row.file for row in read_manifest(run.out / "manifest.csv")] == ["images/1.png"]
    status, errors = run(*coco, output=tmp_path / "nothing")
    assert status == 1 and not (tmp_path / "nothing" / "manifest.csv").exists()


def test_many_problems_are_counted_on_the_screen(run, tmp_path, coco):
    (tmp_path / "caption_val.json").write_text(json.dumps({f"{i}.jpg": "a bus" for i in range(50)}))
    status, errors = run(*coco)
    assert status == 1 and errors.count("problem: ") == 20 and "47 problems" in errors
    assert len((run.out / "problems.txt").read_text().splitlines()) == 47


def test_multi_instance_with_captions_inside(run, tmp_path):
    files = {f"mi/{part}/a.jpg": photo_bytes(i) for i, part in enumerate(("train", "val"))}
    for part in ("train", "val"):
        files[f"mi/cap-img-pairs_{part}.json"] = json.dumps([["a.jpg", f"the red {part}, the blue cup"]]).encode()
    archive = make_zip(tmp_path / "multi.zip", files | {"__MACOSX/mi/val/._a.jpg": b"x"})
    for i, part in enumerate(("train", "val")):
        status, errors = run("multi-instance", "--split", part, "--input", archive, output=tmp_path / part)
        assert status == 0 and f"multi-instance {part}: got 1 photos" in errors
        assert read_manifest(tmp_path / part / "manifest.csv")[0].caption == f"the red {part}, the blue cup"
        middle = read_image(tmp_path / part / "images" / "a.png").getpixel((128, 128))
        expected = random_photo(i, 60, 40).getpixel((30, 20))
        assert max(abs(a - b) for a, b in zip(middle, expected, strict=True)) < 12
    bad = make_zip(tmp_path / "bad.zip", {"val/a.jpg": photo_bytes(0), "pairs.json": b"[1]"})
    status, errors = run("multi-instance", "--split", "val", "--input", bad)
    assert status == 2 and "bad.zip: 'pairs.json': expected {name" in errors
    status, errors = run("multi-instance", "--split", "val", "--input", make_zip(tmp_path / "c.zip", {"a.jpg": b"x"}))
    assert status == 2 and "found none; name it with --captions" in errors


@pytest.mark.parametrize("kind", ["zip", "tar", "folder", "unmarked zip", "own photos"])
def test_names_match_their_captions_in_any_composition(run, tmp_path, kind):
    """A Mac's archives have names in NFD, its zips even without saying that they are UTF-8."""
    names = [unicodedata.normalize(form, "Z\u00fcrich.jpg") for form in ("NFC", "NFD")]
    (tmp_path / "captions.json").write_text(json.dumps({names[0]: ["a red tram"]}))
    files = {f"val/{names[1]}": photo_bytes(0)}
    source = tmp_path / f"photos.{kind[-3:]}"
    if kind == "tar":
        make_tar(source, files)
    elif kind in ("folder", "own photos"):
        (source / "val").mkdir(parents=True)
        (source / "val" / names[1]).write_bytes(photo_bytes(0))
    else:
        make_zip(source, files)
        data = source.read_bytes()
        if kind == "unmarked zip":  # flags in the file's own header and in the directory's
            assert data.count(b"\x00\x08\x00\x00") >= 2
            source.write_bytes(data.replace(b"PK\3\4\x14\0\0\x08", b"PK\3\4\x14\0\0\0").replace(
                b"PK\1\2\x14\3\x14\0\0\x08", b"PK\1\2\x14\3\x14\0\0\0"))  # fmt: skip
            with zipfile.ZipFile(source) as archive:
                assert archive.namelist()[0] not in files
    source = source / "val" if kind == "own photos" else source
    data_set = ["folder"] if kind == "own photos" else ["multi-instance", "--split", "val"]
    status, errors = run(*data_set, "--input", source, "--captions", tmp_path / "captions.json")
    assert status == 0, errors
    (row,) = read_manifest(run.out / "manifest.csv")
    assert row.caption == "a red tram" and not verify(run.out)


def test_imagenet(run, tmp_path):
    names = [f"ILSVRC2012_val_{i:08d}.JPEG" for i in (4, 2, 1)]
    archive = make_tar(tmp_path / "val.tar", {name: photo_bytes(i) for i, name in enumerate(names)})
    status, errors = run("imagenet", "--input", archive, "--number", 3)
    assert status == 1 and "'ILSVRC2012_val_00000003.JPEG': missing" in errors and "expected 5,000" in errors
    rows = read_manifest(run.out / "manifest.csv")
    assert [Path(row.file).stem[-1] for row in rows] == ["1", "2"]
    assert {(row.caption, row.level) for row in rows} == {("a colorful image", "scarce")}
    content = archive.read_bytes()
    archive.write_bytes(content[: content.rindex(b"\xff\xda")])  # ends inside the last photo
    status, errors = run("imagenet", "--input", archive, "--number", 3, output=tmp_path / "short")
    assert status == 1 and "val.tar: damaged, short" in errors and "'ILSVRC2012_val_00000001.JPEG': damaged" in errors
    assert run("imagenet", "--input", archive, "--number", 0)[0] == 2
    folder = tmp_path / "renamed"
    for i, name in enumerate(("b/x.png", "a/y.png", "a/z.png")):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        random_photo(i).save(folder / name)
    assert run("imagenet", "--input", folder, "--number", 2, output=tmp_path / "other")[0] == 0
    assert [row.file for row in read_manifest(tmp_path / "other" / "manifest.csv")] == ["images/x.png", "images/y.png"]


def test_own_photos(run, photo_folder):
    Image.new("RGB", (10, 300), "red").save(photo_folder / "images" / "p0.jpg")  # clashes with p0.png
    assert run("folder", "--input", photo_folder, output=None)[0] == 0
    rows = {row.file: row for row in read_manifest(photo_folder.with_name("photos_prepared") / "manifest.csv")}
    assert len(rows) == 9 and {"images/p0.png.png", "images/p0.jpg.png", "images/p1.png"} <= rows.keys()
    assert rows["images/p1.png"].caption == "the red cup 1, the blue cup"
    assert rows["images/p7.png"].level == "scarce"
    status, errors = run("folder", "--input", photo_folder, output=photo_folder)
    assert status == 2 and "choose another --output" in errors
    (photo_folder / "images" / "p1.png").unlink()
    status, errors = run("folder", "--input", photo_folder)
    assert status == 1 and "'p1.png': missing" in errors
    assert run("folder", "--input", photo_folder / "nothing")[0] == 2


@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_hostile_archives(run, tmp_path, monkeypatch, kind):
    monkeypatch.setattr(archives, "MAX_BYTES", 100_000)
    secret = tmp_path / "secret.jpg"
    secret.write_bytes(photo_bytes(9))
    names = ["good.jpg", "../../up.jpg", "/root.jpg", "link.jpg", "bomb.jpg", "new\nline.jpg"]
    archive = tmp_path / f"evil.{kind}"
    files = {name: bytes(10_000_000) if name == "bomb.jpg" else photo_bytes(0) for name in names if name != "link.jpg"}
    if kind == "zip":
        make_zip(archive, files)
        info = zipfile.ZipInfo("link.jpg")
        info.external_attr = (stat.S_IFLNK | 0o777) << 16
        with zipfile.ZipFile(archive, "a") as opened:
            opened.writestr(info, str(secret))
    else:
        make_tar(archive, files)
        info = tarfile.TarInfo("link.jpg")
        info.type, info.linkname = tarfile.SYMTYPE, str(secret)
        with tarfile.open(archive, "a") as opened:
            opened.addfile(info)
    captions = tmp_path / "captions.json"
    captions.write_text(json.dumps({name: ["a red bus"] for name in ("good.jpg", "up.jpg", "link.jpg", "bomb.jpg")}))
    before = {path for path in tmp_path.rglob("*") if run.out not in path.parents}
    status, errors = run("coco-stuff", "--split", "val", "--input", archive, "--captions", captions)
    assert status == 1 and errors.count("refused") == 5
    assert {path for path in tmp_path.rglob("*") if run.out not in path.parents} == before | {run.out}
    assert [row.file for row in read_manifest(run.out / "manifest.csv")] == ["images/good.png"]
    assert os.listdir(run.out / "images") == ["good.png"]


def test_mistakes_are_one_line(run, coco, tmp_path):
    status, errors = run(*coco[:4], tmp_path / "absent.zip", *coco[5:])
    assert status == 2 and errors.startswith("error: ") and errors.count("\n") == 1
    status, errors = run(*coco[:-1], tmp_path / "absent.json")
    assert status == 2 and "no such caption file" in errors
