"""Texts of PNG and comments of other formats: kept where the result has a place for them, else named in a note."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from lcad.io.metadata import png_chunk
from lcad.io.photos import notes_on_writing, read_photo, write_photo
from tests.conftest import random_photo
from tests.test_photo_files import colored, pillow_bytes

TEXTS = [
    (b"tEXt", b"Author\0J. M\xfcller"),
    (b"zTXt", b"Comment\0\0" + zlib.compress(b"Z\xfcrich, the tram")),
    (b"iTXt", b"Title\0\1\0de\0Titel\0" + zlib.compress("Stra\u00dfe".encode())),
    (b"iTXt", b"Place\0\0\0\0\0" + "\u6771\u4eac".encode()),
]
IN_JPEG = ["Author: J. M\u00fcller", "Z\u00fcrich, the tram", "Title: Stra\u00dfe", "Place: \u6771\u4eac"]


def png_with(chunks: list[tuple[bytes, bytes]], behind: bool = False, mode: str = "RGB") -> bytes:
    data, added = pillow_bytes("PNG", mode), b"".join(png_chunk(*chunk) for chunk in chunks)
    place = len(data) - 12 if behind else 33
    return data[:place] + added + data[place:]


def jpeg_with(*comments: bytes) -> bytes:
    data = pillow_bytes("JPEG", "RGB")
    added = b"".join(b"\xff\xfe" + struct.pack(">H", len(text) + 2) + text for text in comments)
    return data[:2] + added + data[2:]


def jpeg_comments(path) -> list[bytes]:
    with Image.open(path) as image:
        return [content for name, content in image.applist if name == "COM"]


def written(source: bytes, name: str, target: str, folder):
    (folder / name).write_bytes(source)
    photo = read_photo(folder / name)
    write_photo(folder / f"result{target}", colored(photo), photo)
    return photo, folder / f"result{target}"


@pytest.mark.parametrize("behind", [False, True], ids=["before the pixels", "behind them"])
def test_texts_of_a_png_are_kept_byte_for_byte(behind, tmp_path):
    photo, result = written(png_with(TEXTS, behind), "a.png", ".png", tmp_path)
    data = result.read_bytes()
    assert all(data.count(png_chunk(*chunk)) == 1 for chunk in TEXTS) and notes_on_writing(photo, ".png") == []
    with Image.open(result) as image:
        assert image.text["Author"] == "J. M\u00fcller" and image.text["Title"] == "Stra\u00dfe"


def test_texts_of_a_png_become_comments_of_a_jpeg(tmp_path):
    photo, result = written(png_with(TEXTS), "a.png", ".jpg", tmp_path)
    assert [text.decode() for text in jpeg_comments(result)] == IN_JPEG and notes_on_writing(photo, ".jpg") == []


@pytest.mark.parametrize("target", [".tif", ".webp", ".bmp"])
def test_texts_that_a_format_has_no_place_for_are_named(target, tmp_path):
    photo, _ = written(png_with(TEXTS), "a.png", target, tmp_path)
    (note,) = notes_on_writing(photo, target)
    assert note == f"its texts 'Author', 'Comment', 'Title', 'Place' are not kept: {target} has no place for them"


def test_metadata_and_profiles_in_texts_are_no_texts(tmp_path):
    profile = b"Raw profile type %b\0\0" + zlib.compress(b"\n%b\n 4\n00010203\n" % b"x")
    chunks = [(b"zTXt", profile.replace(b"%b", name)) for name in (b"iptc", b"exif", b"icc")]
    chunks.append((b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0<x/>"))
    photo, result = written(png_with(chunks), "a.png", ".png", tmp_path)
    assert photo.texts == [] and photo.xmp == b"<x/>" and b"type icc" not in result.read_bytes()
    assert "has a colour profile in a text" in photo.notes[0] and len(photo.notes) == 1
    xmp = b"<x:xmpmeta/>"
    raw = b"Raw profile type xmp\0\0" + zlib.compress(b"\nxmp\n%8d\n%b\n" % (len(xmp), xmp.hex().encode()))
    assert written(png_with([(b"zTXt", raw)]), "a.png", ".png", tmp_path)[0].xmp == xmp


@pytest.mark.parametrize(
    "chunk", [(b"tEXt", b"no separator"), (b"tEXt", b"\0no keyword"), (b"tEXt", b"k" * 80 + b"\0a")]
)
def test_damaged_texts_are_named(chunk, tmp_path):
    photo, result = written(png_with([chunk]), "a.png", ".png", tmp_path)
    assert photo.texts == [] and photo.notes == [f"a damaged text of {len(chunk[1])} bytes is not kept"]
    assert chunk[1] not in result.read_bytes()


COMMENTS = [b"a street", "Z\u00fcrich".encode(), b"Z\xfcrich, 1932", b"ends with\0"]


def test_comments_of_a_jpeg_are_kept(tmp_path):
    photo, result = written(jpeg_with(*COMMENTS), "a.jpg", ".jpg", tmp_path)
    assert jpeg_comments(result) == COMMENTS and notes_on_writing(photo, ".png") == []
    _, result = written(jpeg_with(*COMMENTS), "a.jpg", ".png", tmp_path)
    with Image.open(result) as image:
        image.load()
    stored = [(name, content) for name, content in chunks_of(result.read_bytes()) if name in (b"tEXt", b"iTXt")]
    assert stored == [
        (b"tEXt", b"Comment\0a street"), (b"iTXt", b"Comment\0\0\0\0\0" + "Z\u00fcrich".encode()),
        (b"tEXt", b"Comment\0Z\xfcrich, 1932"), (b"tEXt", b"Comment\0ends with"),
    ]  # fmt: skip


def chunks_of(data: bytes) -> list[tuple[bytes, bytes]]:
    place, found = 8, []
    while place < len(data):
        size = struct.unpack(">I", data[place : place + 4])[0]
        found.append((data[place + 4 : place + 8], data[place + 8 : place + 8 + size]))
        place += 12 + size
    return found


def test_a_text_that_is_too_long_for_a_jpeg_is_named(tmp_path):
    chunks = [(b"tEXt", b"Author\0me"), (b"zTXt", b"Comment\0\0" + zlib.compress(b"x" * 70_000))]
    photo, result = written(png_with(chunks), "a.png", ".jpg", tmp_path)
    assert jpeg_comments(result) == [b"Author: me"]
    assert notes_on_writing(photo, ".jpg") == ["its texts 'Comment' are not kept: a JPEG holds 65,533 bytes"]


@pytest.mark.parametrize("suffix", [".gif", ".tga", ".pgm", ".ppm", ".jp2"])
def test_comments_of_other_formats_are_kept(suffix, tmp_path):
    buffer, photo = io.BytesIO(), random_photo(0)
    if suffix in (".pgm", ".ppm"):
        kind, pixels = (b"P5", photo.convert("L")) if suffix == ".pgm" else (b"P6", photo)
        buffer.write(kind + b"\n# the archive\n48 40 # wide\n255\n" + pixels.tobytes().replace(b"#", b"$"))
    else:
        kind = {".gif": "GIF", ".tga": "TGA", ".jp2": "JPEG2000"}[suffix]
        options = {"id_section": b"the archive"} if kind == "TGA" else {"comment": b"the archive"}
        photo.save(buffer, kind, **options)
    read, result = written(buffer.getvalue(), f"a{suffix}", ".png", tmp_path)
    assert read.texts[0].content == b"the archive" and len(read.texts) == (2 if suffix[1] == "p" else 1)
    assert (b"tEXt", b"Comment\0the archive") in chunks_of(result.read_bytes())


@pytest.mark.parametrize("mode", ["RGB", "L", "16"])
@pytest.mark.parametrize("value", ["3", "abc"])
def test_a_text_does_not_pass_for_something_else(mode, value, tmp_path):
    """Pillow keeps texts beside what it knows of an image, under any name."""
    names = (
        "dpi",
        "gamma",
        "chromaticity",
        "srgb",
        "icc_profile",
        "transparency",
        "exif",
        "photoshop",
        "xmp",
        "comment",
    )
    chunks = [(b"tEXt", f"{name}\0{value}".encode()) for name in names]
    data = pillow_bytes("PNG", "RGB")
    if mode == "16":
        buffer = io.BytesIO()
        Image.fromarray((np.arange(2000).reshape(40, 50) * 30).astype(np.uint16)).save(buffer, "PNG")
        data = buffer.getvalue()
    elif mode == "L":
        data = pillow_bytes("PNG", "L")
    (tmp_path / "a.png").write_bytes(data)
    plain = read_photo(tmp_path / "a.png")
    (tmp_path / "a.png").write_bytes(data[:33] + b"".join(png_chunk(*chunk) for chunk in chunks) + data[33:])
    photo = read_photo(tmp_path / "a.png")
    assert np.array_equal(photo.values, plain.values) and photo.notes == [] and photo.alpha is None
    assert (photo.dpi, photo.icc, photo.exif, photo.xmp, photo.iptc, photo.space) == (None, None, b"", b"", b"", None)
    assert [text.keyword for text in photo.texts] == list(names)


def test_pillow_still_keeps_texts_beside_the_rest():
    """What the test above is for: else `_own_info` is not needed any more."""
    info = PngImagePlugin.PngInfo()
    info.add_text("dpi", "3")
    buffer = io.BytesIO()
    random_photo(0).save(buffer, "PNG", pnginfo=info)
    assert Image.open(buffer).info["dpi"] == "3"
