"""The benchmark runs and compares what it says."""

import json
import subprocess
import sys
from pathlib import Path

from scripts import benchmark

ROOT = Path(__file__).resolve().parents[1]


def test_benchmark_of_a_tiny_checkpoint(tiny_checkpoint, tmp_path, capsys):
    out = tmp_path / "b.json"
    args = ["--model", str(tiny_checkpoint), "--repeats", "1", "--photo-steps", "2", "--json", str(out)]
    assert benchmark.main(args) == 0
    results = json.loads(out.read_text())["results"]
    assert results["unet_batch_2"]["ratio"] == 1 and results["unet_forward_backward"]["ratio"] == 1
    expected = results["photo"]["seconds"] / (2 * results["unet_batch_2"]["seconds"])
    assert abs(results["photo"]["ratio"] - expected) < 1e-9
    assert {"guided_step", "one_pass_step", "two_pass_step", "finding_masks", "training_step"} <= results.keys()


def test_without_lightning_all_but_the_training_step_is_timed(tiny_checkpoint, tmp_path):
    """In a process of its own: what is imported already would not be looked for."""
    out = tmp_path / "b.json"
    args = ["--model", str(tiny_checkpoint), "--repeats", "1", "--photo-steps", "0", "--json", str(out)]
    code = "import sys; sys.modules['pytorch_lightning'] = None\n"
    code += f"from scripts.benchmark import main\nraise SystemExit(main({args!r}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert 'pip install "lcad[train]"' in done.stderr and "Traceback" not in done.stderr
    results = json.loads(out.read_text())["results"]
    assert "guided_step" in results and "training_step" not in results
