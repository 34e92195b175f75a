"""The published checkpoint's size: regenerated, converted and used on one photo, in at most 10 GB of memory."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.reference import SHARED, reference_state_dict

ROOT = Path(__file__).parents[1]
LIMIT_KB = 10_000_000


def peak_memory(*arguments: str) -> tuple[int, str]:
    """Run a script in a process of its own -> peak resident memory in kB, and what it printed."""
    measured = (
        "import runpy, sys, resource; sys.argv = sys.argv[1:]\n"
        "try: runpy.run_path(sys.argv[0], run_name='__main__')\n"
        "finally: print('PEAK', resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
    )
    command = [sys.executable, "-c", measured, *arguments]
    finished = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert finished.returncode == 0, finished.stderr
    return int(finished.stdout.split("PEAK")[-1]), finished.stdout


def regenerate(path: Path) -> None:
    shapes = {
        key: entry["shape"] for key, entry in json.loads((SHARED / "manifest_full.json").read_text())["keys"].items()
    }
    torch.save({"state_dict": reference_state_dict(shapes)}, path)


@pytest.mark.slow
@pytest.mark.skipif(not SHARED.is_dir(), reason="needs the published checkpoint's layout")
def test_convert_and_colorize_within_ten_gigabytes(tmp_path):
    file, folder = tmp_path / "lcad.ckpt", tmp_path / "lcad"
    writer = f"from tests.test_full_size import regenerate; from pathlib import Path; regenerate(Path({str(file)!r}))"
    subprocess.run([sys.executable, "-c", writer], cwd=ROOT, check=True)
    peak, printed = peak_memory("scripts/convert_checkpoint.py", str(file), str(folder))
    assert peak < LIMIT_KB and "unet: 860,995,524 parameters" in printed
    file.unlink()
    examples = ROOT / "data" / "examples"
    arguments = ["--model", str(folder), "--input", str(examples / "images" / "coffee.jpg")]
    arguments += ["--mask-folder", str(examples / "masks")]
    out = tmp_path / "out"
    peak_sampling, _ = peak_memory("scripts/sample.py", *arguments, "--steps", "2", "--output", str(out))
    print(f"peak memory: converting {peak / 1e6:.1f} GB, colorizing {peak_sampling / 1e6:.1f} GB")
    assert peak_sampling < LIMIT_KB
    assert json.loads((out / "coffee.json").read_text())["masked_phrases"]
