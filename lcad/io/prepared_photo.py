"""A photo on its way through mask finder, sampler and judge: what they all need of it is made once.

Shapes: H x W the photo's own size, h x w one the model works at.
"""

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import TYPE_CHECKING

import torch
from PIL import Image
from torch import Tensor

from lcad.color import luminance_to_rgb, rgb_to_luminance
from lcad.io.images import shrink, to_image, to_tensor
from lcad.io.photos import Photo
from ldm.text_encoder import encode_captions

if TYPE_CHECKING:
    from lcad.pipeline import LCADPipeline

LOOKED_SIDE = 1024  # pixels, long side of the copy in which regions are looked for


class PreparedPhoto:
    """A photo, with what a model has made of it and of its captions. For one model, as it is now.

    Args:
        size: (H, W).
        luminance: makes L (1, H, W) in [0, 100], when it is first needed.
        image: makes 8 bit RGB as a viewer shows it, of a long side at most, for what segments; None: grey, from the
            luminance.
    """

    def __init__(
        self,
        size: Sequence[int],
        luminance: Callable[[], Tensor],
        image: Callable[[int], Image.Image] | None = None,
    ):
        self.height, self.width = size
        self._make_luminance, self._make_image = luminance, image
        self._features: dict[tuple, list[Tensor]] = {}
        self._text: dict[tuple, Tensor] = {}

    @classmethod
    def of(cls, photo: "Photo | Image.Image | Tensor | PreparedPhoto") -> "PreparedPhoto":
        """Of a photograph, a PIL image, (3, H, W) in [0, 1], or L (1, H, W) in [0, 100]; a prepared photo is itself."""
        if isinstance(photo, PreparedPhoto):
            return photo
        if isinstance(photo, Photo):
            return cls(photo.values.shape[:2], photo.luminance, photo.preview)
        values = photo if isinstance(photo, Tensor) else to_tensor(photo)
        return cls(values.shape[-2:], lambda: values if len(values) == 1 else rgb_to_luminance(values.float().cpu()))

    @cached_property
    def luminance(self) -> Tensor:
        """L (1, H, W) in [0, 100]."""
        return self._make_luminance()

    @cached_property
    def image(self) -> Image.Image:
        """8 bit RGB, `LOOKED_SIDE` at most on its long side."""
        if self._make_image is not None:
            return self._make_image(LOOKED_SIDE)
        return shrink(to_image(luminance_to_rgb(self.luminance)), LOOKED_SIDE)

    def release(self) -> None:
        """Forget what was made; it is made again when it is needed."""
        for made in ("luminance", "image"):
            self.__dict__.pop(made, None)
        self._features.clear()
        self._text.clear()


def luminance_features(
    pipeline: "LCADPipeline", photos: list[PreparedPhoto], size: tuple[int, int], mirrored: bool = False
) -> list[Tensor]:
    """The luminance encoder's features (B, C, h, w) of photos at the model's size; new ones are made in one call.

    Args:
        mirrored: those of their mirror images.
    """
    key = (pipeline.luminance_encoder, size, mirrored)
    missing = list({id(photo): photo for photo in photos if key not in photo._features}.values())
    if missing:
        luminances = [photo.luminance.flip(-1) if mirrored else photo.luminance for photo in missing]
        made = pipeline.luminance_features(luminances, size)
        for row, photo in enumerate(missing):
            photo._features[key] = [part[row : row + 1] for part in made]
    return [torch.cat(parts) for parts in zip(*(photo._features[key] for photo in photos), strict=True)]


def text_embeddings(pipeline: "LCADPipeline", photos: list[PreparedPhoto], captions: list[str]) -> Tensor:
    """(B, 77, D): the captions of photos as the pipeline's text encoder has them; new ones are encoded in one call."""
    encoder, asked = pipeline.text_encoder, list(zip(photos, captions, strict=True))
    missing = list(dict.fromkeys(caption for photo, caption in asked if (encoder, caption) not in photo._text))
    if missing:
        rows = encode_captions(pipeline.tokenizer, encoder, missing)
        made = {caption: row[None] for caption, row in zip(missing, rows, strict=True)}
        for photo, caption in asked:
            if caption in made:
                photo._text.setdefault((encoder, caption), made[caption])
    return torch.cat([photo._text[encoder, caption] for photo, caption in asked])
