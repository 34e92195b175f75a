"""Instance masks for a photo and its caption: from files, or from regions that the model's attention picks.

Shapes: P phrases with a mask, H x W the masks' size.
"""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor
from transformers import CLIPTokenizer

from lcad.io.images import atomic_write
from lcad.io.prepared_photo import PreparedPhoto
from lcad.masks.attention import phrase_attention
from lcad.masks.files import read_masks, read_spans
from lcad.masks.matching import WEAK, Match, assign, outline, score_regions, unite
from lcad.masks.superpixels import luminance_regions
from lcad.masks.types import InstanceMasks, Provider
from lcad.text.phrases import Phrase, comma_phrases, find_phrases, span_phrases
from lcad.text.reading import not_understood

if TYPE_CHECKING:
    from lcad.pipeline import LCADPipeline

ATTENDED = 0.15  # of a word's strongest attention: where it is weaker, a region is not its object's


@dataclass(frozen=True)
class FoundMasks:
    """What was found for one photo.

    Attributes:
        instances: phrases with their masks (P, H, W), for the pipeline; of the photo's shape, and of its size at most.
        scores: how sure each is; empty for masks from files.
        phrases: all phrases of the caption, with a mask or without; empty for masks from files.
        attention: a map (h, w) for each of them.
        notes: one line for each phrase without a mask, and for what was not understood.
    """

    instances: InstanceMasks
    scores: list[float] = field(default_factory=list)
    phrases: list[Phrase] = field(default_factory=list)
    attention: list[Tensor] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def some_masks(found: FoundMasks | None) -> InstanceMasks | None:
    """What was found, for the pipeline; None: no phrase has a mask."""
    return found.instances if found is not None and found.instances.phrases else None


MaskFinder = Callable[[Path, PreparedPhoto, str], FoundMasks | None]
"""(file, the photo in it, caption) -> masks; None if there are none."""


def build_file_finder(folder: Path, tokenizer: CLIPTokenizer) -> MaskFinder:
    """Masks from files, see `lcad.masks.files`; raises its MaskError."""

    def find(path: Path, photo: PreparedPhoto, caption: str) -> FoundMasks | None:
        spans = read_spans(folder, path, caption)
        phrases = comma_phrases(caption, tokenizer) if spans is None else span_phrases(caption, spans, tokenizer)
        masks = read_masks(folder, path, (photo.height, photo.width), len(phrases))
        if masks is None:
            return None
        used = [i for i, mask in enumerate(masks) if mask.any() and any(phrases[i].tokens)]
        lost = [
            phrase.text for phrase, mask in zip(phrases, masks, strict=True) if mask.any() and not any(phrase.tokens)
        ]
        notes = [f"the mask of {text!r} is not used: CLIP does not read that far" for text in lost]
        return FoundMasks(InstanceMasks([phrases[i] for i in used], masks[used]), notes=notes)

    return find


def kept_masks(find: MaskFinder, folder: Path, tokenizer: CLIPTokenizer, model: str) -> MaskFinder:
    """What `find` finds, found once and kept in `folder`, also from one run to the next.

    Kept are phrases and masks, in a file for each photo and caption; those of no object are found again.

    Args:
        model: whatever tells apart the weights that look, such as their hash.
    """

    def kept(path: Path, photo: PreparedPhoto, caption: str) -> FoundMasks | None:
        asked = f"{model} {path.name} {photo.width}x{photo.height} {caption}"
        file = folder / f"{hashlib.sha256(asked.encode() + photo.image.tobytes()).hexdigest()[:16]}.safetensors"
        read = _read_kept(file, caption, tokenizer)
        if read is None:
            found = find(path, photo, caption)
            instances = some_masks(found)
            if instances is None:
                return found
            spans = json.dumps([phrase.characters for phrase in instances.phrases])
            folder.mkdir(parents=True, exist_ok=True)
            with atomic_write(file) as out:
                out.write(save({"masks": instances.masks.contiguous()}, {"spans": spans}))
            read = _read_kept(file, caption, tokenizer)
        return read

    return kept


def _read_kept(file: Path, caption: str, tokenizer: CLIPTokenizer) -> FoundMasks | None:
    """None: it is not there, or damaged."""
    try:
        with safe_open(file, "pt") as content:
            spans = [(start, end) for start, end in json.loads(content.metadata()["spans"])]
            return FoundMasks(InstanceMasks(span_phrases(caption, spans, tokenizer), content.get_tensor("masks")))
    except (OSError, SafetensorError, TypeError, KeyError, ValueError):
        return None


def build_region_finder(pipeline: "LCADPipeline", provider: Provider) -> MaskFinder:
    """Regions of a mask provider, each given to the phrase whose object word attends to it; masks are of their size."""

    def find(_path: Path, photo: PreparedPhoto, caption: str) -> FoundMasks:
        phrases, unclear = find_phrases(caption, pipeline.tokenizer), not_understood(caption)
        found = match_phrases(pipeline, provider, photo, caption, phrases)
        return replace(found, notes=found.notes + unclear)

    return find


def masks_from_captions(
    pipeline: "LCADPipeline", photos: list[PreparedPhoto], captions: list[str]
) -> list[InstanceMasks | None]:
    """What `build_region_finder` finds in photos; None: nothing."""
    find = build_region_finder(pipeline, luminance_regions)
    return [some_masks(find(Path(), photo, caption)) for photo, caption in zip(photos, captions, strict=True)]


def match_phrases(
    pipeline: "LCADPipeline", provider: Provider, photo: PreparedPhoto, caption: str, phrases: list[Phrase]
) -> FoundMasks:
    """The regions of these phrases of a caption, as `build_region_finder` finds them."""
    if not phrases:
        return FoundMasks(InstanceMasks([], torch.zeros(0, 1, 1)))
    regions = provider(photo.image, [phrase.object for phrase in phrases])
    attention = phrase_attention(pipeline, photo, caption, phrases)
    regions = outline(attention, unite(attention, regions))
    matches = assign(score_regions(attention, regions), regions)
    used = [i for i, match in enumerate(matches) if match.region is not None]
    masks = regions.masks[[matches[i].region for i in used]] * _attended(attention[used], regions.masks.shape[-2:])
    return FoundMasks(
        InstanceMasks([phrases[i] for i in used], masks),
        [matches[i].score for i in used],
        phrases,
        list(attention),
        [
            f"no region for {phrase.text!r} ({_reason(match, len(regions.phrases))})"
            for phrase, match in zip(phrases, matches, strict=True)
            if match.region is None
        ],
    )


def _attended(attention: Tensor, size: Sequence[int]) -> Tensor:
    """Where each phrase's word attends at all: maps (P, h, w) -> (P, *size) in {0, 1}."""
    enlarged = F.interpolate(attention[:, None], tuple(size), mode="bilinear")[:, 0]
    return (enlarged > ATTENDED * enlarged.amax((1, 2), keepdim=True)).float()


def _reason(match: Match, regions: int) -> str:
    """Why a phrase has none."""
    if match.score >= WEAK:
        return f"what fits it, score {match.score:.2f}, has gone to another phrase"
    return f"best score {match.score:.2f} of {regions} regions, below {WEAK}"
