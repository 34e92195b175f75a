"""Instance masks of training photos, for the captions that name the objects they show."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from transformers import CLIPTokenizer

from lcad.attention_refinement import InstanceMasks
from lcad.data.color_captions import read_label_map
from lcad.masks.files import MASK_SUFFIXES, read_masks
from lcad.phrases import Phrase, comma_phrases, find_phrases

InstanceFinder = Callable[[Path, np.ndarray, str, np.random.Generator], InstanceMasks | None]
"""(file, its pixels (H, W, 3) uint8, caption, generator for chances) -> masks (phrases, H, W) of the caption's objects;
None if there are none."""


def instances_of_files(folder: Path, tokenizer: CLIPTokenizer) -> InstanceFinder:
    """Mask files, see `lcad.masks.files`: one for each phrase, in the caption's order; raises its MaskError.

    By chance a phrase is the object with its colour (as masks found from words have it), or all there is between
    commas (as mask files have it).
    """

    def find(photo: Path, rgb: np.ndarray, caption: str, rng: np.random.Generator) -> InstanceMasks | None:
        place = folder / photo.stem
        number = sum(file.suffix in MASK_SUFFIXES for file in place.iterdir()) if place.is_dir() else 0
        phrases = find_phrases(caption, tokenizer)
        if not number or number != len(phrases):
            return None
        parts = comma_phrases(caption, tokenizer)
        if _one_in_each(phrases, parts) and rng.random() < 0.5:
            phrases = [
                replace(phrase, text=part.text, characters=part.characters, tokens=part.tokens)
                for phrase, part in zip(phrases, parts, strict=True)
            ]
        return InstanceMasks(phrases, read_masks(folder, photo, rgb.shape[:2], number))

    return find


def instances_of_label_maps(
    maps: dict[str, Path], classes: dict[int, list[str]], tokenizer: CLIPTokenizer
) -> InstanceFinder:
    """Label maps (stem of each photo -> file): a phrase has the regions whose name it ends with, in one or many.

    Of several names it ends with ("swivel chair", "chair") the longest counts.
    """

    def find(photo: Path, _rgb: np.ndarray, caption: str, _rng: np.random.Generator) -> InstanceMasks | None:
        labels = read_label_map(maps[photo.stem])
        named = [(name, label) for label in np.unique(labels).tolist() for name in classes.get(label, ())]
        phrases, masks = [], []
        for phrase in find_phrases(caption, tokenizer):
            fitting = [(len(name), label) for name, label in named if _ends_with(phrase.text, name)]
            if fitting:
                phrases.append(phrase)
                masks.append(np.isin(labels, [label for length, label in fitting if length == max(fitting)[0]]))
        return InstanceMasks(phrases, torch.from_numpy(np.stack(masks)).float()) if phrases else None

    return find


def _ends_with(text: str, name: str) -> bool:
    return f" {text.lower()}".endswith((f" {name}", f" {name}s", f" {name}es"))


def _one_in_each(phrases: list[Phrase], parts: list[Phrase]) -> bool:
    return len(phrases) == len(parts) and all(
        part.characters[0] <= phrase.characters[0] and phrase.characters[1] <= part.characters[1]
        for phrase, part in zip(phrases, parts, strict=True)
    )
