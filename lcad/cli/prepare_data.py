"""Make a folder of 256x256 photos, captions and a manifest from a download, or from photos of your own.

lcad prepare coco-stuff --split val --input val2017.zip --captions caption_val.json
lcad prepare multi-instance --split val --input multi_instance.zip
lcad prepare imagenet --input ILSVRC2012_img_val.tar
lcad prepare folder --input my_photos --output data/my_photos

Run it again to go on after an interruption, or with another --level: photos that are there are kept. What is missing
or damaged is named, and listed in problems.txt; the exit status is then 1 and everything else is done.
"""

import argparse
import sys
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from lcad.cli.common import build_parser, reporting
from lcad.text.levels import LEVELS

if TYPE_CHECKING:
    from lcad.data.build.preparation import Photos
    from lcad.text.captions import Captions

SHOWN = 20  # problems on the screen; all of them are in problems.txt


def run(args: argparse.Namespace) -> int:
    from tqdm import tqdm

    from lcad.data.build import preparation
    from lcad.io.images import write_bytes

    problems: list[str] = []
    with ExitStack() as stack:
        photos, captions = choose(args, stack, problems.append)
        bar = lambda items: tqdm(items, "preparing", unit="photo", disable=None)  # noqa: E731
        rows = preparation.prepare(photos, captions, args.output, args.level, problems.append, args.overwrite, bar)
    warning = preparation.count_warning(f"{args.data_set} {args.split}", len(rows))
    extra = preparation.left_over(args.output, rows)
    if warning:
        print(f"warning: {warning}", file=sys.stderr)
    if extra:
        some = ", ".join(extra[:5])
        print(f"warning: {len(extra)} files in images/ are not in the manifest: {some}; delete them", file=sys.stderr)
    for line in problems[:SHOWN]:
        print(f"problem: {line}", file=sys.stderr)
    (args.output / "problems.txt").unlink(missing_ok=True)
    if problems:
        write_bytes(args.output / "problems.txt", "".join(f"{line}\n" for line in problems).encode())
        print(f"{len(problems)} problems, all in {args.output / 'problems.txt'}", file=sys.stderr)
    print(f"{args.output}: {len(rows)} photos with {args.level} captions")
    return 1 if problems else 0


def choose(args: argparse.Namespace, stack: ExitStack, report: Callable[[str], None]) -> tuple["Photos", "Captions"]:
    """The photos a data set is made of, and their captions."""
    from lcad.data.build.archives import file_member, list_members
    from lcad.data.build.preparation import captions_inside, first_photos, images_of, named_photos
    from lcad.io.images import image_folder, list_images
    from lcad.text.captions import read_captions

    if args.data_set == "folder":
        files = list_images(image_folder(args.input[0]))
        if (args.output / "images").resolve() == files[0].parent.resolve():
            raise ValueError(f"{args.output}: holds the photos themselves; choose another --output")
        captions = read_captions(files[0].parent, args.captions)
        images = [file_member(file, file.parent) for file in files]
        return named_photos(images, {*captions, *(image.name for image in images)}, report), captions
    members = [member for source in args.input for member in list_members(source, stack, report)]
    if args.data_set == "imagenet":
        return first_photos(images_of(members, report), args.number, report), {}
    captions = read_captions(Path(), args.captions) if args.captions else captions_inside(members, args.split)
    return named_photos(images_of(members, report, args.split), captions, report), captions


def main(argv: list[str] | None = None) -> int:
    parser = build_parser("lcad prepare", __doc__)
    data_sets = parser.add_subparsers(dest="data_set", required=True)
    for name, source in {
        "coco-stuff": "COCO 2017's zips or folders, one or both",
        "multi-instance": "the archive or its folder",
        "imagenet": "the validation set's tar or folder",
        "folder": "photos, captions beside them",
    }.items():
        part = data_sets.add_parser(name, help=source)
        part.add_argument("--input", type=Path, nargs=1 if name == "folder" else "+", required=True, help=source)
        part.add_argument("--output", type=Path, help="default: data/<data set>, for a folder <input>_prepared")
        part.add_argument("--overwrite", action="store_true", help="also do the photos that are there")
        part.set_defaults(split="val", captions=None, level="scarce")
        if name in ("coco-stuff", "multi-instance"):
            part.add_argument("--split", choices=["train", "val"], required=True)
        if name == "imagenet":
            part.add_argument("--number", type=int, default=5000, help="of photos, the first by name")
        else:
            needed = name == "coco-stuff"
            part.add_argument("--captions", type=Path, required=needed, help="caption file, see data/README.md")
            part.add_argument("--level", choices=LEVELS, default="complete", help="of the captions")
    args = parser.parse_args(argv)
    if args.output is None and args.data_set == "folder":
        args.output = args.input[0].with_name(f"{args.input[0].name}_prepared")
    elif args.output is None:
        args.output = Path("data", args.data_set.replace("-", "_") + ("" if args.split == "train" else "_val"))
    return reporting(lambda: run(args))
