"""Scores against hand-computed values, and the evaluation through its script."""

import csv

import pytest
import torch

from lcad.metrics import colorfulness, psnr
from scripts import evaluate


def test_psnr_by_hand():
    real = torch.zeros(2, 3, 4, 4)
    fake = real.clone()
    fake[0] += 0.1
    fake[1, 0] += 0.3
    assert psnr(real, fake).tolist() == pytest.approx([20.0, -10 * torch.log10(torch.tensor(0.03)).item()], abs=1e-4)


def test_colorfulness_by_hand():
    grey = torch.full((1, 3, 4, 4), 0.5)
    assert colorfulness(grey).item() == 0
    halves = torch.zeros(1, 3, 2, 2)
    halves[:, 0, :, 0] = 1  # left red: rg 255, yb 127.5; right black: 0, 0
    expected = (127.5**2 + 63.75**2) ** 0.5 * 1.3
    assert colorfulness(halves).item() == pytest.approx(expected, rel=1e-5)


def test_script(tiny_checkpoint, photo_folder, tmp_path, capsys):
    args = ["--model", str(tiny_checkpoint), "--input", str(photo_folder / "images"), "--steps", "1"]
    assert evaluate.main([*args, "--output", str(tmp_path / "scores")]) == 0
    assert "8 photos" in capsys.readouterr().out
    for method in ("caption", "scarce", "round_trip"):
        rows = list(csv.DictReader((tmp_path / "scores" / f"{method}.csv").open()))
        assert len(rows) == 8 and all(float(row["psnr"]) > 0 for row in rows)
