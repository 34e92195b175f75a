"""Colorize photographs from captions.

    lcad sample                                     # the bundled examples with the bundled mini model
    lcad sample --input photo.jpg --caption "a woman in a red coat"
    lcad sample --input my_photos/ --captions my_photos/captions.json --output coloured/
    lcad sample --input archive/ --recursive --output coloured/       # photos in folders below, too
    lcad sample --input cups/ --show-masks                            # and see the masks it found
    lcad sample --input cups/ --mask-folder masks/ --model checkpoints/lcad
    lcad sample --input my_photos/ --levels complete,partial,scarce   # Fig. 7 of the paper

Results, a JSON record beside each, contact_sheet.png and run.jsonl are written to the output folder. A run that was
stopped goes on by the same command or --resume coloured/; --replay coloured/run.jsonl makes the same again elsewhere.
Exit status: 0 all done, 1 some photos failed, 2 nothing could be done.
"""

import argparse
import os
import sys
from pathlib import Path

from lcad.cli.common import REPOSITORY, add_dtype, add_look, add_output, add_provider_options, build_parser
from lcad.cli.sampling import add_sampling, check_sampling
from lcad.defaults import MASK_SOURCES, OUTPUT_LUMINANCE
from lcad.inference.batch_runner import RunOptions
from lcad.inference.batch_size import BATCH_SIZE
from lcad.inference.plan import Settings
from lcad.instance_sampling import MODES, Refinement
from lcad.masks.providers import SOURCES
from lcad.recoloring.looks import SATURATION, WARMTH

MODEL = REPOSITORY / "checkpoints" / "mini"
EXAMPLES = REPOSITORY / "data" / "examples"
RANGES = {"guidance": (0, 100), "instance_strength": (0, 1000), "saturation": SATURATION, "warmth": WARMTH}
LEAST = {
    "steps": 1,
    "num_samples": 1,
    "batch_size": 1,
    "seed": 0,
    "num_readers": 1,
    "devices": 1,
    "nodes": 1,
    "resolution": 16,
    "tiled_resolution": 16,
}


def parse(argv: list[str] | None) -> argparse.Namespace:
    """The options of `lcad sample`, checked; `command` and `cwd` are what was given, and where, for the record."""
    parser = build_parser("lcad sample", __doc__)
    parser.add_argument("--model", default=str(MODEL), help="checkpoint folder or hub id (default: the mini model)")
    _add_photos(parser)
    _add_masks(parser)
    _add_colors(parser)
    _add_sampling(parser)
    _add_machine(parser)
    _add_run(parser)
    command = parser.renamed(sys.argv[1:] if argv is None else argv)
    args = parser.parse_args(command)
    args.command, args.cwd = command, Path.cwd()
    check(args, parser)
    return args


def _add_photos(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("photos and captions").add_argument
    add("--input", type=Path, help="a photo or a folder of photos (default: the bundled examples)")
    add("--captions", type=Path, help="caption file (default: looked for beside the photos, see data/README.md)")
    add("--caption", help="one caption for all photos")
    add("--recursive", action="store_true", help="also the photos in folders below; results lie in the same folders")
    add(
        "--levels",
        type=lambda text: tuple(text.split(",")),
        default=("complete",),
        help="caption levels, side by side on the contact sheet: complete (as given), partial, scarce",
    )


def _add_masks(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("instance masks").add_argument
    add(
        "--masks",
        default=MASK_SOURCES[0],
        choices=SOURCES,
        help="where instance masks come from: auto (the default: mask files if there are some, else found from the "
        "caption by the best of the others whose weights are given), none, files, regions (of the luminance: without "
        "weights), sam, referring (CLIPSeg, or Grounding DINO where a SAM checkpoint is given)",
    )
    add(
        "--mask-folder",
        type=Path,
        help="mask files <photo's stem>/<i>_<anything>.png, i-th phrase of the caption; or a JSON of COCO's instances",
    )
    add("--label-names", type=Path, help="lines of '<id> <name>': --mask-folder holds label maps <photo's stem>.png")
    add_provider_options(add)
    add("--show-masks", action="store_true", help="write shown_masks/: regions with phrases and scores, attention maps")
    add("--save-masks", action="store_true", help="write masks/, to be edited and read with --mask-folder")
    add(
        "--instance-sampling",
        default=Refinement.mode,
        choices=["none", *MODES],
        help="instance-aware sampling, where there are masks (default: %(default)s)",
    )
    add(
        "--instance-strength",
        type=float,
        default=Refinement.strength,
        help="how far it moves attention (default: %(default)g)",
    )


def _add_colors(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("colours").add_argument
    add(
        "--color",
        action="append",
        default=[],
        metavar="OBJECT=COLOUR",
        help="an exact colour, such as coat=#8b1a1a, 'sky=pale blue', @412,230=navy (the object at a point) or "
        "mask.png=navy; may be given several times; the column colors of a captions.csv says it for each photo",
    )
    add_look(add)


def _add_sampling(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("sampling").add_argument
    add_sampling(add)
    add("--seed", type=int, default=Settings.seed, help="default: %(default)s")
    add("--num-samples", type=int, default=Settings.samples, help="different colorizations of each photo")
    add(
        "--best-by",
        choices=["adherence"],
        help="of the samples keep the one whose masked objects best have their colours",
    )
    add("--resolution", type=int, help="long side in pixels that the model works at (default: about its own size)")
    add(
        "--tiled-resolution",
        type=int,
        help="then work it out at this long side, in overlapping tiles of the size before it",
    )
    add(
        "--output-luminance",
        default=Settings.output_luminance,
        choices=OUTPUT_LUMINANCE,
        help="input: keep the photo's own detail (default: %(default)s)",
    )


def _add_machine(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("machine").add_argument
    add("--device", default="auto", help="auto, cpu, cuda, cuda:1, mps")
    of_torchrun = {name: int(os.environ.get(name, 1)) for name in ("LOCAL_WORLD_SIZE", "GROUP_WORLD_SIZE")}
    devices, nodes = of_torchrun.values()
    add("--devices", type=int, default=devices, help="the photos are shared out to so many, of each node")
    add("--nodes", type=int, default=nodes, help="machines; start the command on each, best with torchrun")
    add_dtype(add)
    add(
        "--cuda-graphs",
        action=argparse.BooleanOptionalAction,
        help="capture the sampling steps of each size of photos and replay them (default: on a CUDA device)",
    )
    add(
        "--batch-size",
        type=number_or_auto,
        default=BATCH_SIZE,
        help="photos at a time, or auto: as many as a GPU's memory has room for (default: %(default)s)",
    )
    add(
        "--num-readers",
        type=int,
        default=RunOptions.readers,
        help="threads that read photos ahead (default: %(default)s)",
    )


def number_or_auto(text: str) -> int | None:
    """None: auto. Raises ValueError: neither."""
    return None if text == "auto" else int(text)


def _add_run(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("results and runs").add_argument
    add_output(add)
    add("--resume", type=Path, metavar="FOLDER", help="go on with a run that was stopped, by its output folder")
    add("--replay", type=Path, metavar="RUN.JSONL", help="run the command of a record again and compare the pixels")
    add("--dry-run", action="store_true", help="only list what would be done, and estimate the time")
    add("--overwrite", action="store_true", help="replace results that were made with other settings")


def check(args: argparse.Namespace, parser: argparse.ArgumentParser) -> None:
    """Refuse values that no run can have, and options that would be of no effect."""
    for name, least in LEAST.items():
        if getattr(args, name) is not None and getattr(args, name) < least:
            parser.error(f"--{name.replace('_', '-')} must be at least {least}, got {getattr(args, name)}")
    if args.recursive and (args.mask_folder or args.save_masks):
        parser.error("--recursive does not go with --mask-folder or --save-masks, which go by the photo's name alone")
    for name, (low, high) in RANGES.items():
        value = getattr(args, name)
        if value is not None and not low <= value <= high:  # nor is nan
            parser.error(f"--{name.replace('_', '-')} must be from {low:g} to {high:g}, got {value}")
    if args.save_masks and args.mask_folder and args.mask_folder.resolve() == (args.output / "masks").resolve():
        parser.error("--save-masks would replace the masks of --mask-folder; choose another --output")
    check_sampling(args, parser)
    own = {"resume": ("--resume",), "replay": ("--replay", "--output")}
    for name, allowed in own.items():
        given = [part.partition("=")[0] for part in args.command if part.startswith("--")]
        others = sorted(set(given) - set(allowed))
        if getattr(args, name) is not None and others:
            parser.error(f"--{name} takes the options of the recorded command; leave out {', '.join(others)}")
    if args.resume is None and args.replay is None:
        for option, path, bundled in (("--model", args.model, MODEL), ("--input", args.input or EXAMPLES, EXAMPLES)):
            if str(path) == str(bundled) and not bundled.exists():
                parser.error(
                    f"give {option}: what is taken without it comes with the repository alone, not with a wheel"
                )
