"""The loss of stage 2 in both predictions, against closed forms."""

import pytest
import torch

from lcad.builder import build_pipeline
from lcad.config import LatentConfig, TrainerConfig
from lcad.latent_stage import LatentStage, draw_timesteps
from tests.conftest import tiny_config


@pytest.mark.parametrize("prediction", [None, "v_prediction"])
def test_loss_of_a_network_that_predicts_zero(prediction):
    """Then the loss is the mean square of the target: of the noise, or of sqrt(a) noise - sqrt(1 - a) z."""
    stage = LatentStage(build_pipeline(tiny_config()), LatentConfig(prediction=prediction), TrainerConfig())
    torch.nn.init.zeros_(stage.unet.conv_out.weight)
    torch.nn.init.zeros_(stage.unet.conv_out.bias)
    generator = torch.Generator().manual_seed(0)
    z, noise = (torch.randn(2, 4, 8, 8, generator=generator) for _ in range(2))
    t = torch.tensor([100, 900])
    loss = stage.predict_loss(z, None, torch.zeros(2, 77, 16), t, noise)
    a = stage.schedule.alphas_cumprod[t][:, None, None, None]
    target = noise if prediction is None else a.sqrt() * noise - (1 - a).sqrt() * z
    assert loss.item() == pytest.approx(target.square().mean().item(), rel=1e-5)
    assert stage.pipeline.scheduler.config.prediction_type == (prediction or "epsilon")
    assert stage.pipeline.config.guidance_scale == LatentConfig().guidance


@pytest.mark.parametrize("shift, below_half", [(1.0, 0.5), (3.0, 0.25)])
def test_shifted_time_steps(shift, below_half):
    """Half of the u lie below 1/2; with shift 3, t is below 1/2 for u < 1/4."""
    t = draw_timesteps(40_000, 1000, shift, torch.Generator().manual_seed(0))
    assert t.min() >= 0 and t.max() == 999
    assert (t < 500).float().mean().item() == pytest.approx(below_half, abs=0.01)


def test_a_shift_of_nothing_is_refused():
    with pytest.raises(ValueError, match="timestep_shift: got 0.0; it must be above 0"):
        LatentStage(build_pipeline(tiny_config()), LatentConfig(timestep_shift=0.0), TrainerConfig())
