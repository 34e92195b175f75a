"""Does the caption steer? Colours asked for against colours obtained, on photos and on rendered scenes.

lcad steer --model checkpoints/mini --input coco/images --instances coco/instances.json
lcad steer --model checkpoints/mini --scenes data/scenes_held_out

Photos: the colour word of each main object is replaced by red, green, blue and yellow in turn; is the mean colour
inside the object within 40 degrees of the asked hue, with a chroma of at least 12? The spill is how far the four words
move the mean colour outside the object. Scenes: does each object get the colour its caption names?
"""

import argparse
from pathlib import Path

from lcad.cli.common import build_parser, reporting
from lcad.cli.sampling import add_sampling, check_sampling, with_sampling
from lcad.config import ModelConfig
from lcad.defaults import MASK_SOURCES

SIZE = ModelConfig.image_size  # photos are colorized at SIZE x SIZE


def run(args: argparse.Namespace) -> int:
    from statistics import mean

    from tqdm import tqdm

    from lcad.evaluation.color_control import (
        build_main_object_finder,
        main_objects,
        photo_color_control,
        scene_color_control,
    )
    from lcad.evaluation.scoring import write_rows
    from lcad.io.images import list_images
    from lcad.masks.from_text import MaskFinder
    from lcad.masks.sources import build_finder
    from lcad.pipeline import LCADPipeline
    from lcad.text.captions import read_captions
    from ldm.devices import choose_device

    if not (args.input and args.instances or args.scenes):
        raise ValueError("nothing to steer: give --input with --instances, or --scenes")
    pipeline = LCADPipeline.from_pretrained(args.model).to(choose_device(args.device))
    pipeline = with_sampling(pipeline, args)
    pipeline.set_progress_bar_config(disable=True)
    options = {"num_inference_steps": args.steps, "guidance_scale": args.guidance}

    def build(source: str, files: Path | None = None) -> MaskFinder | None:
        return build_finder(source, pipeline, files if source == "files" else None)

    found = {}
    if args.input:
        photos = list_images(args.input)
        captions = read_captions(photos[0].parent, args.captions)
        objects = main_objects(photos, captions, args.instances, SIZE)[: args.photos]
        finder = build_main_object_finder(objects, pipeline.tokenizer) if args.masks == "files" else build(args.masks)
        found["photos"], _ = photo_color_control(pipeline, objects, finder, lambda it: tqdm(it, "photos"), **options)
    if args.scenes:
        options |= {"level": args.level, "find_masks": build(args.masks, args.scenes / "masks")}
        progress = lambda batches: tqdm(batches, "scenes")  # noqa: E731
        found["scenes"], _ = scene_color_control(pipeline, args.scenes, args.number, progress=progress, **options)
    for name, rows in found.items():
        if not rows:
            raise ValueError(f"{name}: nothing to steer; no caption names the colour of a labelled object")
        if args.output:
            write_rows(args.output / f"{name}.csv", rows)
        share = sum(row["adherent"] for row in rows) / len(rows)
        count = len({row["name"] for row in rows})
        spill = f"; spill {mean(row['spill'] for row in rows):.1f}" if name == "photos" else ""
        print(f"{name}: {100 * share:.0f} % as asked, of {len(rows)} colours in {count} {name}{spill}")
    return 0


def main(argv: list[str] | None = None) -> int:
    parser = build_parser("lcad steer", __doc__)
    add = parser.add_argument
    add("--model", required=True, help="checkpoint folder")
    add("--input", type=Path, help="folder of photos")
    add("--captions", type=Path, help="caption file (default: looked for beside the photos)")
    add("--instances", type=Path, help="masks of the photos' objects, in COCO's format")
    add("--photos", type=int, default=20, help="photos whose colour word is swapped, largest objects first")
    add("--scenes", type=Path, help="folder of rendered scenes, see scripts/render_scenes.py")
    add("--number", type=int, default=100, help="scenes with several objects")
    add("--level", default="complete", help="their captions: complete (with position words), ...")
    add(
        "--masks",
        default=MASK_SOURCES[0],
        choices=MASK_SOURCES,
        help="instance-aware sampling with masks found from words (auto, regions), or with true ones (files)",
    )
    add("--output", type=Path, help="folder for one CSV of rows each")
    add_sampling(add)
    add("--device", default="auto")
    args = parser.parse_args(argv)
    check_sampling(args, parser)
    return reporting(lambda: run(args))
