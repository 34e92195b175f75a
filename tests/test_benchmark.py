"""The benchmark runs and compares what it says."""

import json
import sys
from collections import Counter

import pytest
import torch

from lcad.evaluation import speed
from ldm.cuda_graphs import GraphCache
from scripts import benchmark


def test_benchmark_of_a_tiny_checkpoint(tiny_checkpoint, tmp_path, capsys):
    out = tmp_path / "b.json"
    args = ["--model", str(tiny_checkpoint), "--repeats", "1", "--photo-steps", "2", "--json", str(out)]
    assert benchmark.main([*args, "--batch-sizes", "1", "3", "--dtype", "bfloat16"]) == 0
    content = json.loads(out.read_text())
    results = content["results"]
    assert results["unet_batch_2"]["ratio"] == 1 and results["unet_forward_backward_3"]["ratio"] == 1
    assert {"guided_step", "one_pass_step", "two_pass_step", "finding_masks", "training_step"} <= results.keys()
    for name, count in (("photos_1", 1), ("photos_3_masks", 3), ("photos_3_found_masks", 3)):
        row, bare = results[name], results[f"unet_batch_{2 * count}"]["seconds"]
        assert row["ratio"] == pytest.approx(row["seconds"] / (2 * bare))
        assert row["per_second"] == pytest.approx(count / row["seconds"])
        bare = results["unet_batch_2_float32"]["seconds"]
        assert row["forwards"] == pytest.approx(row["seconds"] / count / bare), "which the release is counted in"
    step, bare = results["training_step_3"], results["unet_forward_backward_3"]
    assert step["ratio"] == pytest.approx(step["seconds"] / bare["seconds"]) and step["per_second"] > 0
    peaks = content["peak_memory"]
    assert peaks.keys() == {"steps", "finding_masks", "photos_1", "photos_3", "training_1", "training_3"}
    assert all(2**26 < peak < 2**36 for peak in peaks.values()) and content["dtype"] == "bfloat16"
    printed = capsys.readouterr().out
    assert "bfloat16" in printed and all(name in printed for name in (*results, *peaks))


def test_captured_steps_are_compared_with_the_captured_unet(tiny_pipeline):
    """The stand-in for a capture runs each function once more; what is timed goes through it."""
    replayed = Counter()

    def capture(function, device):
        def replay():
            replayed["all"] += 1
            return function()

        return replay

    seconds = speed.time_steps(tiny_pipeline, 2, [1, 2], GraphCache(capture, 32))
    names = {"unet_batch_2", "unet_batch_4", "guided_step", "one_pass_step", "two_pass_step"}
    assert seconds.keys() == names | {name + "_captured" for name in names}
    assert replayed["all"] == 3 * len(names)
    rows = benchmark.describe(seconds, 5)
    assert rows["two_pass_step_captured"]["ratio"] == pytest.approx(
        seconds["two_pass_step_captured"] / seconds["unet_batch_2_captured"]
    )
    assert rows["two_pass_step"]["ratio"] == pytest.approx(seconds["two_pass_step"] / seconds["unet_batch_2"])


def test_compiled_ways(tiny_pipeline, monkeypatch):
    compiled = []
    monkeypatch.setattr(torch, "compile", lambda function, **options: compiled.append(function) or function)
    seconds = speed.time_steps(tiny_pipeline, 1, [1], compiled=True)
    assert {"unet_batch_2_compiled", "one_pass_step_compiled"} <= seconds.keys() and len(compiled) == 2
    assert tiny_pipeline.unet._compiled_call_impl is None, "it is put back"


def test_rows_of_captured_and_compiled_ways():
    seconds = {"unet_batch_2": 2.0, "unet_batch_2_captured": 1.0, "unet_batch_16_captured": 4.0, "guided_step": 3.0}
    seconds |= {"photos_8_masks_captured": 80.0, "finding_masks": 6.0, "training_step_8_compiled": 12.0}
    rows = benchmark.describe(seconds | {"unet_forward_backward_8_compiled": 8.0}, 10)
    assert rows["photos_8_masks_captured"] == {"seconds": 80.0, "ratio": 2.0, "per_second": 0.1, "forwards": 5.0}
    assert rows["finding_masks"]["ratio"] == 2 and rows["guided_step"]["ratio"] == 1.5
    assert rows["training_step_8_compiled"] == {"seconds": 12.0, "ratio": 1.5, "per_second": 8 / 12}


def test_what_a_device_cannot_do_is_one_line(capsys):
    assert benchmark.main(["--cuda-graphs", "--device", "cpu"]) == 2
    assert capsys.readouterr().err.startswith("error: CUDA graphs need a CUDA device, got cpu")


def test_without_lightning_all_but_the_training_step_is_timed(tiny_checkpoint, tmp_path, monkeypatch, capsys):
    monkeypatch.delitem(sys.modules, "lcad.training.latent_stage", raising=False)  # so that it is looked for again
    monkeypatch.setitem(sys.modules, "pytorch_lightning", None)
    out = tmp_path / "b.json"
    args = ["--model", str(tiny_checkpoint), "--repeats", "1", "--photo-steps", "0", "--json", str(out)]
    assert benchmark.main(args) == 0
    assert 'pip install "lcad[train]"' in capsys.readouterr().err
    results = json.loads(out.read_text())["results"]
    assert "guided_step" in results and "training_step" not in results
