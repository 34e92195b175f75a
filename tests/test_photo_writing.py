"""What lies in a written result, tag by tag and byte by byte, and the exact words and limits of what is left out."""

import io
from types import SimpleNamespace

import imagecodecs
import numpy as np
import pytest
import tifffile
import torch
from PIL import Image

from lcad.io.images import read_pixels
from lcad.io.metadata import png_chunk
from lcad.io.photos import FORMATS, LONGEST_SIDE, Photo, notes_on_writing, quantized, read_photo, write_photo
from tests.profiles import GRAY_PROFILES, RGB_PROFILES, SRGB, shown_luminance
from tests.test_photo_files import HEIGHT, IPTC_BYTES, WIDTH, described, gradient, pillow_bytes

MOST = 65_493  # bytes of EXIF, XMP or IPTC in a segment of a JPEG, beside what says which it is
PLAIN = {256, 257, 258, 259, 262, 273, 277, 278, 279, 282, 283, 284, 296, 317}
VALUES = gradient(3, 255)


def tags(path) -> dict[int, object]:
    with tifffile.TiffFile(path) as tiff:
        return {tag.code: tag.value for tag in tiff.pages.first.tags}


def test_a_tiff_has_the_tags_of_what_there_is_and_no_others(tmp_path):
    path, alpha = tmp_path / "a.tif", VALUES[..., 0]
    write_photo(path, VALUES, Photo(VALUES))
    assert tags(path).keys() == PLAIN and tags(path)[259] == 8, "deflated"
    for photo, more in (
        (Photo(VALUES, dpi=(72.0, 96.5)), {282: (72, 1), 283: (193, 2), 296: 2}),
        (Photo(VALUES, xmp=b"<x/>"), {700: b"<x/>"}),
        (Photo(VALUES, iptc=IPTC_BYTES), {33723: IPTC_BYTES}),
        (Photo(VALUES, icc=SRGB), {34675: SRGB}),
        (Photo(VALUES, alpha), {338: (2,)}),
    ):
        write_photo(path, VALUES, photo)
        found = tags(path)
        assert found.keys() == PLAIN | more.keys() and {code: found[code] for code in more} == more


@pytest.mark.parametrize("order", "<>")
def test_directories_of_a_tiff_lie_at_even_places(order, tmp_path):
    photo = Photo(VALUES, exif=described(order))
    for size in (1, 2):  # pixels in an odd and in an even number of bytes
        write_photo(tmp_path / "a.tif", VALUES[:size, :size], photo)
        with tifffile.TiffFile(tmp_path / "a.tif") as tiff:
            assert tiff.byteorder == order
            found = {tag.code: tag for tag in tiff.pages.first.tags}
            for code in (0x8769, 0x8825):
                data = (tmp_path / "a.tif").read_bytes()
                place = int.from_bytes(data[found[code].offset + 8 :][:4], "little" if order == "<" else "big")
                assert place % 2 == 0 and found[code].dtype == 4 and found[code].count == 1
        with Image.open(tmp_path / "a.tif") as image:
            assert image.getexif().get_ifd(0x8769)[0x9003] == "1932:01:01 00:00:00"
            assert image.getexif().get_ifd(0x8825)[2] == (47.0, 22.0, 1.5)


def test_chunks_of_a_png_are_those_of_what_there_is(tmp_path):
    def chunks(photo: Photo) -> list[tuple[bytes, bytes]]:
        write_photo(tmp_path / "a.png", VALUES, photo)
        data, place, found = (tmp_path / "a.png").read_bytes(), 8, []
        while place < len(data):
            size = int.from_bytes(data[place : place + 4], "big")
            found.append((data[place + 4 : place + 8], data[place + 8 : place + 8 + size]))
            place += 12 + size
        return [chunk for chunk in found if chunk[0] not in (b"IHDR", b"IDAT", b"IEND")]

    assert chunks(Photo(VALUES)) == []
    assert chunks(Photo(VALUES, dpi=(72.0, 96.0))) == [
        (b"pHYs", (2835).to_bytes(4, "big") + (3780).to_bytes(4, "big") + b"\1")
    ]
    assert chunks(Photo(VALUES, xmp=b"<x/>")) == [(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0<x/>")]
    exif = Photo(VALUES, exif=described("<"))
    assert chunks(exif) == [(b"eXIf", exif.exif)]
    ((name, content),) = chunks(Photo(VALUES, icc=SRGB))
    assert name == b"iCCP" and content.startswith(b"ICC profile\0\0")


@pytest.mark.parametrize("suffix", [".jpg", ".webp", ".bmp", ".JPEG"])
def test_other_formats_hold_what_there_is(suffix, tmp_path):
    path, nothing = tmp_path / f"a{suffix}", {"exif", "xmp", "icc_profile"}
    write_photo(path, VALUES, Photo(VALUES))
    with Image.open(path) as image:
        assert not nothing & image.info.keys() and image.info.get("dpi", (96, 96)) == pytest.approx((96, 96), abs=0.02)
        assert suffix in (".webp", ".bmp") or (image.layer[0][1:3] == (1, 1) and image.quantization[0][0] == 2)
        assert suffix.lower() in (".jpg", ".jpeg") or np.array_equal(np.asarray(image), VALUES)
    photo = Photo(VALUES, exif=described("<"), icc=SRGB, xmp=b"<x/>", dpi=(300, 600))
    write_photo(path, VALUES, photo)
    with Image.open(path) as image:
        kept = {name: image.info.get(name) for name in ("exif", "xmp", "icc_profile")}
        whole = {"exif": b"Exif\0\0" * (suffix != ".webp") + photo.exif, "xmp": b"<x/>", "icc_profile": SRGB}
        assert kept == (dict.fromkeys(whole) if suffix == ".bmp" else whole)
        assert suffix == ".webp" or image.info["dpi"] == pytest.approx((300, 600), abs=0.02)


@pytest.mark.parametrize("more", [0, 1])
def test_a_segment_of_a_jpeg_is_used_to_its_last_byte(more, tmp_path):
    exif = described("<")
    exif, xmp = exif + bytes(MOST + more - len(exif)), b"x" * (MOST + more)
    iptc = (IPTC_BYTES * (MOST // len(IPTC_BYTES) + 1))[: MOST + more]
    photo = Photo(VALUES, exif=exif, xmp=xmp, iptc=iptc)
    assert len(photo.exif) == MOST + more
    assert notes_on_writing(photo, ".jpg") == [
        f"its {name} of 65,494 bytes is not kept: a JPEG holds 65,493" for name in ("EXIF", "XMP", "IPTC") if more
    ]
    write_photo(tmp_path / "a.jpg", VALUES, photo)
    data = (tmp_path / "a.jpg").read_bytes()
    assert [part in data for part in (photo.exif, xmp, iptc)] == [not more] * 3
    with Image.open(tmp_path / "a.jpg") as image:
        image.load()
    write_photo(tmp_path / "a.webp", VALUES, photo)
    with Image.open(tmp_path / "a.webp") as image:
        assert (len(image.info["exif"]), image.info["xmp"]) == (MOST + more, xmp), "which has no such limit"


def test_what_each_format_leaves_out_is_said_in_full():
    photo = Photo(VALUES, VALUES[..., 0], described("<"), SRGB, xmp=b"<x/>", iptc=IPTC_BYTES)
    transparency = "its transparency is not kept: {} has no place for it"
    lost = [f"its {name} is not kept: .bmp has no place for it" for name in ("EXIF", "XMP", "IPTC")]
    lost += [transparency.format(".bmp"), "its colour profile is not kept: .bmp has no place for it"]
    assert {suffix: notes_on_writing(photo, suffix.upper()) for suffix in FORMATS} == {
        ".png": ["its IPTC is kept in a text of the PNG, where not all programs look for it"],
        ".tif": [], ".tiff": [], ".jpg": [transparency.format(".jpg")], ".jpeg": [transparency.format(".jpeg")],
        ".webp": ["its IPTC is not kept: .webp has no place for it"], ".bmp": lost,
    }  # fmt: skip
    assert all(notes_on_writing(Photo(VALUES), suffix) == [] for suffix in FORMATS)


def test_depths_of_the_formats_and_of_alpha(tmp_path):
    deep, shallow = gradient(3, 65535), gradient(1, 255)[..., 0]
    alpha = shallow.astype(np.uint16) * 257
    for suffix, bits in FORMATS.items():
        for given in (shallow, alpha):
            write_photo(tmp_path / f"a{suffix}", deep, Photo(deep, given))
            pixels = read_pixels(tmp_path / f"a{suffix}")
            assert 8 * pixels.values.itemsize == bits, suffix
            kept = {".png": alpha, ".tif": alpha, ".tiff": alpha, ".webp": shallow}.get(suffix)
            assert (pixels.alpha is None) == (kept is None) and (kept is None or np.array_equal(pixels.alpha, kept))


def test_a_bmp_holds_the_colours_of_a_profile_as_srgb(tmp_path):
    photo = Photo(VALUES, icc=RGB_PROFILES["Adobe RGB"])
    write_photo(tmp_path / "a.bmp", VALUES, photo)
    assert np.array_equal(read_pixels(tmp_path / "a.bmp").values, np.asarray(photo.shown(VALUES)))
    assert not np.array_equal(np.asarray(photo.shown(VALUES)), VALUES)
    assert np.array_equal(np.asarray(photo.preview()), np.asarray(photo.shown(VALUES)))
    assert np.array_equal(np.asarray(Photo(VALUES, np.zeros_like(VALUES[..., 0])).preview()), np.full_like(VALUES, 255))


def test_sides_are_limited_where_a_format_is(tmp_path):
    assert LONGEST_SIDE == {".jpg": 65_500, ".jpeg": 65_500, ".webp": 16_383}
    line = np.zeros((1, 16_383, 3), np.uint8)
    write_photo(tmp_path / "a.webp", line, Photo(line))
    with pytest.raises(OSError, match="65,501 pixels on a side, a .jpg file holds 65,500; choose png or tif"):
        write_photo(tmp_path / "a.jpg", np.zeros((65_501, 1, 3), np.uint8), Photo(line))


def test_quantized_values_are_rounded_and_clipped():
    rgb = torch.tensor([-0.1, 0.4999, 0.5001, 1.2]).reshape(1, 2, 2).expand(3, 2, 2)
    assert quantized(rgb, 8)[..., 0].tolist() == [[0, 127], [128, 255]] and quantized(rgb, 8).dtype == np.uint8
    assert quantized(rgb, 16)[..., 2].tolist() == [[0, 32761], [32774, 65535]]
    assert quantized(rgb, 16).dtype == np.uint16
    for bits in (8, 16):
        parts = [(slice(1, 2), rgb[:, 1:]), (slice(0, 1), rgb[:, :1])]
        values = Photo(VALUES, bits=bits).encoded_strips((2, 2), parts)
        assert values.dtype == quantized(rgb, bits).dtype and np.array_equal(values, quantized(rgb, bits))


@pytest.mark.parametrize(
    "per_metre, dpi",
    [
        ((39, 5000), None), ((5000, 39), None), ((40, 5000), (1.016, 127)), ((5000, 40), (127, 1.016)),
        ((5000, 39_370_078), (127, 999_999.9812)), ((5000, 39_370_079), None), ((39_370_079, 5000), None),
    ],
)  # fmt: skip
def test_resolutions_that_cannot_be_are_left_out(per_metre, dpi, tmp_path):
    data = pillow_bytes("PNG", "L")
    chunk = png_chunk(b"pHYs", b"".join(value.to_bytes(4, "big") for value in per_metre) + b"\1")
    (tmp_path / "a.png").write_bytes(data[:33] + chunk + data[33:])
    assert read_photo(tmp_path / "a.png").dpi == (dpi and pytest.approx(dpi))


@pytest.mark.parametrize(
    "resolution, unit, dpi", [((100, 200.5), "INCH", (100, 200.5)), ((100, 200), "CENTIMETER", (254, 508)),
                              ((100, 200), "NONE", None), ((1, 200), "INCH", None), ((200, 1e6), "INCH", None),
                              ((200, 1), "INCH", None), ((1e6, 200), "INCH", None)]
)  # fmt: skip
def test_the_resolution_of_a_tiff_has_a_unit(resolution, unit, dpi, tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", VALUES, photometric="rgb", resolution=resolution, resolutionunit=unit)
    assert read_photo(tmp_path / "a.tif").dpi == (dpi and pytest.approx(dpi))


def test_resolutions_of_a_tiff_that_are_no_numbers(tmp_path):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, VALUES, photometric="rgb", resolution=(100, 200), resolutionunit="INCH")
    whole = path.read_bytes()
    with tifffile.TiffFile(path) as tiff:
        found = {code: tiff.pages.first.tags[code] for code in (282, 283, 296)}
    for code in (282, 283):
        place = found[code].valueoffset + 4  # of the denominator
        path.write_bytes(whole[:place] + bytes(4) + whole[place + 4 :])
        assert read_photo(path).dpi is None and read_photo(path).notes == []
    for code, dpi in ((282, None), (283, None), (296, (100, 200))):  # without the tag; inches are what is meant
        place = found[code].offset
        path.write_bytes(whole[:place] + (65000 + code % 100).to_bytes(2, "little") + whole[place + 2 :])
        assert read_photo(path).dpi == dpi


def test_damaged_metadata_is_left_out_with_a_note(tmp_path, monkeypatch):
    (tmp_path / "a.png").write_bytes(pillow_bytes("PNG", "L", dpi=(300, 300)))

    def fail(_info: dict) -> None:
        raise RuntimeError("damaged")

    monkeypatch.setattr("lcad.io.photos.metadata_of_info", fail)
    photo = read_photo(tmp_path / "a.png")
    assert photo.notes == ["its metadata is damaged and is left out"] and (photo.dpi, photo.exif) == (None, b"")
    assert photo.values.shape == (HEIGHT, WIDTH)


def test_luminance_is_that_of_the_space_within_its_range():
    """L of linear grey y is 116 y^(1/3) - 16."""
    light = np.linspace(-0.5, 1.5, HEIGHT * WIDTH, dtype=np.float32).reshape(HEIGHT, WIDTH)
    space = SimpleNamespace(linear=lambda rows: light[rows[:, 0, 0]][..., None].repeat(3, -1))
    rows = np.arange(HEIGHT, dtype=np.uint8)[:, None, None].repeat(WIDTH, 1).repeat(3, 2)
    found = Photo(rows, space=space).luminance()[0].numpy()
    bright = light > 0.01
    assert np.allclose(found[bright], np.minimum(116 * np.cbrt(light[bright]) - 16, 100), atol=1e-3)
    assert (found[light <= 0] == 0).all() and found.max() == 100 and found.shape == (HEIGHT, WIDTH)


def test_a_profile_is_for_grey_or_for_colours():
    grey, icc = VALUES[..., 0], GRAY_PROFILES["Gray 1.8"]
    photo = Photo(grey, icc=icc)
    assert photo.icc is None and np.abs(photo.luminance()[0].numpy() - shown_luminance(grey, icc)).max() < 0.02
    with pytest.raises(ValueError, match="the colour profile is of GRAY, not of the photo's values"):
        Photo(VALUES, icc=icc)


def test_what_srgb_cannot_hold_is_clipped_before_a_wider_profile():
    photo = Photo(VALUES, icc=RGB_PROFILES["ProPhoto"])
    over = torch.tensor([-0.3, 1.4, 0.2]).reshape(3, 1, 1)
    assert np.array_equal(photo.encoded(over), photo.encoded(over.clamp(0, 1)))


def test_a_photo_is_as_deep_as_it_says():
    assert (Photo(VALUES).depth, Photo(gradient(3, 65535)).depth, Photo(VALUES, bits=16).depth) == (8, 16, 16)
    with pytest.raises(ValueError, match="the colour profile "):
        Photo(VALUES, icc=b"x" * 300)
    buffer = io.BytesIO(imagecodecs.png_encode(VALUES))
    assert np.array_equal(np.asarray(Image.open(buffer)), np.asarray(Photo(VALUES).preview()))
