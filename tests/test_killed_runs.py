"""A run that is killed again and again comes to the same end as one that is not."""

import json
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lcad.io.images import read_image
from tests.conftest import random_photo

PHOTOS, KILLS = 40, 20
SCRIPT = Path(__file__).parents[1] / "scripts" / "sample.py"


def start(checkpoint: Path, photos: Path, output: Path) -> subprocess.Popen:
    options = ["--model", checkpoint, "--input", photos, "--output", output, "--steps", 40, "--batch-size", 2]
    command = [sys.executable, SCRIPT, *options, "--caption", "a red cup", "--device", "cpu"]
    return subprocess.Popen(list(map(str, command)), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def lines_of(record: Path) -> int:
    return record.read_bytes().count(b"\n") if record.is_file() else 0


@pytest.mark.slow
def test_20_kills_of_a_run_over_40_photos(tiny_checkpoint, tmp_path):
    photos, unbroken, killed = tmp_path / "photos", tmp_path / "unbroken", tmp_path / "killed"
    photos.mkdir()
    for i in range(PHOTOS):
        random_photo(i).save(photos / f"{i:02d}.png")
    assert start(tiny_checkpoint, photos, unbroken).wait() == 0
    rng, interrupted = random.Random(0), 0
    for _ in range(KILLS):
        before = lines_of(killed / "run.jsonl")
        run = start(tiny_checkpoint, photos, killed)
        while run.poll() is None and lines_of(killed / "run.jsonl") == before:
            time.sleep(0.005)  # until the work begins
        time.sleep(rng.uniform(0, 0.5))
        interrupted += run.poll() is None
        run.send_signal(signal.SIGKILL)
        run.wait()
        for result in killed.glob("[0-9]*.png"):
            assert read_image(result).size == (48, 40), "no result is torn"
    assert interrupted == KILLS, "every kill hit a run that was going on"
    assert start(tiny_checkpoint, photos, killed).wait() == 0
    for i in range(PHOTOS):
        assert (killed / f"{i:02d}.png").read_bytes() == (unbroken / f"{i:02d}.png").read_bytes()
        assert json.loads((killed / f"{i:02d}.json").read_text())["caption"] == "a red cup"
    left_over = {path.name for path in killed.iterdir()} - {path.name for path in unbroken.iterdir()}
    assert all(name.startswith(".") for name in left_over), left_over
