"""What a call of `LCADPipeline` is given, checked, and the form its results have."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from diffusers import DiffusionPipeline
from diffusers.utils import BaseOutput
from torch import Tensor
from transformers import CLIPTokenizer

from lcad.defaults import OUTPUT_LUMINANCE
from lcad.io.images import to_image
from lcad.masks.types import InstanceMasks
from lcad.text.captions import SCARCE_CAPTION
from lcad.text.phrases import comma_phrases
from ldm.sampling import StepCallback

OUTPUT_TYPES = ("pil", "pt", "np", "decoded", "latent")
CALLBACK_TENSORS = ("latents", "denoised")
SHAPE_TOLERANCE = 8  # pixels of a photo's long side that masks of its shape may be off


@dataclass
class LCADPipelineOutput(BaseOutput):
    """What came of the photos.

    Attributes:
        images: PIL images of the photos' own sizes, or arrays or tensors in [0, 1]; see `output_type`.
        colors: for each result the rows of `lcad.recoloring.exact_colors.color_rows`; None: none were asked for.
    """

    images: list | np.ndarray
    colors: list[list[dict]] | None = None


def one_each(caption: str | list[str] | None, photos: int) -> list[str]:
    """A caption for each photo; where there is none, the scarce one."""
    captions = [caption] * photos if caption is None or isinstance(caption, str) else list(caption)
    return [text or SCARCE_CAPTION for text in captions]


def check_inputs(
    photos: Sequence,
    captions: list[str],
    masks: list,
    output_luminance: str,
    output_type: str,
    callback_tensors: Sequence[str],
) -> None:
    """Raises ValueError: numbers that differ, or a name that is not allowed."""
    for mask in masks:
        if isinstance(mask, str) and mask not in ("auto", "none"):
            raise ValueError(f"unknown masks {mask!r}; allowed: arrays, InstanceMasks, 'auto', 'none' or None")
    if not len(photos) == len(captions) == len(masks):
        raise ValueError(f"got {len(photos)} photos, {len(captions)} captions and {len(masks)} sets of masks")
    for name, given, allowed in (
        ("output_luminance", output_luminance, OUTPUT_LUMINANCE),
        ("output_type", output_type, OUTPUT_TYPES),
        *(("callback tensor", given, CALLBACK_TENSORS) for given in callback_tensors),
    ):
        if given not in allowed:
            raise ValueError(f"unknown {name} {given!r}; allowed: {', '.join(allowed)}")


def common_sizes(sizes: set[tuple[tuple[int, int], ...]]) -> tuple[tuple[int, int], ...]:
    """The model sizes that all photos of a call come to; raises ValueError: they come to several."""
    if len(sizes) != 1:
        raise ValueError(f"photos of one call must share a model size, got {sorted(sizes)}; call once for each")
    return next(iter(sizes))


def instance_masks(
    masks: Tensor | np.ndarray | InstanceMasks | None, caption: str, tokenizer: CLIPTokenizer, own: tuple[int, int]
) -> InstanceMasks | None:
    """Masks as they are given; arrays (phrases, H, W) belong to the comma-separated phrases of the caption.

    Args:
        own: (H, W) of the photo, whose shape they must have.

    Raises:
        ValueError: they cannot be meant for this photo and caption.
    """
    if masks is None or isinstance(masks, (InstanceMasks, str)):
        return None if isinstance(masks, str) else masks
    phrases = comma_phrases(caption, tokenizer)
    masks = torch.as_tensor(np.asarray(masks), dtype=torch.float32)
    if masks.ndim != 3 or len(masks) > len(phrases):
        raise ValueError(
            f"masks of shape {tuple(masks.shape)} for {len(phrases)} phrases in {caption!r}; "
            "expected (phrases, H, W), at most one for each comma-separated phrase"
        )
    height, width = masks.shape[-2:]
    if abs(height * own[1] - width * own[0]) > SHAPE_TOLERANCE * max(own):
        raise ValueError(
            f"masks of {width}x{height} pixels for a photo of {own[1]}x{own[0]}; "
            "expected (phrases, H, W) of the photo's size, or of its shape"
        )
    return InstanceMasks(phrases[: len(masks)], masks)


def step_callback(
    pipeline: DiffusionPipeline, callback: Callable | None, names: Sequence[str], done: int
) -> StepCallback | None:
    """diffusers' callback for `sample`; `done` steps have been made at smaller sizes."""
    if callback is None:
        return None

    def call(step: int, t: Tensor, tensors: dict[str, Tensor]) -> Tensor | None:
        changed = callback(pipeline, done + step, t, {name: tensors[name] for name in names}) or {}
        return changed.get("latents")

    return call


def in_form(results: list[Tensor] | Tensor, output_type: str) -> list | np.ndarray | Tensor:
    """Results (3, H, W) in [0, 1], or latents, as an `output_type` of `LCADPipeline`."""
    if output_type == "pil":
        return [to_image(rgb) for rgb in results]
    if output_type != "np":
        return results if output_type == "latent" else [*results]
    arrays = [rgb.movedim(0, -1).numpy() for rgb in results]
    return np.stack(arrays) if len({array.shape for array in arrays}) == 1 else arrays
