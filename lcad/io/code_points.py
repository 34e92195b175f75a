"""Colours named by numbers instead of a profile: the code points of ITU-T H.273, in PNG's cICP and AVIF's nclx.

The curves are computed here at all levels; from primaries and white to linear sRGB it goes by LittleCMS.
"""

from functools import lru_cache

import imagecodecs
import numpy as np

from lcad.io.color_profiles import LEVELS, ColorSpace, ProfileError, color_space, srgb_to_linear

_D65 = (0.3127, 0.329)
_PRIMARIES = {
    1: (*_D65, 0.64, 0.33, 0.3, 0.6, 0.15, 0.06),  # BT.709, sRGB
    4: (0.31, 0.316, 0.67, 0.33, 0.21, 0.71, 0.14, 0.08),  # BT.470 M
    5: (*_D65, 0.64, 0.33, 0.29, 0.6, 0.15, 0.06),  # BT.470 B, G
    6: (*_D65, 0.63, 0.34, 0.31, 0.595, 0.155, 0.07),  # BT.601, 525 lines
    7: (*_D65, 0.63, 0.34, 0.31, 0.595, 0.155, 0.07),  # SMPTE 240M
    9: (*_D65, 0.708, 0.292, 0.17, 0.797, 0.131, 0.046),  # BT.2020
    11: (0.314, 0.351, 0.68, 0.32, 0.265, 0.69, 0.15, 0.06),  # DCI-P3
    12: (*_D65, 0.68, 0.32, 0.265, 0.69, 0.15, 0.06),  # Display P3
}
"""code -> (x, y) of white, red, green and blue"""
_CAMERA, _SRGB = (1, 6, 14, 15), 13  # transfers: of BT.709, BT.601 and BT.2020, which are one curve; of sRGB
_POWERS = {4: 2.2, 5: 2.8, 8: 1.0}
_HDR = {16: "PQ", 18: "HLG"}


class HdrError(ProfileError):
    """Values of more light than white, which have no photo's meaning without a choice of how they are shown."""


@lru_cache(maxsize=32)
def coded_space(primaries: int, transfer: int) -> tuple[ColorSpace | None, tuple[str, ...]]:
    """The space of RGB or grey values, None for sRGB, and notes on how it was understood.

    Raises:
        ProfileError: numbers that are reserved, or of spaces that are not read. HdrError: of HDR.
    """
    if transfer in _HDR:
        raise HdrError(f"is HDR ({_HDR[transfer]}), which is not read; save it as sRGB or Display P3")
    if (primaries, transfer) == (1, _SRGB):
        return None, ()
    if primaries not in _PRIMARIES or transfer not in (*_CAMERA, *_POWERS, _SRGB):
        raise ProfileError(f"names colours by numbers that are not read (primaries {primaries}, transfer {transfer})")
    values = np.arange(LEVELS, dtype=np.float64) / (LEVELS - 1)
    notes: tuple[str, ...] = ()
    if transfer in _CAMERA:
        light = np.where(values < 4.5 * 0.018, values / 4.5, ((values + 0.099) / 1.099) ** (1 / 0.45))
        notes = ("is in the curve of a video camera (BT.709), whose inverse is shown",)
    else:
        light = srgb_to_linear(values) if transfer == _SRGB else values ** _POWERS[transfer]
    x_y = list(_PRIMARIES[primaries])
    linear = color_space(imagecodecs.cms_profile("rgb", whitepoint=x_y[:2], primaries=x_y[2:], gamma=1.0), 3)
    return ColorSpace(np.stack([light.astype(np.float32)] * 3), linear.matrix), notes
