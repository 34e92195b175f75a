"""Synonyms of caption words: the table, the exchange, and words left out of training."""

import json
from pathlib import Path

import pytest

from lcad.config import DataConfig
from lcad.data.datasets import open_photos
from lcad.data.synonyms import names_any, read_synonyms, with_synonyms

TABLE = {"car": "automobile", "red": "crimson", "orange": "amber", "woman": "lady", "women": "ladies", "sofa": "couch"}


@pytest.mark.parametrize(
    "caption, expected",
    [
        ("a red car", "a crimson automobile"),
        ("A car, the Cars", "An automobile, the Automobiles"),
        ("an orange scar on redwood", "an amber scar on redwood"),
        ("two women on sofas", "two ladies on couches"),
        ("a woman", "a lady"),
        ("a blue cup", "a blue cup"),
        ("", ""),
    ],
)
def test_with_synonyms(caption, expected):
    assert with_synonyms(caption, TABLE) == expected
    assert with_synonyms(caption, {}) == caption


def test_an_article_follows_its_word():
    assert with_synonyms("an orange thing", {"orange": "tawny"}) == "a tawny thing"


def test_the_bundled_table():
    table = read_synonyms(Path(__file__).parents[1] / "configs/words/synonyms.txt")
    assert len(table) >= 15 and table["car"] == "automobile"
    assert not set(table) & set(table.values()), "what is left out of training is not what stands for another word"


@pytest.mark.parametrize("text", ["car automobile", "car:", ": x", "a: b: c"])
def test_mistakes_in_a_table(tmp_path, text):
    (tmp_path / "t.txt").write_text(text)
    with pytest.raises(ValueError, match="t.txt.*'<word>: <synonym>'"):
        read_synonyms(tmp_path / "t.txt")


def test_words_are_found_whole():
    assert names_any("Two Ladies", ["lady"]) and names_any("a COUCH.", ["lawn", "couch"])
    assert not names_any("a lawnmower and ladybirds", ["lawn", "lady"]) and not names_any("a lady", [])


def test_left_out_words(photo_folder):
    """Training captions with them are gone, validation captions are not."""
    captions = {f"p{i}.png": ["two Ladies", "a red cup"] for i in range(8)}
    (photo_folder / "captions.json").write_text(json.dumps(captions))
    parts = open_photos(DataConfig(str(photo_folder), validation=2, left_out_words=["lady"]), 32, 0)
    assert all(parts["train"].captions[photo] == ["a red cup"] for photo in parts["train"].photos)
    assert all(len(parts["val"].captions[photo]) == 2 for photo in parts["val"].photos)
