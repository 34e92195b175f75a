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
    read_classes,
)
from lcad.data.sources import open_photos

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
    assert label_phrases(rgb, labels, classes) == [["blue sky"], ["green grass", "green old lawn"]]
    captions = label_map_captions(rgb, labels, classes)
    assert captions[0] == "the blue sky, the green grass" and "the blue sky, the green old lawn" in captions
    assert len(captions) == len(set(captions)) == 5
    sentences = label_sentences(rgb, labels, classes)
    assert {"a blue sky", "a photo of a blue sky", "a blue sky with a green old lawn"} <= set(sentences)
    assert "a blue sky and a green grass" in sentences
    assert label_map_captions(rgb, labels, {}) == label_sentences(rgb, labels, {}) == []
    assert label_sentences(rgb, np.full((64, 64), 3), classes) == ["a blue sky", "a photo of a blue sky"]


def test_an_orange_thing_is_an_orange_one():
    rgb = halves((230, 120, 20), (230, 120, 20))
    assert label_sentences(rgb, np.ones((64, 64)), {1: ["cup"]})[0] == "an orange cup"


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
    assert "a meadow" not in second and "blue at the top, green at the bottom" in second
    with pytest.raises(ValueError, match="got 'magic'; allowed: file, dominant_colors, label_maps"):
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
