"""Which region belongs to which phrase: closed cases for scores, positions, overlaps and weak matches."""

import numpy as np
import pytest
import torch

from lcad.masks.attention import place_prior
from lcad.masks.matching import UNITED, assign, outline, score_regions, unite
from lcad.masks.types import Regions

SIDE = 16


def block(top: int, left: int, height: int = 4, width: int = 4) -> torch.Tensor:
    mask = torch.zeros(SIDE, SIDE)
    mask[top : top + height, left : left + width] = 1
    return mask


def regions(*masks: torch.Tensor, phrases: list | None = None) -> Regions:
    return Regions(torch.stack(masks), phrases or [None] * len(masks), torch.ones(len(masks)))


LEFT, RIGHT = block(6, 1), block(6, 11)


def test_a_region_that_is_what_is_attended_to_scores_one():
    both = torch.maximum(LEFT, RIGHT)
    candidates = regions(LEFT, RIGHT, both, block(6, 1, 4, 2))
    assert score_regions(LEFT[None], candidates)[0].tolist() == pytest.approx([1, 0, 0.5, 0.5])
    half = score_regions(LEFT[None] / 2, candidates)[0]
    assert half.tolist() == pytest.approx([0.5, 0, 8 / 32, 4 / 12]), "half as sure"


def test_words_of_place_tell_objects_of_a_kind_apart():
    """The photo's corner is further to the left than the left cup, and no cup is there."""
    cups, corner = torch.maximum(LEFT, RIGHT), block(0, 0, SIDE, 1)
    found = regions(LEFT, RIGHT, corner)
    for positions, expected in ((("left", "right"), [0, 1]), (("right", "left"), [1, 0])):
        attention = cups * torch.stack([place_prior(position, (SIDE, SIDE)) for position in positions])
        united = unite(attention, found)
        assert [match.region for match in assign(score_regions(attention, united), united)] == expected


def test_priors_of_places():
    size = (4, 6)
    left, top, middle, corner, none = (place_prior(word, size) for word in ("left", "top", "middle", "top left", None))
    assert torch.equal(left, left.flip(0)) and bool((left.diff(dim=1) < 0).all())
    assert torch.allclose(left + place_prior("right", size), torch.ones(size))
    assert torch.allclose(top + place_prior("bottom", size), torch.ones(size)) and top[0, 0] > 0.9
    assert torch.allclose(middle, middle.flip(1)) and middle[0, 2] > 0.5 > middle[0, 0]
    assert torch.equal(corner, left * top) and torch.equal(none, torch.ones(size))


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
    scores = score_regions(torch.stack([LEFT, LEFT]), found)
    matches = assign(scores, found)
    assert [match.region for match in matches] == [None, 0], "region 0 was made for phrase 1"
    assert matches[0].score < 0.1
    nothing = Regions(torch.zeros(0, SIDE, SIDE), [], torch.zeros(0))
    scores = score_regions(torch.stack([LEFT, LEFT]), nothing)
    assert [match.region for match in assign(scores, nothing)] == [None, None]


def test_regions_are_united_where_attention_is_on_all_of_them():
    far = block(1, 11)
    found = regions(LEFT, RIGHT, far, phrases=[None, None, 1])
    attention = torch.stack([torch.maximum(LEFT, RIGHT), LEFT])
    united = unite(attention, found)
    assert united.phrases == [None, None, 1, 0], "one region is enough for phrase 1"
    assert torch.equal(united.masks[3], torch.maximum(LEFT, RIGHT))
    scores = score_regions(attention, united)
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
    scores = score_regions(attention, found)
    assert [match.region for match in assign(scores, found)] == [1, 0]
    nothing = Regions(torch.zeros(0, SIDE, SIDE), [], torch.zeros(0))
    assert outline(attention, nothing).phrases == [0, 1]
    assert outline(torch.zeros(1, SIDE, SIDE), nothing).phrases == [], "a word that looks at nothing outlines nothing"


def test_of_two_phrases_that_fit_alike_the_first_has_the_region():
    """However the type of the weights rounds: "an orange flower in front of green leaves" names the flower first."""
    found = regions(LEFT)
    for rounding in (-0.002, 0.002):
        attention = torch.stack([LEFT * 0.7, LEFT * (0.7 + rounding)])
        matches = assign(score_regions(attention, found), found)
        assert [match.region for match in matches] == [0, None]
