"""Does the caption steer? Colours asked for, against colours obtained, on photos and on rendered scenes.

Shapes: images (3, S, S) in [0, 1]; masks (S, S) in {0, 1}; mean colours in Lab.
"""

import json
import math
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from transformers import CLIPTokenizer

from lcad.color import mean_color
from lcad.io.images import read_image, to_tensor
from lcad.io.prepared_photo import PreparedPhoto
from lcad.masks.coco import read_instances, segmentation_mask
from lcad.masks.files import read_masks
from lcad.masks.from_text import FoundMasks, MaskFinder, some_masks
from lcad.masks.types import InstanceMasks
from lcad.models.perceptual import psnr
from lcad.pipeline import LCADPipeline
from lcad.pipeline_inputs import LCADPipelineOutput
from lcad.text.color_names import COLOR_PATTERN, HUES, name_color
from lcad.text.phrases import find_phrases

SWAPPED = ("red", "green", "blue", "yellow")
HUE_TOLERANCE = 40.0  # degrees
LEAST_CHROMA = 12.0  # Lab units: below, a person sees hardly any colour
MIN_AREA = 0.03  # of the photo that a main object covers


@dataclass(frozen=True)
class MainObject:
    """A photo's main object, whose colour its caption names.

    Attributes:
        span: [start, end) of the colour word in the caption.
        mask: (S, S) float {0, 1}, all instances of the object.
    """

    photo: Path
    caption: str
    span: tuple[int, int]
    mask: Tensor

    def asking_for(self, color: str) -> str:
        """The caption with another colour word."""
        return self.caption[: self.span[0]] + color + self.caption[self.span[1] :]


def main_objects(photos: list[Path], captions: dict[str, list[str]], instances: Path, size: int) -> list[MainObject]:
    """The photos with a caption in which a colour word stands before the name of a labelled object.

    One colour alone must belong to the object ("a red bus", not "a red and white bus"), and at most two words
    stand between. Largest objects first.
    """
    labelled = read_instances(instances)
    found: dict[Path, MainObject] = {}
    for photo in photos:
        with Image.open(photo) as image:
            original = image.height, image.width
        for name in sorted({name for name, _ in labelled.get(photo.name, ())}):
            pattern = (
                rf"(?<!and ){COLOR_PATTERN}(?: (?!and\b|with\b|{COLOR_PATTERN})\w+){{0,2}} {re.escape(name)}e?s?\b"
            )
            matches = (re.search(pattern, caption) for caption in captions.get(photo.name, ()))
            match = next(filter(None, matches), None)
            if match is None:
                continue
            parts = [segmentation_mask(part, original) for other, part in labelled[photo.name] if other == name]
            whole = torch.stack(parts).amax(0)[None, None]
            mask = (torch.nn.functional.interpolate(whole, (size, size), mode="area")[0, 0] > 0.5).float()
            known = found[photo].mask.mean() if photo in found else MIN_AREA
            if mask.mean() >= known:
                found[photo] = MainObject(photo, match.string, match.span(1), mask)
    return sorted(found.values(), key=lambda item: -item.mask.mean().item())


def build_main_object_finder(objects: list[MainObject], tokenizer: CLIPTokenizer) -> MaskFinder:
    """The true mask of each photo's main object, for the phrase that names its colour."""
    spans = {item.photo: (item.span[0], item.mask) for item in objects}

    def find(photo: Path, _prepared: PreparedPhoto, caption: str) -> FoundMasks:
        start, mask = spans[photo]
        own = [p for p in find_phrases(caption, tokenizer) if p.characters[0] <= start < p.characters[1]][:1]
        return FoundMasks(InstanceMasks(own, mask[None][: len(own)]))

    return find


def obeys(color: str, a: float, b: float) -> bool:
    """Is a mean colour (a, b) in Lab units what a person would call as asked?

    Its hue lies within `HUE_TOLERANCE` of the middle of the word's range in `lcad.text.color_names`, and its chroma
    is at least `LEAST_CHROMA`.
    """
    difference = math.degrees(math.atan2(b, a)) - sum(HUES[color]) / 2
    return abs((difference + 180) % 360 - 180) <= HUE_TOLERANCE and math.hypot(a, b) >= LEAST_CHROMA


def photo_color_control(
    pipeline: LCADPipeline,
    objects: list[MainObject],
    find_masks: MaskFinder | None = None,
    progress: Callable[[Iterable], Iterable] = iter,
    **options: Any,
) -> tuple[list[dict], list[list[Tensor]]]:
    """Colorize each photo with red, green, blue and yellow in place of its object's colour word.

    Args:
        find_masks: gives the pipeline masks, for instance-aware sampling; None: none.
        options: of the pipeline's call.

    Returns:
        One row for each photo and word: name, asked, a, b (mean inside the mask), adherent (see `obeys`), spill (how
        far the mean ab outside the mask lies from its average over the four words); and each photo's four pictures.
    """
    rows: list[dict] = []
    pictures = []
    for item in progress(objects):
        side = item.mask.shape[-1]
        rgb = to_tensor(read_image(item.photo).resize((side, side), Image.Resampling.BICUBIC))
        texts = [item.asking_for(word) for word in SWAPPED]
        photo = PreparedPhoto.of(rgb)
        masks = [find_masks and some_masks(find_masks(item.photo, photo, text)) for text in texts]
        generators = [torch.Generator().manual_seed(0) for _ in SWAPPED]
        made = pipeline([photo] * len(texts), texts, [*masks], generator=generators, output_type="pt", **options)
        images = list(cast(LCADPipelineOutput, made).images)
        inside, outside = (
            np.stack([mean_color(image, mask)[1:] for image in images]) for mask in (item.mask, 1 - item.mask)
        )
        spills = np.linalg.norm(outside - outside.mean(0), axis=1)
        for word, (a, b), spill in zip(SWAPPED, inside.tolist(), spills.tolist(), strict=True):
            row = {"name": item.photo.name, "asked": word, "a": a, "b": b}
            rows.append(row | {"adherent": int(obeys(word, a, b)), "spill": spill})
        pictures.append(images)
    return rows, pictures


def _scene_masks(folder: Path, name: str, size: tuple[int, int], objects: int) -> Tensor:
    found = read_masks(folder, Path(name), size, objects)
    if found is None:
        raise FileNotFoundError(f"{folder / Path(name).stem}: no masks of this scene; render the scenes again")
    return found


def scene_color_control(
    pipeline: LCADPipeline,
    folder: Path,
    number: int,
    level: str = "complete",
    find_masks: MaskFinder | None = None,
    batch_size: int = 20,
    progress: Callable[[Iterable], Iterable] = iter,
    **options: Any,
) -> tuple[list[dict], list[Tensor]]:
    """Colorize rendered scenes (see `lcad.data.build.scenes`) from a level of their captions.

    Args:
        number: of scenes with several objects, from the first on.
        find_masks: gives the pipeline masks, for instance-aware sampling; None: none.

    Returns:
        One row for each object: name, object, asked, obtained (a colour name), adherent, psnr (of its whole scene,
        in dB); and the pictures.

    Raises:
        FileNotFoundError: no masks of a scene. MaskError: see `lcad.masks.files`.
    """
    scenes = json.loads((folder / "scenes.json").read_text(encoding="utf-8"))
    names = [name for name, scene in scenes.items() if len(scene["objects"]) > 1][:number]
    rows: list[dict] = []
    pictures: list[Tensor] = []
    for start in progress(range(0, len(names), batch_size)):
        batch = names[start : start + batch_size]
        rgb = [to_tensor(read_image(folder / "images" / name)) for name in batch]
        masks = [
            _scene_masks(folder / "masks", name, (image.shape[1], image.shape[2]), len(scenes[name]["objects"]))
            for name, image in zip(batch, rgb, strict=True)
        ]
        captions = [scenes[name]["captions"][level] for name in batch]
        photos = [PreparedPhoto.of(image) for image in rgb]
        found = [
            find_masks and some_masks(find_masks(Path(name), photo, caption))
            for name, photo, caption in zip(batch, photos, captions, strict=True)
        ]
        generators = [torch.Generator().manual_seed(0) for _ in batch]
        made = pipeline([*photos], captions, [*found], generator=generators, output_type="pt", **options)
        images = list(cast(LCADPipelineOutput, made).images)
        for name, true, image, regions in zip(batch, rgb, images, masks, strict=True):
            quality = psnr(true, image).item()
            for item, mask in zip(scenes[name]["objects"], regions, strict=True):
                obtained = name_color(mean_color(image, mask))
                row = {"name": name, "object": item["kind"], "asked": item["color"], "obtained": obtained}
                rows.append(row | {"adherent": int(obtained == item["color"]), "psnr": quality})
        pictures += images
    return rows, pictures
