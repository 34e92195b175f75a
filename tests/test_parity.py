"""Parity with the authors' released code, through the converter. See golden/README.md.

Single passes agree within 1e-4 relative (they do within 1e-5), whole samples within 1e-3.
"""

import json

import pytest
import torch

from lcad.config import LatentConfig, PixelConfig, TrainerConfig
from lcad.conversion import convert
from lcad.instance_sampling import LogitTargets, Refinement, with_instance_masks
from lcad.masks.types import InstanceMasks
from lcad.models.guided_decoder import decode_with_luminance
from lcad.pipeline import LCADPipeline
from lcad.text.phrases import comma_phrases
from lcad.training.artifact_loss import artifact_loss, ldl_artifact_map
from lcad.training.latent_stage import LatentStage
from lcad.training.pixel_stage import PixelStage
from ldm.attention import LogitTransform
from ldm.autoencoder import posterior
from ldm.discriminator import PatchDiscriminator, hinge_discriminator_loss, hinge_generator_loss
from ldm.guidance import classifier_free_guidance
from ldm.sampling import sample
from ldm.schedulers import build_scheduler
from ldm.text_encoder import encode_captions, tokenize
from tests.reference import Numbers, reference_state_dict, reference_weight, relative_error

CAPTIONS = ["the blue cup, the red cup, the yellow cup", "a large clock tower next to a small white church", ""]
SINGLE_PASS, WHOLE_SAMPLE = 2e-5, 1e-4


@pytest.fixture(scope="module")
def numbers() -> Numbers:
    return Numbers()


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory) -> LCADPipeline:
    """The tiny reference checkpoint, through the converter and a checkpoint folder."""
    folder = tmp_path_factory.mktemp("reference")
    torch.save({"state_dict": reference_state_dict()}, folder / "tiny.ckpt")
    convert(folder / "tiny.ckpt", text_heads=4, hint_scale="release", image_size=64).pipeline.save_pretrained(
        folder / "tiny"
    )
    return LCADPipeline.from_pretrained(folder / "tiny")


class Inputs:
    """What sampling needs, computed once: text embeddings, luminance responses, a denoiser."""

    def __init__(self, pipeline: LCADPipeline, numbers: Numbers):
        with torch.no_grad():
            self.text = encode_captions(pipeline.tokenizer, pipeline.text_encoder, CAPTIONS)
            self.features = pipeline.luminance_encoder(numbers["in/hint"][:1])
            responses = pipeline.unet.luminance_responses(self.features[-1])
        self.responses = {site: torch.cat([r, r]) for site, r in responses.items()}
        self.unet = pipeline.unet

    def predict(self, x, t, logit_transform=None):
        text = torch.cat([self.text[:1], self.text[2:]])[: len(x)]
        responses = {site: r[: len(x)] for site, r in self.responses.items()}
        return self.unet(x, t, text, responses, logit_transform).sample


@pytest.fixture(scope="module")
def inputs(pipeline, numbers) -> Inputs:
    return Inputs(pipeline, numbers)


@pytest.fixture(scope="module")
def targets(pipeline, numbers) -> LogitTargets:
    phrases = comma_phrases(CAPTIONS[0], pipeline.tokenizer)
    assert [phrase.tokens[1] for phrase in phrases] == numbers["inst/split_id"].tolist()
    return LogitTargets([InstanceMasks(phrases, numbers["in/masks"][0].float())], (8, 8), heads=8)


def scheduler_at(steps: int):
    scheduler = build_scheduler("ddim")
    scheduler.set_timesteps(steps)
    return scheduler


def test_text(pipeline, inputs, numbers):
    assert torch.equal(tokenize(pipeline.tokenizer, CAPTIONS), numbers["text/ids"])
    assert relative_error(inputs.text, numbers["text/emb"]) < SINGLE_PASS


def test_luminance_features(inputs, numbers):
    checked = 0
    for index, feature in enumerate(inputs.features):
        if f"g/{index}" in numbers:
            assert relative_error(feature, numbers[f"g/{index}"]) < SINGLE_PASS
            checked += 1
    assert checked >= 4 and len(inputs.features) == 10


@torch.no_grad()
def test_autoencoder(pipeline, inputs, numbers):
    distribution = posterior(pipeline.vae, numbers["in/img"])
    assert relative_error(distribution.parameters, numbers["vae/moments"]) < SINGLE_PASS
    assert relative_error(distribution.kl(), numbers["vae/kl"]) < SINGLE_PASS
    decoded = decode_with_luminance(pipeline.vae, distribution.mode()[:1] * 0.18215, inputs.features)
    assert relative_error(decoded, numbers["vae/decode"]) < SINGLE_PASS


@torch.no_grad()
def test_noise_prediction(pipeline, inputs, numbers):
    x, t = numbers["in/x"], numbers["in/t"]
    assert relative_error(inputs.predict(x[:1], t[:1]), numbers["unet/eps1"]) < SINGLE_PASS
    luminance = pipeline.luminance_encoder(numbers["in/hint"])[-1]
    both = pipeline.unet(x, t, inputs.text[:2], pipeline.unet.luminance_responses(luminance)).sample
    assert relative_error(both, numbers["unet/eps2"]) < SINGLE_PASS
    one = {site: r[:1] for site, r in inputs.responses.items()}
    unconditional = pipeline.unet(x[:1], t[:1], inputs.text[2:], one).sample
    assert relative_error(unconditional, numbers["unet/eps1_uncond"]) < SINGLE_PASS


def test_ddim_tables(numbers):
    checked = 0
    for name in numbers.names("sched/S"):
        steps, table = name.removeprefix("sched/S").split("/")
        scheduler = scheduler_at(int(steps))
        t = scheduler.timesteps.flip(0)
        if table == "timesteps":
            assert torch.equal(t, numbers[name])
        elif table == "alphas":
            assert relative_error(scheduler.alphas_cumprod[t], numbers[name]) < 1e-6
        else:
            previous = torch.cat([t.new_zeros(1), t[:-1]])  # the last step goes to alpha-bar of step 0
            assert relative_error(scheduler.alphas_cumprod[previous], numbers[name]) < 1e-6
        checked += 1
    assert checked >= 6


@pytest.mark.parametrize("scale, index", [(1, 24), (5, 24), (5, 0), (4.5, 49)])
@torch.no_grad()
def test_ddim_step(inputs, numbers, scale, index):
    name = f"ddim/step_{f'cfg{scale}' if scale != 1 else 'nocfg'}_S50_i{index}/x_prev"
    scheduler = scheduler_at(50)
    t = scheduler.timesteps[49 - index]
    denoise = inputs.predict if scale == 1 else classifier_free_guidance(inputs.predict, scale)
    x = numbers["in/x_T"]
    assert relative_error(scheduler.step(denoise(x, t), t, x).prev_sample, numbers[name]) < SINGLE_PASS


@pytest.mark.parametrize("steps, scale", [(4, 5), (10, 1), (10, 5), (50, 5)])
def test_whole_sample(pipeline, inputs, numbers, steps, scale):
    name = f"ddim/full_S{steps}_cfg{scale}_fresh/x0"
    if name not in numbers:
        pytest.skip("only in the full reference set")
    denoise = inputs.predict if scale == 1 else classifier_free_guidance(inputs.predict, scale)
    z = sample(denoise, numbers["in/x_T"], build_scheduler("ddim"), steps)
    assert relative_error(z, numbers[name]) < WHOLE_SAMPLE
    image = name.replace("x0", "image")
    if image in numbers:
        with torch.no_grad():
            decoded = decode_with_luminance(pipeline.vae, z, inputs.features).clamp(-1, 1)
        assert relative_error(decoded, numbers[image]) < WHOLE_SAMPLE


@torch.no_grad()
def test_attention_logits_and_their_gradient(inputs, targets, numbers):
    seen = {}

    def look(name, logits):
        seen[name] = logits
        return logits

    t, x = scheduler_at(50).timesteps[25], numbers["in/x_T"]
    inputs.predict(torch.cat([x, x]), t, LogitTransform(look, rows=1))
    assert len(seen) == 16
    checked = 0
    for index, logits in enumerate(seen.values()):  # the reference has the conditional half second
        if f"inst/layer{index}/sim" in numbers:
            assert relative_error(logits[0], numbers[f"inst/layer{index}/sim"][8:]) < 5e-5
            gradient = targets.gradient(logits, "mean")[0]
            assert relative_error(gradient, numbers[f"inst/layer{index}/grad"][8:]) < 5e-5
            checked += 1
    assert checked >= 3


def release_refinement(inputs: Inputs, targets: LogitTargets):
    settings = Refinement(strength=1.0, normalization="mean", mode="two_pass")
    return classifier_free_guidance(with_instance_masks(inputs.predict, targets, 1, settings), 5.0)


@pytest.mark.parametrize("index", [0, 24, 49])
@torch.no_grad()
def test_refined_step(inputs, targets, numbers, index):
    scheduler = scheduler_at(50)
    t, x = scheduler.timesteps[49 - index], numbers["in/x_T"]
    previous = scheduler.step(release_refinement(inputs, targets)(x, t), t, x).prev_sample
    assert relative_error(previous, numbers[f"inst/step_cfg5_S50_i{index}/x_prev"]) < SINGLE_PASS


@pytest.mark.parametrize("steps", [4, 10])
def test_whole_refined_sample(inputs, targets, numbers, steps):
    z = sample(release_refinement(inputs, targets), numbers["in/x_T"], build_scheduler("ddim"), steps)
    assert relative_error(z, numbers[f"inst/full_S{steps}_cfg5/x0"]) < WHOLE_SAMPLE


@pytest.mark.parametrize("masked", [False, True])
def test_pipeline_call_is_the_same_computation(pipeline, numbers, masked):
    """The pipeline's own call, from a photo: its hint, x_T, guidance and masks give the reference's sample."""
    if "in/rgb" not in numbers:
        pytest.skip("only in the full reference set")
    pipeline.set_progress_bar_config(disable=True)
    pipeline.scheduler = build_scheduler("ddim")  # the release's; models are converted with trailing steps
    steps = 10 if masked else 50
    expected = numbers["inst/full_S10_cfg5/x0" if masked else "ddim/full_S50_cfg5_fresh/x0"]
    with torch.no_grad():
        features = pipeline.luminance_encoder(numbers["in/hint"][:1])
        expected = (decode_with_luminance(pipeline.vae, expected, features) / 2 + 0.5).clamp(0, 1)[0]
    result = pipeline(
        numbers["in/rgb"][0],
        CAPTIONS[0],
        masks=numbers["in/masks"][0] if masked else None,
        refinement=Refinement(strength=1.0, normalization="mean", mode="two_pass"),
        num_inference_steps=steps,
        latents=numbers["in/x_T"],
        output_luminance="decoded",
        output_type="pt",
    )
    assert relative_error(result.images[0], expected) < WHOLE_SAMPLE


def test_artifact_map_of_the_release(numbers):
    a, b = numbers["map/a"], numbers["map/b"]
    assert relative_error(ldl_artifact_map(a, b), numbers["map/map"]) < 1e-6
    assert relative_error(artifact_loss(a, b, "ldl"), numbers["map/loss"]) < 1e-6
    real, fake = numbers["in/img"], numbers["stage1/rec"].requires_grad_()
    loss = artifact_loss(real, fake, "ldl")
    (gradient,) = torch.autograd.grad(loss, fake)
    assert relative_error(ldl_artifact_map(real, fake.detach()), numbers["stage1/artifact_map"]) < 1e-5
    assert relative_error(loss.detach(), numbers["stage1/artifact_loss"]) < 1e-5
    assert relative_error(gradient, numbers["stage1/artifact_grad_rec"]) < 1e-5


def test_discriminator_and_hinge_loss(numbers):
    discriminator = PatchDiscriminator()
    weights = {
        k: reference_weight(f"stage1_loss.discriminator.main.{k}", v.shape) for k, v in discriminator.named_parameters()
    }
    discriminator.load_state_dict(weights, strict=False)
    with torch.no_grad():
        real, fake = discriminator(numbers["in/img"]), discriminator(numbers["stage1/rec"])
    assert relative_error(real.mean(), numbers["stage1/disc_logits_real"]) < SINGLE_PASS
    assert relative_error(fake.mean(), numbers["stage1/disc_logits_fake"]) < SINGLE_PASS
    assert relative_error(hinge_discriminator_loss(real, fake), numbers["stage1/disc_loss"]) < SINGLE_PASS
    assert relative_error(hinge_generator_loss(fake), numbers["stage1/g_loss"]) < SINGLE_PASS


@pytest.mark.parametrize("checkpointing", [False, True])
def test_stage_two_loss_and_gradients(pipeline, inputs, numbers, checkpointing):
    """Also with gradient checkpointing, where the release's gradients are wrong."""
    unet = pipeline.unet
    stage = LatentStage(
        pipeline, LatentConfig(trainable=["unet.*"]), TrainerConfig(gradient_checkpointing=checkpointing)
    )
    stage.train()
    with torch.no_grad():
        luminance = pipeline.luminance_encoder(numbers["in/hint"])[-1]
    z = (
        numbers["vae/z"] if "vae/z" in numbers else posterior(pipeline.vae, numbers["in/img"]).mode() * 0.18215
    ).detach()
    loss = stage.predict_loss(z, luminance, inputs.text[:2], numbers["in/t"], numbers["in/noise"])
    unet.zero_grad()
    loss.backward()
    unet.disable_gradient_checkpointing()
    assert relative_error(loss.detach(), numbers["p_losses/loss"]) < SINGLE_PASS
    ours = {
        "out.2.weight": unet.conv_out.weight,
        "output_blocks.11.1.proj_out.weight": unet.up_blocks[3].attentions[2].proj_out.weight,
        "input_blocks.0.0.bias": unet.conv_in.bias,
        "output_blocks.5.1.transformer_blocks.0.attn2.to_q.weight": unet.up_blocks[1]
        .attentions[2]
        .transformer_blocks[0]
        .attn2.to_q.weight,
    }
    for name, parameter in ours.items():
        if f"p_losses/grad_nockpt/{name}" in numbers:
            assert relative_error(parameter.grad, numbers[f"p_losses/grad_nockpt/{name}"]) < 1e-4
    if "p_losses/grad_nockpt/input_blocks.0.0.weight" in numbers:
        whole = torch.cat([unet.conv_in.weight.grad, unet.conv_in.extension.weight.grad], dim=1)
        assert relative_error(whole, numbers["p_losses/grad_nockpt/input_blocks.0.0.weight"]) < 1e-4


def test_stage_one_gradients(pipeline, numbers):
    """The artifact loss reaches the luminance encoder, and only it, with a gradient."""
    stage = PixelStage(
        pipeline, PixelConfig(perceptual_weight=0, adversarial_weight=0, artifact_map="ldl"), TrainerConfig()
    )
    fake, kl = stage.reconstruct(numbers["in/img"] / 2 + 0.5)
    if "in/rgb" in numbers:
        assert relative_error(fake[:1].detach(), numbers["vae/decode"]) < 1e-4
    assert relative_error(kl.detach(), numbers["stage1/kl_loss"].to(kl)) < 1e-4
    stage._reconstruction_loss(numbers["in/img"], fake).backward()
    assert pipeline.luminance_encoder.zero_convs[-1].weight.grad.abs().max() > 0
    assert all(parameter.grad is None for parameter in pipeline.vae.parameters())


def test_shapes_of_the_tiny_reference_are_complete():
    from tests.reference import GOLDEN

    assert len(json.loads((GOLDEN / "tiny_shapes.json").read_text())) == 1109
