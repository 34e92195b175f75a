"""The artifact map and the reconstruction loss it weighs (Sec. 3.2, Eq. 3).

Shapes: images (B, 3, H, W), any common range; maps (B, 1, H, W). Omega is a window of n x n pixels.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

WINDOW = 7


def paper_artifact_map(real: Tensor, fake: Tensor, window: int = WINDOW) -> Tensor:
    """Eq. (3): M = sum over Omega of ((delta - mu) / n)^2, the variance of the residual around each pixel.

    delta is the residual of each channel; the channels' variances are averaged. Borders are reflected.
    """
    pad = window // 2
    delta = F.pad(real - fake, (pad, pad, pad, pad), mode="reflect")
    mean = F.avg_pool2d(delta, window, stride=1)
    mean_of_squares = F.avg_pool2d(delta**2, window, stride=1)
    return (mean_of_squares - mean**2).clamp_min(0).mean(1, keepdim=True)  # (B, 1, H, W)


def ldl_artifact_map(real: Tensor, fake: Tensor, window: int = WINDOW) -> Tensor:
    """LDL's map (Liang et al. 2022), which the release uses: local variance times (global variance)^(1/5).

    delta is the absolute residual summed over channels; variances are unbiased; borders are reflected.
    """
    delta = (real - fake).abs().sum(1, keepdim=True)  # (B, 1, H, W)
    pad = window // 2
    padded = F.pad(delta, (pad, pad, pad, pad), mode="reflect")
    patches = padded.unfold(-1, window, 1).unfold(-3, window, 1)  # (B, 1, H, W, n, n)
    local = patches.flatten(-2).var(-1)
    return delta.var(dim=(1, 2, 3), keepdim=True) ** 0.2 * local


ARTIFACT_MAPS = {"paper": paper_artifact_map, "ldl": ldl_artifact_map}


def artifact_loss(real: Tensor, fake: Tensor, kind: str = "paper", floor: float = 0.0, window: int = WINDOW) -> Tensor:
    """L_rec = || (M + floor) * (x - x~) ||_1, averaged over elements.

    Args:
        kind: a row of `ARTIFACT_MAPS`. The paper's map is a weight and gets no gradient; the release
            differentiates through LDL's.
        floor: added to the map: Eq. 3 alone gives no weight where the residual is flat, which is just
            where a region has a wrong but even colour.
    """
    if kind not in ARTIFACT_MAPS:
        raise ValueError(f"unknown artifact map {kind!r}; allowed: {', '.join(ARTIFACT_MAPS)}")
    if kind == "paper":
        with torch.no_grad():
            weight = paper_artifact_map(real, fake, window)
    else:
        weight = ldl_artifact_map(real, fake, window)
    return ((weight + floor) * (real - fake)).abs().mean()
