"""Rendered scenes: repeatable, of the colours their captions name, with a luminance that tells nothing."""

import json

import numpy as np
import torch

from lcad.color import mean_color, rgb_to_lab
from lcad.config import DataConfig
from lcad.data.build.scenes import SceneObject, _paint, caption_scene, render_scene, write_scenes
from lcad.data.build.silhouettes import KINDS
from lcad.data.datasets import open_photos
from lcad.masks.files import read_masks
from lcad.text.captions import read_captions
from lcad.text.color_names import COLOR_WORDS, name_color
from scripts import render_scenes


def test_a_scene_depends_on_seed_and_index_alone():
    one, two, other = render_scene(3, 7, 64), render_scene(3, 7, 64), render_scene(4, 7, 64)
    assert torch.equal(one.image, two.image) and one.captions == two.captions
    assert one.image.shape != other.image.shape or not torch.equal(one.image, other.image)


def test_objects_have_the_color_their_caption_names():
    named = [
        (item.color, name_color(mean_color(scene.image, mask)))
        for scene in (render_scene(0, index, 64) for index in range(60))
        for item, mask in zip(scene.objects, scene.masks, strict=True)
    ]
    assert len({asked for asked, _ in named}) == len(COLOR_WORDS)
    assert np.mean([asked == obtained for asked, obtained in named]) > 0.98


def test_luminance_tells_no_color():
    """The same stream of random numbers with another colour gives the same luminance, up to 8-bit rounding."""
    images = []
    for color in ("yellow", "blue"):
        lab = np.full((64, 64, 3), (60.0, 0.0, 0.0))
        mask = np.zeros((64, 64), bool)
        mask[16:48, 16:48] = True
        _paint(lab, mask, color, np.random.default_rng(5), 64)
        images.append(lab)
    assert np.array_equal(images[0][..., 0], images[1][..., 0])
    assert not np.allclose(images[0][..., 1:], images[1][..., 1:])


def test_kind_choice_masks_and_captions():
    for index in range(20):
        alike, unlike = render_scene(1, index, 48, same_kind=True), render_scene(1, index, 48, same_kind=False)
        assert len({item.kind for item in alike.objects}) == 1
        assert len({item.kind for item in unlike.objects}) == len(unlike.objects)
        assert alike.masks.sum(0).max() <= 1, "masks overlap"
        assert all(kind.kind in KINDS for kind in unlike.objects)
        for level in ("complete", "complete_plain", "partial"):
            assert len(alike.captions[level].split(",")) == len(alike.objects)
        assert all(item.color in alike.captions["complete"] for item in alike.objects)
        assert not any(color in alike.captions["scarce"].split() for color in COLOR_WORDS)


def test_the_order_of_phrases_tells_no_positions():
    several = [scene for scene in (render_scene(0, index, 32) for index in range(150)) if len(scene.objects) > 1]
    first = [scene.objects[0].position for scene in several]
    assert 0.3 < np.mean(["left" in place for place in first]) / np.mean(["right" in place for place in first]) < 3
    scene = next(scene for scene in several if scene.objects[0].position == "on the right")
    left, right = (torch.nonzero(mask)[:, 1].float().mean() for mask in (scene.masks[-1], scene.masks[0]))
    assert left < right, "masks keep to their objects"


def test_partial_captions_leave_colors_out():
    objects = [SceneObject("cup", "red", "on the left"), SceneObject("cup", "blue", "on the right")]
    captions = caption_scene(objects, ("wood", "wood"), np.random.default_rng(0))
    assert captions["complete"] == "the red cup on the left, the blue cup on the right"
    assert captions["complete_plain"] == "the red cup, the blue cup"
    assert sum(color in captions["partial"] for color in ("red", "blue")) == 1


def test_written_folder_is_read_by_the_project(tmp_path):
    folder = tmp_path / "scenes"
    assert render_scenes.main(["--output", str(folder), "--number", "6", "--seed", "2", "--size", "48"]) == 0
    scenes = json.loads((folder / "scenes.json").read_text())
    captions = read_captions(folder / "images")
    assert len(scenes) == len(captions) == 6
    for index, (name, scene) in enumerate(scenes.items()):
        rendered = render_scene(2, index, 48)
        masks = read_masks(folder / "masks", folder / "images" / name, (48, 48), len(scene["objects"]))
        assert torch.equal(masks, rendered.masks)
        photo = open_photos(DataConfig(folder=str(folder), validation=0), 48, 0)["train"].square(index)
        lab = rgb_to_lab(torch.from_numpy(np.array(photo)).movedim(-1, 0) / 255)
        assert (lab - rgb_to_lab(rendered.image)).abs().mean() < 0.5
    before = {path: path.stat().st_mtime_ns for path in (folder / "images").iterdir()}
    list(write_scenes(folder, 7, 2, 48))  # goes on: the six there are kept
    assert all(path.stat().st_mtime_ns == time for path, time in before.items())
    assert len(read_captions(folder / "images")) == 7


def test_captions_of_chosen_levels(tmp_path, capsys):
    options = ["--number", "3", "--size", "32", "--kinds", "same", "--levels"]
    assert render_scenes.main(["--output", str(tmp_path), *options, "complete_plain"]) == 0
    scenes = json.loads((tmp_path / "scenes.json").read_text())
    expected = {name: [scene["captions"]["complete_plain"]] for name, scene in scenes.items()}
    assert read_captions(tmp_path / "images") == expected
    assert render_scenes.main(["--output", str(tmp_path), *options, "whole"]) == 2
    assert "got whole; allowed: complete, complete_plain" in capsys.readouterr().err
