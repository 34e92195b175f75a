#!/usr/bin/env python3
"""Score a model on a folder of captioned colour photos, at 256x256 with the photos' own luminance.

python scripts/evaluate.py --model checkpoints/mini --input my_photos/images --output scores/
python scripts/evaluate.py --model checkpoints/mini --input coco/images --instances coco/instances.json
python scripts/evaluate.py --model checkpoints/mini --scenes data/scenes_held_out

With --instances, the colour word of each photo's main object is replaced by red, green, blue and yellow in turn, and
with --scenes, rendered scenes are colorized from complete captions with position words: does the object get the colour?
"""

import argparse
from pathlib import Path

from lcad.command_line import reporting

SIZE = 256  # photos are scored at SIZE x SIZE


def run(args: argparse.Namespace) -> int:
    from tqdm import tqdm

    from lcad.captions import read_captions
    from lcad.pipeline import LCADPipeline
    from lcad.steering import main_objects, steer_photos, steer_scenes
    from ldm.devices import choose_device
    from ldm.images import list_images

    if not (args.input or args.scenes):
        raise ValueError("nothing to score: give --input or --scenes")
    pipeline = LCADPipeline.from_pretrained(args.model).to(choose_device(args.device))
    pipeline.set_progress_bar_config(disable=True)
    options = {"num_inference_steps": args.steps, "guidance_scale": args.guidance}
    if args.input:
        photos = list_images(args.input)
        captions = read_captions(photos[0].parent, args.captions)
        score_photos(args, pipeline, photos, captions, options)
        if args.instances:
            objects = main_objects(photos, captions, args.instances, SIZE)[: args.steered_photos]
            rows, _ = steer_photos(pipeline, objects, lambda it: tqdm(it, "swapping colours"), **options)
            report_steering(args, "swaps", rows, f"{len(objects)} photos, nearest of four colours")
    if args.scenes:
        count = args.steered_scenes
        rows, _ = steer_scenes(pipeline, args.scenes, count, progress=lambda it: tqdm(it, "scenes"), **options)
        report_steering(args, "scenes", rows, f"objects of {len({row['name'] for row in rows})} scenes")
    return 0


def score_photos(args, pipeline, photos, captions, options) -> None:
    from tqdm import tqdm

    from lcad.evaluation import METHODS, evaluate, means, write_rows

    for method, title in METHODS.items():
        rows = evaluate(
            pipeline,
            photos,
            captions,
            method,
            progress=lambda batches, name=method: tqdm(batches, name),
            size=SIZE,
            **options,
        )
        if args.output:
            write_rows(args.output / f"{method}.csv", rows)
        mean = means(rows)
        print(f"{method} ({title}), {len(rows)} photos:")
        print(f"  PSNR {mean['psnr']:.2f} dB (grey {mean['psnr_grey']:.2f})", end=", ")
        print(f"colourfulness {mean['colorfulness']:.1f} (true {mean['colorfulness_true']:.1f})")


def report_steering(args, name: str, rows: list[dict], what: str) -> None:
    from lcad.evaluation import write_rows

    if not rows:
        raise ValueError(f"{name}: nothing to steer; no caption names the colour of a labelled object")
    if args.output:
        write_rows(args.output / f"{name}.csv", rows)
    share = sum(row["adherent"] for row in rows) / len(rows)
    print(f"{name} ({what}): {100 * share:.0f} % of {len(rows)} as asked")


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="checkpoint folder")
    parser.add_argument("--input", type=Path, help="folder of colour photos")
    parser.add_argument("--captions", type=Path, help="caption file (default: looked for beside the photos)")
    parser.add_argument("--instances", type=Path, help="masks of the photos' objects, in COCO's format")
    parser.add_argument("--steered-photos", type=int, default=20, help="photos whose colour word is swapped")
    parser.add_argument("--scenes", type=Path, help="folder of rendered scenes, see scripts/render_scenes.py")
    parser.add_argument("--steered-scenes", type=int, default=100)
    parser.add_argument("--output", type=Path, help="folder for one CSV of per-photo scores a method")
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--guidance", type=float, help="default: the model's own")
    parser.add_argument("--device", default="auto")
    args = parser.parse_args(argv)
    return reporting(lambda: run(args))


if __name__ == "__main__":
    raise SystemExit(main())
