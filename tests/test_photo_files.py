"""Photographs in and out: every format, mode and depth keeps its L, alpha, depth and what is written beside the pixels.

`python -m tests.test_photo_files` writes the table in docs/formats.md, which a test compares with what it finds.
"""

import io
import zlib
from pathlib import Path

import cv2
import imagecodecs
import numpy as np
import pytest
import tifffile
import torch
from PIL import Image

from lcad.color import rgb_to_luminance
from lcad.io.images import IMAGE_SUFFIXES, ImageError, read_size
from lcad.io.metadata import png_chunk
from lcad.io.photos import Photo, notes_on_writing, read_photo, write_photo
from lcad.upsampling import transfer_chroma_strips
from tests.conftest import random_photo
from tests.profiles import GRAY_PROFILES, NARROW, RGB_PROFILES, SRGB, error_in_steps, shown_luminance

TABLE = Path(__file__).resolve().parents[1] / "docs" / "formats.md"
HEIGHT, WIDTH = 40, 56


def gradient(channels: int, peak: int) -> np.ndarray:
    """(H, W, channels): grey at slightly different levels, from black to white."""
    ramp = np.linspace(0, 1, HEIGHT * WIDTH).reshape(HEIGHT, WIDTH, 1)
    return (ramp ** np.linspace(1, 1.1, channels) * peak).round().astype(np.uint16 if peak > 255 else np.uint8)


def pillow_array(mode: str) -> np.ndarray:
    """Grey or RGB values of 8 bit that `pillow_bytes` writes."""
    image = Image.fromarray(gradient(3, 255)).convert(mode)
    return np.asarray(image.convert("L" if mode in ("1", "L", "LA") else "RGB"))


def pillow_bytes(kind: str, mode: str, **options) -> bytes:
    source = Image.fromarray(gradient(3, 255))
    if mode in ("LA", "RGBA"):
        source.putalpha(Image.fromarray(np.linspace(0, 255, HEIGHT * WIDTH).reshape(HEIGHT, WIDTH).astype(np.uint8)))
    buffer = io.BytesIO()
    source.convert(mode).save(buffer, format=kind, **options)
    return buffer.getvalue()


def deep_bytes(suffix: str, channels: int) -> bytes:
    values = gradient(channels, 65535)
    if channels == 4:
        values[..., 3] = np.linspace(0, 65535, WIDTH).astype(np.uint16)
    if suffix == ".tif":
        buffer = io.BytesIO()
        extra = ["unassalpha"] if channels == 4 else None
        tifffile.imwrite(
            buffer, values.squeeze(), photometric="rgb" if channels > 1 else "minisblack", extrasamples=extra
        )
        return buffer.getvalue()
    return cv2.imencode(suffix, values[..., [2, 1, 0, 3][:channels]] if channels > 1 else values)[1].tobytes()


CASES = {
    (f".{suffix}", mode, 8): pillow_bytes(kind, mode, **({"lossless": True, "exact": True} if kind == "WEBP" else {}))
    for suffix, kind, modes in (
        ("png", "PNG", ("1", "L", "LA", "P", "RGB", "RGBA")),
        ("tif", "TIFF", ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK")),
        ("jpg", "JPEG", ("L", "RGB", "CMYK")),
        ("webp", "WEBP", ("RGB", "RGBA")),
        ("bmp", "BMP", ("1", "L", "P", "RGB")),
    )
    for mode in modes
} | {
    (suffix, mode, 16): deep_bytes(suffix, channels)
    for suffix in (".png", ".tif")
    for mode, channels in (("L", 1), ("RGB", 3), ("RGBA", 4))
}


def deep_array(mode: str) -> np.ndarray:
    return gradient(len(mode), 65535)[..., :3] if mode != "L" else gradient(1, 65535)[..., 0]


WRITTEN = {case: pillow_array(case[1]) if case[2] == 8 else deep_array(case[1]) for case in CASES}


def colored(photo: Photo) -> np.ndarray:
    """The photo with strong colours on it, as the folder run makes it."""
    decoded = torch.rand(1, 3, 10, 14, generator=torch.Generator().manual_seed(0))
    parts = transfer_chroma_strips(photo.luminance()[None], decoded)
    return np.concatenate([photo.encoded(rgb[0]) for _, rgb in parts])


LAYOUTS = {  # of TIFF: name -> what is written for grey or RGB of 16 bit, how, and how far the values may differ
    "WhiteIsZero": (1, lambda v: 65535 - v, {"photometric": "miniswhite"}),
    "planes": (3, lambda v: np.moveaxis(v, -1, 0), {"photometric": "rgb", "planarconfig": "separate"}),
    "infrared": (3, lambda v: np.dstack([v, v[..., :1] // 2]), {"photometric": "rgb", "extrasamples": ["unspecified"]}),
    "grey and alpha": (1, lambda v: np.dstack([v, v]), {"photometric": "minisblack", "extrasamples": ["unassalpha"]}),
    "premultiplied": (3, lambda v: np.dstack([v // 2, v[..., :1] * 0 + 32768]),
                      {"photometric": "rgb", "extrasamples": ["assocalpha"]}),
    "signed": (1, lambda v: (v.astype(int) - 32768).astype(np.int16), {"photometric": "minisblack"}),
    "12 of 16 bits": (1, lambda v: v >> 4, {"photometric": "minisblack", "extratags": [(281, "H", 1, 4095, True)]}),
    "unsigned 32": (1, lambda v: v.astype(np.uint32) * 65537, {"photometric": "minisblack"}),
    "float 16": (1, lambda v: (v / 65535).astype(np.float16), {"photometric": "minisblack"}),
    "float 32": (3, lambda v: (v / 65535).astype(np.float32), {"photometric": "rgb"}),
    "float 64": (1, lambda v: v / 65535, {"photometric": "minisblack"}),
    "float to 255": (3, lambda v: (v / 257).astype(np.float32), {"photometric": "rgb"}),
    "CMYK": (3, lambda v: np.dstack([65535 - v, v[..., :1] * 0]), {"photometric": "separated"}),
    "tiles, BigTIFF": (3, lambda v: v, {"photometric": "rgb", "tile": (16, 16), "bigtiff": True}),
    "big endian": (3, lambda v: v, {"photometric": "rgb", "byteorder": ">"}),
    "LZW": (3, lambda v: v, {"photometric": "rgb", "compression": "lzw", "predictor": True}),
    "ZSTD": (3, lambda v: v, {"photometric": "rgb", "compression": "zstd"}),
}  # fmt: skip


def profiled_bytes(suffix: str, values: np.ndarray, icc: bytes) -> bytes:
    if suffix == ".tif":
        buffer = io.BytesIO()
        tifffile.imwrite(buffer, values, photometric="rgb" if values.ndim == 3 else "minisblack", iccprofile=icc)
        return buffer.getvalue()
    data = imagecodecs.png_encode(values)
    return data[:33] + png_chunk(b"iCCP", b"p\0\0" + zlib.compress(icc)) + data[33:]


def raw(path: Path) -> tuple[np.ndarray, bytes | None]:
    """Values and profile of a result, without the reader that is tested."""
    with Image.open(path) as image:
        icc = image.info.get("icc_profile")
    values = tifffile.imread(path) if path.suffix == ".tif" else imagecodecs.png_decode(path.read_bytes())
    return values, icc


def round_trip(data: bytes, suffix: str, folder: Path) -> tuple[Photo, np.ndarray, bytes | None]:
    """Read, colour and write -> the photo, and what lies in the result."""
    source, target = folder / f"source{suffix}", folder / f"result{'.tif' if suffix == '.tif' else '.png'}"
    source.write_bytes(data)
    photo = read_photo(source)
    write_photo(target, colored(photo), photo)
    return photo, *raw(target)


def row(kind: str, mode: str, depth: int, profile: str, result: np.ndarray, icc: bytes | None, suffix: str) -> str:
    alpha, letter = ("kept", "A") if result.shape[2] == 4 else ("none", "")
    kept = "kept" if icc else "none"
    target = "tif" if suffix == ".tif" else "png"
    bits = 8 * result.itemsize
    return f"| {kind} | {mode} | {depth} | {profile} | {target}, RGB{letter}, {bits} bit | {kept} | {alpha} |"


def check(case: tuple[str, str, int], folder: Path) -> str:
    """Read, colour and write; L of the result is that of the array that was written -> the row of the table."""
    suffix, mode, depth = case
    photo, result, icc = round_trip(CASES[case], suffix, folder)
    assert photo.values.shape[:2] == (HEIGHT, WIDTH) and photo.depth == depth == 8 * result.itemsize
    assert (photo.alpha is not None) == (mode in ("LA", "RGBA")) == (result.shape[2] == 4)
    assert photo.alpha is None or np.array_equal(photo.alpha, result[..., 3])
    written = WRITTEN[case]
    before, after = shown_luminance(written, None), shown_luminance(result[..., :3], icc)
    assert mode == "1" or np.ptp(result[..., :3].astype(int), axis=2).mean() > 0.05 * 2**depth, "it has colours"
    worst, lossy = error_in_steps(before, after, depth, icc).max(), suffix == ".jpg"
    assert worst <= (8 if lossy else 1), f"L differs by {worst} steps"
    return row(suffix[1:], mode, depth, "none", result, icc, suffix)


def check_layout(name: str, folder: Path) -> str:
    channels, change, options = LAYOUTS[name]
    values, buffer = gradient(channels, 65535), io.BytesIO()
    values = values[..., 0] if channels == 1 else values
    tifffile.imwrite(buffer, change(values), **options)
    photo, result, icc = round_trip(buffer.getvalue(), ".tif", folder)
    assert photo.depth == 16 and (photo.alpha is not None) == (name in ("grey and alpha", "premultiplied"))
    before, after = shown_luminance(values, None), shown_luminance(result[..., :3], icc)
    worst = error_in_steps(before, after, 16, icc).max()
    assert worst <= {"float 16": 32, "12 of 16 bits": 24, "premultiplied": 3}.get(name, 2), (
        f"L differs by {worst} steps"
    )
    written = change(values).dtype
    return row("tif", name, 8 * written.itemsize, "none", result, icc, ".tif")


def check_profile(name: str, suffix: str, depth: int, folder: Path) -> str:
    gray, peak = name in GRAY_PROFILES, 2**depth - 1
    profile, values = (RGB_PROFILES | GRAY_PROFILES)[name], gradient(1 if gray else 3, peak)
    values = values[..., 0] if gray else values
    photo, result, icc = round_trip(profiled_bytes(suffix, values, profile), suffix, folder)
    assert icc == (None if gray else profile) and photo.notes == []
    before, after = shown_luminance(values, profile), shown_luminance(result, icc)
    worst = error_in_steps(before, after, depth, icc).max()
    assert worst <= 1, f"L differs by {worst} steps"
    return row(suffix[1:], "L" if gray else "RGB", depth, name, result, icc, suffix)


PROFILED = [
    (name, suffix, depth) for name in RGB_PROFILES | GRAY_PROFILES for suffix in (".png", ".tif") for depth in (8, 16)
]


@pytest.mark.parametrize("name", LAYOUTS)
def test_tiff_is_read_by_its_tags(name, tmp_path):
    assert check_layout(name, tmp_path) in TABLE.read_text(encoding="utf-8"), "write docs/formats.md again, see above"


@pytest.mark.parametrize("name, suffix, depth", PROFILED)
def test_shown_luminance_is_kept_through_profiles(name, suffix, depth, tmp_path):
    assert check_profile(name, suffix, depth, tmp_path) in TABLE.read_text(encoding="utf-8"), "write docs/formats.md"


@pytest.mark.parametrize("case", CASES, ids=lambda case: "-".join(map(str, case)))
def test_what_goes_in_comes_out(case, tmp_path):
    assert check(case, tmp_path) in TABLE.read_text(encoding="utf-8"), "write docs/formats.md again, see above"


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", [".jpg", ".png", ".tif"])
def test_orientation_is_applied_and_the_rest_of_exif_kept(orientation, suffix, tmp_path):
    exif = Image.Exif()
    exif[0x0112], exif[0x010E], exif[0x8298] = orientation, "a street", "the archive"
    path = tmp_path / f"a{suffix}"
    path.write_bytes(
        pillow_bytes({"jpg": "JPEG", "png": "PNG", "tif": "TIFF"}[suffix[1:]], "L", exif=exif, dpi=(600, 600))
    )
    photo = read_photo(path)
    assert photo.values.shape == ((HEIGHT, WIDTH) if orientation < 5 else (WIDTH, HEIGHT))
    for target in (tmp_path / "b.png", tmp_path / "b.tif", tmp_path / "b.jpg"):
        write_photo(target, colored(photo), photo)
        with Image.open(target) as image:
            kept = image.getexif()
            assert kept.get(0x0112, 1) == 1 and kept[0x010E] == "a street" and kept[0x8298] == "the archive"
            assert image.info["dpi"] == pytest.approx((600, 600), abs=0.1)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_deep_images_turn_as_pillow_turns_others(orientation, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = orientation
    shallow, deep = tmp_path / "a.png", tmp_path / "b.png"
    shallow.write_bytes(pillow_bytes("PNG", "RGB", exif=exif))
    data = deep_bytes(".png", 3)
    chunk = exif.tobytes().removeprefix(b"Exif\0\0")
    deep.write_bytes(data[:33] + png_chunk(b"eXIf", chunk) + data[33:])
    one, two = read_photo(shallow).values.astype(int), read_photo(deep).values.astype(int)
    assert one.shape == two.shape and np.abs(one * 257 - two).max() <= 257


@pytest.mark.parametrize("target", ["b.png", "b.tif"])
def test_16_bit_results_keep_profile_resolution_and_description(target, tmp_path):
    exif = Image.Exif()
    exif[0x010E] = "a street"
    source = Photo(gradient(1, 65535)[..., 0], None, exif.tobytes(), SRGB, (1200, 1200))
    write_photo(tmp_path / target, colored(source), source)
    again = read_photo(tmp_path / target)
    assert again.depth == 16 and again.icc == SRGB and again.dpi == pytest.approx((1200, 1200), abs=0.1)
    with Image.open(tmp_path / target) as image:
        assert image.getexif()[0x010E] == "a street"


def test_a_profile_of_grey_is_left_out(tmp_path):
    grey = SRGB[:16] + b"GRAY" + SRGB[20:]
    (tmp_path / "a.png").write_bytes(pillow_bytes("PNG", "L", icc_profile=grey))
    assert read_photo(tmp_path / "a.png").icc is None
    (tmp_path / "a.png").write_bytes(pillow_bytes("PNG", "RGB", icc_profile=SRGB))
    assert read_photo(tmp_path / "a.png").icc == SRGB


def test_of_several_pages_the_first(tmp_path):
    pages = [Image.new("L", (20, 10), level) for level in (60, 200)]
    pages[0].save(tmp_path / "a.tif", save_all=True, append_images=pages[1:])
    photo = read_photo(tmp_path / "a.tif")
    assert (photo.values == 60).all() and photo.notes == ["has 2 pages; the first is colorized"]


def test_toned_prints_become_luminance(tmp_path):
    """Sepia over a ramp: L is that of the ramp's colours, and the brown is gone from the result."""
    sepia = (np.linspace(0, 1, 60)[None, :, None] * [255, 230, 180]).round().astype(np.uint8).repeat(20, 0)
    Image.fromarray(sepia).save(tmp_path / "a.png")
    photo = read_photo(tmp_path / "a.png")
    expected = rgb_to_luminance(torch.from_numpy(sepia).movedim(-1, 0) / 255)
    assert torch.allclose(photo.luminance(), expected, atol=1e-3)
    grey = next(transfer_chroma_strips(photo.luminance()[None], torch.full((1, 3, 4, 4), 0.5)))[1]
    assert (grey.amax(1) - grey.amin(1)).max() < 0.01


def test_heic_where_its_package_is_installed(tmp_path):
    pytest.importorskip("pillow_heif")
    assert ".heic" in IMAGE_SUFFIXES
    random_photo(0, 64, 48).save(tmp_path / "a.heic", quality=95)
    photo = read_photo(tmp_path / "a.heic")
    assert photo.values.shape == (48, 64, 3)
    assert np.abs(photo.values.astype(int) - np.asarray(random_photo(0, 64, 48))).mean() < 4


def test_jpeg_results_are_8_bit_without_alpha(tmp_path):
    source = Photo(gradient(3, 65535), gradient(1, 65535)[..., 0])
    write_photo(tmp_path / "b.jpg", colored(source), source)
    assert read_photo(tmp_path / "b.jpg").depth == 8 and read_photo(tmp_path / "b.jpg").alpha is None
    with pytest.raises(ValueError, match="b.gif: unknown image format; allowed: .png"):
        write_photo(tmp_path / "b.gif", colored(source), source)


def test_damaged_16_bit_files_are_reported(tmp_path):
    for suffix in (".png", ".tif"):
        data = deep_bytes(suffix, 3)
        (tmp_path / f"a{suffix}").write_bytes(data[: len(data) // 2])
        with pytest.raises(ImageError, match=f"a{suffix}"):
            read_photo(tmp_path / f"a{suffix}")


def described(order: str) -> bytes:
    """EXIF with text that is not ASCII, on its side, with the directories of camera and GPS; no "Exif" before it."""
    exif = Image.Exif()
    exif.endian = order
    exif[0x0112], exif[0x010E] = 6, "Z#rich"
    exif[0x8769] = {0x9003: "1932:01:01 00:00:00"}
    exif[0x8825] = {1: "N", 2: (47.0, 22.0, 1.5)}
    return exif.tobytes().removeprefix(b"Exif\0\0").replace(b"Z#rich", b"Z\xfcrich")


XMP_TEXT = b'<x:xmpmeta tiff:Orientation="%d">the archive</x:xmpmeta>'
IPTC_BYTES = b"\x1c\x02\x78\x00\x0bthe archive"


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("target", [".png", ".tif", ".jpg", ".webp"])
def test_metadata_is_kept_byte_for_byte_but_for_orientation(target, order, tmp_path):
    from lcad.io.metadata import jpeg_iptc

    source, result, again = tmp_path / "a.jpg", tmp_path / f"b{target}", tmp_path / "c.jpg"
    options = {
        "exif": b"Exif\0\0" + described(order),
        "xmp": XMP_TEXT % 6,
        "extra": jpeg_iptc(IPTC_BYTES),
        "dpi": (300, 600),
    }
    source.write_bytes(pillow_bytes("JPEG", "RGB", **options))
    photo = read_photo(source)
    assert photo.dpi == (600, 300), "it is turned"
    for path in (result, again):  # what a TIFF holds comes out of it again
        write_photo(path, colored(photo), photo)
        photo = read_photo(path)
        with Image.open(path) as image:
            exif = image.getexif()
            assert exif.get(0x0112, 1) == 1 and exif.get_ifd(0x8769)[0x9003] == "1932:01:01 00:00:00"
            assert exif.get_ifd(0x8825)[2] == (47.0, 22.0, 1.5)
        assert b"Z\xfcrich" in photo.exif and photo.xmp == XMP_TEXT % 1
        assert photo.iptc == (b"" if target == ".webp" else IPTC_BYTES)
    if target != ".tif":  # where it is taken apart and put together anew
        entry = {"<": b"\x12\x01\x03\0\x01\0\0\0%c\0", ">": b"\x01\x12\0\x03\0\0\0\x01\0%c"}[order]
        assert photo.exif == described(order).replace(entry % 6, entry % 1)


def test_what_a_format_cannot_hold_is_said(tmp_path):
    values = gradient(3, 255)
    photo = Photo(values, values[..., 0], described("<") + bytes(70_000), SRGB, xmp=b"x" * 70_000, iptc=IPTC_BYTES)
    assert [note.split()[1] for note in notes_on_writing(photo, ".jpg")] == ["EXIF", "XMP", "transparency"]
    assert len(notes_on_writing(photo, ".bmp")) == 5 and not notes_on_writing(photo, ".tif")
    assert "IPTC" in notes_on_writing(photo, ".webp")[0]
    write_photo(tmp_path / "a.jpg", values, photo)
    assert read_photo(tmp_path / "a.jpg").exif == b""
    with pytest.raises(OSError, match="16,384 pixels on a side, a .webp file holds 16,383"):
        write_photo(tmp_path / "a.webp", np.zeros((1, 16384, 3), np.uint8), Photo(values))


def test_the_full_page_is_taken_and_its_size_known_from_the_header(tmp_path):
    values = gradient(3, 65535)
    with tifffile.TiffWriter(tmp_path / "a.tif") as writer:
        writer.write(values[::8, ::8] // 256 * 0, photometric="rgb", subfiletype=1)
        writer.write(values, photometric="rgb")
    assert np.array_equal(read_photo(tmp_path / "a.tif").values, values)
    assert read_size(tmp_path / "a.tif") == (WIDTH, HEIGHT)


@pytest.mark.parametrize("options, reason", [
    ({"photometric": "cfa"}, "photometric interpretation CFA"), ({"volumetric": True, "tile": (16, 16, 16)}, "volumes"),
    ({"data": np.zeros((9, 9), np.complex64)}, "64 bit samples"), ({"data": np.full((9, 9), np.nan)}, "no finite"),
])  # fmt: skip
def test_a_tiff_is_refused_for_its_true_reason(options, reason, tmp_path):
    data = np.zeros((16, 16, 16) if "volumetric" in options else (16, 16), np.uint16)
    options = {"data": data, "photometric": "minisblack"} | options
    tifffile.imwrite(tmp_path / "a.tif", **options)
    with pytest.raises(ImageError, match=reason):
        read_photo(tmp_path / "a.tif")


def test_highlights_above_white_do_not_darken_a_photo(tmp_path):
    values = (gradient(1, 65535)[..., 0] / 65535).astype(np.float32)
    values[0, :3] = np.inf, 40.0, np.nan
    tifffile.imwrite(tmp_path / "a.tif", values)
    photo = read_photo(tmp_path / "a.tif")
    assert np.abs(photo.values[1:] / 65535 - values[1:]).max() < 1e-5 and photo.values[0, :3].tolist() == [
        65535,
        65535,
        0,
    ]
    assert "1 is taken for white" in photo.notes[0]


def test_a_damaged_profile_is_ignored_with_a_note(tmp_path):
    values = gradient(3, 255)
    for damaged in (SRGB[:200], b"x" * 300, SRGB[:16] + b"CMYK" + SRGB[20:], SRGB[:200] + b"\xff" * (len(SRGB) - 200)):
        (tmp_path / "a.png").write_bytes(profiled_bytes(".png", values, damaged))
        photo = read_photo(tmp_path / "a.png")
        assert photo.icc is None and np.array_equal(photo.values, values) and "profile" in photo.notes[0]


@pytest.mark.parametrize("depth", [8, 16])
def test_photos_in_profiles_that_results_do_not_fit_become_srgb(depth, tmp_path):
    values = gradient(3, 2**depth - 1)
    photo, result, icc = round_trip(profiled_bytes(".tif", values, NARROW), ".tif", tmp_path)
    assert icc is None and photo.depth == depth == 8 * result.itemsize and "the result is sRGB" in photo.notes[0]
    before, after = shown_luminance(values, NARROW), shown_luminance(result, None)
    assert np.abs(before - after).max() < (0.6 if depth == 8 else 0.01)


@pytest.mark.parametrize("gamma, icc", [(1.0, "Gray linear"), (1 / 1.8, "Gray 1.8"), (0.45455, None)])
def test_the_gamma_of_a_png_is_used(gamma, icc, tmp_path):
    values = gradient(1, 65535)[..., 0]
    data = imagecodecs.png_encode(values)
    chunk = png_chunk(b"gAMA", round(gamma * 100_000).to_bytes(4, "big"))
    photo, result, kept = round_trip(data[:33] + chunk + data[33:], ".png", tmp_path)
    before = shown_luminance(values, icc and GRAY_PROFILES[icc])
    assert kept is None and np.abs(shown_luminance(result, None) - before).max() < 0.003


def test_long_texts_do_not_damage_a_png(tmp_path):
    data = pillow_bytes("PNG", "L")
    text = png_chunk(b"zTXt", b"Comment\0\0" + zlib.compress(b"x" * 3_000_000))
    (tmp_path / "a.png").write_bytes(data[:33] + text + data[33:])
    assert np.array_equal(read_photo(tmp_path / "a.png").values, pillow_array("L"))


def test_jpeg_2000_of_16_bit_is_not_cut(tmp_path):
    values = gradient(3, 65535)
    (tmp_path / "a.jp2").write_bytes(imagecodecs.jpeg2k_encode(values, level=0, reversible=True, codecformat="JP2"))
    assert np.array_equal(read_photo(tmp_path / "a.jp2").values, values)


PAGE = """# Formats

What `scripts/sample.py` reads, and what it writes for it unless `--format` says otherwise. Written and checked by
`tests/test_photo_files.py`. L of the result, as LittleCMS shows it, is that of the array that was written into the
source, to within one quantisation step, in 8 and in 16 bit. L is that of CIE Lab under D65.

| format | mode | bits | profile | result | profile | alpha |
|---|---|---|---|---|---|---|
{rows}

**Colours.** Values are read through the photo's profile. A result keeps an RGB profile and its values are in it; photos
with a grey profile, CMYK, CIE Lab, and profiles of tables or of fewer colours than sRGB give sRGB without a profile.
So do a PNG's gAMA and cHRM, and code points (cICP of a PNG, nclx of an AVIF or HEIC): HDR (PQ, HLG) and the ranges
of video are refused with that reason. A damaged profile is ignored, with a note. Without a profile EXIF may say that a
photo is Adobe RGB (R03, or 2), and the result is tagged so; where EXIF says only that it is not sRGB, a note says that
it is taken for sRGB.

**Beside the pixels.** EXIF (its bytes; orientation is applied and set to 1), XMP, IPTC and the resolution are kept in
PNG, TIFF, JPEG and WebP (which has no place for IPTC); the texts of a PNG and the comments of JPEG, GIF, JPEG 2000,
PNM and TGA in PNG and JPEG. What a format cannot hold is named in a note.

**Samples.** Signed integers go by the range of their type. Of floating point 1 is white (255 or 65535 where one pixel
in a hundred is far above 1), and a note says so. TIFF (MaxSampleValue) and JPEG 2000 may name fewer bits than their
samples have, as scans of 12 bits do; a note tells of 16 bit values that hardly reach above black and do not say so.
Extra channels that are not transparency, such as infrared, are left out with a note. Of several pages the first that is
not a reduced copy is colorized. Raw camera data, volumes, complex numbers and inks other than CMYK are refused with
that reason.

JPEG (`--format jpg`) cannot keep L exactly, nor alpha. GIF, TGA, PGM, JPEG 2000 and AVIF are read, too, and HEIC where
`pillow-heif` is installed (`pip install -e ".[heic]"`), AVIF and HEIC with 8 bits; their results are PNG.
"""


def write_table() -> None:
    import tempfile

    from tests.test_photo_colors import CODED, TABLES, check_adobe, check_coded, check_table

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        rows = [check(case, folder) for case in CASES] + [check_layout(layout, folder) for layout in LAYOUTS]
        rows += [check_profile(*case, folder) for case in PROFILED]
        rows += [check_coded(*case, depth, folder) for case in CODED for depth in (8, 16)]
        rows += [check_adobe(suffix, folder) for suffix in (".jpg", ".png", ".tif")]
        rows += [check_table(name, folder) for name in TABLES]
    TABLE.write_text(PAGE.format(rows="\n".join(rows)), encoding="utf-8")


if __name__ == "__main__":
    write_table()


@pytest.mark.parametrize("channels", [1, 3])
def test_jpeg_2000_says_how_many_bits_it_has(tmp_path, channels):
    values = gradient(channels, 4095).squeeze()
    data = imagecodecs.jpeg2k_encode(values, level=0, reversible=True, bitspersample=12)
    (tmp_path / "a.jp2").write_bytes(data)
    photo = read_photo(tmp_path / "a.jp2")
    assert photo.depth == 16 and not photo.notes
    assert np.array_equal(photo.values, np.round(values / 4095 * 65535).astype(np.uint16))


@pytest.mark.parametrize("suffix", [".tif", ".png"])
def test_a_scan_of_fewer_bits_that_does_not_say_so_is_told_of(tmp_path, suffix):
    """Its values may be what they seem: a picture that is all but black."""
    for peak, told in ((4095, 1), (5000, 0), (65535, 0)):
        values, file = gradient(1, peak)[..., 0], tmp_path / f"{peak}{suffix}"
        if suffix == ".tif":
            tifffile.imwrite(file, values, photometric="minisblack")
        else:
            file.write_bytes(imagecodecs.png_encode(values))
        photo = read_photo(file)
        assert np.array_equal(photo.values, values)
        assert [f"no value above {peak} of 65535" in note for note in photo.notes] == [True] * told


@pytest.mark.parametrize("tag, value", [(257, 0), (262, 2), (262, 5)])
def test_a_tiff_whose_tags_do_not_fit_its_samples_is_damaged(tmp_path, tag, value):
    """No rows; one channel that is called RGB, or CMYK."""
    tifffile.imwrite(tmp_path / "a.tif", gradient(1, 65535)[..., 0], photometric="minisblack")
    with tifffile.TiffFile(tmp_path / "a.tif", mode="r+b") as file:
        file.pages.first.tags[tag].overwrite(value)
    with pytest.raises(ImageError, match="damaged"):
        read_photo(tmp_path / "a.tif")
