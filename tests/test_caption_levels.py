"""Partial and scarce captions made from complete ones."""

import re

import pytest

from lcad.text.color_names import COLOR_PATTERN
from lcad.text.levels import caption_at_level, level_of


def colors(caption: str) -> int:
    return len(re.findall(COLOR_PATTERN, caption, re.IGNORECASE))


@pytest.mark.parametrize(
    ("complete", "partial"),
    [
        ("an orange cat", "a cat"),
        ("An orange cat sleeps", "A cat sleeps"),
        ("a red umbrella and a dog", "an umbrella and a dog"),
        ("a green utility truck", "a utility truck"),
        ("a pale green lake", "a lake"),
        ("a cake with dark and light blue frosting", "a cake with frosting"),
        ("a red-haired girl", "a girl"),
        ("a tan colored bear", "a bear"),
        ("a silver and glass table", "a glass table"),
        ("a bus that is red, near a tree", "a bus, near a tree"),
        ("a smiling man in green next to a dog", "a smiling man next to a dog"),
        ("an orange on a bench", "something on a bench"),
        ("Red", "A colorful image"),
        ("a maroon car", "a car"),
        ("an azure door", "a door"),
        ("a peach sweater and a peach", "a sweater and a peach"),
        ("two dogs on a lawn", "two dogs on a lawn"),
    ],
)
def test_a_single_colour_goes_without_a_trace(complete, partial):
    assert caption_at_level(complete, "partial") == partial
    assert level_of(partial, "partial") == "scarce"


@pytest.mark.parametrize("thing", ["bus", "umbrella", "cat", "old house", "hat", "shirt", "dog"])
def test_of_several_colours_half_goes_and_no_joint_is_left(thing):
    left = caption_at_level(f"a red and white {thing}", "partial")
    assert left in (f"a red {thing}", f"a white {thing}")
    left = caption_at_level(f"an orange, yellow, green and blue {thing}", "partial")
    assert colors(left) == 2 and not re.search(r"and (and|\w+$)|,,|  |, and|^an? and", left.replace(thing, "x y"))
    phrases = caption_at_level(f"the red {thing}, the blue cup, the dark green door", "partial")
    assert colors(phrases) == 2 and phrases.count(",") == 2
    assert phrases == caption_at_level(f"the red {thing}, the blue cup, the dark green door", "partial")


def test_which_colour_goes_depends_on_the_caption():
    firsts = {caption_at_level(f"a red and white bus number {i}", "partial").split()[1] for i in range(20)}
    assert firsts == {"red", "white"}


def test_levels():
    assert caption_at_level("a red cup", "complete") == "a red cup"
    assert caption_at_level("a red cup", "scarce") == "a colorful image"
    assert (level_of("a cup"), level_of("a RED cup"), level_of("a red cup", "partial")) == (
        "scarce",
        "complete",
        "partial",
    )
    for text in ("a maroon car", "teal and lilac tulips", "a rust colored can"):
        assert level_of(text) == "complete" and level_of(text, "partial") == "partial"
    assert level_of("orange juice in the White House") == "scarce"
    with pytest.raises(ValueError, match="'rich'; allowed: complete, partial, scarce"):
        caption_at_level("a red cup", "rich")
    with pytest.raises(ValueError, match="names colours"):
        level_of("a red cup", "scarce")
