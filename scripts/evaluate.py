#!/usr/bin/env python3
"""Score a model on a folder of captioned colour photos, at 256x256 with the photos' own luminance.

python scripts/evaluate.py --model checkpoints/mini --input my_photos/images --output scores/
"""

import argparse
from pathlib import Path

from lcad.command_line import reporting


def run(args: argparse.Namespace) -> int:
    from tqdm import tqdm

    from lcad.captions import read_captions
    from lcad.evaluation import METHODS, evaluate, means, write_rows
    from lcad.pipeline import LCADPipeline
    from ldm.devices import choose_device
    from ldm.images import list_images

    photos = list_images(args.input)
    captions = read_captions(photos[0].parent, args.captions)
    pipeline = LCADPipeline.from_pretrained(args.model).to(choose_device(args.device))
    pipeline.set_progress_bar_config(disable=True)
    for method, title in METHODS.items():
        rows = evaluate(
            pipeline,
            photos,
            captions,
            method,
            progress=lambda batches, name=method: tqdm(batches, name),
            num_inference_steps=args.steps,
            guidance_scale=args.guidance,
        )
        if args.output:
            write_rows(args.output / f"{method}.csv", rows)
        mean = means(rows)
        print(f"{method} ({title}), {len(rows)} photos:")
        print(f"  PSNR {mean['psnr']:.2f} dB (grey {mean['psnr_grey']:.2f})", end=", ")
        print(f"colourfulness {mean['colorfulness']:.1f} (true {mean['colorfulness_true']:.1f})")
    return 0


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="checkpoint folder")
    parser.add_argument("--input", type=Path, required=True, help="folder of colour photos")
    parser.add_argument("--captions", type=Path, help="caption file (default: looked for beside the photos)")
    parser.add_argument("--output", type=Path, help="folder for one CSV of per-photo scores a method")
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--guidance", type=float, default=5.0)
    parser.add_argument("--device", default="auto")
    args = parser.parse_args(argv)
    return reporting(lambda: run(args))


if __name__ == "__main__":
    raise SystemExit(main())
