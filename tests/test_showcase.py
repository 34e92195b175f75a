"""Contact sheets of a model."""

from types import SimpleNamespace

from PIL import Image

from lcad.contact_sheet import MARGIN
from lcad.showcase import swap_rows
from scripts import contact_sheets


def test_contact_sheets(tiny_checkpoint, photo_folder, tmp_path):
    args = ["--model", str(tiny_checkpoint), "--input", str(photo_folder), "--output", str(tmp_path), "--steps", "1"]
    assert contact_sheets.main([*args, "--limit", "2", "--tile", "48"]) == 0
    for name, columns in (("captions", 4), ("swaps", 5)):
        with Image.open(tmp_path / f"{name}.jpg") as sheet:
            assert sheet.width == columns * (48 + MARGIN) + MARGIN


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
