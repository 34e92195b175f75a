#!/usr/bin/env python3
"""Show a model: photos with and without captions, with one colour word after another, and with exact colours.

python scripts/contact_sheets.py --model checkpoints/mini --output docs/
python scripts/contact_sheets.py --model checkpoints/mini --input data/scenes_held_out --limit 8 --output outputs/

python scripts/contact_sheets.py --model checkpoints/mini --input archive/ --captions data/captions/legacy.json \\
    --sheet legacy --output outputs/

Writes captions.jpg (grey, with caption, with "a colorful image", and true, if the photo is in colour), swaps.jpg
(grey, red, green, blue, yellow in the place of the caption's first colour) and exact_colors.jpg (of photos with mask
files: grey, with caption, the first masked object in exact colours, and a look); with --sheet NAME the first alone, as
NAME.jpg. All photos are shown, those without a caption too. Seeds are fixed.
"""

import argparse
from functools import partial
from pathlib import Path

from lcad.cli.common import build_parser, reporting

ROOT = Path(__file__).resolve().parents[1]


def run(args: argparse.Namespace) -> int:
    from lcad.evaluation.showcase import caption_rows, exact_color_rows, swap_rows
    from lcad.io.contact_sheet import contact_sheet
    from lcad.io.images import image_folder, list_images, read_image, write_image
    from lcad.io.prepared_photo import PreparedPhoto
    from lcad.masks.from_text import build_file_finder, some_masks
    from lcad.pipeline import LCADPipeline
    from lcad.text.captions import read_captions
    from ldm.devices import choose_device

    folder = image_folder(args.input)
    captions = read_captions(folder, args.captions)
    photos = list_images(folder)[: args.limit]
    if not any(captions.get(photo.name) for photo in photos):
        raise ValueError(f"{folder}: no photo has a caption; see data/README.md")
    pipeline = LCADPipeline.from_pretrained(args.model).to(choose_device(args.device))
    pipeline.set_progress_bar_config(desc="colorizing", leave=False)
    images = [read_image(photo) for photo in photos]
    texts = [(captions.get(photo.name) or [""])[0] for photo in photos]
    sheets = {args.sheet or "captions": caption_rows}
    if not args.sheet:
        find = build_file_finder(args.input / "masks", pipeline.tokenizer)
        asked = zip(photos, images, texts, strict=True)
        masks = [some_masks(find(path, PreparedPhoto.of(image), text)) for path, image, text in asked]
        sheets |= {"swaps": swap_rows, "exact_colors": partial(exact_color_rows, masks=masks)}
    for name, make_rows in sheets.items():
        rows = make_rows(pipeline, images, texts, num_inference_steps=args.steps, guidance_scale=args.guidance)
        if rows:
            write_image(args.output / f"{name}.jpg", contact_sheet(rows, args.tile))
            print(f"wrote {args.output / f'{name}.jpg'}")
    return 0


def main(argv: list[str] | None = None) -> int:
    parser = build_parser(None, __doc__)
    parser.add_argument("--model", required=True, help="checkpoint folder")
    parser.add_argument("--input", type=Path, default=ROOT / "data" / "examples", help="folder of captioned photos")
    parser.add_argument("--captions", type=Path, help="caption file (default: looked for beside the photos)")
    parser.add_argument("--output", type=Path, required=True, help="folder for the sheets; older ones are replaced")
    parser.add_argument("--sheet", metavar="NAME", help="write one sheet only, of captions, as NAME.jpg")
    parser.add_argument("--limit", type=int, help="photos on a sheet, the first by name (default: all)")
    parser.add_argument("--tile", type=int, default=192, help="side of a picture in pixels")
    parser.add_argument("--steps", type=int, help="default: the model's own")
    parser.add_argument("--guidance", type=float, help="default: the model's own")
    parser.add_argument("--device", default="auto")
    args = parser.parse_args(argv)
    return reporting(lambda: run(args))


if __name__ == "__main__":
    raise SystemExit(main())
