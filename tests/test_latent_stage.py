"""The loss of stage 2 in both predictions, against closed forms."""

import pytest
import torch

from lcad.attention_refinement import InstanceMasks
from lcad.builder import build_pipeline
from lcad.config import LatentConfig, TrainerConfig
from lcad.latent_stage import LatentStage, _of_nouns, draw_timesteps
from lcad.phrases import comma_phrases, find_phrases
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
    with pytest.raises(ValueError, match="latent.timestep_shift: got 0.0; it must be above 0"):
        LatentConfig(timestep_shift=0.0)


def test_refined_attention_in_training_is_that_of_sampling(tiny_pipeline):
    """Only photos with masks differ, by what `refined` predicts for them, and the text encoder learns from it."""
    config = LatentConfig(trainable=["unet.*", "text_encoder.*"], refined=1.0)
    stage = LatentStage(build_pipeline(tiny_config()), config, TrainerConfig())
    masks = torch.zeros(2, 32, 32)
    masks[0, :, :16], masks[1, :, 16:] = 1, 1
    instances = InstanceMasks(comma_phrases("the red cup, the blue cup", tiny_pipeline.tokenizer), masks)
    batch = {
        "caption": ["the red cup, the blue cup"] * 2,
        "moments": torch.randn(2, 8, 8, 8, generator=torch.Generator().manual_seed(0)),
        "luminance": torch.zeros(2, 16, 8, 8),
    }

    def loss(*items):
        return stage._loss(batch | {"instances": list(items)}, torch.Generator().manual_seed(1))

    plain, one, both = loss(None, None), loss(instances, None), loss(instances, instances)
    assert len({plain.item(), one.item(), both.item()}) == 3
    both.backward()
    embeddings = stage.text_encoder.get_input_embeddings().weight.grad
    words = tiny_pipeline.tokenizer("red", add_special_tokens=False)["input_ids"]
    assert embeddings[words].abs().max() > 0


def test_words_learn_where_their_objects_are(tiny_pipeline):
    """L_BCE is added for the photos whose attention is not refined; training on it alone lowers it."""
    trainable = ["unet.*attn2.*", "text_encoder.*"]
    masks = torch.zeros(1, 32, 32)
    masks[0, :, :16] = 1
    instances = InstanceMasks(comma_phrases("the red cup", tiny_pipeline.tokenizer), masks)
    batch = {
        "caption": ["the red cup"] * 2,
        "moments": torch.randn(2, 8, 8, 8, generator=torch.Generator().manual_seed(0)),
        "luminance": torch.randn(2, 16, 8, 8, generator=torch.Generator().manual_seed(1)),
        "instances": [instances, None],
    }

    def stage(**options) -> LatentStage:
        torch.manual_seed(0)
        return LatentStage(build_pipeline(tiny_config()), LatentConfig(trainable=trainable, **options), TrainerConfig())

    def loss(stage: LatentStage) -> float:
        return stage._loss(batch, torch.Generator().manual_seed(2))

    plain, grounded = stage(), stage(grounding=100.0)
    added = (loss(grounded) - loss(plain)) / 100
    assert 1.1 < added < 1.6, "at first about log 2 for pixels and log 2 for the half of the attention in the mask"
    assert loss(stage(refined=1.0, grounding=100.0)).item() == pytest.approx(loss(stage(refined=1.0)).item(), rel=1e-5)
    optimizer = torch.optim.Adam([p for p in grounded.parameters() if p.requires_grad], 1e-2)
    for _ in range(30):
        optimizer.zero_grad()
        loss(grounded).backward()
        optimizer.step()
    assert (loss(grounded) - loss(plain)) / 100 < 0.7 * added


def test_objects_are_looked_for_in_noise_by_their_nouns(tiny_pipeline):
    """What the colours are makes no difference, and the weights that colorize stay; "red" has no mask, "cup" has."""
    pipeline = build_pipeline(tiny_config())
    stage = LatentStage(pipeline, LatentConfig(looking=True, grounding=1.0, guidance=9.0), TrainerConfig())
    assert stage.unet is not pipeline.unet and stage.text_encoder is not pipeline.text_encoder
    assert pipeline.config.guidance_scale == 5.0, "the model's own guidance stays"
    caption, masks = "the red cup, the blue dish", torch.zeros(2, 32, 32)
    masks[0, :, :16], masks[1, :, 16:] = 1, 1
    instances = InstanceMasks(find_phrases(caption, tiny_pipeline.tokenizer), masks)

    def loss(moments: torch.Tensor, items: InstanceMasks | None) -> float:
        batch = {"caption": [caption], "moments": moments, "luminance": torch.ones(1, 16, 8, 8), "instances": [items]}
        return stage._loss(batch, torch.Generator().manual_seed(0)).item()

    one, other = (torch.randn(1, 8, 8, 8, generator=torch.Generator().manual_seed(seed)) for seed in range(2))
    assert loss(one, instances) == loss(other, instances) > loss(one, None)
    words = tiny_pipeline.tokenizer(caption)["input_ids"]
    nouns = _of_nouns(instances)
    names = [tiny_pipeline.tokenizer.decode(words[slice(*phrase.tokens)]).strip() for phrase in nouns.phrases]
    assert names == ["cup", "dish"] and torch.equal(nouns.masks, masks)
    assert stage.prepare({"image": torch.rand(1, 3, 32, 32)})["moments"].shape == (1, 8, 8, 8), "latents are not needed"


def test_refined_attention_and_gradient_checkpointing_are_refused():
    with pytest.raises(ValueError, match="latent.refined and latent.grounding do not go"):
        LatentStage(
            build_pipeline(tiny_config()), LatentConfig(refined=0.5), TrainerConfig(gradient_checkpointing=True)
        )
