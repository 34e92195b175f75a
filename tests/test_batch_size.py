"""As many photos at a time as memory has room for, with a device's memory made up."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from lcad.inference import batch_size
from lcad.inference.batch_size import BATCH_SIZE, MOST, Memory, choose_batch_size
from lcad.inference.plan import Settings
from lcad.io.images import read_image
from lcad.pipeline import LCADPipeline
from scripts import sample


class Device:
    """Has room for so many photos; what a call takes is counted, and more is out of memory."""

    def __init__(self, room: int, monkeypatch: pytest.MonkeyPatch, free: int | None = None):
        self.batches: list[int] = []
        self.masked: list[int] = []
        self.memory = Memory(self.peak, lambda: 100 * room if free is None else free)
        own, device = LCADPipeline.__call__, self

        def call(pipeline, photos, captions, masks, **options):
            device.batches.append(len(photos))
            device.masked.append(sum(item is not None for item in masks))
            if len(photos) > room:
                raise torch.cuda.OutOfMemoryError("CUDA out of memory")
            return own(pipeline, photos, captions, masks, **options)

        monkeypatch.setattr(LCADPipeline, "__call__", call)

    def peak(self, action) -> int:
        action()
        return 100 * self.batches[-1]


@pytest.mark.parametrize(
    "room, free, chosen, tried",
    [
        (30, None, 21, [4]),  # 7 tenths of it
        (1000, None, MOST, [4]),
        (2, None, 1, [4, 2]),
        (3, 1000, 7, [4, 2]),  # memory that has become free since
        (0, None, 1, [4, 2, 1]),
    ],
)
def test_what_a_trial_takes_decides(tiny_pipeline, monkeypatch, room, free, chosen, tried):
    device = Device(room, monkeypatch, free)
    assert choose_batch_size(tiny_pipeline, Settings(), device.memory) == chosen
    assert device.batches == device.masked == tried, "with masks, as in the run"


def test_a_device_without_cuda_has_the_usual_size(tiny_pipeline, monkeypatch):
    device = Device(100, monkeypatch)
    assert choose_batch_size(tiny_pipeline, Settings()) == BATCH_SIZE and device.batches == []


def test_auto_on_a_cpu(run, photo_folder):
    assert run("--input", photo_folder / "images", "--batch-size", "auto")[0] == 0
    assert f"note: up to {BATCH_SIZE} photos at a time" in run.printed
    assert len(record(run.out, "p0")["batch"]) == BATCH_SIZE


@pytest.mark.parametrize("text", ["all", "1.5", "0"])
def test_what_is_no_number(run, photo_folder, text, capsys):
    with pytest.raises(SystemExit):
        run("--input", photo_folder / "images", "--batch-size", text)
    assert "--batch-size" in capsys.readouterr().err


def record(folder: Path, name: str) -> dict:
    return json.loads((folder / f"{name}.json").read_text())


@pytest.mark.parametrize("room, free, trial, sizes", [(10, None, [4], [7, 1]), (3, 1600, [4, 2], [8, 4, 2, 2, 2, 2])])
def test_a_run_as_large_as_memory_allows(run, photo_folder, monkeypatch, tmp_path, room, free, trial, sizes):
    """Where the trial has promised too much (the second row), no photo is lost and later batches are smaller."""
    alone = tmp_path / "alone"
    given = ("--input", photo_folder / "images", "--mask-folder", photo_folder / "masks", "--dtype", "float32")
    assert run(*given, "--batch-size", 1, output=alone)[0] == 0
    with monkeypatch.context() as patch:
        device = Device(room, patch, free)
        patch.setattr(batch_size, "cuda_memory", lambda _: device.memory)
        patch.setattr(batch_size, "execution_device", lambda _: torch.device("cuda"))
        status, _ = run(*given, "--batch-size", "auto")
        assert status == 0 and "8 colorized" in run.printed
        assert device.batches == trial + sizes
        assert run(*given, "--batch-size", "auto")[0] == 0 and "8 kept from before" in run.printed
        assert device.batches == trial + sizes + trial
    for i in range(8):
        first, second = (np.asarray(read_image(folder / f"p{i}.png"), int) for folder in (alone, run.out))
        assert np.abs(first - second).max() <= 1, i
        assert record(run.out, f"p{i}")["settings"] == record(alone, f"p{i}")["settings"]
    again = tmp_path / "again"
    assert sample.main(["--replay", str(run.out / "run.jsonl"), "--output", str(again)]) == 0
    assert record(again, "p0")["batch"] == record(run.out, "p0")["batch"]


def test_a_stopped_run_goes_on(run, photo_folder):
    given = ("--input", photo_folder / "images", "--batch-size", "auto")
    assert run(*given)[0] == 0
    (run.out / "p5.json").unlink()
    (run.out / "p5.png").unlink()
    assert sample.main(["--resume", str(run.out)]) == 0
    assert (run.out / "p5.png").exists() and record(run.out, "p5")["batch"] == ["p5"]
    assert len(record(run.out, "p0")["batch"]) == BATCH_SIZE, "kept as it was"
