"""Masks to look at: the photo with outlines, and where the model attends for each phrase."""

import numpy as np
from PIL import Image, ImageDraw, ImageFont, ImageOps
from skimage.segmentation import find_boundaries
from torch import Tensor

from lcad.io.contact_sheet import Row, fit_text
from lcad.masks.from_text import FoundMasks

SIDE = 512  # pixels, long side of what is drawn
TEXT = 28  # pixels, height of the labels: a contact sheet shows half of it
OUTLINES = ("#e6194b", "#3cb44b", "#4363d8", "#f58231", "#911eb4", "#008080", "#f032e6", "#9a6324")

HEAT = ("#000004", "#bc3754", "#fcffa4")  # black, red, yellow: matplotlib's inferno at 0, 0.5 and 1


def mask_row(photo: Image.Image, caption: str, found: FoundMasks) -> Row:
    """A row of a contact sheet: outlines labelled with phrase and score, then the attention map of every phrase."""
    scale = SIDE / max(photo.size)
    grey = photo.convert("L").resize([max(1, round(side * scale)) for side in photo.size], Image.Resampling.LANCZOS)
    pictures = [("regions", outlined(grey, found))]
    maps = zip(found.phrases, found.attention, strict=True)
    pictures += [(f"attention: {phrase.text}", heat_map(grey, attention)) for phrase, attention in maps]
    return Row(pictures, caption)


def outlined(photo: Image.Image, found: FoundMasks) -> Image.Image:
    """The photo with the outline of each mask, labelled at its middle with its phrase and score."""
    pixels, font = np.array(photo.convert("RGB")), ImageFont.load_default(TEXT)
    labels: list[tuple[float, float, float, str, str]] = []
    for i, (phrase, mask) in enumerate(zip(found.instances.phrases, found.instances.masks, strict=True)):
        small = np.asarray(Image.fromarray((mask * 255).byte().numpy()).resize(photo.size)) > 127
        color = OUTLINES[i % len(OUTLINES)]
        pixels[find_boundaries(small, mode="thick")] = np.array(Image.new("RGB", (1, 1), color))[0, 0]
        if small.any():
            y, x = np.argwhere(small).mean(0)
            score = f" {found.scores[i]:.2f}" if found.scores else ""
            text = fit_text(phrase.text, photo.width - font.getlength(score), font) + score
            half = font.getlength(text) / 2
            x = np.clip(x, half, photo.width - half)
            beside = [top for left, top, width, *_ in labels if abs(x - left) < half + width]
            below = ((y + down) % photo.height for down in range(photo.height))  # of the labels it would lie on
            y = next((place for place in below if all(abs(place - top) >= TEXT for top in beside)), y)
            labels.append((x, y, half, text, color))
    picture = Image.fromarray(pixels)
    draw = ImageDraw.Draw(picture)
    for x, y, _, text, color in labels:
        draw.text((x, y), text, color, font, "mm", stroke_width=3, stroke_fill="white")
    return picture


def heat_map(photo: Image.Image, attention: Tensor) -> Image.Image:
    """An attention map (h, w) over the photo; the strongest place is yellow."""
    span = (attention.max() - attention.min()).clamp_min(1e-6)
    grey = Image.fromarray(((attention - attention.min()) / span * 255).byte().numpy())
    colors = ImageOps.colorize(grey, *HEAT[::2], mid=HEAT[1]).resize(photo.size, Image.Resampling.BILINEAR)
    return Image.blend(photo.convert("RGB"), colors, 0.6)
