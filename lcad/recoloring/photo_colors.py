"""Exact colours in a call of the pipeline: targets for each photo, found and given their colours."""

import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING

from torch import Tensor

from lcad.io.prepared_photo import PreparedPhoto
from lcad.masks.types import InstanceMasks
from lcad.recoloring.exact_colors import ColorTarget, apply_exact_colors, color_targets
from lcad.recoloring.object_masks import build_object_finder

if TYPE_CHECKING:
    from lcad.pipeline import LCADPipeline


def targets_of_photos(colors: dict | Sequence, number: int, output_type: str = "pil") -> list[list[ColorTarget]]:
    """The pipeline's argument `colors` -> targets for each of `number` photos.

    Raises:
        ValueError, TypeError: see `color_targets`; sets for another number of photos; pictures of the model's size.
    """
    if output_type in ("decoded", "latent"):
        raise ValueError(f"colors are given to photos of their own size; output_type {output_type!r} has none")
    if isinstance(colors, dict) or not any(item is None or isinstance(item, (dict, list, tuple)) for item in colors):
        return [color_targets(colors)] * number
    if len(colors) != number:
        raise ValueError(f"got {number} photos and {len(colors)} sets of colors")
    return [color_targets(own) for own in colors]


def color_results(
    pipeline: "LCADPipeline",
    results: list[Tensor],
    photos: list[PreparedPhoto],
    asked: list[tuple[str, InstanceMasks | None, list[ColorTarget]]],
) -> tuple[list[Tensor], list[list[dict]]]:
    """Results (3, H, W) with the colours that were asked for, and the rows of each; what is not found is warned of.

    Args:
        photos: of each.
        asked: its caption, its masks, where words of phrases are looked for first, and its colours.
    """
    find, colored, rows = build_object_finder(pipeline), [], []
    for rgb, photo, (caption, known, own) in zip(results, photos, asked, strict=True):
        report: list[dict] = []
        if own:
            found = find(own, photo, caption, known)
            for note in found.notes:
                warnings.warn(note, stacklevel=3)
            rgb, report = apply_exact_colors(rgb, found.masks, found.colors, found.names)
        colored.append(rgb)
        rows.append(report)
    return colored, rows
