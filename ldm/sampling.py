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
    generator: torch.Generator | list[torch.Generator] | None = None,
    progress: Callable | None = None,
    start: Tensor | None = None,
    share: float = 1.0,
) -> Tensor:
    """Denoise `x_T` ~ N(0, 1), shape (B, C, h, w), to latents of the same shape.

    Args:
        denoise: predicts one of `ldm.schedulers.PREDICTIONS`; guidance and refinement are wrappers around it.
        scheduler: any diffusers scheduler set up for what `denoise` predicts; its time steps are set here.
        generator: for schedulers that add noise; a list has one for each row, which then does not depend on the others.
        progress: wraps the iteration over time steps (a progress bar).
        start: latents to begin from, noised with `x_T` as far as the last `share` of the steps asks (SDEdit, Meng et
            al. 2022); None: pure noise.
    """
    scheduler.set_timesteps(steps, device=x_T.device)
    accepts = inspect.signature(scheduler.step).parameters
    options = {"generator": generator} if "generator" in accepts else {}
    timesteps = scheduler.timesteps
    if start is None:
        x = x_T * scheduler.init_noise_sigma
    else:
        left_out = min(len(timesteps) - 1, round(len(timesteps) * (1 - share)))
        timesteps = timesteps[left_out:]
        if hasattr(scheduler, "set_begin_index"):
            scheduler.set_begin_index(left_out)
        x = scheduler.add_noise(start, x_T, timesteps[:1])
    for t in progress(timesteps) if progress else timesteps:
        predicted = denoise(scheduler.scale_model_input(x, t), t)
        x = scheduler.step(predicted, t, x, **options).prev_sample
    return x
