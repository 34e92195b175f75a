"""Distances between images: PSNR, and LPIPS (Zhang et al. 2018) with torchvision's backbone or a local file's."""

from pathlib import Path

import torch
import torchvision
from torch import Tensor, nn

from ldm.checkpoint import load_state_dict

BACKBONES = {"vgg": "vgg16", "alex": "alexnet", "squeeze": "squeezenet1_1"}


def psnr(real: Tensor, fake: Tensor) -> Tensor:
    """Peak signal-to-noise ratio over RGB, in dB, of images (..., 3, H, W) in [0, 1]."""
    error = ((real - fake) ** 2).mean(dim=(-3, -2, -1)).clamp_min(1e-12)
    return -10 * torch.log10(error)


def build_lpips(net: str, backbone: str | None = None) -> nn.Module:
    """LPIPS on images (B, 3, H, W) in [-1, 1] -> distances (B, 1, 1, 1); frozen, in eval mode.

    Args:
        net: a row of `BACKBONES`. The linear heads (v0.1) come with the lpips package.
        backbone: state-dict file of torchvision's ImageNet weights; None downloads them through torchvision.

    Raises:
        ValueError: unknown net, or a file that is not that backbone's.
        OSError: the download failed.
    """
    if net not in BACKBONES:
        raise ValueError(f"unknown LPIPS net {net!r}; allowed: {', '.join(BACKBONES)}")
    import lpips  # of the extras `train` and `eval`

    metric = lpips.LPIPS(net=net, version="0.1", pnet_rand=True, verbose=False)
    if backbone is None:
        model = torchvision.models.get_model(BACKBONES[net], weights="IMAGENET1K_V1")
        weights = model.state_dict()
    else:
        weights = load_state_dict(Path(backbone))
    # lpips cuts the backbone's `features` into slices and keeps their indices: slice2.3.weight is features.3.weight
    wanted = {name: "features." + name.split(".", 1)[1] for name in metric.net.state_dict()}
    missing = sorted(source for source in wanted.values() if source not in weights)
    if missing:
        raise ValueError(f"{backbone}: not the weights of {BACKBONES[net]}; missing {', '.join(missing[:5])}")
    metric.net.load_state_dict({name: weights[source] for name, source in wanted.items()})
    return metric.requires_grad_(False).eval()
