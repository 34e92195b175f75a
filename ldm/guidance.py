"""Classifier-free guidance as a wrapper around a denoiser (Ho and Salimans 2022)."""

from collections.abc import Callable

import torch
from torch import Tensor

Denoiser = Callable[[Tensor, Tensor], Tensor]
"""(x (B, C, h, w), t scalar tensor; from `ldm.sampling.sample` on the CPU) -> predicted noise (B, C, h, w)."""


def classifier_free_guidance(predict: Denoiser, scale: float | Tensor | Callable[[], float]) -> Denoiser:
    """Classifier-free guidance of a denoiser that takes the conditional batch followed by the unconditional one.

    eps = eps_uncond + scale * (eps_cond - eps_uncond)

    Args:
        predict: takes (2 B, C, h, w): rows [0, B) are conditional, rows [B, 2 B) unconditional.
        scale: 1 is no guidance (then `predict` should be called without this wrapper); a number or a scalar tensor, one
            for each place (B, 1, h, w), or a function that gives it at each step.
    """

    def denoise(x: Tensor, t: Tensor) -> Tensor:
        conditional, unconditional = predict(torch.cat([x, x]), t).chunk(2)
        now = scale() if callable(scale) else scale
        return unconditional + now * (conditional - unconditional)

    return denoise
