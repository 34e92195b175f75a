"""Captioned photos as a data set.

Shapes: S the model's image size; images (3, S, S) float32 in [0, 1].
"""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from lcad.data.training_masks import InstanceFinder
from lcad.io.images import ImageError, read_image, to_image, to_tensor
from lcad.masks.types import InstanceMasks
from lcad.text.captions import CaptionSampler, mirror_words


class PhotoDataset(Dataset):
    """Photos, each with its captions. In the caption of a mirrored photo, left and right change places.

    The key of an item is `epoch * len(self) + index`: augmentation and the choice of the caption are drawn
    from the key and the seed alone, so a resumed run sees exactly what the unbroken one would have seen.

    Args:
        zoom: the most that a random crop enlarges a photo from where its short side is S.
        instances: where the masks of some photos come from.
    """

    def __init__(
        self,
        photos: list[Path],
        captions: dict[Path, list[str]],
        size: int,
        sampler: CaptionSampler,
        crop: str = "center",
        zoom: float = 1.125,
        flip: bool = False,
        seed: int = 0,
        instances: dict[Path, InstanceFinder] | None = None,
    ):
        self.photos, self.captions, self.size = photos, captions, size
        self.sampler, self.crop, self.zoom, self.flip, self.seed = sampler, crop, zoom, flip, seed
        self.finders = instances or {}
        self._unreadable: set[Path] = set()  # which have been warned of

    def __len__(self) -> int:
        return len(self.photos)

    def __getitem__(self, key: int) -> dict[str, Any]:
        """-> image (3, S, S) in [0, 1], caption, index of the photo, mirrored (0 or 1), instances (see below)."""
        return self.readable(key, self._item)

    def readable(self, key: int, item: Callable[[int], dict]) -> dict:
        """`item(key)`; of a photo that raises ImageError the whole next item: one bad file does not end a long run."""
        epoch, index = divmod(int(key), len(self))
        for place in (*range(index, len(self)), *range(index)):
            try:
                return item(epoch * len(self) + place)
            except ImageError as error:
                if self.photos[place] not in self._unreadable:
                    self._unreadable.add(self.photos[place])
                    warnings.warn(f"{error}; the next photo is used instead", stacklevel=3)
        raise ImageError("no photo of the data set can be read")

    def _item(self, key: int) -> dict[str, Any]:
        index, caption, mirrored, rng = self.draw(key)
        photo = read_image(self.photos[index])
        cut = choose_crop(photo.size, self.size, *((rng, self.zoom) if self.crop == "random" else ()))
        image = cut(photo)
        if mirrored:
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        item = {"image": to_tensor(image), "caption": caption, "index": index, "mirrored": int(mirrored)}
        return item | {"instances": self.instances(index, caption, mirrored, rng, photo, cut)}

    def draw(self, key: int) -> tuple[int, str, bool, np.random.Generator]:
        """What a key stands for: index of the photo, caption, mirrored or not, and the generator for the crop."""
        rng = np.random.default_rng((self.seed, int(key)))
        index = int(key) % len(self)
        caption = self.sampler(self.captions.get(self.photos[index], []), rng)
        mirrored = bool(self.flip and rng.random() < 0.5)
        return index, mirror_words(caption) if mirrored else caption, mirrored, rng

    def instances(
        self,
        index: int,
        caption: str,
        mirrored: bool,
        rng: np.random.Generator,
        photo: Image.Image | None = None,
        cut: "Crop | None" = None,
    ) -> InstanceMasks | None:
        """The masks (phrases, S, S) of the caption's objects, if the photo has any.

        Args:
            photo, cut: what has been read already, and how it was cut; None: as `square` does.
        """
        path = self.photos[index]
        if path not in self.finders:
            return None
        photo = photo or read_image(path)
        cut = cut or choose_crop(photo.size, self.size)
        found = self.finders[path](path, np.asarray(photo), caption, rng)
        if found is None:
            return None
        masks = torch.stack([to_tensor(cut(to_image(mask.expand(3, -1, -1))))[0] for mask in found.masks])
        return InstanceMasks(found.phrases, masks.flip(-1) if mirrored else masks)

    def square(self, index: int) -> Image.Image:
        """The photo's centre cut to S x S, RGB; raises ImageError."""
        photo = read_image(self.photos[index])
        return choose_crop(photo.size, self.size)(photo)


@dataclass(frozen=True)
class Crop:
    """A part of a photo: resized as a whole to (width, height), then cut at (left, top, right, bottom)."""

    resized: tuple[int, int]
    box: tuple[int, int, int, int]

    def __call__(self, image: Image.Image, resampling: Image.Resampling = Image.Resampling.LANCZOS) -> Image.Image:
        return image.resize(self.resized, resampling, reducing_gap=2.0).crop(self.box)


def choose_crop(photo: tuple[int, int], size: int, rng: np.random.Generator | None = None, zoom: float = 1.0) -> Crop:
    """A size x size square of a photo of (width, height): its whole centre, or a random one enlarged up to `zoom`."""
    short = size if rng is None else round(size * rng.uniform(1, zoom))
    width, height = (max(short, round(side * short / min(photo))) for side in photo)
    left, top = (width - size) / 2, (height - size) / 2
    if rng is not None:
        left, top = rng.random() * (width - size), rng.random() * (height - size)
    return Crop((width, height), (int(left), int(top), int(left) + size, int(top) + size))


def collate(items: list[dict]) -> dict[str, Tensor | list]:
    """Stack tensors and numbers, keep captions as lists. Instances become `phrases` and, of all photos, one `masks`:
    on its way from a worker each tensor takes a file of shared memory. `take_instances` makes them again."""
    first, found = items[0], [item["instances"] for item in items]
    batch = {
        key: torch.stack([torch.as_tensor(item[key]) for item in items])
        if isinstance(first[key], (Tensor, int))
        else [item[key] for item in items]
        for key in first.keys() - {"instances"}
    }
    masks = [one.masks for one in found if one is not None]
    batch["masks"] = torch.cat(masks) if masks else torch.zeros(0, 1, 1)  # (phrases of all photos, S, S)
    batch["phrases"] = [one and one.phrases for one in found]
    return batch


def take_instances(batch: dict) -> list[InstanceMasks | None]:
    """The instances of each photo out of a batch that `collate` made, and what they were made of with them."""
    phrases = batch.pop("phrases")
    parts = iter(batch.pop("masks").split([len(own) for own in phrases if own is not None]))
    return [None if own is None else InstanceMasks(own, next(parts)) for own in phrases]
