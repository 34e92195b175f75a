"""The wordings of a caption that masks are found with."""

import pytest
import torch

from lcad.io.prepared_photo import PreparedPhoto
from lcad.masks.attention import phrase_attention
from lcad.text.phrases import find_phrases
from lcad.text.wordings import wordings
from tests.conftest import random_photo


def words_of(caption, tokenizer):
    """Each wording, and the words that its tokens are."""
    for wording in wordings(caption, find_phrases(caption, tokenizer), tokenizer):
        ids = tokenizer(wording.caption).input_ids
        yield wording.caption, [tokenizer.decode(ids[slice(*tokens)]).strip() for tokens in wording.object_tokens]


@pytest.mark.parametrize(
    ("caption", "expected", "objects"),
    [
        ("a dark red cup and a blue plate", ["a white cup and a white plate", "the cup, the plate"], ["cup", "plate"]),
        ("the plate is blue", ["the plate is white", "the plate"], ["plate"]),
        ("the left cup", ["the left cup", "the cup"], ["cup"]),
        ("a red cup, a blue cup", ["a red cup, a blue cup"], ["cup", "cup"]),
    ],
)
def test_objects_without_the_colours_asked_for(tiny_pipeline, caption, expected, objects):
    assert list(words_of(caption, tiny_pipeline.tokenizer)) == [(text, objects) for text in expected]


NOUNS = """cup plate table chair car bus dog cat horse bird boat train bike shirt coat hat shoe lamp bed sofa door wall
roof tree flower ball box book bag"""


def test_what_a_wording_has_no_room_for_is_read_in_the_caption_itself(tiny_pipeline):
    caption = " ".join(f"red {noun}" for noun in NOUNS.split())  # 58 words; 86 as "the cup, the plate, ..."
    phrases = find_phrases(caption, tiny_pipeline.tokenizer)
    neutral, names = wordings(caption, phrases, tiny_pipeline.tokenizer)
    assert len(phrases) == 29 and neutral.caption == caption.replace("red", "white")
    assert names.caption == caption and names.object_tokens == [phrase.object_tokens for phrase in phrases]


@pytest.mark.parametrize("caption", ["the {} cup, the dish is {}", "a cup on the {} table"])
def test_masks_are_found_where_they_are_whatever_the_colour(tiny_pipeline, caption):
    photo, maps = PreparedPhoto.of(random_photo(0)), []
    for color in ("red", "pale yellow", "dark green"):
        asked = caption.format(color, color)
        maps.append(phrase_attention(tiny_pipeline, photo, asked, find_phrases(asked, tiny_pipeline.tokenizer)))
    assert torch.equal(maps[0], maps[1]) and torch.equal(maps[0], maps[2]) and maps[0].max() > 0
