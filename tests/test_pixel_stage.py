"""Eq. 4 part by part, in closed form: networks stand in whose outputs and gradients are known."""

from functools import cache
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn

from lcad.color import colorfulness, merge_chroma, rgb_to_hint, rgb_to_lab, rgb_to_luminance, rgb_to_ycc
from lcad.config import PixelConfig, TrainerConfig
from lcad.models.guided_decoder import decode_with_luminance
from lcad.models.perceptual import psnr
from lcad.pipeline import LCADPipeline
from lcad.training.artifact_loss import artifact_loss
from lcad.training.optimization import step_generator
from lcad.training.pixel_stage import PixelStage
from lcad.training.start import build_pipeline
from tests.conftest import randomize_additions, tiny_config

REAL = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))  # in [0, 1]


class Critic(nn.Module):
    """Logits are `weight` times the mean of each image."""

    def __init__(self, weight: float):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(weight))

    def forward(self, images: Tensor) -> Tensor:
        return self.weight * images.mean(dim=(1, 2, 3))


class SquaredDistance(nn.Module):
    """Stands in for LPIPS and takes note of what it is shown."""

    def forward(self, fake: Tensor, real: Tensor) -> Tensor:
        self.seen = fake.detach(), real
        return ((fake - real) ** 2).mean(dim=(1, 2, 3), keepdim=True)


@cache
def shared_pipeline() -> LCADPipeline:
    """Of all stages here, which do not train it."""
    return randomize_additions(build_pipeline(tiny_config()))


def build_stage(step: int = 0, fake: Tensor | None = None, **options) -> PixelStage:
    """A stage at a step of its training; `fake` (in [-1, 1]) stands in for the round trip, with a KL term of 5."""
    options = {"perceptual_weight": 0, "adversarial_weight": 0, "discriminator_channels": 8} | options
    stage = PixelStage(shared_pipeline(), PixelConfig(**options), TrainerConfig())
    loops = SimpleNamespace(epoch_loop=SimpleNamespace(total_batch_idx=step))
    stage._trainer = SimpleNamespace(
        global_step=step, fit_loop=loops, global_rank=0, estimated_stepping_batches=10, callbacks=[],
        strategy=SimpleNamespace(broadcast=lambda value: value),
    )  # fmt: skip
    stage.logged, stage.logged_with = {}, []
    stage.log_dict = lambda values, **given: stage.logged.update(values) or stage.logged_with.append(given)
    stage.log = lambda name, value, **given: stage.log_dict({name: value}, **given)
    if fake is not None:
        stage.reconstruct = lambda rgb, generator=None: (fake, torch.tensor(5.0))
    return stage


@pytest.fixture
def fake() -> Tensor:
    return (torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(1)) * 2 - 1).requires_grad_()


def test_the_loss_is_equation_4(fake):
    """With gradients to match: the generator is drawn to what the critic takes for real, and the critic is not."""
    alpha, beta, weight = 0.7, 0.3, 0.5
    stage = build_stage(fake=fake, artifact_map="ldl", artifact_floor=0.2)
    stage.config.adversarial_weight, stage.config.perceptual_weight = alpha, beta
    stage.discriminator, stage.lpips = Critic(weight), SquaredDistance()
    loss = stage.training_step({"image": REAL}, 0)
    real = REAL * 2 - 1
    rec = artifact_loss(real, fake, "ldl", 0.2)
    per = ((fake - real) ** 2).mean()
    means = real.mean(dim=(1, 2, 3)), fake.mean(dim=(1, 2, 3))
    critic = 0.5 * ((1 - weight * means[0]).relu().mean() + (1 + weight * means[1].detach()).relu().mean())
    generator = -weight * fake.mean()
    assert loss.item() == pytest.approx((rec + beta * per + alpha * generator + critic).item())
    assert torch.equal(stage.lpips.seen[1], real) and torch.equal(stage.lpips.seen[0], fake.detach()), "in [-1, 1]"
    (expected,) = torch.autograd.grad(rec + beta * per + alpha * generator, fake)
    loss.backward()
    assert torch.allclose(fake.grad, expected, atol=1e-9)
    own = 0.5 * (means[1].mean() - means[0].mean())  # of the critic's loss alone
    assert stage.discriminator.weight.grad.item() == pytest.approx(own.item()) != 0
    expected = {"rec": rec, "per": per, "dis": generator, "critic": critic, "loss": loss}
    assert {name.removeprefix("train/"): value.item() for name, value in stage.logged.items()} == pytest.approx(
        {name: value.item() for name, value in expected.items()}
    )
    assert all(not value.requires_grad for value in stage.logged.values()), "graphs are not kept for the log"


def test_photos_are_kept_as_they_are():
    stage, photos = build_stage(), object()
    assert stage.training_data(photos) is photos
    levels = torch.arange(256, dtype=torch.uint8).reshape(1, 1, 16, 16).expand(2, 3, 16, 16)
    kept = stage.prepare_resident(levels / 255 * 0.9999)
    assert kept.keys() == {"image"} and kept["image"].dtype == torch.uint8 and torch.equal(kept["image"], levels)


@pytest.mark.parametrize("step, adversarial", [(0, False), (3, False), (4, True), (5, True)])
def test_the_discriminator_only_learns_at_first(fake, step, adversarial):
    stage = build_stage(step, fake, adversarial_weight=1.0, adversarial_start=4)
    stage.discriminator = Critic(0.5)
    loss = stage.training_step({"image": REAL}, 0)
    assert ("train/dis" in stage.logged) == adversarial
    parts = sum(value for name, value in stage.logged.items() if name != "train/loss")
    assert loss.item() == pytest.approx(parts.item())
    loss.backward()
    assert stage.discriminator.weight.grad != 0 and stage.discriminator.weight.requires_grad


def test_parts_that_weigh_nothing_are_left_out(fake):
    stage = build_stage(fake=fake, artifact_map="none")
    assert stage.discriminator is None and stage.lpips is None
    loss = stage.training_step({"image": REAL}, 0)
    assert loss.item() == pytest.approx((REAL * 2 - 1 - fake).abs().mean().item())
    assert stage.logged.keys() == {"train/rec", "train/loss"}
    assert stage.logged_with == [{}, {"prog_bar": True}]


def test_a_base_autoencoder_has_the_kl_term(fake):
    stage = build_stage(fake=fake, train="autoencoder", artifact_map="none", kl_weight=0.01)
    loss = stage.training_step({"image": REAL}, 0)
    assert loss.item() == pytest.approx((REAL * 2 - 1 - fake).abs().mean().item() + 0.05)


@pytest.mark.parametrize("artifact_map", ["none", "paper"])
def test_chroma_may_weigh_more_in_the_reconstruction(fake, artifact_map):
    stage = build_stage(fake=fake, artifact_map=artifact_map, artifact_floor=0.1, chroma_weight=3.0)
    real, ours = (rgb_to_ycc(x) * torch.tensor([1.0, 3, 3])[:, None, None] for x in (REAL * 2 - 1, fake.detach()))
    expected = (real - ours).abs().mean() if artifact_map == "none" else artifact_loss(real, ours, floor=0.1)
    assert stage.training_step({"image": REAL}, 0).item() == pytest.approx(expected.item())


@pytest.mark.parametrize("train", ["luminance", "autoencoder"])
@torch.no_grad()
def test_round_trip_through_the_latent(train):
    stage = build_stage(train=train)
    distribution = stage.vae.encode(REAL * 2 - 1).latent_dist
    features = stage.luminance_encoder(rgb_to_hint(REAL, "unit")) if train == "luminance" else None
    noise = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(3))
    for generator, z in (
        (None, distribution.mean),
        (torch.Generator().manual_seed(3), distribution.mean + distribution.std * noise),
    ):
        decoded, kl = stage.reconstruct(REAL, generator)
        assert torch.allclose(decoded, decode_with_luminance(stage.vae, z * stage.vae.config.scaling_factor, features))
        assert kl.item() == pytest.approx(distribution.kl().mean().item())


def test_training_is_with_the_noise_of_the_step():
    stage = build_stage(7, artifact_map="none")
    with torch.no_grad():
        expected = (REAL * 2 - 1 - stage.reconstruct(REAL, step_generator(stage))[0]).abs().mean()
    assert stage.training_step({"image": REAL}, 0).item() == pytest.approx(expected.item(), rel=1e-5)


@pytest.mark.parametrize("train", ["luminance", "autoencoder"])
def test_what_is_trained(train):
    stage = build_stage(train=train, adversarial_weight=1.0, learning_rate=0.5, final_learning_rate=0.1)
    parts = {name.split(".")[0] for name, p in stage.named_parameters() if p.requires_grad}
    assert parts == {"luminance_encoder" if train == "luminance" else "vae", "discriminator"}
    built = stage.configure_optimizers()
    assert built["optimizer"].param_groups[0]["lr"] == 0.5, "without warm-up"
    for _ in range(10):
        built["optimizer"].step()
        built["lr_scheduler"]["scheduler"].step()
    assert built["optimizer"].param_groups[0]["lr"] == pytest.approx(0.1)
    checkpoint = {"state_dict": stage.state_dict()}
    stage.on_save_checkpoint(checkpoint)
    assert "discriminator.0.weight" in checkpoint["state_dict"] and not stage.strict_loading
    assert ("vae.decoder.conv_in.weight" in checkpoint["state_dict"]) == (train == "autoencoder")


@pytest.mark.parametrize("train, wanted", [("luminance", True), ("autoencoder", True), ("luminance", False)])
def test_gradient_checkpointing_is_of_the_trained_part_where_it_is_asked_for(train, wanted):
    config = PixelConfig(train=train, perceptual_weight=0, adversarial_weight=0)
    stage = PixelStage(build_pipeline(tiny_config()), config, TrainerConfig(gradient_checkpointing=wanted))
    assert stage.vae.is_gradient_checkpointing == (wanted and train == "autoencoder")
    assert stage.luminance_encoder.is_gradient_checkpointing == (wanted and train == "luminance")


def test_a_checkpointed_luminance_encoder_has_the_same_gradients():
    encoder = randomize_additions(build_pipeline(tiny_config())).luminance_encoder
    gradients = []
    for _ in range(2):
        encoder.zero_grad()
        sum(feature.square().sum() for feature in encoder(REAL)).backward()
        gradients.append([parameter.grad.clone() for parameter in encoder.parameters()])
        encoder.enable_gradient_checkpointing()
    assert all(torch.allclose(one, two, rtol=1e-4, atol=1e-5) for one, two in zip(*gradients, strict=True))


def test_gradients_are_clipped_before_each_step(monkeypatch):
    clipped, stage = [], build_stage()
    monkeypatch.setattr("lcad.training.pixel_stage.clip_gradients", clipped.append)
    stage.on_before_optimizer_step(None)
    assert clipped == [stage]


def test_lpips_is_the_one_that_is_asked_for(monkeypatch):
    asked = []
    build = lambda *given: asked.append(given) or SquaredDistance()  # noqa: E731
    monkeypatch.setattr("lcad.training.pixel_stage.build_lpips", build)
    build_stage(perceptual_weight=0.5, perceptual_net="squeeze", perceptual_backbone="file.pth")
    assert asked == [("squeeze", "file.pth")]


def test_validation_and_examples_are_of_clipped_pictures():
    fake = torch.cat([REAL, REAL.flip(0)]).unflatten(0, (2, 2))[1] * 2.4 - 1.2
    stage = build_stage(fake=fake)
    stage.validation_step({"image": REAL}, 0)
    decoded = (fake / 2 + 0.5).clamp(0, 1)
    merged = merge_chroma(rgb_to_luminance(REAL), rgb_to_lab(decoded))
    grey = merge_chroma(rgb_to_luminance(REAL), torch.zeros_like(REAL))
    expected = {
        "loss": (REAL - decoded).abs().mean(),
        "psnr": psnr(REAL, decoded).mean(),
        "chroma_psnr": psnr(REAL, merged).mean(),
        "grey_psnr": psnr(REAL, grey).mean(),
        "colorfulness": colorfulness(merged).mean() / colorfulness(REAL).mean(),
    }
    assert {name.removeprefix("validation/"): value.item() for name, value in stage.logged.items()} == pytest.approx(
        {name: value.item() for name, value in expected.items()}, rel=1e-5
    )
    assert stage.logged_with == [{"batch_size": 2, "sync_dist": True}], "batches may differ in size"
    rows = stage.example_images({"image": REAL})
    assert torch.equal(rows, torch.stack([REAL[0], decoded[0], merged[0], REAL[1], decoded[1], merged[1]]))


def test_a_new_autoencoder_gets_latents_of_unit_variance():
    stage = build_stage(train="autoencoder")
    stage._trainer.datamodule = SimpleNamespace(val_dataloader=lambda: [{"image": REAL}])
    torch.manual_seed(0)
    std = stage.vae.encode(REAL * 2 - 1).latent_dist.sample().std()
    torch.manual_seed(0)
    stage.on_train_end()
    assert stage.vae.config.scaling_factor == round(1 / std.item(), 5)
    frozen = build_stage()
    before = frozen.vae.config.scaling_factor
    frozen.on_train_end()
    assert frozen.vae.config.scaling_factor == before, "a frozen one keeps its own"
