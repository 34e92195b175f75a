"""Chroma from the size a model works at to a photo's own, along the edges of its luminance.

Shapes: chroma (B, 2, h, w) in Lab units; small (B, 1, h, w) and large (B, 1, H, W) L of the same photo, in [0, 100].
"""

from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from lcad.color import lab_to_rgb, reduce_to_gamut, rgb_to_lab
from lcad.io.color_profiles import strips

RADIUS = 1  # of the neighbourhoods, in pixels of the small size
GUIDED_EPS = 64.0  # variance of L below which chroma does not follow L
RANGE_SIGMA = 8.0  # difference of L that the bilateral takes for an edge
SPACE_SIGMA = 0.5  # of the bilateral, in pixels of the small size
ALL = slice(None)


def bilinear(chroma: Tensor, small: Tensor, large: Tensor, rows: slice = ALL) -> Tensor:
    """Bilinear, without a look at the luminance -> (B, 2, rows, W)."""
    return _enlarge(chroma, large, rows, "bilinear")


def bicubic(chroma: Tensor, small: Tensor, large: Tensor, rows: slice = ALL) -> Tensor:
    """Bicubic, without a look at the luminance -> (B, 2, rows, W)."""
    return _enlarge(chroma, large, rows)


def guided_upsample(chroma: Tensor, small: Tensor, large: Tensor, rows: slice = ALL) -> Tensor:
    """Bicubic, and what L has lost at the small size times the guided filter's slope -> (B, 2, rows, W).

    The slope of chroma over L in each neighbourhood is the guided filter's, found at the small size (He and Sun, Fast
    Guided Filter, 2015). The filter itself would blur what the small size does resolve; so it adds the details alone.
    """

    def mean(image: Tensor) -> Tensor:
        return F.avg_pool2d(image, 2 * RADIUS + 1, stride=1, padding=RADIUS, count_include_pad=False)

    variance = mean(small * small) - mean(small) ** 2
    slope = mean((mean(small * chroma) - mean(small) * mean(chroma)) / (variance + GUIDED_EPS))
    details = large[..., rows, :] - _enlarge(small, large, rows)
    return _enlarge(chroma, large, rows) + _enlarge(slope, large, rows, "bilinear") * details


def bilateral(chroma: Tensor, small: Tensor, large: Tensor, rows: slice = ALL) -> Tensor:
    """Joint bilateral -> (B, 2, rows, W): small pixels weighed by distance and likeness of L (Kopf et al. 2007)."""
    y, x = _centres(small, large)
    y, large = y[rows], large[..., rows, :]
    last_row, last_column = (side - 1 for side in small.shape[-2:])
    total, weights = torch.zeros((), device=large.device), torch.zeros((), device=large.device)
    for dy in range(-RADIUS, RADIUS + 1):
        for dx in range(-RADIUS, RADIUS + 1):
            row, column = (y.round() + dy).long(), (x.round() + dx).long()
            distance = ((row - y)[:, None] ** 2 + (column - x) ** 2) / (2 * SPACE_SIGMA**2)
            row, column = row.clamp(0, last_row)[:, None], column.clamp(0, last_column)
            unlike = (small[..., row, column] - large) ** 2 / (2 * RANGE_SIGMA**2)
            weight = torch.exp(-distance) * (torch.exp(-unlike) + 1e-4)
            total, weights = total + weight * chroma[..., row, column], weights + weight
    return total / weights


def transfer_chroma(luminance: Tensor, decoded: Tensor) -> Tensor:
    """A photo's own L with the chroma of a picture of it.

    Args:
        luminance: L (B, 1, H, W) in [0, 100].
        decoded: sRGB (B, 3, h, w) in [0, 1], of any size.

    Returns:
        sRGB (B, 3, H, W) in [0, 1]; colours that cannot be shown lose chroma, not lightness.
    """
    return torch.cat([part for _, part in transfer_chroma_strips(luminance, decoded)], dim=-2)


def transfer_chroma_strips(luminance: Tensor, decoded: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """`transfer_chroma` in strips of rows, for very large photos in little memory -> rows, sRGB (B, 3, rows, W)."""
    chroma = rgb_to_lab(decoded)[:, 1:]
    same_size = chroma.shape[-2:] == luminance.shape[-2:]
    small = resize(luminance, chroma.shape[-2:])
    for rows in strips(*luminance.shape[-2:]):
        part = chroma[..., rows, :] if same_size else guided_upsample(chroma, small, luminance, rows)
        yield rows, lab_to_rgb(reduce_to_gamut(torch.cat([luminance[..., rows, :], part], dim=1)))


def resize(image: Tensor, size: Sequence[int]) -> Tensor:
    """(B, C, H, W) -> (B, C, *size), bicubic, antialiased."""
    if tuple(image.shape[-2:]) == tuple(size):
        return image
    return F.interpolate(image, tuple(size), mode="bicubic", align_corners=False, antialias=True)


METHODS = {"bilinear": bilinear, "bicubic": bicubic, "bilateral": bilateral, "guided": guided_upsample}


def _centres(small: Tensor, large: Tensor) -> tuple[Tensor, Tensor]:
    """The centres (y, x) of the large pixels, in small pixels."""
    y, x = (
        (torch.arange(many, device=large.device) + 0.5) * few / many - 0.5
        for few, many in zip(small.shape[-2:], large.shape[-2:], strict=True)
    )
    return y, x


def _enlarge(image: Tensor, like: Tensor, rows: slice, mode: str = "bicubic") -> Tensor:
    """(B, C, h, w) -> the rows of it at the size of `like`, as `torch.nn.functional.interpolate` makes them."""
    y, x = _centres(image, like)
    grid = torch.stack(
        torch.meshgrid((2 * x + 1) / image.shape[-1] - 1, (2 * y[rows] + 1) / image.shape[-2] - 1, indexing="xy"), -1
    )
    return F.grid_sample(image, grid.expand(len(image), -1, -1, -1), mode, "border", align_corners=False)


def finish_photos(decoded: Tensor, luminances: list[Tensor], output_luminance: str) -> list[Tensor]:
    """The model's pictures (B, 3, h, w) in [0, 1] of photos with L (1, H, W) -> results (3, H, W) in [0, 1].

    Args:
        output_luminance: `input`, the photos' own; or `decoded`, the network's.
    """
    if output_luminance == "decoded":
        return [resize(rgb[None], own.shape[-2:])[0].clamp(0, 1) for rgb, own in zip(decoded, luminances, strict=True)]
    return [transfer_chroma(own[None], rgb[None])[0] for rgb, own in zip(decoded, luminances, strict=True)]
