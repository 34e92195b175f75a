"""Where the objects of exact colours are: words of the caption, points and masks -> one mask for each.

Shapes: H x W the photo's size; N objects that were found.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import CLIPTokenizer

from lcad.io.prepared_photo import PreparedPhoto
from lcad.masks.from_text import match_phrases
from lcad.masks.providers import best_provider
from lcad.masks.superpixels import luminance_regions
from lcad.masks.types import InstanceMasks, ProviderOptions
from lcad.recoloring.exact_colors import ColorTarget
from lcad.text.phrases import Phrase, find_phrases, span_phrases

if TYPE_CHECKING:
    from lcad.pipeline import LCADPipeline

AT_POINT = (0.005, 0.3)  # of the photo, the least and the most that a point without SAM is taken for
SAME_SHAPE = 0.02  # difference of aspect ratios up to which a mask is of the photo's shape


@dataclass(frozen=True)
class FoundObjects:
    """The objects of colour targets that were found in a photo, larger ones first: the smaller lie in front.

    Attributes:
        targets: of each.
        masks: (N, H, W) in [0, 1], of the photo's shape, and of its size at most.
        notes: a line for each target that was not found.
    """

    targets: list[ColorTarget]
    masks: Tensor
    notes: list[str]

    @property
    def colors(self) -> list[tuple[float, float, float]]:
        return [target.color for target in self.targets]

    @property
    def names(self) -> list[str]:
        return [target.name for target in self.targets]


ObjectFinder = Callable[[Sequence[ColorTarget], PreparedPhoto, str, InstanceMasks | None], FoundObjects]
"""(targets, the photo, its caption, masks that are known already) -> the targets' objects"""


def build_object_finder(pipeline: "LCADPipeline", options: ProviderOptions | None = None) -> ObjectFinder:
    """Words by the pipeline's attention among the regions of the best provider whose weights are given, points by SAM
    if its weights are given, else by regions of the luminance.

    Raises (when first needed):
        CheckpointError, ValueError: see the providers.
    """
    options = options or ProviderOptions()
    provider, localized = cache(lambda: best_provider(options)), cache(pipeline.with_localizer)

    @cache
    def at_point() -> Callable[[PreparedPhoto, tuple[int, int]], Tensor]:
        if options.checkpoint is None:
            return region_at
        from lcad.masks.sam import load_sam, point_mask  # slow to import

        sam = load_sam(options)
        return lambda photo, point: point_mask(
            sam, photo.image, (point[0] * photo.image.width / photo.width, point[1] * photo.image.height / photo.height)
        )

    def find(
        targets: Sequence[ColorTarget], photo: PreparedPhoto, caption: str, instances: InstanceMasks | None = None
    ) -> FoundObjects:
        words = [target.where for target in targets if isinstance(target.where, str)]
        by_word = dict(zip(words, of_words(words, photo, caption, instances), strict=True))
        found = []
        for where in (target.where for target in targets):
            if isinstance(where, str):
                found.append(by_word[where])
            else:
                found.append(_given(where, photo) if isinstance(where, Tensor) else _at(where, photo, at_point))
        return _found(targets, found)

    def of_words(
        words: list[str], photo: PreparedPhoto, caption: str, instances: InstanceMasks | None
    ) -> list[Tensor | str]:
        wanted = [phrases_of_word(word, caption, pipeline.tokenizer) for word in words]
        known = [] if instances is None else list(zip(instances.phrases, instances.masks, strict=True))
        missing = [phrase for own in wanted if not _known(own, known) for phrase in own]
        if missing:
            others = find_phrases(caption, pipeline.tokenizer)  # they are not to lose their regions to these
            together = {phrase.object_span: phrase for phrase in [*others, *missing]}
            looked = match_phrases(localized(), provider(), photo, caption, list(together.values())).instances
            known += zip(looked.phrases, looked.masks, strict=True)
        masks = []
        for word, own in zip(words, wanted, strict=True):
            parts = _known(own, known)
            why = f"no region for {word!r} in the photo; give a point (@x,y=...) or a mask"
            masks.append(_united(parts) if parts else why if own else f"no {word!r} in the caption {caption!r}")
        return masks

    return find


def phrases_of_word(word: str, caption: str, tokenizer: CLIPTokenizer) -> list[Phrase]:
    """The phrases of a caption that a word, or a phrase that ends with its object, means; none if it is not there.

    A word that is there several times ("a red cup and a blue cup") means all of them, "the red cup" one.
    """
    plain = " ".join(word.lower().split())
    known, phrases = find_phrases(caption, tokenizer), []
    for match in re.finditer(rf"\b{re.escape(plain)}(?:e?s)?\b", caption, re.IGNORECASE):
        last = match.end() - len(match.group().split()[-1]), match.end()
        same = [phrase for phrase in known if phrase.object_span[0] <= last[0] < phrase.object_span[1]]
        if not same:
            same = [
                replace(phrase, object=caption[slice(*last)], object_span=last, object_tokens=phrase.tokens)
                for phrase in span_phrases(caption, [last], tokenizer)
                if any(phrase.tokens)
            ]
        phrases += same
    return phrases


def region_at(photo: PreparedPhoto, point: tuple[int, int]) -> Tensor:
    """The region of the luminance at a point (x, y) in photo pixels -> (h, w) {0, 1}, smaller than the photo.

    Of the regions that hold the point, the one that resists longest being merged into a larger one, but for those that
    are larger or smaller than `AT_POINT`.
    """
    regions = luminance_regions(photo.image, [], max_regions=200)
    height, width = regions.masks.shape[-2:]
    x, y = int(point[0] * width / photo.width), int(point[1] * height / photo.height)
    here = [mask for mask in regions.masks if mask[y, x] > 0]
    fitting = [mask for mask in here if AT_POINT[0] <= mask.mean() <= AT_POINT[1]]
    if fitting or here:
        return (fitting or here)[0]
    return torch.ones(height, width)  # a photo of one luminance


def _given(mask: Tensor, photo: PreparedPhoto) -> Tensor | str:
    height, width = mask.shape
    if abs(height / width * photo.width / photo.height - 1) > SAME_SHAPE:
        return (
            f"the mask is {width}x{height}, the photo {photo.width}x{photo.height}; save the mask at the photo's size"
        )
    return mask.float()


def _at(point: tuple[int, int], photo: PreparedPhoto, finder: Callable) -> Tensor | str:
    if not (0 <= point[0] < photo.width and 0 <= point[1] < photo.height):
        return f"the photo is {photo.width}x{photo.height} pixels; give a point x,y inside it, from 0,0 at the top left"
    return finder()(photo, point)


def _known(wanted: list[Phrase], known: list[tuple[Phrase, Tensor]]) -> list[Tensor]:
    """The masks whose phrase has one of these objects; phrases without an object must end with it."""
    spans = {phrase.object_span for phrase in wanted}
    return [
        mask
        for phrase, mask in known
        if mask.any()
        and (phrase.object_span in spans or not phrase.object and phrase.characters[1] in {end for _, end in spans})
    ]


def _united(masks: list[Tensor]) -> Tensor:
    return torch.stack(_of_one_size(masks)).amax(0)


def _found(targets: Sequence[ColorTarget], found: list[Tensor | str]) -> FoundObjects:
    notes = [f"{t.text}: {why}" for t, why in zip(targets, found, strict=True) if isinstance(why, str)]
    pairs = [(t, mask) for t, mask in zip(targets, found, strict=True) if isinstance(mask, Tensor)]
    pairs.sort(key=lambda pair: -float(pair[1].mean()))
    if not pairs:
        return FoundObjects([], torch.zeros(0, 1, 1), notes)
    return FoundObjects([t for t, _ in pairs], torch.stack(_of_one_size([mask for _, mask in pairs])), notes)


def _of_one_size(masks: Sequence[Tensor]) -> list[Tensor]:
    """Masks (H, W), each of its own size -> all of the size of the largest."""
    height, width = max((mask.shape for mask in masks), key=lambda shape: shape[0] * shape[1])
    return [_resized(mask, (height, width)) for mask in masks]


def _resized(mask: Tensor, size: tuple[int, int]) -> Tensor:
    if tuple(mask.shape) == size:
        return mask.float()
    return F.interpolate(mask[None, None].float(), size, mode="bilinear", align_corners=False)[0, 0]
