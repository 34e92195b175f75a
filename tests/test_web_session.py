"""What the page does, without a page: sessions, their limits, batches, and what they share with the command line."""

import gc
import json
import subprocess
import sys
import threading
import weakref
import zipfile
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image

from lcad.color import luminance_to_rgb, rgb_to_luminance
from lcad.io.images import ImageError, to_image, to_tensor
from lcad.io.photos import read_photo
from lcad.recoloring.looks import apply_look
from lcad.web.batch import Finished, colorize_all
from lcad.web.painting import MOST_POINTS, painted
from lcad.web.phrase_masks import regions_at
from lcad.web.pictures import grey_picture
from lcad.web.progress import Cancelled, Step, picture_of, streamed
from lcad.web.session import Candidate, PhotoSession
from lcad.web.studio import Limits, Studio
from lcad.web.visitors import Visitors
from tests.conftest import random_photo

CAPTION = "the red cup, the blue plate"


@pytest.fixture(scope="module")
def studio(tiny_checkpoint):
    studio = Studio(tiny_checkpoint, Limits(megabytes=1, megapixels=1, photos=5, steps=50), device="cpu")
    studio.pipeline.register_to_config(num_inference_steps=2)
    yield studio
    studio.close()


@pytest.fixture
def photo(tmp_path) -> Path:
    """Two halves of different luminance: two regions."""
    pixels = np.full((60, 80, 3), 70, np.uint8)
    pixels[:, 40:] = 180
    Image.fromarray(pixels).save(tmp_path / "halves.png")
    return tmp_path / "halves.png"


@pytest.fixture
def session(studio, photo):
    session = PhotoSession(studio)
    session.open(photo)
    yield session
    session.close()


def colorized(session: PhotoSession, number: int = 2, seed: int = 0) -> list[Candidate]:
    return [item for item in session.colorize(number, seed, steps=2) if isinstance(item, Candidate)]


def test_a_candidate_has_the_pixels_of_the_command_line(session, photo, run):
    session.read_caption(CAPTION)
    assert len(colorized(session, 2)) == 2
    session.keep(1)
    result, record = session.write()
    status, _ = run("--input", photo, "--caption", CAPTION, "--seed", 1)
    assert status == 0
    assert np.array_equal(np.asarray(Image.open(result)), np.asarray(Image.open(run.out / "halves.png")))
    ours, theirs = json.loads(record.read_text()), json.loads((run.out / "halves.json").read_text())
    for key in ("photo_sha256", "caption", "masks_sha256", "masked_phrases", "model_sha256"):
        assert ours[key] == theirs[key], key
    assert ours["settings"].items() >= theirs["settings"].items() and ours["instances"] == [session.report()]
    assert str(photo.parent) not in record.read_text() and str(session.folder) not in record.read_text()


def test_a_result_has_the_format_depth_and_luminance_of_its_photo(studio, tmp_path):
    path = tmp_path / "scan.tif"
    tifffile.imwrite(path, np.linspace(0, 65535, 30 * 50).reshape(30, 50).astype(np.uint16))
    session = PhotoSession(studio)
    session.open(path)
    colorized(session, 1)
    result, _ = session.write()
    written = read_photo(result)
    assert result.suffix == ".tif" and written.values.dtype == np.uint16
    assert (written.luminance() - session.luminance).abs().max() < 0.05
    assert [path.suffix for path in session.write(".jpg")] == [".jpg", ".json"] and "JPEG" in session.notes[-1]
    with pytest.raises(ValueError, match="unknown format '.exe'; allowed: own, .png"):
        session.write(".exe")


def test_phrases_are_found_and_a_caption_of_no_objects_is_no_error(session):
    session.read_caption("a girl in a red coat under a pale blue sky")
    assert [phrase.object for phrase in session.masks.phrases] == ["coat", "sky"]
    assert session.read_caption("") == [] and session.masks.phrases == []
    assert len(colorized(session, 1)) == 1 and session.report() == []


def test_a_click_gives_the_region_and_a_second_one_a_larger_region(session):
    session.read_caption(CAPTION)
    session.masks.click(0, (0.75, 0.5))
    first = session.masks.masks[0]
    columns = first.any(0).nonzero()[:, 0]
    assert columns.min() >= 0.4 * first.shape[1]  # the right half
    masks = torch.zeros(3, 10, 10)
    masks[0, :, :], masks[1, :5, :5], masks[2, 4, 4] = 1, 1, 1
    assert regions_at(masks, (0.44, 0.44)) == [2, 1, 0] and regions_at(masks, (1.0, 1.0)) == [0]
    session.masks.__dict__["regions"] = masks
    for wanted in (2, 1, 0, 2):
        session.masks.click(1, (0.44, 0.44))
        assert torch.equal(session.masks.masks[1], masks[wanted])
    session.masks.step(0, 1)
    assert torch.equal(session.masks.masks[0], masks[0])
    session.masks.step(0, -1)
    assert torch.equal(session.masks.masks[0], masks[2])
    with pytest.raises(ValueError, match="choose a phrase first"):
        session.masks.click(7, (0.5, 0.5))
    session.masks.__dict__["regions"] = masks[1:]
    with pytest.raises(ValueError, match="no region at this place"):
        session.masks.click(0, (0.9, 0.9))


def test_what_is_painted_and_erased_is_what_the_model_gets(session):
    session.read_caption(CAPTION)
    session.masks.clear(0)
    session.masks.clear(1)
    assert session.masks.found() is None
    session.masks.paint(0, painted(drawing(0.2, (0, 0.5), (1, 0.5)), (60, 80)))  # a bar of 16 pixels
    session.masks.paint(0, painted(drawing(0.1, (0.5, 0), (0.5, 1)), (60, 80)), erase=True)  # but 8 in the middle
    instances = session.masks.found().instances
    assert [phrase.object for phrase in instances.phrases] == ["cup"]
    (mask,) = instances.masks
    assert mask[23:37, :35].all() and mask[23:37, 46:].all() and not mask[:, 37:43].any()
    assert not mask[:21].any() and not mask[40:].any()
    (candidate,) = colorized(session, 1)
    assert torch.equal(candidate.found.instances.masks, instances.masks)
    with pytest.raises(ValueError, match="nothing is painted"):
        session.masks.paint(0, painted("", (60, 80)))


def test_the_page_is_built_before_torch_is_imported():
    program = "import sys, lcad.web.page; print('torch' in sys.modules)"
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert ended.stdout == "False\n"


def drawing(width, *points):
    return json.dumps([{"width": width, "points": points}])


def test_a_click_of_the_brush_is_a_round_spot():
    spot = painted(drawing(0.1, (0.5, 0.25)), (100, 200))
    assert spot.sum() == pytest.approx(np.pi * 10**2, rel=0.1)  # 20 pixels wide
    assert 1 <= painted(drawing(1e-9, (0.5, 0.25)), (100, 200)).sum() <= 4
    assert spot[25, 91:109].all() and spot[16:34, 100].all() and not spot[:13].any() and not spot[:, :88].any()


@pytest.mark.parametrize(
    "strange",
    [
        *("{", "3", "[3]", "[[]]", '[{"width": 0.1}]', '[{"width": "w", "points": []}]', '[{"points": [[0, 0]]}]'),
        *('[{"width": 0.1, "points": [[1]]}]', '[{"width": 0.1, "points": [[1, 2, 3]]}]', "[" * 100_000),
        *(drawing(0.1, (0, 1.1)), drawing(0.1, (float("nan"), 0)), drawing(9, (0, 0)), drawing(0, (0, 0))),
        drawing(0.1, *[(0, 0)] * (MOST_POINTS + 1)),
    ],
    ids=range(15),
)
def test_what_no_canvas_draws_is_said_in_one_line(strange):
    with pytest.raises(ValueError, match="paint"):
        painted(strange, (60, 80))


def test_an_exact_colour_is_obtained_in_its_region_alone(session):
    session.read_caption(CAPTION)
    colorized(session, 1)
    before = session.values().copy()
    session.masks.click(0, (0.75, 0.5))
    session.set_color(0, "#b06050")
    after = session.values()
    report = next(row for row in session.report() if row["phrase"] == session.masks.phrases[0].text)
    assert report["color"] == "#b06050" and (report["delta_e"] <= 5 or report["limited_by_luminance"])
    assert np.abs(after[:, :30].astype(int) - before[:, :30]).mean() < 1 < np.abs(after.astype(int) - before).mean()
    record = json.loads(session.write()[1].read_text())
    assert record["colors"] == [f"{session.masks.phrases[0].text}=#b06050"]
    session.set_color(0, None)
    assert np.array_equal(session.values(), before)
    with pytest.raises(ValueError, match="unknown colour 'no such'"):
        session.set_color(0, "no such")
    session.set_color(0, "navy")
    assert not np.array_equal(session.values(), before)
    session.masks.clear(0)  # the colour goes with its region
    assert np.array_equal(session.values(), before)
    record = json.loads(session.write()[1].read_text())
    assert record["colors"] is None and not any("color" in row for row in session.report())
    session.masks.clear(1)
    with pytest.raises(ValueError, match="has no region"):
        session.set_color(1, "navy")


def test_looks_change_colours_without_sampling_and_keep_luminance(session, monkeypatch):
    session.read_caption(CAPTION)
    colorized(session, 1)
    plain = session.values().copy()
    monkeypatch.setattr(session, "_sample", None)  # nothing may be sampled
    session.set_look(0, 0)
    assert np.ptp(session.values().astype(int), axis=2).max() <= 1
    session.set_look(1.5, 0.5)
    assert not np.array_equal(session.values(), plain)
    L = [rgb_to_luminance(to_tensor(Image.fromarray(v))) for v in (plain, session.values())]
    assert (L[0] - L[1]).abs().max() < 0.8  # 8 bit
    record = json.loads(session.write()[1].read_text())
    assert (record["settings"]["saturation"], record["settings"]["warmth"]) == (1.5, 0.5)
    session.set_look(1, 0)
    assert np.array_equal(session.values(), plain)
    with pytest.raises(ValueError, match="saturation must be from 0 to 2"):
        session.set_look(3, 0)


def test_progress_pictures_and_a_stop(session, monkeypatch):
    monkeypatch.setattr("lcad.web.session.PICTURE_SECONDS", 0)
    session.read_caption(CAPTION)
    made = list(session.colorize(2, 0, steps=3))
    steps = [item for item in made if isinstance(item, Step)]
    assert [step.done for step in steps] == [0, 1, 2, 3, 3, 4, 5, 6] and {step.total for step in steps} == {6}
    assert steps[2].picture.size == (80, 60) and "step 2 of 3" in steps[2].text
    seen = []
    with pytest.raises(Cancelled):
        for item in session.colorize(4, 0, steps=10):
            seen.append(item)
            if isinstance(item, Candidate):
                session.stop()
    assert len(session.candidates) == 1 and session.values().shape == (60, 80, 3)  # what was done stays
    assert len(colorized(session, 1)) == 1  # and the next run is as any other


def test_a_run_that_nobody_waits_for_ends(session):
    session.read_caption(CAPTION)
    running = session.colorize(4, 0, steps=10)
    next(running)
    running.close()
    assert session.cancel.is_set() and not session.studio.turn.locked()


def test_the_picture_on_the_way_shows_what_the_step_makes_of_the_latents(session, monkeypatch):
    monkeypatch.setattr("lcad.web.session.PICTURE_SECONDS", 0)
    shown = [item.picture for item in session.colorize(1, 3, steps=2) if isinstance(item, Step) and item.picture]
    pipeline, expected = session.studio.pipeline, []
    pipeline(
        session.luminance,
        num_inference_steps=2,
        generator=[torch.Generator().manual_seed(3)],
        callback_on_step_end=lambda _pipe, _step, _t, given: expected.append(given["denoised"]),
        callback_on_step_end_tensor_inputs=("denoised",),
    )
    assert len(shown) == 2
    for picture, latents in zip(shown, expected, strict=True):
        assert np.array_equal(picture, picture_of(pipeline, latents, session.prepared, session.luminance))
    assert not np.array_equal(shown[0], shown[1])


def test_a_picture_on_the_way_that_is_not_finite_ends_no_run(session):
    picture = picture_of(
        session.studio.pipeline, torch.full((1, 4, 8, 9), torch.nan), session.prepared, session.luminance
    )
    assert picture.size == (80, 60)


def test_an_error_of_the_work_comes_after_its_items():
    def work(give):
        give(1)
        raise ValueError("no more")

    taken = []
    with pytest.raises(ValueError, match="no more"):
        for item in streamed(work, threading.Event()):
            taken.append(item)
    assert taken == [1]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "x.png: the file is empty"),
        (b"no image", "x.png: not an image that can be read"),
        (b"\x89PNG\r\n\x1a\n" + b"\0" * 20, "x.png: "),
    ],
)
def test_a_bad_file_is_one_line_without_a_path_and_the_photo_before_stays(session, tmp_path, content, message):
    path = tmp_path / "upload" / "x.png"
    path.parent.mkdir()
    path.write_bytes(content)
    with pytest.raises(ImageError) as error:
        session.open(path)
    assert (
        str(error.value).startswith(message) and "\n" not in str(error.value) and str(tmp_path) not in str(error.value)
    )
    assert session.name == "halves.png"


def test_limits(session, tmp_path):
    Image.new("L", (2000, 600)).save(tmp_path / "wide.png")
    with pytest.raises(ImageError, match="wide.png: 2000x600 pixels; at most 1 megapixels are taken here"):
        session.open(tmp_path / "wide.png")
    (tmp_path / "large.png").write_bytes(b"\0" * 1_600_000)
    with pytest.raises(ImageError, match="large.png: 2 MB; at most 1 MB are taken here"):
        session.open(tmp_path / "large.png")
    for wrong in ({"number": 9}, {"number": 0}, {"steps": 51}, {"guidance": float("nan")}, {"seed": -1}):
        with pytest.raises(ValueError, match="allowed"):
            next(session.colorize(**wrong))
    with pytest.raises(ValueError, match="at most 2,000 are read"):
        session.read_caption("red " * 600)
    empty = PhotoSession(session.studio)
    for action in (lambda: empty.read_caption("a"), empty.overlay, lambda: next(empty.colorize()), empty.write):
        with pytest.raises(ValueError, match="no photo yet"):
            action()


def test_a_second_photo_forgets_the_first(session, tmp_path):
    session.read_caption(CAPTION)
    colorized(session, 1)
    session.set_look(2, 0)
    random_photo(3).save(tmp_path / "other.png")
    session.open(tmp_path / "other.png")
    assert (session.caption, session.candidates, session.masks.phrases) == ("", [], [])
    assert session.look.saturation == 1
    with pytest.raises(ValueError, match="nothing is colorized yet"):
        session.write()


def test_files_go_with_the_session_unless_results_are_to_be_kept(tiny_checkpoint, photo, tmp_path):
    studio = Studio(tiny_checkpoint, device="cpu", keep=tmp_path / "kept")
    session = PhotoSession(studio)
    session.open(photo)
    colorized(session, 1)
    (result, _), folder = session.write(), session.folder
    content = result.read_bytes()
    session.close()
    assert not folder.exists()
    studio.close()
    assert not studio.folder.exists()
    (kept,) = (tmp_path / "kept").glob("*/halves_colorized.png")
    assert kept.read_bytes() == content


def test_a_batch_is_a_zip_with_records_and_a_contact_sheet(studio, tmp_path, run):
    places = []
    for i in range(3):  # each upload lies in a folder of its own; two have the same name
        place = tmp_path / f"upload{i}"
        place.mkdir()
        random_photo(i).save(place / f"p{min(i, 1)}.png")
        places.append(place / f"p{min(i, 1)}.png")
    bad = tmp_path / "bad.jpg"
    bad.write_bytes(b"nothing")
    captions = tmp_path / "captions.json"
    captions.write_text(json.dumps({"p0.png": ["the green cup"]}))
    *steps, done = colorize_all(studio, [*places, bad, captions], tmp_path / "batch", "a red house")
    assert isinstance(done, Finished) and done.text == "3 colorized, 1 failed"
    (problem,) = done.problems
    assert problem.startswith("bad.jpg: ") and str(tmp_path) not in problem
    assert steps[0].done == 0 and steps[-1].total == 3
    with zipfile.ZipFile(done.archive) as archive:
        names = set(archive.namelist())
        assert names == {"contact_sheet.png", *(f"{n}.{s}" for n in ("p0", "p1", "p1_2") for s in ("png", "json"))}
        records = {name: json.loads(archive.read(name)) for name in names if name.endswith(".json")}
        assert [records[f"{n}.json"]["caption"] for n in ("p0", "p1", "p1_2")] == [
            "the green cup",
            *["a red house"] * 2,
        ]
        assert not any(str(tmp_path) in archive.read(name).decode() for name in records)
        with archive.open("p0.png") as file:
            ours = np.asarray(Image.open(file))
    run("--input", places[0], "--caption", "the green cup", "--batch-size", 1)
    theirs = np.asarray(Image.open(run.out / "p0.png"))
    assert ours.shape == theirs.shape and np.abs(ours.astype(int) - theirs).max() <= 1  # batches round differently


def test_batches_that_cannot_be(studio, tmp_path):
    with pytest.raises(ValueError, match="there are no photos"):
        list(colorize_all(studio, [tmp_path / "captions.json"], tmp_path))
    with pytest.raises(ValueError, match="got 6 photos; at most 5"):
        list(colorize_all(studio, [tmp_path / f"{k}.png" for k in range(6)], tmp_path))
    (tmp_path / "x.xyz").write_bytes(b"1")
    *_, done = colorize_all(studio, [tmp_path / "x.xyz"], tmp_path / "batch")
    assert done.archive is None and done.text == "0 colorized, 1 failed" and str(tmp_path) not in done.problems[0]


def test_the_grey_photo_is_made_once_and_is_its_luminance(session, studio, tmp_path, monkeypatch):
    levels = torch.linspace(0, 100, 1001).reshape(1, 7, 143)
    exact = np.asarray(to_image(luminance_to_rgb(levels)))[..., 0].astype(int)
    grey = grey_picture(levels)
    assert (
        grey.mode == "L" and np.abs(np.asarray(grey) - exact).max() <= 1 and np.mean(np.asarray(grey) != exact) < 0.01
    )
    colorized(session)
    before, after = session.pictures(1000)
    assert Image.open(before).size == Image.open(after).size == (36, 27)
    session.keep(1)
    assert session.pictures(1000)[0] == before and before.is_file() and after.exists()  # it may be on its way
    assert session.pictures(1000)[0] == before and before.is_file() and not after.exists()
    assert np.abs(np.asarray(Image.open(before))[:, [4, -4]].astype(int) - [70, 180]).max() <= 2
    random_photo(1).save(tmp_path / "other.png")
    session.open(tmp_path / "other.png")
    colorized(session, 1)
    assert Image.open(session.pictures(10_000)[0]).size == (48, 40)


def test_a_change_while_the_result_is_made_counts(session, monkeypatch):
    colorized(session, 1)

    def meanwhile(rgb, saturation, warmth):
        session.set_look(0, 0)
        return apply_look(rgb, saturation, warmth)

    monkeypatch.setattr("lcad.web.session.apply_look", meanwhile)
    assert np.ptp(session.values().astype(int), axis=2).max() > 20  # all of it as it was when it began
    assert np.ptp(session.values().astype(int), axis=2).max() <= 2


def test_photos_in_memory_have_twice_the_pixels_of_one_at_most(studio, tmp_path):
    Image.new("L", (1000, 900)).save(tmp_path / "large.png")  # of the 1 million pixels that are allowed
    visitors = Visitors(studio)
    sessions = [visitors.session(key) for key in "abc"]
    sessions[0].open(tmp_path / "large.png")
    sessions[1].open(tmp_path / "large.png")
    assert len(visitors) == 3 and visitors.session("a") is sessions[0]
    visitors.session("c").open(tmp_path / "large.png")
    assert visitors.session("c") is sessions[2]
    assert len(visitors) == 2 and visitors.session("a") is sessions[0]  # the one used longest ago has made room
    assert not sessions[1].folder.exists()
    for key in "abc":
        visitors.leave(key)
    assert len(visitors) == 0


def test_a_session_that_is_let_go_leaves_nothing_in_memory(studio, photo):
    visitors = Visitors(studio)
    session = visitors.session("a")
    session.open(photo)
    session.read_caption(CAPTION)
    colorized(session, 1)
    session.write("own")
    gone = weakref.ref(session)
    gc.disable()
    try:
        del session
        visitors.leave("a")
        assert gone() is None
    finally:
        gc.enable()
