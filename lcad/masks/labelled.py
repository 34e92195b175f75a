"""Masks from labelled objects: COCO's instances, or label maps; each phrase gets the objects of its own word.

A label source is a function of (photo file, (H, W)) -> [(category, mask (H, W) float {0, 1}), ...].
"""

import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from lcad.io.label_maps import read_classes, read_label_map
from lcad.io.prepared_photo import PreparedPhoto
from lcad.masks.attention import phrase_attention
from lcad.masks.coco import read_instances, segmentation_mask
from lcad.masks.files import MaskError
from lcad.masks.from_text import FoundMasks, MaskFinder
from lcad.masks.matching import best_pairs, score_regions
from lcad.masks.types import InstanceMasks, Regions
from lcad.text.phrases import Phrase, find_phrases
from lcad.text.reading import not_understood

if TYPE_CHECKING:
    from lcad.pipeline import LCADPipeline

Labels = Callable[[Path, tuple[int, int]], list[tuple[str, Tensor]]]


def coco_labels(file: Path) -> Labels:
    """Polygons and run lengths of a file in COCO's format, see `lcad.masks.coco`; raises its MaskError."""
    listed = {_composed(name): instances for name, instances in read_instances(file).items()}

    def labels(photo: Path, size: tuple[int, int]) -> list[tuple[str, Tensor]]:
        return [(name, segmentation_mask(own, size)) for name, own in listed.get(_composed(photo.name), ())]

    return labels


def map_labels(folder: Path, classes: Path) -> Labels:
    """Label maps `<folder>/<photo's stem>.png` of class ids, named by a file of "<id> <name>" lines.

    Raises:
        ValueError: the list of classes cannot be read.
    """
    names = read_classes(classes)
    maps = {_composed(file.name): file for file in folder.glob("*.png")}

    def labels(photo: Path, size: tuple[int, int]) -> list[tuple[str, Tensor]]:
        file = maps.get(_composed(f"{photo.stem}.png"))
        if file is None:
            return []
        try:
            ids = torch.from_numpy(read_label_map(file).astype("int64"))
        except ValueError as error:
            raise MaskError(str(error)) from error
        if tuple(ids.shape) != size:
            raise MaskError(f"{file}: is {ids.shape[1]}x{ids.shape[0]}, but the photo is {size[1]}x{size[0]}")
        return [(", ".join(names[i]), (ids == i).float()) for i in torch.unique(ids).tolist() if i in names]

    return labels


def build_label_finder(pipeline: "LCADPipeline", labels: Labels) -> MaskFinder:
    """A phrase alone with its word gets all objects of it together; several share them out by attention and place."""

    def find(path: Path, photo: PreparedPhoto, caption: str) -> FoundMasks | None:
        phrases, size = find_phrases(caption, pipeline.tokenizer), (photo.height, photo.width)
        labelled = labels(path, size)
        if not labelled:
            return None
        masks: dict[int, Tensor] = {}
        for group in _by_objects(phrases, [name for name, _ in labelled]):
            own = torch.stack([mask for name, mask in labelled if same_object(phrases[group[0]].object, name)])
            if len(group) == 1:
                masks[group[0]] = own.amax(0)
            else:
                rivals = [phrases[p] for p in group]
                attention = phrase_attention(pipeline, photo, caption, rivals)
                scores = score_regions(attention, Regions(own, [None] * len(own), torch.ones(len(own))))
                masks |= {group[p]: own[r] for p, r in best_pairs(scores)}
        used = sorted(masks)
        chosen = torch.stack([masks[p] for p in used]) if used else torch.zeros(0, *size)
        missing = [phrase.text for p, phrase in enumerate(phrases) if p not in masks]
        instances = InstanceMasks([phrases[p] for p in used], chosen)
        notes = [f"no labelled object for {text!r}" for text in missing] + not_understood(caption)
        return FoundMasks(instances, notes=notes)

    return find


def same_object(word: str, category: str) -> bool:
    """Is an object word of a caption ("buses") that category ("bus"), or one of its names ("sofa, couch")?"""
    word = word.lower()
    names = [name.strip() for name in category.lower().split(",") if name.strip()]
    return any(word in (name, last := name.split()[-1], f"{last}s", f"{last}es") for name in names)


def _composed(name: str) -> str:
    """Names of files as they are compared: in NFC."""
    return unicodedata.normalize("NFC", name)


def _by_objects(phrases: list[Phrase], categories: list[str]) -> list[list[int]]:
    """The phrases of each category that is there, as groups of indices."""
    groups: dict[str, list[int]] = {}
    for index, phrase in enumerate(phrases):
        category = next((name for name in categories if same_object(phrase.object, name)), None)
        if category is not None:
            groups.setdefault(category, []).append(index)
    return list(groups.values())
