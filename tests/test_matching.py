"""Which region belongs to which phrase: closed cases for scores, positions, overlaps and weak matches."""

import numpy as np
import pytest
import torch

from lcad.masks.matching import UNITED, assign, outline, score_regions, unite
from lcad.masks.types import Regions
from lcad.text.phrases import Phrase

SIDE = 16


def block(top: int, left: int, height: int = 4, width: int = 4) -> torch.Tensor:
    mask = torch.zeros(SIDE, SIDE)
    mask[top : top + height, left : left + width] = 1
    return mask


def regions(*masks: torch.Tensor, phrases: list | None = None) -> Regions:
    return Regions(torch.stack(masks), phrases or [None] * len(masks), torch.ones(len(masks)))


def phrase(position: str | None = None) -> Phrase:
    return Phrase("the cup", (0, 7), (1, 3), object="cup", position=position)


LEFT, RIGHT = block(6, 1), block(6, 11)


def test_a_region_that_is_what_is_attended_to_scores_one():
    both = torch.maximum(LEFT, RIGHT)
    candidates = regions(LEFT, RIGHT, both, block(6, 1, 4, 2))
    assert score_regions(LEFT[None], candidates, [phrase()])[0].tolist() == pytest.approx([1, 0, 0.5, 0.5])
    half = score_regions(LEFT[None] / 2, candidates, [phrase()])[0]
    assert half.tolist() == pytest.approx([0.5, 0, 8 / 32, 4 / 12]), "half as sure"


def test_position_words_break_ties():
    attention = torch.maximum(LEFT, RIGHT).expand(2, -1, -1)
    found = regions(LEFT, RIGHT)
    for positions, expected in ((("left", "right"), [0, 1]), (("right", "left"), [1, 0])):
        scores = score_regions(attention, found, [phrase(position) for position in positions])
        assert [match.region for match in assign(scores, found)] == expected
    top, bottom = block(1, 6), block(11, 6)
    scores = score_regions(torch.zeros(1, SIDE, SIDE), regions(top, bottom), [phrase("bottom")])
    assert scores[0, 1] > 0 > scores[0, 0], "attention without preference leaves it to the position"
    scores = score_regions(torch.ones(1, SIDE, SIDE), regions(LEFT, block(6, 6)), [phrase("middle")])
    assert scores[0].argmax() == 1


def test_phrases_are_assigned_together():
    """Both like region 0 best; the second loses less by taking the other."""
    found = regions(LEFT, RIGHT)
    assert [match.region for match in assign(np.array([[0.9, 0.3], [0.8, 0.7]]), found)] == [0, 1]


def test_nested_regions_do_not_go_to_two_phrases():
    whole, part, other = block(2, 1, 12, 6), block(6, 2), RIGHT
    scores = np.array([[0.9, 0.5, 0.1], [0.6, 0.8, 0.4]])
    assert [match.region for match in assign(scores, regions(whole, part, other))] == [0, 2]


def test_weak_matches_and_foreign_regions_give_none():
    found = regions(LEFT, RIGHT, phrases=[1, 0])
    scores = score_regions(torch.stack([LEFT, LEFT]), found, [phrase(), phrase()])
    matches = assign(scores, found)
    assert [match.region for match in matches] == [None, 0], "region 0 was made for phrase 1"
    assert matches[0].score < 0.1
    nothing = Regions(torch.zeros(0, SIDE, SIDE), [], torch.zeros(0))
    scores = score_regions(torch.stack([LEFT, LEFT]), nothing, [phrase(), phrase()])
    assert [match.region for match in assign(scores, nothing)] == [None, None]


def test_regions_are_united_where_attention_is_on_all_of_them():
    far = block(1, 11)
    found = regions(LEFT, RIGHT, far, phrases=[None, None, 1])
    attention = torch.stack([torch.maximum(LEFT, RIGHT), LEFT])
    united = unite(attention, found)
    assert united.phrases == [None, None, 1, 0], "one region is enough for phrase 1"
    assert torch.equal(united.masks[3], torch.maximum(LEFT, RIGHT))
    scores = score_regions(attention, united, [phrase(), phrase()])
    assert [match.region for match in assign(scores, united)] == [3, None]
    little = torch.maximum(LEFT, block(6, 11, 4, 1))  # a quarter more is less than UNITED
    assert UNITED > 1.25 and len(unite(little[None], regions(LEFT, block(6, 11, 4, 1))).masks) == 2
    nothing = Regions(torch.zeros(0, SIDE, SIDE), [], torch.zeros(0))
    assert len(unite(attention, nothing).masks) == 0


def test_what_no_region_fits_is_outlined_by_attention():
    """Cells as sure as the object's, none of the half-sure rest, at the regions' own size; only for its own phrase."""
    rest = torch.maximum(LEFT, RIGHT) * 0.2 + LEFT * 0.7
    attention = torch.stack([rest, RIGHT])
    large = torch.nn.functional.interpolate(RIGHT[None, None], scale_factor=2)[0, 0]
    found = outline(attention, regions(large))
    assert found.phrases == [None, 0] and found.scores.tolist() == [1, 0], "phrase 1 has a region that fits"
    inside = torch.nn.functional.avg_pool2d(found.masks[1:], 2)[0]
    assert ((inside * LEFT).sum() / torch.maximum(inside, LEFT).sum()).item() > 0.8 and not (inside * RIGHT).any()
    scores = score_regions(attention, found, [phrase(), phrase()])
    assert [match.region for match in assign(scores, found)] == [1, 0]
    nothing = Regions(torch.zeros(0, SIDE, SIDE), [], torch.zeros(0))
    assert outline(attention, nothing).phrases == [0, 1]
    assert outline(torch.zeros(1, SIDE, SIDE), nothing).phrases == [], "a word that looks at nothing outlines nothing"
