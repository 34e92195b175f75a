"""Colour names: familiar sRGB colours, and every example is called by its own word."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

import lcad.text
from lcad.color import rgb_to_lab
from lcad.text.color_names import COLOR_WORDS, example_color, name_color, name_colors


@pytest.mark.parametrize(
    "rgb, word",
    [
        ((255, 0, 0), "red"),
        ((200, 30, 40), "red"),
        ((255, 140, 0), "orange"),
        ((255, 230, 0), "yellow"),
        ((0, 128, 0), "green"),
        ((107, 142, 35), "green"),
        ((64, 224, 208), "turquoise"),
        ((0, 0, 255), "blue"),
        ((135, 206, 235), "blue"),
        ((128, 0, 128), "purple"),
        ((255, 105, 180), "pink"),
        ((255, 192, 203), "pink"),
        ((139, 90, 60), "brown"),
        ((210, 180, 140), "brown"),
        ((128, 128, 128), "grey"),
        ((250, 250, 250), "white"),
        ((12, 12, 14), "black"),
    ],
)
def test_familiar_colors(rgb, word):
    lab = rgb_to_lab(torch.tensor(rgb).float().div(255)[:, None, None])
    assert name_color(lab[:, 0, 0].numpy()) == word


@pytest.mark.parametrize("word", COLOR_WORDS)
@pytest.mark.parametrize("luminance", [30, 50, 80])
def test_examples_are_named_by_their_word_at_every_luminance(word, luminance):
    rng = np.random.default_rng(0)
    lab = np.array([(luminance, *example_color(word, rng)) for _ in range(200)])
    assert set(name_colors(lab).tolist()) == {word}


def test_the_values_of_names_are_those_of_css_and_of_the_survey():
    """CSS Color Module Level 4 over the XKCD survey, as matplotlib has them: none may drift from there."""
    colors = pytest.importorskip("matplotlib.colors")
    survey = {name.removeprefix("xkcd:"): value for name, value in colors.XKCD_COLORS.items()}
    expected = {name: value.lower() for name, value in (survey | colors.CSS4_COLORS).items()}
    written = json.loads((Path(lcad.text.__file__).parent / "color_values.json").read_text(encoding="utf-8"))["colors"]
    assert written == expected
