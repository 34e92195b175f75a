"""Phrases of a caption: the stretches that name one object each, as characters and as tokens."""

import re
from dataclasses import dataclass

from transformers import CLIPTokenizer

from ldm.text_encoder import MAX_TOKENS


@dataclass(frozen=True)
class Phrase:
    """One object of a caption ("the blue cup").

    Attributes:
        text: the words.
        characters: [start, end) in the caption.
        tokens: [start, end) in CLIP's 77 tokens; the start-of-text token is token 0.
    """

    text: str
    characters: tuple[int, int]
    tokens: tuple[int, int]


def comma_parts(caption: str) -> list[tuple[int, str]]:
    """The non-empty parts between commas, without the spaces around them, each with its place in the caption."""
    return [(match.start(), match.group()) for match in re.finditer(r"[^,\s](?:[^,]*[^,\s])?", caption)]


def comma_phrases(caption: str, tokenizer: CLIPTokenizer) -> list[Phrase]:
    """The parts of a comma-separated caption, as in the release ("the blue cup, the red cup").

    Phrases that lie beyond the 77 tokens CLIP reads are left out.
    """
    offsets = tokenizer(caption, truncation=True, max_length=MAX_TOKENS, return_offsets_mapping=True)["offset_mapping"]
    phrases = []
    for start, text in comma_parts(caption):
        end = start + len(text)
        tokens = [i for i, (left, right) in enumerate(offsets) if left < right and left >= start and right <= end]
        if tokens:
            phrases.append(Phrase(text, (start, end), (tokens[0], tokens[-1] + 1)))
    return phrases
