"""Stage 2, in the latent space (Sec. 3.5, Eq. 6): the noise prediction network.

Shapes: latents (B, C, h, w); luminance (B, C_l, h, w), the deepest luminance feature; text (B, 77, D).
"""

import fnmatch
import hashlib
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import cast

import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import CLIPTextModel

from lcad.color import luminance_to_rgb, rgb_to_hint, rgb_to_luminance
from lcad.config import LatentConfig, TrainerConfig
from lcad.data.cache import CachedDataset, open_cache
from lcad.data.photos import PhotoDataset
from lcad.io.images import to_image, to_tensor
from lcad.models.channel_extended_unet import ExtendedUNet
from lcad.models.guided_decoder import decode_with_luminance
from lcad.models.localizer import PARTS
from lcad.models.perceptual import build_lpips
from lcad.pipeline import LCADPipeline
from lcad.pipeline_inputs import LCADPipelineOutput
from lcad.text.captions import SCARCE_CAPTION
from lcad.training.attention_supervision import draw_supervision
from lcad.training.optimization import build_optimizer, clip_gradients, only_trained_weights, step_generator
from lcad.training.start import add_semantics
from lcad.training.teacher import AlignmentHead, Teacher
from ldm.attention import LogitTransform
from ldm.autoencoder import posterior
from ldm.sampling import split_prediction
from ldm.schedulers import build_training_schedule, has_zero_snr, scheduler_like
from ldm.text_encoder import encode_captions, encode_text, tokenize


class LatentStage(pl.LightningModule):
    """L = E || eps - eps_theta(z_t, t, text, luminance) ||^2 (Eq. 6), with stage 1 frozen.

    What is trained is a list of name patterns over `unet.*` and `text_encoder.*`; all else is frozen. A batch
    holds images and captions, or, from a cache, `moments`, `luminance` and `text` (see `lcad.data.cache`).
    """

    def __init__(self, pipeline: LCADPipeline, config: LatentConfig, trainer_config: TrainerConfig):
        assert not config.keeps_colors or type(self) is not LatentStage, "a stage of its own is for that"
        super().__init__()
        self.config, self.trainer_config, self.pipeline = config, trainer_config, pipeline
        pipeline.disable_cuda_graphs()  # a few photos are sampled now and then, of weights that change
        if config.semantic_backbone is not None:
            add_semantics(pipeline, config.semantic_backbone)
        if config.sites is not None and config.sites != pipeline.unet.config.sites:
            pipeline.register_modules(unet=pipeline.unet.with_settings(sites=config.sites))
        prediction = config.prediction_type or pipeline.scheduler.config.prediction_type
        zero_snr = config.rescale_betas_zero_snr
        self.schedule = build_training_schedule(
            prediction, has_zero_snr(pipeline.scheduler) if zero_snr is None else zero_snr
        )
        self.unet, self.text_encoder = self._start()
        self.vae, self.luminance_encoder = pipeline.vae, pipeline.luminance_encoder
        for frozen in (self.vae, self.luminance_encoder):
            frozen.requires_grad_(False)
        choose_trained(self.named_parts(), config.trainable)
        self.text_trained = any(parameter.requires_grad for parameter in self.text_encoder.parameters())
        self.teacher = None if config.teacher is None else Teacher(config.teacher, config.teacher_node)
        if self.teacher is not None:
            self.head = AlignmentHead.of(self.unet, config.teacher_site, self.teacher, pipeline.config.image_size)
        self.lpips = build_lpips("vgg", config.perceptual_backbone) if config.perceptual_weight else None
        if trainer_config.gradient_checkpointing:
            self.unet.enable_gradient_checkpointing()
        self._compiled: Callable | None = None
        self.strict_loading = False  # frozen weights come from `init`, not from the resume checkpoint

    def _start(self) -> tuple[ExtendedUNet, CLIPTextModel]:
        """The UNet and the text encoder that are trained: the pipeline's, which gets what sampling needs."""
        config = self.config
        saved = {name: getattr(config, name) for name in self.pipeline.sampling_settings}
        self.pipeline.register_to_config(**saved)
        self.pipeline.register_modules(scheduler=scheduler_like(config.scheduler, self.schedule))
        return self.pipeline.unet, self.pipeline.text_encoder

    def named_parts(self) -> dict[str, nn.Parameter]:
        """The parameters that may be trained, by part and name."""
        return {f"{part}.{name}": value for part in PARTS for name, value in getattr(self, part).named_parameters()}

    @torch.no_grad()
    def prepare(self, rgb: Tensor) -> dict[str, Tensor]:
        """What does not change in stage 2, of images (B, 3, S, S) in [0, 1]: `moments` (B, 2 C, h, w) and, where used,
        `luminance` (B, C_l, h, w)."""
        fixed = {"moments": self._moments(rgb)}
        if self.unet.site_names:
            fixed["luminance"] = self._luminance_features(rgb)[-1]
        return fixed

    @torch.no_grad()
    def _luminance_features(self, rgb: Tensor) -> list[Tensor]:
        return self.luminance_encoder(rgb_to_hint(rgb, self.pipeline.config.hint_scale))

    def _moments(self, rgb: Tensor) -> Tensor:
        return posterior(self.vae, rgb * 2 - 1).parameters

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.trainer_config.precision == "bf16-mixed")

    @torch.no_grad()
    def prepare_resident(self, images: Tensor) -> dict[str, Tensor]:
        """Of images (B, 3, S, S) in [0, 1], what is kept in the device's memory: as `prepare`, and what is taught."""
        with self._autocast():
            fixed = self.prepare(images)
            if self.lpips is not None:
                fixed["image"] = (images * 255).round().byte()
            if self.teacher is None:
                return fixed
            if self.teacher.mean.ndim == 0:  # the first photos are enough to know
                self.teacher.standardise(_grey(images))
            return fixed | {"teacher": self.teacher(_grey(images))}

    def training_data(self, photos: PhotoDataset) -> PhotoDataset | CachedDataset:
        """The photos, or what the cache has of them."""
        if self.teacher is not None:
            known = [to_tensor(photos.square(index)) for index in range(min(64, len(photos)))]
            self.teacher.standardise(_grey(torch.stack(known).to(self.device)))
        if self.config.cache is None:
            return photos

        def prepare(images: Tensor) -> dict[str, Tensor]:
            with self._autocast():  # as in training
                return self.prepare(images.to(self.device))

        encode = partial(encode_captions, self.pipeline.tokenizer, self.text_encoder)
        encode_texts = None if self.text_trained else encode
        return open_cache(photos, Path(self.config.cache), prepare, encode_texts, self.cache_fingerprint)

    def cache_fingerprint(self, photos: list) -> str:
        """A hash of what cached tensors depend on: the photos, as described, and the frozen parts."""
        described = [*photos, bool(self.unet.site_names), self.text_trained, *self._cached_differently()]
        settings = [described, self.pipeline.config.hint_scale, self.trainer_config.precision]
        digest = hashlib.sha256(json.dumps(settings).encode())
        frozen = [self.vae, self.luminance_encoder, *([] if self.text_trained else [self.text_encoder])]
        for module in frozen:
            for value in module.state_dict().values():
                digest.update(value.float().cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()[:16]

    def _cached_differently(self) -> list[str]:
        return []

    def predict_loss(
        self,
        z: Tensor,
        luminance: Tensor | None,
        text: Tensor,
        t: Tensor,
        noise: Tensor,
        logit_transform: LogitTransform | None = None,
        photos: Tensor | None = None,
    ) -> Tensor:
        """Eq. 6 for given time steps t (B,) and noise like z -> the mean squared error, a scalar.

        With `v_prediction` the error is that of v, which is Eq. 6's weighed by 1 + 1 / SNR: a caption decides
        colours at time steps where little but noise is seen, and there the noise's error hardly depends on them.

        Args:
            photos: the first of those the latents are of, (b, 3, S, S) in [0, 1], b at most B: for these
                `perceptual_loss` is added. The paper: none.
        """
        z_t = self.schedule.add_noise(z, noise, t)
        responses = {} if luminance is None else self.unet.luminance_responses(luminance)
        predicted = self._denoiser()(z_t, t, text, responses, logit_transform).sample
        epsilon = self.schedule.config.prediction_type == "epsilon"
        target = noise if epsilon else self.schedule.get_velocity(z, noise, t)
        loss = F.mse_loss(predicted.float(), target.float())
        return loss if photos is None else loss + self.perceptual_loss(self._split(predicted, z_t, t)[0], photos)

    def _split(self, predicted: Tensor, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """A prediction at x_t -> the latents and the noise that it means."""
        alpha = self.schedule.alphas_cumprod.to(x)[t][:, None, None, None]
        return split_prediction(self.schedule.config.prediction_type, alpha, x, predicted)

    def perceptual_loss(self, latents: Tensor, photos: Tensor) -> Tensor:
        """LPIPS between photos (b, 3, S, S) in [0, 1] and what the first b latents decode to, weighed, a scalar.

        Of errors of the same size it dislikes patches and wrong edges most (Lin & Yang, Diffusion Model with
        Perceptual Loss, 2024, with features of their own network).
        """
        assert self.lpips is not None
        features = self._luminance_features(photos)
        decoded = decode_with_luminance(self.vae, latents[: len(photos)].to(photos), features)
        distance = self.lpips(decoded.float(), photos * 2 - 1).mean()
        self.log("train/perceptual", distance.detach())
        return self.config.perceptual_weight * distance

    def _denoiser(self) -> Callable:
        if not (self.trainer_config.compile and self.training):
            return self.unet
        if self._compiled is None:
            self._compiled = torch.compile(self.unet.forward)
        return self._compiled

    def _loss(self, batch: dict, generator: torch.Generator) -> Tensor:
        """Eq. 6 for a batch, with what supervises attention and features beside it."""
        fixed = batch if "moments" in batch else self.prepare(batch["image"])
        moments = fixed["moments"].float()
        z = self._draw_latents(moments, generator)
        steps = self.schedule.config.num_train_timesteps
        t = draw_timesteps(len(z), steps, self.config.timestep_shift, generator).to(z.device)
        source = next(name for name in ("text", "tokens", "caption") if name in batch)
        text = batch["text"] if source == "text" else self._encode_text(batch[source])
        noise = _noise_like(z, generator)
        given = self.config.instance_sampling_probability if self.training else 0.0
        supervision = draw_supervision(batch, (z.shape[-2], z.shape[-1]), given, self.config, self.unet, generator)
        luminance = fixed.get("luminance")
        luminance = None if luminance is None else luminance.to(z)
        photos = None
        if self.lpips is not None and self.training:
            photos = batch["image"][: max(1, round(len(z) * self.config.perceptual_share))]
        loss = self.predict_loss(z, luminance, text, t, noise, supervision.transform(len(z)), photos)
        loss = loss + self.config.localizer_weight * supervision.loss()
        if self.teacher is not None and self.training and self.head.noted:
            taught = batch["teacher"] if "teacher" in batch else self.teacher(_grey(batch["image"]))
            loss = loss + self.config.teacher_weight * self.head.loss(self.head.noted.pop(), taught)
        return loss

    def _draw_latents(self, moments: Tensor, generator: torch.Generator) -> Tensor:
        """z ~ N(mean, std) of the autoencoder's moments (B, 2 C, h, w)."""
        mean, log_variance = moments.chunk(2, dim=1)
        std = torch.exp(0.5 * log_variance.clamp(-30, 20))
        return (mean + std * _noise_like(mean, generator)) * self.vae.config.scaling_factor

    def _encode_text(self, captions: list[str] | Tensor) -> Tensor:
        """Captions, or their token ids (B, 77) -> (B, 77, D)."""
        tokens = captions if isinstance(captions, Tensor) else tokenize(self.pipeline.tokenizer, captions)
        with torch.set_grad_enabled(self.text_trained and torch.is_grad_enabled()):
            return encode_text(self.text_encoder, tokens)

    def on_fit_start(self) -> None:
        if self.teacher is not None:
            self._hook = self.head.listen(self.unet.get_submodule(self.config.teacher_site))

    def training_step(self, batch: dict, batch_index: int) -> Tensor:
        loss = self._loss(batch, step_generator(self, "tokens" in batch))
        self.log("train/loss", loss.detach(), prog_bar=True)
        return loss

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        clip_gradients(self)

    def validation_step(self, batch: dict, batch_index: int) -> None:
        generator = torch.Generator().manual_seed(batch_index)  # the same noise at every validation
        size = len(batch["image"] if "image" in batch else batch["moments"])
        self.log("validation/loss", self._loss(batch, generator), batch_size=size, sync_dist=True)

    @torch.no_grad()
    def example_images(self, batch: dict) -> Tensor:
        """Rows of (photo, colorized with its caption, colorized with a scarce one) -> (3 B, 3, S, S) in [0, 1].

        Without channel-extended convolutions (a base model) the columns are text-to-image samples.
        """
        pipeline, rgb = self._examples_by(), batch["image"]
        pipeline.set_progress_bar_config(disable=True)
        photos = [to_image(image) for image in rgb]
        columns = [rgb.cpu()]
        for captions in (batch["caption"], [SCARCE_CAPTION] * len(photos)):
            result = pipeline(
                [*photos],
                captions,
                num_inference_steps=self.config.sample_steps,
                generator=[torch.Generator().manual_seed(i) for i in range(len(photos))],
                output_luminance="input" if self.unet.site_names else "decoded",
                output_type="pt",
            )
            columns.append(torch.stack(list(cast(LCADPipelineOutput, result).images)))
        return torch.stack(columns, dim=1).flatten(0, 1)

    def _examples_by(self) -> LCADPipeline:
        """What makes them."""
        return self.pipeline

    def configure_optimizers(self) -> dict:
        config = self.config
        return build_optimizer(self, config.learning_rate, config.final_learning_rate, config.warmup_steps)

    def on_fit_end(self) -> None:
        if self.teacher is not None:
            self._hook.remove()

    def on_save_checkpoint(self, checkpoint: dict) -> None:
        only_trained_weights(self, checkpoint)


def choose_trained(named: dict[str, nn.Parameter], patterns: list[str]) -> None:
    """Trains what one of the patterns matches and none that begins with "!"; freezes the others.

    Raises:
        ValueError: a pattern that matches nothing.
    """
    for pattern in patterns:
        if not fnmatch.filter(named, pattern.removeprefix("!")):
            raise ValueError(f"latent.trainable: {pattern!r} matches no parameter; names look like {next(iter(named))}")
    for name, parameter in named.items():
        matching = [pattern for pattern in patterns if fnmatch.fnmatchcase(name, pattern.removeprefix("!"))]
        parameter.requires_grad_(bool(matching) and not any(pattern.startswith("!") for pattern in matching))


def draw_timesteps(count: int, steps: int, shift: float, generator: torch.Generator) -> Tensor:
    """Training time steps (count,) in [0, steps).

    With `shift` 1 all are equally likely, as in the paper. Above 1 high noise comes more often: u uniform in [0, 1)
    becomes shift u / (1 + (shift - 1) u) (Esser et al. 2024, Eq. 23), so that with 3 half of them lie above 3/4.
    """
    u = torch.rand(count, generator=generator, device=generator.device)
    return (shift * u / (1 + (shift - 1) * u) * steps).long().clamp(max=steps - 1)


def _noise_like(z: Tensor, generator: torch.Generator) -> Tensor:
    return torch.randn(z.shape, generator=generator, device=generator.device).to(z)


def _grey(rgb: Tensor) -> Tensor:
    """sRGB (B, 3, S, S) -> the grey photo of its luminance, the same shape."""
    return luminance_to_rgb(rgb_to_luminance(rgb.float()))
