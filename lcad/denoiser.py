"""The denoiser of a sampling call: the UNet under luminance, text, masks and guidance; and what sampling begins with.

Shapes: B results, latents (B, C, h, w).
"""

import warnings
from collections.abc import Callable, Hashable
from dataclasses import dataclass, replace

import torch
from diffusers import DiffusionPipeline
from diffusers.utils.torch_utils import randn_tensor
from torch import Tensor

from lcad.instance_sampling import LogitTargets, Refinement, in_step_range, with_instance_masks
from lcad.masks.types import InstanceMasks
from lcad.models.channel_extended_unet import ExtendedUNet
from lcad.tiling import tiled, tiles
from ldm.attention import LogitTransform, check_processors, cross_attention_sizes
from ldm.cuda_graphs import CapturedFunction, GraphCache, Inputs
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
    graphs: GraphCache | None = None,
) -> Denoiser:
    """Noise prediction in float32, whatever the weights are in.

    Args:
        timesteps: of the call, of which `refinement` may take a part.
        guidance_scale: asked at each step, where there are unconditional rows.
        tile: (h, w) of the tiles that larger latents are predicted in; None: whole.
        graphs: what steps are captured in and replayed from; a UNet that cannot be captured is run as it is,
            with a warning if they were asked for.
    """
    height, width = conditions.luminance.shape[-2:]
    places = tiles((height, width), tile or (height, width))
    parts = [_part(conditions, rows, columns) for rows, columns in places]
    if graphs is not None:
        refusal = graphs.refusal(unet)
        if refusal is None:
            graphs.use_for(unet)
        else:
            if graphs.asked:
                warnings.warn(f"sampling goes without CUDA graphs: of the UNet, {refusal}", stacklevel=2)
            graphs.clear()
            graphs = None
    return tiled([_build_whole(unet, part, timesteps, guidance_scale, graphs) for part in parts], places)


def _part(conditions: Conditions, rows: slice, columns: slice) -> Conditions:
    height, width = conditions.luminance.shape[-2:]
    masks = [None if item is None else item.part(rows, columns, (height, width)) for item in conditions.instances]
    return replace(conditions, luminance=conditions.luminance[..., rows, columns], instances=masks)


def _build_whole(
    unet: ExtendedUNet,
    conditions: Conditions,
    timesteps: Tensor,
    guidance_scale: Callable[[], float],
    graphs: GraphCache | None,
) -> Denoiser:
    """What does not depend on the step is computed once, and is on the UNet's device before the first."""
    luminance, text = conditions.luminance.to(unet.dtype), conditions.text.to(unet.dtype)
    rows, device = len(luminance), luminance.device
    responses = unet.luminance_responses(luminance)
    if len(text) > rows:
        responses = {site: torch.cat([response, response]) for site, response in responses.items()}
    fixed: Inputs = {"text": text, **{("response", site): response for site, response in responses.items()}}
    at_once, places = timesteps.to(device), {float(t): place for place, t in enumerate(timesteps)}

    def stepping(fixed: Inputs, targets: LogitTargets | None, refinement: Refinement | None) -> Denoiser:
        if graphs is None:
            predict = _from_inputs(unet, rows, targets, refinement, fixed, guidance_scale)
            return lambda x, t: predict(x, at_once[places[float(t)]])

        def step(inputs: Inputs) -> Tensor:
            denoise = _from_inputs(unet, rows, targets, refinement, inputs, inputs["scale"])
            return denoise(inputs["x"], inputs["t"])

        captured = CapturedFunction(graphs, _settings(refinement), step, fixed)

        def replay(x: Tensor, t: Tensor) -> Tensor:
            scale = torch.full((), guidance_scale(), device=device)
            return captured({"x": x, "t": at_once[places[float(t)]], "scale": scale})

        return replay

    plain, refinement = stepping(fixed, None, None), conditions.refinement
    if refinement is None or not any(conditions.instances):
        return plain
    check_processors(unet)
    height, width = luminance.shape[-2:]
    targets = LogitTargets(conditions.instances, (height, width), unet.config.attention_head_dim)
    made = targets.make(cross_attention_sizes(unet, (height, width)), device)
    masks = {("target", pixels): target for pixels, (target, _) in made.items()}
    masks |= {("weight", pixels): weight for pixels, (_, weight) in made.items()}
    return in_step_range(
        timesteps, stepping({**fixed, **masks}, targets, refinement), plain, refinement.start, refinement.end
    )


def _settings(refinement: Refinement | None) -> Hashable:
    """What a step's kernels depend on."""
    return None if refinement is None else (refinement.strength, refinement.normalization, refinement.mode)


def _from_inputs(
    unet: ExtendedUNet,
    rows: int,
    targets: LogitTargets | None,
    refinement: Refinement | None,
    inputs: Inputs,
    scale: Tensor | Callable[[], float],
) -> Denoiser:
    """A step that reads nothing but tensors, so that it can be captured.

    Args:
        rows: photos; there are as many rows of text, or twice as many with guidance.
        targets: of the same sizes; their tensors are taken from `inputs`.
        inputs: text as in `Conditions`, and under pairs of kind and place the responses of as many rows and the
            targets and weights of `LogitTargets`.
    """
    text, responses = inputs["text"], _of_kind(inputs, "response")

    def predict(x: Tensor, t: Tensor, logit_transform: LogitTransform | None = None) -> Tensor:
        used = {site: response[: len(x)] for site, response in responses.items()}
        return unet(x.to(unet.dtype), t, text[: len(x)], used, logit_transform).sample.float()

    denoise: Denoiser = predict
    if targets is not None and refinement is not None:
        made, weights = _of_kind(inputs, "target"), _of_kind(inputs, "weight")
        own = targets.holding({pixels: (target, weights[pixels]) for pixels, target in made.items()})
        denoise = with_instance_masks(predict, own, rows, refinement)
    return denoise if len(text) == rows else classifier_free_guidance(denoise, scale)


def _of_kind(inputs: Inputs, kind: str) -> dict:
    return {name[1]: tensor for name, tensor in inputs.items() if isinstance(name, tuple) and name[0] == kind}


def starting_latents(
    pipeline: DiffusionPipeline, luminance: Tensor, generator: torch.Generator | list[torch.Generator] | None
) -> Tensor:
    """x_T (B, C, h, w), of a call that is given none.

    Args:
        luminance: (B, C_l, h, w), as in `Conditions`.
        generator: noise is drawn on the CPU unless one is elsewhere.
    """
    first = generator[0] if isinstance(generator, list) and generator else generator
    device = first.device if isinstance(first, torch.Generator) else torch.device("cpu")
    shape = (len(luminance), pipeline.vae.config.latent_channels, *luminance.shape[-2:])
    return randn_tensor(shape, generator=generator, device=device).to(luminance.device, torch.float32)
