"""Schedulers by name: diffusers' own, set up for Stable Diffusion's noise schedule.

A new scheduler is one new row in `SCHEDULERS`; it must take both `PREDICTIONS`.
"""

import inspect
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # commands list the names before anything is loaded
    from diffusers import DDIMScheduler, SchedulerMixin

# betas: sqrt-linear from 0.00085 to 0.012 over 1000 steps, as Stable Diffusion 1.x was trained
NOISE_SCHEDULE = dict(num_train_timesteps=1000, beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear")

PREDICTIONS = {
    "epsilon": "the noise, as in Stable Diffusion 1.x and the paper",
    "v_prediction": "v = sqrt(alpha-bar) noise - sqrt(1 - alpha-bar) latents (Salimans and Ho 2022)",
}

SCHEDULERS: dict[str, tuple[str, dict[str, Any]]] = {
    # "leading" time steps 1, 21, ..., 981; the last step goes to alpha-bar of step 0 (as in the release)
    "ddim": ("DDIMScheduler", dict(clip_sample=False, set_alpha_to_one=False, steps_offset=1)),
    # 999, 899, ..., 99 (Lin et al. 2024): from pure noise, which few steps must begin from
    "ddim_trailing": (
        "DDIMScheduler",
        dict(clip_sample=False, set_alpha_to_one=False, timestep_spacing="trailing"),
    ),
    "ddpm": ("DDPMScheduler", dict(clip_sample=False, steps_offset=1)),
    "dpmpp": ("DPMSolverMultistepScheduler", dict(steps_offset=1)),
    "unipc": ("UniPCMultistepScheduler", dict(steps_offset=1)),
    "euler": ("EulerDiscreteScheduler", dict(steps_offset=1)),
    "euler_ancestral": ("EulerAncestralDiscreteScheduler", dict(steps_offset=1)),
    "lcm": ("LCMScheduler", dict(set_alpha_to_one=False, steps_offset=1)),  # of consistency models
    "heun": ("HeunDiscreteScheduler", dict(steps_offset=1)),
    "pndm": ("PNDMScheduler", dict(skip_prk_steps=True, set_alpha_to_one=False, steps_offset=1)),
}


def build_scheduler(name: str = "ddim", prediction: str = "epsilon", zero_snr: bool = False) -> "SchedulerMixin":
    """A scheduler of `SCHEDULERS` by name, for a network that predicts one of `PREDICTIONS`.

    Args:
        zero_snr: diffusers' `rescale_betas_zero_snr`: the last time step is pure noise (Lin et al. 2024). Stable
            Diffusion's leaves a signal of 0.07 there, which in the low frequencies outweighs the noise.

    Raises:
        ValueError: an unknown name, or one that `zero_snr` does not go with; the message lists the allowed ones.
    """
    check_prediction(prediction, zero_snr)
    if name not in SCHEDULERS:
        raise ValueError(f"unknown scheduler {name!r}; allowed: {', '.join(SCHEDULERS)}")
    if zero_snr and not takes_zero_snr(name):
        allowed = ", ".join(row for row in SCHEDULERS if takes_zero_snr(row))
        raise ValueError(f"scheduler {name!r} cannot start from pure noise, as this model does; allowed: {allowed}")
    import diffusers

    class_name, options = SCHEDULERS[name]
    options = options | (dict(rescale_betas_zero_snr=True) if zero_snr else {})
    return getattr(diffusers, class_name)(**NOISE_SCHEDULE, prediction_type=prediction, **options)


def check_prediction(prediction: str, zero_snr: bool) -> None:
    """Raises ValueError: not one of `PREDICTIONS`, or one that says nothing of the photo in pure noise."""
    if prediction not in PREDICTIONS:
        raise ValueError(f"unknown prediction {prediction!r}; allowed: {', '.join(PREDICTIONS)}")
    if zero_snr and prediction != "v_prediction":
        raise ValueError(f"rescale_betas_zero_snr: got prediction {prediction!r}; pure noise asks for v_prediction")


def takes_zero_snr(name: str) -> bool:
    """Has diffusers' class of that row the option?"""
    import diffusers

    return "rescale_betas_zero_snr" in inspect.signature(getattr(diffusers, SCHEDULERS[name][0])).parameters


def scheduler_like(name: str, scheduler: "SchedulerMixin") -> "SchedulerMixin":
    """Another scheduler of `SCHEDULERS` for the model that `scheduler` is of; errors as in `build_scheduler`."""
    return build_scheduler(name, scheduler.config.prediction_type, has_zero_snr(scheduler))


def has_zero_snr(scheduler: "SchedulerMixin") -> bool:
    return bool(scheduler.config.get("rescale_betas_zero_snr", False))


def scheduler_name(scheduler: "SchedulerMixin") -> str:
    """The row of `SCHEDULERS` a scheduler is of, or the name of its class."""
    own, spacing = type(scheduler).__name__, scheduler.config.get("timestep_spacing")
    rows = [name for name, (class_name, _) in SCHEDULERS.items() if class_name == own]
    alike = [name for name in rows if build_scheduler(name).config.get("timestep_spacing") == spacing]
    return next(iter([*alike, *rows]), own)


def build_training_schedule(prediction: str = "epsilon", zero_snr: bool = False) -> "DDIMScheduler":
    """The forward process of Eq. 1, used in training for `add_noise` and the target."""
    return build_scheduler("ddim", prediction, zero_snr)
