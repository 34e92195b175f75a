"""Looks: of tensors, of runs, and of results that are there already."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from lcad.color import rgb_to_lab
from lcad.io.images import read_image, to_tensor
from lcad.recoloring.looks import WARMER, apply_look, change_look
from scripts import adjust
from tests.conftest import random_photo


def chroma(rgb: torch.Tensor) -> torch.Tensor:
    return rgb_to_lab(rgb)[1:].norm(dim=0)


def pastel(seed: int = 0) -> torch.Tensor:
    """A picture whose colours may double without leaving sRGB."""
    return 0.5 + 0.15 * (to_tensor(random_photo(seed)) - 0.5)


def test_saturation_scales_chroma_and_keeps_luminance_and_hue():
    rgb = pastel()
    for factor in (0.0, 0.5, 1.7):
        changed = rgb_to_lab(apply_look(rgb, saturation=factor))
        torch.testing.assert_close(changed[1:], factor * rgb_to_lab(rgb)[1:], atol=0.02, rtol=0)
        torch.testing.assert_close(changed[:1], rgb_to_lab(rgb)[:1], atol=0.02, rtol=0)


def test_strong_looks_keep_luminance_where_srgb_has_no_room():
    rgb = to_tensor(random_photo(1))
    for look in ((2.0, 0.0), (2.0, 1.0), (1.0, -1.0), (0.3, 1.0)):
        error = (rgb_to_lab(apply_look(rgb, *look))[0] - rgb_to_lab(rgb)[0]).abs().max()
        assert error < 0.05, look


def test_grey_stays_grey_at_any_saturation():
    grey = torch.linspace(0, 1, 32).expand(3, 4, 32)
    torch.testing.assert_close(apply_look(grey, saturation=2.0), grey, atol=1e-4, rtol=0)


def test_warmth_moves_greys_along_the_light_and_leaves_black_and_white():
    grey = torch.linspace(0, 1, 41).expand(3, 4, 41)
    lab, warm = rgb_to_lab(grey), rgb_to_lab(apply_look(grey, warmth=1.0))
    middle = slice(12, 30)
    expected = torch.tensor(WARMER)[:, None, None] * (lab[:1] + 16) / 116
    torch.testing.assert_close(warm[1:, :, middle], (lab[1:] + expected)[..., middle], atol=0.05, rtol=0)
    assert chroma(apply_look(grey, warmth=1.0))[0, [0, -1]].max() < 0.5
    cool = rgb_to_lab(apply_look(grey, warmth=-0.5))
    torch.testing.assert_close(cool[1:, :, middle], (lab[1:] - expected / 2)[..., middle], atol=0.05, rtol=0)


def test_the_neutral_look_changes_nothing():
    rgb = to_tensor(random_photo(2))
    assert apply_look(rgb) is rgb


@pytest.mark.parametrize("look", [(-0.1, 0), (2.1, 0), (1, 1.1), (1, -1.1), (float("nan"), 0), (1, float("nan"))])
def test_looks_outside_their_ranges_are_refused(look):
    with pytest.raises(ValueError, match="must be from"):
        apply_look(torch.rand(3, 4, 4), *look)


def test_one_look_is_changed_into_another():
    rgb = pastel(3)
    first, second = (0.6, 0.2), (1.3, -0.4)
    torch.testing.assert_close(
        change_look(apply_look(rgb, *first), first, second), apply_look(rgb, *second), atol=2e-3, rtol=0
    )
    with pytest.raises(ValueError, match="no colours left"):
        change_look(rgb, (0.0, 0.0), (1.0, 0.0))


def adjusted(*args: object) -> int:
    return adjust.main([str(arg) for arg in args])


def test_a_look_is_in_the_record_and_another_needs_another_run(run, photo_folder):
    photo = photo_folder / "images" / "p1.png"
    assert run("--input", photo, "--saturation", 0)[0] == 0
    assert np.ptp(np.asarray(read_image(run.out / "p1.png")).astype(int), axis=2).max() <= 1, "grey"
    assert json.loads((run.out / "p1.json").read_text())["settings"]["saturation"] == 0
    status, err = run("--input", photo)
    assert status == 2 and "made differently" in err
    with pytest.raises(SystemExit):
        run("--input", photo, "--saturation", 3)
    with pytest.raises(SystemExit):
        run("--input", photo, "--warmth", -1.5)


def test_a_look_from_a_record_is_that_of_a_run(run, photo_folder, tmp_path):
    photos = photo_folder / "images"
    Image.fromarray((np.asarray(random_photo(9)) * 0.3 + 90).astype(np.uint8)).save(photos / "p1.png")
    look = ("--saturation", 0.7, "--warmth", 0.3)
    assert run("--input", photos / "p1.png")[0] == 0
    assert run("--input", photos / "p1.png", *look, output=tmp_path / "run")[0] == 0
    before = (run.out / "p1.png").read_bytes()
    assert adjusted("--input", run.out, *look, "--output", tmp_path / "adjusted") == 0
    one, two = (np.asarray(read_image(tmp_path / name / "p1.png")).astype(int) for name in ("run", "adjusted"))
    assert np.abs(one - two).max() <= 2, "but for rounding to 8 bit"
    record = json.loads((tmp_path / "adjusted" / "p1.json").read_text())
    assert record["settings"]["saturation"] == 0.7 and record["settings"]["warmth"] == 0.3
    assert record["results"] == ["p1.png"] and record["adjusted_from"].endswith("p1.png")
    assert (run.out / "p1.png").read_bytes() == before
    # the look of an adjusted result is replaced, not added to
    back = tmp_path / "back"
    assert adjusted("--input", tmp_path / "adjusted" / "p1.png", "--output", back) == 0
    one, two = (np.asarray(read_image(folder / "p1.png")).astype(int) for folder in (run.out, back))
    assert np.abs(one - two).mean() < 1


def test_adjusting_overwrites_nothing_unasked(run, photo_folder, tmp_path, capsys):
    assert run("--input", photo_folder / "images" / "p1.png", "--num-samples", 2)[0] == 0
    out, look = tmp_path / "adjusted", ("--saturation", 0)
    assert adjusted("--input", run.out / "p1_1.png", *look, "--output", out) == 0
    assert [path.name for path in out.glob("*.png")] == ["p1_1.png"]
    assert adjusted("--input", run.out / "p1_1.png", *look, "--output", out) == 2
    assert "exists already" in capsys.readouterr().err
    assert adjusted("--input", run.out / "p1_1.png", *look, "--output", out, "--overwrite") == 0
    assert adjusted("--input", run.out, *look, "--output", run.out, "--overwrite") == 2
    assert "choose another --output" in capsys.readouterr().err
    (out / "p1_1.json").write_text("{}")
    assert adjusted("--input", run.out / "p1_1.png", *look, "--output", out, "--overwrite") == 2, "not our record"
    assert adjusted("--input", tmp_path / "nothing.png", *look, "--output", out) == 2
    assert adjusted("--input", out / "p1_1.png", "--output", tmp_path / "x") == 2
    assert adjusted("--input", run.out, "--saturation", 5, "--output", out) == 2
    assert "Traceback" not in capsys.readouterr().err


def test_16_bits_and_metadata_stay(run, tmp_path):
    values = np.random.default_rng(0).integers(20000, 40000, (40, 48, 3), dtype=np.uint16)
    import tifffile

    tifffile.imwrite(tmp_path / "deep.tif", values, photometric="rgb")
    assert run("--input", tmp_path / "deep.tif", "--caption", "a red cup")[0] == 0
    assert adjusted("--input", run.out / "deep.tif", "--saturation", 0.5, "--output", tmp_path / "adjusted") == 0
    one, two = (tifffile.imread(folder / "deep.tif") for folder in (run.out, tmp_path / "adjusted"))
    assert two.dtype == np.uint16 and two.shape == one.shape
    lab = [rgb_to_lab(torch.from_numpy(item / 65535).movedim(-1, 0)) for item in (one, two)]
    torch.testing.assert_close(lab[1][:1], lab[0][:1], atol=0.01, rtol=0)
    torch.testing.assert_close(lab[1][1:], lab[0][1:] / 2, atol=0.05, rtol=0)
