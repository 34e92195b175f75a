"""Found masks against labelled ones: the overlap with an object's true instances, beside two baselines.

Masks (H, W) in {0, 1} of a photo's own size.
"""

from collections.abc import Callable, Iterable
from pathlib import Path

import torch
from torch import Tensor

from lcad.io.images import read_image
from lcad.io.prepared_photo import PreparedPhoto
from lcad.masks.from_text import MaskFinder
from lcad.masks.labelled import Labels, same_object
from lcad.masks.types import enlarge

CENTER = 0.5  # of each side: the box in the middle of the photo


def iou(a: Tensor, b: Tensor) -> float:
    """Intersection over union of two masks; above 0.5 is inside."""
    a, b = a > 0.5, b > 0.5
    return ((a & b).sum() / (a | b).sum().clamp_min(1)).item()


def score_masks(
    find_masks: MaskFinder,
    photos: list[Path],
    captions: dict[str, list[str]],
    labels: Labels,
    progress: Callable[[Iterable], Iterable] = iter,
) -> list[dict]:
    """One row for each phrase whose object word is a labelled category of its photo.

    Rows: name, phrase, found (did it get a mask), and the IoU with the union of that category's instances of the mask
    (0 without one), of the whole photo, and of the box in its middle.
    """
    rows = []
    for photo in progress([photo for photo in photos if captions.get(photo.name)]):
        image, caption = read_image(photo), captions[photo.name][0]
        size = image.height, image.width
        labelled = labels(photo, size)
        found = find_masks(photo, PreparedPhoto.of(image), caption) if labelled else None
        if found is None:
            continue
        own_size = enlarge(found.instances.masks, image)
        masks = dict(zip((p.characters for p in found.instances.phrases), own_size, strict=True))
        for phrase in found.phrases:
            own = [mask for name, mask in labelled if same_object(phrase.object, name)]
            if own:
                truth = torch.stack(own).amax(0)
                mask = masks.get(phrase.characters)
                row = {"name": photo.name, "phrase": phrase.text, "found": int(mask is not None)}
                row |= {"iou": 0.0 if mask is None else iou(mask, truth)}
                rows.append(row | {"whole": iou(torch.ones(size), truth), "center": iou(_center_box(size), truth)})
    return rows


def _center_box(size: tuple[int, int]) -> Tensor:
    box = torch.zeros(size)
    top, left = (round(side * (1 - CENTER) / 2) for side in size)
    box[top : size[0] - top, left : size[1] - left] = 1
    return box
