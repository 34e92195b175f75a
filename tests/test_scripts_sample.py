"""Colorizing folders through the script's own main, with good and bad input."""

import io
import json
import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from lcad.color import rgb_to_lab
from lcad.io.images import read_image, to_tensor
from lcad.masks import from_text
from lcad.masks.attention import place_prior
from scripts import sample
from tests.conftest import random_photo

ROOT = Path(__file__).parents[1]
MINI = ROOT / "checkpoints" / "mini"


def test_a_folder_with_captions_and_masks(run, photo_folder):
    random_photo(20, 90, 30).save(photo_folder / "images" / "wide.jpg")
    status, _ = run("--input", photo_folder / "images", "--mask-folder", photo_folder / "masks", "--batch-size", 3)
    assert status == 0
    names = {f"p{i}" for i in range(8)} | {"wide"}
    assert {p.stem for p in run.out.glob("*.json")} == names
    for photo in (photo_folder / "images").iterdir():
        assert read_image(run.out / f"{photo.stem}.png").size == read_image(photo).size
    record = json.loads((run.out / "p0.json").read_text())
    assert record["caption"] == "the red cup 0, the blue cup"
    assert record["masked_phrases"] == ["the red cup 0", "the blue cup"]
    assert {"photo_sha256", "model_sha256", "settings", "versions", "seconds"} <= record.keys()
    assert json.loads((run.out / "p7.json").read_text())["caption"] == "a colorful image"
    assert read_image(run.out / "contact_sheet.png").width > 400


def test_results_can_be_repeated_and_samples_differ(run, photo_folder, tmp_path):
    photo = photo_folder / "images" / "p1.png"
    status, _ = run("--input", photo, "--caption", "a red cup", "--num-samples", 2, "--seed", 3)
    assert status == 0
    one, two = read_image(run.out / "p1_0.png"), read_image(run.out / "p1_1.png")
    assert np.asarray(one).tolist() != np.asarray(two).tolist()
    run("--input", photo, "--caption", "a red cup", "--seed", 4, output=tmp_path / "again")
    assert np.array_equal(np.asarray(read_image(tmp_path / "again" / "p1.png")), np.asarray(two))


def test_nothing_is_overwritten_unasked(run, photo_folder):
    photo = photo_folder / "images" / "p1.png"
    assert run("--input", photo)[0] == 0
    before = (run.out / "p1.png").stat().st_mtime_ns
    assert run("--input", photo)[0] == 0  # the same again: kept
    status, err = run("--input", photo, "--seed", 1)
    assert status == 2 and "exists already" in err, "nothing could be done"
    assert (run.out / "p1.png").stat().st_mtime_ns == before
    assert run("--input", photo, "--seed", 1, "--overwrite")[0] == 0
    assert (run.out / "p1.png").stat().st_mtime_ns != before


def test_two_photos_of_one_stem(run, tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    random_photo(0).save(folder / "a.png")
    random_photo(1).save(folder / "a.jpg")
    random_photo(2).save(folder / "contact_sheet.png")
    assert run("--input", folder)[0] == 0
    expected = {"a.png.png", "a.jpg.png", "contact_sheet.png.png", "contact_sheet.png"}
    assert {p.name for p in run.out.glob("*.png")} == expected


def test_a_bad_photo_does_not_stop_the_others(run, photo_folder):
    images = photo_folder / "images"
    (images / "p1.png").write_bytes(b"")
    (images / "p2.png").write_bytes((images / "p2.png").read_bytes()[:100])
    (images / "p3.png").write_text("not an image")
    status, err = run("--input", images)
    assert status == 1
    lines = [line for line in err.splitlines() if line.startswith("problem: ")]
    assert len(lines) == 3 and all(f"p{i}.png" in line for i, line in zip((1, 2, 3), sorted(lines), strict=True))
    assert len(list(run.out.glob("p*.png"))) == 5


def test_bad_masks_are_reported_and_the_photo_done_without(run, photo_folder):
    Image.fromarray(np.full((9, 9), 255, np.uint8)).save(photo_folder / "masks" / "p0" / "0_cup.png")
    status, err = run("--input", photo_folder / "images" / "p0.png", "--mask-folder", photo_folder / "masks")
    assert status == 1 and "is 9x9, but the photo is 48x40" in err
    assert json.loads((run.out / "p0.json").read_text())["masked_phrases"] == []


def test_absent_photos_in_a_caption_file(run, photo_folder):
    ghosts = {f"ghost_{i}.png": "a ghost" for i in range(20)}
    (photo_folder / "captions.json").write_text(json.dumps(ghosts | {"ghost.png": "a ghost", "p0.png": "a cup"}))
    status, err = run("--input", photo_folder / "images")
    assert status == 0 and "ghost.png" in err
    assert err.count("captions name") == 6 and "captions name 16 more photos" in err
    assert len(list(run.out.glob("p*.png"))) == 8


def test_a_long_caption_is_cut_with_a_note(run, photo_folder):
    photo = photo_folder / "images" / "p0.png"
    run("--input", photo, "--caption", "red " * 100)
    assert "cut to the 77" in run.printed


@pytest.mark.parametrize(
    "args, reason",
    [
        (["--input", "nowhere"], "no such file or folder"),
        (["--model", "nowhere"], "no such checkpoint folder"),
        (["--captions", "nowhere.json"], "no such caption file"),
        (["--mask-folder", "nowhere"], "no such folder of masks"),
        (["--device", "warp:9"], "device 'warp:9' cannot be used"),
        (["--cuda-graphs"], "CUDA graphs need a CUDA device, got cpu; leave them out"),
    ],
)
def test_what_cannot_start_is_one_line(run, photo_folder, args, reason):
    status, err = run("--input", photo_folder / "images", *args)
    errors = [line for line in err.splitlines() if line.startswith("error: ")]
    assert status == 2 and len(errors) == 1 and reason in errors[0] and "Traceback" not in err


def test_unwritable_output(run, photo_folder):
    run.out.parent.mkdir(exist_ok=True)
    run.out.write_text("a file in the way")
    status, err = run("--input", photo_folder / "images" / "p0.png")
    assert status in (1, 2) and "Traceback" not in err and run.out.read_text() == "a file in the way"


@pytest.mark.skipif(not MINI.is_dir(), reason="the mini model is not in this checkout")
def test_the_bundled_examples_with_the_bundled_model(tmp_path):
    """The newcomer's first command, in few steps: every example keeps its luminance and gets colours."""
    assert sample.main(["--output", str(tmp_path), "--steps", "2", "--guidance", "1"]) == 0
    photos = sorted((sample.EXAMPLES / "images").iterdir())
    assert len(photos) >= 6
    for photo in photos:
        lab = rgb_to_lab(to_tensor(read_image(tmp_path / f"{photo.stem}.png")))
        own = rgb_to_lab(to_tensor(read_image(photo)))
        assert (lab[0] - own[0]).abs().mean() < 2.5
        assert lab[1:].abs().mean() > 2


def test_caption_levels_side_by_side(run, photo_folder):
    """Fig. 7: each photo with its caption, a partial and a scarce one."""
    options = ["--input", photo_folder, "--mask-folder", photo_folder / "masks"]
    assert run(*options, "--levels", "complete,partial,scarce")[0] == 0
    captions = {
        level: json.loads((run.out / f"p1_{level}.json").read_text())["caption"]
        for level in ("complete", "partial", "scarce")
    }
    assert captions["complete"] == "the red cup 1, the blue cup" and captions["scarce"] == "a colorful image"
    assert captions["partial"] in ("the cup 1, the blue cup", "the red cup 1, the cup")
    sheet = read_image(run.out / "contact_sheet.png")
    assert sheet.width == 5 * 224 + 6 * 8, "grey, three levels, as given"
    assert run(*options, "--levels", "all", "--overwrite")[0] == 2


def test_masks_from_words(run, tmp_path, monkeypatch):
    """Automatic masks are shown, saved, read back to the same result, and judged in record and sheet."""
    from lcad.masks.sources import SOURCES

    assert tuple(sample.SOURCES) == SOURCES
    photo, caption = tmp_path / "cups.png", "a red cup on the left and a brown dog on the right"
    image = Image.new("RGB", (64, 48), (90, 90, 90))
    image.paste((200, 200, 200), (6, 10, 26, 40))
    image.paste((30, 30, 30), (40, 8, 60, 30))
    image.save(photo)

    def attention(_pipeline, _photo, _caption, phrases):
        return torch.stack([place_prior(phrase.position, (6, 8)) for phrase in phrases])

    monkeypatch.setattr(from_text, "phrase_attention", attention)  # as if the tiny model knew both
    given = ("--input", photo, "--caption", caption, "--instance-strength", 20)
    status, err = run(
        *given, "--masks", "auto", "--show-masks", "--save-masks", "--num-samples", 3, "--best-by", "adherence"
    )
    assert status == 0, err
    record = json.loads((tmp_path / "out" / "cups.json").read_text())
    assert len(record["mask_scores"]) == len(record["masked_phrases"]) == len(record["instances"][0])
    assert (tmp_path / "out" / "shown_masks" / "cups.png").is_file()
    assert len(record["masked_phrases"]) == 2
    row = record["instances"][0][0]
    assert row["adherent"] == (row["asked"] == row["name"]) and row["asked"] in ("red", "brown")
    saved = tmp_path / "out" / "masks"
    status, err = run(*given, "--mask-folder", saved, "--output", tmp_path / "again")
    again = json.loads((tmp_path / "again" / "cups.json").read_text())
    assert status == 0 and again["masks_sha256"] == record["masks_sha256"], err
    status, err = run("--input", photo, "--caption", "a blue cup", "--mask-folder", saved, "--output", tmp_path / "x")
    assert status == 1 and "is for the caption" in err and "colorized without masks" in err


def test_captions_and_models_without_masks(run, photo_folder, capsys):
    photo = ("--input", photo_folder / "images" / "p7.png")
    status, err = run(*photo, "--caption", "a colorful image", "--masks", "auto")
    assert status == 0, err
    for given, message in (
        (("--masks", "sam"), "SAM needs its weights"),
        (("--masks", "sam", "--sam-checkpoint", "nowhere.pth"), "nowhere.pth"),
        (("--masks", "referring", "--text-segmenter", "nowhere"), "cannot be loaded as CLIPSeg"),
        (("--masks", "files"), "masks from files need their folder"),
    ):
        status, err = run(*photo, *given)
        assert status == 2 and message in err, err


def test_folders_below_are_mirrored(run, photo_folder, tmp_path):
    """Each folder with its own captions; what is in the output folder, hidden or linked is passed by."""
    root, output = tmp_path / "archive", tmp_path / "archive" / "coloured"
    for file in ("a.png", "1901/may/a.png", "1902/b.jpg", ".trash/c.png", "coloured/d.png"):
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        random_photo(len(file)).save(root / file)
    (root / "1902" / "captions.json").write_text('{"b.jpg": "a red cup", "gone.jpg": "a cup"}')
    (root / "link").symlink_to(photo_folder / "images")
    status, err = run("--input", root, "--recursive", output=output)
    assert status == 0 and "captions name 'gone.jpg', which is not in" in err and "1902" in err
    made = {str(path.relative_to(output)) for path in output.rglob("*.json")}
    assert made == {"a.json", "1901/may/a.json", "1902/b.json"}
    assert json.loads((output / "1902" / "b.json").read_text())["caption"] == "a red cup"
    assert (output / "1901" / "may" / "a.png").is_file()
    with pytest.raises(SystemExit):
        run("--input", root, "--recursive", "--save-masks")


def test_16_bit_photos_stay_so(run, tmp_path):
    import tifffile

    from lcad.io.photos import read_photo

    values = np.linspace(0, 65535, 40 * 48).reshape(40, 48).astype(np.uint16)
    tifffile.imwrite(tmp_path / "scan.tif", values, photometric="minisblack")
    assert run("--input", tmp_path / "scan.tif")[0] == 0
    result = read_photo(run.out / "scan.tif")
    assert result.depth == 16
    assert (result.luminance() - read_photo(tmp_path / "scan.tif").luminance()).abs().max() < 0.002
    assert run("--input", tmp_path / "scan.tif", "--format", "jpg")[0] == 0
    assert read_image(run.out / "scan.jpg").size == (48, 40)


def test_a_run_is_repeated_from_its_record(run, photo_folder, tmp_path):
    """The same pixels; a torn last line does no harm, and a photo that has changed is named."""
    (photo_folder / "images" / "bad.png").write_bytes(b"no image")
    assert run("--input", photo_folder / "images", "--seed", 5, "--caption", "a red cup")[0] == 1
    record = run.out / "run.jsonl"
    lines = [json.loads(line) for line in record.read_text().splitlines()]
    assert lines[0]["command"][-1] == "a red cup"
    outcomes = {line["name"]: line["outcome"] for line in lines[1:]}
    assert outcomes == {f"p{i}": "written" for i in range(8)} | {"bad": "failed"}
    with record.open("a") as file:
        file.write('{"name": "p0", "outco')
    (photo_folder / "images" / "bad.png").unlink()
    assert sample.main(["--replay", str(record), "--output", str(tmp_path / "again")]) == 0
    assert (tmp_path / "again" / "p3.png").read_bytes() == (run.out / "p3.png").read_bytes()
    random_photo(99).save(photo_folder / "images" / "p3.png")
    assert sample.main(["--replay", str(record), "--output", str(tmp_path / "third")]) == 1
    assert sample.main(["--replay", str(record), "--output", str(tmp_path / "third")]) == 2  # in use
    assert run("--input", photo_folder / "images", "--seed", 5, "--caption", "a red cup")[0] == 1  # p3 is another now
    outcomes = [json.loads(line) for line in record.read_text().splitlines() if line.endswith("}")][-8:]
    assert sorted(line["outcome"] for line in outcomes) == ["failed"] + ["kept"] * 7


def test_a_stopped_run_is_resumed_by_its_folder(run, photo_folder):
    assert run("--input", photo_folder / "images", "--caption", "a red cup", "--seed", 3)[0] == 0
    before = {path.name: path.read_bytes() for path in run.out.glob("p*.png")}
    for i in (2, 5):
        (run.out / f"p{i}.png").unlink()
    assert sample.main(["--resume", str(run.out)]) == 0
    for name, content in before.items():  # those made again were so in a smaller batch
        same = [np.asarray(Image.open(file), int) for file in (run.out / name, io.BytesIO(content))]
        assert np.abs(same[0] - same[1]).mean() < 0.05, name
    last = [json.loads(line) for line in (run.out / "run.jsonl").read_text().splitlines()][-8:]
    assert sorted(line["outcome"] for line in last) == ["kept"] * 6 + ["written"] * 2
    assert sample.main(["--resume", str(photo_folder)]) == 2


@pytest.mark.parametrize("content", [b"", b"\xff\xfe", b"[1, 2]", b'{"command": "rm"}'])
def test_what_is_no_record_of_a_run(content, run, tmp_path, capsys):
    (tmp_path / "run.jsonl").write_bytes(content)
    assert sample.main(["--replay", str(tmp_path / "run.jsonl"), "--output", str(tmp_path / "again")]) == 2
    assert "run.jsonl" in capsys.readouterr().err


def test_dry_run_writes_nothing(run, photo_folder):
    images = photo_folder / "images"
    assert run("--input", images, "--dry-run")[0] == 0
    assert not run.out.exists() and "8 new" in run.printed and "about 0." in run.printed
    assert run("--input", images / "p1.png", "--captions", photo_folder / "captions.json")[0] == 0
    assert run("--input", images / "p2.png", "--seed", 3)[0] == 0
    before = sorted(run.out.iterdir())
    assert run("--input", images, "--dry-run")[0] == 0
    assert "6 new, 1 done, 1 in the way" in run.printed
    assert sorted(run.out.iterdir()) == before


def test_the_size_the_model_works_at(run, photo_folder, tiny_pipeline, capsys):
    """Its long side, in the photo's aspect; results are of the photo's size all the same."""
    assert tiny_pipeline.model_size(40, 48, long_side=96) == (80, 96)
    photo = photo_folder / "images" / "p1.png"
    assert run("--input", photo, "--resolution", 64)[0] == 0
    assert read_image(run.out / "p1.png").size == (48, 40)
    assert json.loads((run.out / "p1.json").read_text())["settings"]["model_size"] == 64
    with pytest.raises(SystemExit):
        run("--input", photo, "--resolution", 3)


def test_a_photo_that_changes_while_it_is_read(run, photo_folder, monkeypatch):
    from lcad.inference import reading

    def slow_read(path):
        photo = read(path)
        if path.stem == "p2":
            path.write_bytes(path.read_bytes() + b" ")
        return photo

    read = reading.read_photo
    monkeypatch.setattr(reading, "read_photo", slow_read)
    status, err = run("--input", photo_folder / "images", "--batch-size", 3, "--num-readers", 3)
    assert status == 1 and "p2.png: was changed while it was read" in err
    assert len(list(run.out.glob("p*.png"))) == 7


def test_a_large_photo_is_alone_in_memory(run, photo_folder, monkeypatch):
    """None is read before the one before is written; smaller ones are read ahead."""
    from lcad.inference import finish, plan, reading

    events = []

    def noting(what, action):
        def noted(*args):
            events.append(what)
            return action(*args)

        return noted

    monkeypatch.setattr(reading, "read_photo", noting("read", reading.read_photo))
    monkeypatch.setattr(finish, "write_photo", noting("write", finish.write_photo))
    images = photo_folder / "images"
    assert run("--input", images, "--batch-size", 4)[0] == 0
    assert events[:8] == ["read"] * 8
    events.clear()
    monkeypatch.setattr(plan, "BATCH_PIXELS", 48 * 40 - 1)
    assert run("--input", images, "--batch-size", 4, "--overwrite", "--seed", 1)[0] == 0
    assert events == ["read", "write"] * 8
    monkeypatch.setattr(plan, "BATCH_PIXELS", 2 * 48 * 40)
    assert run("--input", images, "--batch-size", 4, "--overwrite", "--seed", 2)[0] == 0
    assert len(list(run.out.glob("p*.png"))) == 8


def test_a_full_disk(run, tmp_path):
    """The photo is reported, nothing is left of its result, and it is made once there is room."""
    random_photo(0, 300, 200).save(tmp_path / "large.png")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, before[1]))
    try:
        status, err = run("--input", tmp_path / "large.png")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert status == 2 and "large.png: cannot be written (File too large)" in err
    assert {path.name for path in run.out.iterdir()} == {"large.json", "run.jsonl"}
    assert run("--input", tmp_path / "large.png")[0] == 0 and (run.out / "large.png").is_file()


def test_what_a_killed_run_leaves_is_removed(run, photo_folder):
    import os

    run.out.mkdir()
    for name, age in ((".p1.png.abc.unfinished", 3600), (".p2.png.abc.unfinished", 0), (".hidden", 3600)):
        (run.out / name).write_bytes(b"half")
        os.utime(run.out / name, (os.path.getmtime(run.out / name) - age,) * 2)
    assert run("--input", photo_folder / "images" / "p1.png")[0] == 0
    assert {path.name for path in run.out.glob(".*")} == {".p2.png.abc.unfinished", ".hidden"}, "not what is in work"


def test_a_larger_size_in_tiles(run, photo_folder):
    photo = photo_folder / "images" / "p0.png"
    assert run("--input", photo, "--tiled-resolution", 96, "--mask-folder", photo_folder / "masks")[0] == 0
    assert read_image(run.out / "p0.png").size == (48, 40)
    assert json.loads((run.out / "p0.json").read_text())["settings"]["tiled_size"] == 96


@pytest.mark.slow
def test_photos_are_shared_out_to_processes(tiny_checkpoint, photo_folder, tmp_path):
    """Each photo is done once, in one record, started by the script itself or by torchrun."""
    script = [ROOT / "scripts" / "sample.py", "--input", photo_folder / "images", "--model", tiny_checkpoint]
    script += ["--steps", "2", "--device", "cpu", "--batch-size", "1", "--output"]
    torchrun = ["-m", "torch.distributed.run", "--nproc_per_node", "2"]
    for name, before, after in (("one", [], []), ("two", [], ["--devices", "2"]), ("torchrun", torchrun, [])):
        subprocess.run([sys.executable, *before, *script, tmp_path / name, *after], check=True, cwd=ROOT)
        lines = [json.loads(line) for line in (tmp_path / name / "run.jsonl").read_text().splitlines()]
        assert "command" in lines[0] and sorted(line["name"] for line in lines[1:]) == [f"p{i}" for i in range(8)]
        same = {path.name for path in (tmp_path / name).iterdir()} == {p.name for p in (tmp_path / "one").iterdir()}
        assert same and read_image(tmp_path / name / "contact_sheet.png").height > 8 * 200
        for i in range(8):
            results = [np.asarray(read_image(tmp_path / run / f"p{i}.png")).astype(int) for run in ("one", name)]
            assert np.abs(results[0] - results[1]).max() <= 1
    again = ["--replay", tmp_path / "two" / "run.jsonl", "--output", tmp_path / "again"]
    subprocess.run([sys.executable, script[0], *again], check=True, cwd=ROOT)
