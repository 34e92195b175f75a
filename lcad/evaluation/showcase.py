"""Contact sheets that show a model: captions, one colour word after another, and exact colours."""

import re
from typing import Any, cast

import numpy as np
import torch
from PIL import Image, ImageOps

from lcad.color import rgb_to_lab
from lcad.evaluation.color_control import SWAPPED
from lcad.io.contact_sheet import Row
from lcad.io.images import to_image, to_tensor
from lcad.masks.types import InstanceMasks
from lcad.pipeline import LCADPipeline
from lcad.pipeline_inputs import LCADPipelineOutput
from lcad.recoloring.exact_colors import apply_exact_colors, parse_color
from lcad.recoloring.looks import apply_look
from lcad.text.captions import SCARCE_CAPTION
from lcad.text.color_names import COLOR_PATTERN

LEAST_SPREAD = 4.0  # of ab in Lab units
EXACT = ("#2f7199", "#866620", "#7c3c6b")
LOOK = {"saturation": 1.3, "warmth": 0.5}


def has_colors(photo: Image.Image) -> bool:
    """Does a photo have colours of its own? In a black-and-white or toned (sepia) one ab depends on L alone."""
    small = photo.convert("RGB")
    small.thumbnail((128, 128))
    lab = rgb_to_lab(to_tensor(small)).flatten(1).numpy()  # (3, pixels)
    powers = np.stack([np.ones_like(lab[0]), lab[0], lab[0] ** 2], 1)
    rest = lab[1:].T - powers @ np.linalg.lstsq(powers, lab[1:].T, rcond=None)[0]
    return float(np.sqrt((rest**2).mean(0).sum())) >= LEAST_SPREAD


def caption_rows(pipeline: LCADPipeline, photos: list[Image.Image], captions: list[str], **options: Any) -> list[Row]:
    """For each photo: grey, colorized with its caption, with a scarce one, and, if it is in colour, as it is.

    Args:
        captions: one for each photo; "" for one that has none.
        options: of the pipeline's call.
    """
    rows = []
    for photo, caption in zip(photos, captions, strict=True):
        pictures = [("grey", ImageOps.grayscale(photo))]
        if caption:
            pictures.append(("caption", _colorize(pipeline, photo, caption, options)))
        pictures.append((SCARCE_CAPTION, _colorize(pipeline, photo, SCARCE_CAPTION, options)))
        if has_colors(photo):
            pictures.append(("true", photo))
        rows.append(Row(pictures, caption or "(no caption)"))
    return rows


def swap_rows(pipeline: LCADPipeline, photos: list[Image.Image], captions: list[str], **options: Any) -> list[Row]:
    """For each photo whose caption names a colour: grey, and colorized with other words in the first one's place."""
    rows = []
    for photo, caption in zip(photos, captions, strict=True):
        match = re.search(COLOR_PATTERN, caption)
        if match is None:
            continue
        pictures = [("grey", ImageOps.grayscale(photo))]
        for word in SWAPPED:
            text = caption[: match.start()] + word + caption[match.end() :]
            pictures.append((word, _colorize(pipeline, photo, text, options)))
        rows.append(Row(pictures, caption[: match.start()] + "..." + caption[match.end() :]))
    return rows


def exact_color_rows(
    pipeline: LCADPipeline,
    photos: list[Image.Image],
    captions: list[str],
    masks: list[InstanceMasks | None],
    **options: Any,
) -> list[Row]:
    """For each photo with masks: grey, colorized, the first masked object in the colours of `EXACT`, and `LOOK`."""
    rows = []
    for photo, caption, own in zip(photos, captions, masks, strict=True):
        if own is None:
            continue
        phrase, made = own.phrases[0].text, to_tensor(_colorize(pipeline, photo, caption, options, own))
        shown = {"caption": made}
        for color in EXACT:
            shown[f"{phrase}={color}"], _ = apply_exact_colors(made, own.masks[:1], [parse_color(color)])
        shown[", ".join(f"{name} {value:g}" for name, value in LOOK.items())] = apply_look(made, **LOOK)
        pictures = [(title, to_image(rgb)) for title, rgb in shown.items()]
        rows.append(Row([("grey", ImageOps.grayscale(photo)), *pictures], caption))
    return rows


def _colorize(
    pipeline: LCADPipeline, photo: Image.Image, caption: str, options: dict, masks: InstanceMasks | str = "auto"
) -> Image.Image:
    generator = torch.Generator().manual_seed(0)
    made = pipeline(photo, caption, masks, generator=generator, **options)
    return cast(LCADPipelineOutput, made).images[0]
