"""Words to masks through transformers: CLIPSeg, and Grounding DINO's boxes filled in by SAM.

Letters: P phrases with words, Q the detector's queries, T tokens.
"""

from typing import Any

import torch
import torch.nn.functional as F
import transformers
from PIL import Image
from segment_anything.modeling import Sam
from torchvision.ops import batched_nms, box_convert

from lcad.masks.sam import MODEL_TYPES, Builders, box_masks, load_sam
from lcad.masks.types import Provider, ProviderOptions, Regions
from ldm.checkpoint import CheckpointError, listing

CLIPSEG = "CIDAS/clipseg-rd64-refined"
GROUNDING_DINO = "IDEA-Research/grounding-dino-tiny"


def clipseg_provider(options: ProviderOptions) -> Provider:
    """CLIPSeg (Lüddecke and Ecker 2022): a soft region for each phrase; score: its highest probability.

    Raises:
        CheckpointError: not a folder of CLIPSeg, or not to be had from the hub.
    """
    model, processor = _load(transformers.CLIPSegForImageSegmentation, transformers.CLIPSegProcessor, CLIPSEG, options)

    @torch.no_grad()
    def provide(photo: Image.Image, phrases: list[str]) -> Regions:
        wanted = _with_words(phrases)
        if not wanted:
            return _nothing(photo)
        text = processor.tokenizer([phrases[i] for i in wanted], padding=True, truncation=True, return_tensors="pt")
        pixels = processor.image_processor(photo.convert("RGB"), return_tensors="pt").pixel_values
        logits = model(
            **text.to(model.device), pixel_values=pixels.to(model.device).expand(len(wanted), -1, -1, -1)
        ).logits
        logits = logits.reshape(len(wanted), 1, *logits.shape[-2:]).float().cpu()  # one phrase comes without its axis
        masks = F.interpolate(logits, (photo.height, photo.width), mode="bilinear").sigmoid()[:, 0]
        return Regions(masks, [*wanted], masks.amax((1, 2)))

    return provide


def grounding_dino_provider(options: ProviderOptions, builders: Builders = MODEL_TYPES) -> Provider:
    """Grounding DINO (Liu et al. 2023) and SAM: a region for each box; score: the detector's.

    Raises:
        CheckpointError: not a folder of Grounding DINO, not to be had from the hub, or as `load_sam`.
        ValueError: as `load_sam`.
    """
    sam = load_sam(options, builders)
    model, processor = _load(
        transformers.GroundingDinoForObjectDetection, transformers.GroundingDinoProcessor, GROUNDING_DINO, options
    )
    return boxed_regions(model, processor, sam, options.max_regions)


def boxed_regions(model: Any, processor: Any, sam: Sam, max_regions: int = 40, threshold: float = 0.25) -> Provider:
    """As `grounding_dino_provider`, of models that are ready; boxes below `threshold` are left out."""

    @torch.no_grad()
    def provide(photo: Image.Image, phrases: list[str]) -> Regions:
        wanted = _with_words(phrases)
        if not wanted:
            return _nothing(photo)
        text, tokens = _detection_prompt(processor.tokenizer, [phrases[i] for i in wanted], model.config.max_text_len)
        pixels = processor.image_processor(photo.convert("RGB"), return_tensors="pt").to(model.device)
        found = model(**text.to(model.device), **pixels)
        probabilities = found.logits[0].sigmoid().cpu()  # (Q, T)
        per_phrase = torch.stack(
            [probabilities[:, own].amax(1) if own else torch.zeros(len(probabilities)) for own in tokens]
        )
        scores, best = per_phrase.max(0)  # (Q,)
        boxes = box_convert(found.pred_boxes[0].float().cpu(), "cxcywh", "xyxy").clamp(0, 1)
        keep = batched_nms(boxes, scores, best, iou_threshold=0.7)  # best first
        keep = keep[scores[keep] > threshold][:max_regions]
        if not len(keep):
            return _nothing(photo)
        masks = box_masks(sam, photo, boxes[keep])
        keep, masks = keep[filled := masks.any((1, 2))], masks[filled]
        return Regions(masks, [wanted[i] for i in best[keep]], scores[keep])

    return provide


def _detection_prompt(
    tokenizer: Any, words: list[str], max_tokens: int
) -> tuple[transformers.BatchEncoding, list[list[int]]]:
    """Grounding DINO's prompt ("cup. red hat."), and the tokens of each of the words; none beyond its end."""
    words = [" ".join(word.lower().replace(".", " ").split()) for word in words]
    text = tokenizer(
        ". ".join(words) + ".", truncation=True, max_length=max_tokens, return_tensors="pt", return_token_type_ids=True
    )
    tokens, start = [], 0
    for word in words:
        own = {text.char_to_token(i) for i in range(start, start + len(word))} - {None}
        tokens.append(sorted(own))
        start += len(word) + len(". ")
    return text, tokens


def _with_words(phrases: list[str]) -> list[int]:
    return [i for i, phrase in enumerate(phrases) if phrase.strip(" .")]


def _nothing(photo: Image.Image) -> Regions:
    return Regions(torch.zeros(0, photo.height, photo.width), [], torch.zeros(0))


def _load(model: Any, processor: Any, published: str, options: ProviderOptions) -> tuple[Any, Any]:
    """A model, frozen, on its device, and its processor."""
    source = options.text_segmenter or published
    try:
        kind, wanted = model.config_class.get_config_dict(source)[0].get("model_type"), model.config_class.model_type
        if kind != wanted:
            raise ValueError(f"it is a model of type {kind!r}, not {wanted!r}")
        ready = processor.from_pretrained(source)
        loaded, report = model.from_pretrained(source, output_loading_info=True)
    except Exception as error:  # transformers raises many kinds for a damaged, foreign or unreachable model
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise CheckpointError(
            f"{source}: cannot be loaded as {model.__name__} ({reason}); download all files of "
            f"https://huggingface.co/{published} into a folder and give that folder"
        ) from error
    if report["missing_keys"]:  # transformers would go on with random weights
        missing = listing(sorted(report["missing_keys"]), 5)
        raise CheckpointError(f"{source}: not the weights of a {model.__name__}; missing keys: {missing}")
    return loaded.eval().requires_grad_(False).to(options.device), ready
