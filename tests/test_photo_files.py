"""Photographs in and out: every format, mode and depth keeps its L, alpha, depth and what is written beside the pixels.

`python -m tests.test_photo_files` writes the table in docs/formats.md, which a test compares with what it finds.
"""

import io
from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile
import torch
from PIL import Image, ImageCms

from lcad.color import rgb_to_luminance
from lcad.metadata import png_chunk
from lcad.photo_files import Photo, quantized, read_photo, write_photo
from lcad.upsampling import recolored_strips
from ldm.images import IMAGE_SUFFIXES, ImageError
from tests.conftest import random_photo

TABLE = Path(__file__).resolve().parents[1] / "docs" / "formats.md"
HEIGHT, WIDTH = 40, 56
SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def gradient(channels: int, peak: int) -> np.ndarray:
    """(H, W, channels): grey at slightly different levels, from black to white."""
    ramp = np.linspace(0, 1, HEIGHT * WIDTH).reshape(HEIGHT, WIDTH, 1)
    return (ramp ** np.linspace(1, 1.1, channels) * peak).round().astype(np.uint16 if peak > 255 else np.uint8)


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
    (f".{suffix}", mode, 8): pillow_bytes(kind, mode)
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


def colored(photo: Photo) -> np.ndarray:
    """The photo with strong colours on it, as the folder run makes it."""
    decoded = torch.rand(1, 3, 10, 14, generator=torch.Generator().manual_seed(0))
    parts = recolored_strips(photo.luminance()[None], decoded)
    return np.concatenate([quantized(rgb[0], photo.depth) for _, rgb in parts])


def luminance_errors(photo: Photo, result: Photo) -> torch.Tensor:
    """|L - L'| in quantisation steps: in what L of a grey changes from a level to the next."""
    before, after = photo.luminance(), result.luminance()
    levels = rgb_to_luminance(torch.linspace(0, 1, 2**photo.depth, dtype=torch.float64).expand(3, 1, -1))[0, 0]
    index = torch.searchsorted(levels, before.double().flatten()).clamp(1, len(levels) - 1)
    return (before - after).abs().flatten() / (levels[index] - levels[index - 1])


def check(case: tuple[str, str, int], folder: Path) -> str:
    """Read, colour, write and read again -> the row of the table."""
    suffix, mode, depth = case
    source = folder / f"source{suffix}"
    source.write_bytes(CASES[case])
    photo = read_photo(source)
    assert photo.values.shape[:2] == (HEIGHT, WIDTH) and photo.depth == depth
    assert (photo.alpha is not None) == (mode in ("LA", "RGBA"))
    target = folder / f"result{'.tif' if suffix == '.tif' else '.png'}"
    write_photo(target, colored(photo), photo)
    result = read_photo(target)
    assert result.depth == depth and result.values.shape == (HEIGHT, WIDTH, 3)
    assert photo.alpha is None or np.array_equal(photo.alpha, result.alpha)
    assert mode == "1" or np.ptp(result.values.astype(int), axis=2).mean() > 0.05 * 2**depth, "it has colours"
    worst = luminance_errors(photo, result).max().item()
    assert worst <= 1, f"L differs by {worst} steps"
    alpha, letter = ("kept", "A") if photo.alpha is not None else ("none", "")
    return f"| {suffix[1:]} | {mode} | {depth} | {target.suffix[1:]}, RGB{letter}, {depth} bit | {alpha} |"


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
    grey = next(recolored_strips(photo.luminance()[None], torch.full((1, 3, 4, 4), 0.5)))[1]
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


PAGE = """# Formats

What `scripts/sample.py` reads, and what it writes for it unless `--format` says otherwise. Written and checked by
`tests/test_photo_files.py`: L of the result is that of the photo to within one quantisation step, in 8 and in 16 bit.
EXIF (orientation applied), an RGB ICC profile and the resolution are kept.

| format | mode | bits | result | alpha |
|---|---|---|---|---|
{rows}

Of several pages the first is colorized, with a note. Floating point and 32 bit images are brought to 8 bit by their
peak. CMYK is converted through its profile, which is then left out, as are profiles of grey. JPEG (`--format jpg`)
cannot keep L exactly, nor alpha. HEIC is read where `pillow-heif` is installed (`pip install -e ".[heic]"`), its result
is a PNG.
"""


def write_table() -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        rows = [check(case, Path(folder)) for case in CASES]
    TABLE.write_text(PAGE.format(rows="\n".join(rows)), encoding="utf-8")


if __name__ == "__main__":
    write_table()
