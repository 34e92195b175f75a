"""Masks to look at: the photo with outlines, and where the model attends for each phrase."""

import numpy as np
from matplotlib import colormaps
from PIL import Image, ImageDraw, ImageFont
from skimage.segmentation import find_boundaries
from torch import Tensor

from lcad.contact_sheet import Row, fit_text
from lcad.masks.candidates import shrink
from lcad.masks.finding import FoundMasks

SIDE = 512  # pixels, long side of what is drawn
OUTLINES = ("#e6194b", "#3cb44b", "#4363d8", "#f58231", "#911eb4", "#008080", "#f032e6", "#9a6324")


def mask_row(photo: Image.Image, caption: str, found: FoundMasks) -> Row:
    """A row of a contact sheet: outlines labelled with phrase and score, then the attention map of every phrase."""
    grey = shrink(photo.convert("L"), SIDE)
    pictures = [("regions", outlined(grey, found))]
    maps = zip(found.phrases, found.attention, strict=True)
    pictures += [(f"attention: {phrase.text}", heat_map(grey, attention)) for phrase, attention in maps]
    return Row(pictures, caption)


def outlined(photo: Image.Image, found: FoundMasks) -> Image.Image:
    """The photo with the outline of each mask, labelled at its middle with its phrase and score."""
    pixels, labels = np.array(photo.convert("RGB")), []
    for i, (phrase, mask) in enumerate(zip(found.instances.phrases, found.instances.masks, strict=True)):
        small = np.asarray(Image.fromarray((mask * 255).byte().numpy()).resize(photo.size)) > 127
        color = OUTLINES[i % len(OUTLINES)]
        pixels[find_boundaries(small, mode="thick")] = np.array(Image.new("RGB", (1, 1), color))[0, 0]
        if small.any():
            y, x = np.argwhere(small).mean(0)
            score = f" {found.scores[i]:.2f}" if found.scores else ""
            labels.append(((x, y), fit_text(phrase.text, photo.width // 2, ImageFont.load_default(14)) + score, color))
    picture = Image.fromarray(pixels)
    draw = ImageDraw.Draw(picture)
    for place, text, color in labels:
        draw.text(place, text, color, ImageFont.load_default(14), "mm", stroke_width=2, stroke_fill="white")
    return picture


def heat_map(photo: Image.Image, attention: Tensor) -> Image.Image:
    """An attention map (h, w) over the photo; the strongest place is yellow."""
    span = (attention.max() - attention.min()).clamp_min(1e-6)
    heat = colormaps["inferno"](((attention - attention.min()) / span).numpy())[..., :3]
    colors = Image.fromarray((heat * 255).astype(np.uint8)).resize(photo.size, Image.Resampling.BILINEAR)
    return Image.blend(photo.convert("RGB"), colors, 0.6)
