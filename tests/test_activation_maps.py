"""Labels from a classifier: the words it may use, and the regions they get."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.models import squeezenet1_1

from lcad.data.build.cam_labels import ASKED, UNASKED, Labeller, LabelWord, read_words
from lcad.io.label_maps import read_classes, read_label_map
from ldm.checkpoint import CheckpointError
from scripts.label_photos import WORDS, main
from tests.conftest import random_photo

CAT, DOG = LabelWord(["cat", "kitten"], [281, 282]), LabelWord(["dog"], [151])


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "squeezenet.pth"
    torch.manual_seed(0)
    torch.save(squeezenet1_1().state_dict(), path)
    return path


@pytest.fixture
def labeller(weights) -> Labeller:
    return Labeller([CAT, DOG], weights, torch.device("cpu"))


def photo_of_two() -> Image.Image:
    """A light square on the left and a dark one on the right."""
    pixels = np.full((60, 90, 3), 120, np.uint8)
    pixels[15:45, 10:40], pixels[15:45, 50:80] = 240, 10
    return Image.fromarray(pixels)


def sees(labeller: Labeller, probabilities: list[float]) -> None:
    """Let it see a cat on the left and a dog on the right."""
    maps = torch.zeros(2, 12, 18)
    maps[0, 4:8, 3:7], maps[1, 4:8, 11:15] = 1, 1
    labeller.activations = lambda photo: (torch.tensor(probabilities), maps)


def test_the_words_of_the_project():
    words = read_words(WORDS)
    classes = [i for word in words for i in word.classes]
    assert len(classes) == len(set(classes)) > 600, "a class has one word"
    assert next(word for word in words if "cat" in word.names).classes == [*range(281, 288)]
    named = read_classes(WORDS.with_name("ade20k.txt"))
    assert len(named) == 150 and "couch" in named[24] and named[1] == ["wall"]


def test_a_word_is_in_a_text():
    assert CAT.is_in(["a dog", "Two Cats"]) and CAT.is_in(["a kitten"]) and DOG.is_in(["a sleeping Chihuahua"])
    assert not CAT.is_in(["a category", "a bobcat", ""]) and not CAT.is_in([])


def test_activations(labeller):
    """What the network says of the photo, by words: probabilities are of all classes, maps have their mean."""
    photo = random_photo(0)
    probability, maps = labeller.activations(photo)
    assert maps.shape == (2, 15, 15) and maps.min() >= 0 and 0 < probability[0] < 0.1
    mirrored, mirrored_maps = labeller.activations(photo.transpose(Image.Transpose.FLIP_LEFT_RIGHT))
    torch.testing.assert_close(mirrored, probability)
    torch.testing.assert_close(mirrored_maps, maps.flip(-1), atol=1e-4, rtol=1e-3)


def test_regions_are_labelled(labeller):
    photo = photo_of_two()
    sees(labeller, [UNASKED + 0.1, ASKED + 0.1])
    labels = labeller.label(photo, [])
    assert labels.shape == (60, 90) and labels[30, 25] == 1 and set(labels.flat) == {0, 1}, "the dog is not sure enough"
    expected = np.zeros_like(labels)
    expected[15:45, 10:40] = 1
    assert (labels <= expected).all() and labels.sum() > 0.7 * expected.sum(), "the light square, edges apart"
    both = labeller.label(photo, ["a cat and a dog"])
    assert both[30, 25] == 1 and both[30, 65] == 2
    assert set(labeller.label(photo, ["a dog"]).flat) == {0, 2}, "the caption names no cat"
    sees(labeller, [UNASKED - 0.1, 0.0])
    assert not labeller.label(photo, []).any()
    sees(labeller, [1.0, 1.0])
    assert not labeller.label(Image.new("RGB", (40, 40)), []).any(), "a photo of one luminance has no regions"


def test_photos_are_labelled(photo_folder, weights, tmp_path, capsys, monkeypatch):
    output, skipped = tmp_path / "labelled", tmp_path / "skipped"
    skipped.mkdir()
    (skipped / "p0.png").touch()
    photo_of_two().save(photo_folder / "images" / "p1.png")
    (photo_folder / "captions.json").write_text(json.dumps({"p1.png": ["a kitten", "a red thing"]}))
    original = Labeller.__init__

    def patched(self, *args):
        original(self, *args)
        certain = torch.zeros(len(self.words))
        certain[["cat" in word.names for word in self.words]] = 1
        maps = torch.zeros(len(self.words), 12, 18)
        maps[:, 4:8, 3:7] = 1
        self.activations = lambda photo: (certain if photo.size == (90, 60) else torch.zeros_like(certain), maps)

    monkeypatch.setattr(Labeller, "__init__", patched)
    command = ["--input", str(photo_folder), "--output", str(output), "--weights", str(weights), "--skip", str(skipped)]
    for _ in range(2):  # the second finds all done
        assert main(command) == 0
        assert "1 of 8 photos are labelled" in capsys.readouterr().out
    (photo_folder / "images" / "p2.png").write_bytes(b"no photo")
    assert main(command) == 1 and "problem: " in capsys.readouterr().err
    (tmp_path / "words.txt").write_text("151 dog\n")
    assert main([*command, "--words", str(tmp_path / "words.txt")]) == 2
    assert "holds labels of other words; choose another --output" in capsys.readouterr().err
    assert [path.name for path in output.rglob("*.png")].count("p1.png") == 2
    names = read_classes(output / "classes.txt")
    assert [names[i] for i in set(read_label_map(output / "labels" / "p1.png").flat) - {0}] == [["cat", "kitten"]]
    assert json.loads((output / "captions.json").read_text()) == {"p1.png": ["a kitten"]}


def test_files_that_cannot_be_used(tmp_path, weights):
    for text in ("cat 281\n", "281\n", "281 cat\n2000 dog\n", "", "a-b cat\n", "0-99999999999 cat\n", "9-7 cat"):
        (tmp_path / "words.txt").write_text(text)
        with pytest.raises(ValueError, match="words.txt: "):
            read_words(tmp_path / "words.txt")
    with pytest.raises(ValueError, match="nowhere"):
        read_words(tmp_path / "nowhere")
    torch.save({"features.0.weight": torch.zeros(1)}, tmp_path / "other.pth")
    with pytest.raises(ValueError, match="other.pth: not the weights of SqueezeNet 1.1"):
        Labeller([CAT], tmp_path / "other.pth", torch.device("cpu"))
    with pytest.raises(CheckpointError, match="no such weight file"):
        Labeller([CAT], tmp_path / "nowhere.pth", torch.device("cpu"))
