"""scripts/transfer_colors.py: files in, files out."""

import json
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image

from lcad.color import rgb_to_lab, rgb_to_luminance
from lcad.io.images import read_image, to_tensor
from lcad.io.photos import read_photo
from scripts.studies.transfer_colors import distorted
from scripts.transfer_colors import main

EXAMPLES = Path(__file__).resolve().parents[1] / "data" / "examples" / "images"


def example(name: str) -> Image.Image:
    image = read_image(EXAMPLES / f"{name}.jpg")
    image.thumbnail((240, 240), Image.Resampling.LANCZOS)
    return image


def chroma(path: Path) -> float:
    return float(rgb_to_lab(to_tensor(read_image(path)))[1:].norm(dim=0).mean())


@pytest.fixture
def pairs(tmp_path) -> tuple[Path, Path]:
    """Two grey photos, and their pictures in colour of other sizes."""
    photos, edited = tmp_path / "photos", tmp_path / "edited"
    photos.mkdir()
    edited.mkdir()
    for name in ("coffee", "china"):
        example(name).convert("L").save(photos / f"{name}.png")
        distorted(example(name), "all", 1).save(edited / f"{name.upper()}.jpg")
    return photos, edited


@pytest.fixture
def transfer(tmp_path, capsys):
    """Run the script; returns exit status and what it said."""

    def call(*args: object) -> tuple[int, str]:
        capsys.readouterr()
        status = main(["--output", str(tmp_path / "out"), *map(str, args)])
        captured = capsys.readouterr()
        assert "Traceback" not in captured.err
        return status, captured.out + captured.err

    call.out = tmp_path / "out"
    return call


def test_a_16_bit_tiff_becomes_a_16_bit_tiff_with_the_same_luminance(tmp_path, transfer):
    scan = tmp_path / "scan.tif"
    rgb = to_tensor(example("coffee"))
    values = (rgb_to_luminance(rgb)[0] / 100 * 65535).round().numpy().astype(np.uint16)
    values ^= 0x55  # bits that 8 would not keep
    tifffile.imwrite(scan, values, photometric="minisblack", resolution=(600, 600), resolutionunit="INCH")
    edited = tmp_path / "edited.jpg"
    distorted(example("coffee"), "jpeg", 1).save(edited, quality=90)
    status, said = transfer("--input", scan, "--colors", edited)
    assert status == 0, said
    result = read_photo(transfer.out / "scan.tif")
    assert result.values.dtype == np.uint16 and result.values.shape == (*values.shape, 3) and result.dpi == (600, 600)
    assert len(np.unique(result.values)) > 5000
    assert (result.luminance() - read_photo(scan).luminance()).abs().max() < 0.02
    assert chroma(transfer.out / "scan.tif") > 15
    record = json.loads((transfer.out / "scan.json").read_text())
    assert record["results"] == ["scan.tif"] and record["colors"] == str(edited)
    assert record["agreement"] > 0.6 and record["covered"] == 1 and record["model"] is None
    assert (transfer.out / "contact_sheet.png").exists() and not (transfer.out / "confidence").exists()


def test_a_folder_goes_by_names_and_is_kept_the_second_time(pairs, transfer):
    photos, edited = pairs
    status, said = transfer("--input", photos, "--colors", edited, "--show-confidence")
    assert (status, "2 coloured" in said) == (0, True), said
    for name in ("coffee", "china"):
        assert chroma(transfer.out / f"{name}.png") > 5
        assert Image.open(transfer.out / "confidence" / f"{name}.png").mode == "RGB"
    before = (transfer.out / "coffee.png").read_bytes()
    status, said = transfer("--input", photos, "--colors", edited)
    assert (status, "2 kept from before" in said) == (0, True), said

    distorted(example("coffee"), "warp", 5).save(edited / "COFFEE.jpg")  # other colours: the result is not replaced
    status, said = transfer("--input", photos, "--colors", edited)
    assert status == 1 and "made differently" in said and (transfer.out / "coffee.png").read_bytes() == before
    status, said = transfer("--input", photos, "--colors", edited, "--overwrite")
    assert status == 0 and (transfer.out / "coffee.png").read_bytes() != before


def test_one_bad_file_does_not_end_the_run(pairs, transfer):
    photos, edited = pairs
    (photos / "broken.png").write_bytes(b"\x89PNG not really")
    (edited / "broken.png").write_bytes(b"nothing")
    example("rocket").save(photos / "alone.png")
    example("rocket").save(edited / "spare.png")
    example("rocket").save(photos / "wrong.png")
    example("chelsea").save(edited / "wrong.png")
    status, said = transfer("--input", photos, "--colors", edited)
    assert status == 1 and "2 coloured" in said and "3 failed" in said
    assert "broken.png" in said and "is called alone" in said and "wrong.png: " in said and "spare.png" in said
    assert not (transfer.out / "wrong.png").exists() and not (transfer.out / "wrong.json").exists()


def test_wrong_pairs_alone_are_exit_status_2(tmp_path, transfer):
    example("coffee").save(tmp_path / "a.png")
    example("china").save(tmp_path / "b.png")
    status, said = transfer("--input", tmp_path / "a.png", "--colors", tmp_path / "b.png")
    assert status == 2 and "a.png" in said and ("does not show" in said or "nothing of the photo" in said)
    assert list(transfer.out.glob("*.png")) == []


def test_inputs_are_never_replaced(pairs, capsys):
    photos, edited = pairs
    for folder in (photos, edited):
        (folder / "coffee.png").write_bytes((photos / "coffee.png").read_bytes())
    before = {path: path.read_bytes() for folder in pairs for path in folder.iterdir()}
    argv = ["--input", str(photos), "--colors", str(edited), "--overwrite", "--output"]
    assert main([*argv, str(photos)]) == 2
    (edited / "COFFEE.jpg").unlink()
    del before[edited / "COFFEE.jpg"]
    main([*argv, str(edited)])
    assert "would replace the photo itself" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in before} == before


def test_strange_files_in_the_output_are_kept(pairs, transfer):
    photos, edited = pairs
    (transfer.out / "confidence").mkdir(parents=True)
    (transfer.out / "coffee.json").write_text("{}")
    (transfer.out / "confidence" / "china.png").write_bytes(b"mine")
    status, said = transfer("--input", photos, "--colors", edited, "--show-confidence")
    assert status == 2 and "is not a record" in said and "is not of an earlier result" in said
    assert (transfer.out / "confidence" / "china.png").read_bytes() == b"mine"


def test_what_does_not_fit_is_left_to_the_model(tmp_path, tiny_checkpoint, transfer):
    image = example("coffee")
    image.convert("L").save(tmp_path / "scan.png")
    image.crop((0, 0, 120, image.height)).save(tmp_path / "left.png")
    args = ["--input", tmp_path / "scan.png", "--colors", tmp_path / "left.png"]
    assert transfer(*args)[0] == 0
    grey = to_tensor(read_image(transfer.out / "scan.png"))
    status, said = transfer(*args, "--model", tiny_checkpoint, "--steps", 2, "--caption", "a cup", "--overwrite")
    assert status == 0, said
    filled = to_tensor(read_image(transfer.out / "scan.png"))
    assert torch.allclose(grey[..., :90], filled[..., :90], atol=0.03)
    assert rgb_to_lab(grey[..., 160:])[1:].norm(dim=0).mean() < 1 < rgb_to_lab(filled[..., 160:])[1:].norm(dim=0).mean()
    record = json.loads((transfer.out / "scan.json").read_text())
    assert record["model"] == str(tiny_checkpoint) and record["caption"] == "a cup"
    assert record["settings"]["fill"]["steps"] == 2


def test_a_reference_serves_a_whole_series(pairs, tmp_path, transfer):
    example("coffee").save(tmp_path / "other.jpg")
    status, said = transfer("--input", pairs[0], "--reference", tmp_path / "other.jpg")
    assert (status, "2 coloured" in said) == (0, True), said
    assert chroma(transfer.out / "coffee.png") > 10
    assert json.loads((transfer.out / "china.json").read_text())["settings"]["method"] == "reference"


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--input", "{photos}", "--colors", "{one}"], "one picture for 2 photos"),
        (["--input", "{photos}", "--colors", "nowhere"], "no such file or folder"),
        (["--input", "nowhere", "--colors", "{one}"], "no such file or folder"),
        (["--input", "{photos}", "--reference", "{edited}"], "--reference is one photo"),
        (["--input", "{photos}", "--colors", "{edited}", "--model", "nowhere"], "no such checkpoint"),
    ],
)
def test_a_users_mistake_is_one_line(pairs, transfer, args, message):
    names = {"photos": pairs[0], "edited": pairs[1], "one": pairs[1] / "CHINA.jpg"}
    status, said = transfer(*(part.format(**names) for part in args))
    assert status == 2 and message in said and said.startswith("error: ") and said.count("\n") == 1


@pytest.mark.parametrize("args", [[], ["--colors", "a", "--reference", "b"], ["--colors", "a", "--caption", "a cup"]])
def test_options_that_do_not_go_together_are_refused(args, capsys):
    with pytest.raises(SystemExit) as error:
        main(["--input", "a", *args])
    assert error.value.code == 2
