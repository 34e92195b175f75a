"""One colorization of a photo, and what may be changed of it afterwards."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import cast

import torch
from torch import Tensor

from lcad.defaults import PLAIN_LOOK
from lcad.inference.plan import Settings
from lcad.io.prepared_photo import PreparedPhoto
from lcad.masks.from_text import FoundMasks
from lcad.pipeline import LCADPipeline
from lcad.pipeline_inputs import LCADPipelineOutput
from lcad.recoloring.exact_colors import Color


@dataclass(frozen=True, eq=False)
class Candidate:
    """One colorization: the model's picture (3, h', w') in [0, 1], and what it was made from."""

    decoded: Tensor
    settings: Settings
    caption: str
    found: FoundMasks | None


@dataclass
class Look:
    """What is changed without sampling again; `colors` are exact ones, by the phrases' numbers in the caption."""

    saturation: float = PLAIN_LOOK["saturation"]
    warmth: float = PLAIN_LOOK["warmth"]
    colors: dict[int, Color] = field(default_factory=dict)


def decoded_picture(
    pipeline: LCADPipeline,
    photo: PreparedPhoto,
    settings: Settings,
    caption: str,
    found: FoundMasks | None,
    on_step: Callable[[int, int, Tensor], None],
) -> Tensor:
    """Colorize one photo -> the model's picture (3, h', w') in [0, 1].

    Args:
        on_step: told, after each step, how many are done, of how many, and what the last makes of the latents
            (1, C, h, w); what it raises ends the run.
    """
    made = pipeline(
        [photo],
        [caption],
        [None if found is None else found.instances],
        num_inference_steps=settings.steps,
        guidance_scale=settings.guidance,
        generator=[torch.Generator().manual_seed(settings.seed)],
        refinement=settings.refinement,
        output_type="decoded",
        callback_on_step_end=lambda pipe, step, _t, tensors: on_step(step + 1, pipe.num_timesteps, tensors["denoised"]),
        callback_on_step_end_tensor_inputs=("denoised",),
    )
    (decoded,) = cast(LCADPipelineOutput, made).images
    return decoded
