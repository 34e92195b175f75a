"""Contact sheets of a model."""

from types import SimpleNamespace

import torch
from PIL import Image, ImageOps

from lcad.evaluation.showcase import EXACT, exact_color_rows, has_colors, swap_rows
from lcad.io.contact_sheet import MARGIN, contact_sheet
from lcad.io.images import to_tensor
from lcad.masks.types import InstanceMasks
from lcad.pipeline import LCADPipeline
from lcad.text.phrases import comma_phrases
from scripts import contact_sheets
from tests.conftest import random_photo


def test_contact_sheets(tiny_checkpoint, photo_folder, tmp_path):
    args = ["--model", str(tiny_checkpoint), "--input", str(photo_folder), "--output", str(tmp_path), "--steps", "1"]
    assert contact_sheets.main([*args, "--limit", "2", "--tile", "48"]) == 0
    for name, columns in (("captions", 4), ("swaps", 5), ("exact_colors", 6)):
        with Image.open(tmp_path / f"{name}.jpg") as sheet:
            assert sheet.width == columns * (48 + MARGIN) + MARGIN


def test_a_sheet_of_old_photographs(tiny_checkpoint, photo_folder, tmp_path, monkeypatch):
    """All photos are on it, in grey ones no column claims to be the truth, and one without a caption has no column."""
    for path in (photo_folder / "images").iterdir():
        with Image.open(path) as image:
            image.convert("L").save(path)
    rows = []
    seen = lambda made, tile: rows.extend(made) or contact_sheet(made)  # noqa: E731
    monkeypatch.setattr("lcad.io.contact_sheet.contact_sheet", seen)
    args = ["--model", str(tiny_checkpoint), "--input", str(photo_folder), "--output", str(tmp_path), "--steps", "1"]
    assert contact_sheets.main([*args, "--sheet", "old"]) == 0
    assert [path.name for path in tmp_path.glob("*.jpg")] == ["old.jpg"]
    scarce = ["grey", "a colorful image"]
    titles = [[title for title, _ in row.pictures] for row in rows]
    assert titles == [["grey", "caption", "a colorful image"]] * 7 + [scarce]
    assert rows[0].text == "the red cup 0, the blue cup" and rows[-1].text == "(no caption)"


def test_sepia_is_no_colour():
    grey = random_photo(3).convert("L")
    sepia = ImageOps.colorize(grey, (40, 20, 10), (250, 230, 200))
    assert [has_colors(photo) for photo in (grey, sepia, random_photo(3))] == [False, False, True]


def test_exact_colors_are_of_the_masked_object(tiny_checkpoint):
    """Photos without masks have no row; the colours asked for are those shown, and the look is of the caption's."""
    pipeline, photo = LCADPipeline.from_pretrained(tiny_checkpoint), random_photo(0)
    phrases = comma_phrases("the red cup, the plate", pipeline.tokenizer)
    left = torch.zeros(1, photo.height, photo.width)
    left[..., : photo.width // 2] = 1
    masks = [None, InstanceMasks(phrases[1:], left)]
    rows = exact_color_rows(pipeline, [photo, photo], ["a cup", "the red cup, the plate"], masks, num_inference_steps=1)
    titles, pictures = zip(*rows[0].pictures, strict=True)
    assert len(rows) == 1 and titles[2:5] == tuple(f"the plate={color}" for color in EXACT)
    plain, *exact, looked = (to_tensor(picture) for picture in pictures[1:])
    for picture in exact:  # beyond the mask's soft edge nothing is changed
        assert not torch.equal(picture[..., :10], plain[..., :10]) and torch.equal(picture[..., -10:], plain[..., -10:])
    assert not torch.equal(looked[..., -10:], plain[..., -10:])


def test_swapped_words_reach_the_model():
    photo = Image.new("RGB", (40, 40), "gray")
    asked = []

    class Listening:
        def __call__(self, image, caption, masks, **_):
            assert masks == "auto"
            asked.append(caption)
            return SimpleNamespace(images=[image])

    rows = swap_rows(Listening(), [photo, photo], ["a grey cup on a blue plate", "a cup"])
    assert asked == [f"a {word} cup on a blue plate" for word in ("red", "green", "blue", "yellow")]
    assert len(rows) == 1 and rows[0].text == "a ... cup on a blue plate"
