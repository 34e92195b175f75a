"""The benchmark runs and compares what it says."""

import json
import sys

from scripts import benchmark


def test_benchmark_of_a_tiny_checkpoint(tiny_checkpoint, tmp_path, capsys):
    out = tmp_path / "b.json"
    args = ["--model", str(tiny_checkpoint), "--repeats", "1", "--photo-steps", "2", "--json", str(out)]
    assert benchmark.main(args) == 0
    results = json.loads(out.read_text())["results"]
    assert results["unet_batch_2"]["ratio"] == 1 and results["unet_forward_backward"]["ratio"] == 1
    expected = results["photo"]["seconds"] / (2 * results["unet_batch_2"]["seconds"])
    assert abs(results["photo"]["ratio"] - expected) < 1e-9
    assert {"guided_step", "one_pass_step", "two_pass_step", "finding_masks", "training_step"} <= results.keys()


def test_without_lightning_all_but_the_training_step_is_timed(tiny_checkpoint, tmp_path, monkeypatch, capsys):
    monkeypatch.delitem(sys.modules, "lcad.training.latent_stage", raising=False)  # so that it is looked for again
    monkeypatch.setitem(sys.modules, "pytorch_lightning", None)
    out = tmp_path / "b.json"
    args = ["--model", str(tiny_checkpoint), "--repeats", "1", "--photo-steps", "0", "--json", str(out)]
    assert benchmark.main(args) == 0
    assert 'pip install "lcad[train]"' in capsys.readouterr().err
    results = json.loads(out.read_text())["results"]
    assert "guided_step" in results and "training_step" not in results
