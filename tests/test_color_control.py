"""Steering: main objects are found, and the measure gives the right answer on results whose colours are known."""

import csv
import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from lcad.color import lab_to_rgb, mean_color
from lcad.data.build.scenes import write_scenes
from lcad.evaluation.color_control import (
    SWAPPED,
    build_main_object_finder,
    main_objects,
    obeys,
    photo_color_control,
    scene_color_control,
)
from lcad.masks.coco import segmentation_mask
from lcad.masks.files import MaskError
from lcad.text.color_names import example_color
from ldm.text_encoder import build_tokenizer
from scripts import steer

SQUARE = [[10.0, 10.0, 50.0, 10.0, 50.0, 40.0, 10.0, 40.0]]


@pytest.fixture
def labelled_photos(tmp_path):
    photos = []
    for i in range(4):
        photos.append(tmp_path / f"p{i}.png")
        Image.new("RGB", (60, 50), "gray").save(photos[-1])
    instance = {"segmentation": SQUARE, "category_id": 6, "iscrowd": 0}
    content = {"categories": {"6": "bus"}, "instances": {photo.name: [instance] for photo in photos}}
    (tmp_path / "instances.json").write_text(json.dumps(content))
    captions = {
        "p0.png": ["a street", "a red double decker bus on the road"],
        "p1.png": ["a yellow and red bus"],
        "p2.png": ["a red car behind a bus"],
        "p3.png": ["two blue buses"],
    }
    return photos, captions, tmp_path / "instances.json"


def test_main_objects(labelled_photos):
    objects = main_objects(*labelled_photos, size=32)
    assert [item.photo.stem for item in objects] == ["p0", "p3"]
    assert objects[0].asking_for("green") == "a green double decker bus on the road"
    assert objects[0].mask.mean().item() == pytest.approx(40 * 30 / (60 * 50), abs=0.03)


class PaintingPipeline:
    """Stands in for the model: paints the whole photo in the colour word that `choose` finds in the caption."""

    def __init__(self, choose):
        self.choose = choose

    def __call__(self, images, captions, masks=None, **_):
        results = []
        for image, caption in zip(images, captions, strict=True):
            a, b = example_color(self.choose(caption), np.random.default_rng(0))
            lab = torch.tensor([55.0, a * 0.5, b * 0.5])[:, None, None].expand(3, image.height, image.width)
            results.append(lab_to_rgb(lab))
        return SimpleNamespace(images=results)


def test_photo_color_control_is_all_or_nothing(labelled_photos):
    objects = main_objects(*labelled_photos, size=32)
    obedient = PaintingPipeline(lambda caption: next(word for word in SWAPPED if word in caption))
    rows, pictures = photo_color_control(obedient, objects)
    assert len(rows) == 8 and all(row["adherent"] for row in rows) and len(pictures[0]) == 4
    assert all(row["spill"] > 10 for row in rows), "the whole photo is painted, what is around the object too"
    contrary = dict(zip(SWAPPED, ("green", "blue", "yellow", "red"), strict=True))
    rows, _ = photo_color_control(PaintingPipeline(lambda c: contrary[next(w for w in SWAPPED if w in c)]), objects)
    assert not any(row["adherent"] for row in rows)
    rows, _ = photo_color_control(PaintingPipeline(lambda _: "blue"), objects)
    assert [row["adherent"] for row in rows] == [0, 0, 1, 0] * 2 and all(row["spill"] < 1e-3 for row in rows)


def test_what_a_person_calls_as_asked():
    """Within 40 degrees of the middle of red (29), and with a chroma of at least 12."""
    for hue, chroma, wanted in ((29, 12.1, True), (29, 11.9, False), (68, 30, True), (70, 30, False), (350, 30, True)):
        radians = np.radians(hue)
        assert obeys("red", chroma * np.cos(radians), chroma * np.sin(radians)) == wanted, (hue, chroma)
    assert not any(obeys(word, 0.1, 0.2) for word in SWAPPED), "four browns that hardly differ obey nobody"


def test_the_model_gets_masks_for_the_phrase_that_is_swapped(labelled_photos):
    objects = main_objects(*labelled_photos, size=32)
    given = []

    class Listening(PaintingPipeline):
        def __call__(self, images, captions, masks=None, **options):
            given.extend(zip(captions, masks, strict=True))
            return super().__call__(images, captions)

    photo_color_control(Listening(lambda _: "red"), objects, build_main_object_finder(objects, build_tokenizer()))
    for caption, mask in given:
        (phrase,) = mask.phrases
        assert any(phrase.text.startswith(word) for word in SWAPPED) and "bus" in phrase.text and phrase.text in caption
        assert any(torch.equal(mask.masks[0], item.mask) for item in objects)


def test_scene_color_control(tmp_path):
    list(write_scenes(tmp_path, 12, seed=3, size=32))
    scenes = json.loads((tmp_path / "scenes.json").read_text())
    first = PaintingPipeline(lambda caption: caption.split()[1])  # "the <color> ...": all as the first object
    rows, pictures = scene_color_control(first, tmp_path, number=5)
    several = [scene["objects"] for scene in scenes.values() if len(scene["objects"]) > 1][:5]
    assert len(pictures) == 5 and len(rows) == sum(map(len, several))
    assert {row["asked"] for row in rows} == {item["color"] for objects in several for item in objects}
    assert all(row["adherent"] == (row["asked"] == row["obtained"]) for row in rows)


def test_mean_color_looks_inside_the_mask():
    lab = torch.zeros(3, 8, 8)
    lab[0] = 50
    lab[1, :, 4:] = 30
    mask = torch.zeros(8, 8)
    mask[:, 4:] = 1
    assert mean_color(lab_to_rgb(lab), mask) == pytest.approx([50, 30, 0], abs=0.1)


def test_segmentations_in_coco_formats():
    polygon = segmentation_mask(SQUARE, (50, 60))
    assert polygon.sum().item() == pytest.approx(1200, rel=0.05) and polygon[20, 30] == 1 and polygon[5, 5] == 0
    counts = {"size": [2, 3], "counts": [1, 2, 3]}  # down the columns: one 0, two 1, three 0
    assert segmentation_mask(counts, (2, 3)).tolist() == [[0, 1, 0], [1, 0, 0]]
    with pytest.raises(MaskError, match="3x2|\\(3, 2\\)"):
        segmentation_mask(counts, (20, 30))
    for bad in ("text", [["a", "b"]], {"size": [2, 3]}, {"size": [2, 3], "counts": "`" * 9}):
        with pytest.raises(MaskError):
            segmentation_mask(bad, (2, 3))


def test_script(tiny_checkpoint, photo_folder, tmp_path, capsys):
    """The colour words of three photos and of two rendered scenes, through the script."""
    square = [[5, 5, 40, 5, 40, 35, 5, 35]]
    instances = {f"p{i}.png": [{"segmentation": square, "category_id": 1, "iscrowd": 0}] for i in range(4)}
    path = tmp_path / "instances.json"
    path.write_text(json.dumps({"categories": {"1": "cup"}, "instances": instances}))
    list(write_scenes(tmp_path / "scenes", 6, seed=0, size=32))
    args = ["--model", str(tiny_checkpoint), "--steps", "1", "--output", str(tmp_path / "scores")]
    scenes = ["--scenes", str(tmp_path / "scenes"), "--number", "2", "--masks", "files"]
    photos = ["--input", str(photo_folder / "images"), "--instances", str(path), "--photos", "3"]
    assert steer.main([*args, *scenes, *photos]) == 0
    assert "of 12 colours in 3 photos; spill " in capsys.readouterr().out
    swaps = list(csv.DictReader((tmp_path / "scores" / "photos.csv").open()))
    assert [row["asked"] for row in swaps] == ["red", "green", "blue", "yellow"] * 3
    assert len({row["name"] for row in csv.DictReader((tmp_path / "scores" / "scenes.csv").open())}) == 2
    assert steer.main(args) == 2
    assert "nothing to steer" in capsys.readouterr().err
