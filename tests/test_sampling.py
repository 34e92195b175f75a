"""The sampling loop and guidance against closed forms."""

import pytest
import torch

from ldm.guidance import classifier_free_guidance
from ldm.sampling import sample
from ldm.schedulers import PREDICTIONS, SCHEDULERS, build_scheduler, scheduler_like, takes_zero_snr


def exact_denoiser(scheduler, x0):
    """Knows x0: returns the noise that x really contains."""
    alphas = scheduler.alphas_cumprod

    def denoise(x, t):
        alpha = alphas[int(t)]
        return (x - alpha.sqrt() * x0) / (1 - alpha).sqrt()

    return denoise


@pytest.mark.parametrize("steps", [1, 5, 50])
def test_ddim_with_an_exact_denoiser_stays_on_the_line_of_equation_1(steps):
    scheduler = build_scheduler("ddim")
    x0, x_T = torch.randn(2, 4, 3, 5), torch.randn(2, 4, 3, 5)
    z = sample(exact_denoiser(scheduler, x0), x_T, scheduler, steps)
    first, last = scheduler.alphas_cumprod[int(scheduler.timesteps[0])], scheduler.alphas_cumprod[0]
    noise = (x_T - first.sqrt() * x0) / (1 - first).sqrt()
    assert torch.allclose(z, last.sqrt() * x0 + (1 - last).sqrt() * noise, atol=1e-3)


@pytest.mark.parametrize("prediction", PREDICTIONS)
@pytest.mark.parametrize("name", SCHEDULERS)
def test_every_scheduler_denoises(name, prediction):
    scheduler = build_scheduler(name, prediction)
    x0 = torch.full((1, 4, 4, 4), 0.5)
    betas = build_scheduler("ddim").alphas_cumprod

    def denoise(x, t):  # schedulers may hand out fractional times
        low = int(t)
        alpha = betas[low] + (betas[min(low + 1, 999)] - betas[low]) * (float(t) - low)
        noise = (x - alpha.sqrt() * x0) / (1 - alpha).sqrt()
        return noise if prediction == "epsilon" else alpha.sqrt() * noise - (1 - alpha).sqrt() * x0

    z = sample(denoise, torch.randn(1, 4, 4, 4, generator=torch.Generator().manual_seed(0)), scheduler, 20)
    assert (z - x0).abs().mean() < 0.15


def test_unknown_scheduler_is_named():
    with pytest.raises(ValueError, match="unknown scheduler 'plms2'; allowed: ddim"):
        build_scheduler("plms2")
    with pytest.raises(ValueError, match="unknown prediction 'x0'; allowed: epsilon, v_prediction"):
        build_scheduler("ddim", "x0")


def test_what_starts_from_pure_noise_is_checked():
    with pytest.raises(ValueError, match="rescale_betas_zero_snr: got prediction 'epsilon'; .* v_prediction"):
        build_scheduler("ddim", zero_snr=True)
    own = build_scheduler("ddim", "v_prediction", zero_snr=True)
    for name in ("heun", "pndm"):
        with pytest.raises(ValueError, match=f"scheduler '{name}' cannot start from pure noise.*; allowed: ddim, "):
            scheduler_like(name, own)
    assert own.alphas_cumprod[-1] == 0 and scheduler_like("lcm", own).alphas_cumprod[-1] == 0


def test_guidance_formula():
    def predict(x, t):
        return torch.cat([torch.full((1, 1), 3.0), torch.full((1, 1), 1.0)])

    assert classifier_free_guidance(predict, 5.0)(torch.zeros(1, 1), torch.tensor(0)).item() == 1 + 5 * (3 - 1)


def denoiser_of_tints(scheduler, mean):
    """The best that there is of photos of one even tint each, of this mean and deviation 1."""

    def denoise(x, t):
        a, pixels = scheduler.alphas_cumprod[int(t)].sqrt(), x.shape[-1] * x.shape[-2]
        of_mean = x.mean((2, 3), keepdim=True) - a * mean
        x0 = (mean + a / (a**2 + (1 - a**2) / pixels) * of_mean).expand_as(x)
        return (a * x - x0) / (1 - a**2).sqrt()

    return denoise


def tints_of(denoise, scheduler, noise):
    return sample(denoise, noise, scheduler, 20).mean((1, 2, 3))


@pytest.mark.parametrize("name", sorted({*filter(takes_zero_snr, SCHEDULERS)} - {"ddim"}))  # whose steps begin after it
def test_a_model_that_has_seen_pure_noise_tints_it_as_photos_are(name):
    noise, mean = torch.randn(400, 1, 16, 16, generator=torch.Generator().manual_seed(0)), 0.7
    made = {}
    for zero_snr in (False, True):
        scheduler = build_scheduler(name, "v_prediction", zero_snr)
        made[zero_snr] = tints_of(denoiser_of_tints(scheduler, mean), scheduler, noise).mean()
    assert made[True] == pytest.approx(mean, abs=0.15) and made[False] < made[True] - 0.15
