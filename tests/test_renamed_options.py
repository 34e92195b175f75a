"""Options by their names of version 0.1: they work, say the new name once, and old records are still run by them."""

import json
import shutil

import pytest

from lcad.cli import evaluate, sample, web
from lcad.cli.common import RENAMED, build_parser, take_new_names

OLD = {
    "--jobs": "3",
    "--model-size": "64",
    "--pick": "adherence",
    "--refinement": "two_pass",
    "--strength": "7.5",
    "--tiled-size": "96",
    "--words-model": "folder",
}


def test_old_options_mean_the_new_ones_and_say_so(capsys):
    args = sample.parse([part for pair in OLD.items() for part in pair])
    assert capsys.readouterr().err == "".join(f"{old} is now {RENAMED[old]}\n" for old in OLD)
    new = sample.parse([part for old, value in OLD.items() for part in (RENAMED[old], value)])
    assert vars(args) == vars(new), "the command for the record, too"
    assert (args.num_readers, args.resolution, args.best_by, args.instance_sampling) == (3, 64, "adherence", "two_pass")
    assert (args.instance_strength, args.tiled_resolution, args.text_segmenter) == (7.5, 96, "folder")
    joined = sample.parse(["--strength=7.5", "--jobs=3"])
    assert joined.command == ["--instance-strength=7.5", "--num-readers=3"] and joined.instance_strength == 7.5
    assert sample.parse(["--repeat", "run.jsonl", "--output", "again"]).replay.name == "run.jsonl"
    capsys.readouterr()
    assert web.parse(["--words-model", "folder"]).text_segmenter == "folder"
    assert capsys.readouterr().err == "--words-model is now --text-segmenter\n"
    sample.parse(["--instance-strength", "7.5", "--caption=--strength", "--output", "strength"])
    assert not capsys.readouterr().err, "nothing is said of new names"


def test_one_of_several_processes_says_it(monkeypatch, capsys):
    for rank in ("0", "1"):
        monkeypatch.setenv("LOCAL_RANK", rank)
        assert sample.parse(["--jobs", "3"]).num_readers == 3
    assert capsys.readouterr().err == "--jobs is now --num-readers\n"


def test_both_names_of_an_option_are_refused(capsys):
    with pytest.raises(SystemExit):
        sample.parse(["--strength", "7", "--instance-strength=7"])
    assert "--strength is now --instance-strength, which is given, too; leave out --strength" in capsys.readouterr().err


def test_an_option_of_another_command_keeps_its_name(capsys):
    with pytest.raises(SystemExit):
        evaluate.main(["--input", "photos", "--output", "scores", "--strength", "7"])
    said = capsys.readouterr().err
    assert "unrecognized arguments: --strength 7" in said and "is now" not in said
    parser = build_parser("lcad x", "")
    parser.add_argument("--repeat")
    parser.add_argument("--replay")
    assert parser.parse_args(["--repeat", "2"]).repeat == "2" and not capsys.readouterr().err, "an option of its own"
    assert take_new_names(["--jobs", "1", "--", "--jobs"]) == ["--num-readers", "1", "--", "--jobs"]


def test_a_folder_as_a_source_of_masks_is_a_mask_folder(tmp_path, monkeypatch, capsys):
    seen = []
    monkeypatch.setattr(evaluate, "run", lambda args: seen.append((args.masks, args.mask_folder)) or 0)
    given = ["--input", str(tmp_path), "--output", str(tmp_path / "scores"), "--masks"]
    assert evaluate.main([*given, str(tmp_path)]) == 0 and seen == [("auto", tmp_path)]
    assert capsys.readouterr().err == f"--masks FOLDER is now --mask-folder {tmp_path}\n"
    with pytest.raises(SystemExit):
        evaluate.main([*given, "nowhere"])
    assert "--masks: got 'nowhere'; allowed: auto, none, files, regions" in capsys.readouterr().err


def test_a_record_of_version_0_1_is_resumed_and_replayed(run, photo_folder, tmp_path, capsys):
    """Quietly: it was not typed now. The lines that are added have the new names."""
    photos = tmp_path / "in"
    photos.mkdir()
    for name in ("p0.png", "p1.png"):
        shutil.copy(photo_folder / "images" / name, photos)
    masks = ("--mask-folder", photo_folder / "masks", "--captions", photo_folder / "captions.json")
    new = ("--instance-sampling", "two_pass", "--instance-strength=9", "--num-readers", 1, "--resolution", 64)
    status, err = run("--input", photos, *masks, *new)
    assert status == 0, err
    record = run.out / "run.jsonl"
    first, *rest = record.read_text().splitlines()
    old = {new: old for old, new in RENAMED.items()}
    line = json.loads(first)
    command = [
        old.get(name, name) + equals + value for name, equals, value in (p.partition("=") for p in line["command"])
    ]
    assert {"--refinement", "--strength=9", "--jobs", "--model-size"} <= set(command)
    record.write_text("\n".join([json.dumps(line | {"command": command}, ensure_ascii=False), *rest]) + "\n")
    before = (run.out / "p1.png").read_bytes()
    (run.out / "p1.png").unlink()
    assert sample.main(["--resume", str(run.out)]) == 0
    said = capsys.readouterr()
    assert "1 colorized, 1 kept" in said.out and "is now" not in said.err
    last = [json.loads(text) for text in record.read_text().splitlines()][len(rest) + 1]
    assert set(take_new_names(command)) - {"--output"} - {str(run.out)} == set(last["command"])
    record.write_text("\n".join([json.dumps(line | {"command": command}, ensure_ascii=False), *rest]) + "\n")
    assert sample.main(["--repeat", str(record), "--output", str(tmp_path / "again")]) == 0
    said = capsys.readouterr()
    assert "2 of 2 photos have the same pixels" in said.out
    assert said.err.count("is now") == 1 and "--repeat is now --replay" in said.err
    assert (tmp_path / "again" / "p1.png").read_bytes() == before
