"""Colours of other pictures on a photo's luminance, from pictures whose faults are known."""

from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from lcad.color import luminance_to_rgb, rgb_to_lab, rgb_to_luminance
from lcad.io.images import read_image, to_image, to_tensor
from lcad.recoloring.registration import WrongPair, register
from lcad.recoloring.transfer import transfer_colors
from lcad.recoloring.transfer_reference import reference_colors
from scripts.studies.transfer_colors import chroma_scores, distorted, main, repainted, repainted_scores

EXAMPLES = Path(__file__).resolve().parents[1] / "data" / "examples" / "images"
ENOUGH = 32.0  # dB, see `chroma_scores`
GHOST_RATIO = 3.5  # of the mean error of ab elsewhere, what it is at most near strong edges
GHOST = 2.5  # Lab units, that error where nothing was compressed; chroma that lies one pixel off makes 3.8 in coffee
SAME = 1.2  # times the error at edges that a small JPEG has in place


@cache
def photo(name: str, side: int = 360) -> Image.Image:
    image = read_image(EXAMPLES / f"{name}.jpg")
    image.thumbnail((side, side), Image.Resampling.LANCZOS)
    return image


@cache
def luminance(name: str) -> torch.Tensor:
    return rgb_to_luminance(to_tensor(photo(name)))


def scores_of(name: str, kind: str) -> dict[str, float]:
    image = photo(name, 480)
    true = to_tensor(image)
    return chroma_scores(true, transfer_colors(rgb_to_luminance(true), distorted(image, kind, seed=1)))


@pytest.mark.parametrize("kind", ["half", "crop", "shift", "warp", "jpeg"])
@pytest.mark.parametrize("name", ["coffee", "china"])
def test_colours_of_a_picture_with_known_faults_lie_where_they_belong(name, kind):
    scores = scores_of(name, kind)
    assert scores["psnr"] >= ENOUGH
    assert scores["edge_error"] <= GHOST or kind == "jpeg"  # whose own chroma is of half the size
    assert scores["edge_ratio"] <= GHOST_RATIO or kind == "jpeg"
    assert scores["sure"] > 0.9


@pytest.mark.parametrize("name", ["coffee", "china"])
def test_what_moves_pixels_costs_little_beside_compression(name):
    moved, in_place = scores_of(name, "all"), scores_of(name, "small jpeg")
    assert moved["psnr"] >= max(ENOUGH, in_place["psnr"] - 1.5)
    assert moved["edge_error"] <= SAME * in_place["edge_error"] and moved["edge_ratio"] <= GHOST_RATIO


def test_a_picture_that_lies_one_pixel_off_would_be_found_out():
    """What the tests above measure does see a ghost."""
    true = to_tensor(photo("coffee", 480))
    transfer = transfer_colors(rgb_to_luminance(true), true)
    off = replace(transfer, chroma=rgb_to_lab(true.roll(1, dims=-1))[1:])
    assert chroma_scores(true, off)["edge_error"] > GHOST


def test_the_photo_keeps_its_luminance_and_a_grey_photo_gets_the_colours():
    grey = luminance_to_rgb(luminance("coffee"))
    result = transfer_colors(luminance("coffee"), distorted(photo("coffee"), "all", 2)).recolored(
        rgb_to_luminance(grey)
    )
    assert (rgb_to_luminance(result) - luminance("coffee")).abs().max() < 0.05
    assert rgb_to_lab(result)[1:].norm(dim=0).mean() > 15


@pytest.mark.parametrize("name", ["coffee", "rocket", "chelsea"])
def test_a_mirrored_picture_is_refused_as_such(name):
    mirrored = photo(name).transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    with pytest.raises(WrongPair, match="mirrored"):
        transfer_colors(luminance(name), mirrored)


@pytest.mark.parametrize(
    ("name", "other"), [("coffee", "china"), ("china", "flower"), ("rocket", "coffee"), ("flower", "rocket")]
)
@pytest.mark.parametrize("same_size", [False, True])
def test_another_photo_is_refused(name, other, same_size):
    picture = photo(other).resize(photo(name).size) if same_size else photo(other)
    with pytest.raises(WrongPair, match="does not show this photo|nothing of the photo is found"):
        transfer_colors(luminance(name), picture)


def test_a_picture_without_colours_or_details_is_refused():
    with pytest.raises(WrongPair, match="no colours"):
        transfer_colors(luminance("coffee"), photo("coffee").convert("L"))
    with pytest.raises(WrongPair):
        transfer_colors(luminance("coffee"), Image.new("RGB", photo("coffee").size, "red"))
    with pytest.raises(WrongPair, match="too small"):
        transfer_colors(luminance("coffee"), photo("coffee").resize((12, 9)))


@pytest.mark.parametrize("side", [16, 17, 40])
def test_small_and_narrow_pictures_end_in_a_result_or_a_reason(side):
    for size in ((side, side), (side, 200), (200, side)):
        image = photo("coffee").resize(size)
        try:
            result = transfer_colors(rgb_to_luminance(to_tensor(image)), image).recolored(
                rgb_to_luminance(to_tensor(image))
            )
        except WrongPair:
            continue
        assert result.shape == (3, *size[::-1]) and result.isfinite().all()


def test_a_repainted_place_is_not_believed_and_takes_the_rest():
    picture, where = repainted(photo("coffee"), photo("china"))
    transfer = transfer_colors(luminance("coffee"), picture)
    scores = repainted_scores(transfer, where)
    assert scores["believed_inside"] < 0.35
    assert scores["believed_outside"] > 0.9
    green = torch.tensor([0.2, 0.8, 0.2])[:, None, None].expand(3, 10, 10)
    grey, filled = (transfer.recolored(luminance("coffee"), rest) for rest in (None, green))
    core = transfer.confidence_at(where.shape) == 0
    assert core[where].float().mean() > 0.3
    assert rgb_to_lab(grey)[1:, core].norm(dim=0).mean() < 3
    assert rgb_to_lab(filled)[1, core].mean() < -20
    sure = transfer.confidence_at(where.shape) == 1
    assert torch.allclose(grey[:, sure], filled[:, sure], atol=0.05)


def test_outside_a_cropped_picture_nothing_is_believed():
    left = photo("coffee").crop((0, 0, 200, photo("coffee").height))
    transfer = transfer_colors(luminance("coffee"), left)
    assert transfer.registration.covered == pytest.approx(200 / 360, abs=0.02)
    assert transfer.confidence[:, 230:].max() == 0 and transfer.confidence[:, :180].mean() > 0.95
    shown = np.asarray(transfer.shown_confidence(luminance("coffee"))).astype(int)
    assert (shown[:, 230:, 0] - shown[:, 230:, 1]).mean() > 60 and np.ptp(shown[:, :150], axis=2).mean() < 5
    assert transfer.report()["used"] == pytest.approx(200 / 360, abs=0.05)


def test_places_are_in_the_pictures_own_frame():
    """A picture of the right half: the photo's middle is its left edge."""
    values = luminance("coffee")[0].numpy()
    found = register(values, np.ascontiguousarray(values[:, 180:]))
    middle = found.places[values.shape[0] // 2, 270]
    assert middle == pytest.approx([(270 - 180 + 0.5) / 180, 0.5], abs=0.01)
    assert found.scale == pytest.approx(1, abs=0.02)


def test_chroma_is_carried_no_larger_than_the_picture_has_it():
    small = photo("coffee").resize((120, 80))
    assert max(transfer_colors(luminance("coffee"), small).chroma.shape) == pytest.approx(120, abs=4)


def halves(name: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Two photos of one place: they share a tenth of it."""
    whole = to_tensor(photo(name))
    width = whole.shape[-1]
    return whole[..., : int(0.55 * width)], whole[..., int(0.45 * width) :]


def test_a_reference_of_the_same_place_is_better_than_grey():
    gains = []
    for name in ("coffee", "china", "flower", "astronaut"):
        own, other = halves(name)
        result = reference_colors(rgb_to_luminance(own), other).recolored(rgb_to_luminance(own))
        grey = luminance_to_rgb(rgb_to_luminance(own))
        gains.append(10 * torch.log10(((grey - own) ** 2).mean() / ((result - own) ** 2).mean()))
        assert (rgb_to_luminance(result) - rgb_to_luminance(own)).abs().max() < 0.05
    assert torch.stack(gains).mean() > 1.5


def test_a_reference_says_nothing_of_what_it_has_nothing_like():
    dark = to_image(to_tensor(photo("coffee")) * 0.2)
    transfer = reference_colors(torch.full((1, 40, 60), 95.0), dark)
    assert transfer.confidence.max() == 0
    with pytest.raises(WrongPair, match="no colours"):
        reference_colors(luminance("coffee"), dark.convert("L"))


def test_the_study_prints_its_table(capsys, tmp_path):
    for name in ("coffee", "china"):
        photo(name, 200).save(tmp_path / f"{name}.png")
    csv = tmp_path / "rows.csv"
    assert main(["--input", str(tmp_path), "--kinds", "same;repainted;another", "--csv", str(csv)]) == 0
    printed = capsys.readouterr().out
    assert "| same | 2 of 2 |" in printed and "| another | 0 of 2 |" in printed and "Of repainted places" in printed
    assert len(csv.read_text().splitlines()) == 7


@pytest.mark.slow
def test_24_megapixels_take_little_memory():
    import resource

    large = photo("coffee").resize((6000, 4000), Image.Resampling.BICUBIC)
    own = rgb_to_luminance(to_tensor(large))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    transfer = transfer_colors(own, distorted(photo("coffee"), "all", 3))
    for rows, part in transfer.strips(own):
        assert part.shape == (3, rows.stop - rows.start, 6000)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 2_000_000  # KB
