"""How many photos the model takes at a time, and the call that takes them."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from lcad.inference.plan import Settings
from lcad.io.prepared_photo import PreparedPhoto
from lcad.masks.types import InstanceMasks
from lcad.pipeline import LCADPipeline
from lcad.text.phrases import comma_phrases
from ldm.devices import execution_device

BATCH_SIZE = 4  # without a GPU's memory to fill, and where nothing is asked for
MOST = 64  # more at a time are hardly faster
TRIED = 4  # photos of the trial, of which each takes no more than its share
KEPT_FREE = 0.3  # of the memory: it comes in pieces, and captured steps keep some
CAPTION = "a red cup"


@dataclass(frozen=True)
class Memory:
    """A device's memory in bytes.

    Attributes:
        peak: the most that an action takes beyond what was taken before it.
        free: what is left.
    """

    peak: Callable[[Callable[[], object]], int]
    free: Callable[[], int]


def cuda_memory(device: torch.device) -> Memory:
    """Of a CUDA device. It has been written without one."""

    def peak(action: Callable[[], object]) -> int:
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        action()
        torch.cuda.synchronize(device)
        return torch.cuda.max_memory_allocated(device) - before

    def free() -> int:
        unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + unused

    return Memory(peak, free)


def choose_batch_size(pipeline: LCADPipeline, settings: Settings, memory: Memory | None = None) -> int:
    """As many photos as the device's memory has room for, by a short trial; `BATCH_SIZE` on a device without CUDA.

    Args:
        memory: None: of the pipeline's device.
    """
    device = execution_device(pipeline.unet)
    if memory is None and device.type != "cuda":
        return BATCH_SIZE
    memory = cuda_memory(device) if memory is None else memory
    tried = TRIED
    while tried:
        taken = _taken(pipeline, settings, tried, memory)
        if taken is not None:
            return max(1, min(MOST, int((1 - KEPT_FREE) * memory.free() * tried / max(taken, 1))))
        release_memory()
        tried //= 2
    return 1  # the run will say of each photo that it does not fit


def _taken(pipeline: LCADPipeline, settings: Settings, count: int, memory: Memory) -> int | None:
    """What so many photos take, square ones, which are as large to the model as any; None: more than there is."""
    side = max(pipeline.config.image_size, pipeline.config.second_pass_size)
    photo, phrases = PreparedPhoto.of(torch.zeros(1, side, side)), comma_phrases(CAPTION, pipeline.tokenizer)
    masks = InstanceMasks(phrases, torch.ones(len(phrases), side, side))
    short = replace(settings, steps=2)
    try:
        return memory.peak(lambda: colorize_batch(pipeline, short, [photo] * count, [CAPTION] * count, [masks] * count))
    except torch.cuda.OutOfMemoryError:
        return None


def release_memory() -> None:
    """Give back what the device's allocator keeps for later; not while an exception holds tensors."""
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def colorize_batch(
    pipeline: LCADPipeline,
    settings: Settings,
    photos: list[PreparedPhoto],
    captions: list[str],
    masks: list[InstanceMasks | None],
    sample: int = 0,
) -> list[Tensor]:
    """The pictures (3, h, w) at the model's size; each photo has a generator of its own, so none depends on the others.

    Args:
        sample: number of the colorization.
    """
    call: Callable[..., Any] = pipeline
    return call(
        photos,
        captions,
        masks,
        num_inference_steps=settings.steps,
        guidance_scale=settings.guidance,
        generator=[torch.Generator().manual_seed(settings.seed + sample) for _ in photos],
        refinement=settings.refinement,
        output_luminance=settings.output_luminance,
        luminance_guidance=settings.luminance_guidance,
        output_type="decoded",
        long_side=settings.model_size,
        tiled_side=settings.tiled_size,
    ).images
