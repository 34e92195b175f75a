"""Captions drawn from the colours of a photo, for photos without captions or whose captions name no colours.

This is how a small model learns what colour words mean. Arrays: rgb (H, W, 3) uint8; labels (H, W) class ids.
"""

import re
from itertools import pairwise

import numpy as np
import torch
from PIL import Image

from lcad.color import rgb_to_lab
from lcad.data.object_colors import clear_words, object_color
from lcad.data.synonyms import names_any
from lcad.io.images import to_tensor
from lcad.text.color_names import COLOR_PATTERN, COLOR_WORDS, name_colors

GRID = 24  # a photo is looked at as GRID x GRID cells
SHARE = 0.12  # of a photo's cells that a colour must have to be named
MAX_COLORS = 3
LABEL_SHARE = 0.02  # of a photo's pixels that a labelled region must have to be named
MAX_LABELS = 4
PEOPLE = {"person", "people", "man", "woman", "boy", "girl", "child"}
SUBJECT_SHARE = 0.2  # of a photo's cells that a colour must clearly have to be named of its subject
SUBJECT_WORDS = 4  # the most that a class phrase has
CHROMATIC = tuple(word for word in COLOR_WORDS if word != "grey")


def dominant_colors(rgb: np.ndarray) -> list[str]:
    """The colour words that many parts of a photo have, most frequent first, at most `MAX_COLORS`; no neutrals."""
    return _frequent(name_colors(_cells(rgb)))


def dominant_color_captions(rgb: np.ndarray) -> list[str]:
    """Captions such as "a photo with yellow and green" and "blue at the top, green at the bottom".

    A photo without colours gives "a black and white photo".
    """
    names = name_colors(_cells(rgb))
    words = _frequent(names)
    if not words:
        return ["a black and white photo"]
    listed = " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)
    captions = [f"a photo with {listed}", listed, f"a {words[0]} photo" if len(words) == 1 else f"{listed} things"]
    half = GRID // 2
    for first, second, one, other in (
        (names[:half], names[half:], "at the top", "at the bottom"),
        (names[:, :half], names[:, half:], "on the left", "on the right"),
    ):
        a, b = _frequent(first)[:1], _frequent(second)[:1]
        if a and b and a != b:
            captions.append(f"{a[0]} {one}, {b[0]} {other}")
    return captions


def subject_color_captions(rgb: np.ndarray, captions: list[str]) -> list[str]:
    """Captions such as "a church with blue and green", of the captions that are class phrases ("a church").

    Of several names ("a tench, a fish") it is the first. The colours are at most two, clear ones and no neutrals;
    captions that name a colour themselves, or are sentences, are passed over.
    """
    words = _frequent(clear_words(_cells(rgb)), SUBJECT_SHARE)[:2]
    if not words:
        return []
    plain = [caption for caption in captions if not re.search(COLOR_PATTERN, caption, re.IGNORECASE)]
    subjects = [caption.split(",")[0].strip() for caption in plain]
    short = [subject for subject in subjects if 0 < len(subject.split()) <= SUBJECT_WORDS]
    return [f"{subject} with {' and '.join(words)}" for subject in short]


def label_phrases(rgb: np.ndarray, labels: np.ndarray, classes: dict[int, list[str]]) -> list[list[str]]:
    """Of each large region of a clear colour, largest first, at most `MAX_LABELS`: phrases such as "brown sofa".

    There is one for each name of the region's class. People have no colour: it would be that of clothes and skin.

    Args:
        labels: class ids, of the photo's size; ids that are not in `classes` are passed over.
    """
    lab = _lab(rgb)
    phrases: list[list[str]] = []
    ids, counts = np.unique(labels, return_counts=True)
    for label, count in sorted(zip(ids.tolist(), counts.tolist(), strict=True), key=lambda pair: -pair[1]):
        if label in classes and count >= LABEL_SHARE * labels.size and len(phrases) < MAX_LABELS:
            color = None if PEOPLE & set(classes[label]) else object_color(lab, labels == label)
            if color is not None:
                phrases.append([f"{color} {name}" for name in classes[label]])
    return phrases


def label_map_captions(rgb: np.ndarray, labels: np.ndarray, classes: dict[int, list[str]]) -> list[str]:
    """Captions such as "the green tree, the blue sky": of all large regions, of the first two, of each alone.

    Regions of several names are called by each of them in turn.
    """
    captions = []
    for phrases in _by_turns(label_phrases(rgb, labels, classes)):
        named = [f"the {phrase}" for phrase in phrases]
        captions += [", ".join(named), ", ".join(named[:2]), *named]
    return list(dict.fromkeys(captions))


def label_sentences(rgb: np.ndarray, labels: np.ndarray, classes: dict[int, list[str]]) -> list[str]:
    """Captions such as "a green tree with a blue sky" and "a photo of a green tree", of the same regions."""
    captions = []
    for phrases in _by_turns(label_phrases(rgb, labels, classes)):
        named = [f"{'an' if phrase[0] in 'aeiou' else 'a'} {phrase}" for phrase in phrases]
        captions += [*named, f"a photo of {named[0]}"]
        if len(named) > 1:
            captions.append(f"{', '.join(named[:-1])} and {named[-1]}")
        for one, other in pairwise(named):
            captions += [f"{one} with {other}", f"{other} behind {one}", f"{one} next to {other}"]
    return list(dict.fromkeys(captions))


def confirmed_classes(classes: dict[int, list[str]], captions: list[str]) -> dict[int, list[str]]:
    """The classes that captions call by one of their names, in one or many ("dogs")."""
    return {label: names for label, names in classes.items() if any(names_any(text, names) for text in captions)}


def _by_turns(phrases: list[list[str]]) -> list[list[str]]:
    """Each region's first phrase, then each one's second, ..., until all have been taken; the shorter begin anew."""
    turns = max(map(len, phrases), default=0)
    return [[names[turn % len(names)] for names in phrases] for turn in range(turns)]


def _lab(rgb: np.ndarray) -> np.ndarray:
    return rgb_to_lab(torch.from_numpy(rgb.astype(np.float32) / 255).movedim(-1, 0)).movedim(0, -1).numpy()


def _cells(rgb: np.ndarray) -> np.ndarray:
    """The Lab colours of GRID x GRID cells."""
    small = Image.fromarray(rgb).resize((GRID, GRID), Image.Resampling.BOX)
    return rgb_to_lab(to_tensor(small)).movedim(0, -1).numpy()


def _frequent(names: np.ndarray, share: float = SHARE) -> list[str]:
    words, counts = np.unique(names, return_counts=True)
    found = [(count, word) for word, count in zip(words.tolist(), counts.tolist(), strict=True) if word in CHROMATIC]
    return [word for count, word in sorted(found, reverse=True) if count >= share * names.size][:MAX_COLORS]
