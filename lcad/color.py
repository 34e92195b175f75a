"""Colour spaces and the hint.

rgb: sRGB in [0, 1]. lab: CIE Lab under D65; L in [0, 100], a and b in Lab units (about [-87, 98] and
[-108, 94] inside sRGB). hint: L scaled and repeated to three channels, what the luminance encoder sees.
Tensors are (..., 3, H, W); the formulas are those of scikit-image's `rgb2lab`, in torch, differentiable.
"""

import numpy as np
import torch
from torch import Tensor

# linear sRGB -> XYZ (IEC 61966-2-1), rows divided by the D65 white point
_XYZ_FROM_RGB = (
    (0.412453, 0.357580, 0.180423),
    (0.212671, 0.715160, 0.072169),
    (0.019334, 0.119193, 0.950227),
)
_WHITE = (0.95047, 1.0, 1.08883)

# Y'CbCr (BT.601, full range, zero-centred chroma): linear in rgb, for losses that weigh chroma
_YCC_FROM_RGB = (
    (0.299, 0.587, 0.114),
    (-0.168736, -0.331264, 0.5),
    (0.5, -0.418688, -0.081312),
)

GAMUT_STEPS, GAMUT_TOLERANCE = 8, 1e-6  # of `reduce_to_gamut`

HINT_SCALES = {
    "unit": (50.0, -1.0),  # L / 50 - 1, in [-1, 1]: models trained by this project
    "release": (127.5, -1.0),  # L / 127.5 - 1, in [-1, -0.216]: what published weights were trained with
}


def _mix(image: Tensor, matrix: Tensor) -> Tensor:
    return torch.einsum("ij,...jhw->...ihw", matrix.to(image), image)


def rgb_to_linear(rgb: Tensor) -> Tensor:
    """sRGB, any shape -> linear sRGB."""
    return torch.where(rgb > 0.04045, ((rgb.clamp_min(0.04045) + 0.055) / 1.055) ** 2.4, rgb / 12.92)


def rgb_to_lab(rgb: Tensor) -> Tensor:
    """sRGB in [0, 1], (..., 3, H, W) -> Lab, same shape."""
    matrix = torch.tensor(_XYZ_FROM_RGB, dtype=torch.float64) / torch.tensor(_WHITE, dtype=torch.float64)[:, None]
    xyz = _mix(rgb_to_linear(rgb), matrix)
    f = torch.where(xyz > 0.008856, xyz.clamp_min(0.008856) ** (1 / 3), 7.787 * xyz + 16 / 116)
    fx, fy, fz = f.unbind(-3)
    return torch.stack([116 * fy - 16, 500 * (fx - fy), 200 * (fy - fz)], dim=-3)


def lab_to_rgb(lab: Tensor) -> Tensor:
    """Lab, (..., 3, H, W) -> sRGB, clipped to [0, 1], same shape."""
    return _linear_to_rgb(_lab_to_linear(lab))


def _linear_to_rgb(linear: Tensor) -> Tensor:
    """Linear sRGB -> sRGB, clipped to [0, 1]."""
    bright = (linear.clamp_min(0.0031308) ** (1 / 2.4)).mul_(1.055).sub_(0.055)
    return torch.where(linear > 0.0031308, bright, 12.92 * linear).clamp(0, 1)


def _lab_to_linear(lab: Tensor) -> Tensor:
    """Lab -> linear sRGB, outside [0, 1] for colours outside the gamut."""
    luminance, a, b = lab.unbind(-3)
    fy = (luminance + 16) / 116
    f = torch.stack([fy + a / 500, fy, (fy - b / 200).clamp_min(0)], dim=-3)
    xyz = torch.where(f > 0.2068966, f**3, (f - 16 / 116) / 7.787)
    matrix = torch.linalg.inv(torch.tensor(_XYZ_FROM_RGB, dtype=torch.float64))
    return _mix(xyz, matrix * torch.tensor(_WHITE, dtype=torch.float64)[None, :])


def reduce_to_gamut(lab: Tensor, steps: int = GAMUT_STEPS, tolerance: float = GAMUT_TOLERANCE) -> Tensor:
    """Lab (..., 3, H, W) -> the same lightness and hue, with only so much chroma as sRGB can show; itself if it can.

    By bisection on the factor of the chroma, to 1 / 2**steps; linear sRGB may lie `tolerance` outside [0, 1].
    """
    return _reduced(lab, steps, tolerance)[0]


def lab_to_rgb_in_gamut(lab: Tensor) -> Tensor:
    """As `lab_to_rgb` of what `reduce_to_gamut` makes of it, in less time."""
    return _linear_to_rgb(_reduced(lab, GAMUT_STEPS, GAMUT_TOLERANCE)[1])


def _reduced(lab: Tensor, steps: int, tolerance: float) -> tuple[Tensor, Tensor]:
    """-> Lab, and linear sRGB of it."""
    luminance = lab[..., :1, :, :]
    clamped = luminance.clamp(0, 100)
    reduced = lab if torch.equal(clamped, luminance) else torch.cat([clamped, lab[..., 1:, :, :]], dim=-3)
    linear = _lab_to_linear(reduced)
    outside = ~_shown(linear, tolerance, -3)
    if not outside.any():
        return reduced, linear
    pixels, light = reduced.clone().movedim(-3, 0), linear.movedim(-3, 0)  # views: (3, ..., H, W)
    luminance, chroma = pixels[:1, outside, None], pixels[1:, outside, None]  # (1 or 2, pixels outside, 1)
    low, high = torch.zeros_like(luminance), torch.ones_like(luminance)
    for _ in range(steps):
        factor = (low + high) / 2
        inside = _shown(_lab_to_linear(torch.cat([luminance, factor * chroma])), tolerance)
        low, high = torch.where(inside, factor, low), torch.where(inside, high, factor)
    found = torch.cat([luminance, low * chroma])
    pixels[:, outside], light[:, outside] = found[..., 0], _lab_to_linear(found)[..., 0]
    return pixels.movedim(0, -3), linear


def _shown(linear: Tensor, tolerance: float, channels: int = 0) -> Tensor:
    """Linear sRGB with its channels in a dimension -> bool without that: can it be shown?"""
    return (linear.amin(channels) >= -tolerance) & (linear.amax(channels) <= 1 + tolerance)


def rgb_to_luminance(rgb: Tensor) -> Tensor:
    """sRGB in [0, 1], (..., 3, H, W) -> L in [0, 100], (..., 1, H, W)."""
    return linear_to_luminance(rgb_to_linear(rgb))


def linear_to_luminance(linear: Tensor) -> Tensor:
    """Linear sRGB, (..., 3, H, W) -> L, (..., 1, H, W), below 0 where Y is."""
    red, green, blue = (
        weight * part for weight, part in zip(_XYZ_FROM_RGB[1], torch.split(linear, 1, dim=-3), strict=True)
    )
    y = red + green + blue  # not as a product with a matrix, which autocast would round
    return 116 * torch.where(y > 0.008856, y.clamp_min(0.008856) ** (1 / 3), 7.787 * y + 16 / 116) - 16


def rgb_to_ycc(rgb: Tensor) -> Tensor:
    """sRGB, any linear range, (..., 3, H, W) -> luma and zero-centred chroma, same scale and shape."""
    return _mix(rgb, torch.tensor(_YCC_FROM_RGB))


def luminance_to_hint(luminance: Tensor, scale: str) -> Tensor:
    """L in [0, 100], (..., 1, H, W) -> hint (..., 3, H, W).

    Args:
        scale: a row of `HINT_SCALES`.

    Raises:
        ValueError: unknown scale.
    """
    if scale not in HINT_SCALES:
        raise ValueError(f"unknown hint scale {scale!r}; allowed: {', '.join(HINT_SCALES)}")
    divisor, offset = HINT_SCALES[scale]
    hint = luminance / divisor + offset
    return torch.cat([hint, hint, hint], dim=-3)


def rgb_to_hint(rgb: Tensor, scale: str) -> Tensor:
    """sRGB in [0, 1], (..., 3, H, W) -> hint, same shape; see `luminance_to_hint`."""
    return luminance_to_hint(rgb_to_luminance(rgb), scale)


def luminance_to_rgb(luminance: Tensor) -> Tensor:
    """L (..., 1, H, W) in [0, 100] -> the grey photo that has it, sRGB (..., 3, H, W)."""
    neutral = torch.zeros_like(luminance)
    return lab_to_rgb(torch.cat([luminance, neutral, neutral], dim=-3))


def merge_chroma(luminance: Tensor, lab: Tensor) -> Tensor:
    """L from `luminance` (..., 1, H, W) and ab from `lab` (..., 3, H, W) -> sRGB (..., 3, H, W), clipped."""
    return lab_to_rgb(torch.cat([luminance, lab[..., 1:, :, :]], dim=-3))


def mean_color(image: Tensor, mask: Tensor) -> np.ndarray:
    """The mean Lab colour (3,) of an image (3, H, W) in [0, 1] inside a mask (H, W)."""
    lab = rgb_to_lab(image.float().cpu())
    return (lab * mask).sum(dim=(-2, -1)).div(mask.sum()).numpy()


def colorfulness(rgb: Tensor) -> Tensor:
    """Hasler and Suesstrunk 2003, of rgb (..., 3, H, W) in [0, 1]: sigma_rgyb + 0.3 mu_rgyb, of [0, 255] images."""
    return _spread(*_opponents(rgb))


def absolute_colorfulness(rgb: Tensor) -> Tensor:
    """The variant many colorization papers report: the same, of the absolute values |rg| and |yb|."""
    return _spread(*(value.abs() for value in _opponents(rgb)))


def _spread(rg: Tensor, yb: Tensor) -> Tensor:
    sigma = torch.sqrt(rg.var(dim=(-2, -1), correction=0) + yb.var(dim=(-2, -1), correction=0))
    mean = torch.sqrt(rg.mean(dim=(-2, -1)) ** 2 + yb.mean(dim=(-2, -1)) ** 2)
    return sigma + 0.3 * mean


def _opponents(rgb: Tensor) -> tuple[Tensor, Tensor]:
    red, green, blue = (rgb * 255).unbind(-3)
    return red - green, 0.5 * (red + green) - blue
