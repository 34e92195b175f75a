"""What masks are: instance masks of phrases, candidate regions of a photo, and what their providers share.

Letters: R regions, (H, W) pixels. Masks and scores are float32 on the CPU.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from lcad.defaults import SAM_TYPES
from lcad.text.phrases import Phrase

if TYPE_CHECKING:
    from lcad.io.prepared_photo import PreparedPhoto


@dataclass(frozen=True)
class InstanceMasks:
    """The instance masks of one photo.

    Attributes:
        phrases: one for each mask.
        masks: (len(phrases), H, W) in [0, 1], at the model's size.
    """

    phrases: list[Phrase]
    masks: Tensor

    def part(self, rows: slice, columns: slice, size: tuple[int, int]) -> "InstanceMasks":
        """The masks in a part of latents of `size`; a mask that is nowhere in it stays, as one that is empty."""
        y, x = (whole // latent for whole, latent in zip(self.masks.shape[-2:], size, strict=True))
        part = self.masks[:, rows.start * y : rows.stop * y, columns.start * x : columns.stop * x]
        return InstanceMasks(self.phrases, part)


@dataclass(frozen=True)
class Regions:
    """Candidate regions of one photo.

    Attributes:
        masks: (R, H, W) float in [0, 1], of the photo's shape, and of its size at most.
        phrases: for each region the index of the phrase it was made for, or None: it may belong to any.
        scores: (R,) the provider's own confidence in [0, 1].
    """

    masks: Tensor
    phrases: list[int | None]
    scores: Tensor


Provider = Callable[[Image.Image, list[str]], Regions]
"""A photo (any mode; grey photos are normal input) and the object words of its phrases -> candidate regions."""


@dataclass(frozen=True)
class ProviderOptions:
    """What a provider is built from; each takes the fields it needs.

    Attributes:
        checkpoint: SAM's weight file.
        model_type: one of `SAM_TYPES`: what the checkpoint was trained as.
        text_segmenter: folder or hub id of the model that finds words in a photo; None is the published one.
        device: where the models run.
        max_regions: at most so many regions for a photo, the best.
    """

    checkpoint: str | None = None
    model_type: str = SAM_TYPES[0]
    text_segmenter: str | None = None
    device: str = "cpu"
    max_regions: int = 40


def enlarge(masks: Tensor, photo: "Image.Image | PreparedPhoto") -> Tensor:
    """Masks of a shrunk photo (R, h, w) -> (R, H, W) at the photo's size."""
    return F.interpolate(masks[:, None], (photo.height, photo.width), mode="nearest-exact")[:, 0]


def at_model_size(instances: InstanceMasks, size: tuple[int, int]) -> InstanceMasks:
    """Masks in [0, 1] at the size (h, w) the model works at, without those that are empty there.

    Raises:
        ValueError: values outside [0, 1].
    """
    masks = torch.as_tensor(instances.masks, dtype=torch.float32)
    if not ((masks >= 0) & (masks <= 1)).all():
        raise ValueError(
            f"masks with values from {masks.min():g} to {masks.max():g} for {[p.text for p in instances.phrases]}; "
            "allowed: 0 to 1; divide those in 0..255 by 255"
        )
    if tuple(masks.shape[-2:]) != size:
        masks = F.interpolate(masks[None], size, mode="area")[0]
    used = [i for i, mask in enumerate(masks) if mask.max() > 0]
    return InstanceMasks([instances.phrases[i] for i in used], masks[used])
