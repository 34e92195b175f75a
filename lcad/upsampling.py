"""Chroma from the size a model works at to a photo's own, along the edges of its luminance.

Shapes: chroma (B, 2, h, w) in Lab units; small (B, 1, h, w) and large (B, 1, H, W) L of the same photo, in [0, 100].
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from lcad.color import lab_to_rgb, reduce_to_gamut, rgb_to_lab

RADIUS = 1  # of the neighbourhoods, in pixels of the small size
GUIDED_EPS = 64.0  # variance of L below which chroma does not follow L
RANGE_SIGMA = 8.0  # difference of L that the bilateral takes for an edge
SPACE_SIGMA = 0.5  # of the bilateral, in pixels of the small size


def bicubic(chroma: Tensor, small: Tensor, large: Tensor) -> Tensor:
    """Bicubic, without a look at the luminance -> (B, 2, H, W)."""
    return _resize(chroma, large)


def bilinear(chroma: Tensor, small: Tensor, large: Tensor) -> Tensor:
    """Bilinear, without a look at the luminance -> (B, 2, H, W)."""
    return _resize(chroma, large, "bilinear")


def guided(chroma: Tensor, small: Tensor, large: Tensor) -> Tensor:
    """Bicubic, and what L has lost at the small size times the guided filter's slope -> (B, 2, H, W).

    The slope of chroma over L in each neighbourhood is the guided filter's, found at the small size (He and Sun, Fast
    Guided Filter, 2015). The filter itself would blur what the small size does resolve; so it adds the details alone.
    """

    def mean(image: Tensor) -> Tensor:
        return F.avg_pool2d(image, 2 * RADIUS + 1, stride=1, padding=RADIUS, count_include_pad=False)

    variance = mean(small * small) - mean(small) ** 2
    slope = mean((mean(small * chroma) - mean(small) * mean(chroma)) / (variance + GUIDED_EPS))
    return _resize(chroma, large) + _resize(slope, large, "bilinear") * (large - _resize(small, large))


def bilateral(chroma: Tensor, small: Tensor, large: Tensor) -> Tensor:
    """Joint bilateral -> (B, 2, H, W): small pixels weighed by distance and likeness of L (Kopf et al. 2007)."""
    (rows, columns), (height, width) = small.shape[-2:], large.shape[-2:]
    y = (torch.arange(height, device=large.device) + 0.5) * rows / height - 0.5  # centres, in small pixels
    x = (torch.arange(width, device=large.device) + 0.5) * columns / width - 0.5
    total, weights = 0, 0
    for dy in range(-RADIUS, RADIUS + 1):
        for dx in range(-RADIUS, RADIUS + 1):
            row, column = (y.round() + dy).long(), (x.round() + dx).long()
            distance = ((row - y)[:, None] ** 2 + (column - x) ** 2) / (2 * SPACE_SIGMA**2)
            row, column = row.clamp(0, rows - 1)[:, None], column.clamp(0, columns - 1)
            unlike = (small[..., row, column] - large) ** 2 / (2 * RANGE_SIGMA**2)
            weight = torch.exp(-distance) * (torch.exp(-unlike) + 1e-4)
            total, weights = total + weight * chroma[..., row, column], weights + weight
    return total / weights


def recolor(luminance: Tensor, decoded: Tensor) -> Tensor:
    """A photo's own L with the chroma of a picture of it.

    Args:
        luminance: L (B, 1, H, W) in [0, 100].
        decoded: sRGB (B, 3, h, w) in [0, 1], of any size.

    Returns:
        sRGB (B, 3, H, W) in [0, 1]; colours that cannot be shown lose chroma, not lightness.
    """
    chroma = rgb_to_lab(decoded)[:, 1:]
    if chroma.shape[-2:] != luminance.shape[-2:]:
        small = F.interpolate(luminance, chroma.shape[-2:], mode="bicubic", align_corners=False, antialias=True)
        chroma = guided(chroma, small, luminance)
    return lab_to_rgb(reduce_to_gamut(torch.cat([luminance, chroma], dim=1)))


METHODS = {"bilinear": bilinear, "bicubic": bicubic, "bilateral": bilateral, "guided": guided}


def _resize(image: Tensor, like: Tensor, mode: str = "bicubic") -> Tensor:
    return F.interpolate(image, like.shape[-2:], mode=mode, align_corners=False)
