"""A photo's pixels as they lie in its file, brought to 8 or 16 bit and upright, before anyone uses them."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from PIL import Image

from lcad.io.color_profiles import ADOBE_RGB_PROFILE, ColorSpace, ProfileError, color_space, strips, to_wide, wide_space
from lcad.io.metadata import exif_color_space
from lcad.io.texts import Text

ORIENTATION = 0x0112
FAINT = 4095  # of 65535: what a scan of 12 bits has
_AS_8_BIT = ((np.arange(1 << 16) * 255 + 32767) // 65535).astype(np.uint8)


class ImageError(ValueError):
    """An image file that cannot be used; the message is one line: what, where, what to do."""


@dataclass
class Pixels:
    """What was decoded.

    Attributes:
        values: (H, W) grey or (H, W, 3) RGB, uint8 or uint16, upright.
        alpha: (H, W), like `values`; None: opaque.
        depth: bits of a result, 8 or 16; `values` may have more where they had to be converted.
        space: what the values mean; None: sRGB.
        notes: what of the file is not used, or how it was understood where that is not certain.
        turned: whether the file held it on its side, so that its resolution is (y, x).
        info: what Pillow says of the file besides its pixels; None for TIFF.
        texts: those of the file, but for metadata of formats of their own.
    """

    values: np.ndarray
    alpha: np.ndarray | None = None
    depth: int = 8
    space: ColorSpace | None = None
    notes: list[str] = field(default_factory=list)
    turned: bool = False
    info: dict | None = None
    texts: list[Text] = field(default_factory=list)

    def preview(self, side: int | None = None) -> Image.Image:
        """8 bit sRGB as a viewer shows it, transparent pixels on white; PIL of mode RGB.

        Args:
            side: pixels at most on its long side; None: all. Less is made in strips of rows, in little memory.
        """
        height, width = self.values.shape[:2]
        size = (width, height) if side is None else shrunk_size((width, height), side)
        if size == (width, height):
            return self._shown(slice(None))
        small, tall = Image.new("RGB", size), height / size[1]
        for rows in strips(size[1], round(width * tall)):
            top, bottom = rows.start * tall, min(rows.stop * tall, height)
            first, last = math.floor(top), math.ceil(bottom)
            box = 0, top - first, width, bottom - first
            part = self._shown(slice(first, last))
            small.paste(part.resize((size[0], rows.stop - rows.start), Image.Resampling.BOX, box), (0, rows.start))
        return small

    def _shown(self, rows: slice) -> Image.Image:
        values = self.values[rows]
        image = Image.fromarray(to_8_bit(values) if self.space is None else self.space.shown(values))
        image = image if image.mode == "RGB" else image.convert("RGB")
        if self.alpha is not None:
            white = Image.new("RGB", image.size, "white")
            image = Image.composite(image, white, Image.fromarray(to_8_bit(self.alpha[rows])))
        return image


def shrunk_size(size: Sequence[int], side: int) -> tuple[int, int]:
    """(width, height), or the other way round, with `side` pixels at most on the long side."""
    scale = min(1, side / max(size))
    first, second = (max(1, round(length * scale)) for length in size)
    return first, second


def to_8_bit(values: np.ndarray) -> np.ndarray:
    """uint8 or uint16 -> uint8."""
    return values if values.dtype == np.uint8 else _AS_8_BIT[values]


def upright(values: np.ndarray, orientation: int) -> np.ndarray:
    """Turn an array (H, W, ...) as EXIF's orientation (1 to 8) asks."""
    if orientation >= 5:
        values = values.swapaxes(0, 1)
    flips = {2: (1,), 3: (0, 1), 4: (0,), 6: (1,), 7: (0, 1), 8: (0,)}.get(orientation, ())
    return np.ascontiguousarray(np.flip(values, flips))


def split_alpha(values: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
    """(H, W), or (H, W, C) with alpha last where C is 2 or 4 -> grey or colour, and alpha if it is not all opaque."""
    if values.ndim == 2:
        return values, None
    alpha = None
    if values.shape[2] in (2, 4):
        values, alpha = values[..., :-1], values[..., -1]
        alpha = alpha if (alpha < np.iinfo(alpha.dtype).max).any() else None
    return (values[..., 0] if values.shape[2] == 1 else values), alpha


def unsigned(values: np.ndarray, bits: int) -> tuple[np.ndarray, list[str]]:
    """Samples of any type -> uint8 or uint16, and notes on how they were understood.

    Unsigned integers are taken by their bits, signed ones by the range of their type. Of floating point 1 is white,
    or 255 or 65535 where one pixel in a hundred is far above; what is above white is white, NaN is black.

    Args:
        bits: of a sample, which may be fewer than its type has.
    """
    kind = values.dtype.kind
    if kind == "b":
        return values.astype(np.uint8) * 255, []
    if kind == "u" and bits == 8 * values.itemsize <= 16:
        return values, _faint(values)
    if kind == "f":
        white, notes = _white(values)
        return _scaled(values, 0, white, np.uint16), notes
    notes = []
    black, white = 0, 2**bits - 1
    if kind == "i":
        black, white = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
        notes = [f"has signed {bits} bit values; {black} is taken for black and {white} for white"]
    elif bits > 16 and values.max(initial=0) < 1 << 16:
        white = (1 << 16) - 1
        notes = [f"has {bits} bit values, none above 65535, which is taken for white"]
    return _scaled(values, black, white, np.uint8 if bits <= 8 else np.uint16), notes


def _faint(values: np.ndarray) -> list[str]:
    """A note on values of 16 bit that hardly reach above black, as those of 12 bit scans that do not say so."""
    peak = int(values.max(initial=0))
    if values.dtype != np.uint16 or peak == 0 or peak > FAINT:
        return []
    return [
        f"has no value above {peak} of 65535 and is all but black; if it is a scan of fewer bits, stretch its levels"
    ]


def _white(values: np.ndarray) -> tuple[float, list[str]]:
    finite = values[np.isfinite(values)]
    if finite.size == 0:
        raise ImageError("holds no finite value")
    high, peak = np.percentile(finite[:: max(1, finite.size // 1_000_000)], 99), float(finite.max())
    white = next((white for white in (1, 255, 65535) if high <= 2 * white), peak)
    notes = [f"is in floating point; {white:g} is taken for white"]
    if peak > white or finite.size < values.size:
        notes = [f"{notes[0]}, and what is above or not finite is clipped"]
    return white, notes


def _scaled(values: np.ndarray, black: float, white: float, kind: type) -> np.ndarray:
    """`black` to `white` -> the range of `kind`, in strips."""
    result: np.ndarray = np.empty(values.shape, kind)
    peak = np.iinfo(kind).max
    for rows in strips(*values.shape[:2]):
        part = (np.nan_to_num(values[rows].astype(np.float64), posinf=white) - black) / (white - black)
        result[rows] = (part.clip(0, 1) * peak + 0.5).astype(kind)
    return result


def interpreted(pixels: Pixels, icc: bytes | None, mode: str | None = None, exif: bytes = b"") -> Pixels:
    """The same pixels with what their profile makes of them; a profile that cannot be used is ignored with a note.

    Without a profile EXIF may say that they are Adobe RGB, as cameras do.

    Args:
        mode: "cmyk" if the values are (H, W, 4) of ink; they become RGB. None: grey or RGB.
    """
    if mode == "cmyk":
        try:
            if icc is not None:
                pixels.values, pixels.space = to_wide(pixels.values, icc, mode), wide_space()
                pixels.notes.append("is CMYK, converted through its profile; the result is sRGB")
                return pixels
        except ProfileError as error:
            pixels.notes.append(f"its colour profile {error} and is ignored")
        pixels.values = _inks(pixels.values)
        pixels.notes.append("is CMYK without a profile, converted as inks that take away light; the result is sRGB")
        return pixels
    if icc is None:
        said = exif_color_space(exif)
        if said == "Adobe RGB":
            pixels.space = color_space(ADOBE_RGB_PROFILE, 3)
            pixels.notes.append("is Adobe RGB by its EXIF, without a profile")
        elif said is not None:
            pixels.notes.append("is not sRGB by its EXIF, which does not say what; it is taken for sRGB")
        return pixels
    channels = 1 if pixels.values.ndim == 2 else 3
    try:
        pixels.space = color_space(icc, channels)
        if pixels.space.icc is None and icc[16:20] == b"RGB ":
            pixels.notes.append("its colour profile holds fewer colours than sRGB; the result is sRGB")
    except ProfileError as error:
        try:
            pixels.values, pixels.space = to_wide(_rgb(pixels.values), icc, "rgb"), wide_space()
            pixels.notes.append(f"its colour profile {error}; the result is sRGB")
        except ProfileError:
            pixels.notes.append(f"its colour profile {error} and is ignored")
    return pixels


def _rgb(values: np.ndarray) -> np.ndarray:
    return np.dstack([values] * 3) if values.ndim == 2 else values


def _inks(cmyk: np.ndarray) -> np.ndarray:
    """(H, W, 4), 0 is no ink -> (H, W, 3), same type."""
    peak = np.iinfo(cmyk.dtype).max
    result = np.empty((*cmyk.shape[:2], 3), cmyk.dtype)
    for rows in strips(*cmyk.shape[:2]):
        left = peak - cmyk[rows].astype(np.uint64)
        result[rows] = (left[..., :3] * left[..., 3:] + peak // 2) // peak
    return result
