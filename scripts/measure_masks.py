#!/usr/bin/env python3
"""How well do masks found from words fit? Mean IoU with labelled objects, beside the whole photo and a centre box.

python scripts/measure_masks.py --model checkpoints/mini --input coco/images --instances coco/instances.json
python scripts/measure_masks.py --model checkpoints/mini --input data/photos_128 --skip 1900 \
    --instances data/photos_128/ade_labels --label-names configs/words/ade20k.txt

With label maps photos that have no captions get those that `label_maps` makes of them (docs/mini.md).
"""

import argparse
from pathlib import Path

from lcad.cli.common import add_provider_options, build_parser, provider_options, reporting


def run(args: argparse.Namespace) -> int:
    from statistics import mean

    from tqdm import tqdm

    from lcad.config import SourceConfig
    from lcad.data.datasets import source_captions
    from lcad.evaluation.mask_scores import score_masks
    from lcad.evaluation.scoring import write_rows
    from lcad.io.images import image_folder, list_images
    from lcad.masks.labelled import coco_labels, map_labels
    from lcad.masks.sources import build_finder
    from lcad.masks.types import ProviderOptions
    from lcad.pipeline import LCADPipeline
    from lcad.text.captions import read_captions
    from ldm.devices import choose_device

    device = choose_device(args.device)
    pipeline = LCADPipeline.from_pretrained(args.model).to(device)
    options = ProviderOptions(**provider_options(args), device=str(device))
    finder = build_finder(args.masks, pipeline, options=options)
    photos = list_images(image_folder(args.input))[args.skip :]
    captions = read_captions(image_folder(args.input), args.captions)
    if args.label_names:
        labels = map_labels(args.instances, args.label_names)
        maps = {"label_maps": str(args.instances), "label_names": str(args.label_names)}
        source = SourceConfig(str(args.input), caption_sources=["label_maps"], **maps)
        made = source_captions(source, photos, [photo for photo in photos if not captions.get(photo.name)])
        captions |= {photo.name: texts for photo, texts in made.items()}
    else:
        labels = coco_labels(args.instances)
    rows = score_masks(finder, photos, captions, labels, lambda it: tqdm(it, "finding masks", unit="photo"))
    if not rows:
        raise ValueError("no caption names a labelled object with a colour or a place; nothing to measure")
    if args.output:
        write_rows(args.output, rows)
    means = ", ".join(f"{name} {mean(row[name] for row in rows):.3f}" for name in ("iou", "whole", "center"))
    print(f"{len(rows)} phrases, {sum(row['found'] for row in rows)} with a mask; mean IoU: {means}")
    return 0


def main(argv: list[str] | None = None) -> int:
    parser = build_parser(None, __doc__)
    parser.add_argument("--model", required=True, help="checkpoint folder")
    parser.add_argument("--input", type=Path, required=True, help="folder of photos")
    parser.add_argument("--captions", type=Path, help="caption file (default: looked for beside the photos)")
    parser.add_argument(
        "--instances", type=Path, required=True, help="their objects: see lcad/masks/coco.py, or a folder of label maps"
    )
    parser.add_argument("--label-names", type=Path, help="what the ids of label maps are called")
    parser.add_argument("--skip", type=int, default=0, help="leave out the first so many photos, as trained on")
    parser.add_argument("--masks", default="regions", choices=["regions", "sam", "referring"])
    add_provider_options(parser.add_argument)
    parser.add_argument("--output", type=Path, help="CSV of all rows")
    parser.add_argument("--device", default="auto")
    args = parser.parse_args(argv)
    return reporting(lambda: run(args))


if __name__ == "__main__":
    raise SystemExit(main())
