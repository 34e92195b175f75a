"""Colour conversions against scikit-image, and the hint."""

import numpy as np
import pytest
import torch
from skimage.color import lab2rgb, rgb2lab

from lcad.color import lab_to_rgb, luminance_to_hint, merge_chroma, rgb_to_lab, rgb_to_luminance, rgb_to_ycc


def test_lab_is_scikit_images():
    rgb = torch.rand(2, 3, 9, 7, dtype=torch.float64)
    rgb[0, :, 0, 0], rgb[0, :, 0, 1] = 0, 1
    lab = rgb_to_lab(rgb)
    channels_last = rgb.permute(0, 2, 3, 1).numpy()
    assert np.allclose(lab.permute(0, 2, 3, 1), rgb2lab(channels_last), atol=1e-9)
    assert torch.allclose(lab_to_rgb(lab), rgb, atol=1e-9)
    far = lab + torch.tensor([0.0, 60, -60])[:, None, None]  # out of gamut: clipped, as scikit-image does
    assert np.allclose(lab_to_rgb(far).permute(0, 2, 3, 1), lab2rgb(far.permute(0, 2, 3, 1).numpy()), atol=1e-6)


def test_hint_ranges():
    luminance = torch.tensor([0.0, 100.0]).reshape(1, 1, 1, 2)
    for scale, expected in (("unit", (-1, 1)), ("release", (-1, 100 / 127.5 - 1))):
        hint = luminance_to_hint(luminance, scale)
        assert hint.shape == (1, 3, 1, 2)
        assert hint[0, :, 0].tolist() == [pytest.approx(expected)] * 3
    with pytest.raises(ValueError, match="allowed: unit, release"):
        luminance_to_hint(luminance, "other")


def test_ycc_of_primaries_and_grey():
    grey, red = torch.full((3, 1, 1), 0.4), torch.tensor([1.0, 0, 0]).reshape(3, 1, 1)
    assert torch.allclose(rgb_to_ycc(grey).flatten(), torch.tensor([0.4, 0, 0]), atol=1e-6)
    assert torch.allclose(rgb_to_ycc(red).flatten(), torch.tensor([0.299, -0.168736, 0.5]))


def test_merging_takes_luminance_from_the_one_and_chroma_from_the_other():
    photo, colours = torch.rand(1, 3, 8, 8) * 0.4 + 0.3, torch.full((1, 3, 8, 8), 0.5)
    colours[:, 0] = 0.55
    merged = rgb_to_lab(merge_chroma(rgb_to_luminance(photo), rgb_to_lab(colours)))
    assert torch.allclose(merged[:, :1], rgb_to_luminance(photo), atol=1e-2)
    assert torch.allclose(merged[:, 1:], rgb_to_lab(colours)[:, 1:], atol=1e-2)
