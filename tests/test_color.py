"""Colour conversions against scikit-image, and the hint."""

import warnings

import numpy as np
import pytest
import torch
from skimage.color import lab2rgb, rgb2lab

from lcad.color import (
    absolute_colorfulness,
    colorfulness,
    lab_to_rgb,
    lab_to_rgb_in_gamut,
    linear_to_luminance,
    luminance_to_hint,
    luminance_to_rgb,
    merge_chroma,
    reduce_to_gamut,
    rgb_to_lab,
    rgb_to_luminance,
    rgb_to_ycc,
)


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


def test_luminance_of_linear_light_is_that_of_lab():
    rgb = torch.rand(2, 3, 9, 7, dtype=torch.float64)
    rgb[0, :, 0] *= 0.05  # where the curve is a line
    linear = torch.where(rgb > 0.04045, ((rgb + 0.055) / 1.055) ** 2.4, rgb / 12.92)
    luminance = linear_to_luminance(linear)
    assert luminance.shape == (2, 1, 9, 7) and torch.allclose(luminance, rgb_to_luminance(rgb), atol=1e-9)
    assert linear_to_luminance(-linear.float()).max() <= 1e-4, "below black it goes on"


def test_the_grey_photo_of_a_luminance_alone_or_in_a_batch():
    luminance = torch.rand(2, 1, 5, 4) * 100
    grey = luminance_to_rgb(luminance)
    assert grey.shape == (2, 3, 5, 4) and torch.allclose(luminance_to_rgb(luminance[0]), grey[0])
    assert torch.allclose(rgb_to_luminance(grey), luminance, atol=1e-2)
    assert (grey.amax(1) - grey.amin(1)).max() < 2e-3


def test_colorfulness_is_of_each_photo_by_itself():
    rgb = torch.rand(2, 3, 6, 5)
    for measure in (colorfulness, absolute_colorfulness):
        assert torch.allclose(measure(rgb), torch.stack([measure(rgb[0]), measure(rgb[1])]))


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


@pytest.mark.parametrize("spread", [0, 30, 200])
def test_both_ways_into_the_gamut_are_one(spread):
    lab = torch.rand(2, 3, 16, 20, generator=torch.Generator().manual_seed(0)) * 100
    lab[:, 1:] = (lab[:, 1:] / 50 - 1) * spread
    lab[..., 0] /= 50  # nearly black: the straight part of both curves
    before = lab.clone()
    assert torch.allclose(lab_to_rgb_in_gamut(lab), lab_to_rgb(reduce_to_gamut(lab)), atol=1e-6)
    assert torch.equal(lab, before)
    assert lab_to_rgb_in_gamut(lab[..., :0]).shape == (2, 3, 16, 0), "an object without a pixel"


def test_colours_outside_the_gamut_lose_chroma_alone():
    """To the edge of what sRGB shows: 2 % more would be outside."""
    lab = torch.tensor([[50.0, 20, -10], [50, 120, 90], [90, -90, 20], [30, 5, -110], [120, 10, 10], [-5, 0, 0]])
    lab = lab.T.reshape(3, 2, 3)
    reduced = reduce_to_gamut(lab)
    assert torch.equal(reduced[:, 0, 0], lab[:, 0, 0]), "what can be shown stays"
    assert torch.equal(reduced[0], lab[0].clamp(0, 100))
    assert torch.allclose(reduced[1] * lab[2], reduced[2] * lab[1], atol=1e-2), "the hue stays"
    back = rgb_to_lab(lab_to_rgb(reduced).double())
    assert torch.allclose(back, reduced.double(), atol=0.02), "nothing is clipped"
    for pixel in ((0, 1), (0, 2), (1, 0)):
        one = reduced[:, pixel[0], pixel[1], None, None].clone()
        assert one[1:].abs().max() > 10
        one[1:] *= 1.02
        assert not torch.allclose(rgb_to_lab(lab_to_rgb(one)), one, atol=0.02), pixel
    assert torch.equal(reduce_to_gamut(lab[:, :1, 1:2], steps=8), reduced[:, :1, 1:2]), "each pixel by itself"
    many = (
        torch.rand(3, 20, 20, generator=torch.Generator().manual_seed(0)) * torch.tensor([100, 200, 200])[:, None, None]
    )
    assert torch.equal(reduce_to_gamut(many), reduce_to_gamut(many, steps=8))
    assert not torch.equal(reduce_to_gamut(many), reduce_to_gamut(many, steps=9))
    coarse = reduce_to_gamut(lab, steps=1)
    share = coarse[1:, 0, 1] / lab[1:, 0, 1]
    assert share.tolist() in ([0, 0], [0.5, 0.5])
    assert torch.equal(reduce_to_gamut(lab, tolerance=1e3)[1:], lab[1:])
    assert torch.equal(lab[0, 1, 1:], torch.tensor([120.0, -5])), "the colours given are not changed"


def test_gradients_are_finite_where_powers_have_none():
    for convert, values in ((rgb_to_lab, [0.0, 1, 0.5]), (lab_to_rgb, [0.0, 60, -60])):
        image = torch.tensor(values).reshape(3, 1, 1).requires_grad_()
        convert(image).sum().backward()
        assert torch.isfinite(image.grad).all()


def test_conversions_keep_the_type_and_take_extreme_colours():
    assert rgb_to_lab(torch.rand(3, 2, 2)).dtype == torch.float32
    dark = torch.linspace(0, 0.06, 40, dtype=torch.float64).reshape(1, 1, 40).expand(3, 1, 40)
    expected = rgb2lab(dark.permute(1, 2, 0).numpy())
    assert np.allclose(rgb_to_lab(dark).permute(1, 2, 0), expected, atol=1e-9)
    assert torch.allclose(lab_to_rgb(rgb_to_lab(dark)), dark, atol=1e-5)
    far = torch.tensor([20.0, 0, 127]).reshape(3, 1, 1)
    with warnings.catch_warnings(action="ignore"):  # that scikit-image clips it as well
        expected = lab2rgb(far.permute(1, 2, 0).numpy())
    assert np.allclose(lab_to_rgb(far).permute(1, 2, 0), expected, atol=1e-5)
