#!/usr/bin/env python3
"""How well do masks found from words fit? Mean IoU with labelled objects, beside the whole photo and a centre box.

python scripts/measure_masks.py --model checkpoints/mini --input coco/images --instances coco/instances.json
"""

import argparse
from pathlib import Path

from lcad.command_line import reporting


def run(args: argparse.Namespace) -> int:
    from statistics import mean

    from tqdm import tqdm

    from lcad.captions import read_captions
    from lcad.evaluation import write_rows
    from lcad.mask_scores import score_masks
    from lcad.masks.candidates import ProviderOptions
    from lcad.masks.sources import build_finder
    from lcad.pipeline import LCADPipeline
    from ldm.devices import choose_device
    from ldm.images import image_folder, list_images

    device = choose_device(args.device)
    pipeline = LCADPipeline.from_pretrained(args.model).to(device)
    options = ProviderOptions(args.sam_checkpoint, args.sam_type, args.words_model, str(device))
    finder = build_finder(args.masks, pipeline, options=options)
    photos = list_images(image_folder(args.input))
    captions = read_captions(photos[0].parent, args.captions)
    rows = score_masks(finder, photos, captions, args.instances, lambda it: tqdm(it, "finding masks", unit="photo"))
    if not rows:
        raise ValueError("no caption names a labelled object with a colour or a place; nothing to measure")
    if args.output:
        write_rows(args.output, rows)
    means = ", ".join(f"{name} {mean(row[name] for row in rows):.3f}" for name in ("iou", "whole", "center"))
    print(f"{len(rows)} phrases, {sum(row['found'] for row in rows)} with a mask; mean IoU: {means}")
    return 0


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="checkpoint folder")
    parser.add_argument("--input", type=Path, required=True, help="folder of photos")
    parser.add_argument("--captions", type=Path, help="caption file (default: looked for beside the photos)")
    parser.add_argument("--instances", type=Path, required=True, help="their labelled objects, see lcad/masks/coco.py")
    parser.add_argument("--masks", default="regions", choices=["regions", "sam", "referring"])
    parser.add_argument("--sam-checkpoint", help="weights of Segment Anything")
    parser.add_argument("--sam-type", default="vit_h")
    parser.add_argument("--words-model", help="folder or hub id of CLIPSeg or Grounding DINO")
    parser.add_argument("--output", type=Path, help="CSV of all rows")
    parser.add_argument("--device", default="auto")
    args = parser.parse_args(argv)
    return reporting(lambda: run(args))


if __name__ == "__main__":
    raise SystemExit(main())
