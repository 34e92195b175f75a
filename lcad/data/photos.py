"""Captioned photos as a data set.

Shapes: S the model's image size; images (3, S, S) float32 in [0, 1].
"""

import warnings
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from lcad.attention_refinement import InstanceMasks
from lcad.captions import CaptionSampler, mirror_words
from lcad.data.instances import InstanceFinder
from ldm.images import ImageError, read_image, to_image, to_tensor

RANDOM_CROP_MARGIN = 1.125  # the short side before a random crop, in units of S


class PhotoDataset(Dataset):
    """Photos, each with its captions. In the caption of a mirrored photo, left and right change places.

    The key of an item is `epoch * len(self) + index`: augmentation and the choice of the caption are drawn
    from the key and the seed alone, so a resumed run sees exactly what the unbroken one would have seen.

    Args:
        instances: where the masks of some photos come from; they need centre crops.
    """

    def __init__(
        self,
        photos: list[Path],
        captions: dict[Path, list[str]],
        size: int,
        sampler: CaptionSampler,
        crop: str = "center",
        flip: bool = False,
        seed: int = 0,
        instances: dict[Path, InstanceFinder] | None = None,
    ):
        if crop not in ("random", "center"):
            raise ValueError(f"unknown crop {crop!r}; allowed: random, center")
        if instances and crop != "center":
            raise ValueError(f"masks in training need data.crop=center, got {crop}; masks are cut at the centre")
        self.photos, self.captions, self.size = photos, captions, size
        self.sampler, self.crop, self.flip, self.seed = sampler, crop, flip, seed
        self.finders = instances or {}

    def __len__(self) -> int:
        return len(self.photos)

    def __getitem__(self, key: int) -> dict[str, Tensor | str | int]:
        """-> image (3, S, S) in [0, 1], caption, index of the photo, mirrored (0 or 1), instances (see below)."""
        index, caption, mirrored, rng = self.draw(key)
        image = self.square(index, rng)
        if mirrored:
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        item = {"image": to_tensor(image), "caption": caption, "index": index, "mirrored": int(mirrored)}
        return item | {"instances": self.instances(index, caption, mirrored, rng)}

    def draw(self, key: int) -> tuple[int, str, bool, np.random.Generator]:
        """What a key stands for: index of the photo, caption, mirrored or not, and the generator for the crop."""
        rng = np.random.default_rng((self.seed, int(key)))
        index = int(key) % len(self)
        caption = self.sampler(self.captions.get(self.photos[index], []), rng)
        mirrored = bool(self.flip and rng.random() < 0.5)
        return index, mirror_words(caption) if mirrored else caption, mirrored, rng

    def instances(self, index: int, caption: str, mirrored: bool, rng: np.random.Generator) -> InstanceMasks | None:
        """The masks (phrases, S, S) of the caption's objects, if the photo has one for each."""
        photo = self.photos[index]
        if photo not in self.finders:
            return None
        found = self.finders[photo](photo, np.asarray(self._read(index)), caption, rng)
        if found is None:
            return None
        cut = [to_tensor(crop_square(to_image(mask.expand(3, -1, -1)), self.size, None))[0] for mask in found.masks]
        masks = torch.stack(cut)
        return InstanceMasks(found.phrases, masks.flip(-1) if mirrored else masks)

    def square(self, index: int, rng: np.random.Generator | None = None) -> Image.Image:
        """The photo cut to S x S, RGB."""
        return crop_square(self._read(index), self.size, rng if self.crop == "random" else None)

    def _read(self, index: int) -> Image.Image:
        """The photo, or with a warning the next readable one: one bad file does not end a long run."""
        for offset in range(len(self)):
            try:
                return read_image(self.photos[(index + offset) % len(self)])
            except ImageError as error:
                warnings.warn(f"{error}; the next photo is used instead", stacklevel=2)
        raise ImageError("no photo of the data set can be read")


def crop_square(image: Image.Image, size: int, rng: np.random.Generator | None) -> Image.Image:
    """Resize the short side and cut out a size x size square: the centre, or a random one."""
    short = size if rng is None else round(size * RANDOM_CROP_MARGIN)
    scale = short / min(image.size)
    width, height = (max(short, round(side * scale)) for side in image.size)
    image = image.resize((width, height), Image.Resampling.LANCZOS, reducing_gap=2.0)
    left, top = (width - size) / 2, (height - size) / 2
    if rng is not None:
        left, top = rng.random() * (width - size), rng.random() * (height - size)
    return image.crop((int(left), int(top), int(left) + size, int(top) + size))


def collate(items: list[dict]) -> dict[str, Tensor | list]:
    """Stack tensors and numbers, keep captions and instances as lists."""
    first = items[0]
    return {
        key: torch.stack([torch.as_tensor(item[key]) for item in items])
        if isinstance(first[key], (Tensor, int))
        else [item[key] for item in items]
        for key in first
    }
