"""Exact colours in a call of the pipeline: targets for each photo, found and given their colours."""

import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from lcad.color import luminance_to_rgb
from lcad.io.images import to_image
from lcad.masks.types import InstanceMasks
from lcad.recoloring.exact_colors import ColorTarget, apply_exact_colors, color_targets
from lcad.recoloring.object_masks import object_finder
from lcad.text.phrases import comma_phrases

if TYPE_CHECKING:
    from lcad.pipeline import LCADPipeline


def targets_of_photos(colors: dict | Sequence, number: int, output_type: str = "pil") -> list[list[ColorTarget]]:
    """The pipeline's argument `colors` -> targets for each of `number` photos.

    Raises:
        ValueError, TypeError: see `color_targets`; sets for another number of photos; pictures of the model's size.
    """
    if output_type == "decoded":
        raise ValueError("colors are given to photos of their own size; choose another output_type than 'decoded'")
    if isinstance(colors, dict) or not any(item is None or isinstance(item, (dict, list, tuple)) for item in colors):
        return [color_targets(colors)] * number
    if len(colors) != number:
        raise ValueError(f"got {number} photos and {len(colors)} sets of colors")
    return [color_targets(own) for own in colors]


def color_results(
    pipeline: "LCADPipeline",
    results: list[Tensor],
    luminances: list[Tensor],
    captions: list[str],
    masks: list,
    targets: list[list[ColorTarget]],
) -> tuple[list[Tensor], list[list[dict]]]:
    """Results (3, H, W) with the colours that were asked for, and the rows of each; what is not found is warned of.

    Args:
        luminances: L (1, H, W) of each photo.
        masks: what the pipeline was given for each photo; words of its phrases are looked for there first.
    """
    find, colored, rows = object_finder(pipeline), [], []
    for rgb, luminance, caption, mask, own in zip(results, luminances, captions, masks, targets, strict=True):
        if not own:
            colored.append(rgb)
            rows.append([])
            continue
        if mask is not None and not isinstance(mask, (str, InstanceMasks)):
            values = torch.as_tensor(mask, dtype=torch.float32)
            mask = InstanceMasks(comma_phrases(caption, pipeline.tokenizer)[: len(values)], values)
        known = mask if isinstance(mask, InstanceMasks) else None
        found = find(own, to_image(luminance_to_rgb(luminance)), caption, known)
        for note in found.notes:
            warnings.warn(note, stacklevel=3)
        rgb, report = apply_exact_colors(rgb, found.masks, found.colors, found.names)
        colored.append(rgb)
        rows.append(report)
    return colored, rows
