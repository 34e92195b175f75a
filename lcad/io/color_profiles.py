"""What the numbers of a photo mean: ICC profiles, asked of LittleCMS and kept as tables.

Arrays: values (..., C) uint8 or uint16; linear sRGB and sRGB are (..., 3) float32, 1 is white, and linear sRGB lies
outside [0, 1] for colours that sRGB cannot show.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache

import imagecodecs
import numpy as np

LEVELS = 1 << 16
FINE = 1 << 20  # places of the sRGB curve where nearest levels are kept; 16 times as many as there are levels
STRIP = 1 << 20  # pixels that are worked on at once
NEAR = 0.3 / 255  # of sRGB: a profile that nowhere shows more of a difference is taken for sRGB in 8 bit
OUTSIDE = 0.002  # of full light, by which the colours of sRGB may lie outside a profile that results are written in
_RELATIVE = 1  # colorimetric intent: white is white
_XYZ = imagecodecs.cms_profile("xyz")
SRGB_PROFILE = imagecodecs.cms_profile("srgb")
ADOBE_RGB_PROFILE = imagecodecs.cms_profile("adobergb")
_WIDE = imagecodecs.cms_profile(  # ProPhoto
    "rgb", whitepoint=[0.3457, 0.3585], primaries=[0.7347, 0.2653, 0.1596, 0.8404, 0.0366, 0.0001], gamma=1.8
)


class ProfileError(ValueError):
    """A profile that does not say what the values mean; the message says why."""


@dataclass(frozen=True)
class ColorSpace:
    """Of grey or RGB values: each channel's light at each of its levels, and what the channels' lights add up to.

    Attributes:
        light: (C, LEVELS) float32, from about 0 at black to about 1 at white, never falling.
        matrix: (3, C) from the channels' light to linear sRGB.
        icc: the profile that results in this space are tagged with; None: there is none, or it holds fewer colours than
            sRGB, so that some would lose their luminance; they are written as sRGB.
    """

    light: np.ndarray
    matrix: np.ndarray
    icc: bytes | None = None

    def linear(self, values: np.ndarray) -> np.ndarray:
        """(H, W) grey or (H, W, 3) -> linear sRGB (H, W, 3); grey in an RGB space has three equal channels."""
        return self.lights(values) @ self.matrix.T

    def lights(self, values: np.ndarray) -> np.ndarray:
        """(H, W) or (H, W, C) -> (H, W, C)."""
        tables = self.light[:, ::257] if values.dtype == np.uint8 else self.light
        channels = [values] * len(tables) if values.ndim == 2 else np.moveaxis(values, -1, 0)
        return np.stack([table[channel] for table, channel in zip(tables, channels, strict=True)], axis=-1)

    def encoded(self, rgb: np.ndarray, depth: int) -> np.ndarray:
        """sRGB (H, W, 3) float32 -> the nearest values of this RGB space, uint8 or uint16."""
        light = srgb_to_linear(rgb) @ np.linalg.inv(self.matrix).T.astype(np.float32)
        places = (linear_to_srgb(light) * FINE + 0.5).astype(np.int32)
        tables = self._nearest[depth]
        return np.stack([table[places[..., channel]] for channel, table in enumerate(tables)], axis=-1)

    @cached_property
    def _nearest(self) -> dict[int, np.ndarray]:
        """For 8 and 16 bit: (C, FINE + 1), the level whose light is nearest to that of each place of the sRGB curve."""
        light = srgb_to_linear(np.arange(FINE + 1, dtype=np.float64) / FINE)
        nearest = {}
        for depth, step, kind in ((8, 257, np.uint8), (16, 1, np.uint16)):
            middles = [(table[1:] + table[:-1]) / 2 for table in self.light[:, ::step].astype(np.float64)]
            nearest[depth] = np.stack([np.searchsorted(channel, light).astype(kind) for channel in middles])
        return nearest

    def shown(self, values: np.ndarray) -> np.ndarray:
        """(H, W) or (H, W, 3) -> 8 bit sRGB (H, W, 3), as a colour-managed viewer shows it."""
        if values.ndim == 3 and values.dtype == np.uint8 and self.is_srgb:
            return values
        shown = np.empty((*values.shape[:2], 3), np.uint8)
        for rows in strips(*values.shape[:2]):
            shown[rows] = (linear_to_srgb(self.linear(values[rows])) * 255 + 0.5).astype(np.uint8)
        return shown

    @cached_property
    def is_srgb(self) -> bool:
        """Does it differ from sRGB by less than 8 bit values can show?"""
        if len(self.light) != 3:
            return False
        lattice = _lattice(16)
        return bool(np.abs(linear_to_srgb(self.linear(lattice)) - lattice / np.float32(LEVELS - 1)).max() < NEAR)


def strips(height: int, width: int) -> Iterator[slice]:
    """Rows in parts of about `STRIP` pixels."""
    step = max(1, STRIP // width)
    return (slice(top, min(top + step, height)) for top in range(0, height, step))


@lru_cache(maxsize=32)
def color_space(icc: bytes, channels: int) -> ColorSpace:
    """The space of a profile, for grey (1) or RGB (3) values.

    Raises:
        ProfileError: damaged, of other channels than those, or one whose channels do not simply add up (tables
            from many measurements, as of printers and some scanners): see `to_wide`.
    """
    if icc[16:20] == b"GRAY" and channels == 1:
        light = _curve(_light(icc, _ramp(), "gray")[0, :, 1])
        return ColorSpace(light[None], np.ones((3, 1), np.float32))
    if icc[16:20] != b"RGB ":
        raise ProfileError(f"is of {icc[16:20].decode('latin-1').strip() or 'nothing'}, not of the photo's values")
    black, xyz = _light(icc, np.zeros((1, 1, 3), np.uint16), "rgb")[0, 0], []
    for channel in range(3):
        ramp = np.zeros((1, LEVELS, 3), np.uint16)
        ramp[..., channel] = _ramp()
        xyz.append(_light(icc, ramp, "rgb")[0] - black)
    primaries = np.stack([contribution[-1] for contribution in xyz], axis=1)  # (XYZ, C) at full light
    light = np.stack(
        [_curve(one @ white / max(white @ white, 1e-9)) for one, white in zip(xyz, primaries.T, strict=True)]
    )
    lattice = _lattice(6)
    space = ColorSpace(light, (_srgb_from_xyz() @ primaries).astype(np.float32), icc)
    difference = space.linear(lattice) - _light(icc, lattice, "rgb") @ _srgb_from_xyz().T
    if not np.abs(difference).max() < 1e-3 or np.linalg.cond(space.matrix) > 1e3:
        raise ProfileError("is of a kind that results cannot be written in")
    corners = _lattice(2).reshape(-1, 3) / (LEVELS - 1) @ np.linalg.inv(space.matrix).T  # sRGB's, in this space
    wide = corners.min() >= -OUTSIDE and corners.max() <= 1 + OUTSIDE
    return space if wide else replace(space, icc=None)


def gamma_space(gamma: float, chromaticity: tuple[float, ...] | None, channels: int) -> ColorSpace:
    """The space that a PNG without a profile names by its exponent and, for RGB, the (x, y) of white, R, G and B.

    Raises:
        ProfileError: numbers of no possible space.
    """
    try:
        if channels == 1:
            icc = imagecodecs.cms_profile("gray", whitepoint=(0.3457, 0.3585), gamma=gamma)
        else:
            x_y = list(chromaticity or (0.3127, 0.329, 0.64, 0.33, 0.3, 0.6, 0.15, 0.06))
            icc = imagecodecs.cms_profile("rgb", whitepoint=x_y[:2], primaries=x_y[2:], gamma=gamma)
    except (imagecodecs.CmsError, ValueError, ZeroDivisionError) as error:
        raise ProfileError("has impossible colours in its gAMA and cHRM") from error
    space = color_space(icc, channels)
    return ColorSpace(space.light, space.matrix)


def to_wide(values: np.ndarray, icc: bytes, colorspace: str) -> np.ndarray:
    """(H, W, C) in any profile -> 16 bit values (H, W, 3) of `wide_space`, which holds what sRGB would clip.

    Args:
        colorspace: of the values, as LittleCMS calls it: "rgb", "cmyk", "gray", "lab".

    Raises:
        ProfileError: damaged, or of other channels than those.
    """
    result = np.empty((*values.shape[:2], 3), np.uint16)
    for rows in strips(*values.shape[:2]):
        # in floating point: for integers LittleCMS takes a coarse table of its own in place of curves and tables
        peak = np.iinfo(values.dtype).max / (100 if colorspace == "cmyk" else 1)  # inks are in per cent
        rgb = _transform((values[rows] / peak).astype(np.float32), icc, _WIDE, colorspace, "rgb")
        result[rows] = (rgb.clip(0, 1) * (LEVELS - 1) + 0.5).astype(np.uint16)
    return result


def lab_to_wide(lab: np.ndarray) -> np.ndarray:
    """CIE Lab under D50 (H, W, 3) float, L in [0, 100] -> 16 bit values (H, W, 3) of `wide_space`."""
    rgb = _transform(lab.astype(np.float32), imagecodecs.cms_profile("lab4"), _WIDE, "lab", "rgb")
    return (rgb.clip(0, 1) * (LEVELS - 1) + 0.5).astype(np.uint16)


def wide_space() -> ColorSpace:
    """Of values that had to be converted; results of them are sRGB."""
    return replace(color_space(_WIDE, 3), icc=None)


def srgb_to_linear(rgb: np.ndarray) -> np.ndarray:
    """sRGB -> linear sRGB."""
    return np.where(rgb > 0.04045, ((np.maximum(rgb, 0.04045) + 0.055) / 1.055) ** 2.4, rgb / 12.92)


def linear_to_srgb(linear: np.ndarray) -> np.ndarray:
    """Linear sRGB -> sRGB, clipped to [0, 1]."""
    linear = linear.clip(0, 1)
    return np.where(linear > 0.0031308, 1.055 * np.maximum(linear, 0.0031308) ** (1 / 2.4) - 0.055, 12.92 * linear)


def _transform(values: np.ndarray, icc: bytes, target: bytes, colorspace: str, wanted: str) -> np.ndarray:
    try:
        return imagecodecs.cms_transform(
            values,
            icc,
            target,
            colorspace=colorspace,
            outcolorspace=wanted,
            intent=_RELATIVE,
            flags=imagecodecs.CMS.FLAGS.NOCACHE | imagecodecs.CMS.FLAGS.HIGHRESPRECALC,
        )
    except (imagecodecs.CmsError, ValueError) as error:
        raise ProfileError("is damaged or does not fit the photo") from error


def _light(icc: bytes, values: np.ndarray, colorspace: str) -> np.ndarray:
    """(..., C) uint16 -> XYZ (..., 3) of D50, as LittleCMS has it in floating point."""
    light = _transform((values / (LEVELS - 1)).astype(np.float32), icc, _XYZ, colorspace, "xyz")
    if not np.isfinite(light).all():
        raise ProfileError("is damaged: its colours are not finite")
    return light.astype(np.float64)


def _curve(light: np.ndarray) -> np.ndarray:
    if not 0.5 < light[-1] < 1.5 or np.diff(light).min() < -1e-4:
        raise ProfileError("is damaged: lighter values are shown darker")
    return np.maximum.accumulate(light).astype(np.float32)


@lru_cache(maxsize=1)
def _srgb_from_xyz() -> np.ndarray:
    """(3, 3) from XYZ of D50 to linear sRGB, by LittleCMS' own sRGB."""
    return np.linalg.inv(_light(SRGB_PROFILE, (np.eye(3) * (LEVELS - 1)).astype(np.uint16)[None], "rgb")[0].T)


def _ramp() -> np.ndarray:
    return np.arange(LEVELS, dtype=np.uint16)[None]


def _lattice(steps: int) -> np.ndarray:
    """(steps, steps^2, 3) uint16: colours all over the cube."""
    axis = np.linspace(0, LEVELS - 1, steps).round().astype(np.uint16)
    return np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), axis=-1).reshape(steps, -1, 3)
