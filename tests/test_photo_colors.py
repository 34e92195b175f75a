"""Colours that are named by numbers, by EXIF or by tables: L is what LittleCMS and the standards' formulas say.

The rows that `check_*` give are part of docs/formats.md, see `tests.test_photo_files`.
"""

import io
import re

import imagecodecs
import numpy as np
import pytest
import tifffile
from PIL import Image

from lcad.io.color_profiles import SRGB_PROFILE
from lcad.io.images import ImageError
from lcad.io.metadata import png_chunk
from lcad.io.photos import read_photo, write_photo
from tests.profiles import GRAY_PROFILES, RGB_PROFILES, coded_luminance, error_in_steps, lut_profile, shown_luminance
from tests.test_photo_files import (
    HEIGHT,
    TABLE,
    WIDTH,
    colored,
    deep_bytes,
    gradient,
    pillow_array,
    profiled_bytes,
    raw,
    round_trip,
    row,
)

CODED = [
    ("sRGB", 1, 13), ("Display P3", 12, 13), ("BT.2020, sRGB curve", 9, 13), ("DCI-P3, gamma 2.2", 11, 4),
    ("linear", 1, 8), ("BT.709 video", 1, 1),
]  # fmt: skip


def colors(peak: int) -> np.ndarray:
    """(H, W, 3): colours of all kinds, from black to white."""
    ramp = np.linspace(0, 1, HEIGHT * WIDTH).reshape(HEIGHT, WIDTH, 1)
    values = (ramp + 0.4 * ramp * (1 - ramp) * [1, -1, 0.5]) * peak
    return values.round().astype(np.uint16 if peak > 255 else np.uint8)


def with_codes(data: bytes, *codes: int) -> bytes:
    return data[:33] + png_chunk(b"cICP", bytes(codes)) + data[33:]


def check_coded(name: str, primaries: int, transfer: int, depth: int, folder) -> str:
    values = colors(2**depth - 1)
    photo, result, icc = round_trip(
        with_codes(imagecodecs.png_encode(values), primaries, transfer, 0, 1), ".png", folder
    )
    assert icc is None and photo.depth == depth and bool(photo.notes) == (transfer == 1)
    before, after = coded_luminance(values, primaries, transfer), shown_luminance(result, None)
    worst = error_in_steps(before, after, depth, None).max()
    assert worst <= 1, f"L differs by {worst} steps"
    return row("png", "RGB", depth, f"cICP {name}", result, icc, ".png")


def exif_of(space: int | None, index: str | None) -> Image.Exif:
    exif = Image.Exif()
    exif[0x010E] = "a street"
    camera: dict = {}
    if space is not None:
        camera[0xA001] = space
    if index is not None:
        camera[0xA005] = {1: index}
    exif[0x8769] = camera
    return exif


def with_exif(suffix: str, values: np.ndarray, exif: Image.Exif, **options) -> bytes:
    buffer = io.BytesIO()
    kind = {".jpg": "JPEG", ".png": "PNG", ".tif": "TIFF"}[suffix]
    if kind == "JPEG":
        options |= {"quality": 100, "subsampling": 0}
    if kind == "TIFF":  # whose writer follows directories only in EXIF that it has read
        data, exif = exif.tobytes(), Image.Exif()
        exif.load(data)
    Image.fromarray(values).save(buffer, kind, exif=exif, **options)
    return buffer.getvalue()


def check_adobe(suffix: str, folder) -> str:
    values = colors(255)
    exif = exif_of(2, None) if suffix == ".tif" else exif_of(0xFFFF, "R03")
    photo, result, icc = round_trip(with_exif(suffix, values, exif), suffix, folder)
    assert photo.notes == ["is Adobe RGB by its EXIF, without a profile"] and icc == photo.icc != RGB_PROFILES["sRGB"]
    stored = values if suffix != ".jpg" else np.asarray(Image.open(folder / "source.jpg"))
    before, after = shown_luminance(stored, RGB_PROFILES["Adobe RGB"]), shown_luminance(result, icc)
    worst = error_in_steps(before, after, 8, icc).max()
    assert worst <= 1, f"L differs by {worst} steps"
    return row(suffix[1:], "RGB", 8, "EXIF: Adobe RGB", result, icc, suffix)


def scanner(rgb: np.ndarray) -> np.ndarray:
    """(N, 3) -> Lab, as no matrix could have it."""
    light = rgb.mean(1) ** 0.8
    return np.stack([100 * light, 30 * (rgb[:, 0] - rgb[:, 1]), 30 * (rgb[:, 1] - rgb[:, 2])], axis=1)


def press(cmyk: np.ndarray) -> np.ndarray:
    """(N, 4) -> Lab: less light for each ink, black ink most."""
    c, m, y, k = cmyk.T
    return np.stack([(100 - 35 * c - 45 * m - 10 * y) * (1 - 0.9 * k), 35 * (m - c), 45 * (y - c / 2)], axis=1)


TABLES = {"RGB table": lut_profile(b"RGB ", scanner), "CMYK table": lut_profile(b"CMYK", press)}


def check_table(name: str, folder) -> str:
    """A profile of tables, as scanners and presses have them: converted to sRGB, in 16 bit."""
    values, icc = colors(65535), TABLES[name]
    kind = "separated" if name.startswith("CMYK") else "rgb"
    values = np.dstack([values, 65535 - values[..., :1]]) if kind == "separated" else values
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, values, photometric=kind, iccprofile=icc)
    photo, result, written = round_trip(buffer.getvalue(), ".tif", folder)
    assert written is None and photo.depth == 16 and "the result is sRGB" in photo.notes[0]
    before, after = shown_luminance(values, icc), shown_luminance(result, None)
    inside = (before > 0.5) & (before < 99.5)  # else clipped by sRGB
    worst = np.abs(before - after)[inside].max()
    assert worst < 0.05, f"L differs by {worst}"
    return row("tif", kind.upper() if kind == "rgb" else "CMYK", 16, name, result, written, ".tif")


@pytest.mark.parametrize("case", CODED, ids=lambda case: case[0])
@pytest.mark.parametrize("depth", [8, 16])
def test_code_points_of_a_png_are_used(case, depth, tmp_path):
    assert check_coded(*case, depth, tmp_path) in TABLE.read_text(encoding="utf-8"), "write docs/formats.md again"


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".tif"])
def test_adobe_rgb_that_only_exif_names(suffix, tmp_path):
    assert check_adobe(suffix, tmp_path) in TABLE.read_text(encoding="utf-8"), "write docs/formats.md again"


@pytest.mark.parametrize("name", TABLES)
def test_profiles_of_tables(name, tmp_path):
    assert check_table(name, tmp_path) in TABLE.read_text(encoding="utf-8"), "write docs/formats.md again"


def test_a_cmyk_jpeg_goes_through_the_table_of_its_profile(tmp_path):
    inks = np.dstack([colors(255), 255 - colors(255)[..., :1]])
    buffer = io.BytesIO()
    Image.fromarray(inks, "CMYK").save(buffer, "JPEG", quality=100, icc_profile=TABLES["CMYK table"])
    photo, result, icc = round_trip(buffer.getvalue(), ".jpg", tmp_path)
    stored = np.asarray(Image.open(tmp_path / "source.jpg"))
    before, after = shown_luminance(stored, TABLES["CMYK table"]), shown_luminance(result, icc)
    inside = (before > 0.5) & (before < 99.5)
    assert "through its profile" in photo.notes[0] and np.abs(before - after)[inside].max() < 0.4


def test_grey_with_code_points_keeps_its_curve(tmp_path):
    values = gradient(1, 65535)[..., 0]
    _, result, icc = round_trip(with_codes(imagecodecs.png_encode(values), 1, 8, 0, 1), ".png", tmp_path)
    before, after = shown_luminance(values, GRAY_PROFILES["Gray linear"]), shown_luminance(result, icc)
    assert np.abs(before - after).max() < 0.01


def test_code_points_count_for_more_than_the_profile_of_a_png(tmp_path):
    values = colors(255)
    data = with_codes(profiled_bytes(".png", values, RGB_PROFILES["linear RGB"]), 12, 13, 0, 1)
    _, result, icc = round_trip(data, ".png", tmp_path)
    before = coded_luminance(values, 12, 13)
    assert icc is None and error_in_steps(before, shown_luminance(result, icc), 8, icc).max() <= 1


@pytest.mark.parametrize(
    "codes, reason",
    [
        ((9, 16, 0, 1), "HDR (PQ)"), ((9, 18, 0, 1), "HDR (HLG)"), ((2, 16, 0, 1), "HDR (PQ)"),
        ((1, 13, 0, 0), "range or the matrix of video"), ((1, 13, 1, 1), "range or the matrix of video"),
    ],
)  # fmt: skip
def test_colours_that_are_not_a_photos_are_refused(codes, reason, tmp_path):
    (tmp_path / "a.png").write_bytes(with_codes(imagecodecs.png_encode(colors(255)), *codes))
    with pytest.raises(ImageError, match=re.escape(reason)):
        read_photo(tmp_path / "a.png")


@pytest.mark.parametrize("codes, told", [((99, 13, 0, 1), True), ((1, 2, 0, 1), True), ((2, 2, 0, 1), False)])
def test_unknown_code_points_are_ignored_with_a_note(codes, told, tmp_path):
    (tmp_path / "a.png").write_bytes(with_codes(imagecodecs.png_encode(colors(255)), *codes))
    photo = read_photo(tmp_path / "a.png")
    assert photo.space is None and any("numbers that are not read" in note for note in photo.notes) == told
    (tmp_path / "a.png").write_bytes(with_codes(imagecodecs.png_encode(colors(255)), 12, 13))
    assert read_photo(tmp_path / "a.png").space is None, "a chunk that is too short"


def test_code_points_of_an_avif_are_used_unless_it_has_a_profile(tmp_path):
    for profile in (None, RGB_PROFILES["linear RGB"]):
        buffer = io.BytesIO()
        Image.fromarray(colors(255)).save(buffer, "AVIF", quality=95, **({"icc_profile": profile} if profile else {}))
        data = re.sub(rb"colrnclx\0.\0.", b"colrnclx\0\x0c\0\r", buffer.getvalue())
        assert b"colrnclx\0\x0c\0\r" in data
        (tmp_path / "a.avif").write_bytes(data)
        photo = read_photo(tmp_path / "a.avif")
        expected = shown_luminance(photo.values, profile or RGB_PROFILES["Display P3"])
        assert np.abs(photo.luminance()[0].numpy() - expected).max() < 0.02


@pytest.mark.parametrize("depth", [8, 16])
@pytest.mark.parametrize("name", ["ProPhoto", "Gray 1.8"])
def test_the_profile_of_a_jpeg_2000_is_used(name, depth, tmp_path):
    grey, icc = name in GRAY_PROFILES, (RGB_PROFILES | GRAY_PROFILES)[name]
    values = gradient(1, 2**depth - 1)[..., 0] if grey else colors(2**depth - 1)
    data = imagecodecs.jpeg2k_encode(values, level=0, reversible=True, codecformat="JP2")
    old = (15).to_bytes(4, "big") + b"colr\1\0\0\0\0\0" + (b"\x11" if grey else b"\x10")
    header = data.find(b"jp2h")
    assert old in data
    new = (11 + len(icc)).to_bytes(4, "big") + b"colr\2\0\0" + icc
    size = int.from_bytes(data[header - 4 : header], "big") + len(new) - len(old)
    data = data[: header - 4] + size.to_bytes(4, "big") + data[header:].replace(old, new)
    (tmp_path / "a.jp2").write_bytes(data)
    photo = read_photo(tmp_path / "a.jp2")
    assert photo.depth == depth
    off = np.abs(photo.luminance()[0].numpy() - shown_luminance(values, icc))
    assert off.max() < (0.5 if depth == 8 else 0.01)


@pytest.mark.parametrize(
    "space, index, adobe, told",
    [(2, None, True, "Adobe"), (0xFFFF, None, False, "taken for sRGB"), (0xFFFF, "R98", False, "taken for sRGB"),
     (1, "R98", False, None), (1, "R03", False, None), (None, "R03", False, None), (None, None, False, None)],
)  # fmt: skip
def test_what_exif_says_of_colours(space, index, adobe, told, tmp_path):
    (tmp_path / "a.png").write_bytes(with_exif(".png", colors(255), exif_of(space, index)))
    photo = read_photo(tmp_path / "a.png")
    assert (photo.icc is not None) == adobe and len(photo.notes) == (told is not None)
    assert told is None or told in photo.notes[0]


def test_exif_counts_for_less_than_a_profile_or_the_chunk_of_srgb(tmp_path):
    values, exif = colors(255), exif_of(0xFFFF, "R03")
    data = with_exif(".png", values, exif, icc_profile=RGB_PROFILES["Display P3"])
    (tmp_path / "a.png").write_bytes(data)
    assert read_photo(tmp_path / "a.png").icc == RGB_PROFILES["Display P3"]
    data = with_exif(".png", values, exif)
    for chunk, adobe in (
        (png_chunk(b"sRGB", b"\0"), False),
        (png_chunk(b"gAMA", (45455).to_bytes(4, "big")), True),  # which both have
        (png_chunk(b"gAMA", (100_000).to_bytes(4, "big")), False),
    ):
        (tmp_path / "a.png").write_bytes(data[:33] + chunk + data[33:])
        assert ("is Adobe RGB by its EXIF, without a profile" in read_photo(tmp_path / "a.png").notes) == adobe


@pytest.mark.parametrize("target", [".png", ".tif", ".jpg", ".webp"])
def test_a_result_in_srgb_whose_exif_says_adobe_rgb_is_tagged(target, tmp_path):
    """A grey profile becomes sRGB, and EXIF is kept byte for byte: without a profile it would be shown as Adobe RGB."""
    data = with_exif(".png", pillow_array("L"), exif_of(0xFFFF, "R03"), icc_profile=GRAY_PROFILES["Gray 1.8"])
    (tmp_path / "a.png").write_bytes(data)
    photo = read_photo(tmp_path / "a.png")
    write_photo(tmp_path / f"b{target}", colored(photo), photo)
    with Image.open(tmp_path / f"b{target}") as image:
        assert image.info["icc_profile"] == SRGB_PROFILE
    photo.exif = b""
    write_photo(tmp_path / f"b{target}", colored(photo), photo)
    with Image.open(tmp_path / f"b{target}") as image:
        assert "icc_profile" not in image.info


def test_the_white_and_primaries_of_a_png_are_used(tmp_path):
    """Of Adobe RGB, by gAMA and cHRM."""
    x_y = (31270, 32900, 64000, 33000, 21000, 71000, 15000, 6000)
    chunks = png_chunk(b"gAMA", round(1e5 / 2.19921875).to_bytes(4, "big"))
    chunks += png_chunk(b"cHRM", b"".join(number.to_bytes(4, "big") for number in x_y))
    values = colors(255)
    data = imagecodecs.png_encode(values)
    (tmp_path / "a.png").write_bytes(data[:33] + chunks + data[33:])
    photo = read_photo(tmp_path / "a.png")
    expected = shown_luminance(values, RGB_PROFILES["Adobe RGB"])
    assert photo.icc is None and np.abs(photo.luminance()[0].numpy() - expected).max() < 0.02


def test_a_tiff_is_adobe_rgb_by_the_directories_in_its_exif(tmp_path):
    (tmp_path / "a.png").write_bytes(with_exif(".png", colors(255), exif_of(0xFFFF, "R03")))
    photo = read_photo(tmp_path / "a.png")
    write_photo(tmp_path / "b.tif", colored(photo).astype(np.uint16) * 257, photo)
    assert raw(tmp_path / "b.tif")[1] == photo.icc and read_photo(tmp_path / "b.tif").notes == []
    data = (tmp_path / "b.tif").read_bytes()
    profile, unknown = (number.to_bytes(2, "big") + b"\0\7" for number in (34675, 65000))
    assert data.startswith(b"MM") and data.count(profile) == 1
    (tmp_path / "b.tif").write_bytes(data.replace(profile, unknown))
    again = read_photo(tmp_path / "b.tif")
    assert again.icc == photo.icc and again.notes == ["is Adobe RGB by its EXIF, without a profile"]
    (tmp_path / "c.tif").write_bytes(deep_bytes(".tif", 3))
    assert read_photo(tmp_path / "c.tif").icc is None
