"""Found masks against labelled ones, with a finder whose masks are known, and through the script."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from lcad.evaluation.mask_scores import iou, score_masks
from lcad.masks.from_text import FoundMasks
from lcad.masks.labelled import coco_labels, same_object
from lcad.masks.types import InstanceMasks
from lcad.text.phrases import find_phrases
from scripts import measure_masks

LEFT_HALF = [[0, 0, 24, 0, 24, 40, 0, 40]]


@pytest.fixture
def instances(photo_folder):
    path = photo_folder / "instances.json"
    item = {"segmentation": LEFT_HALF, "category_id": 1, "iscrowd": 0}
    path.write_text(json.dumps({"categories": {"1": "cup"}, "instances": {"p0.png": [item], "p1.png": [item]}}))
    return path


def test_iou():
    a, b = torch.zeros(4, 4), torch.zeros(4, 4)
    a[:, :2] = 1
    b[:2] = 1
    assert iou(a, b) == pytest.approx(4 / 12) and iou(a, a) == 1 and iou(torch.zeros(4, 4), torch.zeros(4, 4)) == 0


def test_object_words_and_categories():
    assert same_object("Buses", "bus") and same_object("dog", "dog") and same_object("light", "traffic light")
    assert same_object("couches", "sofa, couch") and not same_object("cupboard", "cup")
    assert same_object("sofa", "sofa, ") and not same_object("sofa", "")


def test_scores_of_known_masks(photo_folder, instances, tiny_pipeline):
    captions = {"p0.png": ["a red cup and a blue hat"], "p1.png": ["a red cup"], "p2.png": ["a red cup"]}

    def find(path, photo, caption):
        phrases = find_phrases(caption, tiny_pipeline.tokenizer)
        mask = torch.zeros(1, photo.height, photo.width)
        mask[:, :, :12] = 1
        found = phrases[:1] if path.name == "p0.png" else []
        return FoundMasks(InstanceMasks(found, mask[: len(found)]), phrases=phrases)

    photos = sorted((photo_folder / "images").iterdir())
    rows = score_masks(find, photos, captions, coco_labels(instances))
    assert [(row["name"], row["phrase"], row["found"]) for row in rows] == [
        ("p0.png", "red cup", 1),
        ("p1.png", "red cup", 0),
    ]
    assert rows[0]["iou"] == pytest.approx(0.5, abs=0.02) and rows[1]["iou"] == 0
    assert rows[0]["whole"] == pytest.approx(0.5, abs=0.02)
    assert rows[0]["center"] == pytest.approx(0.125 / (0.5 + 0.25 - 0.125), abs=0.03)


def test_script(photo_folder, instances, tiny_checkpoint, tmp_path, capsys):
    given = ["--model", str(tiny_checkpoint), "--input", str(photo_folder), "--instances", str(instances)]
    assert measure_masks.main([*given, "--output", str(tmp_path / "rows.csv"), "--device", "cpu"]) == 0
    assert "4 phrases" in capsys.readouterr().out and (tmp_path / "rows.csv").is_file()
    (photo_folder / "captions.json").write_text('{"p0.png": ["nothing here"]}')
    assert measure_masks.main(given) == 2
    assert "nothing to measure" in capsys.readouterr().err


def test_script_with_label_maps(photo_folder, tiny_checkpoint, tmp_path, capsys):
    """The caption of the photo that has none is made of its label map; the first five photos are left out."""
    (tmp_path / "labels").mkdir()
    labels = np.ones((40, 48), np.uint8)
    labels[:, 24:] = 2
    for i in (0, 6, 7):  # "the red cup 6, the blue cup", and no caption
        Image.fromarray(labels).save(tmp_path / "labels" / f"p{i}.png")
    two_colors = np.where(labels[..., None] == 1, (40, 90, 220), (40, 140, 50)).astype(np.uint8)
    Image.fromarray(two_colors).save(photo_folder / "images" / "p7.png")
    (tmp_path / "names.txt").write_text("1 sofa, cup\n2 lawn\n")
    given = ["--model", str(tiny_checkpoint), "--input", str(photo_folder), "--instances", str(tmp_path / "labels")]
    given += ["--label-names", str(tmp_path / "names.txt"), "--output", str(tmp_path / "rows.csv"), "--device", "cpu"]
    assert measure_masks.main([*given, "--skip", "5"]) == 0
    rows = (tmp_path / "rows.csv").read_text().splitlines()[1:]
    assert [(row.split(",")[0], row.split(",")[1].split()[-1]) for row in rows] == [
        ("p6.png", "cup"),
        ("p6.png", "cup"),
        ("p7.png", "sofa"),
        ("p7.png", "lawn"),
    ]
    assert measure_masks.main([*given, "--skip", "8"]) == 2
    assert "nothing to measure" in capsys.readouterr().err
