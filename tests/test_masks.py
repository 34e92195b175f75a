"""Masks from files."""

import unicodedata

import numpy as np
import pytest
import torch
from PIL import Image

from lcad.masks.files import MaskError, read_masks, read_spans, save_masks, save_spans


def left(width: int = 6, height: int = 4) -> np.ndarray:
    mask = np.zeros((height, width), bool)
    mask[:, : width // 2] = True
    return mask


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "cup").mkdir()
    return tmp_path


def read(folder, phrases=3):
    return read_masks(folder, folder / "cup.jpg", (4, 6), phrases)


def test_numbers_before_the_underscore_are_phrases(folder):
    np.save(folder / "cup" / "2_blue.npy", left())
    Image.fromarray(left().astype(np.uint8) * 255).save(folder / "cup" / "0_red.png")
    masks = read(folder)
    assert masks.shape == (3, 4, 6) and masks[[0, 2]].sum() == 24 and not masks[1].any()


def test_names_of_the_release_are_taken_in_order(folder):
    for number, value in ((0, left()), (2, ~left()), (10, left())):
        np.save(folder / "cup" / f"1_{number}.npy", value)
    masks = read(folder)
    assert torch.equal(masks[1], 1 - masks[0]) and torch.equal(masks[2], masks[0])


def test_absent_masks_are_none(folder):
    assert read(folder) is None
    assert read_masks(folder, folder / "hat.jpg", (4, 6), 3) is None


@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_masks_are_found_in_any_composition_of_the_name(form, tmp_path):
    other = {"NFC": "NFD", "NFD": "NFC"}[form]
    (tmp_path / unicodedata.normalize(form, "Z\u00fcrich")).mkdir()
    Image.fromarray(left()).save(tmp_path / unicodedata.normalize(form, "Z\u00fcrich") / "0_tram.png")
    photo = tmp_path / unicodedata.normalize(other, "Z\u00fcrich.jpg")
    save_spans(tmp_path, unicodedata.normalize(form, "Z\u00fcrich"), "a red tram", [(2, 10)])
    assert read_masks(tmp_path, photo, (4, 6), 1).sum() == 12
    assert read_spans(tmp_path, photo, "a red tram") == [(2, 10)]


@pytest.mark.parametrize("name", ["...png", "..png"])
def test_a_photo_of_dots_does_not_lead_out_of_the_folder(name, tmp_path):
    folder = tmp_path / "masks" / "here"
    folder.mkdir(parents=True)
    for place in (folder, folder.parent):  # of another photo: no mask of this one
        Image.fromarray(left()).save(place / "0_cup.png")
        (place / "phrases.json").write_text('{"caption": "a cup", "phrases": [[0, 5]]}')
    photo = tmp_path / name
    assert read_masks(folder, photo, (4, 6), 1) is None and read_spans(folder, photo, "a cup") is None
    save_masks(folder, name, torch.ones(1, 4, 6), ["cup"])
    assert read_masks(folder, photo, (4, 6), 1).sum() == 24


@pytest.mark.parametrize(
    "name, content, reason",
    [
        ("0_x.npy", np.ones((4, 7)), "7x4, but the photo is 6x4"),
        ("0_x.npy", np.zeros((4, 6)), "empty"),
        ("0_x.npy", np.full((4, 6), np.nan), "empty"),
        ("0_x.npy", np.array(["a"]), "expected bool or numbers"),
        ("0_x.npy", b"", "not an array"),
        ("0_x.png", b"", "0 bytes"),
        ("3_x.npy", np.ones((4, 6)), "phrases 0 to 2"),
        ("x.npy", np.ones((4, 6)), "<i>_<anything>"),
    ],
)
def test_bad_masks_are_one_line(folder, name, content, reason):
    path = folder / "cup" / name
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        np.save(path, content)
    with pytest.raises(MaskError, match=reason) as error:
        read(folder)
    assert "\n" not in str(error.value)


def test_pickled_arrays_are_refused(folder):
    np.save(folder / "cup" / "0_x.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(MaskError, match="not an array"):
        read(folder)


def test_saved_masks_are_read_again(folder):
    masks = torch.stack([torch.from_numpy(left()).float(), 1 - torch.from_numpy(left()).float()])
    save_masks(folder, "cup", masks, ["the red/cup", "../x"])
    assert torch.equal(read(folder, 2), masks)


def drawn(kind: str) -> tuple[Image.Image, str]:
    """The left half as programs draw it, and a suffix."""
    mask = left(64, 48)
    levels = Image.fromarray(mask.astype(np.uint8) * 255)
    black = Image.new("RGB", (64, 48))
    if kind in ("RGBA", "LA"):
        image = black.convert(kind)
        image.putalpha(levels)
    elif kind == "palette":
        image = Image.fromarray(mask.astype(np.uint8))
        image.putpalette([0, 0, 0, 0, 0, 90])
    elif kind == "dark color":
        image = Image.composite(Image.new("RGB", (64, 48), (90, 0, 40)), black, levels)
    elif kind == "label 2":
        image = Image.fromarray(mask.astype(np.uint8) * 2)
    elif kind == "label 2, 16 bit":
        image = Image.fromarray(mask.astype(np.uint16) * 2)
    elif kind == "16 bit":
        image = Image.fromarray(mask.astype(np.uint16) * 65535)
    else:
        return levels, kind
    return image, ".png"


@pytest.mark.parametrize("kind", ["RGBA", "LA", "palette", "dark color", "label 2", "label 2, 16 bit", "16 bit", ".jpg",
                                  ".tif", ".webp", ".bmp"])  # fmt: skip
def test_masks_are_what_they_show(kind, folder):
    image, suffix = drawn(kind)
    image.save(folder / "cup" / f"0_x{suffix}")
    mask = read_masks(folder, folder / "cup.jpg", (48, 64), 1)[0]
    assert torch.equal(mask, torch.from_numpy(left(64, 48)).float())


def test_soft_masks_stay_soft(folder):
    soft = torch.linspace(0, 0.8, 24).reshape(1, 4, 6)
    save_masks(folder, "cup", soft, ["cup"])
    assert (read(folder, 1) - soft).abs().max() < 1 / 255


def test_masks_that_cannot_be_read_are_named(folder):
    np.savez(folder / "cup" / "0_x.npz", left())
    with pytest.raises(MaskError, match="0_x.npz: is named as a mask"):
        read(folder)
    (folder / "cup" / "0_x.npz").unlink()
    Image.fromarray(np.dstack([np.full((4, 6), 200, np.uint8), left() * np.uint8(90), left() * np.uint8(0)])).save(
        folder / "cup" / "0_x.png"
    )
    with pytest.raises(MaskError, match="needs a black background"):
        read(folder)
