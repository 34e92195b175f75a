"""Segment Anything (Kirillov et al. 2023) through its own package: regions of a whole photo, and masks of boxes.

Photos are shrunk to the size SAM works at before, and masks enlarged after, so that large photos cost no more memory.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from PIL import Image
from segment_anything import SamAutomaticMaskGenerator, SamPredictor, sam_model_registry
from segment_anything.modeling import Sam
from torch import Tensor

from lcad.defaults import SAM_TYPES
from lcad.io.images import shrink
from lcad.masks.types import Provider, ProviderOptions, Regions, enlarge
from ldm.checkpoint import CheckpointError, build_with_weights, load_state_dict

MODEL_TYPES = {name: sam_model_registry[name] for name in SAM_TYPES}
MIN_AREA = 0.005  # of the photo

Builders = Mapping[str, Callable[[], Sam]]


def sam_provider(options: ProviderOptions, builders: Builders = MODEL_TYPES) -> Provider:
    """Raises: as `load_sam`."""
    return sam_regions(load_sam(options, builders), options.max_regions)


def load_sam(options: ProviderOptions, builders: Builders = MODEL_TYPES) -> Sam:
    """The model of `options.checkpoint`, frozen, float32, on its device.

    Raises:
        ValueError: unknown model type.
        CheckpointError: no checkpoint, not a file of tensors, or not the weights of that model type.
    """
    kinds = ", ".join(builders)
    if options.model_type not in builders:
        raise ValueError(f"unknown SAM model type {options.model_type!r}; allowed: {kinds}")
    if options.checkpoint is None:
        raise CheckpointError(
            "SAM needs its weights: download sam_vit_h_4b8939.pth (or that of another model type) from "
            "https://github.com/facebookresearch/segment-anything and give the file as the checkpoint"
        )
    tensors = load_state_dict(options.checkpoint)
    try:
        sam = build_with_weights(builders[options.model_type], tensors)
    except CheckpointError as error:
        raise CheckpointError(
            f"{options.checkpoint}: not a SAM checkpoint of type {options.model_type} ({error}); "
            f"give the type it was trained as: {kinds}"
        ) from error
    return sam.float().requires_grad_(False).to(options.device)


def sam_regions(sam: Sam, max_regions: int = 40, **settings: Any) -> Provider:
    """Regions for any phrase, from a grid of points; score: SAM's predicted IoU times stability.

    Args:
        max_regions: the best by score are kept.
        settings: of `SamAutomaticMaskGenerator`.
    """
    generator = SamAutomaticMaskGenerator(sam, **settings)

    def provide(photo: Image.Image, phrases: list[str]) -> Regions:
        small = shrink(photo, sam.image_encoder.img_size)
        records = generator.generate(np.asarray(small))
        scored = [
            (float(np.clip(record["predicted_iou"] * record["stability_score"], 0, 1)), record["segmentation"])
            for record in records
            if record["area"] >= MIN_AREA * small.width * small.height
        ]
        scored = sorted(scored, key=lambda item: -item[0])[:max_regions]
        masks = np.array([mask for _, mask in scored], np.float32).reshape(-1, small.height, small.width)
        scores = torch.tensor([score for score, _ in scored], dtype=torch.float32)
        return Regions(enlarge(torch.from_numpy(masks), photo), [None] * len(scored), scores)

    return provide


def box_masks(sam: Sam, photo: Image.Image, boxes: Tensor) -> Tensor:
    """The object in each box.

    Args:
        boxes: (R, 4) left, top, right, bottom, in fractions of the photo's size.

    Returns:
        (R, H, W) float {0, 1} on the CPU.
    """
    small = shrink(photo, sam.image_encoder.img_size)
    predictor = SamPredictor(sam)
    predictor.set_image(np.asarray(small))
    pixels = boxes.to(sam.device) * torch.tensor([small.width, small.height] * 2, device=sam.device)
    pixels = predictor.transform.apply_boxes_torch(pixels, (small.height, small.width))
    masks, _, _ = predictor.predict_torch(None, None, boxes=pixels, multimask_output=False)  # (R, 1, h, w) bool
    return enlarge(masks[:, 0].float().cpu(), photo)


def point_mask(sam: Sam, photo: Image.Image, point: tuple[float, float]) -> Tensor:
    """The object at a point (x, y) in photo pixels: of SAM's three answers the one it is surest of -> (H, W) {0, 1}."""
    small = shrink(photo, sam.image_encoder.img_size)
    predictor = SamPredictor(sam)
    predictor.set_image(np.asarray(small))
    place = np.array([[point[0] * small.width / photo.width, point[1] * small.height / photo.height]])
    masks, scores, _ = predictor.predict(place, np.ones(1, int), multimask_output=True)  # (3, h, w) bool
    best = torch.from_numpy(masks[int(scores.argmax())]).float()
    return enlarge(best[None], photo)[0]
