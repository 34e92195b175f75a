"""Instance masks of training photos, for the captions that name the objects they show."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from transformers import CLIPTokenizer

from lcad.io.label_maps import read_label_map
from lcad.masks.files import MASK_SUFFIXES, read_masks
from lcad.masks.types import InstanceMasks
from lcad.text.phrases import Phrase, comma_phrases, find_phrases


@dataclass(frozen=True)
class LabelledPhrase:
    """A phrase of a caption with the labels of its objects.

    Attributes:
        part: all there is between the commas around the phrase, where mask files may stand for that; else the phrase.
    """

    phrase: Phrase
    part: Phrase
    labels: tuple[int, ...]


@dataclass(frozen=True)
class InstanceFinder:
    """Where the masks of photos come from, and which caption names them.

    Attributes:
        open: (file, (H, W)) -> the labels there are, and a function that gives the mask (H, W) in [0, 1] of each.
        match: (caption, labels) -> the phrases that have some of them.
    """

    open: Callable[[Path, tuple[int, int]], tuple[Sequence[int], Callable[[], dict[int, Tensor]]]]
    match: Callable[[str, Sequence[int]], list[LabelledPhrase]]

    def __call__(self, photo: Path, rgb: np.ndarray, caption: str, rng: np.random.Generator) -> InstanceMasks | None:
        """The masks (phrases, H, W) of the caption's objects; None if there are none.

        By chance a phrase is the object with its colour (as masks found from words have it), or its whole part (as mask
        files have it).

        Args:
            rgb: the file's pixels (H, W, 3) uint8.
        """
        labels, read = self.open(photo, rgb.shape[:2])
        found = self.match(caption, labels)
        if not found:
            return None
        phrases = [one.phrase for one in found]
        if any(one.part is not one.phrase for one in found) and rng.random() < 0.5:
            phrases = [one.part for one in found]
        masks = read()
        united = [torch.stack([masks[label] for label in one.labels]).amax(0) for one in found]
        return InstanceMasks(phrases, torch.stack(united))


def instances_of_files(folder: Path, tokenizer: CLIPTokenizer) -> InstanceFinder:
    """Mask files, see `lcad.masks.files`: one for each phrase, in the caption's order; raises its MaskError."""

    def open_files(photo: Path, size: tuple[int, int]) -> tuple[Sequence[int], Callable[[], dict[int, Tensor]]]:
        place = folder / photo.stem
        number = sum(file.suffix in MASK_SUFFIXES for file in place.iterdir()) if place.is_dir() else 0

        def read() -> dict[int, Tensor]:
            masks = read_masks(folder, photo, size, number)
            return {} if masks is None else dict(enumerate(masks))

        return range(number), read

    def match(caption: str, labels: Sequence[int]) -> list[LabelledPhrase]:
        phrases = find_phrases(caption, tokenizer) if labels else []
        if len(phrases) != len(labels):
            return []
        parts = comma_phrases(caption, tokenizer)
        wholes = phrases
        if _one_in_each(phrases, parts):
            wholes = [
                replace(phrase, text=part.text, characters=part.characters, tokens=part.tokens)
                for phrase, part in zip(phrases, parts, strict=True)
            ]
        rows = zip(phrases, wholes, labels, strict=True)
        return [LabelledPhrase(phrase, whole, (label,)) for phrase, whole, label in rows]

    return InstanceFinder(open_files, match)


def instances_of_label_maps(
    maps: dict[str, Path], classes: dict[int, list[str]], tokenizer: CLIPTokenizer
) -> InstanceFinder:
    """Label maps (stem of each photo -> file): a phrase has the regions whose name its object ends with.

    Of several names ("swivel chair", "chair") the longest counts.
    """

    def open_map(photo: Path, _size: tuple[int, int]) -> tuple[Sequence[int], Callable[[], dict[int, Tensor]]]:
        labels = read_label_map(maps[photo.stem])
        ids = [label for label in np.unique(labels).tolist() if label in classes]
        return ids, lambda: {label: torch.from_numpy(labels == label).float() for label in ids}

    def match(caption: str, labels: Sequence[int]) -> list[LabelledPhrase]:
        named, found = [(name, label) for label in labels for name in classes[label]], []
        for phrase in find_phrases(caption, tokenizer) if named else []:
            text = caption[phrase.characters[0] : phrase.object_span[1]]  # of "the dog is brown" without the colour
            fitting = [(len(name), label) for name, label in named if _ends_with(text, name)]
            if fitting:
                chosen = tuple(label for length, label in fitting if length == max(fitting)[0])
                found.append(LabelledPhrase(phrase, phrase, chosen))
        return found

    return InstanceFinder(open_map, match)


def _ends_with(text: str, name: str) -> bool:
    return f" {text.lower()}".endswith((f" {name}", f" {name}s", f" {name}es"))


def _one_in_each(phrases: list[Phrase], parts: list[Phrase]) -> bool:
    return len(phrases) == len(parts) and all(
        part.characters[0] <= phrase.characters[0] and phrase.characters[1] <= part.characters[1]
        for phrase, part in zip(phrases, parts, strict=True)
    )
