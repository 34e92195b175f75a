"""Colour profiles for tests, made by LittleCMS, and LittleCMS as the judge of what is shown."""

import struct
from collections.abc import Callable

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
P3_PRIMARIES = ((0.68, 0.32), (0.265, 0.69), (0.15, 0.06))
RGB_PROFILES = {
    "sRGB": SRGB,
    "Display P3": _rgb(D65, P3_PRIMARIES, transferfunction=_table(_SRGB_CURVE)),
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
    """CIE L (H, W) under D65 of grey (H, W), RGB (H, W, 3) or CMYK, uint8 or uint16, as LittleCMS shows it."""
    kind, inks = "gray", values.ndim == 3 and values.shape[2] == 4
    values = values if inks else (values / np.iinfo(values.dtype).max).astype(np.float32)
    if values.ndim == 2 and (icc is None or icc[16:20] != b"GRAY"):
        values = np.dstack([values] * 3)
    if values.ndim == 3:
        kind = "cmyk" if inks else "rgb"
    linear_srgb = _rgb(D65, _SRGB_PRIMARIES, gamma=1.0)
    linear = imagecodecs.cms_transform(
        values, icc or SRGB, linear_srgb, colorspace=kind, outcolorspace="rgb", intent=1, outdtype=np.float32
    ).astype(np.float64)
    return lightness(linear @ (0.212671, 0.715160, 0.072169))


def coded_luminance(values: np.ndarray, primaries: int, transfer: int) -> np.ndarray:
    """CIE L (H, W) of RGB (H, W, 3) or grey (H, W) in code points of H.273: its formulas, then LittleCMS."""
    v = np.arange(65536) / 65535
    curves = {
        1: np.where(v < 0.081, v / 4.5, ((v + 0.099) / 1.099) ** (1 / 0.45)),
        4: v**2.2,
        8: v,
        13: np.where(v > 0.04045, ((v + 0.055) / 1.055) ** 2.4, v / 12.92),
    }
    white_and_primaries = {
        1: (D65, _SRGB_PRIMARIES),
        9: (D65, ((0.708, 0.292), (0.17, 0.797), (0.131, 0.046))),
        11: ((0.314, 0.351), P3_PRIMARIES),
        12: (D65, P3_PRIMARIES),
    }
    values = np.dstack([values] * 3) if values.ndim == 2 else values
    light = curves[transfer][values.astype(int) * (257 if values.dtype == np.uint8 else 1)].astype(np.float32)
    linear = imagecodecs.cms_transform(
        light, _rgb(*white_and_primaries[primaries], gamma=1.0), _rgb(D65, _SRGB_PRIMARIES, gamma=1.0),
        colorspace="rgb", outcolorspace="rgb", intent=1,
    )  # fmt: skip
    return lightness(linear.astype(np.float64) @ (0.212671, 0.715160, 0.072169))


def lut_profile(space: bytes, lab: Callable[[np.ndarray], np.ndarray], steps: int = 9) -> bytes:
    """An ICC profile that is a table: `lab` of device values (N, C) in [0, 1] -> CIE Lab under D50 (N, 3)."""
    channels = {b"GRAY": 1, b"RGB ": 3, b"CMYK": 4}[space]
    axis = np.linspace(0, 1, steps)
    grid = np.stack(np.meshgrid(*[axis] * channels, indexing="ij"), axis=-1).reshape(-1, channels)
    table = (lab(grid) * (652.8, 256, 256) + (0, 32768, 32768)).clip(0, 65535).round().astype(">u2").tobytes()
    ramp = np.array([0, 65535], ">u2").tobytes()
    identity = struct.pack(">9i", *(65536 * np.eye(3, dtype=int)).flatten().tolist())
    head = b"mft2" + bytes(4) + bytes([channels, 3, steps, 0]) + identity + struct.pack(">HH", 2, 2)
    tags = {
        b"desc": b"desc" + bytes(4) + struct.pack(">I", 6) + b"table\0" + bytes(78),
        b"wtpt": b"XYZ " + bytes(4) + struct.pack(">3i", 63190, 65536, 54061),
        b"A2B0": head + ramp * channels + table + ramp * 3,
    }
    place, index, body = 128 + 4 + 12 * len(tags), struct.pack(">I", len(tags)), b""
    for name, data in tags.items():
        index += name + struct.pack(">II", place + len(body), len(data))
        body += data + bytes(-len(data) % 4)
    kind = b"prtr" if channels == 4 else b"scnr"
    header = struct.pack(">I4sI4s4s4s", 128 + len(index + body), b"lcms", 0x02400000, kind, space, b"Lab ")
    header += struct.pack(">6H4s", 2026, 1, 1, 0, 0, 0, b"acsp") + bytes(28) + struct.pack(">3i", 63190, 65536, 54061)
    return header.ljust(128, b"\0") + index + body


def lightness(y: np.ndarray) -> np.ndarray:
    """Y in [0, 1] -> CIE L."""
    return np.where(y > 0.008856, 116 * np.cbrt(y) - 16, 903.3 * y)


def error_in_steps(before: np.ndarray, after: np.ndarray, depth: int, icc: bytes | None) -> np.ndarray:
    """|L - L'| in quantisation steps of RGB values in a profile: what L of a grey changes by from level to level."""
    ramp = np.arange(2**depth).astype(np.uint16 if depth == 16 else np.uint8)[None]
    levels = shown_luminance(np.dstack([ramp] * 3), icc)[0]
    index = np.searchsorted(levels, before).clip(1, len(levels) - 1)
    steps = np.maximum(levels[index] - levels[index - 1], 3e-4)  # which is less than LittleCMS' own precision in black
    return np.abs(before - after) / steps
