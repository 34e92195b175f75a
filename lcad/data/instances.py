"""Instance masks of training photos, for the captions that name the objects they show."""

from pathlib import Path

import numpy as np
from transformers import CLIPTokenizer

from lcad.attention_refinement import InstanceMasks
from lcad.masks.files import MASK_SUFFIXES, read_masks
from lcad.phrases import Phrase, comma_phrases, find_phrases


def caption_instances(
    folder: Path, photo: Path, size: tuple[int, int], caption: str, tokenizer: CLIPTokenizer, rng: np.random.Generator
) -> InstanceMasks | None:
    """The masks of a photo with the phrases of a caption, in the same order; None unless there is one for each.

    By chance a phrase is the object with its colour (as masks found from words have it), or all there is between
    commas (as mask files have it).

    Args:
        folder: mask files, see `lcad.masks.files`.
        size: (H, W) of the photo in pixels.

    Raises:
        MaskError: a mask that cannot be used.
    """
    place = folder / photo.stem
    number = sum(file.suffix in MASK_SUFFIXES for file in place.iterdir()) if place.is_dir() else 0
    phrases = find_phrases(caption, tokenizer)
    if not number or number != len(phrases):
        return None
    parts = comma_phrases(caption, tokenizer)
    if _one_in_each(phrases, parts) and rng.random() < 0.5:
        phrases = parts
    return InstanceMasks(phrases, read_masks(folder, photo, size, number))


def _one_in_each(phrases: list[Phrase], parts: list[Phrase]) -> bool:
    return len(phrases) == len(parts) and all(
        part.characters[0] <= phrase.characters[0] and phrase.characters[1] <= part.characters[1]
        for phrase, part in zip(phrases, parts, strict=True)
    )
