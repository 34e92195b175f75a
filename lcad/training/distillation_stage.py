"""Latent consistency distillation (Luo et al. 2023) of a trained stage 2: tens of guided steps become about four.

Shapes: latents (B, C, h, w); luminance (B, C_l, h, w), the deepest luminance feature; text (B, 77, D).
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property

import torch
from torch import Tensor
from transformers import CLIPTextModel

from lcad.config import DistillationConfig
from lcad.models.channel_extended_unet import ExtendedUNet, Responses
from lcad.models.lcm_lora import add_lora, take_lora
from lcad.pipeline import LCADPipeline
from lcad.training.latent_stage import LatentStage
from ldm.attention import LogitTransform
from ldm.schedulers import scheduler_like
from ldm.text_encoder import encode_captions


class DistillationStage(LatentStage):
    """Trains a LoRA of the UNet, with which it is a consistency function: from any point of a trajectory of its own
    guided sampling to the end of it. Without the LoRA it is the teacher. The pipeline gets the LoRA.
    """

    config: DistillationConfig

    def _start(self) -> tuple[ExtendedUNet, CLIPTextModel]:
        add_lora(self.pipeline.unet, self.config.lora_rank, self.config.lora_layers)
        self.consistency = scheduler_like("lcm", self.schedule)
        return self.pipeline.unet, self.pipeline.text_encoder

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
        """|| f(x_t, t) - f(x_s, s) ||, with x_s one step of DDIM nearer the end on the teacher's guided trajectory.

        Args:
            t: is rounded to the time steps of that sampling, `solver_steps` of them. Masks are the teacher's too.
        """
        stride = self.schedule.config.num_train_timesteps // self.config.solver_steps
        t = torch.minimum((t // stride + 1) * stride, t.new_tensor(self.schedule.config.num_train_timesteps)) - 1
        s = (t - stride).clamp(min=0)
        x_t = self.schedule.add_noise(z, noise, t)
        responses = {} if luminance is None else self.unet.luminance_responses(luminance)
        with torch.no_grad():
            x_s = self._ddim_step(x_t, t, s, self._guided(x_t, t, text, responses, logit_transform))
            target = self._consistent(x_s, s, text, responses, logit_transform)
        made = self._consistent(x_t, t, text, responses, logit_transform)
        c = self.config.huber_c
        loss = (((made - target) ** 2 + c**2).sqrt() - c).mean()
        return loss if photos is None else loss + self.perceptual_loss(made, photos)

    def _guided(
        self, x: Tensor, t: Tensor, text: Tensor, responses: Responses, logit_transform: LogitTransform | None
    ) -> Tensor:
        """What the teacher predicts with classifier-free guidance."""
        both = {site: torch.cat([response, response]) for site, response in responses.items()}
        texts = torch.cat([text, self._no_text.to(text).expand_as(text)])
        with self._as_teacher():
            predicted = self._denoiser()(torch.cat([x, x]), torch.cat([t, t]), texts, both, logit_transform).sample
        conditional, unconditional = predicted.float().chunk(2)
        return unconditional + self.config.guidance_scale * (conditional - unconditional)

    def _consistent(
        self, x: Tensor, t: Tensor, text: Tensor, responses: Responses, logit_transform: LogitTransform | None
    ) -> Tensor:
        """f(x_t, t): the student's latents, with f(x_0, 0) = x_0 by the scheduler's own coefficients."""
        predicted = self._denoiser()(x, t, text, responses, logit_transform).sample.float()
        skip, out = self.consistency.get_scalings_for_boundary_condition_discrete(t[:, None, None, None])
        return skip * x + out * self._split(predicted, x, t)[0]

    def _ddim_step(self, x: Tensor, t: Tensor, s: Tensor, predicted: Tensor) -> Tensor:
        """From x_t to x_s without noise (Song et al. 2021, Eq. 12 with sigma 0)."""
        latents, noise = self._split(predicted, x, t)
        return self.schedule.add_noise(latents, noise, s)

    @contextmanager
    def _as_teacher(self) -> Iterator[None]:
        """The UNet without its LoRA, in the `with` block."""
        self.unet.disable_adapters()
        try:
            yield
        finally:
            self.unet.enable_adapters()

    @cached_property
    def _no_text(self) -> Tensor:
        return encode_captions(self.pipeline.tokenizer, self.text_encoder, [""])

    def _examples_by(self) -> LCADPipeline:
        return self.pipeline.for_few_steps(self.unet)

    def on_fit_end(self) -> None:
        super().on_fit_end()
        self.pipeline.lcm_lora = take_lora(self.unet)
