"""How long things take beside the bare UNet: steps, whole photos, finding masks, training; and the memory they take.

What is compared is run in turn in one process, and medians are taken: ratios hold where seconds vary. Each is timed as
it is (no suffix), captured as CUDA graphs ("_captured") or compiled ("_compiled"), the bare UNet too.
"""

import platform
import statistics
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import cast

import torch
from diffusers import UNet2DConditionModel
from PIL import Image
from skimage.data import astronaut
from torch import Tensor
from tqdm import tqdm

from lcad.config import LatentConfig, TrainerConfig
from lcad.denoiser import Conditions, build_denoiser
from lcad.instance_sampling import MODES, Refinement
from lcad.io.images import to_image
from lcad.io.prepared_photo import PreparedPhoto
from lcad.masks.types import InstanceMasks
from lcad.pipeline import LCADPipeline
from lcad.text.phrases import comma_phrases
from ldm.autoencoder import latent_stride
from ldm.cuda_graphs import CapturedFunction, GraphCache, Inputs
from ldm.devices import cpu_capabilities
from ldm.guidance import Denoiser

CAPTION = "the red cup, the blue cup, the yellow cup"
STEPS, GUIDANCE = LatentConfig.num_inference_steps, LatentConfig.guidance_scale
CAPTURED, COMPILED, FLOAT32 = "_captured", "_compiled", "_float32"

Actions = dict[str, Callable[[], object]]
Seconds = dict[str, float]


def median_times(actions: Actions, repeats: int, device: torch.device) -> Seconds:
    """Run all actions in turn, once to warm up and `repeats` times for the clock -> median seconds of each."""
    seconds: dict[str, list[float]] = {name: [] for name in actions}
    for turn in tqdm(range(repeats + 1), ", ".join(actions), leave=False):
        order = list(actions.items())
        for name, action in order[turn % len(order) :] + order[: turn % len(order)]:  # no action is always first
            wait(device)
            start = time.perf_counter()
            action()
            wait(device)
            if turn:
                seconds[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in seconds.items()}


def wait(device: torch.device) -> None:
    """Until all that was asked of the device is done."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def machine_name(device: torch.device) -> str:
    """Of the GPU, or of the processor."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return cpu_capabilities().get("cpu_name") or platform.processor() or platform.machine()


def peak_memory(device: torch.device) -> int:
    """The most bytes since `reset_peak`, of tensors on a CUDA device; else of the process since it began, resident."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    from resource import RUSAGE_SELF, getrusage  # not on Windows

    return getrusage(RUSAGE_SELF).ru_maxrss * 1024


def reset_peak(device: torch.device) -> None:
    """Count from now on, where that can be done."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def fixed_masks(pipeline: LCADPipeline) -> InstanceMasks:
    """One for each phrase of `CAPTION`: the same random pixels every time."""
    phrases, side = comma_phrases(CAPTION, pipeline.tokenizer), pipeline.config.image_size
    generator = torch.Generator().manual_seed(0)
    return InstanceMasks(phrases, (torch.rand(len(phrases), side, side, generator=generator) > 0.5).float())


@torch.no_grad()
def time_steps(
    pipeline: LCADPipeline,
    repeats: int,
    batch_sizes: list[int],
    graphs: GraphCache | None = None,
    compiled: bool = False,
) -> Seconds:
    """Seconds of one sampling step of one photo: bare UNet at batch 2, guided, instance-aware in both modes; and of the
    bare UNet at twice each of the batch sizes.

    Args:
        graphs: also time them captured.
        compiled: also time them compiled, after a minute or more.
    """
    unet, device = pipeline.unet, pipeline.device
    actions: Actions = {}
    for rows in dict.fromkeys((2, *(2 * size for size in batch_sizes))):
        bare, inputs = _bare_unet(pipeline, rows)
        actions[f"unet_batch_{rows}"] = partial(bare, inputs)
        if graphs is not None:
            actions[f"unet_batch_{rows}{CAPTURED}"] = partial(CapturedFunction(graphs, "bare", bare, inputs), {})
        if compiled:
            actions[f"unet_batch_{rows}{COMPILED}"] = partial(torch.compile(bare, dynamic=False), inputs)
    actions |= _steps(pipeline, None, "")
    if graphs is not None:
        actions |= _steps(pipeline, graphs, CAPTURED)
    seconds = median_times(actions, repeats, device)
    if compiled:
        unet.compile(dynamic=False)
        seconds |= median_times(_steps(pipeline, None, COMPILED), repeats, device)
        unet._compiled_call_impl = None
    return seconds


@torch.no_grad()
def time_bare_unet(pipeline: LCADPipeline, repeats: int) -> Seconds:
    """Seconds of the bare UNet's forward at batch 2 in float32, which the weights are in: what a photo's cost is
    counted in."""
    bare, inputs = _bare_unet(pipeline, 2)
    return median_times({f"unet_batch_2{FLOAT32}": partial(bare, inputs)}, repeats, pipeline.device)


def _bare_unet(pipeline: LCADPipeline, rows: int) -> tuple[Callable[[Inputs], Tensor], dict[str, Tensor]]:
    """The forward of diffusers' class, and its inputs."""
    unet, device, dtype = pipeline.unet, pipeline.device, pipeline.unet.dtype
    side = pipeline.config.image_size // latent_stride(pipeline.vae)
    x = torch.randn(rows, pipeline.vae.config.latent_channels, side, side).to(device, dtype)
    text = torch.randn(rows, 77, unet.config.cross_attention_dim).to(device, dtype)

    def bare(inputs: Inputs) -> Tensor:
        return UNet2DConditionModel.forward(unet, inputs["x"], inputs["t"], inputs["text"]).sample

    return bare, {"x": x, "t": torch.tensor(500).to(device), "text": text}


def _steps(pipeline: LCADPipeline, graphs: GraphCache | None, suffix: str) -> Actions:
    """The denoiser of a sampling call with the scheduler's step, plain and in both modes."""
    unet, device, scheduler = pipeline.unet, pipeline.device, pipeline.scheduler
    side = pipeline.config.image_size // latent_stride(pipeline.vae)
    x = torch.randn(1, pipeline.vae.config.latent_channels, side, side).to(device)
    text = torch.randn(2, 77, unet.config.cross_attention_dim).to(device)
    luminance = torch.randn(1, unet.config.luminance_channels, side, side).to(device)
    scheduler.set_timesteps(STEPS)
    t = scheduler.timesteps[STEPS // 2]
    kinds = {"guided_step": None} | {f"{mode}_step": Refinement(mode=mode) for mode in MODES}
    actions: Actions = {}

    def step(denoise: Denoiser) -> object:
        return scheduler.step(denoise(x, t), t, x)

    for name, refinement in kinds.items():
        conditions = Conditions(luminance, text, [fixed_masks(pipeline)], refinement)
        denoise = build_denoiser(unet, conditions, scheduler.timesteps, lambda: GUIDANCE, graphs=graphs)
        actions[name + suffix] = partial(step, denoise)
    return actions


def time_photos(
    pipeline: LCADPipeline, steps: int, batch_size: int, repeats: int, guidance: float = GUIDANCE, suffix: str = ""
) -> Seconds:
    """Seconds of a call with so many photos, in each of the ways of `photo_actions`."""
    actions = photo_actions(pipeline, steps, batch_size, guidance)
    named = {f"photos_{batch_size}{kind}{suffix}": action for kind, action in actions.items()}
    return median_times(named, repeats, pipeline.device)


def photo_actions(pipeline: LCADPipeline, steps: int, batch_size: int, guidance: float = GUIDANCE) -> Actions:
    """A call from pictures to pictures: plain (""), instance-aware ("_masks"), and so with masks found before it.

    Where the model finds none, as with random weights, `fixed_masks` are put in their place.
    """
    side = pipeline.config.image_size
    photo = to_image(torch.rand(3, side, side))
    captions, own = [CAPTION] * batch_size, fixed_masks(pipeline)

    def call(find: Callable[[list[PreparedPhoto]], list | None]) -> object:
        photos, colorize = [PreparedPhoto.of(photo) for _ in range(batch_size)], cast(Callable[..., object], pipeline)
        return colorize(photos, captions, find(photos), num_inference_steps=steps, guidance_scale=guidance)

    def found(photos: list[PreparedPhoto]) -> list[InstanceMasks]:
        return [item or own for item in pipeline.find_masks([*photos], captions)]

    return {
        "": lambda: call(lambda _: None),
        "_masks": lambda: call(lambda photos: [own] * len(photos)),
        "_found_masks": lambda: call(found),
    }


def time_masks(pipeline: LCADPipeline, repeats: int) -> Seconds:
    """Seconds of all that `--masks regions` adds to a photo: regions, attention of the phrases, matching."""
    photo = Image.fromarray(astronaut())  # 512 x 512
    return median_times(
        {"finding_masks": lambda: pipeline.find_masks([PreparedPhoto.of(photo)], [CAPTION])}, repeats, pipeline.device
    )


def time_training(
    pipeline: LCADPipeline,
    repeats: int,
    batch_size: int = 1,
    half: bool = False,
    compiled: bool = False,
    all_trained: bool = True,
) -> Seconds:
    """Seconds of stage 2's loss + backward from cached inputs, and of the bare UNet's forward + backward.

    The bare UNet trains what stage 2 trains and its first convolution, so that both backward passes go through the
    whole depth; `unet_all_trained` trains everything.

    Args:
        half: with autocast to bfloat16; weights are in float32, which this sees to.
        compiled: both compiled, once for each set of weights that is trained.
        all_trained: also time the bare UNet with all of its weights trained.
    """
    from lcad.training.latent_stage import LatentStage  # takes Lightning: all else is timed without it

    pipeline.to(torch.float32)
    stage = LatentStage(pipeline, LatentConfig(), TrainerConfig(compile=compiled))
    unet, device = pipeline.unet, pipeline.device
    side, channels = pipeline.config.image_size // latent_stride(pipeline.vae), pipeline.vae.config.latent_channels
    seen = unet.config.luminance_channels + unet.config.semantic_channels
    batch = {
        "moments": torch.randn(batch_size, 2 * channels, side, side, device=device),
        "luminance": torch.randn(batch_size, seen, side, side, device=device),
        "text": torch.randn(batch_size, 77, unet.config.cross_attention_dim, device=device),
        "caption": [CAPTION] * batch_size,
    }
    x = torch.randn(batch_size, channels, side, side, device=device)
    t = torch.full((batch_size,), 500, device=device)
    generator = torch.Generator().manual_seed(0)
    forward = UNet2DConditionModel.forward
    forward = torch.compile(forward) if compiled else forward

    def autocast() -> AbstractContextManager:
        return torch.autocast(device.type, torch.bfloat16) if half else nullcontext()

    def backward(loss: Callable[[], Tensor]) -> None:
        with autocast():
            value = loss()
        torch.autograd.backward(value)
        unet.zero_grad(set_to_none=True)

    def bare() -> None:
        backward(lambda: forward(unet, x, t, batch["text"]).sample.square().mean())

    def training(more: Callable[[str], bool]) -> None:
        """The bare UNet with more of its weights trained."""
        others = [p for name, p in unet.named_parameters() if more(name) and not p.requires_grad]
        for parameter in others:
            parameter.requires_grad_(True)
        bare()
        for parameter in others:
            parameter.requires_grad_(False)

    suffix = (f"_{batch_size}" if batch_size > 1 else "") + (COMPILED if compiled else "")
    actions: Actions = {
        "unet_forward_backward": lambda: training(lambda name: name == "conv_in.weight"),
        "unet_all_trained": lambda: training(lambda name: "extension" not in name),
        "training_step": lambda: backward(lambda: stage._loss(batch, generator)),
    }
    if not all_trained:
        del actions["unet_all_trained"]
    return median_times({name + suffix: action for name, action in actions.items()}, repeats, device)
