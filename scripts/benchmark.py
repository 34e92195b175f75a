#!/usr/bin/env python3
"""Time what this project adds to the bare UNet: guidance, instance-aware sampling, a photo, a training step.

    python scripts/benchmark.py                              # full size (Stable Diffusion 1.5), random weights
    python scripts/benchmark.py --model checkpoints/mini     # a checkpoint at its own size
    python scripts/benchmark.py --json benchmark.json --repeats 7

All steps of one comparison are run in turn, --repeats times, and the medians are compared: run it on an
otherwise idle machine. Ratios are to the bare UNet forward at batch 2, or forward + backward at batch 1; of finding
masks to a guided step. The training step takes the extra [train]; without it the rest is timed.
"""

import argparse
import json
import platform
import statistics
import sys
import time
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

import torch
from diffusers import UNet2DConditionModel
from PIL import Image
from skimage.data import astronaut
from tqdm import tqdm

from lcad.cli.common import build_parser, missing_extra, reporting
from lcad.config import LatentConfig, ModelConfig, TrainerConfig
from lcad.instance_sampling import LogitTargets, Refinement, with_instance_masks
from lcad.io.images import to_image
from lcad.io.prepared_photo import PreparedPhoto
from lcad.masks.sources import build_finder
from lcad.masks.types import InstanceMasks
from lcad.pipeline import LCADPipeline
from lcad.text.phrases import comma_phrases
from lcad.training.start import build_pipeline
from ldm.autoencoder import latent_stride
from ldm.devices import choose_device
from ldm.guidance import classifier_free_guidance

CAPTION = "the red cup, the blue cup, the yellow cup"
STEPS, GUIDANCE = LatentConfig.num_inference_steps, LatentConfig.guidance_scale


def median_times(actions: dict[str, Callable[[], object]], repeats: int, device: torch.device) -> dict[str, float]:
    """Run all actions in turn, once to warm up and `repeats` times for the clock -> median seconds of each."""
    seconds: dict[str, list[float]] = {name: [] for name in actions}
    for turn in tqdm(range(repeats + 1), ", ".join(actions), leave=False):
        order = list(actions.items())
        for name, action in order[turn % len(order) :] + order[: turn % len(order)]:  # no action is always first
            if device.type == "cuda":
                torch.cuda.synchronize()
            start = time.perf_counter()
            action()
            if device.type == "cuda":
                torch.cuda.synchronize()
            if turn:
                seconds[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in seconds.items()}


@torch.no_grad()
def time_steps(pipeline: LCADPipeline, repeats: int) -> dict[str, float]:
    """Seconds of one sampling step: bare UNet at batch 2, guided, instance-aware in both modes."""
    unet, device, dtype = pipeline.unet, pipeline.device, pipeline.unet.dtype
    side = pipeline.config.image_size // latent_stride(pipeline.vae)
    x = torch.randn(1, pipeline.vae.config.latent_channels, side, side).to(device, dtype)
    text = torch.randn(2, 77, unet.config.cross_attention_dim).to(device, dtype)
    luminance = torch.randn(2, unet.config.luminance_channels, side, side).to(device, dtype)
    responses = unet.luminance_responses(luminance)
    phrases = comma_phrases(CAPTION, pipeline.tokenizer)
    masks = (torch.rand(len(phrases), pipeline.config.image_size, pipeline.config.image_size) > 0.5).float()
    targets = LogitTargets([InstanceMasks(phrases, masks)], (side, side), unet.config.attention_head_dim)
    scheduler = pipeline.scheduler
    scheduler.set_timesteps(STEPS, device=device)
    t, both = scheduler.timesteps[STEPS // 2], torch.cat([x, x])

    def predict(x, t, logit_transform=None):
        used = {site: r[: len(x)] for site, r in responses.items()}
        return unet(x, t, text[: len(x)], used, logit_transform).sample

    def step(denoise):
        return lambda: scheduler.step(denoise(x, t), t, x)

    def instance_aware(mode):
        return step(classifier_free_guidance(with_instance_masks(predict, targets, 1, Refinement(mode=mode)), GUIDANCE))

    return median_times(
        {
            "unet_batch_2": lambda: UNet2DConditionModel.forward(unet, both, t, text),
            "guided_step": step(classifier_free_guidance(predict, GUIDANCE)),
            "one_pass_step": instance_aware("one_pass"),
            "two_pass_step": instance_aware("two_pass"),
        },
        repeats,
        device,
    )


def time_photo(pipeline: LCADPipeline, steps: int) -> dict[str, float]:
    """Seconds of one whole photo, from picture to picture."""
    size = pipeline.config.image_size
    photo = to_image(torch.rand(3, size, size))
    pipeline.set_progress_bar_config(leave=False)
    return median_times({"photo": lambda: pipeline(photo, CAPTION, num_inference_steps=steps)}, 1, pipeline.device)


def time_masks(pipeline: LCADPipeline, repeats: int) -> dict[str, float]:
    """Seconds of all that `--masks regions` adds to a photo: regions, attention of the phrases, matching."""
    photo = Image.fromarray(astronaut())  # 512 x 512
    find = build_finder("regions", pipeline)
    return median_times(
        {"finding_masks": lambda: find(Path(), PreparedPhoto.of(photo), CAPTION)}, repeats, pipeline.device
    )


def time_training(pipeline: LCADPipeline, repeats: int) -> dict[str, float]:
    """Seconds of stage 2's loss + backward from cached inputs, and of the bare UNet's forward + backward, batch 1.

    The bare UNet trains what stage 2 trains and its first convolution, so that both backward passes go
    through the whole depth; `unet_all_trained` trains everything.
    """
    from lcad.training.latent_stage import LatentStage  # takes Lightning: all else is timed without it

    stage = LatentStage(pipeline, LatentConfig(), TrainerConfig())
    unet, device = pipeline.unet, pipeline.device
    side = pipeline.config.image_size // latent_stride(pipeline.vae)
    channels = pipeline.vae.config.latent_channels
    batch = {
        "moments": torch.randn(1, 2 * channels, side, side, device=device),
        "luminance": torch.randn(1, unet.config.luminance_channels, side, side, device=device),
        "text": torch.randn(1, 77, unet.config.cross_attention_dim, device=device),
        "caption": [CAPTION],
    }
    x, t = torch.randn(1, channels, side, side, device=device), torch.tensor([500], device=device)
    trained = [p for p in unet.parameters() if p.requires_grad]
    generator = torch.Generator().manual_seed(0)

    def backward(loss):
        loss.backward()
        unet.zero_grad(set_to_none=True)

    def bare():
        backward(UNet2DConditionModel.forward(unet, x, t, batch["text"]).sample.square().mean())

    def bare_same_depth():
        unet.conv_in.weight.requires_grad_(True)
        bare()
        unet.conv_in.weight.requires_grad_(False)

    def bare_all_trained():
        unet.requires_grad_(True)
        bare()
        unet.requires_grad_(False)
        for parameter in trained:
            parameter.requires_grad_(True)

    return median_times(
        {
            "unet_forward_backward": bare_same_depth,
            "unet_all_trained": bare_all_trained,
            "training_step": lambda: backward(stage._loss(batch, generator)),
        },
        repeats,
        device,
    )


def report(seconds: dict[str, float], steps: int) -> list[tuple[str, float, float]]:
    """Rows of (name, seconds, ratio to its yardstick)."""
    training = ("training_step", "unet_all_trained", "unet_forward_backward")
    yardsticks = {name: seconds["unet_forward_backward"] for name in training if name in seconds}
    yardsticks |= {"photo": steps * seconds["unet_batch_2"], "finding_masks": seconds["guided_step"]}
    return [(name, value, value / yardsticks.get(name, seconds["unet_batch_2"])) for name, value in seconds.items()]


def lacking_for_training() -> str | None:
    """What to install before a training step can be timed; None: it is there."""
    try:
        import_module("lcad.training.latent_stage")
    except ModuleNotFoundError as error:
        cure = missing_extra(error)
        if cure is None:
            raise
        return cure
    return None


def run(args: argparse.Namespace) -> int:
    lacking = lacking_for_training()
    if lacking is not None:
        print(f"the training step is left out: {lacking}", file=sys.stderr)
    pipeline = build_pipeline(ModelConfig()) if args.model is None else LCADPipeline.from_pretrained(args.model)
    pipeline = pipeline.to(choose_device(args.device))
    pipeline.vae.requires_grad_(False)
    seconds = time_steps(pipeline, args.repeats)
    if args.photo_steps:
        seconds |= time_photo(pipeline, args.photo_steps)
    seconds |= time_masks(pipeline, args.repeats)
    if lacking is None:
        seconds |= time_training(pipeline, args.repeats)
    rows = report(seconds, args.photo_steps)
    print(
        f"{args.model or 'full size, random weights'}, {args.device}, "
        f"{torch.get_num_threads()} threads, torch {torch.__version__}"
    )
    for name, value, ratio in rows:
        print(f"{name:24s} {value:9.3f} s   ratio {ratio:.3f}")
    if args.json:
        content = {
            "machine": platform.processor() or platform.machine(),
            "torch": torch.__version__,
            "repeats": args.repeats,
        }
        content["results"] = {name: {"seconds": value, "ratio": ratio} for name, value, ratio in rows}
        args.json.write_text(json.dumps(content, indent=2))
    return 0


def main(argv: list[str] | None = None) -> int:
    parser = build_parser(None, __doc__)
    add = parser.add_argument
    add("--model", help="checkpoint folder (default: Stable Diffusion 1.5's sizes with random weights)")
    add("--device", default="cpu")
    add("--repeats", type=int, default=5)
    add("--photo-steps", type=int, default=STEPS, help="sampling steps of the whole photo; 0 leaves it out")
    add("--json", type=Path, help="also write the numbers to this file")
    args = parser.parse_args(argv)
    return reporting(lambda: run(args))


if __name__ == "__main__":
    raise SystemExit(main())
