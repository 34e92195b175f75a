"""The denoiser of a sampling call: the UNet under luminance, text, instance masks and guidance.

Shapes: B results, latents (B, C, h, w).
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from lcad.instance_sampling import LogitTargets, Refinement, in_step_range, with_instance_masks
from lcad.masks.types import InstanceMasks
from lcad.models.channel_extended_unet import ExtendedUNet
from lcad.tiling import tiled, tiles
from ldm.attention import LogitTransform, check_processors
from ldm.guidance import Denoiser, classifier_free_guidance


@dataclass(frozen=True)
class Conditions:
    """What a call's results are conditioned on.

    Attributes:
        luminance: (B, C_l, h, w), the deepest luminance feature, at the size of the latents.
        text: (B, 77, D), and with guidance B unconditional rows behind them.
        instances: masks of each result, at the model's size.
        refinement: how attention is moved to them; None where there are none.
    """

    luminance: Tensor
    text: Tensor
    instances: list[InstanceMasks | None]
    refinement: Refinement | None


def build_denoiser(
    unet: ExtendedUNet,
    conditions: Conditions,
    timesteps: Tensor,
    guidance_scale: Callable[[], float],
    tile: tuple[int, int] | None = None,
) -> Denoiser:
    """Noise prediction in float32, whatever the weights are in.

    Args:
        timesteps: of the call, of which `refinement` may take a part.
        guidance_scale: asked at each step, where there are unconditional rows.
        tile: (h, w) of the tiles that larger latents are predicted in; None: whole.
    """
    height, width = conditions.luminance.shape[-2:]
    places = tiles((height, width), tile or (height, width))
    parts = [_part(conditions, rows, columns) for rows, columns in places]
    return tiled([_build_whole(unet, part, timesteps, guidance_scale) for part in parts], places)


def _part(conditions: Conditions, rows: slice, columns: slice) -> Conditions:
    height, width = conditions.luminance.shape[-2:]
    masks = [None if item is None else item.part(rows, columns, (height, width)) for item in conditions.instances]
    return replace(conditions, luminance=conditions.luminance[..., rows, columns], instances=masks)


def _build_whole(
    unet: ExtendedUNet, conditions: Conditions, timesteps: Tensor, guidance_scale: Callable[[], float]
) -> Denoiser:
    """What does not depend on the step is computed once."""
    luminance, text = conditions.luminance.to(unet.dtype), conditions.text.to(unet.dtype)
    rows, instances = len(luminance), conditions.instances
    height, width = luminance.shape[-2:]
    responses = unet.luminance_responses(luminance)
    if len(text) > rows:
        responses = {site: torch.cat([response, response]) for site, response in responses.items()}

    def predict(x: Tensor, t: Tensor, logit_transform: LogitTransform | None = None) -> Tensor:
        used = {site: response[: len(x)] for site, response in responses.items()}
        return unet(x.to(unet.dtype), t, text[: len(x)], used, logit_transform).sample.float()

    denoise: Denoiser = predict
    refinement = conditions.refinement
    if any(instances) and refinement is not None:
        check_processors(unet)
        targets = LogitTargets(instances, (height, width), unet.config.attention_head_dim)
        inside = with_instance_masks(predict, targets, rows, refinement)
        denoise = in_step_range(timesteps, inside, predict, refinement.start, refinement.end)
    return denoise if len(text) == rows else classifier_free_guidance(denoise, guidance_scale)
