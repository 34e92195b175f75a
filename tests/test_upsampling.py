"""Chroma at full size: constant colours stay, edges of luminance are followed, lightness is kept."""

import pytest
import torch
import torch.nn.functional as F

from lcad import upsampling
from lcad.color import rgb_to_lab, rgb_to_luminance
from lcad.upsampling import METHODS, Enlargement, bilinear, finish_photos, transfer_chroma
from scripts import compare_upsampling
from tests.conftest import random_photo


def half_and_half(width: int, edge: float) -> torch.Tensor:
    """L (1, 1, 32, width): 30 to the left of `edge` (a share of the width), 70 to the right."""
    x = (torch.arange(width) + 0.5) / width
    return torch.where(x < edge, 30.0, 70.0).expand(1, 1, 32, width)


@pytest.mark.parametrize("name", METHODS)
def test_constant_chroma_stays(name):
    large = torch.rand(1, 1, 32, 40, generator=torch.Generator().manual_seed(0)) * 100
    small = F.interpolate(large, (8, 10), mode="area")
    chroma = torch.tensor([20.0, -35.0]).reshape(1, 2, 1, 1).expand(1, 2, 8, 10)
    made = METHODS[name](chroma, small, large)
    assert made.shape == (1, 2, 32, 40)
    assert torch.allclose(made, chroma[..., :1, :1].expand_as(made), atol=1e-3)


@pytest.mark.parametrize("mode", ["bilinear", "bicubic"])
@pytest.mark.parametrize("size", [(33, 40), (61, 1100), (8, 12)])
def test_enlarged_rows_are_those_of_the_whole(mode, size):
    image = torch.rand(2, 3, 8, 12, generator=torch.Generator().manual_seed(0)) * 100
    expected, made = F.interpolate(image, size, mode=mode), Enlargement(image, size, mode)
    for rows in (slice(0, 5), slice(3, size[0]), slice(None)):
        with torch.autocast("cpu", torch.bfloat16):
            assert torch.allclose(made[rows], expected[..., rows, :], atol=1e-4)
        if mode == "bilinear":
            part = bilinear(image, image, torch.empty(1, 1, *size), rows)
            assert torch.allclose(part, expected[..., rows, :], atol=1e-3)


def test_an_edge_between_small_pixels_is_followed():
    """The colour changes where L does, in the middle of a small pixel: bicubic blurs it."""
    large = half_and_half(64, 0.47)
    true = torch.cat([large - 50, 50 - large], dim=1)
    small = F.interpolate(large, (8, 16), mode="area")
    chroma = F.interpolate(true, (8, 16), mode="area")
    errors = {name: (method(chroma, small, large) - true).abs().mean().item() for name, method in METHODS.items()}
    assert errors["guided"] < 0.5 * errors["bicubic"], errors


def test_lightness_is_kept_where_colours_cannot_be_shown():
    """Saturated blue on light grey is outside sRGB: it comes out paler, not darker."""
    luminance = torch.linspace(2, 98, 40).reshape(1, 1, 1, 40).expand(1, 1, 30, 40)
    decoded = torch.zeros(1, 3, 10, 10)
    decoded[:, 2] = 1
    made = transfer_chroma(luminance, decoded)
    assert (rgb_to_luminance(made) - luminance).abs().max() < 0.2
    hue = torch.atan2(*rgb_to_lab(made)[0, [2, 1], 0, 15:30])
    assert torch.allclose(hue, torch.atan2(*rgb_to_lab(decoded)[0, [2, 1], 0, :1]), atol=0.02)


def test_comparison_of_methods(tmp_path, capsys):
    for seed in range(2):
        random_photo(seed, 96, 80).save(tmp_path / f"{seed}.png")
    assert compare_upsampling.main(["--input", str(tmp_path), "--size", "16"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(" | ")[0] for line in lines[2:]] == ["| bilinear", "| bicubic", "| bilateral", "| guided"]


@pytest.mark.parametrize("output_luminance", ["input", "decoded"])
def test_photos_finished_together_are_as_each_alone(output_luminance, monkeypatch):
    monkeypatch.setattr(upsampling, "PIXELS_TOGETHER", 2 * 12 * 16)  # two of the first size
    together, own = [], upsampling.transfer_chroma if output_luminance == "input" else upsampling.resize
    monkeypatch.setattr(upsampling, own.__name__, lambda *args: together.append(len(args[0])) or own(*args))
    luminances = [torch.rand(1, *size) * 100 for size in [(12, 16)] * 3 + [(40, 30), (12, 16)]]
    pictures = torch.rand(5, 3, 8, 8)
    made = finish_photos(pictures, luminances, output_luminance)
    assert together == [2, 1, 1, 1]
    for rgb, picture, luminance in zip(made, pictures, luminances, strict=True):
        assert rgb.shape[-2:] == luminance.shape[-2:]
        assert torch.equal(rgb, finish_photos(picture[None], [luminance], output_luminance)[0])
