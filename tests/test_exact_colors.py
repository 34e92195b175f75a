"""Exact colours: written, found, given, and in runs."""

import json
import warnings

import numpy as np
import pytest
import torch
from PIL import Image

from lcad.color import lab_to_rgb, luminance_to_rgb, mean_color, reduce_to_gamut, rgb_to_lab, rgb_to_luminance
from lcad.io.images import read_image, to_tensor
from lcad.io.prepared_photo import PreparedPhoto
from lcad.masks.types import InstanceMasks
from lcad.recoloring.dyeing import mask_edges, masks_at
from lcad.recoloring.exact_colors import (
    ColorTarget,
    apply_exact_colors,
    color_targets,
    delta_e,
    find_dyes,
    least_delta_e,
    parse_color,
    parse_color_target,
    to_hex,
)
from lcad.recoloring.object_masks import build_object_finder, phrases_of_word, region_at
from lcad.text.captions import read_colors
from scripts import sample
from tests.conftest import random_photo


def scene(size: int = 96) -> tuple[torch.Tensor, torch.Tensor]:
    """A shaded ball with patches of colour before a bluish wall -> result (3, size, size) and the ball's mask."""
    y, x = torch.meshgrid(torch.linspace(-1, 1, size), torch.linspace(-1, 1, size), indexing="ij")
    ball = (x**2 + y**2 < 0.36).float()
    luminance = torch.where(ball > 0, 55 - 20 * (x + y), 80 + 5 * x)
    patches = 6 * torch.sin(12 * x) * torch.cos(9 * y)
    a, b = torch.where(ball > 0, 25 + patches, -5), torch.where(ball > 0, 15 - patches, -15)
    return lab_to_rgb(reduce_to_gamut(torch.stack([luminance, a, b]))), ball


def lab_of(text: str) -> torch.Tensor:
    return rgb_to_lab(torch.tensor(parse_color(text))[:, None, None])[:, 0, 0]


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("#8b1a1a", "#8b1a1a"),
        ("8B1A1A", "#8b1a1a"),
        (" #a1f ", "#aa11ff"),
        ("Pale Blue", "#d0fefe"),
        ("navy", "#000080"),
        ("light gray", "#d8dcd6"),
        ("LightGray", "#d3d3d3"),
        ("dark-red", "#840000"),
        ("rust colored", "#a83c09"),
        ("crimsn", "#dc143c"),
    ],
)
def test_colours_as_people_write_them(text, code):
    assert to_hex(parse_color(text)) == code


def test_modifiers_change_colours_that_have_no_name_of_their_own():
    plain, dark, pastel = (lab_of(text) for text in ("coral", "dark coral", "pastel coral"))
    assert dark[0] < plain[0] < pastel[0] and pastel[1:].norm() < plain[1:].norm()


@pytest.mark.parametrize(
    "text", ["", " ", "happy", "#12", "#12345", "#gggggg", "0.5", "C0", "light", "rgb(1,2,3)", "="]
)
def test_what_is_no_colour_is_refused(text):
    with pytest.raises(ValueError, match="unknown colour.*#rrggbb"):
        parse_color(text)


def test_targets_as_text(tmp_path):
    assert parse_color_target("the left cup = pale blue").where == "the left cup"
    assert parse_color_target("@412, 230=#8b1a1a").where == (412, 230)
    Image.fromarray(np.pad(np.full((2, 3), 255, np.uint8), 2)).save(tmp_path / "mask.png")
    target = parse_color_target("mask.png=navy", tmp_path)
    assert target.where.shape == (6, 7) and target.where.sum() == 6 and target.name == "mask.png"
    with pytest.raises(ValueError, match="not read from files"):
        parse_color_target("mask.png=navy", None)
    for text in ("coat", "=#fff", "coat=", "@12=red", "@a,b=red", "coat=happy", "nothing.png=red"):
        with pytest.raises(ValueError):
            parse_color_target(text, tmp_path)


def test_targets_in_python():
    word, point, triple = color_targets({"coat": "#8b1a1a", "@3,4": "navy", (5, 6): (0.5, 0.25, 0)})
    assert (word.where, point.where, triple.where) == ("coat", (3, 4), (5, 6))
    assert triple.color == (0.5, 0.25, 0) and word.text == "coat=#8b1a1a"
    assert color_targets([word, "sky=pale blue"])[1].where == "sky"
    for wrong in ((1.0, 2.0, 0.0), (0.1, 0.2)):
        with pytest.raises(ValueError, match="from 0 to 1"):
            ColorTarget("coat", wrong)
    for wrong in (torch.zeros(4, 4), torch.full((4, 4), 255.0), torch.ones(1, 4, 4), " "):
        with pytest.raises(ValueError):
            ColorTarget(wrong, (1, 0, 0))
    with pytest.raises(TypeError):
        color_targets([3])


def test_an_object_gets_its_colour_and_nothing_else_changes():
    rgb, ball = scene()
    for text in ("#3a6ea5", "olive green", "#7a7a7a", "dusty rose"):
        colored, (row,) = apply_exact_colors(rgb, ball[None], [parse_color(text)], ["ball"])
        assert row["where"] == "ball" and row["asked"] == to_hex(parse_color(text))
        wanted, before = lab_of(text), rgb_to_lab(rgb)
        after = rgb_to_lab(colored)
        obtained = torch.from_numpy(mean_color(colored, ball))
        assert torch.allclose(obtained[1:], wanted[1:], atol=3), text
        assert abs(delta_e(wanted, obtained) - row["delta_e"]) < 1.5
        assert row["limited_by_luminance"] == (row["least_delta_e"] > 5)
        assert (after[0] - before[0]).abs().max() < 0.1, "luminance"
        assert (after - before).norm(dim=0)[ball == 0].mean() < 1, "the wall"


def test_chroma_follows_the_shading():
    rgb, ball = scene()
    luminance = rgb_to_luminance(rgb)
    colored, _ = apply_exact_colors(luminance_to_rgb(luminance), ball[None], [parse_color("#6a8a9c")])
    inside = ball.bool() & (luminance[0] > 35)
    ratio = rgb_to_lab(colored)[1:, inside].norm(dim=0) / (luminance[0, inside] + 16)
    assert ratio.std() < 0.05 * ratio.mean(), "the same dye in light and shadow"


def test_texture_is_kept():
    rgb, ball = scene()
    colored, _ = apply_exact_colors(rgb, ball[None], [parse_color("#2a7fa0")])
    inside = ball.bool() & (rgb_to_luminance(rgb)[0] > 35)
    light = rgb_to_luminance(rgb)[0, inside] + 16
    labs = [rgb_to_lab(item)[1:, inside] for item in (rgb, colored)]
    uneven = [item - light * (item * light).sum(1, keepdim=True) / (light**2).sum() for item in labs]
    assert torch.corrcoef(torch.stack([item.norm(dim=0) for item in uneven]))[0, 1] > 0.8


def test_what_is_grey_in_a_coloured_object_stays_grey():
    rgb, ball = scene()
    stripe = ball * (torch.arange(96) % 32 < 8)
    rgb = torch.where(stripe > 0, rgb_to_luminance(rgb).expand(3, 96, 96) / 100, rgb)
    colored, _ = apply_exact_colors(rgb, ball[None], [parse_color("#35768f")])
    assert rgb_to_lab(colored)[1:, stripe > 0].norm(dim=0).mean() < 12
    assert rgb_to_lab(colored)[1:, (ball - stripe) > 0].norm(dim=0).mean() > 20


def test_a_grey_object_has_no_patches_left():
    rgb, ball = scene()
    colored, _ = apply_exact_colors(rgb, ball[None], [parse_color("#808080")])
    inside = ball.bool()
    assert rgb_to_lab(colored)[1:, inside].std() < 0.3 * rgb_to_lab(rgb)[1:, inside].std()


def test_what_luminance_does_not_allow_is_said():
    rgb, ball = scene()
    _, (row,) = apply_exact_colors(rgb, ball[None], [parse_color("#00004d")])
    assert row["limited_by_luminance"] and row["delta_e"] > 5 and row["least_delta_e"] > 5
    assert least_delta_e(rgb_to_luminance(rgb), ball, parse_color("#00004d")) == pytest.approx(
        row["least_delta_e"], abs=2
    )


def test_the_smaller_of_two_overlapping_objects_lies_in_front():
    rgb, ball = scene()
    everything = torch.ones_like(ball)
    colors = [parse_color("#b0a890"), parse_color("#3a6ea5")]
    colored, rows = apply_exact_colors(rgb, torch.stack([everything, ball]), colors)
    assert torch.allclose(torch.from_numpy(mean_color(colored, ball))[1:], lab_of("#3a6ea5")[1:], atol=4)
    assert torch.allclose(torch.from_numpy(mean_color(colored, 1 - ball))[1:], lab_of("#b0a890")[1:], atol=4)
    assert len(rows) == 2


def test_strips_and_small_copies_come_to_the_same():
    rgb, ball = scene(128)
    colors = [parse_color("#3a6ea5")]
    whole, _ = apply_exact_colors(rgb, ball[None], colors)
    dyes = find_dyes(rgb, ball[None], colors)
    parts = [dyes.apply(rgb[:, top : top + 50], slice(top, top + 50), (128, 128)) for top in (0, 50, 100)]
    torch.testing.assert_close(torch.cat(parts, dim=1), whole, atol=1e-4, rtol=0)
    small = find_dyes(torch.nn.functional.interpolate(rgb[None], (64, 64), mode="area")[0], ball[None], colors)
    inside = ball.bool()
    assert (rgb_to_lab(small.apply(rgb)) - rgb_to_lab(whole))[:, inside].abs().mean() < 2


def test_edges_follow_the_luminance_and_thin_things_stay():
    rgb, ball = scene(128)
    rough = torch.nn.functional.interpolate(ball[None, None], (20, 20), mode="area").round()
    rough = torch.nn.functional.interpolate(rough, (128, 128), mode="bilinear")
    edges = mask_edges(rgb_to_luminance(rgb), rough[0])
    mended = masks_at(edges, rgb_to_luminance(rgb))[0]
    assert (mended - ball).abs().sum() < 0.6 * (rough[0, 0] - ball).abs().sum()
    line = torch.zeros(1, 128, 128)
    line[:, 64] = 1
    flat = torch.full((1, 128, 128), 50.0)
    torch.testing.assert_close(masks_at(mask_edges(flat, line), flat), line)


def test_wrong_masks_are_refused():
    rgb, ball = scene()
    with pytest.raises(ValueError, match="expected"):
        apply_exact_colors(rgb, ball[None], [(1, 0, 0), (0, 1, 0)])
    with pytest.raises(ValueError, match="empty"):
        apply_exact_colors(rgb, 0 * ball[None], [(1, 0, 0)])
    assert apply_exact_colors(rgb, torch.zeros(0, 4, 4), []) == (rgb, [])


def test_words_of_a_caption(tiny_pipeline):
    def objects(word: str, caption: str) -> list[str]:
        return [caption[slice(*p.object_span)] for p in phrases_of_word(word, caption, tiny_pipeline.tokenizer)]

    assert objects("coat", "A woman in a Coat walks") == ["Coat"]
    assert objects("cup", "a red cup and a blue cup, two cupboards") == ["cup", "cup"]
    assert objects("red cup", "a red cup and a blue cup") == ["cup"]
    assert objects("boat", "two boats") == ["boats"]
    assert objects("dog", "a red cup") == [] == objects("a (dog", "a red cup")


def test_finding_objects(tiny_pipeline):
    photo = random_photo(0, 60, 40)
    find = build_object_finder(tiny_pipeline)
    caption = "a red cup on a table"
    (phrase,) = phrases_of_word("cup", caption, tiny_pipeline.tokenizer)
    known = torch.zeros(1, 20, 30)
    known[0, :, :15] = 1
    mask = torch.ones(40, 60)
    targets = color_targets({"cup": "navy", "dog": "red", "@70,5": "red"})
    targets += [ColorTarget(mask, (0, 1, 0)), ColorTarget(torch.ones(60, 40), (0, 1, 0))]
    found = find(targets, PreparedPhoto.of(photo), caption, InstanceMasks([phrase], known))
    assert [target.name for target in found.targets] == ["mask", "cup"], "larger ones first"
    assert found.masks.shape == (2, 40, 60) and found.masks[1].mean() == pytest.approx(0.5, abs=0.01)
    assert len(found.notes) == 3
    assert "no 'dog' in the caption" in found.notes[0] and "60x40" in found.notes[1] and "40x60" in found.notes[2]


def test_a_point_finds_the_region_under_it():
    values = np.full((60, 80), 60, np.uint8)
    values[15:45, 10:40] = 200
    mask = region_at(PreparedPhoto.of(Image.fromarray(values)), (20, 30))
    assert torch.equal(mask, torch.from_numpy(values == 200).float())
    assert region_at(PreparedPhoto.of(Image.new("L", (8, 8), 90)), (3, 3)).shape == (8, 8)


def test_the_pipeline_gives_colours(tiny_pipeline):
    photo = random_photo(4)
    left = torch.zeros(40, 48)
    left[:, :24] = 1
    options = {"num_inference_steps": 2, "output_type": "pt", "masks": None}
    plain = tiny_pipeline(photo, "a cup", generator=torch.Generator().manual_seed(0), **options)
    assert plain.colors is None
    light = float(rgb_to_luminance(plain.images[0])[0][left > 0].mean())
    color = tuple(lab_to_rgb(torch.tensor([light, 20.0, 10.0])[:, None, None])[:, 0, 0].tolist())
    made = tiny_pipeline(
        photo, "a cup", generator=torch.Generator().manual_seed(0), colors=[ColorTarget(left, color)], **options
    )
    assert made.colors[0][0]["delta_e"] < 5
    torch.testing.assert_close(made.images[0][:, :, 28:], plain.images[0][:, :, 28:], atol=0.02, rtol=0)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        made = tiny_pipeline([photo] * 2, "a cup", colors=[None, {"dog": "red"}], **options)
    assert made.colors == [[], []] and any("no 'dog'" in str(item.message) for item in caught)
    with pytest.raises(ValueError, match="sets of colors"):
        tiny_pipeline(photo, "a cup", colors=[None, None], **options)
    with pytest.raises(ValueError, match="decoded"):
        tiny_pipeline(photo, "a cup", colors={"cup": "red"}, **options | {"output_type": "decoded"})


def test_colours_in_a_run(run, photo_folder, tmp_path):
    """The record says what was asked and obtained; another colour is another result; repetition has the same pixels."""
    photo, mask = photo_folder / "images" / "p1.png", photo_folder / "masks" / "p0" / "0_cup.png"
    light = np.asarray(rgb_to_luminance(to_tensor(read_image(photo)))[0])[:, :24].mean()
    code = to_hex(lab_to_rgb(torch.tensor([light, 15.0, 15.0])[:, None, None])[:, 0, 0].tolist())
    command = ("--input", photo, "--caption", "a red cup", "--masks", "none", "--color")
    assert run(*command, f"{mask}={code}", "--warmth", 0)[0] == 0
    record = json.loads((run.out / "p1.json").read_text())
    assert record["colors"] == [f"{mask}={code}"] and record["color_masks_sha256"]
    ((row,),) = record["color_results"]
    assert row["asked"] == code and row["delta_e"] < 5 and not row["limited_by_luminance"]
    obtained = mean_color(to_tensor(read_image(run.out / "p1.png")), (torch.arange(48) < 24).float().expand(40, 48))
    assert delta_e(lab_of(code), torch.from_numpy(obtained)) < 5
    assert run(*command, f"{mask}={code}")[0] == 0 and "1 kept" in run.printed
    again = tmp_path / "again"
    assert sample.main(["--replay", str(run.out / "run.jsonl"), "--output", str(again)]) == 0, "the same pixels"
    status, err = run(*command, f"{mask}=#303050")
    assert status == 2 and "made differently" in err


def test_colours_of_a_table(run, photo_folder):
    table = 'image,caption,colors\np0.png,"a red cup, a blue cup","@5,5=navy; cup=red"\np1.png,a cup,\n'
    (photo_folder / "captions.json").unlink()
    (photo_folder / "captions.csv").write_text(table)
    colors, folder = read_colors(photo_folder / "images")
    assert colors == {"p0.png": ["@5,5=navy", "cup=red"]} and folder == photo_folder
    assert run("--input", photo_folder / "images", "--masks", "none", "--batch-size", 8)[0] in (0, 1)
    record = json.loads((run.out / "p0.json").read_text())
    assert record["colors"] == ["@5,5=navy", "cup=red"]
    assert record["color_results"][0][0]["asked"] in ("#000080", "#ff0000")
    assert json.loads((run.out / "p1.json").read_text())["colors"] is None


def test_a_users_mistakes_are_one_line(run, photo_folder):
    photo = photo_folder / "images" / "p1.png"
    for wrong in ("cup", "cup=happy", "nothing.png=red", "@1=red"):
        status, err = run("--input", photo, "--color", wrong)
        assert status == 2 and err.startswith("error: ") and err.count("\n") == 1, wrong
    status, err = run("--input", photo, "--caption", "a cup", "--color", "dog=red", "--color", "@900,5=red")
    assert status == 1 and "no 'dog' in the caption" in err and "48x40" in err
    assert (run.out / "p1.png").exists(), "colorized without them"
