"""Images from strangers: modes, damage, and writing whole files or none."""

import io

import numpy as np
import pytest
import torch
from PIL import Image, ImageCms

from lcad.io.images import IMAGE_SUFFIXES, ImageError, list_images, read_image, to_image, to_tensor, write_bytes
from tests.conftest import random_photo
from tests.profiles import RGB_PROFILES


@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA", "P", "CMYK", "1", "I;16"])
def test_modes(tmp_path, mode):
    photo = random_photo(0)
    if mode == "I;16":
        image = Image.fromarray(np.asarray(photo.convert("L")).astype(np.uint16) * 257)
    else:
        image = photo.convert(mode)
    path = tmp_path / ("x.tif" if mode == "CMYK" else "x.png")
    image.save(path)
    read = read_image(path)
    assert read.mode == "RGB" and read.size == photo.size
    if mode in ("L", "I;16"):
        assert np.abs(np.asarray(read.convert("L"), int) - np.asarray(photo.convert("L"), int)).max() <= 1


def test_exif_orientation_is_applied(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    random_photo(0, 48, 40).save(tmp_path / "x.jpg", exif=exif)
    assert read_image(tmp_path / "x.jpg").size == (40, 48)


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "tif", "bmp"])
def test_damage_is_one_line(tmp_path, suffix):
    whole = tmp_path / f"whole.{suffix}"
    random_photo(0, 200, 200).save(whole)
    data = whole.read_bytes()
    for name, content in {"half": data[: len(data) // 2], "empty": b"", "text": b"hello", "head": data[:20]}.items():
        path = tmp_path / f"{name}.{suffix}"
        path.write_bytes(content)
        with pytest.raises(ImageError) as error:
            read_image(path)
        assert str(path) in str(error.value) and "\n" not in str(error.value)


def test_missing_and_too_large(tmp_path, monkeypatch):
    with pytest.raises(ImageError, match="no such image"):
        read_image(tmp_path / "x.png")
    random_photo(0).save(tmp_path / "x.png")
    monkeypatch.setattr("lcad.io.images.MAX_PIXELS", 100)
    with pytest.raises(ImageError, match="at most 100"):
        read_image(tmp_path / "x.png")


def test_listing(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such file or folder"):
        list_images(tmp_path / "x")
    with pytest.raises(FileNotFoundError, match="no images"):
        list_images(tmp_path)
    (tmp_path / "images").mkdir()
    with pytest.raises(FileNotFoundError, match="no images"):
        list_images(tmp_path)
    (tmp_path / "images" / "c.png").write_bytes(b"x")
    assert list_images(tmp_path) == [tmp_path / "images" / "c.png"]  # a data folder, see data/README.md
    for name in ("b.PNG", "a.jpg", "notes.txt"):
        (tmp_path / name).write_bytes(b"x")
    assert [p.name for p in list_images(tmp_path)] == ["a.jpg", "b.PNG"]


def test_tensor_round_trip():
    photo = random_photo(0)
    assert np.array_equal(np.asarray(to_image(to_tensor(photo))), np.asarray(photo))


def test_python_images_are_taken_as_a_viewer_shows_them(tmp_path):
    deep = Image.fromarray(np.full((4, 6), 40_000, np.uint16))
    assert torch.allclose(to_tensor(deep), torch.tensor(40_000 / 65535), atol=1 / 255), "not clipped to white"
    exif = Image.Exif()
    exif[0x0112] = 6
    random_photo(0, 48, 40).save(tmp_path / "x.jpg", exif=exif)
    with Image.open(tmp_path / "x.jpg") as image:
        assert torch.equal(to_tensor(image), to_tensor(read_image(tmp_path / "x.jpg")))
    wide = Image.fromarray(np.full((4, 6, 3), (200, 60, 60), np.uint8))
    wide.info["icc_profile"] = RGB_PROFILES["Display P3"]
    expected = ImageCms.profileToProfile(
        wide, ImageCms.ImageCmsProfile(io.BytesIO(RGB_PROFILES["Display P3"])), ImageCms.createProfile("sRGB")
    )
    wide.save(tmp_path / "x.png", icc_profile=RGB_PROFILES["Display P3"])
    for shown in (to_image(to_tensor(wide)), read_image(tmp_path / "x.png")):
        assert np.abs(np.asarray(shown, int) - np.asarray(expected, int)).max() <= 1


@pytest.mark.parametrize("suffix", [".jfif", ".jpe", ".gif", ".jp2", ".avif", ".pgm", ".tga"])
def test_less_usual_formats_are_listed_and_read(suffix, tmp_path):
    if suffix not in IMAGE_SUFFIXES:
        pytest.skip("not in this Pillow")
    photo = random_photo(0).convert("L")
    photo.save(tmp_path / f"x{suffix}")
    assert list_images(tmp_path) == [tmp_path / f"x{suffix}"]
    assert np.abs(np.asarray(read_image(tmp_path / f"x{suffix}").convert("L"), int) - np.asarray(photo)).mean() < 6


def test_a_failed_write_leaves_nothing(tmp_path, monkeypatch):
    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr("os.replace", fail)
    with pytest.raises(OSError, match="disk full"):
        write_bytes(tmp_path / "x.png", b"data")
    assert not list(tmp_path.iterdir())
