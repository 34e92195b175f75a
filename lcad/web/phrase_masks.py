"""The phrases of a caption with their regions on one photo, as they were found and as they are corrected by hand.

Shapes: P phrases, R candidate regions; points are (x, y) in [0, 1] of the photo's width and height. Masks are float in
[0, 1] of the photo's shape, of whatever size they were found or painted at.
"""

from collections.abc import Callable
from functools import cached_property

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from lcad.masks.from_text import FoundMasks
from lcad.masks.overlay import outlined
from lcad.masks.types import InstanceMasks, Regions
from lcad.text.phrases import Phrase

Point = tuple[float, float]
SAME_PLACE = 0.02  # of a side: a second click this near asks for the next larger region


class PhraseMasks:
    """Which region each phrase has. Methods raise ValueError with one line for what a visitor can cause.

    Args:
        found: what was found for the caption; None: nothing.
        propose: finds the candidate regions of the photo, when they are first needed.

    Attributes:
        masks, scores: of each phrase; None where it has none, and where the region was given by hand.
        changes: how often a region was changed by hand.
    """

    def __init__(self, phrases: list[Phrase], found: FoundMasks | None, propose: Callable[[], Regions]):
        self.phrases, self._found, self._propose = phrases, found, propose
        self.masks: list[Tensor | None] = [None] * len(phrases)
        self.scores: list[float | None] = [None] * len(phrases)
        self.changes = 0
        self._clicked: tuple[int, Point, int] | None = None  # phrase, place, rank among the regions there
        self._stepped: dict[int, int] = {}  # phrase -> region
        if found is not None:
            own = found.instances
            for phrase, mask, score in zip(own.phrases, own.masks, found.scores, strict=True):
                number = phrases.index(phrase)
                self.masks[number], self.scores[number] = mask, score

    @cached_property
    def regions(self) -> Tensor:
        """Candidate regions (R, h, w)."""
        return self._propose().masks

    def check(self, number: int | None) -> int:
        """Raises ValueError: the caption has no such phrase."""
        if number is None or not 0 <= number < len(self.phrases):
            raise ValueError("choose a phrase first; phrases are objects that the caption gives a colour or a place")
        return number

    def number_of(self, words: str) -> int:
        """The phrase that words name: its object ("coat"), or all of it; raises ValueError: none, or several."""
        wanted = " ".join(words.lower().split())
        named = [k for k, phrase in enumerate(self.phrases) if wanted in (phrase.object.lower(), phrase.text.lower())]
        if len(named) != 1:
            allowed = ", ".join(repr(phrase.text) for phrase in self.phrases) or "none"
            raise ValueError(f"{words!r} names {len(named)} objects of the caption; allowed: {allowed}")
        return named[0]

    def click(self, number: int | None, point: Point) -> None:
        """Give the region at a point to a phrase: the smallest, at each further click there the next larger.

        Raises:
            ValueError: no such phrase, or no region there.
        """
        number = self.check(number)
        there = regions_at(self.regions, point)
        if not there:
            raise ValueError("there is no region at this place; paint one, or click beside it")
        last, rank = self._clicked, 0
        if last is not None and last[0] == number and _near(last[1], point):
            rank = (last[2] + 1) % len(there)
        self._clicked = (number, point, rank)
        self._set(number, self.regions[there[rank]])

    def step(self, number: int | None, by: int = 1) -> None:
        """Give a phrase the next of all candidate regions, or with -1 the one before: a click without a mouse.

        Raises:
            ValueError: no such phrase, or a photo without regions.
        """
        number = self.check(number)
        if not len(self.regions):
            raise ValueError("the photo has no regions to choose from; paint one")
        start = self._stepped.get(number, -1 if by > 0 else 0)
        self._stepped[number] = (start + by) % len(self.regions)
        self._set(number, self.regions[self._stepped[number]])

    def paint(self, number: int | None, stroke: Tensor, erase: bool = False) -> None:
        """Add what is painted, (h, w) in {0, 1}, to a phrase's region, or take it away.

        Raises:
            ValueError: no such phrase, or nothing painted.
        """
        number = self.check(number)
        if not stroke.any():
            raise ValueError("nothing is painted yet; draw on the picture first")
        mask, size = self.masks[number], (stroke.shape[0], stroke.shape[1])
        base = torch.zeros(size) if mask is None else resized(mask, size)
        self._set(number, base * (1 - stroke) if erase else torch.maximum(base, stroke))

    def clear(self, number: int | None) -> None:
        """Take a phrase's region away: where its colour goes is left to the model."""
        self._set(self.check(number), None)

    def has_region(self, number: int) -> bool:
        mask = self.masks[number]
        return mask is not None and bool(mask.any())

    def found(self) -> FoundMasks | None:
        """The masks as they are now, for the pipeline and the record; None: there are none."""
        used = [k for k in range(len(self.phrases)) if self.has_region(k)]
        if not used or not self.changes:
            return self._found if used else None
        scores = [1.0 if score is None else score for score in (self.scores[k] for k in used)]
        instances = InstanceMasks([self.phrases[k] for k in used], self.stacked(used))
        return FoundMasks(instances, scores, list(self.phrases))

    def stacked(self, numbers: list[int]) -> Tensor:
        """The masks of some phrases that have one, (len(numbers), h, w), at the size of the largest."""
        masks = [mask for mask in (self.masks[k] for k in numbers) if mask is not None]
        height, width = max((mask.shape for mask in masks), key=lambda shape: shape[0] * shape[1])
        return torch.stack([resized(mask, (height, width)) for mask in masks])

    def drawn_on(self, photo: Image.Image) -> Image.Image:
        """The photo with each region's outline in the phrase's own colour, see `lcad.masks.overlay.OUTLINES`."""
        if not self.phrases:
            return photo.convert("RGB")
        size = photo.height, photo.width
        masks = [torch.zeros(size) if mask is None else resized(mask, size) for mask in self.masks]
        return outlined(photo, FoundMasks(InstanceMasks(self.phrases, torch.stack(masks))))

    def _set(self, number: int, mask: Tensor | None) -> None:
        self.masks[number], self.scores[number] = mask, None
        self.changes += 1


def regions_at(regions: Tensor, point: Point) -> list[int]:
    """The regions (R, h, w) that a point lies in, the smallest first."""
    height, width = regions.shape[-2:]
    x, y = (min(side - 1, max(0, int(part * side))) for part, side in zip(point, (width, height), strict=True))
    areas = regions.flatten(1).sum(1)
    return sorted((k for k in range(len(regions)) if regions[k, y, x] > 0.5), key=lambda k: float(areas[k]))


def resized(mask: Tensor, size: tuple[int, int]) -> Tensor:
    """(h, w) -> `size`; hard edges stay hard."""
    return mask if tuple(mask.shape) == size else F.interpolate(mask[None, None], size, mode="nearest-exact")[0, 0]


def _near(one: Point, other: Point) -> bool:
    return all(abs(a - b) < SAME_PLACE for a, b in zip(one, other, strict=True))
