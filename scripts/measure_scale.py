#!/usr/bin/env python3
"""Time and memory of scripts/sample.py against the number of photos and against their size -> docs/scale.md.

    python scripts/measure_scale.py --model checkpoints/mini --output docs/

Photos are enlargements of a bundled example with noise. Memory is the peak of the whole process (its resident set);
that of a run over one small photo is what model and libraries take.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from lcad.cli.common import build_parser, reporting

SAMPLE = Path(__file__).with_name("sample.py")
EXAMPLES = Path(__file__).resolve().parents[1] / "data" / "examples" / "images"
SMALL = 128  # pixels, side of a small photo
NUMBERS = (1, 10, 100, 1000)
MEGAPIXELS = (1, 10, 24, 50, 100)
OBJECTS = "a green tree under a blue sky"  # a caption whose phrases get masks


def write_scan(path: Path, side: int, depth: int, seed: int) -> None:
    """A noisy photo of side x side pixels in colour, as an uncompressed TIFF."""
    import cv2
    import numpy as np
    import tifffile

    from lcad.io.images import list_images, read_image

    rng, examples = np.random.default_rng(seed), list_images(EXAMPLES)
    small = np.asarray(read_image(examples[seed % len(examples)]))
    large = cv2.resize(small, (side, side), interpolation=cv2.INTER_CUBIC)
    for top in range(0, side, 512):  # in strips: noise for 100 megapixels takes gigabytes
        strip = large[top : top + 512]
        strip[:] = np.clip(strip.astype(np.int16) + rng.integers(-8, 9, strip.shape, np.int16), 0, 255)
    tifffile.imwrite(path, large if depth == 8 else large.astype(np.uint16) * 257, photometric="rgb")


def measure(folder: Path, output: Path, options: list[str]) -> tuple[float, float]:
    """Colorize a folder -> seconds, peak GiB; raises ValueError: the run failed."""
    command = [sys.executable, SAMPLE, "--input", folder, "--output", output, *options]
    started = time.perf_counter()
    process = subprocess.Popen(list(map(str, command)), stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise ValueError(f"this run failed: {' '.join(map(str, command))}")
    return time.perf_counter() - started, usage.ru_maxrss / 2**20


def by_number(work: Path, numbers: list[int], options: list[str]) -> tuple[list[str], float, float]:
    """Rows of the table, and what a run over the first number of photos takes: seconds, GiB."""
    lines, firsts = ["| photos | seconds | of these for each photo | peak (GiB) |", "|---|---|---|---|"], []
    for number in numbers:
        for k in range(number):
            if not (work / f"{k:04d}.tif").exists():
                write_scan(work / f"{k:04d}.tif", SMALL, 8, k)
        if not firsts:
            measure(work, work / "out_first", options)  # brings libraries and weights from the disk into memory
        seconds, peak = measure(work, work / f"out_{number}", options)
        firsts = firsts or [number, seconds, peak]
        each = f"{(seconds - firsts[1]) / (number - firsts[0]):.2f}" if number > firsts[0] else ""
        lines.append(f"| {number} | {seconds:.1f} | {each} | {peak:.2f} |")
        print(lines[-1], file=sys.stderr)
    return lines, *firsts[1:]


def by_size(work: Path, megapixels: list[int], options: list[str], start: float, model: float) -> list[str]:
    """Rows of the table; `start` (seconds) and `model` (GiB) are what a run takes whatever the size."""
    lines = ["| megapixels | seconds for each photo | peak (GiB) | beyond the model (GiB) |", "|---|---|---|---|"]
    for millions in megapixels:
        for k in range(3):
            write_scan(work / f"{k}.tif", round((millions * 1e6) ** 0.5), 16, k)
        seconds, peak = measure(work, work / "out", [*options, "--overwrite"])
        lines.append(f"| {millions} | {(seconds - start) / 3:.1f} | {peak:.2f} | {peak - model:.2f} |")
        print(lines[-1], file=sys.stderr)
    return lines


def run(args: argparse.Namespace) -> int:
    options = ["--model", args.model, "--caption", "a colorful image"]
    options += ["--steps", args.steps] if args.steps else []
    with tempfile.TemporaryDirectory() as small, tempfile.TemporaryDirectory() as large:
        numbers, start, model = by_number(Path(small), args.numbers, options)
        sizes = by_size(Path(large), args.megapixels, options, start, model)
        masks = ["--caption", OBJECTS, "--masks", "regions"]
        masked = by_size(Path(large), args.megapixels, [*options, *masks], start, model)
    steps = args.steps or "its own"
    lines = [
        "# Time and memory",
        "",
        "Written by `scripts/measure_scale.py`; do not edit.",
        "",
        f"`scripts/sample.py` with {args.model}, {steps} steps, on {os.cpu_count()} CPU cores: the whole process",
        "from start to end. Peak is its resident memory.",
        "",
        f"## Photos of {SMALL}x{SMALL}, 8 bit RGB",
        "",
        *numbers,
        "",
        "## Photos of 16 bit RGB, TIFF to TIFF, three of each size",
        "",
        *sizes,
        "",
        f"## The same, with masks found for the phrases of {OBJECTS!r}",
        "",
        *masked,
        "",
        f"The first row of the first table, {start:.1f} s and {model:.2f} GiB, counts as start and model.",
        "Runs vary by a second or two, so that a small difference may come out below nothing.",
    ]
    args.output.mkdir(parents=True, exist_ok=True)
    (args.output / "scale.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    print(f"wrote {args.output / 'scale.md'}")
    return 0


def main(argv: list[str] | None = None) -> int:
    parser = build_parser(None, __doc__)
    parser.add_argument("--model", required=True, help="checkpoint folder")
    parser.add_argument("--steps", type=int, help="default: the model's own")
    parser.add_argument("--numbers", type=int, nargs="+", default=NUMBERS, help="of small photos")
    parser.add_argument("--megapixels", type=int, nargs="+", default=MEGAPIXELS)
    parser.add_argument("--output", type=Path, required=True, help="folder for scale.md, which is replaced")
    args = parser.parse_args(argv)
    return reporting(lambda: run(args))


if __name__ == "__main__":
    raise SystemExit(main())
