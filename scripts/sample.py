#!/usr/bin/env python3
"""Colorize photographs from captions.

    python scripts/sample.py                                     # the bundled examples with the bundled mini model
    python scripts/sample.py --input photo.jpg --caption "a woman in a red coat"
    python scripts/sample.py --input my_photos/ --captions my_photos/captions.json --output coloured/
    python scripts/sample.py --input archive/ --recursive --output coloured/       # photos in folders below, too
    python scripts/sample.py --input cups/ --show-masks                            # and see the masks it found
    python scripts/sample.py --input cups/ --mask-folder masks/ --model checkpoints/lcad
    python scripts/sample.py --input my_photos/ --levels complete,partial,scarce   # Fig. 7 of the paper

Results, a JSON record beside each, contact_sheet.png and run.jsonl are written to the output folder. A run that was
stopped goes on by the same command or --resume coloured/; --repeat coloured/run.jsonl makes the same again elsewhere.
Exit status: 0 all done, 1 some photos failed, 2 nothing could be done.
"""

import argparse
import os
import sys
from pathlib import Path

from lcad.cli.common import reporting
from lcad.instance_sampling import MODES
from ldm.devices import DTYPES, choose_device, share_out
from ldm.schedulers import SCHEDULERS

SOURCES = ("auto", "none", "files", "regions", "sam", "referring")  # as lcad.masks.sources, which takes long to import

ROOT = Path(__file__).resolve().parents[1]
EXAMPLES = ROOT / "data" / "examples"
ABSENT_LINES = 5  # of captions whose photos are not there
INTERRUPTED = 130  # exit status, as shells have it
RANGES = {"guidance": (0, 100), "strength": (0, 1000), "saturation": (0, 2), "warmth": (-1, 1)}


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    add = parser.add_argument
    add(
        "--model",
        default=str(ROOT / "checkpoints" / "mini"),
        help="checkpoint folder or hub id (default: the mini model)",
    )
    add("--input", type=Path, help="a photo or a folder of photos (default: the bundled examples)")
    add("--captions", type=Path, help="caption file (default: looked for beside the photos, see data/README.md)")
    add("--caption", help="one caption for all photos")
    add("--recursive", action="store_true", help="also the photos in folders below; results lie in the same folders")
    add(
        "--masks",
        default="auto",
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
    add("--sam-checkpoint", help="weights of Segment Anything, such as sam_vit_h_4b8939.pth")
    add("--sam-type", default="vit_h", help="the model type of that checkpoint: vit_h, vit_l or vit_b")
    add("--words-model", help="folder or hub id of CLIPSeg, or of Grounding DINO, for referring masks")
    add("--show-masks", action="store_true", help="write shown_masks/: regions with phrases and scores, attention maps")
    add("--save-masks", action="store_true", help="write masks/, to be edited and read with --mask-folder")
    add(
        "--levels",
        type=lambda text: tuple(text.split(",")),
        default=("complete",),
        help="caption levels, side by side on the contact sheet: complete (as given), partial, scarce",
    )
    add("--output", type=Path, default=Path("outputs"), help="folder for results (default: outputs)")
    add(
        "--format",
        choices=["png", "tif", "jpg", "webp", "bmp"],
        help="of the results (default: TIFF for TIFF, PNG for all else; both keep 16 bit)",
    )
    add("--steps", type=int, help="sampling steps (default: the model's own)")
    add("--scheduler", choices=list(SCHEDULERS), help="default: the model's own")
    add("--guidance", type=float, help="classifier-free guidance; 1 is none (default: the model's own)")
    add("--seed", type=int, default=0)
    add("--num-samples", type=int, default=1, help="different colorizations of each photo")
    add(
        "--pick", choices=["adherence"], help="of the samples keep the one whose masked objects best have their colours"
    )
    add("--device", default="auto", help="auto, cpu, cuda, cuda:1, mps")
    of_torchrun = {name: int(os.environ.get(name, 1)) for name in ("LOCAL_WORLD_SIZE", "GROUP_WORLD_SIZE")}
    devices, nodes = of_torchrun.values()
    add("--devices", type=int, default=devices, help="the photos are shared out to so many, of each node")
    add("--nodes", type=int, default=nodes, help="machines; start the command on each, best with torchrun")
    add("--dtype", default="float32", choices=list(DTYPES))
    add("--batch-size", type=int, default=4)
    add("--jobs", type=int, default=2, help="threads that read photos ahead (default: 2)")
    add("--model-size", type=int, help="long side in pixels that the model works at (default: about its own size)")
    add("--tiled-size", type=int, help="then work it out at this long side, in overlapping tiles of the size before it")
    add("--output-luminance", default="input", choices=["input", "decoded"], help="input: keep the photo's own detail")
    add(
        "--refinement",
        default="one_pass",
        choices=["none", *MODES],
        help="instance-aware sampling, where there are masks",
    )
    add("--strength", type=float, help="strength of instance-aware sampling")
    add(
        "--color",
        action="append",
        default=[],
        metavar="OBJECT=COLOUR",
        help="an exact colour, such as coat=#8b1a1a, 'sky=pale blue', @412,230=navy (the object at a point) or "
        "mask.png=navy; may be given several times; the column colors of a captions.csv says it for each photo",
    )
    add("--saturation", type=float, default=1.0, help="of the result: 0 grey, 1 as it is (default), up to 2")
    add("--warmth", type=float, default=0.0, help="of the result: -1 cooler, 0 as it is (default), 1 warmer")
    add(
        "--resume",
        type=Path,
        metavar="FOLDER",
        help="go on with a run that was stopped, by its output folder",
    )
    add("--repeat", type=Path, metavar="RUN.JSONL", help="run the command of a record again and compare the pixels")
    add("--dry-run", action="store_true", help="only list what would be done, and estimate the time")
    add("--overwrite", action="store_true", help="replace results that were made with other settings")
    args = parser.parse_args(argv)
    args.command, args.cwd = sys.argv[1:] if argv is None else list(argv), Path.cwd()
    check(args, parser)
    return args


def check(args: argparse.Namespace, parser: argparse.ArgumentParser) -> None:
    """Refuse values that no run can have, and options that would be of no effect."""
    for name, least in (
        ("steps", 1),
        ("num_samples", 1),
        ("batch_size", 1),
        ("seed", 0),
        ("jobs", 1),
        ("devices", 1),
        ("nodes", 1),
        ("model_size", 16),
        ("tiled_size", 16),
    ):
        if getattr(args, name) is not None and getattr(args, name) < least:
            parser.error(f"--{name.replace('_', '-')} must be at least {least}, got {getattr(args, name)}")
    if args.recursive and (args.mask_folder or args.save_masks):
        parser.error("--recursive does not go with --mask-folder or --save-masks, which go by the photo's name alone")
    for name, (least, most) in RANGES.items():
        value = getattr(args, name)
        if value is not None and not least <= value <= most:  # nor is nan
            parser.error(f"--{name} must be from {least} to {most}, got {value}")
    if args.save_masks and args.mask_folder and args.mask_folder.resolve() == (args.output / "masks").resolve():
        parser.error("--save-masks would replace the masks of --mask-folder; choose another --output")
    own = {"resume": ("--resume",), "repeat": ("--repeat", "--output")}
    for name, allowed in own.items():
        given = [part.partition("=")[0] for part in args.command if part.startswith("--")]
        others = sorted(set(given) - set(allowed))
        if getattr(args, name) is not None and others:
            parser.error(f"--{name} takes the options of the recorded command; leave out {', '.join(others)}")


def find_jobs(args: argparse.Namespace) -> tuple[list, list[str], list[str]]:
    """The photos to colorize with their captions, a line for each image that is not read, and notes."""
    from lcad.inference.inventory import take_inventory
    from lcad.inference.plan import list_jobs
    from lcad.recoloring.exact_colors import parse_targets
    from lcad.text.captions import read_captions, read_colors

    inventory = take_inventory(args.input, args.output, args.recursive)
    jobs, absent = [], []
    everywhere = parse_targets(args.color, args.cwd)
    for folder, photos in inventory.photos.items():
        captions = read_captions(folder, args.captions)
        if args.input.is_dir() and not (
            args.recursive and args.captions
        ):  # one caption file may be for several folders
            there = {photo.name for photo in photos} | {path.name for path in inventory.not_read}
            absent += [f"captions name {name!r}, which is not in {folder}" for name in sorted(captions.keys() - there)]
        if args.caption is not None:
            captions = {photo.name: [args.caption] for photo in photos}
        below = folder.relative_to(args.input) if args.recursive else Path()
        listed, place = read_colors(folder, args.captions)
        colors = {name: parse_targets(texts, place, everywhere) for name, texts in listed.items()}
        jobs += list_jobs(
            photos, captions, args.levels, below, lambda photo, own=colors: own.get(photo.name, everywhere)
        )
    if len(absent) > ABSENT_LINES:
        absent[ABSENT_LINES:] = [f"captions name {len(absent) - ABSENT_LINES} more photos that are not there"]
    not_read = [f"{path}: {reason}" for path, reason in inventory.not_read.items()]
    return jobs, not_read, inventory.notes + absent


def settings_from(args: argparse.Namespace, pipeline):
    from lcad.inference.plan import settings_of
    from lcad.instance_sampling import Refinement

    strength = {} if args.strength is None else {"strength": args.strength}
    return settings_of(
        pipeline,
        args.steps,
        args.guidance,
        seed=args.seed,
        samples=args.num_samples,
        pick=args.pick,
        output_luminance=args.output_luminance,
        refinement=None if args.refinement == "none" else Refinement(mode=args.refinement, **strength),
        model_size=args.model_size,
        tiled_size=args.tiled_size,
        saturation=args.saturation,
        warmth=args.warmth,
    )


def build_runner(args: argparse.Namespace, device, quiet: bool):
    from tqdm import tqdm

    from lcad.inference.batch_runner import FolderRun, RunOptions
    from lcad.inference.output import OutputFolder
    from lcad.masks.sources import build_finder
    from lcad.masks.types import ProviderOptions
    from lcad.pipeline import LCADPipeline
    from lcad.recoloring.object_masks import object_finder
    from ldm.schedulers import build_scheduler

    pipeline = LCADPipeline.from_pretrained(args.model, torch_dtype=DTYPES[args.dtype]).to(device)
    if args.scheduler:
        pipeline.scheduler = build_scheduler(args.scheduler, pipeline.scheduler.config.prediction_type)
    pipeline.set_progress_bar_config(leave=False, disable=quiet)
    settings = settings_from(args, pipeline)
    options = ProviderOptions(args.sam_checkpoint, args.sam_type, args.words_model, str(device))
    source = "none" if settings.refinement is None else args.masks
    find_masks = build_finder(source, pipeline, args.mask_folder, args.label_names, options)
    output = OutputFolder(args.output, args.format and f".{args.format}", settings.kept, args.overwrite)
    run_options = RunOptions(args.show_masks, args.save_masks, args.jobs)
    runner = FolderRun(pipeline, settings, output, find_masks, run_options, report=tqdm.write)
    runner.find_objects = object_finder(pipeline, options)
    return runner


def run(args: argparse.Namespace, recorded: dict | None = None) -> int:
    """Colorize; `recorded` has the batches of a run that this one repeats."""
    from lcad.inference.run_records import RunRecord
    from lcad.inference.summary import one_line

    if args.input is None:
        args.input, args.mask_folder = EXAMPLES / "images", args.mask_folder or EXAMPLES / "masks"
    jobs, not_read, notes = find_jobs(args)
    if args.dry_run:
        runner = build_runner(args, choose_device(args.device), quiet=False)
        for line in not_read:
            print(one_line(f"  not read  {line}"))
        return show_plan(runner, jobs, args.devices * args.nodes)

    places = ("RANK", "LOCAL_RANK", "NODE_RANK", "GROUP_RANK")  # of torchrun, and of what share_out starts
    record = None if any(int(os.environ.get(name, 0)) for name in places) else RunRecord(args.output)
    device, rank, processes = choose_device(args.device), 0, args.devices * args.nodes
    fabric = None
    if processes > 1:
        fabric = share_out(args.device.partition(":")[0], args.devices, args.nodes)
        device, rank = fabric.device, fabric.global_rank
    if record is None:
        record = RunRecord(args.output, rank)
    try:
        runner = build_runner(args, device, quiet=len(jobs) > args.batch_size)
        if rank == 0:
            for note in notes:
                print(one_line(f"note: {note}"), file=sys.stderr)
            for line in not_read:
                runner.summary.failed += 1
                runner.summary.add_problem(line)
        return colorize(args, runner, jobs, record, fabric, recorded)
    finally:
        record.close()


def colorize(args: argparse.Namespace, runner, jobs: list, record, fabric, recorded: dict | None) -> int:
    """The run itself, of this process's share of the jobs, and its summary."""
    import torch.distributed
    from tqdm import tqdm

    from lcad.inference.plan import own_share
    from lcad.inference.run_records import this_process
    from lcad.inference.summary import Summary
    from lcad.io.images import remove_unfinished

    rank = 0 if fabric is None else fabric.global_rank
    if rank == 0:
        remove_unfinished(args.output)
        run_line = {"command": args.command, "cwd": str(args.cwd), "model_sha256": runner.model_sha256}
        record.write(run_line | this_process())
    runner.output.protect(job.photo for job in jobs)
    if fabric is not None:
        jobs = own_share(jobs, rank, fabric.world_size)
        fabric.barrier()  # what an earlier run has left is taken in by now
    runner.log, summary, interrupted = record.write, runner.summary, False
    try:
        bar = lambda it: tqdm(it, "colorizing", unit="batch", disable=rank > 0)  # noqa: E731
        runner.run(jobs, args.batch_size, bar, recorded)
    except KeyboardInterrupt:
        interrupted = True
    if fabric is not None and not interrupted:
        parts: list = [None] * fabric.world_size
        torch.distributed.all_gather_object(parts, summary)
        if rank > 0:
            raise SystemExit(0)  # the first process speaks for all
        record.take_in_parts()
        summary = Summary.of_all(parts)
    status = tell(summary, args.output)
    return INTERRUPTED if interrupted else status


def tell(summary, output: Path) -> int:
    """Write the contact sheet and say what came of the run -> exit status."""
    sheet = None
    if summary.rows:
        try:
            sheet = summary.write_sheet(output)
        except OSError as error:
            summary.add_problem(f"contact sheet in {output}: cannot be written ({error.strerror or error})")
    print(f"{summary.written} colorized, {summary.kept} kept from before, {summary.failed} failed; see {output}")
    if sheet is not None and (sheet.stem != "contact_sheet" or summary.written + summary.kept > len(summary.rows)):
        print(f"{sheet.name} shows {len(summary.rows)} photos")
    for problem in summary.problems:
        print(f"problem: {problem}", file=sys.stderr)
    return summary.status


def show_plan(runner, jobs: list, processes: int) -> int:
    """Say what would be done with each photo, and in about what time."""
    from collections import Counter

    from lcad.inference.summary import one_line

    counts, first = Counter(), None
    for job, state in runner.plan(jobs):
        counts[state] += 1
        first = first or (job if state == "new" else None)
        print(f"{state:>10}  " + one_line(f"{job.photo}  {job.caption or '(automatic)'}"))
    print(", ".join(f"{number} {state}" for state, number in counts.items()))
    if first is not None:
        minutes = counts["new"] * runner.seconds_per_photo(first) / 60 / processes
        print(f"about {minutes:.1f} min without masks, by two short runs over " + one_line(first.photo.name))
    return 0


def resume(folder: Path) -> int:
    """Run the command of the record in an output folder once more; what is done is kept."""
    from lcad.inference.run_records import RUN_RECORD, read_record

    return run(args_of(read_record(folder / RUN_RECORD), folder))


def args_of(record, output: Path) -> argparse.Namespace:
    """A recorded command, into a folder where nothing is overwritten; its paths are those of the folder it ran in."""
    command, parts = [], iter(record.command)
    for part in parts:
        if part == "--output":
            next(parts, None)
        elif part != "--overwrite" and not part.startswith("--output="):
            command.append(part)
    args = parse(command)
    args.output, args.cwd = output, record.cwd
    for name, value in vars(args).items():
        of_folder = name in ("model", "sam_checkpoint", "words_model") and value and (record.cwd / value).exists()
        if name not in ("output", "cwd") and (isinstance(value, Path) or of_folder):
            setattr(args, name, type(value)(record.cwd / value))
    return args


def repeat(record: Path, output: Path) -> int:
    """Run the command of a record again, into another folder and in the same batches, and compare the pixels."""
    from lcad.inference.run_records import RUN_RECORD, differences, read_record

    before = read_record(record)
    if (output / RUN_RECORD).exists():
        raise ValueError(f"{output}: holds a run already; repeat into another --output")
    status = run(args_of(before, output), before.batches)
    same, different = differences(before, read_record(output / RUN_RECORD))
    print(f"{same} of {same + len(different)} photos have the same pixels as in {record}")
    for line in different:
        print(f"problem: {line}", file=sys.stderr)
    return 1 if different else status


def main(argv: list[str] | None = None) -> int:
    args = parse(argv)
    if args.resume is not None:
        return reporting(lambda: resume(args.resume))
    return reporting(lambda: run(args) if args.repeat is None else repeat(args.repeat, args.output))


if __name__ == "__main__":
    raise SystemExit(main())
