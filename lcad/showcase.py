"""Contact sheets that show a model: what it makes of captions, and of one colour word after another."""

import re

import torch
from PIL import Image, ImageOps

from lcad.captions import SCARCE_CAPTION
from lcad.color_names import COLOR_PATTERN
from lcad.contact_sheet import Row
from lcad.pipeline import LCADPipeline
from lcad.steering import SWAPPED


def caption_rows(pipeline: LCADPipeline, photos: list[Image.Image], captions: list[str], **options) -> list[Row]:
    """For each photo: grey, colorized with its caption, with a scarce one, and as it is.

    Args:
        options: of the pipeline's call.
    """
    rows = []
    for photo, caption in zip(photos, captions, strict=True):
        named, scarce = (_colorize(pipeline, photo, text, options) for text in (caption, SCARCE_CAPTION))
        pictures = [("grey", ImageOps.grayscale(photo)), ("caption", named), (SCARCE_CAPTION, scarce), ("true", photo)]
        rows.append(Row(pictures, caption))
    return rows


def swap_rows(pipeline: LCADPipeline, photos: list[Image.Image], captions: list[str], **options) -> list[Row]:
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


def _colorize(pipeline: LCADPipeline, photo: Image.Image, caption: str, options: dict) -> Image.Image:
    return pipeline(photo, caption, "auto", generator=torch.Generator().manual_seed(0), **options).images[0]
