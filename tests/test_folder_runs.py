"""A folder run accounts for every file it meets, and harms none: through the script's own main."""

import errno
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageFont

from lcad.evaluation import runs
from lcad.inference import batch_runner, finish, reading
from lcad.inference.plan import result_names
from lcad.inference.run_records import RunRecord, read_record
from lcad.inference.summary import Summary, is_own_sheet
from lcad.io.contact_sheet import fit_text
from lcad.io.images import read_image
from lcad.pipeline import LCADPipeline
from scripts import sample
from tests.conftest import random_photo


@pytest.fixture
def photos(tmp_path) -> Path:
    folder = tmp_path / "in"
    folder.mkdir()
    for i in range(3):
        random_photo(i).save(folder / f"p{i}.png")
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def made(folder: Path) -> set[str]:
    return {path.name for path in folder.rglob("*") if path.suffix in (".png", ".tif") and not is_own_sheet(path)}


@pytest.mark.parametrize("way", ["folder", "link", "hard link", "format"])
def test_a_photo_is_never_replaced(run, photos, tmp_path, way):
    output, before = photos, contents(photos)
    options = ["--overwrite"]
    if way == "link":
        output = tmp_path / "link"
        output.symlink_to(photos)
    elif way == "hard link":
        output = tmp_path / "out"
        output.mkdir()
        for photo in photos.iterdir():
            os.link(photo, output / photo.name)
    elif way == "format":
        for photo in list(photos.iterdir()):
            photo.rename(photo.with_suffix(".tif"))
        before, options = contents(photos), ["--overwrite", "--format", "tif"]
        (photos / "p0.tif").write_bytes(before["p0.tif"])
    status, err = run("--input", photos, *options, output=output)
    assert status == 2 and err.count("would replace the photo itself; choose another --output") == 3
    assert {name: contents(photos)[name] for name in before} == before


def test_a_data_folder_is_input(run, photos):
    """Photos in `images/`, captions beside it, as data/README.md has it."""
    folder = photos.parent / "set"
    folder.mkdir()
    photos.rename(folder / "images")
    (folder / "captions.json").write_text(json.dumps({"p1.png": "a red cup"}))
    assert run("--input", folder, output=photos.parent / "results")[0] == 0
    records = [json.loads(path.read_text()) for path in sorted((photos.parent / "results").glob("p*.json"))]
    assert [record["caption"] for record in records] == ["a colorful image", "a red cup", "a colorful image"]


def test_results_of_a_run_are_not_input(run, photos):
    """Neither in the folder itself, nor in an output folder below."""
    assert run("--input", photos, "--format", "tif", output=photos)[0] == 0
    before = contents(photos)
    status, err = run("--input", photos, "--format", "tif", output=photos)
    assert status == 0 and "3 kept from before" in run.printed and "3 results of an earlier run" in err
    after = contents(photos)
    assert {name: after[name] for name in before if name != "run.jsonl"}.items() <= before.items()
    assert after.keys() == before.keys()

    inner, outer = photos / "coloured", photos.parent / "outer"
    assert run("--input", photos, output=inner)[0] == 0
    status, err = run("--input", photos, "--recursive", output=outer)
    assert status == 0 and f"{inner}: results of an earlier run are passed over" in err
    assert made(outer) == {f"p{i}.png" for i in range(3)}
    assert run("--input", inner, output=photos.parent / "again")[0] == 2, "there are only results"


def test_files_of_the_user_in_the_output_folder_are_kept(run, photos):
    run.out.mkdir()
    (run.out / "p0.json").write_text('{"mine": 1}')
    (run.out / "p1.json").write_text("[1, 2]")
    random_photo(9).save(run.out / "contact_sheet.png")
    (run.out / "run_notes.jsonl").write_text("notes\n")
    before = contents(run.out)
    status, err = run("--input", photos, "--overwrite")
    assert status == 1 and err.count("is not a record of this program") == 2
    assert before.items() <= contents(run.out).items() and is_own_sheet(run.out / "contact_sheet_2.png")
    assert "contact_sheet_2.png" in run.printed
    assert run("--input", photos)[0] == 1 and not (run.out / "contact_sheet_3.png").exists()
    (run.out / "run.jsonl").write_text("my own runs\n")
    status, err = run("--input", photos)
    assert status == 2 and "run.jsonl: is not the record of a run" in err
    assert (run.out / "run.jsonl").read_text() == "my own runs\n"


def test_two_runs_into_one_folder(run, photos):
    code = "import sys, pathlib; from lcad.inference.run_records import RunRecord, this_process\n"
    code += "record = RunRecord(pathlib.Path(sys.argv[1])); record.write({'command': []} | this_process())\n"
    code += "print('ready', flush=True); input()"
    other = subprocess.Popen(
        [sys.executable, "-c", code, run.out], stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=sample.ROOT
    )
    try:
        assert other.stdout.readline() == b"ready\n"
        status, err = run("--input", photos)
        assert status == 2 and f"process {other.pid} on " in err and not made(run.out)
    finally:
        other.communicate(b"\n")
    assert run("--input", photos)[0] == 0


@pytest.mark.parametrize(
    "names",
    [
        ["a.jpg", "a.tif", "a.jpg.png"],
        ["q.tiff", "q.png", "q.tiff.png"],
        ["A.png", "a.png", "A.jpg"],
        ["Z\u00fc.png", "Zu\u0308.png"],
        ["contact_sheet.png", "Contact_Sheet.jpg", "...png", "..png", "x" * 251 + ".png", "\u00fc" * 120 + ".jpg"],
    ],
)
def test_every_photo_has_a_name_of_its_own(names):
    chosen = result_names([Path(name) for name in names])
    assert len({name.casefold() for name in chosen.values()} - {"contact_sheet"}) == len(names)
    assert all(name.strip(".") and len(os.fsencode(name)) <= 231 for name in chosen.values())
    assert result_names([Path(name) for name in reversed(names)]) == chosen


def test_odd_names(run, photos):
    """Not UTF-8, with a line separator, of 255 bytes, and of dots alone, whose masks have no folder."""
    odd = [os.fsdecode(b"m_\xfc.png"), "a\u2028b.png", "x" * 251 + ".png", "...png"]
    for name in odd:
        shutil.copy(photos / "p0.png", photos / name)
    status, err = run("--input", photos, "--caption", "a red cup on the left", "--save-masks")
    assert status == 0, err
    listed = {Path(row["photo"]).name for row in read_record(run.out / "run.jsonl").photos.values()}
    assert listed == {*odd, "p0.png", "p1.png", "p2.png"} and len(made(run.out)) >= 7
    assert not list(run.out.glob("[0-9]_*")) and not list(run.out.parent.glob("[0-9]_*"))
    assert run("--input", photos, "--caption", "a red cup on the left")[0] == 0 and "7 kept" in run.printed


def test_results_of_another_model_are_not_kept(run, tiny_checkpoint, photos, tmp_path):
    other = shutil.copytree(tiny_checkpoint, tmp_path / "other")
    assert run("--input", photos, "--model", other)[0] == 0
    config = other / "scheduler" / "scheduler_config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"prediction_type": "v_prediction"}))
    status, err = run("--input", photos, "--model", other)
    assert status == 2 and err.count("was made differently") == 3


def test_a_hub_id_is_known_by_what_was_downloaded(run, tiny_checkpoint, photos, tmp_path, monkeypatch):
    folders = [shutil.copytree(tiny_checkpoint, tmp_path / name) for name in ("one", "two")]
    (folders[1] / "model_index.json").write_text((folders[1] / "model_index.json").read_text() + "\n")
    monkeypatch.setattr("lcad.pipeline.download", lambda source, **_: folders[0])
    assert run("--input", photos, "--model", "someone/lcad")[0] == 0
    assert json.loads((run.out / "p0.json").read_text())["model"] == str(folders[0])
    monkeypatch.setattr("lcad.pipeline.download", lambda source, **_: folders[1])
    assert run("--input", photos, "--model", "someone/lcad")[0] == 2


def test_a_baseline_is_kept_only_if_it_was_made_the_same(photos, tmp_path):
    from lcad.evaluation.baselines import grey, mean_chroma

    samples = [runs.Sample(photos / "p0.png", "a cup")]
    runs.make_baseline(grey, samples, tmp_path / "base", 32)
    result = tmp_path / "base" / "p0.png"
    before = result.stat().st_mtime_ns, result.read_bytes()
    runs.make_baseline(grey, samples, tmp_path / "base", 32)
    assert result.stat().st_mtime_ns == before[0]
    for method, size in ((mean_chroma, 32), (mean_chroma, 40)):
        runs.make_baseline(method, samples, tmp_path / "base", size)
        assert read_image(result).size == (size, size) and result.read_bytes() != before[1]


def failing(monkeypatch, module, name: str, error: BaseException, when):
    """Let a function raise where `when(its first argument)` holds."""
    own = getattr(module, name)

    def call(*args, **options):
        if when(args[0]):
            raise error
        return own(*args, **options)

    monkeypatch.setattr(module, name, call)


@pytest.mark.parametrize(
    "where, error",
    [
        ("read", MemoryError()),
        ("masks", RuntimeError("no\nkernel")),
        ("finish", KeyError("k")),
        ("write", UnicodeError("x")),
    ],
)
def test_whatever_goes_wrong_with_a_photo_is_its_own_failure(run, photos, monkeypatch, where, error):
    if where == "read":
        failing(monkeypatch, reading, "read_photo", error, lambda path: path.stem == "p1")
    elif where == "masks":
        find = lambda path, image, caption: (_ for _ in ()).throw(error) if path.stem == "p1" else None  # noqa: E731
        monkeypatch.setattr("lcad.masks.sources.build_finder", lambda *args: find)
    elif where == "finish":
        failing(monkeypatch, batch_runner, "finish", error, lambda item: item.job.name == "p1")
    else:
        failing(monkeypatch, finish, "write_photo", error, lambda path: path.stem == "p1")
    status, err = run("--input", photos, "--caption", "a red cup")
    assert status == 1 and made(run.out) == {"p0.png", "p2.png"}
    assert err.count("problem: ") == 1 and "p1" in err and "1 failed" in run.printed


@pytest.mark.parametrize("error", [torch.cuda.OutOfMemoryError(), MemoryError(), RuntimeError("odd")])
def test_a_batch_that_the_model_cannot_do_is_done_in_halves(run, photos, monkeypatch, error):
    sizes, own = [], LCADPipeline.__call__

    def call(self, luminances, captions, *args, **options):
        sizes.append(len(luminances))
        if len(luminances) > 1 or captions == ["a curse"]:
            raise error
        return own(self, luminances, captions, *args, **options)

    (photos / "captions.json").write_text('{"p1.png": "a curse"}')
    monkeypatch.setattr(LCADPipeline, "__call__", call)
    status, err = run("--input", photos)
    # what memory had no room for is not tried again
    tried = [3, 1, 2, 1, 1] if type(error) is RuntimeError else [3, 1, 1, 1]
    assert status == 1 and sizes == tried and made(run.out) == {"p0.png", "p2.png"}
    assert "p1.png: " in err and json.loads((run.out / "p0.json").read_text())["batch"] == ["p0"]


def test_an_interrupted_run_ends_with_its_summary(run, photos, monkeypatch):
    failing(monkeypatch, batch_runner, "finish", KeyboardInterrupt(), lambda item: item.job.name == "p2")
    status, _ = run("--input", photos, "--batch-size", 1)
    assert status == 130 and "2 colorized, 0 kept from before, 0 failed" in run.printed
    monkeypatch.undo()
    assert run("--input", photos, "--batch-size", 1)[0] == 0 and "1 colorized, 2 kept" in run.printed


def test_a_damaged_kept_result(run, photos):
    assert run("--input", photos)[0] == 0
    (run.out / "p1.png").write_bytes(b"\x89PNG")
    status, err = run("--input", photos)
    assert status == 1 and "p1.png" in err and "2 kept from before, 1 failed" in run.printed


def test_files_that_are_not_colorized_are_accounted_for(run, photos):
    """Images of kinds that are not read are listed; what is no image is passed by, links and pipes with a note."""
    for name in ("scan.CR2", "logo.svg", "notes.txt", "data.json"):
        (photos / name).write_text("{}")
    os.mkfifo(photos / "pipe.png")
    (photos / "gone.png").symlink_to("nowhere.png")
    (photos / "below").mkdir()
    (photos / "below" / "gone.png").symlink_to("nowhere.png")
    (photos / "linked").symlink_to(photos)
    status, err = run("--input", photos, "--recursive")
    assert status == 1 and made(run.out) == {f"p{i}.png" for i in range(3)}
    problems = [line for line in err.splitlines() if line.startswith("problem: ")]
    assert len(problems) == 2 and "scan.CR2: camera raw" in err and "logo.svg" in err
    notes = [line for line in err.splitlines() if line.startswith("note: ")]
    assert len(notes) == 4 and "pipe.png" in err and "linked" in err and "notes.txt" not in err
    for photo in photos.glob("p[0-9].png"):
        photo.unlink()
    assert run("--input", photos)[0] == 2, "nothing could be done"


@pytest.mark.parametrize("name", ["guidance", "instance-strength"])
@pytest.mark.parametrize("value", ["nan", "1e30", "inf", "-1"])
def test_numbers_out_of_range(run, photos, name, value):
    with pytest.raises(SystemExit):
        run("--input", photos, f"--{name}={value}")
    assert not run.out.exists()


def test_a_very_long_caption_is_cut_at_once(monkeypatch):
    font, asked = ImageFont.load_default(15), []
    own = font.getlength
    monkeypatch.setattr(font, "getlength", lambda text: asked.append(len(text)) or own(text), raising=False)
    cut = fit_text("a red coat " * 100_000, 400, font)
    assert cut.endswith("...") and 380 < own(cut) <= 400 and len(asked) < 20 and max(asked) < 2000
    assert fit_text("a cup", 400, font) == "a cup" and fit_text("a cup", 1, font) == "..."


def test_a_full_disk_for_record_and_sheet(run, photos, monkeypatch):
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    own = RunRecord._append

    def append(self, line):
        if b'"outcome"' in line:
            raise OSError(full.errno, full.strerror, str(self.path))
        own(self, line)

    def write_sheet(self, folder):
        raise full

    monkeypatch.setattr(RunRecord, "_append", append)
    monkeypatch.setattr(Summary, "write_sheet", write_sheet)
    status, err = run("--input", photos)
    assert status == 1 and "3 colorized" in run.printed and err.count("No space left on device") == 2
    assert "run.jsonl: cannot be written" in err and "contact sheet" in err


def test_a_line_that_a_full_disk_has_cut(tmp_path):
    record = RunRecord(tmp_path)
    record.write({"command": ["x"]})
    with pytest.raises(OSError, match="run.jsonl"):
        own, record._file = record._file, type("Full", (), {"write": lambda _, data: own.write(data[:9])})()
        record.write({"name": "lost"})
    record._file = own
    record.write({"name": "kept"})
    record.close()
    assert set(read_record(tmp_path / "run.jsonl").photos) == {"kept"}


def test_a_run_is_resumed_from_anywhere(run, tiny_checkpoint, photos, monkeypatch, tmp_path):
    monkeypatch.chdir(photos.parent)
    options = ["--model", str(tiny_checkpoint), "--steps", "2", "--device", "cpu", "--input", "in"]
    assert sample.main([*options, "--output", "out"]) == 0
    (run.out / "p1.png").unlink()
    monkeypatch.chdir("/")
    assert sample.main(["--resume", str(run.out)]) == 0 and (run.out / "p1.png").is_file()
    assert sample.main(["--replay", str(run.out / "run.jsonl"), "--output", str(tmp_path / "again")]) == 0


def test_a_run_that_overwrites_is_resumed_as_such(run, photos):
    """What it has replaced is kept, what it has not is replaced, and what is damaged is made again."""
    assert run("--input", photos, "--seed", 1)[0] == 0
    names = sorted(path.name for path in run.out.glob("p*.png"))
    assert len(names) > 2
    old = {name: ((run.out / name).read_bytes(), (run.out / name).with_suffix(".json").read_bytes()) for name in names}
    assert run("--input", photos, "--overwrite")[0] == 0
    new = {name: (run.out / name).read_bytes() for name in names}
    for name in names[1:]:  # as if the run had been stopped after the first
        (run.out / name).write_bytes(old[name][0])
        (run.out / name).with_suffix(".json").write_bytes(old[name][1])
    time = (run.out / names[0]).stat().st_mtime_ns
    assert sample.main(["--resume", str(run.out)]) == 0
    assert {name: (run.out / name).read_bytes() for name in names} == new
    assert (run.out / names[0]).stat().st_mtime_ns == time, "it was done"
    before = np.asarray(read_image(run.out / names[0]), int)
    (run.out / names[0]).write_bytes(new[names[0]][:50])
    assert sample.main(["--resume", str(run.out)]) == 0
    again = np.asarray(read_image(run.out / names[0]), int)
    assert np.abs(again - before).mean() < 0.05, "in a batch of its own"


@pytest.mark.parametrize(
    "options", [["--resume", "out", "--steps", "3"], ["--replay", "r", "--seed=1"], ["--overw"], ["--resum", "out"]]
)
def test_options_that_would_be_of_no_effect(options, capsys):
    with pytest.raises(SystemExit):
        sample.parse(options)
    assert "--steps" in capsys.readouterr().err or "steps" not in str(options)


def test_a_repetition_makes_the_batches_of_the_record(run, photos, tmp_path, monkeypatch):
    """Also those that a resumed run has made."""
    for i in range(3, 7):
        random_photo(i).save(photos / f"p{i}.png")
    assert run("--input", photos, "--batch-size", 4, "--caption", "a red cup")[0] == 0
    for i in (1, 5, 6):
        (run.out / f"p{i}.png").unlink()
    assert sample.main(["--resume", str(run.out)]) == 0
    batches, own = [], batch_runner.FolderRun._colorize
    monkeypatch.setattr(
        batch_runner.FolderRun,
        "_colorize",
        lambda self, batch: batches.append({item.job.name for item in batch}) or own(self, batch),
    )
    assert sample.main(["--replay", str(run.out / "run.jsonl"), "--output", str(tmp_path / "again")]) == 0
    assert {"p1"} in batches and {"p0", "p1", "p2", "p3"} in batches
    again = {path.name: np.asarray(Image.open(path)).tolist() for path in (tmp_path / "again").glob("p*.png")}
    assert again == {path.name: np.asarray(Image.open(path)).tolist() for path in run.out.glob("p*.png")}
