"""Scores against hand-computed values, and the evaluation through its script."""

import csv
import json
from types import SimpleNamespace

import pytest
import torch
from PIL import Image

from lcad.contact_sheet import MARGIN
from lcad.data.scenes import write_scenes
from lcad.metrics import colorfulness, psnr
from lcad.showcase import swap_rows
from scripts import contact_sheets, evaluate


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


def test_script_scores_steering(tiny_checkpoint, photo_folder, tmp_path, capsys):
    """The colour words of four photos and of rendered scenes, through the script."""
    square = [[5, 5, 40, 5, 40, 35, 5, 35]]
    instances = {f"p{i}.png": [{"segmentation": square, "category_id": 1, "iscrowd": 0}] for i in range(4)}
    path = tmp_path / "instances.json"
    path.write_text(json.dumps({"categories": {"1": "cup"}, "instances": instances}))
    list(write_scenes(tmp_path / "scenes", 6, seed=0, size=32))
    args = ["--model", str(tiny_checkpoint), "--steps", "1", "--output", str(tmp_path / "scores")]
    args += ["--scenes", str(tmp_path / "scenes"), "--steered-scenes", "2"]
    assert evaluate.main(args) == 0
    args += ["--input", str(photo_folder / "images"), "--instances", str(path), "--steered-photos", "3"]
    assert evaluate.main(args) == 0
    assert "swaps (3 photos" in capsys.readouterr().out
    swaps = list(csv.DictReader((tmp_path / "scores" / "swaps.csv").open()))
    assert [row["asked"] for row in swaps] == ["red", "green", "blue", "yellow"] * 3
    assert len({row["name"] for row in csv.DictReader((tmp_path / "scores" / "scenes.csv").open())}) == 2
    assert evaluate.main(args[:2]) == 2
    assert "give --input or --scenes" in capsys.readouterr().err


def test_contact_sheets(tiny_checkpoint, photo_folder, tmp_path):
    args = ["--model", str(tiny_checkpoint), "--input", str(photo_folder), "--output", str(tmp_path), "--steps", "1"]
    assert contact_sheets.main([*args, "--limit", "2", "--tile", "48"]) == 0
    for name, columns in (("captions", 4), ("swaps", 5)):
        with Image.open(tmp_path / f"{name}.jpg") as sheet:
            assert sheet.width == columns * (48 + MARGIN) + MARGIN


def test_swapped_words_reach_the_model():
    photo = Image.new("RGB", (40, 40), "gray")
    asked = []

    class Listening:
        def __call__(self, image, caption, **_):
            asked.append(caption)
            return SimpleNamespace(images=[image])

    rows = swap_rows(Listening(), [photo, photo], ["a grey cup on a blue plate", "a cup"])
    assert asked == [f"a {word} cup on a blue plate" for word in ("red", "green", "blue", "yellow")]
    assert len(rows) == 1 and rows[0].text == "a ... cup on a blue plate"
