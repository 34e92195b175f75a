#!/usr/bin/env python3
"""Render scenes of shaded objects in named colours: images, captions, instance masks.

python scripts/render_scenes.py --output data/scenes --number 9000 --seed 0
python scripts/render_scenes.py --output data/scenes_alike --number 3000 --seed 3 --kinds same --levels complete_plain
python scripts/render_scenes.py --output data/scenes_held_out --number 300 --seed 1
"""

import argparse
from pathlib import Path

from lcad.cli.common import build_parser, reporting


def run(args: argparse.Namespace) -> int:
    from tqdm import tqdm

    from lcad.data.build.scenes import TRAINING_LEVELS, write_scenes

    unknown = set(args.levels) - set(TRAINING_LEVELS)
    if unknown:
        raise ValueError(f"--levels: got {', '.join(sorted(unknown))}; allowed: {', '.join(TRAINING_LEVELS)}")
    levels = args.levels or TRAINING_LEVELS
    scenes = write_scenes(args.output, args.number, args.seed, args.size, args.same_kind, levels)
    for _ in tqdm(scenes, "rendering", total=args.number, unit="scene"):
        pass
    print(f"wrote {args.number} scenes to {args.output}")
    return 0


def main(argv: list[str] | None = None) -> int:
    parser = build_parser(None, __doc__)
    add = parser.add_argument
    add("--output", type=Path, required=True, help="folder for images/, masks/ and captions.json")
    add("--number", type=int, default=9000)
    add("--seed", type=int, default=0, help="the stream of scenes; hold one out for measuring")
    add("--size", type=int, default=128, help="side of the images in pixels")
    add("--kinds", choices=["any", "same", "different"], default="any", help="whether the objects of a scene are alike")
    add("--levels", nargs="+", default=(), help="of the captions in captions.json; default: all")
    args = parser.parse_args(argv)
    args.same_kind = {"any": None, "same": True, "different": False}[args.kinds]
    return reporting(lambda: run(args))


if __name__ == "__main__":
    raise SystemExit(main())
