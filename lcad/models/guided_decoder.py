"""Decoding under luminance guidance (Sec. 3.2): the frozen decoder plus the luminance features.

Shapes: latents (B, C, h, w), scaled; images (B, 3, H, W) in [-1, 1].
"""

from diffusers import AutoencoderKL
from diffusers.utils.accelerate_utils import apply_forward_hook
from torch import Tensor


@apply_forward_hook  # with offloading the weights come to the device first, as for `vae.decode`
def decode_with_luminance(vae: AutoencoderKL, latents: Tensor, features: list[Tensor] | None) -> Tensor:
    """Scaled latents + luminance features (shallow to deep, see `LuminanceEncoder`) -> images in about [-1, 1].

    The deepest feature is added after the first middle block, the next after the middle attention and the
    second block; then at each level one after every residual block but the last. The features are only read.
    With `features` None, or all zero, this is the plain decoder.
    """
    if features is None:
        return vae.decode(latents / vae.config.scaling_factor).sample
    decoder = vae.decoder
    used = 2 + sum(len(block.resnets) - 1 for block in decoder.up_blocks)  # one behind these is the UNet's alone
    deepest_first = iter(reversed(features[:used]))
    x = decoder.conv_in(vae.post_quant_conv(latents / vae.config.scaling_factor))
    middle = decoder.mid_block
    x = middle.resnets[0](x, None) + next(deepest_first)
    x = middle.resnets[1](middle.attentions[0](x), None) + next(deepest_first)
    for block in decoder.up_blocks:
        *earlier, last = block.resnets
        for resnet in earlier:
            x = resnet(x, None) + next(deepest_first)
        x = last(x, None)
        for upsampler in block.upsamplers or ():
            x = upsampler(x)
    return decoder.conv_out(decoder.conv_act(decoder.conv_norm_out(x)))


def decode_pictures(vae: AutoencoderKL, latents: Tensor, features: list[Tensor] | None, to_cpu: bool = True) -> Tensor:
    """`decode_with_luminance` in the VAE's type -> pictures (B, 3, h, w) in [0, 1], float32.

    Args:
        to_cpu: from a CUDA device too; from others they always come.

    Raises:
        ValueError: they are not finite.
    """
    features = None if features is None else [feature.to(vae.dtype) for feature in features]
    decoded = decode_with_luminance(vae, latents.to(vae.dtype), features).float()
    decoded = decoded.cpu() if to_cpu or not decoded.is_cuda else decoded
    if not decoded.isfinite().all():
        raise ValueError("the model gave values that are not numbers; try float32 (--dtype float32)")
    return (decoded / 2 + 0.5).clamp(0, 1)
