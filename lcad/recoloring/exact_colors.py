"""Exact colours: "this coat in #8b1a1a". What is asked for, how it is written, and what came of it.

Shapes: N objects, H x W the photo's size; rgb is sRGB in [0, 1], masks are in [0, 1], points are (x, y) in photo
pixels, x right and y down.
"""

import difflib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import torch
import torch.nn.functional as F
from skimage.color import deltaE_ciede2000
from torch import Tensor

from lcad.color import lab_to_rgb, rgb_to_lab, rgb_to_luminance
from lcad.io.pixels import shrunk_size
from lcad.masks.files import MASK_SUFFIXES, read_mask
from lcad.recoloring.dyeing import EDGE_SIDE, FIT_SIDE, Dyes, dyed, find_changes, in_front, mask_edges, masks_at
from lcad.text.color_expressions import color_value, known_colors

Color = tuple[float, float, float]
"""sRGB in [0, 1]"""

REACHED = 5.0  # Delta E (CIEDE2000) from the asked colour up to which it counts as obtained
_HEX = re.compile(r"#?([0-9a-f]{6}|(?<=#)[0-9a-f]{3})")
_POINT = re.compile(r"@\s*(-?\d+)\s*,\s*(-?\d+)")


@dataclass(frozen=True, eq=False)
class ColorTarget:
    """An object and the colour it is to have.

    Attributes:
        where: a word or phrase of the caption; a point (x, y) of the object; or its mask (H, W) in [0, 1].
        color: sRGB in [0, 1].
        text: as it was written, for messages and records; empty: "<where>=<color>" in short.
    """

    where: str | tuple[int, int] | Tensor
    color: Color
    text: str = ""

    def __post_init__(self) -> None:
        if len(self.color) != 3 or not all(0 <= value <= 1 for value in self.color):
            raise ValueError(f"colour {self.color}: expected three numbers from 0 to 1 (r, g, b)")
        if isinstance(self.where, Tensor):
            if self.where.ndim != 2 or not ((self.where >= 0) & (self.where <= 1)).all() or not self.where.any():
                raise ValueError("the mask of a colour must be (H, W) with values from 0 to 1, not all 0")
        elif isinstance(self.where, str) and not self.where.strip():
            raise ValueError("a colour for no object: name a word of the caption, a point or a mask")
        if not self.text:
            object.__setattr__(self, "text", f"{self.name}={to_hex(self.color)}")

    @property
    def name(self) -> str:
        """The object in short: "coat", "@412,230", "mask"."""
        if isinstance(self.where, Tensor):
            return self.text.rpartition("=")[0] or "mask"
        return self.where if isinstance(self.where, str) else "@{},{}".format(*self.where)


def to_hex(color: Color) -> str:
    """(r, g, b) in [0, 1] -> "#8b1a1a"."""
    return "#" + "".join(f"{round(255 * value):02x}" for value in color)


def parse_color(text: str) -> Color:
    """A colour as people write it -> sRGB in [0, 1].

    "#8b1a1a", "#a11"; a name of CSS or of the XKCD survey ("pale blue", "navy"), CSS first where both have it; or any
    colour expression that captions are read with ("rust colored", "blue-green", "very dark teal" is none).

    Raises:
        ValueError: none of these.
    """
    plain = " ".join(str(text).strip().strip("\"'").lower().split())
    match = _HEX.fullmatch(plain)
    if match:
        digits = match[1] if len(match[1]) == 6 else "".join(2 * digit for digit in match[1])
        red, green, blue = bytes.fromhex(digits)
        return red / 255, green / 255, blue / 255
    value = color_value(plain)
    if value is None:
        near = difflib.get_close_matches(plain, known_colors(), 3)
        raise ValueError(
            f"unknown colour {text!r}; give #rrggbb or a name" + (f" such as {', '.join(near)}" if near else "")
        )
    return value


def parse_color_target(text: str, folder: Path | None = Path()) -> ColorTarget:
    """What a text asks for: "the left cup=pale blue", "@412,230=#8b1a1a" or "mask.png=navy".

    Args:
        folder: which files of masks are relative to; None: no file is read, as it must be with text from strangers.

    Raises:
        ValueError: written otherwise, an unknown colour, or a mask that cannot be used (MaskError).
    """
    place, equals, color = (part.strip() for part in str(text).rpartition("="))
    if not equals or not place:
        raise ValueError(f"{text!r}: expected <object>=<colour>, such as coat=#8b1a1a or @412,230=navy")
    value, point = parse_color(color), _POINT.fullmatch(place)
    if place.startswith("@"):
        if point is None:
            raise ValueError(f"{text!r}: expected a point in pixels, @x,y=<colour>, such as @412,230=#8b1a1a")
        return ColorTarget((int(point[1]), int(point[2])), value, text)
    if place.lower().endswith(MASK_SUFFIXES):
        if folder is None:
            raise ValueError(f"{text!r}: masks are not read from files here; give a word or a point")
        return ColorTarget(read_mask(folder / place), value, text)
    return ColorTarget(place, value, text)


def parse_targets(
    texts: Sequence[str], folder: Path | None, others: Sequence[ColorTarget] = ()
) -> tuple[ColorTarget, ...]:
    """`parse_color_target` of each, and those of `others` that are of other objects; raises what that raises."""
    own = [parse_color_target(text, folder) for text in texts]
    names = {target.name for target in own}
    return (*own, *(target for target in others if target.name not in names))


def color_targets(colors: dict[str, str | Color] | Sequence[ColorTarget | str] | None) -> list[ColorTarget]:
    """What `colors` of the pipeline may be -> targets: {"coat": "#8b1a1a"}, targets, or text as on the command line.

    The keys of a dict are words; those that begin with @ are points.

    Raises:
        ValueError, TypeError: see `parse_color_target`, or something else than these.
    """
    if colors is None:
        return []
    if isinstance(colors, dict):
        colors = [_target_of(where, color) for where, color in colors.items()]
    targets = [parse_color_target(item, None) if isinstance(item, str) else item for item in colors]
    for item in targets:
        if not isinstance(item, ColorTarget):
            raise TypeError(f"colors: expected a dict, ColorTargets or text, got {type(item).__name__}")
    return targets


def _target_of(where: str | tuple[int, int], color: str | Color) -> ColorTarget:
    # three numbers, which `ColorTarget` sees to
    value = parse_color(color) if isinstance(color, str) else cast(Color, tuple(float(part) for part in color))
    point = _POINT.fullmatch(where.strip()) if isinstance(where, str) else None
    return ColorTarget(where if point is None else (int(point[1]), int(point[2])), value)


def apply_exact_colors(
    rgb: Tensor, masks: Tensor, colors: Sequence[Color], names: Sequence[str] = ()
) -> tuple[Tensor, list[dict]]:
    """Give objects of a result their exact colours; its L stays as it is.

    Args:
        rgb: the result (3, H, W).
        masks: (N, H, W) of the objects, or of a smaller size; edges need not be exact, see `dyeing.mask_edges`. Where
            they overlap the later ones lie in front.
        colors: N colours.
        names: of the objects, for the rows.

    Returns:
        (3, H, W), and a row for each object, see `color_rows`.
    """
    if not len(colors):
        return rgb, []
    dyes = find_dyes(rgb, masks, colors)
    colored = dyes.apply(rgb)
    return colored, color_rows(colored, dyes.edges, colors, names)


def find_dyes(rgb: Tensor, masks: Tensor, colors: Sequence[Color]) -> Dyes:
    """What `apply_exact_colors` does to the colours, from a result of any size, such as a small copy.

    Raises:
        ValueError: masks and colours that do not fit together, or an empty mask.
    """
    if masks.ndim != 3 or len(masks) != len(colors):
        raise ValueError(f"masks of shape {tuple(masks.shape)} for {len(colors)} colours; expected (colours, H, W)")
    if not masks.flatten(1).any(1).all():
        raise ValueError("the mask of a colour is empty; mark the object with 1")
    luminance = _shrunk(rgb_to_luminance(rgb), EDGE_SIDE)
    height, width = luminance.shape[-2:]
    edges = mask_edges(luminance, _resized(masks.float(), (height, width)))
    lab = _shrunk(rgb_to_lab(rgb), FIT_SIDE)
    asked = torch.stack([_lab(color) for color in colors])
    return Dyes(*find_changes(lab, in_front(masks_at(edges, lab[:1])), asked[:, 1:]), edges)


def color_rows(rgb: Tensor, edges: Tensor, colors: Sequence[Color], names: Sequence[str] = ()) -> list[dict]:
    """Asked against obtained, for each object.

    Args:
        rgb: a result (3, H, W) of any size.
        edges: of the masks, see `Dyes`.
        names: of the objects; the default: their numbers.

    Returns:
        Rows with where, asked and obtained (#rrggbb, the latter of the mean Lab), delta_e between the two (CIEDE2000),
        least_delta_e (of the same object dyed in one colour: what its luminance and sRGB leave at best), and
        limited_by_luminance: is more than `REACHED` left, and would be at best?
    """
    lab = _shrunk(rgb_to_lab(rgb), FIT_SIDE)
    weights = in_front(masks_at(edges, lab[:1]))
    rows = []
    for number, (mask, color) in enumerate(zip(weights, colors, strict=True)):
        mean = _mean(lab, mask)
        red, green, blue = lab_to_rgb(mean[:, None, None]).flatten().tolist()
        left, least = delta_e(_lab(color), mean), least_delta_e(lab[:1], mask, color)
        row: dict = {"where": names[number] if names else str(number), "asked": to_hex(color)}
        row |= {"obtained": to_hex((red, green, blue)), "delta_e": round(left, 2), "least_delta_e": round(least, 2)}
        rows.append(row | {"limited_by_luminance": min(left, least) > REACHED})
    return rows


def least_delta_e(luminance: Tensor, mask: Tensor, color: Color) -> float:
    """How near the mean colour of an object can come to a colour: Delta E of the object dyed in it alone.

    Args:
        luminance: L (1, H, W) of the photo.
        mask: (H, W).
    """
    luminance, mask = _shrunk(luminance, FIT_SIDE), _shrunk(mask[None], FIT_SIDE)
    grey = torch.cat([luminance, torch.zeros_like(luminance), torch.zeros_like(luminance)])
    ideal = dyed(grey, mask, *find_changes(grey, mask, _lab(color)[None, 1:]))
    return delta_e(_lab(color), _mean(ideal, mask[0]))


def delta_e(first: Tensor, second: Tensor) -> float:
    """CIEDE2000 between two Lab colours (3,)."""
    return float(deltaE_ciede2000(first.double().numpy(), second.double().numpy()))


def _mean(lab: Tensor, mask: Tensor) -> Tensor:
    """The mean of (3, H, W) inside a mask (H, W) -> (3,)."""
    return (lab * mask).sum((-2, -1)) / mask.sum().clamp_min(1e-6)


def _lab(color: Color) -> Tensor:
    return rgb_to_lab(torch.tensor(color, dtype=torch.float32)[:, None, None])[:, 0, 0]


def _shrunk(image: Tensor, side: int) -> Tensor:
    """(C, H, W) -> `side` pixels at most on the long side, by the mean of what falls together."""
    size = shrunk_size(image.shape[-2:], side)
    return image if size == tuple(image.shape[-2:]) else F.interpolate(image[None], size, mode="area")[0]


def _resized(masks: Tensor, size: tuple[int, int]) -> Tensor:
    """(N, H, W) -> (N, *size): larger smoothly, smaller by the mean."""
    larger = masks.shape[-1] < size[1] or masks.shape[-2] < size[0]
    options = {"mode": "bilinear", "align_corners": False} if larger else {"mode": "area"}
    return F.interpolate(masks[None], size, **options)[0]
