"""Images from strangers: modes, damage, and writing whole files or none."""

import numpy as np
import pytest
from PIL import Image

from ldm.images import ImageError, list_images, read_image, to_image, to_tensor, write_bytes
from tests.conftest import random_photo


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
    monkeypatch.setattr("ldm.images.MAX_PIXELS", 100)
    with pytest.raises(ImageError, match="at most 100"):
        read_image(tmp_path / "x.png")


def test_listing(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such file or folder"):
        list_images(tmp_path / "x")
    with pytest.raises(FileNotFoundError, match="no images"):
        list_images(tmp_path)
    for name in ("b.PNG", "a.jpg", "notes.txt"):
        (tmp_path / name).write_bytes(b"x")
    assert [p.name for p in list_images(tmp_path)] == ["a.jpg", "b.PNG"]


def test_tensor_round_trip():
    photo = random_photo(0)
    assert np.array_equal(np.asarray(to_image(to_tensor(photo))), np.asarray(photo))


def test_a_failed_write_leaves_nothing(tmp_path, monkeypatch):
    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr("os.replace", fail)
    with pytest.raises(OSError, match="disk full"):
        write_bytes(tmp_path / "x.png", b"data")
    assert not list(tmp_path.iterdir())
