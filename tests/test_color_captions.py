"""Captions from colours: dominant colours, label maps, and their use through a config."""

import json

import numpy as np
import pytest
from PIL import Image

from lcad.config import DataConfig, SourceConfig
from lcad.data.color_captions import (
    dominant_color_captions,
    dominant_colors,
    label_map_captions,
    label_phrases,
    label_sentences,
    subject_color_captions,
)
from lcad.data.datasets import open_photos
from lcad.data.object_colors import clear_color, object_color
from lcad.io.label_maps import read_classes

BLUE, GREEN, GREY = (40, 90, 220), (40, 140, 50), (128, 128, 128)


def halves(top, bottom, size=64):
    rgb = np.empty((size, size, 3), np.uint8)
    rgb[: size // 2], rgb[size // 2 :] = top, bottom
    return rgb


def test_dominant_colors():
    assert set(dominant_colors(halves(BLUE, GREEN))) == {"blue", "green"}
    assert dominant_colors(halves(GREY, GREY)) == []
    captions = dominant_color_captions(halves(BLUE, GREEN))
    assert "blue at the top, green at the bottom" in captions
    assert dominant_color_captions(halves(GREY, BLUE))[:2] == ["a photo with blue", "blue"]
    assert dominant_color_captions(halves(GREY, GREY)) == ["a black and white photo"]


def test_label_maps():
    rgb = halves(BLUE, GREEN)
    labels = np.zeros((64, 64), np.uint8)
    labels[:40], labels[40:] = 3, 10
    labels[0, 0] = 7  # too small to be named
    classes = {3: ["sky"], 10: ["grass", "old lawn"], 7: ["bird"]}
    assert label_phrases(rgb, labels, classes | {3: ["man", "sky"]}) == [["green grass", "green old lawn"]]
    assert label_phrases(rgb, labels, classes) == [["blue sky"], ["green grass", "green old lawn"]]
    captions = label_map_captions(rgb, labels, classes)
    assert captions[0] == "the blue sky, the green grass" and "the blue sky, the green old lawn" in captions
    assert len(captions) == len(set(captions)) == 5
    sentences = label_sentences(rgb, labels, classes)
    assert {"a blue sky", "a photo of a blue sky", "a blue sky with a green old lawn"} <= set(sentences)
    assert "a blue sky and a green grass" in sentences
    assert label_map_captions(rgb, labels, {}) == label_sentences(rgb, labels, {}) == []
    whole = np.full((64, 64), 3)
    assert label_sentences(halves(BLUE, BLUE), whole, classes) == ["a blue sky", "a photo of a blue sky"]
    assert label_sentences(rgb, whole, classes) == [], "of two colours, neither of them white"


def test_an_orange_thing_is_an_orange_one():
    rgb = halves((230, 120, 20), (230, 120, 20))
    assert label_sentences(rgb, np.ones((64, 64)), {1: ["cup"]})[0] == "an orange cup"


def pixels(*parts):
    """Lab pixels (N, 3) from (number, L, a, b)."""
    return np.concatenate([np.tile(np.array(color, float), (number, 1)) for number, *color in parts])


@pytest.mark.parametrize(
    "parts, word",
    [
        ([(10, 40, 20, 30)], "brown"),
        ([(6, 40, 20, 30), (4, 15, 0, 0)], "brown"),  # in shadow
        ([(5, 40, 20, 30), (5, 15, 0, 0)], None),  # more shadow than can be
        ([(6, 40, 20, 30), (4, 90, 0, 0)], "brown and white"),
        ([(6, 10, 0, 0), (4, 90, 0, 0)], "black and white"),
        ([(5, 50, -40, 30), (5, 50, 70, 50)], None),  # a red and green thing
        ([(10, 50, 0, 12)], None),  # hardly yellow
        ([(10, 75, 8, 20)], None),  # cream is not brown
        ([(10, 45, 25, 42)], "brown"),  # dark orange
        ([(10, 50, 1, 1)], "grey"),
        ([(5, 32, 0, 0), (5, 69, 0, 0)], None),  # grey in one half, and lighter in the other
        ([(10, 69, 1, 1)], None),  # white in the shade, or grey
        ([(8, 10, 0, 0), (2, 60, 0, 0)], "black"),
        ([(6, 10, 0, 0), (4, 60, 0, 0)], None),
        ([(7, 90, 0, 0), (3, 50, 0, 0)], None),
    ],
)
def test_only_clear_colors_are_named(parts, word):
    assert clear_color(pixels(*parts)) == word


def test_an_object_is_seen_without_its_rim():
    lab = np.empty((64, 64, 3))
    lab[:], mask = (50, -40, 30), np.zeros((64, 64), bool)
    mask[20:30, 20:30] = True
    lab[21:29, 21:29] = (40, 20, 30)
    assert object_color(lab, mask) == "brown" and clear_color(lab[mask]) is None
    mask[:], mask[:, 30:32] = False, True
    assert object_color(lab, mask) is None, "a line is all rim"


def test_colors_of_a_subject():
    rgb = halves(BLUE, GREEN)
    captions = ["a church", "a tench, a fish", "the red barn", "a girl goes into a house", ""]
    assert subject_color_captions(rgb, captions) == ["a church with green and blue", "a tench with green and blue"]
    assert subject_color_captions(halves((150, 165, 190), GREY), ["a church"]) == [], "hardly blue"


def test_names_of_classes(tmp_path):
    (tmp_path / "classes.txt").write_text("# a comment\n3 sofa; couch,\n\n7 old lamp\n")
    assert read_classes(tmp_path / "classes.txt") == {3: ["sofa", "couch"], 7: ["old lamp"]}
    (tmp_path / "classes.txt").write_text("3 ,\n")
    with pytest.raises(ValueError, match="3 has no name"):
        read_classes(tmp_path / "classes.txt")


@pytest.fixture
def labelled_folder(tmp_path):
    for part in ("images", "labels"):
        (tmp_path / part).mkdir()
    for i in range(4):
        Image.fromarray(halves(BLUE, GREEN)).save(tmp_path / "images" / f"p{i}.png")
    labels = np.full((64, 64), 3, np.uint8)
    labels[32:] = 10
    Image.fromarray(labels).save(tmp_path / "labels" / "p0.png")
    (tmp_path / "classes.txt").write_text("3 sky\n10 grass;lawn\n")
    (tmp_path / "captions.json").write_text(json.dumps({"p0.png": ["a meadow"]}))
    return tmp_path


def config_of(folder, sources, **options):
    labels = {"label_maps": str(folder / "labels"), "label_names": str(folder / "classes.txt")}
    return DataConfig(folder=str(folder), caption_sources=sources, validation=0, **(labels | options))


def test_sources_of_a_config_add_up(labelled_folder):
    folder = labelled_folder
    photos = open_photos(config_of(folder, ["file", "dominant_colors", "label_maps"]), 32, 0)["train"]
    first, second = (photos.captions[folder / "images" / name] for name in ("p0.png", "p1.png"))
    assert {"a meadow", "a photo with green and blue", "the blue sky, the green grass"} <= set(first)
    colored = open_photos(config_of(folder, ["subject_colors"]), 32, 0)["train"].captions
    assert list(colored.values()) == [["a meadow with green and blue"], [], [], []]
    assert "a meadow" not in second and "blue at the top, green at the bottom" in second
    with pytest.raises(ValueError, match="got 'magic'; allowed: file, dominant_colors, subject_colors"):
        open_photos(config_of(folder, ["magic"]), 32, 0)
    with pytest.raises(ValueError, match="label maps need data.label_maps"):
        open_photos(config_of(folder, ["label_maps"], label_names=None), 32, 0)
    (folder / "classes.txt").write_text("sky\n")
    with pytest.raises(ValueError, match="expected lines of '<id> <name>'"):
        open_photos(config_of(folder, ["label_maps"]), 32, 0)


def test_several_folders_are_mixed(labelled_folder, photo_folder):
    more = [SourceConfig(folder=str(photo_folder), max_photos=3)]
    parts = open_photos(DataConfig(folder=str(labelled_folder), more=more, validation=2), 32, 0)
    assert [path.stem for path in parts["train"].photos] == ["p0", "p1", "p0", "p1", "p2"]
    assert [path.parent.parent.name for path in parts["val"].photos] == [labelled_folder.name, photo_folder.name] * 2
    assert len(parts["train"].captions) == 9, "photos of one name in two folders are different photos"


def test_a_byte_order_mark_is_no_part_of_the_first_id(tmp_path):
    (tmp_path / "names.txt").write_text("1 sky\n2 sofa, couch\n", encoding="utf-8-sig")
    assert read_classes(tmp_path / "names.txt") == {1: ["sky"], 2: ["sofa", "couch"]}
