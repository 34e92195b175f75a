"""The perceptual compression model: diffusers' AutoencoderKL, and the way to and from latents.

Shapes: images (B, 3, H, W) in [-1, 1]; latents (B, C, h, w) with h = H / stride, times the scaling factor.
"""

import torch
from diffusers import AutoencoderKL
from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution
from torch import Tensor


def build_autoencoder(
    block_out_channels: list[int],
    layers_per_block: int = 2,
    latent_channels: int = 4,
    norm_num_groups: int = 32,
    scaling_factor: float = 0.18215,
    sample_size: int = 256,
) -> AutoencoderKL:
    """An AutoencoderKL with random weights; SD 1.x is ([128, 256, 512, 512], 2, 4, 32)."""
    levels = len(block_out_channels)
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * levels,
        up_block_types=("UpDecoderBlock2D",) * levels,
        block_out_channels=tuple(block_out_channels),
        layers_per_block=layers_per_block,
        latent_channels=latent_channels,
        norm_num_groups=norm_num_groups,
        scaling_factor=scaling_factor,
        sample_size=sample_size,
    )


def latent_stride(vae: AutoencoderKL) -> int:
    """Pixels per latent: 8 for SD 1.x."""
    return 2 ** (len(vae.config.block_out_channels) - 1)


def posterior(vae: AutoencoderKL, images: Tensor) -> DiagonalGaussianDistribution:
    """Images (B, 3, H, W) in [-1, 1] -> the posterior over unscaled latents."""
    return vae.encode(images).latent_dist


@torch.no_grad()
def encode(vae: AutoencoderKL, images: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Images (B, 3, H, W) in [-1, 1] -> scaled latents (B, C, h, w): a sample, or the mode without generator."""
    distribution = posterior(vae, images)
    latents = distribution.mode() if generator is None else distribution.sample(generator)
    return latents * vae.config.scaling_factor
