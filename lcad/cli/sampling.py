"""What commands that sample share: the options of sampling, and a pipeline as they say."""

import argparse
from collections.abc import Callable
from typing import TYPE_CHECKING

from ldm.schedulers import SCHEDULERS, scheduler_like

if TYPE_CHECKING:
    from lcad.pipeline import LCADPipeline


def add_sampling(add: Callable[..., object]) -> None:
    """`add` is `add_argument` of a parser or of a group; see `check_sampling` and `with_sampling`."""
    add("--fast", action="store_true", help="4 steps: with the model's LCM-LoRA (lcm_lora/), its guidance baked in")
    add("--steps", type=int, help="sampling steps (default: the model's own)")
    add("--scheduler", choices=list(SCHEDULERS), help="default: the model's own; the paper's is ddim, with 50 steps")
    add("--guidance", type=float, help="classifier-free guidance; 1 is none (default: the model's own)")


def check_sampling(args: argparse.Namespace, parser: argparse.ArgumentParser) -> None:
    """Refuse what has no effect."""
    for name in ("scheduler", "guidance"):
        if args.fast and getattr(args, name) is not None:
            parser.error(f"--fast brings its own {name}; leave out --{name}, or --fast")


def with_sampling(pipeline: "LCADPipeline", args: argparse.Namespace) -> "LCADPipeline":
    """The pipeline with the scheduler asked for, or for a few steps.

    Raises:
        ValueError: a scheduler that does not go with the model, or no weights for a few steps.
    """
    if args.scheduler:
        pipeline.scheduler = scheduler_like(args.scheduler, pipeline.scheduler)
    return pipeline.with_lcm_lora() if args.fast else pipeline
