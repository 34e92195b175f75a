"""Bring the colours of another picture onto photos, which keep their own luminance, size and depth.

    python scripts/transfer_colors.py --input scan.tif --colors edited.png
    python scripts/transfer_colors.py --input scans/ --colors edited/ --output coloured/      # pairs by name
    python scripts/transfer_colors.py --input scan.tif --colors edited.png --show-confidence
    python scripts/transfer_colors.py --input scan.tif --colors edited.png --model checkpoints/mini
    python scripts/transfer_colors.py --input series/ --reference other_photo.jpg

--colors: what an editor or another program made of the same photo; it may be smaller, cropped, shifted, slightly
warped and compressed. It is found in the photo; a picture of something else is refused. What does not fit, or lies
outside it, stays grey, or with --model has the model's colours. --reference: a photo of similar things; what looks
alike in black and white gets like colours, which is a guess, not a registration.

A result has a JSON record beside it; contact_sheet.png shows all. See docs/transfer.md.
Exit status: 0 all done, 1 some photos failed, 2 nothing could be done.
"""

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from lcad.cli.common import INTERRUPTED, add_dtype, add_output, build_parser, reporting
from lcad.defaults import SEED

if TYPE_CHECKING:
    from lcad.cli.transfer_run import Filler
    from lcad.inference.plan import Job


@dataclass(frozen=True)
class Pairs:
    """Which picture's colours each photo gets.

    Attributes:
        pictures: by photo; those without a partner are missing.
        problems: one line for each photo without a partner.
        notes: one line for each picture without a photo.
    """

    pictures: dict[Path, Path]
    problems: list[str]
    notes: list[str]


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = build_parser("lcad transfer", __doc__)
    add = parser.add_argument
    add("--input", type=Path, required=True, help="a photo or a folder of photos")
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument(
        "--colors", type=Path, help="the photo in colour, or a folder of such, called as the photos are"
    )
    source.add_argument("--reference", type=Path, help="one photo whose colours go to similar things in all photos")
    add_output(add)
    add("--show-confidence", action="store_true", help="write confidence/: what does not fit is red there")
    add("--model", help="checkpoint folder or hub id, for what does not fit (default: it stays grey)")
    add("--captions", type=Path, help="caption file for --model (default: looked for beside the photos)")
    add("--caption", help="one caption for --model and all photos")
    add("--steps", type=int, help="sampling steps (default: the model's own)")
    add("--seed", type=int, default=SEED)
    add("--device", default="auto", help="of the model: auto, cpu, cuda, cuda:1, mps")
    add_dtype(add)
    add("--overwrite", action="store_true", help="replace results that were made otherwise")
    args = parser.parse_args(argv)
    if args.steps is not None and args.steps < 1:
        parser.error(f"--steps must be at least 1, got {args.steps}")
    if args.seed < 0:
        parser.error(f"--seed must be at least 0, got {args.seed}")
    given = [name for name in ("caption", "captions", "steps") if getattr(args, name) is not None]
    if args.model is None and given:
        parser.error(f"--{given[0]} is for the model; give --model, too")
    return args


def pair_up(photos: list[Path], colors: Path) -> Pairs:
    """Photos and pictures of the same name; suffixes, case and Unicode's composition may differ.

    Raises:
        FileNotFoundError: no such file or folder, or no image in it.
        ValueError: one picture for several photos.
    """
    from lcad.inference.plan import folded
    from lcad.io.images import list_images

    pictures = list_images(colors)
    if colors.is_file():
        if len(photos) > 1:
            raise ValueError(
                f"{colors}: one picture for {len(photos)} photos; give a folder of pictures called as the photos are, "
                "or --reference for a series"
            )
        return Pairs({photos[0]: colors}, [], [])
    by_stem: dict[str, list[Path]] = {}
    for picture in pictures:
        by_stem.setdefault(folded(picture.stem), []).append(picture)
    pairs, problems = {}, []
    for photo in photos:
        found = by_stem.get(folded(photo.stem), [])
        if len(found) > 1:  # the same whole name, then
            found = [picture for picture in found if folded(picture.name) == folded(photo.name)] or found
        if len(found) == 1:
            pairs[photo] = found[0]
        elif found:
            names = ", ".join(picture.name for picture in found)
            problems.append(f"{photo}: several pictures in {colors} are called so ({names}); leave one there")
        else:
            problems.append(f"{photo}: no picture in {colors} is called {photo.stem}; give it the photo's name")
    used = set(pairs.values())
    stems = {folded(photo.stem) for photo in photos}
    spare = [picture for picture in pictures if picture not in used and folded(picture.stem) not in stems]
    return Pairs(pairs, problems, [f"{picture}: no photo is called so; it is not used" for picture in spare])


def find_jobs(args: argparse.Namespace) -> tuple[list["Job"], Pairs]:
    """The photos to do, with their captions, and the picture of each.

    Raises:
        OSError, ValueError: as `pair_up`, or the captions'.
    """
    from lcad.inference.inventory import take_inventory
    from lcad.inference.plan import list_jobs
    from lcad.text.captions import read_captions

    if args.reference is not None and not args.reference.is_file():
        raise FileNotFoundError(f"{args.reference}: no such file; --reference is one photo")
    inventory = take_inventory(args.input, args.output)
    photos = [photo for found in inventory.photos.values() for photo in found]
    if args.reference is None:
        pairs = pair_up(photos, args.colors)
    else:
        pairs = Pairs(dict.fromkeys(photos, args.reference), [], [])
    pairs.problems.extend(f"{path}: {reason}" for path, reason in inventory.not_read.items())
    pairs.notes.extend(inventory.notes)
    jobs = []
    for folder, found in inventory.photos.items():
        captions = read_captions(folder, args.captions) if args.model and args.caption is None else {}
        if args.caption is not None:
            captions = {photo.name: [args.caption] for photo in found}
        jobs += [job for job in list_jobs(found, captions) if job.photo in pairs.pictures]
    return jobs, pairs


def build_filler(args: argparse.Namespace) -> "Filler | None":
    """The model for what does not fit; None: not asked for."""
    if args.model is None:
        return None
    from lcad.cli.transfer_run import Filler
    from lcad.pipeline import LCADPipeline
    from ldm.devices import choose_device, choose_dtype

    device = choose_device(args.device)
    pipeline = LCADPipeline.from_pretrained(args.model, torch_dtype=choose_dtype(args.dtype, device)).to(device)
    pipeline.set_progress_bar_config(leave=False)
    return Filler(pipeline, args.steps, args.seed)


def run(args: argparse.Namespace) -> int:
    from tqdm import tqdm

    from lcad.cli.transfer_run import TransferRun
    from lcad.inference.output import OutputFolder
    from lcad.inference.summary import one_line

    jobs, pairs = find_jobs(args)
    output = OutputFolder(args.output, args.format and f".{args.format}", overwrite=args.overwrite)
    fill, reference = build_filler(args), args.reference is not None
    transfer = TransferRun(output, fill, reference, args.show_confidence, report=tqdm.write)
    for note in pairs.notes:
        print(one_line(f"note: {note}"), file=sys.stderr)
    for line in pairs.problems:
        transfer.summary.fail(line)
    status = 0
    try:
        transfer.run(jobs, pairs.pictures, lambda items: tqdm(items, "colours", unit="photo", disable=len(items) < 2))
    except KeyboardInterrupt:
        status = INTERRUPTED
    summary = transfer.summary
    summary.try_sheet(args.output)
    print(f"{summary.written} coloured, {summary.kept} kept from before, {summary.failed} failed; see {args.output}")
    for problem in summary.problems:
        print(f"problem: {problem}", file=sys.stderr)
    return status or summary.status


def main(argv: list[str] | None = None) -> int:
    args = parse(argv)
    return reporting(lambda: run(args))
