"""Instance masks in COCO's formats: polygons and run lengths, through pycocotools.

Expected JSON: {"categories": {id: name}, "instances": {file name: [{"segmentation": polygons or RLE,
"category_id": id, "iscrowd": 0 | 1}, ...]}}, in pixels of the original photo, x right, y down.
"""

import json
from collections import defaultdict
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from lcad.masks.files import MaskError

Segmentation = list[list[float]] | dict


def read_instances(path: Path) -> dict[str, list[tuple[str, Segmentation]]]:
    """The instances of each photo: file name -> (category, segmentation) of each; crowds are left out.

    Raises:
        MaskError: missing or malformed.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
        names = {int(key): str(name) for key, name in content["categories"].items()}
        found = defaultdict(list)
        for photo, instances in content["instances"].items():
            for instance in instances:
                if not instance["iscrowd"]:
                    found[photo].append((names[instance["category_id"]], instance["segmentation"]))
        return dict(found)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise MaskError(f"{path}: not a file of instances ({error!r}); see lcad/masks/coco.py") from error


def segmentation_mask(segmentation: Segmentation, size: tuple[int, int]) -> Tensor:
    """Decode one segmentation of a photo of `size` (H, W) -> (H, W) float {0, 1}.

    Raises:
        MaskError: malformed, or of a photo of another size.
    """
    from pycocotools import mask as coco  # of the extra `masks`

    try:
        compressed = isinstance(segmentation, dict) and isinstance(segmentation["counts"], str)
        encoded = segmentation if compressed else coco.frPyObjects(segmentation, *size)
        mask = coco.decode(coco.merge(encoded) if isinstance(encoded, list) else encoded)
    except Exception as error:  # pycocotools raises many kinds, bare Exception among them
        raise MaskError(f"not a COCO segmentation ({error!r}); expected polygons or run lengths") from error
    if mask.shape != size:
        raise MaskError(f"a segmentation of {mask.shape[::-1]} for a photo of {size[::-1]} pixels")
    return torch.from_numpy(np.ascontiguousarray(mask)).float()
