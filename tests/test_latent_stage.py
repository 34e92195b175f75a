"""The loss of stage 2 in both predictions, against closed forms."""

import hashlib
import json
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from lcad.color import rgb_to_hint
from lcad.config import LatentConfig, TrainerConfig
from lcad.instance_sampling import LogitTargets
from lcad.masks.types import InstanceMasks
from lcad.models.guided_decoder import decode_with_luminance
from lcad.text.captions import SCARCE_CAPTION
from lcad.text.phrases import comma_phrases, find_phrases
from lcad.training.attention_supervision import _of_nouns
from lcad.training.latent_stage import LatentStage, _noise_like, draw_timesteps
from lcad.training.localizer_stage import LocalizerStage
from lcad.training.optimization import step_generator
from lcad.training.start import build_pipeline
from ldm.schedulers import scheduler_name
from tests.conftest import randomize_additions, tiny_config


@pytest.mark.parametrize("prediction", [None, "v_prediction"])
def test_loss_of_a_network_that_predicts_zero(prediction):
    """Then the loss is the mean square of the target: of the noise, or of sqrt(a) noise - sqrt(1 - a) z."""
    stage = LatentStage(build_pipeline(tiny_config()), LatentConfig(prediction_type=prediction), TrainerConfig())
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
    assert stage.pipeline.config.guidance_scale == LatentConfig().guidance_scale


def test_at_the_last_time_step_of_zero_snr_the_colours_are_learnt_from_pure_noise():
    """There v is -z. What is sampled with, also in a few steps, has the schedule that was trained on."""
    config = LatentConfig(prediction_type="v_prediction", rescale_betas_zero_snr=True)
    stage = LatentStage(build_pipeline(tiny_config()), config, TrainerConfig())
    torch.nn.init.zeros_(stage.unet.conv_out.weight)
    torch.nn.init.zeros_(stage.unet.conv_out.bias)
    z, noise, text = torch.randn(2, 4, 8, 8), torch.randn(2, 4, 8, 8), torch.zeros(2, 77, 16)
    loss = stage.predict_loss(z, None, text, torch.tensor([999, 999]), noise)
    assert loss.item() == pytest.approx(z.square().mean().item(), rel=1e-5)
    schedules = [stage.schedule, stage.pipeline.scheduler, stage.pipeline.for_few_steps(stage.unet).scheduler]
    schedules.append(LatentStage(stage.pipeline, LatentConfig(), TrainerConfig()).pipeline.scheduler)  # as in `init`
    assert all(torch.equal(schedule.alphas_cumprod, stage.schedule.alphas_cumprod) for schedule in schedules)
    own = LatentConfig(rescale_betas_zero_snr=False)
    assert LatentStage(stage.pipeline, own, TrainerConfig()).schedule.alphas_cumprod[-1] > 0


def test_what_a_model_is_sampled_with_is_saved_with_it():
    config = LatentConfig(scheduler="dpmpp", num_inference_steps=7, guidance_scale=3, prediction_type="v_prediction")
    pipeline = LatentStage(build_pipeline(tiny_config()), config, TrainerConfig()).pipeline
    assert (pipeline.config.num_inference_steps, pipeline.config.guidance_scale) == (7, 3)
    assert scheduler_name(pipeline.scheduler) == "dpmpp"
    assert pipeline.scheduler.config.prediction_type == "v_prediction"
    with pytest.raises(ValueError, match="unknown scheduler 'fast'; allowed: ddim"):
        LatentStage(pipeline, LatentConfig(scheduler="fast"), TrainerConfig())


def test_the_network_is_compiled_once_and_for_training_alone(monkeypatch):
    compiled = []
    monkeypatch.setattr(torch, "compile", lambda function: compiled.append(function) or len(compiled))
    stage = LatentStage(build_pipeline(tiny_config()), LatentConfig(), TrainerConfig(compile=True))
    assert (stage._denoiser(), stage._denoiser()) == (1, 1) and compiled == [stage.unet.forward]
    assert stage.eval()._denoiser() is stage.unet
    stage.trainer_config = TrainerConfig()
    assert stage.train()._denoiser() is stage.unet


def test_a_caches_name_is_a_hash_of_all_it_depends_on():
    pipeline = build_pipeline(tiny_config())
    for trainable, text in ((["unet.*"], [pipeline.text_encoder]), (["text_encoder.*"], [])):
        stage = LatentStage(pipeline, LatentConfig(trainable=trainable), TrainerConfig(precision="bf16-mixed"))
        settings = [["a photo", True, not text], "unit", "bf16-mixed"]
        content = json.dumps(settings).encode()
        for module in (pipeline.vae, pipeline.luminance_encoder, *text):
            content += b"".join(value.numpy().tobytes() for value in module.state_dict().values())
        assert stage.cache_fingerprint(["a photo"]) == hashlib.sha256(content).hexdigest()[:16]


def test_what_is_drawn_lies_on_the_generators_device():
    generator = torch.Generator().manual_seed(0)
    with torch.device("meta"):  # where all else would lie, without values
        t = draw_timesteps(3, 1000, 1.0, generator)
        noise = _noise_like(torch.zeros(2, dtype=torch.float16, device="cpu"), generator)
    assert t.device == noise.device == torch.device("cpu") and noise.dtype == torch.float16


@pytest.mark.parametrize("shift, below_half", [(1.0, 0.5), (3.0, 0.25)])
def test_shifted_time_steps(shift, below_half):
    """Half of the u lie below 1/2; with shift 3, t is below 1/2 for u < 1/4."""
    t = draw_timesteps(40_000, 1000, shift, torch.Generator().manual_seed(0))
    assert t.min() >= 0 and t.max() == 999
    assert (t < 500).float().mean().item() == pytest.approx(below_half, abs=0.01)


def test_a_draw_next_to_one_is_the_last_time_step(monkeypatch):
    """Which float32 rounds up to as many as there are steps."""
    monkeypatch.setattr(torch, "rand", lambda count, **_: torch.full((count,), 1 - 2**-24))
    assert draw_timesteps(1, 1000, 1.6, torch.Generator()).tolist() == [999]


def test_a_shift_of_nothing_is_refused():
    with pytest.raises(ValueError, match="latent.timestep_shift: got 0.0; it must be above 0"):
        LatentConfig(timestep_shift=0.0)


def test_refined_attention_in_training_is_that_of_sampling(tiny_pipeline):
    """Only photos with masks differ, by what `refined` predicts for them, and the text encoder learns from it."""
    config = LatentConfig(trainable=["unet.*", "text_encoder.*"], instance_sampling_probability=1.0)
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

    plain, grounded = stage(), stage(localizer_weight=100.0)
    added = (loss(grounded) - loss(plain)) / 100
    assert 1.1 < added < 1.6, "at first about log 2 for pixels and log 2 for the half of the attention in the mask"
    assert loss(stage(instance_sampling_probability=1.0, localizer_weight=100.0)).item() == pytest.approx(
        loss(stage(instance_sampling_probability=1.0)).item(), rel=1e-5
    )
    optimizer = torch.optim.Adam([p for p in grounded.parameters() if p.requires_grad], 3e-2)
    for _ in range(6):
        optimizer.zero_grad()
        loss(grounded).backward()
        optimizer.step()
    assert (loss(grounded) - loss(plain)) / 100 < 0.7 * added


def test_objects_are_looked_for_in_noise_by_their_nouns(tiny_pipeline):
    """What the colours are makes no difference, and the weights that colorize stay; "red" has no mask, "cup" has."""
    pipeline = build_pipeline(tiny_config())
    stage = LocalizerStage(
        pipeline, LatentConfig(train_localizer=True, localizer_weight=1.0, guidance_scale=9.0), TrainerConfig()
    )
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
    assert stage.prepare(torch.rand(1, 3, 32, 32))["moments"].shape == (1, 8, 8, 8), "latents are not needed"


def attached(stage: LatentStage, batch: int = 3) -> LatentStage:
    """The stage as in a run, at a batch; what it logs is in `logged`."""
    loops = SimpleNamespace(epoch_loop=SimpleNamespace(total_batch_idx=batch))
    stage._trainer = SimpleNamespace(
        fit_loop=loops, global_rank=0, estimated_stepping_batches=10, callbacks=[],
        strategy=SimpleNamespace(broadcast=lambda value: value),
    )  # fmt: skip
    stage.logged, stage.logged_with = {}, {}
    stage.log = lambda name, value, **given: (
        stage.logged.update({name: value}) or stage.logged_with.update({name: given})
    )
    return stage


@torch.no_grad()
def test_the_loss_of_a_batch_is_equation_6(tiny_pipeline):
    """Latents, time steps and noise are drawn in this order; a cache's tensors and a photo give the same."""
    pipeline = randomize_additions(build_pipeline(tiny_config()))
    stage = attached(LatentStage(pipeline, LatentConfig(timestep_shift=2.0), TrainerConfig()))
    photos, captions = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0)), ["a red cup", "a dog"]
    distribution = stage.vae.encode(photos * 2 - 1).latent_dist
    generator = torch.Generator().manual_seed(4)
    z = distribution.mean + distribution.std * torch.randn(2, 4, 8, 8, generator=generator)
    t = draw_timesteps(2, 1000, 2.0, generator)
    noise, text = torch.randn(2, 4, 8, 8, generator=generator), stage._encode_text(captions)
    luminance = stage.luminance_encoder(rgb_to_hint(photos, "unit"))[-1]
    z = z * stage.vae.config.scaling_factor
    z_t = stage.schedule.add_noise(z, noise, t)
    predicted = stage.unet(z_t, t, text, stage.unet.luminance_responses(luminance)).sample
    expected = (predicted - noise).square().mean().item()
    batch = {"image": photos, "caption": captions}
    assert stage._loss(batch, torch.Generator().manual_seed(4)).item() == pytest.approx(expected, rel=1e-5)
    fixed = {"moments": distribution.parameters, "luminance": luminance, "text": text}
    cached = stage._loss(batch | fixed, torch.Generator().manual_seed(4))
    assert cached.item() == pytest.approx(expected, rel=1e-5)
    other = stage._loss(batch | fixed | {"text": text * 2}, torch.Generator().manual_seed(4))
    assert other.item() != pytest.approx(expected, rel=1e-5), "the cache's text is what counts"

    stage.validation_step(batch, 4)
    assert stage.logged["validation/loss"].item() == pytest.approx(expected, rel=1e-5), "the same at every validation"
    stage.validation_step(fixed, 4)
    assert stage.logged["validation/loss"].item() == pytest.approx(expected, rel=1e-5)
    loss = stage.training_step(batch, 0)
    assert loss.item() == pytest.approx(stage._loss(batch, step_generator(stage)).item(), rel=1e-5)
    assert stage.logged["train/loss"].item() == loss.item() and not stage.logged["train/loss"].requires_grad
    assert stage.logged_with["train/loss"] == {"prog_bar": True}
    assert stage.logged_with["validation/loss"] == {"batch_size": 2, "sync_dist": True}


def test_moments_of_any_size_make_finite_latents():
    stage = LatentStage(build_pipeline(tiny_config()), LatentConfig(), TrainerConfig())
    batch = {"text": torch.zeros(1, 77, 16), "luminance": torch.zeros(1, 16, 8, 8)}
    for log_variance in (-1e9, 1e9):
        moments = torch.cat([torch.zeros(1, 4, 8, 8), torch.full((1, 4, 8, 8), log_variance)], 1)
        loss = stage._loss(batch | {"moments": moments}, torch.Generator().manual_seed(0))
        assert torch.isfinite(loss)


def test_batches_of_the_device_are_drawn_for_on_it(monkeypatch, tiny_pipeline):
    """Those of resident data, which hold token ids, need not wait for the CPU."""
    stage, on_device = attached(LatentStage(tiny_pipeline, LatentConfig(), TrainerConfig())), []
    monkeypatch.setattr("lcad.training.latent_stage.step_generator", lambda _stage, own: on_device.append(own))
    stage._loss = lambda _batch, _generator: torch.zeros(())
    for source in ("tokens", "caption"):
        stage.training_step({source: None}, 0)
    assert on_device == [True, False]


def test_without_extended_convolutions_nothing_is_made_of_the_luminance():
    stage = LatentStage(build_pipeline(tiny_config("none")), LatentConfig(trainable=["unet.*"]), TrainerConfig())
    assert stage.prepare(torch.rand(1, 3, 32, 32)).keys() == {"moments"}
    stage = LatentStage(build_pipeline(tiny_config("none")), LatentConfig(sites="down_blocks"), TrainerConfig())
    assert stage.pipeline.unet is stage.unet and stage.unet.config.sites == "down_blocks"
    assert stage.prepare(torch.rand(1, 3, 32, 32)).keys() == {"moments", "luminance"}


def test_patterns_choose_what_is_trained():
    patterns = ["unet.up_blocks.*", "!unet.*.bias", "text_encoder.*fc1*"]
    stage = attached(LatentStage(build_pipeline(tiny_config()), LatentConfig(trainable=patterns), TrainerConfig()))
    trained = {name for name, p in stage.named_parameters() if p.requires_grad}
    named = [
        f"{part}.{name}" for part in ("unet", "text_encoder") for name, _ in getattr(stage, part).named_parameters()
    ]
    wanted = {name for name in named if name.startswith("unet.up_blocks.") and not name.endswith(".bias")}
    wanted |= {name for name in named if name.startswith("text_encoder.") and "fc1" in name}
    assert trained == wanted and stage.text_trained and not stage.strict_loading
    assert stage._encode_text(["a cup"]).requires_grad
    with torch.no_grad():
        assert not stage._encode_text(["a cup"]).requires_grad, "as in validation"
    frozen = LatentStage(build_pipeline(tiny_config()), LatentConfig(), TrainerConfig())
    assert not frozen.text_trained and not frozen._encode_text(["a cup"]).requires_grad
    with pytest.raises(ValueError, match="latent.trainable: 'unet.wings' matches no parameter"):
        LatentStage(build_pipeline(tiny_config()), LatentConfig(trainable=["unet.*", "unet.wings"]), TrainerConfig())
    checkpoint = {"state_dict": stage.state_dict()}
    stage.on_save_checkpoint(checkpoint)
    assert wanted <= checkpoint["state_dict"].keys() and "unet.conv_in.weight" not in checkpoint["state_dict"]


def test_the_rate_warms_up_and_decays():
    config = LatentConfig(learning_rate=0.5, final_learning_rate=0.1, warmup_steps=2)
    built = attached(LatentStage(build_pipeline(tiny_config()), config, TrainerConfig())).configure_optimizers()
    rates = []
    for _ in range(11):
        rates.append(built["optimizer"].param_groups[0]["lr"])
        built["optimizer"].step()
        built["lr_scheduler"]["scheduler"].step()
    assert rates[:2] == [0.25, 0.5] and rates[6] == pytest.approx(0.3) and rates[10] == pytest.approx(0.1)


def test_only_a_share_of_the_photos_is_refined_and_none_in_validation(tiny_pipeline, monkeypatch):
    stage = LatentStage(
        build_pipeline(tiny_config()),
        LatentConfig(instance_sampling_probability=0.25, localizer_weight=1.0),
        TrainerConfig(),
    )
    asked = []

    def note(*args) -> torch.Tensor:
        supervision = args[5].function.__self__
        asked.append((supervision.given, supervision.wanted))
        return torch.zeros(())

    monkeypatch.setattr(stage, "predict_loss", note)
    masks = InstanceMasks(find_phrases("a red cup", tiny_pipeline.tokenizer), torch.ones(1, 32, 32))
    batch = {"moments": torch.zeros(400, 8, 1, 1), "text": torch.zeros(400, 77, 16), "instances": [masks] * 400}

    def touched(targets: LogitTargets) -> torch.Tensor:
        return targets.gradient(torch.zeros(400, 1, 1, 77), "element").abs().amax((1, 2, 3)) > 0

    stage._loss(batch, torch.Generator().manual_seed(0))
    refined, grounded = map(touched, asked[0])
    assert 60 < refined.sum() < 140 and torch.equal(grounded, ~refined)
    stage.eval()
    stage._loss(batch, torch.Generator().manual_seed(0))
    assert asked[1][0] is None and touched(asked[1][1]).all()


def test_the_log_shows_the_photo_its_caption_and_a_scarce_one(tiny_pipeline):
    config = LatentConfig(sample_steps=2)
    photos, captions = torch.rand(2, 3, 32, 32).mul(255).round() / 255, ["a red cup", "a dog"]
    for sites, luminance in (("conv_in", "input"), ("none", "decoded")):
        pipeline = build_pipeline(tiny_config(sites))
        trained = config if sites != "none" else replace(config, trainable=["unet.*"])
        rows = LatentStage(pipeline, trained, TrainerConfig()).example_images({"image": photos, "caption": captions})
        assert rows.shape == (6, 3, 32, 32) and torch.equal(rows[::3], photos)
        for column, texts in ((1, captions), (2, [SCARCE_CAPTION] * 2)):
            generators = [torch.Generator().manual_seed(i) for i in range(2)]
            expected = pipeline(
                list(photos), texts, num_inference_steps=2, generator=generators, output_luminance=luminance,
                output_type="pt",
            )  # fmt: skip
            assert torch.allclose(rows[column::3], torch.stack(expected.images), atol=2e-3)


def test_weights_for_looking_are_handed_over_at_the_end(tiny_pipeline):
    pipeline = build_pipeline(tiny_config())
    config = LatentConfig(train_localizer=True, localizer_weight=1.0, trainable=["unet.*attn2.to_k*"])
    stage = LocalizerStage(pipeline, config, TrainerConfig())
    name = next(name for name, p in stage.named_parameters() if p.requires_grad)
    stage.get_parameter(name).data += 1
    stage.on_fit_end()
    assert pipeline.localizer and all("attn2.to_k" in name for name in pipeline.localizer)
    assert torch.equal(pipeline.localizer[name], stage.get_parameter(name))
    assert not torch.equal(pipeline.unet.get_parameter(name[5:]), stage.get_parameter(name))
    rows = stage.example_images({"image": torch.rand(2, 3, 32, 32), "caption": ["a red cup, a blue dog", "here"]})
    assert rows.shape == (6, 3, 32, 32)
    assert torch.equal(rows[4], rows[5]) and (rows[4].amax(0) == rows[4].amin(0)).all(), "no object, a grey photo"
    assert not torch.equal(rows[1], rows[2])


@pytest.mark.parametrize("sites", ["conv_in", "down_blocks"])
def test_masks_go_with_gradient_checkpointing(tiny_pipeline, sites):
    """Losses and gradients are those without: what is computed again sees the same masks and the same luminance."""
    instances = InstanceMasks(find_phrases("a red cup", tiny_pipeline.tokenizer), torch.ones(1, 32, 32))
    found = []
    for checkpointing in (False, True):
        stage = LatentStage(
            build_pipeline(tiny_config(sites)),
            LatentConfig(trainable=["unet.*"], instance_sampling_probability=0.5, localizer_weight=1.0),
            TrainerConfig(gradient_checkpointing=checkpointing),
        )
        generator = torch.Generator().manual_seed(0)
        batch = {"moments": torch.randn(4, 8, 8, 8, generator=generator), "instances": [instances] * 4}
        batch["luminance"] = torch.randn(4, 16, 8, 8, generator=generator)
        batch["text"] = torch.randn(4, 77, 16, generator=generator)
        for name, value in stage.named_parameters():
            if "extension" in name:
                torch.nn.init.constant_(value, 0.01)
        loss = stage._loss(batch, torch.Generator().manual_seed(0))
        loss.backward()
        found.append((loss.item(), {n: p.grad for n, p in stage.unet.named_parameters() if p.grad is not None}))
    (plain, gradients), (again, recomputed) = found
    assert plain == pytest.approx(again, rel=1e-5) and gradients.keys() == recomputed.keys()
    for name, value in gradients.items():
        assert torch.allclose(value, recomputed[name], rtol=1e-3, atol=1e-6), name


@pytest.fixture
def compared(monkeypatch) -> list[int]:
    """LPIPS is the mean squared difference here -> how many photos each call was of."""
    counts = []

    def build(_net: str, _file: str | None):
        def distance(made: torch.Tensor, photos: torch.Tensor) -> torch.Tensor:
            counts.append(len(photos))
            return (made - photos).square().mean((1, 2, 3), keepdim=True)

        return distance

    monkeypatch.setattr("lcad.training.latent_stage.build_lpips", build)
    return counts


def test_predicted_latents_are_decoded_and_compared_with_the_photos(compared):
    config = LatentConfig(prediction_type="v_prediction", perceptual_weight=0.5)
    stage = LatentStage(randomize_additions(build_pipeline(tiny_config())), config, TrainerConfig())
    torch.nn.init.zeros_(stage.unet.conv_out.weight)
    torch.nn.init.zeros_(stage.unet.conv_out.bias)
    generator = torch.Generator().manual_seed(0)
    z, noise = (torch.randn(3, 4, 8, 8, generator=generator) for _ in range(2))
    photos, t, text = (
        torch.rand(2, 3, 32, 32, generator=generator),
        torch.tensor([100, 500, 900]),
        torch.zeros(3, 77, 16),
    )
    added = stage.predict_loss(z, None, text, t, noise, None, photos) - stage.predict_loss(z, None, text, t, noise)
    latents = stage.schedule.alphas_cumprod[t][:, None, None, None].sqrt() * stage.schedule.add_noise(z, noise, t)
    features = stage.luminance_encoder(rgb_to_hint(photos, stage.pipeline.config.hint_scale))
    decoded = decode_with_luminance(stage.vae, latents[:2], features)
    assert added.item() == pytest.approx(0.5 * (decoded - (photos * 2 - 1)).square().mean().item(), rel=1e-4)
    added.backward()
    assert stage.unet.conv_out.weight.grad.abs().sum() > 0


def test_a_share_of_the_photos_is_compared_and_none_in_validation(compared):
    config = LatentConfig(perceptual_weight=1.0, perceptual_share=0.25)
    stage = LatentStage(build_pipeline(tiny_config()), config, TrainerConfig())
    kept = stage.prepare_resident(torch.rand(8, 3, 32, 32))
    assert kept["image"].dtype == torch.uint8
    batch = kept | {"image": kept["image"].float() / 255, "text": torch.zeros(8, 77, 16)}
    stage._loss(batch, torch.Generator().manual_seed(0))
    stage.eval()._loss(batch, torch.Generator().manual_seed(0))
    assert compared == [2]
    with pytest.raises(ValueError, match="looks at the photos, which latent.cache leaves out"):
        LatentConfig(perceptual_weight=1.0, cache="cache")
