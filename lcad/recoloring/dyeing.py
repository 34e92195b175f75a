"""Giving objects a colour: what is added to their a and b so that their mean colour is the one asked for.

An object that is dyed in one colour has a and b in proportion to L + 16 where light and shadow vary: in Lab all three
are differences of cube roots of X, Y and Z, which scale together. And what is grey in a coloured object, as the black
caps of a red hydrant, is to stay grey in a blue one. So a pixel's colour z = a + ib becomes r z + c (L + 16), with one
complex r and c for each object: r turns the hues from the mean one to the asked one, and where the asked chroma is
below the mean one it scales chroma down (never up: that would make patches of noise); c is such that the mean is right.

Letters: N objects, h x w the size that they are looked at, H x W the photo's. L in [0, 100], a and b in Lab units.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from lcad.color import lab_to_rgb_in_gamut, reduce_to_gamut, rgb_to_lab
from lcad.upsampling import ALL, bilinear

EDGE_SIDE = 1024  # pixels, long side of the photo at which the edges of masks are looked for
FIT_SIDE = 256  # pixels, long side of the result whose colours are measured to find the changes
RADIUS = 0.01  # of the long side: how far the edge of a mask may be from that of the luminance
EDGE_EPS = 5.0  # variance of L below which there is no edge
SHARPENING = 3.0  # of the guided filter's soft edges; see docs/exact_colors.md
LEAST_LEFT = 0.5  # of a mask's area: one of which less is left, as of thin things, stays as it is
STEPS = 30  # at most, to find the changes
CLOSE = 0.3  # Lab units from the asked mean, at which the search ends


@dataclass(frozen=True)
class Dyes:
    """What is done to the colours of a photo's objects.

    Attributes:
        turns: (N, 2), r of each object, real and imaginary; its magnitude is in [0, 1].
        changes: (N, 2), its c likewise, in Lab units for each unit of L.
        edges: (N, 2, h, w), slope and offset of each object's mask as a linear function of L, see `mask_edges`.
    """

    turns: Tensor
    changes: Tensor
    edges: Tensor

    def apply(self, rgb: Tensor, rows: slice = ALL, size: tuple[int, int] | None = None) -> Tensor:
        """The rows of a result (3, rows, W) in sRGB -> dyed, the same L.

        Args:
            size: (H, W) of the whole result; None: these are all its rows.
        """
        height, width = rgb.shape[-2:]
        lab = rgb_to_lab(rgb)
        weights = in_front(masks_at(self.edges, lab[:1], rows, size or (height, width)))
        return lab_to_rgb_in_gamut(_turned(lab, weights, self.turns, self.changes))


def mask_edges(luminance: Tensor, masks: Tensor) -> Tensor:
    """Masks (N, h, w) that follow the edges of L (1, h, w) -> slope and offset (N, 2, h, w) of each over L.

    The guided filter (He, Sun and Tang 2013) of the masks, guided by L, its soft edges made steeper; its linear
    functions, since they can be brought to the photo's own size and there give edges as sharp as the photo's (Fast
    Guided Filter, 2015).
    """
    radius = max(1, round(RADIUS * max(luminance.shape[-2:])))
    guide, masks = luminance[None], masks[:, None]  # (1, 1, h, w), (N, 1, h, w)
    level, inside = _box(guide, radius), _box(masks, radius)
    variance = _box(guide * guide, radius) - level**2
    slope = (_box(guide * masks, radius) - level * inside) / (variance + EDGE_EPS)
    slope, offset = _box(slope, radius), _box(inside - slope * level, radius)
    edges = torch.cat([SHARPENING * slope, SHARPENING * offset + (1 - SHARPENING) / 2], dim=1)
    left = (edges[:, :1] * guide + edges[:, 1:]).clamp(0, 1).sum((1, 2, 3), keepdim=True)
    plain = torch.cat([torch.zeros_like(masks), masks], dim=1)
    return torch.where(left < LEAST_LEFT * masks.sum((1, 2, 3), keepdim=True), plain, edges)


def masks_at(edges: Tensor, luminance: Tensor, rows: slice = ALL, size: tuple[int, int] | None = None) -> Tensor:
    """Masks at the size of a photo -> (N, rows, W) in [0, 1].

    Args:
        edges: (N, 2, h, w), see `mask_edges`.
        luminance: those rows of the photo's L (1, rows, W).
        size: (H, W) of the photo; None: these are all its rows.
    """
    whole = luminance.new_empty(1, 1, 1, 1).expand(1, 1, *(size or luminance.shape[-2:]))  # only its size is looked at
    slope, offset = bilinear(edges, edges, whole, rows).unbind(1)
    return (slope * luminance + offset).clamp(0, 1)


def in_front(masks: Tensor) -> Tensor:
    """Shares (N, H, W) of each pixel that masks have, their sum at most 1: the last lie in front of the others."""
    shares, free = [], torch.ones_like(masks[0])
    for mask in masks.flip(0):
        shares.append(mask * free)
        free = free * (1 - mask)
    return torch.stack(shares[::-1])


def find_changes(lab: Tensor, weights: Tensor, asked: Tensor) -> tuple[Tensor, Tensor]:
    """What brings the mean a and b of each object nearest to the asked ones -> turns and changes, see `Dyes`.

    Where a pixel cannot show its colour it gets as much chroma as its lightness has room for, and the others of its
    object get more for it.

    Args:
        lab: (3, h, w) of the result.
        weights: (N, h, w), see `in_front`.
        asked: (N, 2) a and b.
    """
    used = (weights > 0).any(0)
    pixels, weights = lab[:, None, used], weights[:, None, used]  # (3, 1, P), (N, 1, P)
    totals = weights.sum((1, 2)).clamp_min(1e-6)
    light = (weights * (pixels[0] + 16)).sum((1, 2)) / totals  # (N,) mean L + 16
    before = torch.einsum("nhw,chw->nc", weights, pixels[1:]) / totals[:, None]
    wanted, mean = (torch.complex(*pair.unbind(1)) for pair in (asked, before))
    turn = wanted * mean.conj() / mean.abs().square().clamp_min(1e-6)
    turns = torch.view_as_real(turn / turn.abs().clamp_min(1))
    changes = torch.zeros_like(asked)
    best, least = changes, torch.full_like(light, torch.inf)
    for _ in range(STEPS):
        mean = torch.einsum("nhw,chw->nc", weights, dyed(pixels, weights, turns, changes)[1:]) / totals[:, None]
        missing = asked - mean
        distance = missing.norm(dim=1)
        best = torch.where((distance < least)[:, None], changes, best)
        least = torch.minimum(distance, least)
        if (distance < CLOSE).all():
            break
        changes = changes + missing / light[:, None].clamp_min(16)
    return turns, best


def dyed(lab: Tensor, weights: Tensor, turns: Tensor, changes: Tensor) -> Tensor:
    """Lab (3, H, W) and shares (N, H, W), see `Dyes` -> Lab that sRGB can show."""
    return reduce_to_gamut(_turned(lab, weights, turns, changes))


def _turned(lab: Tensor, weights: Tensor, turns: Tensor, changes: Tensor) -> Tensor:
    """As `dyed`, but also what sRGB cannot show."""
    luminance, a, b = lab
    added = torch.einsum("nhw,nc->chw", weights, changes.to(lab)) * (luminance + 16)
    real, imaginary = torch.einsum("nhw,nc->chw", weights, turns.to(lab))
    real = real + 1 - weights.sum(0)
    turned = torch.stack([real * a - imaginary * b, real * b + imaginary * a])
    return torch.cat([lab[:1], turned + added])


def _box(image: Tensor, radius: int) -> Tensor:
    """The mean over a square of (B, 1, h, w), at the border over the part that is there."""
    for size, padding in (((2 * radius + 1, 1), (radius, 0)), ((1, 2 * radius + 1), (0, radius))):
        image = F.avg_pool2d(image, size, stride=1, padding=padding, count_include_pad=False)
    return image
