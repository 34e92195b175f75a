"""Which region belongs to which phrase: attention scores every pair, and all are assigned together.

Shapes: P phrases, R regions, H x W the photo's size, h x w the size of the attention maps.
"""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from lcad.masks.types import Regions

WEAK = 0.1  # a phrase whose best score is below this gets no region
OVERLAP = 0.7  # two phrases do not share a region: at most this share of the smaller lies in the larger
EARLIER = 0.05  # of two phrases that fit a region alike it is the first's: later scores count for up to so much less
UNITED = 1.3  # a union of regions is taken if its expected IoU is so many times the best region's


@dataclass(frozen=True)
class Match:
    """The region of one phrase.

    Attributes:
        region: index of the region, None if no score is good enough.
        score: the best pair's, at most about 1.
    """

    region: int | None
    score: float


def score_regions(attention: Tensor, regions: Regions) -> np.ndarray:
    """Scores (P, R): the expected IoU of each region and each phrase's object.

    Args:
        attention: (P, h, w), the probability that a place is the object's, see `phrase_attention`.

    Regions made for another phrase score -1.
    """
    cells = in_cells(regions.masks, attention)
    scores = expected_iou(attention.flatten(1), cells).numpy()
    for r, owner in enumerate(regions.phrases):
        if owner is not None:
            scores[:, r] = np.where(np.arange(len(scores)) == owner, scores[:, r], -1.0)
    return scores


def assign(scores: np.ndarray, regions: Regions) -> list[Match]:
    """One region for each phrase, or none, so that the sum of scores is greatest and no two overlap.

    Where two chosen regions overlap, the one with the lower score is given up and all are assigned again; of scores
    that are as good as equal, that of the later phrase (`EARLIER`).
    """
    if 0 in scores.shape:
        return [Match(None, 0.0)] * len(scores)
    masks = regions.masks.flatten(1)
    areas = masks.sum(1)
    shared = (masks @ masks.T / torch.minimum(areas[:, None], areas).clamp_min(1e-6)).numpy()
    allowed = scores * (1 - EARLIER * np.arange(len(scores))[:, None] / len(scores))
    while True:
        chosen = {p: r for p, r in best_pairs(allowed.clip(0)) if allowed[p, r] > 0 and scores[p, r] >= WEAK}
        ranked = sorted(chosen, key=lambda p: -allowed[p, chosen[p]])
        clash = next(
            (q for i, q in enumerate(ranked) for p in ranked[:i] if shared[chosen[p], chosen[q]] > OVERLAP), None
        )
        if clash is None:
            return [
                Match(chosen.get(p), float(scores[p, chosen[p]] if p in chosen else scores[p].max()))
                for p in range(len(scores))
            ]
        allowed[clash, chosen[clash]] = -1.0


def best_pairs(scores: np.ndarray) -> list[tuple[int, int]]:
    """(phrase, region) pairs, each in one pair at most, with the greatest sum of scores."""
    return list(zip(*(index.tolist() for index in linear_sum_assignment(scores, maximize=True)), strict=True))


def unite(attention: Tensor, regions: Regions) -> Regions:
    """`regions`, and for each phrase the union of some that its word attends to better than to any one of them.

    Regions are added one by one, as long as the expected IoU grows; the union counts if it is `UNITED` times the best
    region's. The provider's score of a union is the mean of its parts'.
    """
    cells = in_cells(regions.masks, attention)
    unions: list[tuple[Tensor, int, float]] = []
    for p, inside in enumerate(attention.flatten(1)):
        allowed = _allowed(regions, p)
        parts: list[int] = []
        best, first, union = 0.0, 0.0, torch.zeros_like(inside)
        while len(parts) < len(cells):
            grown = torch.maximum(cells, union)
            gains = expected_iou(inside[None], grown)[0].where(allowed, -1)
            if gains.max() <= best + 1e-4:
                break
            best, part = gains.max().item(), int(gains.argmax())
            first = first or best
            parts.append(part)
            union = grown[part]
        if best > UNITED * first:
            unions.append((regions.masks[parts].amax(0), p, regions.scores[parts].mean().item()))
    return _with(regions, unions)


def outline(attention: Tensor, regions: Regions) -> Regions:
    """`regions`, and for each phrase that none of them fits the place its word attends to, edges or none.

    That is as many of the most attended cells as have the greatest expected IoU. It counts if that is `UNITED` times
    the best region's; the provider's score of it is 0.
    """
    outlines: list[tuple[Tensor, int, float]] = []
    fits = expected_iou(attention.flatten(1), in_cells(regions.masks, attention))  # (P, R)
    for p, inside in enumerate(attention):
        ranked = inside.flatten().sort(descending=True).values
        shared, number = ranked.cumsum(0), torch.arange(1, len(ranked) + 1)
        best, last = (shared / (shared[-1] + number - shared).clamp_min(1e-6)).max(0)
        if best > UNITED * max(fits[p, _allowed(regions, p)].tolist(), default=0):
            cells = (inside >= ranked[last]).float()[None, None]
            full = F.interpolate(cells, regions.masks.shape[-2:], mode="bilinear")[0, 0]
            outlines.append(((full >= 0.5).float(), p, 0.0))
    return _with(regions, outlines)


def expected_iou(inside: Tensor, regions: Tensor) -> Tensor:
    """Of objects (P, Q), for each place the probability that it is the object's, and regions (R, Q) -> (P, R)."""
    shared = inside @ regions.T
    return shared / (inside.sum(1, keepdim=True) + regions.sum(1) - shared).clamp_min(1e-6)


def in_cells(masks: Tensor, attention: Tensor) -> Tensor:
    """Masks (R, H, W) at the size of attention maps -> (R, h w)."""
    return F.interpolate(masks[None], attention.shape[-2:], mode="area")[0].flatten(1)


def _allowed(regions: Regions, phrase: int) -> Tensor:
    """Which regions may be a phrase's: those made for it or for any, (R,) bool."""
    return torch.tensor([owner in (None, phrase) for owner in regions.phrases], dtype=torch.bool)


def _with(regions: Regions, added: list[tuple[Tensor, int, float]]) -> Regions:
    """`regions` and more of them: (mask (H, W), the phrase it was made for, the provider's score) each."""
    if not added:  # candidates of a large photo need not be copied
        return regions
    masks, owners, scores = zip(*added, strict=True)
    return Regions(
        torch.cat([regions.masks, torch.stack(masks)]),
        [*regions.phrases, *owners],
        torch.cat([regions.scores, torch.tensor(scores)]),
    )
