"""Stage 2, in the latent space (Sec. 3.5, Eq. 6): the noise prediction network.

Shapes: latents (B, C, h, w); luminance (B, C_l, h, w), the deepest luminance feature; text (B, 77, D).
"""

import copy
import fnmatch
from dataclasses import replace
from pathlib import Path

import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from lcad.attention_refinement import InstanceMasks, LogitTargets
from lcad.captions import SCARCE_CAPTION
from lcad.color import rgb_to_hint
from lcad.config import LatentConfig, TrainerConfig
from lcad.data.cache import CachedDataset, open_cache
from lcad.data.photos import PhotoDataset
from lcad.grounding import PARTS
from lcad.masks.attention import phrase_attention
from lcad.masks.overlay import heat_map
from lcad.optimization import build_optimizer, only_trained_weights, step_generator
from lcad.phrases import find_phrases
from lcad.pipeline import LCADPipeline
from ldm.attention import attention_logits
from ldm.autoencoder import latent_stride, posterior
from ldm.images import to_image, to_tensor
from ldm.schedulers import build_training_schedule
from ldm.text_encoder import encode_text, tokenize

TRAINING_STRENGTH = 10.0  # of refined attention: a phrase outweighs the 70 tokens of padding, with 5 it does not


class LatentStage(pl.LightningModule):
    """L = E || eps - eps_theta(z_t, t, text, luminance) ||^2 (Eq. 6), with stage 1 frozen.

    What is trained is a list of name patterns over `unet.*` and `text_encoder.*`; all else is frozen. A batch
    holds images and captions, or, from a cache, `moments`, `luminance` and `text` (see `lcad.data.cache`).

    With `latent.looking` copies of the UNet and the text encoder are trained, and the pipeline gets what they have
    learnt as its weights for finding objects (`lcad.grounding`). If it has such weights, they are what is trained on.
    """

    def __init__(self, pipeline: LCADPipeline, config: LatentConfig, trainer_config: TrainerConfig):
        super().__init__()
        if (config.refined or config.grounding) and trainer_config.gradient_checkpointing:
            raise ValueError(
                "latent.refined and latent.grounding do not go with trainer.gradient_checkpointing; switch that off"
            )
        self.config, self.trainer_config = config, trainer_config
        if config.sites is not None and config.sites != pipeline.unet.config.sites:
            pipeline.register_modules(unet=pipeline.unet.with_sites(config.sites))
        if not config.looking:
            pipeline.register_to_config(guidance_scale=config.guidance)
        self.pipeline = pipeline
        self.unet, self.text_encoder = pipeline.unet, pipeline.text_encoder
        self.vae, self.luminance_encoder = pipeline.vae, pipeline.luminance_encoder
        for frozen in (self.vae, self.luminance_encoder):
            frozen.requires_grad_(False)
        if config.looking:
            start = pipeline.grounded()
            self.unet, self.text_encoder = copy.deepcopy(start.unet), copy.deepcopy(start.text_encoder)
        self._choose_trained(config.trainable)
        if trainer_config.gradient_checkpointing:
            self.unet.enable_gradient_checkpointing()
        self.schedule = build_training_schedule(config.prediction or pipeline.scheduler.config.prediction_type)
        pipeline.register_modules(scheduler=self.schedule)
        self.strict_loading = False  # frozen weights come from `init`, not from the resume checkpoint

    def _named(self) -> dict[str, Tensor]:
        """The parameters that may be trained, by part and name."""
        return {f"{part}.{name}": value for part in PARTS for name, value in getattr(self, part).named_parameters()}

    def _choose_trained(self, patterns: list[str]) -> None:
        """Trains what one of the patterns matches and none that begins with "!"."""
        named = self._named()
        for pattern in patterns:
            if not fnmatch.filter(named, pattern.removeprefix("!")):
                raise ValueError(
                    f"latent.trainable: {pattern!r} matches no parameter; names look like {next(iter(named))}"
                )
        for name, parameter in named.items():
            matching = [pattern for pattern in patterns if fnmatch.fnmatchcase(name, pattern.removeprefix("!"))]
            parameter.requires_grad_(bool(matching) and not any(pattern.startswith("!") for pattern in matching))
        self.text_trained = any(parameter.requires_grad for parameter in self.text_encoder.parameters())

    @torch.no_grad()
    def prepare(self, batch: dict) -> dict[str, Tensor]:
        """What does not change in stage 2: `moments` (B, 2 C, h, w) and, where used, `luminance` (B, C_l, h, w)."""
        rgb = batch["image"]
        if self.config.looking:  # see `_loss`: of the latents nothing is used
            size = [side // latent_stride(self.vae) for side in rgb.shape[-2:]]
            fixed = {"moments": rgb.new_zeros(len(rgb), 2 * self.vae.config.latent_channels, *size)}
        else:
            fixed = {"moments": posterior(self.vae, rgb * 2 - 1).parameters}
        if self.unet.site_names:
            hint = rgb_to_hint(rgb, self.pipeline.config.hint_scale)
            fixed["luminance"] = self.luminance_encoder(hint)[-1]
        return fixed

    def training_data(self, photos: PhotoDataset) -> PhotoDataset | CachedDataset:
        """The photos, or what the cache has of them."""
        return photos if self.config.cache is None else open_cache(self, photos, Path(self.config.cache))

    def predict_loss(
        self,
        z: Tensor,
        luminance: Tensor | None,
        text: Tensor,
        t: Tensor,
        noise: Tensor,
        instances: list[InstanceMasks | None] | None = None,
        grounded: list[InstanceMasks | None] | None = None,
    ) -> Tensor:
        """Eq. (6) for given time steps t (B,) and noise like z -> the mean squared error, a scalar.

        With `v_prediction` the error is that of v, which is Eq. 6's weighed by 1 + 1 / SNR: a caption decides
        colours at time steps where little but noise is seen, and there the noise's error hardly depends on them.

        With `instances` the attention of those photos is refined as in sampling (Algorithm 1, one pass). The paper
        does so in sampling alone: its text encoder has learnt elsewhere to keep a colour with its object.

        With `grounded`, `LatentConfig.grounding` times `LogitTargets.grounding_loss` of those photos is added: their
        words learn to attend to their own objects without the help of masks.
        """
        z_t = self.schedule.add_noise(z, noise, t)
        responses = {} if luminance is None else self.unet.luminance_responses(luminance)
        misplaced: list[Tensor] = []  # the loss of each layer
        if any(instances or ()) or any(grounded or ()):
            heads = self.unet.config.attention_head_dim
            given = LogitTargets(instances, z.shape[-2:], heads) if any(instances or ()) else None
            wanted = None if grounded is None else LogitTargets(grounded, z.shape[-2:], heads, resize="area")

            def attend(_name: str, logits: Tensor) -> Tensor:
                if wanted is not None:
                    misplaced.append(wanted.grounding_loss(logits))
                return logits if given is None else logits - TRAINING_STRENGTH * given.gradient(logits, "element")

            with attention_logits(self.unet, attend, len(z)):
                predicted = self.unet(z_t, t, text, responses).sample
        else:
            predicted = self.unet(z_t, t, text, responses).sample
        epsilon = self.schedule.config.prediction_type == "epsilon"
        target = noise if epsilon else self.schedule.get_velocity(z, noise, t)
        loss = F.mse_loss(predicted.float(), target.float())
        return loss + self.config.grounding * torch.stack(misplaced).mean() if misplaced else loss

    def _loss(self, batch: dict, generator: torch.Generator) -> Tensor:
        fixed = batch if "moments" in batch else self.prepare(batch)
        mean, log_variance = fixed["moments"].chunk(2, dim=1)

        def draw() -> Tensor:
            return torch.randn(mean.shape, generator=generator).to(mean)

        std = torch.exp(0.5 * log_variance.clamp(-30, 20))
        z = (mean + std * draw()) * self.vae.config.scaling_factor
        steps = self.schedule.config.num_train_timesteps
        t = draw_timesteps(len(z), steps, self.config.timestep_shift, generator).to(z.device)
        text = batch["text"] if "text" in batch else self._encode_text(batch["caption"])
        noise = draw()
        if self.config.looking:  # for objects it is before there are colours, which would tell where a red one is
            z = torch.zeros_like(z)
        instances = grounded = None
        if self.config.refined or self.config.grounding:
            chosen = torch.rand(len(z), generator=generator) < (self.config.refined if self.training else 0)
            instances = [item if use else None for item, use in zip(batch["instances"], chosen, strict=True)]
        if self.config.grounding:
            grounded = [None if use else item for item, use in zip(batch["instances"], chosen, strict=True)]
            if self.config.looking:
                grounded = [None if item is None else _of_nouns(item) for item in grounded]
        return self.predict_loss(z, fixed.get("luminance"), text, t, noise, instances, grounded)

    def _encode_text(self, captions: list[str]) -> Tensor:
        with torch.set_grad_enabled(self.text_trained and torch.is_grad_enabled()):
            return encode_text(self.text_encoder, tokenize(self.pipeline.tokenizer, captions))

    def training_step(self, batch: dict, batch_index: int) -> Tensor:
        loss = self._loss(batch, step_generator(self))
        self.log("train/loss", loss.detach(), prog_bar=True)
        return loss

    def validation_step(self, batch: dict, batch_index: int) -> None:
        generator = torch.Generator().manual_seed(batch_index)  # the same noise at every validation
        self.log("validation/loss", self._loss(batch, generator), batch_size=len(batch["image"]), sync_dist=True)

    @torch.no_grad()
    def example_images(self, batch: dict) -> Tensor:
        """Rows of (photo, colorized with its caption, colorized with a scarce one) -> (3 B, 3, S, S) in [0, 1].

        Without channel-extended convolutions (a base model) the columns are text-to-image samples. With
        `looking` they are where the first two objects of the caption are looked for.
        """
        pipeline, rgb = self.pipeline, batch["image"]
        if self.config.looking:
            looking = pipeline.with_parts({part: getattr(self, part) for part in PARTS})
            rows = zip(rgb, batch["caption"], strict=True)
            return torch.cat([_attention_row(looking, to_image(image), caption) for image, caption in rows])
        pipeline.set_progress_bar_config(disable=True)
        photos = [to_image(image) for image in rgb]
        columns = [rgb.cpu()]
        for captions in (batch["caption"], [SCARCE_CAPTION] * len(photos)):
            result = pipeline(
                photos,
                captions,
                num_inference_steps=self.config.sample_steps,
                generator=[torch.Generator().manual_seed(i) for i in range(len(photos))],
                output_luminance="input" if self.unet.site_names else "decoded",
                output_type="pt",
            )
            columns.append(torch.stack(result.images))
        return torch.stack(columns, dim=1).flatten(0, 1)

    def configure_optimizers(self) -> dict:
        config = self.config
        return build_optimizer(self, config.learning_rate, config.final_learning_rate, config.warmup_steps)

    def on_fit_end(self) -> None:
        if self.config.looking:
            before = self.pipeline.grounding or {}
            own = {name: value for name, value in self._named().items() if value.requires_grad or name in before}
            self.pipeline.grounding = {name: value.detach().cpu() for name, value in own.items()}

    def on_save_checkpoint(self, checkpoint: dict) -> None:
        only_trained_weights(self, checkpoint)


def _attention_row(pipeline: LCADPipeline, photo: Image.Image, caption: str) -> Tensor:
    """-> (3, 3, S, S): the photo, and where it is looked for its first two objects (grey: it has no such object)."""
    grey, phrases = photo.convert("L"), find_phrases(caption, pipeline.tokenizer)[:2]
    maps = phrase_attention(pipeline, photo, caption, phrases) if phrases else []
    pictures = [photo, *(heat_map(grey, attention) for attention in maps), grey, grey]
    return torch.stack([to_tensor(picture) for picture in pictures[:3]])


def _of_nouns(instances: InstanceMasks) -> InstanceMasks:
    """The masks for the objects' own words: to CLIP, which reads forward, a colour does not know what has it."""
    nouns = [replace(phrase, tokens=phrase.object_tokens) for phrase in instances.phrases]
    return InstanceMasks(nouns, instances.masks)


def draw_timesteps(count: int, steps: int, shift: float, generator: torch.Generator) -> Tensor:
    """Training time steps (count,) in [0, steps).

    With `shift` 1 all are equally likely, as in the paper. Above 1 high noise comes more often: u uniform in [0, 1)
    becomes shift u / (1 + (shift - 1) u) (Esser et al. 2024, Eq. 23), so that with 3 half of them lie above 3/4.
    """
    u = torch.rand(count, generator=generator)
    return (shift * u / (1 + (shift - 1) * u) * steps).long().clamp(max=steps - 1)
