"""From a config to data sets: folders of photos, their splits, and where their captions come from."""

import json
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import zip_longest
from pathlib import Path

import numpy as np
from tqdm import tqdm
from transformers import CLIPTokenizer

from lcad.config import DataConfig, LabelsConfig, SourceConfig
from lcad.data.color_captions import (
    confirmed_classes,
    dominant_color_captions,
    label_map_captions,
    label_sentences,
    subject_color_captions,
)
from lcad.data.photos import PhotoDataset
from lcad.data.synonyms import names_any
from lcad.data.training_masks import InstanceFinder, instances_of_files, instances_of_label_maps
from lcad.io.images import ImageError, image_folder, list_images, read_image
from lcad.io.label_maps import read_classes, read_label_map
from lcad.text.captions import CaptionSampler, read_captions

SPLITS = ("train", "val", "test")

Captions = dict[Path, list[str]]


@dataclass(frozen=True)
class Source:
    """The photos of one folder, with what is known of them.

    Attributes:
        parts: "train" and "val" -> photos.
        repeat: how often each training photo comes in an epoch.
        instances: where the masks of some photos come from.
    """

    parts: dict[str, list[Path]]
    repeat: int
    captions: Captions
    instances: dict[Path, InstanceFinder]


def open_sources(config: DataConfig, tokenizer: CLIPTokenizer | None = None) -> list[Source]:
    """The folders a config names; errors as those of `open_photos`."""
    sources = []
    for source in (config, *config.more):
        photos = list_images(image_folder(Path(source.folder)))
        parts = _split(photos, source.splits, config.validation)
        if source.max_photos is not None:
            parts["train"] = parts["train"][: source.max_photos]
        if not parts["train"]:
            raise ValueError(f"{source.folder}: no photo is left for training; see data.splits and data.validation")
        used = parts["train"] + parts["val"]
        captions = source_captions(source, photos, used)
        for photo in parts["train"]:
            captions[photo] = [text for text in captions[photo] if not names_any(text, config.left_out_words)]
        finders = {} if tokenizer is None else _instance_finders(source, used, tokenizer)
        sources.append(Source(parts, source.repeat, captions, finders))
    return sources


def open_photos(
    config: DataConfig, size: int, seed: int, tokenizer: CLIPTokenizer | None = None
) -> dict[str, PhotoDataset]:
    """The training and validation photos a config names: {"train": ..., "val": ...}.

    With a tokenizer, which finds the phrases, photos bring the masks of `data.masks` or their label maps.

    Raises:
        FileNotFoundError: no such folder, or no images in it.
        CaptionError, ValueError: a caption, splits or label file that cannot be used.
    """
    captions: Captions = {}
    instances: dict[Path, InstanceFinder] = {}
    sources = open_sources(config, tokenizer)
    for source in sources:
        captions |= source.captions
        instances |= source.instances
    training = [photo for source in sources for photo in source.parts["train"] * source.repeat]
    mixed = alternate([source.parts["val"] for source in sources])
    drawn = CaptionSampler(config.scarce_probability, config.caption_dropout)
    return {
        "train": PhotoDataset(training, captions, size, drawn, config.crop, config.zoom, config.flip, seed, instances),
        "val": PhotoDataset(mixed, captions, size, CaptionSampler(0, 0), seed=seed, instances=instances),
    }


def alternate(lists: list[list]) -> list:
    """The first of each list, then the second of each, ...: the first few are of all of them."""
    return [one for row in zip_longest(*lists) for one in row if one is not None]


def _instance_finders(source: SourceConfig, photos: list[Path], tokenizer: CLIPTokenizer) -> dict[Path, InstanceFinder]:
    """For the photos that may have masks: the others need not be read for them."""
    if source.masks is not None:
        if not Path(source.masks).is_dir():
            raise FileNotFoundError(f"data.masks: {source.masks}: no such folder")
        return dict.fromkeys(photos, instances_of_files(Path(source.masks), tokenizer))
    finders: dict[Path, InstanceFinder] = {}
    for labels in reversed(_label_sets(source)):  # of a photo's maps the first counts
        maps, classes = _map_files(labels), read_classes(Path(labels.mask_names or labels.names))
        labelled = [photo for photo in photos if photo.stem in maps]
        finders |= dict.fromkeys(labelled, instances_of_label_maps(maps, classes, tokenizer))
    return finders


def source_captions(source: SourceConfig, photos: list[Path], used: list[Path]) -> Captions:
    """The captions of the photos `used`, from all caption sources the config names, together.

    Raises:
        ValueError: an unknown source, or one that lacks its files.
    """
    captions: Captions = {photo: [] for photo in used}
    for name in source.caption_sources:
        if name not in CAPTION_SOURCES:
            raise ValueError(f"data.caption_sources: got {name!r}; allowed: {', '.join(CAPTION_SOURCES)}")
        for photo, found in CAPTION_SOURCES[name](source, photos, used).items():
            captions[photo] += found
    return captions


def _from_file(source: SourceConfig, photos: list[Path], used: list[Path]) -> Captions:
    listed = read_captions(photos[0].parent, Path(source.captions) if source.captions else None)
    absent = sorted(listed.keys() - {photo.name for photo in photos})
    if absent:
        warnings.warn(
            f"captions name {len(absent)} photos that are not in {photos[0].parent}: "
            f"{', '.join(absent[:5])}{', ...' if len(absent) > 5 else ''}; they are left out",
            stacklevel=4,
        )
    return {photo: listed.get(photo.name, []) for photo in used}


def _from_dominant_colors(source: SourceConfig, photos: list[Path], used: list[Path]) -> Captions:
    return _described(used, "naming colours", lambda rgb, photo: dominant_color_captions(rgb))


def _from_subject_colors(source: SourceConfig, photos: list[Path], used: list[Path]) -> Captions:
    own = _from_file(source, photos, used)
    return _described(used, "naming colours", lambda rgb, photo: subject_color_captions(rgb, own[photo]))


def _label_sets(source: SourceConfig) -> list[LabelsConfig]:
    if source.label_maps and source.label_names:
        return [LabelsConfig(source.label_maps, source.label_names), *source.labels]
    return source.labels


def _map_files(labels: LabelsConfig) -> dict[str, Path]:
    return {path.stem: path for path in list_images(Path(labels.maps))}


LabelCaption = Callable[[np.ndarray, np.ndarray, dict[int, list[str]]], list[str]]
"""(rgb, label map, class names) -> captions"""


def _from_label_maps(caption: LabelCaption, source: SourceConfig, photos: list[Path], used: list[Path]) -> Captions:
    if not _label_sets(source):
        raise ValueError(
            "data.caption_sources: label maps need data.label_maps (folder) and data.label_names (file), or data.labels"
        )
    captions: Captions = {photo: [] for photo in used}
    for labels in _label_sets(source):
        own = _from_file(source, photos, used) if labels.confirmed else None
        for photo, found in _of_label_set(caption, labels, used, own).items():
            captions[photo] += found
    return captions


def _of_label_set(caption: LabelCaption, labels: LabelsConfig, used: list[Path], own: Captions | None) -> Captions:
    """Of the photos that have label maps; `own`: the captions that confirm what is there."""
    maps, classes = _map_files(labels), read_classes(Path(labels.names))

    def describe(rgb: np.ndarray, photo: Path) -> list[str]:
        ids = read_label_map(maps[photo.stem])
        if ids.shape != rgb.shape[:2]:
            raise ValueError(f"{maps[photo.stem]}: is {ids.shape[::-1]}, the photo {rgb.shape[1::-1]} pixels")
        return caption(rgb, ids, classes if own is None else confirmed_classes(classes, own[photo]))

    return _described([photo for photo in used if photo.stem in maps], "naming labelled regions", describe)


LABEL_CAPTIONS = {"label_maps": label_map_captions, "label_sentences": label_sentences}

CAPTION_SOURCES: dict[str, Callable[[SourceConfig, list[Path], list[Path]], Captions]] = {
    "file": _from_file,
    "dominant_colors": _from_dominant_colors,
    "subject_colors": _from_subject_colors,
    **{name: partial(_from_label_maps, caption) for name, caption in LABEL_CAPTIONS.items()},
}
"""name -> function of (config, photos of the folder, photos used) -> captions of those it has some for"""


def _described(photos: list[Path], title: str, describe: Callable[[np.ndarray, Path], list[str]]) -> Captions:
    captions = {}
    for photo in tqdm(photos, title, unit="photo", mininterval=5):
        try:
            rgb = np.asarray(read_image(photo))
        except ImageError:
            continue  # reading it for training warns of it
        captions[photo] = describe(rgb, photo)
    return captions


def _split(photos: list[Path], splits: str | None, validation: int) -> dict[str, list[Path]]:
    if splits is None:
        held_out = min(validation, len(photos) // 2)
        cut = len(photos) - held_out
        return {"train": photos[:cut], "val": photos[cut:]}
    path = Path(splits)
    try:
        split_of = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ValueError(
            f"{path}: cannot be read as splits ({error}); expected JSON: name -> train | val | test"
        ) from error
    if not isinstance(split_of, dict) or not set(map(str, split_of.values())) <= set(SPLITS):
        raise ValueError(f"{path}: expected JSON: name -> {' | '.join(SPLITS)}")
    parts = {part: [photo for photo in photos if split_of.get(photo.name) == part] for part in SPLITS}
    parts["val"] = parts["val"][:validation]
    return parts
