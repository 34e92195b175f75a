"""Stage 2, in the latent space (Sec. 3.5, Eq. 6): the noise prediction network.

Shapes: latents (B, C, h, w); luminance (B, C_l, h, w), the deepest luminance feature; text (B, 77, D).
"""

import copy
import fnmatch
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from diffusers import Transformer2DModel, UNet2DConditionModel
from PIL import Image
from torch import Tensor

from lcad.color import luminance_to_rgb, rgb_to_hint, rgb_to_luminance
from lcad.config import LatentConfig, TrainerConfig
from lcad.data.cache import CachedDataset, open_cache
from lcad.data.photos import PhotoDataset
from lcad.instance_sampling import LabelTargets, LogitTargets
from lcad.io.images import to_image, to_tensor
from lcad.masks.attention import phrase_attention
from lcad.masks.overlay import heat_map
from lcad.masks.types import InstanceMasks
from lcad.models.channel_extended_unet import Responses
from lcad.models.localizer import PARTS
from lcad.pipeline import LCADPipeline
from lcad.text.captions import SCARCE_CAPTION
from lcad.text.phrases import find_phrases
from lcad.training.optimization import build_optimizer, clip_gradients, only_trained_weights, step_generator
from lcad.training.teacher import AlignmentHead, Teacher
from ldm.attention import attention_logits, layer_sizes
from ldm.autoencoder import latent_stride, posterior
from ldm.schedulers import build_scheduler, build_training_schedule
from ldm.text_encoder import encode_text, tokenize

TRAINING_STRENGTH = 10.0  # of refined attention: a phrase outweighs the 70 tokens of padding, with 5 it does not


class LatentStage(pl.LightningModule):
    """L = E || eps - eps_theta(z_t, t, text, luminance) ||^2 (Eq. 6), with stage 1 frozen.

    What is trained is a list of name patterns over `unet.*` and `text_encoder.*`; all else is frozen. A batch
    holds images and captions, or, from a cache, `moments`, `luminance` and `text` (see `lcad.data.cache`).

    With `latent.looking` copies of the UNet and the text encoder are trained, and the pipeline gets what they have
    learnt as its weights for finding objects (`lcad.models.localizer`). Such weights that it has are trained further.
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
        prediction = config.prediction or pipeline.scheduler.config.prediction_type
        if not config.looking:
            pipeline.register_to_config(guidance_scale=config.guidance, num_inference_steps=config.inference_steps)
            pipeline.register_modules(scheduler=build_scheduler(config.scheduler, prediction))
        self.pipeline = pipeline
        self.unet, self.text_encoder = pipeline.unet, pipeline.text_encoder
        self.vae, self.luminance_encoder = pipeline.vae, pipeline.luminance_encoder
        for frozen in (self.vae, self.luminance_encoder):
            frozen.requires_grad_(False)
        if config.looking:
            start = pipeline.grounded()
            self.unet, self.text_encoder = copy.deepcopy(start.unet), copy.deepcopy(start.text_encoder)
        self._choose_trained(config.trainable)
        self.teacher = None if config.teacher is None else Teacher(config.teacher, config.teacher_node)
        self._features: list[Tensor] = []  # of the last pass
        if self.teacher is not None:
            self.head = self._alignment_head(config.teacher_site)
        if trainer_config.gradient_checkpointing:
            self.unet.enable_gradient_checkpointing()
        self.schedule = build_training_schedule(prediction)
        self._compiled: Callable | None = None
        self.strict_loading = False  # frozen weights come from `init`, not from the resume checkpoint

    def _alignment_head(self, site: str) -> AlignmentHead:
        module, size = dict(self.unet.named_modules()).get(site), self.pipeline.config.image_size
        if not isinstance(module, Transformer2DModel):
            raise ValueError(
                f"latent.teacher_site: {site!r} is no transformer of the UNet, such as mid_block.attentions.0"
            )
        return AlignmentHead(module.in_channels, self.teacher(torch.zeros(1, 3, size, size)).shape[1])

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

    @torch.no_grad()
    def prepare_resident(self, images: Tensor) -> dict[str, Tensor]:
        """Of images (B, 3, S, S) in [0, 1], what is kept in the device's memory: as `prepare`, and what is taught."""
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.trainer_config.precision == "bf16-mixed"):
            fixed = self.prepare({"image": images})
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
        return photos if self.config.cache is None else open_cache(self, photos, Path(self.config.cache))

    def predict_loss(
        self,
        z: Tensor,
        luminance: Tensor | None,
        text: Tensor,
        t: Tensor,
        noise: Tensor,
        given: LogitTargets | None = None,
        wanted: LogitTargets | None = None,
        taught: Tensor | None = None,
    ) -> Tensor:
        """Eq. (6) for given time steps t (B,) and noise like z -> the mean squared error, a scalar.

        With `v_prediction` the error is that of v, which is Eq. 6's weighed by 1 + 1 / SNR: a caption decides
        colours at time steps where little but noise is seen, and there the noise's error hardly depends on them.

        With `given` attention is refined towards these targets as in sampling (Algorithm 1, one pass). The paper does
        so in sampling alone: its text encoder has learnt elsewhere to keep a colour with its object.

        With `wanted`, `LatentConfig.grounding` times `LogitTargets.grounding_loss` is added: words learn to attend to
        their own objects without the help of masks. With `taught` (B, C_t, h_t, w_t), the teacher's features, the
        UNet's are drawn to them, see `lcad.training.teacher`.
        """
        z_t = self.schedule.add_noise(z, noise, t)
        responses = {} if luminance is None else self.unet.luminance_responses(luminance)
        misplaced: list[Tensor] = []  # the loss of each layer

        def attend(_name: str, logits: Tensor) -> Tensor:
            if wanted is not None:
                misplaced.append(wanted.grounding_loss(logits))
            return logits if given is None else logits - TRAINING_STRENGTH * given.gradient(logits, "element")

        seen = given is not None or wanted is not None
        with attention_logits(self.unet, attend, len(z)) if seen else nullcontext():
            predicted = self._predict(z_t, t, text, responses)
        epsilon = self.schedule.config.prediction_type == "epsilon"
        target = noise if epsilon else self.schedule.get_velocity(z, noise, t)
        loss = F.mse_loss(predicted.float(), target.float())
        if misplaced:
            loss = loss + self.config.grounding * torch.stack(misplaced).mean()
        if taught is not None and self._features:
            loss = loss + self.config.teacher_weight * self.head.loss(self._features.pop(), taught)
        return loss

    def _predict(self, z_t: Tensor, t: Tensor, text: Tensor, responses: Responses) -> Tensor:
        if not (self.trainer_config.compile and self.training):
            return self.unet(z_t, t, text, responses).sample
        if self._compiled is None:
            self._compiled = torch.compile(partial(UNet2DConditionModel.forward, self.unet))
        with self.unet.responding(responses):  # outside of what is compiled: it changes from call to call
            return self._compiled(z_t, t, text).sample

    def _loss(self, batch: dict, generator: torch.Generator) -> Tensor:
        fixed = batch if "moments" in batch else self.prepare(batch)
        mean, log_variance = fixed["moments"].float().chunk(2, dim=1)

        def draw() -> Tensor:
            return torch.randn(mean.shape, generator=generator, device=generator.device).to(mean)

        std = torch.exp(0.5 * log_variance.clamp(-30, 20))
        z = (mean + std * draw()) * self.vae.config.scaling_factor
        steps = self.schedule.config.num_train_timesteps
        t = draw_timesteps(len(z), steps, self.config.timestep_shift, generator).to(z.device)
        captions = batch["tokens"] if "tokens" in batch else batch.get("caption")
        text = batch["text"] if "text" in batch else self._encode_text(captions)
        noise = draw()
        if self.config.looking:  # for objects it is before there are colours, which would tell where a red one is
            z = torch.zeros_like(z)
        given, wanted = self._targets(batch, z, generator)
        luminance = fixed.get("luminance")
        luminance = None if luminance is None else luminance.to(z)
        return self.predict_loss(z, luminance, text, t, noise, given, wanted, self._taught(batch))

    def _targets(
        self, batch: dict, z: Tensor, generator: torch.Generator
    ) -> tuple[LogitTargets | None, LogitTargets | None]:
        """Where attention is brought to, for a share of the photos with masks, and where it is to go for the others."""
        if not (self.config.refined or self.config.grounding):
            return None, None
        heads, share = self.unet.config.attention_head_dim, self.config.refined if self.training else 0
        chosen = torch.rand(len(z), generator=generator, device=generator.device) < share
        if "labels" in batch:
            weight, chosen = batch["share"], chosen[:, None].to(z.device)
            targets = LabelTargets(batch["labels"], batch["members"], weight, heads).at(self._attention_sizes(z))
            given = targets.weighing(weight * chosen) if self.config.refined else None
            return given, targets.weighing(weight * ~chosen) if self.config.grounding else None
        instances, size = batch["instances"], z.shape[-2:]
        refined = [item if use else None for item, use in zip(instances, chosen, strict=True)]
        given = LogitTargets(refined, size, heads) if any(refined) else None
        if not self.config.grounding:
            return given, None
        grounded = [None if use else item for item, use in zip(instances, chosen, strict=True)]
        if self.config.looking:
            grounded = [None if item is None else _of_nouns(item) for item in grounded]
        return given, LogitTargets(grounded, size, heads, resize="area") if given or any(grounded) else None

    def _attention_sizes(self, z: Tensor) -> list[tuple[int, int]]:
        """Of the UNet's layers that have cross-attention."""
        sizes = list(layer_sizes(tuple(z.shape[-2:])).values())
        kinds = self.unet.config.down_block_types
        return [size for size, kind in zip(sizes, kinds, strict=False) if "CrossAttn" in kind] + [sizes[len(kinds) - 1]]

    def _encode_text(self, captions: list[str] | Tensor) -> Tensor:
        """Captions, or their token ids (B, 77) -> (B, 77, D)."""
        tokens = captions if isinstance(captions, Tensor) else tokenize(self.pipeline.tokenizer, captions)
        with torch.set_grad_enabled(self.text_trained and torch.is_grad_enabled()):
            return encode_text(self.text_encoder, tokens)

    def _taught(self, batch: dict) -> Tensor | None:
        """The teacher's features of a batch of photos, in training."""
        if self.teacher is None or not self.training:
            return None
        return batch["teacher"] if "teacher" in batch else self.teacher(_grey(batch["image"]))

    def _note_features(self, _module: torch.nn.Module, _inputs: tuple, output: Tensor | tuple) -> None:
        if self.training and torch.is_grad_enabled():
            self._features[:] = [output if isinstance(output, Tensor) else output[0]]

    def on_fit_start(self) -> None:
        if self.teacher is not None:
            self._hook = self.unet.get_submodule(self.config.teacher_site).register_forward_hook(self._note_features)

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
        if self.teacher is not None:
            self._hook.remove()
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


def _grey(rgb: Tensor) -> Tensor:
    """sRGB (B, 3, S, S) -> the grey photo of its luminance, the same shape."""
    return luminance_to_rgb(rgb_to_luminance(rgb.float()))


def _of_nouns(instances: InstanceMasks) -> InstanceMasks:
    """The masks for the objects' own words: to CLIP, which reads forward, a colour does not know what has it."""
    nouns = [replace(phrase, tokens=phrase.object_tokens) for phrase in instances.phrases]
    return InstanceMasks(nouns, instances.masks)


def draw_timesteps(count: int, steps: int, shift: float, generator: torch.Generator) -> Tensor:
    """Training time steps (count,) in [0, steps).

    With `shift` 1 all are equally likely, as in the paper. Above 1 high noise comes more often: u uniform in [0, 1)
    becomes shift u / (1 + (shift - 1) u) (Esser et al. 2024, Eq. 23), so that with 3 half of them lie above 3/4.
    """
    u = torch.rand(count, generator=generator, device=generator.device)
    return (shift * u / (1 + (shift - 1) * u) * steps).long().clamp(max=steps - 1)
