"""The sampling loop: a function over a denoiser and a diffusers scheduler."""

import inspect
from collections.abc import Callable

import torch
from diffusers import SchedulerMixin
from torch import Tensor

from ldm.guidance import Denoiser


@torch.no_grad()
def sample(
    denoise: Denoiser,
    x_T: Tensor,
    scheduler: SchedulerMixin,
    steps: int,
    generator: torch.Generator | None = None,
    progress: Callable | None = None,
) -> Tensor:
    """Denoise `x_T` ~ N(0, 1), shape (B, C, h, w), to latents of the same shape.

    Args:
        denoise: predicts one of `ldm.schedulers.PREDICTIONS`; guidance and refinement are wrappers around it.
        scheduler: any diffusers scheduler set up for what `denoise` predicts; its time steps are set here.
        generator: for schedulers that add noise.
        progress: wraps the iteration over time steps (a progress bar).
    """
    scheduler.set_timesteps(steps, device=x_T.device)
    accepts = inspect.signature(scheduler.step).parameters
    options = {"generator": generator} if "generator" in accepts else {}
    x = x_T * scheduler.init_noise_sigma
    for t in progress(scheduler.timesteps) if progress else scheduler.timesteps:
        predicted = denoise(scheduler.scale_model_input(x, t), t)
        x = scheduler.step(predicted, t, x, **options).prev_sample
    return x
