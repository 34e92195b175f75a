"""Stage 1, in pixel space (Sec. 3.2, Eq. 4): the luminance encoder, or a base autoencoder.

Shapes: images (B, 3, S, S) in [-1, 1]; hint (B, 3, S, S).
"""

import pytorch_lightning as pl
import torch
from torch import Tensor

from lcad.color import (
    colorfulness,
    luminance_to_rgb,
    merge_chroma,
    rgb_to_hint,
    rgb_to_lab,
    rgb_to_luminance,
    rgb_to_ycc,
)
from lcad.config import PixelConfig, TrainerConfig
from lcad.data.photos import PhotoDataset
from lcad.models.guided_decoder import decode_with_luminance
from lcad.models.perceptual import build_lpips, psnr
from lcad.pipeline import LCADPipeline
from lcad.training.artifact_loss import artifact_loss
from lcad.training.optimization import build_optimizer, clip_gradients, only_trained_weights, step_generator
from ldm.autoencoder import posterior
from ldm.discriminator import PatchDiscriminator, hinge_discriminator_loss, hinge_generator_loss


class PixelStage(pl.LightningModule):
    """L = L_rec + alpha L_dis + beta L_per (Eq. 4).

    Trains the luminance encoder under a frozen autoencoder (the paper), or, for a base model, the plain
    autoencoder with a KL term. The generator and the discriminator are updated together in one step: the
    discriminator's weights are held still in the generator's loss, and its own loss sees detached images,
    so one backward pass gives both their own gradients.
    """

    def __init__(self, pipeline: LCADPipeline, config: PixelConfig, trainer_config: TrainerConfig):
        super().__init__()
        self.config, self.trainer_config = config, trainer_config
        self.pipeline = pipeline
        self.vae, self.luminance_encoder = pipeline.vae, pipeline.luminance_encoder
        self.vae.requires_grad_(config.train == "autoencoder")
        self.luminance_encoder.requires_grad_(config.train == "luminance")
        self.discriminator = PatchDiscriminator(config.discriminator_channels) if config.adversarial_weight else None
        self.lpips = (
            build_lpips(config.perceptual_net, config.perceptual_backbone) if config.perceptual_weight else None
        )
        if trainer_config.gradient_checkpointing:
            (self.vae if config.train == "autoencoder" else self.luminance_encoder).enable_gradient_checkpointing()
        self.strict_loading = False  # frozen weights come from `init`, not from the resume checkpoint

    def prepare_resident(self, images: Tensor) -> dict[str, Tensor]:
        """The images themselves, as 8 bit."""
        return {"image": (images * 255).round().byte()}

    def training_data(self, photos: PhotoDataset) -> PhotoDataset:
        """The photos as they are: nothing is cached in stage 1."""
        return photos

    def reconstruct(self, rgb: Tensor, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        """rgb (B, 3, S, S) in [0, 1] -> the round trip through the latent in [-1, 1], and the KL term, a scalar."""
        images = rgb * 2 - 1
        distribution = posterior(self.vae, images)
        noise: Tensor | float = 0.0
        if generator is not None:
            noise = torch.randn(distribution.mean.shape, generator=generator).to(images)
        z = (distribution.mean + distribution.std * noise) * self.vae.config.scaling_factor
        features = None
        if self.config.train == "luminance":
            features = self.luminance_encoder(rgb_to_hint(rgb, self.pipeline.config.hint_scale))
        return decode_with_luminance(self.vae, z, features), distribution.kl().mean()

    def training_step(self, batch: dict, batch_index: int) -> Tensor:
        rgb = batch["image"]
        real = rgb * 2 - 1
        fake, kl = self.reconstruct(rgb, step_generator(self))
        parts = {"rec": self._reconstruction_loss(real, fake)}
        loss = parts["rec"]
        if self.config.train == "autoencoder":
            parts["kl"] = kl
            loss = loss + self.config.kl_weight * kl
        if self.lpips is not None:
            parts["per"] = self.lpips(fake, real).mean()
            loss = loss + self.config.perceptual_weight * parts["per"]
        if self.discriminator is not None:
            parts["critic"] = hinge_discriminator_loss(self.discriminator(real), self.discriminator(fake.detach()))
            loss = loss + parts["critic"]
            if self.global_step >= self.config.adversarial_start:
                self.discriminator.requires_grad_(False)
                parts["dis"] = hinge_generator_loss(self.discriminator(fake))
                self.discriminator.requires_grad_(True)
                loss = loss + self.config.adversarial_weight * parts["dis"]
        self.log_dict({f"train/{name}": value.detach() for name, value in parts.items()})
        self.log("train/loss", loss.detach(), prog_bar=True)
        return loss

    def _reconstruction_loss(self, real: Tensor, fake: Tensor) -> Tensor:
        if self.config.chroma_weight != 1:
            weight = real.new_tensor([1.0, self.config.chroma_weight, self.config.chroma_weight])[:, None, None]
            real, fake = rgb_to_ycc(real) * weight, rgb_to_ycc(fake) * weight
        if self.config.artifact_map == "none":
            return (real - fake).abs().mean()
        return artifact_loss(real, fake, self.config.artifact_map, self.config.artifact_floor)

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        clip_gradients(self)

    def validation_step(self, batch: dict, batch_index: int) -> None:
        rgb = batch["image"]
        fake, _ = self.reconstruct(rgb)
        decoded = (fake.float() / 2 + 0.5).clamp(0, 1)
        merged = merge_chroma(rgb_to_luminance(rgb), rgb_to_lab(decoded))
        values = {
            "loss": (rgb - decoded).abs().mean(),
            "psnr": psnr(rgb, decoded).mean(),
            "chroma_psnr": psnr(rgb, merged).mean(),  # with the photo's own L: what colour is lost
            "grey_psnr": psnr(rgb, luminance_to_rgb(rgb_to_luminance(rgb))).mean(),
            "colorfulness": colorfulness(merged).mean() / colorfulness(rgb).mean(),
        }
        self.log_dict({f"validation/{name}": v for name, v in values.items()}, batch_size=len(rgb), sync_dist=True)

    @torch.no_grad()
    def example_images(self, batch: dict) -> Tensor:
        """Rows of (photo, round trip, photo's L with the round trip's chroma) -> (3 B, 3, S, S) in [0, 1]."""
        rgb = batch["image"]
        decoded = (self.reconstruct(rgb)[0].float() / 2 + 0.5).clamp(0, 1)
        merged = merge_chroma(rgb_to_luminance(rgb), rgb_to_lab(decoded))
        return torch.stack([rgb, decoded, merged], dim=1).flatten(0, 1)

    @torch.no_grad()
    def on_train_end(self) -> None:
        """Give a newly trained autoencoder the scaling factor that brings its latents to unit variance."""
        if self.config.train == "autoencoder":
            batch = next(iter(self.trainer.datamodule.val_dataloader()))["image"].to(self.device)
            std = posterior(self.vae, batch * 2 - 1).sample().std()
            self.vae.register_to_config(scaling_factor=round(1 / std.item(), 5))

    def configure_optimizers(self) -> dict:
        return build_optimizer(self, self.config.learning_rate, self.config.final_learning_rate, 0)

    def on_save_checkpoint(self, checkpoint: dict) -> None:
        only_trained_weights(self, checkpoint)
