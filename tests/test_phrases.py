"""Phrases of comma-separated captions, as characters and tokens."""

import pytest

from lcad.phrases import comma_phrases
from ldm.text_encoder import build_tokenizer


@pytest.fixture(scope="module")
def tokenizer():
    return build_tokenizer()


def test_spans(tokenizer):
    caption = "the blue cup,  the red teapot , a yellow-ish hat"
    phrases = comma_phrases(caption, tokenizer)
    assert [p.text for p in phrases] == ["the blue cup", "the red teapot", "a yellow-ish hat"]
    ids = tokenizer(caption)["input_ids"]
    for phrase in phrases:
        assert caption[slice(*phrase.characters)] == phrase.text
        assert tokenizer.decode(ids[slice(*phrase.tokens)]).replace(" ", "") == phrase.text.replace(" ", "")


@pytest.mark.parametrize("caption", ["", " , ,", "!"])
def test_nothing_to_find(tokenizer, caption):
    assert len(comma_phrases(caption, tokenizer)) <= (caption == "!")


def test_phrases_beyond_77_tokens_are_left_out(tokenizer):
    phrases = comma_phrases(", ".join(f"the red cup {i}" for i in range(40)), tokenizer)
    assert 0 < len(phrases) < 40 and all(p.tokens[1] <= 76 for p in phrases)
