"""The sampling loop: a function over a denoiser and a diffusers scheduler."""

import inspect
from collections.abc import Callable

import torch
from diffusers import SchedulerMixin
from torch import Tensor

from ldm.guidance import Denoiser

StepCallback = Callable[[int, Tensor, dict[str, Tensor]], Tensor | None]
"""(step, t, {latents, denoised: (B, C, h, w)}) -> latents to go on with, or None."""


@torch.no_grad()
def sample(
    denoise: Denoiser,
    x_T: Tensor,
    scheduler: SchedulerMixin,
    steps: int,
    generator: torch.Generator | list[torch.Generator] | None = None,
    progress: Callable | None = None,
    init_latents: Tensor | None = None,
    strength: float = 1.0,
    callback: StepCallback | None = None,
) -> Tensor:
    """Denoise `x_T` ~ N(0, 1), shape (B, C, h, w), to latents of the same shape.

    Time steps stay on the CPU, where schedulers look them up: nothing here waits for the device, whose work is queued.
    (Schedulers that add noise draw it from the generator, and one on the CPU makes a copy to wait for.)

    Args:
        denoise: predicts one of `ldm.schedulers.PREDICTIONS`; guidance and refinement are wrappers around it.
        scheduler: any diffusers scheduler set up for what `denoise` predicts; its time steps are set here.
        generator: for schedulers that add noise; a list has one for each row, which then does not depend on the others.
        progress: wraps the iteration over time steps (a progress bar).
        init_latents: to begin from, noised with `x_T` as far as the last `strength` of the steps asks (SDEdit, Meng
            et al. 2022); None: pure noise.
        callback: called after each step; latents that it returns are gone on with.
    """
    scheduler.set_timesteps(steps)
    accepts = inspect.signature(scheduler.step).parameters
    options = {"generator": generator} if "generator" in accepts else {}
    timesteps = scheduler.timesteps
    if init_latents is None:
        x = x_T * scheduler.init_noise_sigma
    else:
        skipped = len(timesteps) - steps_taken(len(timesteps), strength)
        timesteps = timesteps[skipped:]
        if hasattr(scheduler, "set_begin_index"):
            scheduler.set_begin_index(skipped)
        x = scheduler.add_noise(init_latents, x_T, timesteps[:1])
    for step, t in enumerate(progress(timesteps) if progress else timesteps):
        scaled = scheduler.scale_model_input(x, t)
        predicted = denoise(scaled, t)
        x = scheduler.step(predicted, t, x, **options).prev_sample
        if callback is not None:
            changed = callback(step, t, {"latents": x, "denoised": denoised(scheduler, scaled, t, predicted)})
            x = x if changed is None else changed
    return x


def steps_taken(steps: int, strength: float) -> int:
    """How many of the steps `sample` takes at a strength: one at least."""
    return max(1, steps - round(steps * (1 - strength)))


def denoised(scheduler: SchedulerMixin, x_t: Tensor, t: Tensor, predicted: Tensor) -> Tensor:
    """What a prediction at t makes of the finished latents.

    Args:
        x_t: as the model sees it (`scale_model_input`), of variance 1.
    """
    alpha = scheduler.alphas_cumprod[int(t)].to(x_t.dtype)
    return split_prediction(scheduler.config.prediction_type, alpha, x_t, predicted)[0]


def split_prediction(kind: str, alpha: Tensor, x_t: Tensor, predicted: Tensor) -> tuple[Tensor, Tensor]:
    """A prediction, a row of `ldm.schedulers.PREDICTIONS` -> the finished latents and the noise that it means.

    Args:
        alpha: alpha-bar at t, one or one for each row (B, 1, 1, 1).
        x_t: as for `denoised`.
    """
    if kind == "v_prediction":
        latents = alpha.sqrt() * x_t - (1 - alpha).sqrt() * predicted
        return latents, alpha.sqrt() * predicted + (1 - alpha).sqrt() * x_t
    return (x_t - (1 - alpha).sqrt() * predicted) / alpha.sqrt(), predicted
