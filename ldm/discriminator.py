"""The patch discriminator of pix2pix (Isola et al. 2017) and the hinge loss, as used in latent diffusion."""

import torch.nn.functional as F
from torch import Tensor, nn


class PatchDiscriminator(nn.Sequential):
    """Images (B, 3, H, W) in [-1, 1] -> a map of logits (B, 1, about H / 8, W / 8), large for real patches."""

    def __init__(self, channels: int = 64, layers: int = 3):
        blocks: list[nn.Module] = [nn.Conv2d(3, channels, 4, stride=2, padding=1), nn.LeakyReLU(0.2)]
        width = channels
        for layer in range(1, layers + 1):
            previous, width = width, channels * min(2**layer, 8)
            stride = 2 if layer < layers else 1
            blocks += [
                nn.Conv2d(previous, width, 4, stride=stride, padding=1, bias=False),
                nn.BatchNorm2d(width),
                nn.LeakyReLU(0.2),
            ]
        super().__init__(*blocks, nn.Conv2d(width, 1, 4, padding=1))
        self.apply(_initialise)


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Conv2d):
        nn.init.normal_(module.weight, 0.0, 0.02)
    elif isinstance(module, nn.BatchNorm2d):
        nn.init.normal_(module.weight, 1.0, 0.02)


def hinge_discriminator_loss(real: Tensor, fake: Tensor) -> Tensor:
    """Logits of real and generated images -> scalar (Lim and Ye 2017)."""
    return 0.5 * (F.relu(1 - real).mean() + F.relu(1 + fake).mean())


def hinge_generator_loss(fake: Tensor) -> Tensor:
    """Logits of generated images -> scalar."""
    return -fake.mean()
