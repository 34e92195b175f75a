"""Scoring folders of results, through the script: a model, its ablations, baselines, other methods, mistakes."""

import csv
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from lcad.evaluation.metrics import METRICS
from lcad.evaluation.runs import cropped
from lcad.evaluation.scoring import Sample, score, summarize
from lcad.evaluation.tables import PAPER, make_table, to_latex, to_markdown
from lcad.masks.from_text import FoundMasks
from lcad.masks.types import InstanceMasks
from scripts import evaluate

ROOT = Path(__file__).resolve().parents[1]


def run(folder, output, *options) -> int:
    size = ["--size", "40", "--steps", "1", "--batch-size", "8", "--accelerator", "cpu"]
    return evaluate.main(["--input", str(folder), "--output", str(output), *size, *map(str, options)])


def summary(output) -> dict[tuple[str, str], float]:
    with (output / "summary.csv").open(newline="") as file:
        return {(row["method"], row["measure"]): float(row["mean"]) for row in csv.DictReader(file)}


def test_model_ablations_baselines_and_table(tiny_checkpoint, photo_folder, tmp_path, capsys):
    for i in range(3, 8):  # three are enough
        (photo_folder / "images" / f"p{i}.png").unlink()
    options = ("--model", tiny_checkpoint, "--without-slr", tiny_checkpoint, "--ablations", "--table", "1")
    baselines = ("--baselines", "grey", "mean_chroma", "round_trip")
    assert run(photo_folder, tmp_path / "one", *options, *baselines) == 0, capsys.readouterr().err
    scores = summary(tmp_path / "one")
    methods = {method for method, _ in scores}
    ours = {f"{name}{star}" for name in ("L-CAD", "W/o LIC", "W/o SLR", "W/o ISS") for star in ("", "*")}
    assert methods == ours | {"grey", "mean_chroma", "round_trip"}
    assert scores["mean_chroma", "psnr"] > scores["grey", "psnr"]
    assert scores["grey", "colorfulness"] == pytest.approx(0, abs=0.5)
    assert scores["L-CAD", "psnr"] != scores["W/o LIC", "psnr"]
    assert ("L-CAD", "adherence") in scores, "the folder has masks for one photo"
    table = (tmp_path / "one" / "table1.md").read_text()
    assert "25.97" in table and "| W/o LIC* |" in table
    assert (tmp_path / "one" / "table1.tex").read_text().splitlines()[1].startswith(r"\begin{tabular}")

    results = tmp_path / "one" / "results" / "lcad"
    before = {path.name: path.stat().st_mtime_ns for path in results.glob("*.png")}
    assert run(photo_folder, tmp_path / "one", *options, *baselines) == 0
    assert {path.name: path.stat().st_mtime_ns for path in results.glob("*.png")} == before, "finished photos are kept"
    assert (tmp_path / "one" / "table1.md").read_text() == table, "the same to the last digit"

    other = ("--levels", "complete", "--results", f"theirs={results}")
    assert run(photo_folder, tmp_path / "two", *other) == 0
    again = summary(tmp_path / "two")
    assert again["theirs", "psnr"] == scores["L-CAD", "psnr"], "both entrances score alike"


@pytest.mark.parametrize("option", ["--lpips=squeeze={}", "--clip=ViT-B-32={}", "--fid={}"])
def test_missing_weights_are_said_before_anything_is_made(photo_folder, tmp_path, capsys, option):
    weights = tmp_path / "missing.pth"
    assert run(photo_folder, tmp_path / "scores", "--baselines", "grey", option.format(weights)) == 2
    assert str(weights) in capsys.readouterr().err
    assert not (tmp_path / "scores").exists()


class Fid:
    """Takes note of what it is shown."""

    device = "cpu"

    def __init__(self):
        self.seen = []

    def update(self, images, real: bool) -> None:
        self.seen.append((images, real))


def test_fid_is_of_the_photos_against_the_results(photo_folder, tmp_path):
    save_copies(photo_folder, tmp_path / "results", lambda image: image.rotate(180))
    fid = Fid()
    samples = [Sample(photo_folder / "images" / f"p{i}.png", "") for i in range(2)]
    score(samples, tmp_path / "results", [], 40, fid=fid)
    assert [real for _, real in fid.seen] == [True, False] * 2
    for i, (images, real) in enumerate(fid.seen):
        photo = Image.open(samples[i // 2].photo).resize((40, 40), Image.Resampling.BICUBIC)
        wanted = np.asarray(photo if real else photo.rotate(180)).astype(int)
        assert images.shape == (1, 3, 40, 40) and images.dtype == torch.uint8
        assert np.abs(images[0].permute(1, 2, 0).numpy() - wanted).mean() < 10


def save_copies(folder, output, change=lambda image: image):
    output.mkdir()
    for path in (folder / "images").iterdir():
        with Image.open(path) as image:
            change(image.convert("RGB").resize((40, 40))).save(output / path.name)


def test_perfect_results_and_their_order(photo_folder, tmp_path):
    save_copies(photo_folder, tmp_path / "same")
    assert run(photo_folder, tmp_path / "scores", "--results", f"same={tmp_path / 'same'}") == 0
    with (tmp_path / "scores" / "same.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["name"] for row in rows] == [f"p{i}.png" for i in range(8)]
    assert all(float(row["ssim"]) > 0.95 for row in rows)


@pytest.mark.parametrize(
    "spoil, message",
    [
        (lambda d: (d / "p3.png").unlink(), "1 of 8 results are missing: p3.png"),
        (lambda d: Image.new("RGB", (7, 9)).save(d / "p1.png"), "p1.png: is 7x9, expected 40x40 or the photo's 48x40"),
        (lambda d: Image.new("RGB", (40, 40)).save(d / "p1.jpg"), None),
        (lambda d: [p.rename(p.with_suffix(".webp")) for p in d.glob("*.png")] and d / "x", None),
        (lambda d: (d / "p2.png").write_bytes(b"no image"), "p2.png: not an image"),
    ],
)
def test_bad_results(photo_folder, tmp_path, capsys, spoil, message):
    save_copies(photo_folder, tmp_path / "made")
    spoil(tmp_path / "made")
    status = run(photo_folder, tmp_path / "scores", "--results", f"made={tmp_path / 'made'}")
    assert status == (2 if message else 0), capsys.readouterr().err
    assert (message or "") in capsys.readouterr().err


def test_duplicates_and_grey_results(photo_folder, tmp_path, capsys):
    save_copies(photo_folder, tmp_path / "made", lambda image: image.convert("L"))
    result = ("--results", f"made={tmp_path / 'made'}")
    assert run(photo_folder, tmp_path / "scores", *result) == 2
    assert "all 8 results are grey" in capsys.readouterr().err
    (tmp_path / "made" / "p0.png").rename(tmp_path / "made" / "p0.bmp")
    Image.new("RGB", (40, 40)).save(tmp_path / "made" / "p0.jpg")
    assert run(photo_folder, tmp_path / "scores", *result) == 2
    assert "several results for p0.png: p0.bmp, p0.jpg" in capsys.readouterr().err
    Image.new("RGB", (48, 40)).save(photo_folder / "images" / "p0.jpg")
    assert run(photo_folder, tmp_path / "scores", *result) == 2
    assert "several photos are called p0" in capsys.readouterr().err
    assert run(photo_folder, tmp_path / "scores", "--baselines", "magic") == 2


def test_a_manifest_holds_the_photos_to_their_hashes(photo_folder, tmp_path, capsys):
    from scripts import prepare_data

    prepared = tmp_path / "prepared"
    assert prepare_data.main(["folder", "--input", str(photo_folder), "--output", str(prepared)]) == 0
    assert run(prepared, tmp_path / "scores", "--baselines", "grey") == 0
    Image.new("RGB", (40, 40)).save(next((prepared / "images").glob("p4*")))
    assert run(prepared, tmp_path / "scores", "--baselines", "grey") == 2
    assert "p4.png (changed)" in capsys.readouterr().err


@pytest.mark.slow
def test_photos_are_shared_out_to_processes(tiny_checkpoint, photo_folder, tmp_path):
    command = [sys.executable, ROOT / "scripts" / "evaluate.py", "--input", photo_folder, "--model", tiny_checkpoint]
    command += ["--size", "40", "--steps", "1", "--levels", "complete", "--accelerator", "cpu"]
    for devices in ("1", "2"):
        subprocess.run([*command, "--output", tmp_path / devices, "--devices", devices], check=True, cwd=ROOT)
    assert summary(tmp_path / "2") == pytest.approx(summary(tmp_path / "1"), rel=1e-4)  # other batches, other rounding


def test_bootstrap_interval():
    rng = np.random.default_rng(0)
    rows = [{"psnr": value} for value in rng.normal(25, 2, 400)] + [{"psnr": None}]
    mean, low, high = summarize(rows, [METRICS["psnr"]])["psnr"]
    assert mean == pytest.approx(25, abs=0.3)
    assert (high - low) / 2 == pytest.approx(1.96 * 2 / 20, rel=0.15)
    assert summarize(rows, [METRICS["psnr"]])["psnr"] == (mean, low, high), "the same on a second run"


def test_the_colorfulness_difference_is_one_of_sets(photo_folder, tmp_path):
    """True photos in another order: every photo is wrong, and the set is as colourful as it should be."""
    paths = sorted((photo_folder / "images").iterdir())
    (tmp_path / "moved").mkdir()
    for path, other in zip(paths, [*paths[1:], paths[0]], strict=True):
        with Image.open(other) as image:
            image.save(tmp_path / "moved" / path.name)
    assert run(photo_folder, tmp_path / "scores", "--results", f"moved={tmp_path / 'moved'}", "--table", "3") == 0
    scores = summary(tmp_path / "scores")
    assert scores["moved", "colorfulness_difference"] == pytest.approx(0, abs=1e-4)
    assert scores["moved", "colorfulness_error"] > 1
    table = (tmp_path / "scores" / "table3.md").read_text()
    assert "colorfulness_difference" in table and "colorfulness_error" not in table

    rows = [{"colorfulness": a, "colorfulness_true": b} for a, b in ((10, 30), (30, 40))]
    measures = [METRICS[name] for name in ("colorfulness", "colorfulness_true")]
    assert summarize(rows, measures)["colorfulness_difference"] == (15, 10, 20)


def test_photos_are_squashed_or_cropped(tiny_checkpoint, photo_folder, tmp_path):
    """Sec. 4.4 crops; so table 3 does, of the true photos, of results of their size, and before the model sees them."""
    save = tmp_path / "striped"
    (save / "images").mkdir(parents=True)
    for i in range(2):
        pixels = np.zeros((40, 80, 3), np.uint8)
        pixels[:, 20:60] = np.random.default_rng(i).integers(0, 256, (40, 40, 3))
        Image.fromarray(pixels).save(save / "images" / f"s{i}.png")
    results = ("--results", f"same={save / 'images'}", "--levels", "scarce")
    for options, fit in ((("--table", "1"), "squashed"), (("--table", "3"), "cropped to their middle square")):
        output = tmp_path / fit.split()[0]
        assert run(save, output, *results, "--model", tiny_checkpoint, "--baselines", "grey", *options) == 0
        assert fit in next(output.glob("table?.md")).read_text().splitlines()[0]
        assert fit in next(output.glob("table?.tex")).read_text().splitlines()[0]
        assert fit.startswith(next(output.glob("table?.csv")).read_text().splitlines()[1].split(",")[-1])
    for name in ("grey", "lcad_scarce"):
        squashed, cropped = (
            np.asarray(Image.open(tmp_path / folder / name / "s0.png").convert("L"))
            for folder in ("squashed/results", "cropped/results_crop")
        )
        assert squashed[:, :8].mean() < 5 and cropped[:, :8].mean() > 60, f"{name}: the black sides are cut away"
    with (tmp_path / "cropped" / "same.csv").open(newline="") as file:
        assert [float(row["ssim"]) for row in csv.DictReader(file)] == [1, 1]


def test_masks_of_cropped_photos(tmp_path):
    wide = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 80, 3), dtype=np.uint8))
    wide.save(tmp_path / "wide.png")
    wide.resize((40, 40)).save(tmp_path / "square.png")
    masks = torch.zeros(2, 20, 40)
    masks[0, :, :20] = masks[1, :, :5] = 1  # the second lies outside the middle square
    asked = []

    def find(photo, image, caption):
        asked.append((photo.name, (image.width, image.height)))
        return FoundMasks(InstanceMasks(["left", "edge"], masks), scores=[0.5, 0.4])

    samples = [Sample(tmp_path / name, "a caption") for name in ("wide.png", "square.png")]
    made, find_cropped = cropped(samples, tmp_path / "cropped", find)
    assert made[1] == samples[1] and made[0].photo == tmp_path / "cropped" / "wide.png"
    with Image.open(made[0].photo) as image:
        assert np.array_equal(np.asarray(image), np.asarray(wide)[:, 20:60])
    found = find_cropped(made[0].photo, image, "a caption")
    assert found.instances.phrases == ["left"] and found.scores == [0.5]
    assert found.instances.masks.shape == (1, 20, 20)
    assert found.instances.masks[0].mean(0).tolist() == [1] * 10 + [0] * 10
    assert len(find_cropped(made[1].photo, image, "a caption").instances.phrases) == 2
    assert asked[0] == ("wide.png", (80, 40)), "found in the whole photo"


def test_the_data_set_of_a_table(photo_folder, tmp_path, capsys):
    assert run(photo_folder, tmp_path, "--baselines", "grey", "--table", "3", "--dataset", "Imagenet") == 2
    assert "unknown data set 'Imagenet'; allowed: ImageNet" in capsys.readouterr().err
    assert not (tmp_path / "results").exists(), "said before the work"
    table = make_table(3, {"L-CAD*": {"fid": (5.0, 5.0, 5.0)}})
    assert table[0].paper == 4.36 and make_table(1, {"L-CAD": {"psnr": (1.0, 1.0, 1.0)}})[0].paper == 25.97


def test_the_papers_numbers():
    rows = [row for row in PAPER["table1"] if row["method"] == "L-CAD*"]
    assert [row["value"] for row in rows] == [24.33, 0.9114, 0.157, 24.19, 0.9108, 0.164]
    assert len(PAPER["table1"]) == 20 * 6 and len(PAPER["table3"]) == 11 * 6
    table = make_table(3, {"L-CAD*": {"fid": (5.0, 5.0, 5.0), "lpips_alex": (0.2, 0.1, 0.3)}, "x": {}}, "ImageNet")
    assert [(cell.measure, round(cell.difference, 3)) for cell in table] == [("fid", 0.64), ("lpips_alex", 0.04)]
    assert "5.00 [5.00, 5.00]; 4.36 (+0.64)" in to_markdown(table)
    assert r"lpips\_alex" in to_latex(table)
    json.dumps(PAPER)
