"""Stage 2 once more, for copies of its weights that only find objects: the localizer (`lcad.models.localizer`)."""

import copy

import torch
from PIL import Image
from torch import Tensor
from transformers import CLIPTextModel

from lcad.io.images import to_image, to_tensor
from lcad.io.prepared_photo import PreparedPhoto
from lcad.masks.attention import phrase_attention
from lcad.masks.overlay import heat_map
from lcad.models.channel_extended_unet import ExtendedUNet
from lcad.models.localizer import PARTS
from lcad.pipeline import LCADPipeline
from lcad.text.phrases import find_phrases
from lcad.training.latent_stage import LatentStage
from ldm.autoencoder import latent_stride


class LocalizerStage(LatentStage):
    """Trains copies of the UNet and the text encoder to attend to what words name (`latent.localizer_weight`).

    The pipeline gets what they have learnt as its localizer weights. Such weights that it has are trained further. Of
    the latents nothing is used: objects are found before there are colours, which would tell where a red one is.
    """

    def _start(self) -> tuple[ExtendedUNet, CLIPTextModel]:
        """Copies of the localizer's parts, or of the colorizer's if there is none."""
        start = self.pipeline.with_localizer()
        return copy.deepcopy(start.unet), copy.deepcopy(start.text_encoder)

    def _moments(self, rgb: Tensor) -> Tensor:
        size = [side // latent_stride(self.vae) for side in rgb.shape[-2:]]
        return rgb.new_zeros(len(rgb), 2 * self.vae.config.latent_channels, *size)

    def _draw_latents(self, moments: Tensor, generator: torch.Generator) -> Tensor:
        return torch.zeros_like(super()._draw_latents(moments, generator))

    def _cached_differently(self) -> list[str]:
        return ["looking"]  # the stage's name in caches of version 0.1, which stay valid

    @torch.no_grad()
    def example_images(self, batch: dict) -> Tensor:
        """Rows of (photo, where its caption's first object is found, where the second) -> (3 B, 3, S, S) in [0, 1]."""
        localizer = self.pipeline.with_parts({part: getattr(self, part) for part in PARTS})
        rows = zip(batch["image"], batch["caption"], strict=True)
        return torch.cat([_attention_row(localizer, to_image(image), caption) for image, caption in rows])

    def on_fit_end(self) -> None:
        super().on_fit_end()
        before = self.pipeline.localizer or {}
        own = {name: value for name, value in self.named_parts().items() if value.requires_grad or name in before}
        self.pipeline.localizer = {name: value.detach().cpu() for name, value in own.items()}


def _attention_row(pipeline: LCADPipeline, photo: Image.Image, caption: str) -> Tensor:
    """-> (3, 3, S, S): the photo, and where its first two objects are found (grey: it has no such object)."""
    grey, phrases = photo.convert("L"), find_phrases(caption, pipeline.tokenizer)[:2]
    maps: Tensor | list[Tensor] = (
        phrase_attention(pipeline, PreparedPhoto.of(photo), caption, phrases) if phrases else []
    )
    pictures = [photo, *(heat_map(grey, attention) for attention in maps), grey, grey]
    return torch.stack([to_tensor(picture) for picture in pictures[:3]])
