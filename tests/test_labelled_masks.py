"""Masks from labelled objects: COCO's polygons and label maps."""

import json
import unicodedata
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from lcad.io.prepared_photo import PreparedPhoto
from lcad.masks.files import MaskError
from lcad.masks.labelled import build_label_finder, coco_labels, map_labels
from tests.conftest import random_photo

LEFT, RIGHT = ([[x, 0, x + 20, 0, x + 20, 40, x, 40]] for x in (0, 28))
PHOTO = Path("p.png")


@pytest.fixture
def finder(tmp_path, tiny_pipeline):
    items = [{"segmentation": place, "category_id": 1, "iscrowd": 0} for place in (LEFT, RIGHT)]
    file = tmp_path / "instances.json"
    file.write_text(json.dumps({"categories": {"1": "cup"}, "instances": {"p.png": items}}))
    return build_label_finder(tiny_pipeline, coco_labels(file))


def test_a_word_alone_gets_all_its_objects(finder):
    found = finder(PHOTO, PreparedPhoto.of(random_photo(0)), "two red cups and a blue hat")
    assert [phrase.text for phrase in found.instances.phrases] == ["red cups"]
    assert found.instances.masks[0].mean().item() == pytest.approx(40 / 48, abs=0.03)
    assert found.notes == ["no labelled object for 'blue hat'"]


def test_phrases_of_one_word_share_the_objects(finder):
    found = finder(PHOTO, PreparedPhoto.of(random_photo(0)), "the blue cup on the right, the red cup on the left")
    assert [phrase.text for phrase in found.instances.phrases] == ["blue cup", "red cup"]
    right, left = found.instances.masks
    assert torch.nonzero(right)[:, 1].min() > torch.nonzero(left)[:, 1].max()


def test_a_photo_without_labels(finder):
    assert finder(Path("other.png"), PreparedPhoto.of(random_photo(0)), "a red cup") is None


def test_what_a_caption_says_and_is_not_understood_is_noted(finder):
    found = finder(PHOTO, PreparedPhoto.of(random_photo(0)), "two red cups and a car that is not blue")
    assert [phrase.text for phrase in found.instances.phrases] == ["red cups"]
    assert any("not blue" in note and "passed over" in note for note in found.notes)


@pytest.mark.parametrize("kind", ["coco", "maps"])
def test_labels_are_found_in_any_composition_of_the_name(kind, tmp_path):
    forms = [unicodedata.normalize(form, "Z\u00fcrich.png") for form in ("NFC", "NFD")]
    for here, there in (forms, forms[::-1]):
        if kind == "coco":
            items = [{"segmentation": LEFT, "category_id": 1, "iscrowd": 0}]
            (tmp_path / "i.json").write_text(json.dumps({"categories": {"1": "cup"}, "instances": {here: items}}))
            labels = coco_labels(tmp_path / "i.json")
        else:
            folder = tmp_path / here
            folder.mkdir()
            Image.fromarray(np.ones((40, 48), np.uint8)).save(folder / here)
            (tmp_path / "names.txt").write_text("1 cup\n")
            labels = map_labels(folder, tmp_path / "names.txt")
        assert [name for name, _ in labels(Path(there), (40, 48))] == ["cup"]


def test_label_maps(tmp_path, tiny_pipeline):
    classes = tmp_path / "classes.txt"
    classes.write_text("1 sky\n2 grass, lawn\n")
    ids = np.ones((40, 48), np.uint8)
    ids[20:] = 2
    Image.fromarray(ids).save(tmp_path / "p.png")
    find = build_label_finder(tiny_pipeline, map_labels(tmp_path, classes))
    found = find(PHOTO, PreparedPhoto.of(random_photo(0)), "a green lawn under a blue sky")
    assert [phrase.object for phrase in found.instances.phrases] == ["lawn", "sky"]
    assert found.instances.masks[0, 20:].min() == 1 and found.instances.masks[1, :20].min() == 1
    with pytest.raises(MaskError, match="is 48x40, but the photo is 30x30"):
        find(PHOTO, random_photo(0, 30, 30), "green grass")
