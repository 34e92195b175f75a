"""Sampling larger latents than a model has learnt, in overlapping tiles of a size it works at.

After MultiDiffusion (Bar-Tal et al. 2023): at every step each tile's prediction is made apart, and where tiles overlap
the predictions are averaged, so that no seam can form. Letters: B photos, C channels, h x w the latents.
"""

import math

import torch
from torch import Tensor

from ldm.guidance import Denoiser

Tile = tuple[slice, slice]
"""Rows and columns of the latents."""


def tiles(size: tuple[int, int], tile: tuple[int, int]) -> list[Tile]:
    """Tiles that cover latents of `size` (h, w) and overlap by half or more; one, if it holds all."""

    def along(length: int, own: int) -> list[slice]:
        own = min(length, own)
        number = math.ceil((length - own) / max(1, own // 2)) + 1
        return [slice(start, start + own) for start in torch.linspace(0, length - own, number).round().int().tolist()]

    return [(rows, columns) for rows in along(size[0], tile[0]) for columns in along(size[1], tile[1])]


def tiled(denoisers: list[Denoiser], places: list[Tile]) -> Denoiser:
    """One denoiser of x (B, C, h, w) from one for each tile; a tile weighs most in its middle."""
    if len(denoisers) == 1:
        return denoisers[0]

    def denoise(x: Tensor, t: Tensor) -> Tensor:
        total, weights = torch.zeros_like(x), torch.zeros_like(x[:1, :1])
        for own, (rows, columns) in zip(denoisers, places, strict=True):
            part = x[..., rows, columns]
            weight = _tent(part.shape[-2], x)[:, None] * _tent(part.shape[-1], x)
            total[..., rows, columns] += weight * own(part, t)
            weights[..., rows, columns] += weight
        return total / weights

    return denoise


def _tent(length: int, x: Tensor) -> Tensor:
    """Weights in (0, 1] that fall from the middle to both ends, made where x is: nothing is copied there."""
    return (1 - ((torch.arange(length, device=x.device) + 0.5) * 2 / length - 1).abs() * 0.99).to(x)
