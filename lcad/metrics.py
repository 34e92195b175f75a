"""Measures of colorized photos. Images are (B, 3, H, W) in [0, 1]; one value a photo, (B,)."""

import torch
from torch import Tensor


def psnr(real: Tensor, fake: Tensor) -> Tensor:
    """Peak signal-to-noise ratio over RGB, in dB."""
    error = ((real - fake) ** 2).mean(dim=(-3, -2, -1)).clamp_min(1e-12)
    return -10 * torch.log10(error)


def colorfulness(rgb: Tensor) -> Tensor:
    """Hasler and Suesstrunk 2003: sigma_rgyb + 0.3 mu_rgyb, on the scale of [0, 255] images."""
    red, green, blue = (rgb * 255).unbind(-3)
    rg, yb = red - green, 0.5 * (red + green) - blue
    sigma = torch.sqrt(rg.var(dim=(-2, -1), correction=0) + yb.var(dim=(-2, -1), correction=0))
    mean = torch.sqrt(rg.mean(dim=(-2, -1)) ** 2 + yb.mean(dim=(-2, -1)) ** 2)
    return sigma + 0.3 * mean
