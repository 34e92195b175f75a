"""Manifests: written, read back, refused when malformed, and held against the files."""

from hashlib import sha256

import pytest

from lcad.data.build.manifest import MANIFEST, ManifestRow, file_sha256, read_manifest, verify, write_manifest

ROW = ManifestRow("images/a.png", sha256(b"a").hexdigest(), 'a "red" cup, a hat', "complete")


def test_rows_survive(tmp_path):
    rows = [ROW, ManifestRow("images/bü 12:30.png", ROW.sha256, "a colorful image", "scarce")]
    write_manifest(tmp_path / MANIFEST, rows)
    assert read_manifest(tmp_path / MANIFEST) == rows
    assert (tmp_path / MANIFEST).read_text(encoding="utf-8").startswith("file,sha256,caption,level\nimages/a.png,")


def test_missing_and_changed_files(tmp_path):
    (tmp_path / "images").mkdir()
    for name in "ab":
        (tmp_path / "images" / f"{name}.png").write_bytes(name.encode())
    assert file_sha256(tmp_path / "images" / "a.png") == ROW.sha256
    rows = [ManifestRow(f"images/{name}.png", ROW.sha256, "a cup", "scarce") for name in "abc"]
    write_manifest(tmp_path / MANIFEST, rows)
    assert verify(tmp_path) == {"images/b.png": "changed", "images/c.png": "missing"}


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([], "expected the columns"),
        (["file,caption"], "expected the columns"),
        (["file,sha256,caption,level"], "a line for each photo"),
        (["file,sha256,caption,level", "images/a.png,0"], "row 2: expected 4 values, got 2"),
        (["file,sha256,caption,level", "images/a.png,xyz,a,scarce"], "SHA-256"),
        (["file,sha256,caption,level", f"images/a.png,{ROW.sha256},a,rich"], "'rich'; allowed: complete"),
        (["file,sha256,caption,level", *[f"images/a.png,{ROW.sha256},a,scarce"] * 2], "row 3: .*named twice"),
        (["file,sha256,caption,level", '"a'], "cannot be read"),
    ],
)
def test_malformed(tmp_path, lines, message):
    path = tmp_path / MANIFEST
    path.write_text("\n".join(lines))
    with pytest.raises(ValueError, match=message) as caught:
        read_manifest(path)
    assert "\n" not in str(caught.value) and str(path) in str(caught.value)


@pytest.mark.parametrize("file", ["../a.png", "/a.png", "C:/a.png", "images/../../a", "images\\a.png", "./a", "", "."])
def test_paths_that_escape(tmp_path, file):
    write_manifest(tmp_path / MANIFEST, [ManifestRow(file, ROW.sha256, "a", "scarce")])
    with pytest.raises(ValueError, match="not a path inside"):
        read_manifest(tmp_path / MANIFEST)


def test_no_manifest(tmp_path):
    with pytest.raises(ValueError, match="cannot be read"):
        verify(tmp_path)
