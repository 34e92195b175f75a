"""Colour profiles for tests, made by LittleCMS, and LittleCMS as the judge of what is shown."""

import imagecodecs
import numpy as np

D50, D65 = (0.3457, 0.3585), (0.3127, 0.329)
SRGB = imagecodecs.cms_profile("srgb")
_RAMP = np.linspace(0, 1, 1024)


def _rgb(white: tuple, primaries: tuple, **curve) -> bytes:
    xyy = [number for x, y in primaries for number in (x, y, 1)]
    return imagecodecs.cms_profile("rgb", whitepoint=white, primaries=xyy, **curve)


def _gray(**curve) -> bytes:
    return imagecodecs.cms_profile("gray", whitepoint=D50, **curve)


def _table(light: np.ndarray) -> np.ndarray:
    return (light * 65535).round().astype(np.uint16)


_SRGB_CURVE = np.where(_RAMP > 0.04045, ((_RAMP + 0.055) / 1.055) ** 2.4, _RAMP / 12.92)
_SRGB_PRIMARIES = ((0.64, 0.33), (0.3, 0.6), (0.15, 0.06))
RGB_PROFILES = {
    "sRGB": SRGB,
    "Display P3": _rgb(D65, ((0.68, 0.32), (0.265, 0.69), (0.15, 0.06)), transferfunction=_table(_SRGB_CURVE)),
    "Adobe RGB": _rgb(D65, ((0.64, 0.33), (0.21, 0.71), (0.15, 0.06)), gamma=2.19921875),
    "ProPhoto": _rgb(D50, ((0.7347, 0.2653), (0.1596, 0.8404), (0.0366, 0.0001)), gamma=1.8),
    "linear RGB": _rgb(D65, _SRGB_PRIMARIES, gamma=1.0),
}
NARROW = _rgb(D65, ((0.6, 0.34), (0.3, 0.55), (0.16, 0.1)), gamma=1.8)  # as of an old screen
_INK = 1 - _RAMP + 0.8 * _RAMP * (1 - _RAMP)  # a dot gain of 20 % in the middle
GRAY_PROFILES = {
    "Gray 1.8": _gray(gamma=1.8),
    "Gray 2.2": _gray(gamma=2.2),
    "Gray linear": _gray(gamma=1.0),
    "Dot Gain 20 %": _gray(transferfunction=_table(1 - _INK.clip(0, 1))),
}


def shown_luminance(values: np.ndarray, icc: bytes | None) -> np.ndarray:
    """CIE L (H, W) under D65 of grey (H, W) or RGB (H, W, 3), uint8 or uint16, as LittleCMS shows it on linear sRGB."""
    kind, values = "gray", (values / np.iinfo(values.dtype).max).astype(np.float32)
    if values.ndim == 2 and (icc is None or icc[16:20] != b"GRAY"):
        values = np.dstack([values] * 3)
    if values.ndim == 3:
        kind = "rgb"
    linear_srgb = _rgb(D65, _SRGB_PRIMARIES, gamma=1.0)
    linear = imagecodecs.cms_transform(
        values, icc or SRGB, linear_srgb, colorspace=kind, outcolorspace="rgb", intent=1
    ).astype(np.float64)
    y = linear @ (0.212671, 0.715160, 0.072169)
    return np.where(y > 0.008856, 116 * np.cbrt(y) - 16, 903.3 * y)


def error_in_steps(before: np.ndarray, after: np.ndarray, depth: int, icc: bytes | None) -> np.ndarray:
    """|L - L'| in quantisation steps of RGB values in a profile: what L of a grey changes by from level to level."""
    ramp = np.arange(2**depth).astype(np.uint16 if depth == 16 else np.uint8)[None]
    levels = shown_luminance(np.dstack([ramp] * 3), icc)[0]
    index = np.searchsorted(levels, before).clip(1, len(levels) - 1)
    steps = np.maximum(levels[index] - levels[index - 1], 3e-4)  # which is less than LittleCMS' own precision in black
    return np.abs(before - after) / steps
