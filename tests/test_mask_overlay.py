"""The picture of found masks, and what is said of phrases without one."""

import pytest
import torch
from PIL import Image, ImageDraw

from lcad.masks.from_text import FoundMasks, _reason
from lcad.masks.matching import Match
from lcad.masks.overlay import TEXT, mask_row, outlined
from lcad.masks.types import InstanceMasks
from lcad.text.phrases import Phrase
from tests.conftest import random_photo


def alike(number: int, photo: Image.Image) -> FoundMasks:
    """So many objects in the same place."""
    masks = torch.zeros(number, photo.height, photo.width)
    masks[:, photo.height // 2 :, photo.width // 2 :] = 1
    phrases = [Phrase(f"red cup {i}", (0, 3), (1, 2)) for i in range(number)]
    return FoundMasks(InstanceMasks(phrases, masks), [0.5] * number, phrases, list(torch.rand(number, 4, 4)))


def test_labels_do_not_lie_on_each_other(monkeypatch):
    places, draw = [], ImageDraw.ImageDraw.text
    monkeypatch.setattr(
        ImageDraw.ImageDraw, "text", lambda self, xy, *rest, **more: places.append(xy) or draw(self, xy, *rest, **more)
    )
    outlined(Image.new("L", (512, 400)), alike(4, Image.new("L", (512, 400))))
    tops = sorted(y for _, y in places)
    assert len(tops) == 4 and all(b - a >= TEXT for a, b in zip(tops, tops[1:], strict=False))
    assert all(0 <= x <= 512 and 0 <= y <= 400 for x, y in places)


@pytest.mark.parametrize("size", [(128, 96), (1, 700), (900, 3)])
def test_photos_of_any_size_are_shown_alike(size):
    photo = random_photo(0, *size) if min(size) > 8 else Image.new("RGB", size)
    row = mask_row(photo, "a caption", alike(40, photo))
    assert {max(picture.size) for _, picture in row.pictures} == {512} and len(row.pictures) == 41


def test_why_a_phrase_has_no_region():
    assert _reason(Match(None, 0.03), 7) == "best score 0.03 of 7 regions, below 0.1"
    assert _reason(Match(None, 0.3), 7) == "what fits it, score 0.30, has gone to another phrase"
