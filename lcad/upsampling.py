"""Chroma from the size a model works at to a photo's own, along the edges of its luminance.

Shapes: chroma (B, 2, h, w) in Lab units; small (B, 1, h, w) and large (B, 1, H, W) L of the same photo, in [0, 100].
"""

from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby

import torch
import torch.nn.functional as F
from torch import Tensor

from lcad.color import lab_to_rgb_in_gamut, rgb_to_lab
from lcad.io.color_profiles import strips

RADIUS = 1  # of the neighbourhoods, in pixels of the small size
GUIDED_EPS = 64.0  # variance of L below which chroma does not follow L
RANGE_SIGMA = 8.0  # difference of L that the bilateral takes for an edge
SPACE_SIGMA = 0.5  # of the bilateral, in pixels of the small size
ALL = slice(None)
COLUMNS = 512  # that `Enlargement` makes at once
PIXELS_ON_DEVICE = 2**24  # of a photo; larger ones are finished on the CPU, which has room for them
PIXELS_TOGETHER = 2**22  # of photos that are finished at once


def bilinear(chroma: Tensor, small: Tensor, large: Tensor, rows: slice = ALL) -> Tensor:
    """Bilinear, without a look at the luminance -> (B, 2, rows, W)."""
    y, x = _centres(chroma, large)
    grid = torch.stack(
        torch.meshgrid((2 * x + 1) / chroma.shape[-1] - 1, (2 * y[rows] + 1) / chroma.shape[-2] - 1, indexing="xy"), -1
    )
    return F.grid_sample(chroma, grid.expand(len(chroma), -1, -1, -1), "bilinear", "border", align_corners=False)


def bicubic(chroma: Tensor, small: Tensor, large: Tensor) -> Tensor:
    """Bicubic, without a look at the luminance -> (B, 2, H, W)."""
    return F.interpolate(chroma, large.shape[-2:], mode="bicubic")


def guided_upsample(chroma: Tensor, small: Tensor, large: Tensor) -> Tensor:
    """Bicubic, and what L has lost at the small size times the guided filter's slope -> (B, 2, H, W).

    The slope of chroma over L in each neighbourhood is the guided filter's, found at the small size (He and Sun, Fast
    Guided Filter, 2015). The filter itself would blur what the small size does resolve; so it adds the details alone.
    """
    return torch.cat([part for _, part in guided_strips(chroma, small, large)], dim=-2)


def guided_strips(chroma: Tensor, small: Tensor, large: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """`guided_upsample` in strips of rows -> rows, chroma (B, 2, rows, W)."""

    def mean(image: Tensor) -> Tensor:
        return F.avg_pool2d(image, 2 * RADIUS + 1, stride=1, padding=RADIUS, count_include_pad=False)

    variance = mean(small * small) - mean(small) ** 2
    slope = mean((mean(small * chroma) - mean(small) * mean(chroma)) / (variance + GUIDED_EPS))
    colors = Enlargement(torch.cat([chroma, small], dim=1), large.shape[-2:], "bicubic")
    slopes = Enlargement(slope, large.shape[-2:], "bilinear")
    for rows in strips(*large.shape[-2:]):
        color = colors[rows]
        yield rows, color[:, :2] + slopes[rows] * (large[..., rows, :] - color[:, 2:])


def bilateral(chroma: Tensor, small: Tensor, large: Tensor) -> Tensor:
    """Joint bilateral -> (B, 2, H, W): small pixels weighed by distance and likeness of L (Kopf et al. 2007)."""
    y, x = _centres(small, large)
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
    parts: Iterable[tuple[slice, Tensor]]
    if chroma.shape[-2:] == luminance.shape[-2:]:
        parts = ((rows, chroma[..., rows, :]) for rows in strips(*luminance.shape[-2:]))
    else:
        parts = guided_strips(chroma, resize(luminance, chroma.shape[-2:]), luminance)
    for rows, part in parts:
        yield rows, lab_to_rgb_in_gamut(torch.cat([luminance[..., rows, :], part], dim=1))


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


class Enlargement:
    """(B, C, h, w) at another size, as `torch.nn.functional.interpolate` makes it, some rows at a time and faster.

    Both directions are products with matrices. Blocks of columns need but a few columns of the image.
    """

    def __init__(self, image: Tensor, size: Sequence[int], mode: str):
        self.image = image
        self.down, across = (
            _matrix(few, many, mode).to(image) for few, many in zip(image.shape[-2:], size, strict=True)
        )
        self.blocks = []
        for block in torch.split(across, COLUMNS):
            used = block.any(dim=0).nonzero()
            columns = slice(int(used.min()), int(used.max()) + 1)
            self.blocks.append((columns, block[:, columns].T.contiguous()))

    def __getitem__(self, rows: slice) -> Tensor:
        """-> (B, C, rows, W)"""
        with torch.autocast(self.image.device.type, enabled=False):
            tall = self.down[rows] @ self.image
            return torch.cat([tall[..., columns] @ block for columns, block in self.blocks], dim=-1)


def _matrix(few: int, many: int, mode: str) -> Tensor:
    """(many, few): what each of `few` values in a row weighs in each of `many`."""
    return F.interpolate(torch.eye(few)[None, :, :, None], (many, 1), mode=mode)[0, :, :, 0].T


def finish_photos(decoded: Tensor, luminances: list[Tensor], output_luminance: str) -> list[Tensor]:
    """The model's pictures (B, 3, h, w) in [0, 1] of photos with L (1, H, W) -> results (3, H, W) in [0, 1],
    on the CPU; worked out where the pictures are, unless a photo is very large, those of one size together.

    Args:
        output_luminance: `input`, the photos' own; or `decoded`, the network's.
    """
    results: list[Tensor] = []
    for size, group in groupby(luminances, key=lambda own: own.shape):
        alike, most = [*group], max(1, PIXELS_TOGETHER // size.numel())
        for first in range(0, len(alike), most):
            own = torch.stack(alike[first : first + most])
            rgb = decoded[len(results) : len(results) + len(own)]
            rgb = rgb if size.numel() <= PIXELS_ON_DEVICE else rgb.cpu()
            if output_luminance == "decoded":
                made = resize(rgb, size[-2:]).clamp(0, 1)
            else:
                made = transfer_chroma(own.to(rgb.device), rgb)
            results += made.cpu()
    return results
