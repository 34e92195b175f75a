"""Looks: how strong and how warm the colours of a result are, without sampling again.

Shapes: rgb (3, H, W), sRGB in [0, 1]; a and b in Lab units.
"""

import math

import torch
from torch import Tensor

from lcad.color import lab_to_rgb_in_gamut, rgb_to_lab
from lcad.defaults import PLAIN_LOOK

SATURATION = (0.0, 2.0)
WARMTH = (-1.0, 1.0)
WARMER = (2.4, 17.7)
"""(a, b) of white under D50, seen by an eye that is used to D65: Lab of the white point (0.9642, 1, 0.8251)."""


def check_look(saturation: float, warmth: float) -> None:
    """Raises ValueError: outside `SATURATION` or `WARMTH`, or not a number."""
    for name, value, (least, most) in (("saturation", saturation, SATURATION), ("warmth", warmth, WARMTH)):
        if not least <= value <= most:  # nor is nan
            raise ValueError(f"{name} must be from {least:g} to {most:g}, got {value:g}")


def apply_look(
    rgb: Tensor, saturation: float = PLAIN_LOOK["saturation"], warmth: float = PLAIN_LOOK["warmth"]
) -> Tensor:
    """A result (3, H, W) with stronger or weaker, warmer or cooler colours -> the same shape, with the same L.

    Args:
        saturation: factor of a and b, in [0, 2]; 0 is the grey photo. Grey stays grey at any.
        warmth: in [-1, 1]; 1 is the photo in the light of D50 in place of D65: white moves by 2.4 in a and 17.7 in b
            (`WARMER`), darker colours by less, in proportion to L + 16 as under any change of the light, and -1 as far
            the other way. As for all colours here L is kept, so that white itself and black, which have no room for
            chroma, stay as they are, and greys between them take on a tint. Added after `saturation`.

    Raises:
        ValueError: outside those ranges.
    """
    check_look(saturation, warmth)
    return _changed(rgb, saturation, warmth)


def change_look(rgb: Tensor, before: tuple[float, float], after: tuple[float, float]) -> Tensor:
    """A result that has one look (saturation, warmth) -> the same with another, as far as the first has left colours.

    Colours that the first look has pushed to the border of sRGB do not come back.

    Raises:
        ValueError: outside the ranges of `apply_look`, or a first look without saturation.
    """
    check_look(*before)
    check_look(*after)
    if before == after:
        return rgb
    if before[0] == 0:
        raise ValueError("the result was made with saturation 0 and has no colours left; colorize the photo again")
    factor = after[0] / before[0]
    return _changed(rgb, factor, after[1] - factor * before[1])


def _changed(rgb: Tensor, saturation: float, warmth: float) -> Tensor:
    if (saturation, warmth) == (1, 0):
        return rgb
    if not math.isfinite(saturation * warmth):
        raise ValueError(f"no such look: saturation {saturation:g}, warmth {warmth:g}")
    lab = rgb_to_lab(rgb)
    light = (lab[..., :1, :, :] + 16) / 116
    shift = warmth * torch.tensor(WARMER).to(lab)[:, None, None] * light
    return lab_to_rgb_in_gamut(torch.cat([lab[..., :1, :, :], saturation * lab[..., 1:, :, :] + shift], dim=-3))
