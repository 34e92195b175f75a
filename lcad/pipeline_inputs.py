"""What a call of `LCADPipeline` is given, checked."""

from collections.abc import Callable, Sequence

from diffusers import DiffusionPipeline
from torch import Tensor

from lcad.text.captions import SCARCE_CAPTION
from ldm.sampling import StepCallback

OUTPUT_LUMINANCE = ("input", "decoded")
OUTPUT_TYPES = ("pil", "pt", "np", "decoded", "latent")
CALLBACK_TENSORS = ("latents", "denoised")


def one_each(caption: str | list[str] | None, photos: int) -> list[str]:
    """A caption for each photo; where there is none, the scarce one."""
    captions = [caption] * photos if caption is None or isinstance(caption, str) else list(caption)
    return [text or SCARCE_CAPTION for text in captions]


def check_inputs(
    photos: list[Tensor],
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


def check_masks(masks: Tensor, caption: str, phrases: int, photo: tuple[int, int], tolerance: int) -> None:
    """Of masks for a caption of so many phrases and a photo (H, W); raises ValueError: they cannot be meant for these.

    Args:
        tolerance: pixels of the photo's long side that their shape may be off.
    """
    if masks.ndim != 3 or len(masks) > phrases:
        raise ValueError(
            f"masks of shape {tuple(masks.shape)} for {phrases} phrases in {caption!r}; "
            "expected (phrases, H, W), at most one for each comma-separated phrase"
        )
    height, width = masks.shape[-2:]
    if abs(height * photo[1] - width * photo[0]) > tolerance * max(photo):
        raise ValueError(
            f"masks of {width}x{height} pixels for a photo of {photo[1]}x{photo[0]}; "
            "expected (phrases, H, W) of the photo's size, or of its shape"
        )


def step_callback(
    pipeline: DiffusionPipeline, callback: Callable | None, names: Sequence[str], done: int
) -> StepCallback | None:
    """diffusers' callback for `sample`; `done` steps have been made at a smaller size."""
    if callback is None:
        return None

    def call(step: int, t: Tensor, tensors: dict[str, Tensor]) -> Tensor | None:
        changed = callback(pipeline, done + step, t, {name: tensors[name] for name in names}) or {}
        return changed.get("latents")

    return call
