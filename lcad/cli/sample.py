"""Colorizing photographs from captions, `lcad sample`; its options and its help are in `sample_options`."""

import argparse
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from lcad.cli.common import INTERRUPTED, provider_options, reporting, take_new_names
from lcad.cli.sample_options import EXAMPLES, parse
from ldm.devices import choose_device, choose_dtype, launch

if TYPE_CHECKING:
    import torch
    from lightning_fabric import Fabric

    from lcad.inference.batch_runner import FolderRun
    from lcad.inference.plan import Job, Settings
    from lcad.inference.run_records import RecordedRun, RunRecord
    from lcad.inference.summary import Summary
    from lcad.pipeline import LCADPipeline
    from lcad.recoloring.exact_colors import ColorTarget

__all__ = ["EXAMPLES", "main", "parse"]
ABSENT_LINES = 5  # of captions whose photos are not there


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
        # one caption file may be for several folders
        if args.input.is_dir() and not (args.recursive and args.captions):
            there = {photo.name for photo in photos} | {path.name for path in inventory.not_read}
            absent += [f"captions name {name!r}, which is not in {folder}" for name in sorted(captions.keys() - there)]
        if args.caption is not None:
            captions = {photo.name: [args.caption] for photo in photos}
        below = folder.relative_to(args.input) if args.recursive else Path()
        listed, place = read_colors(folder, args.captions)
        colors = {name: parse_targets(texts, place, everywhere) for name, texts in listed.items()}

        def colors_of(photo: Path, own: dict[str, tuple["ColorTarget", ...]] = colors) -> tuple["ColorTarget", ...]:
            return own.get(photo.name, everywhere)

        jobs += list_jobs(photos, captions, args.levels, below, colors_of)
    if len(absent) > ABSENT_LINES:
        absent[ABSENT_LINES:] = [f"captions name {len(absent) - ABSENT_LINES} more photos that are not there"]
    not_read = [f"{path}: {reason}" for path, reason in inventory.not_read.items()]
    return jobs, not_read, inventory.notes + absent


def settings_from(args: argparse.Namespace, pipeline: "LCADPipeline") -> "Settings":
    from lcad.inference.plan import settings_of
    from lcad.instance_sampling import Refinement

    mode, strength = args.instance_sampling, args.instance_strength
    return settings_of(
        pipeline,
        args.steps,
        args.guidance,
        seed=args.seed,
        samples=args.num_samples,
        pick=args.best_by,
        output_luminance=args.output_luminance,
        refinement=None if mode == "none" else Refinement(mode=mode, strength=strength),
        model_size=args.resolution,
        tiled_size=args.tiled_resolution,
        saturation=args.saturation,
        warmth=args.warmth,
    )


def build_runner(args: argparse.Namespace, device: "torch.device", quiet: bool) -> "FolderRun":
    from tqdm import tqdm

    from lcad.cli.sampling import with_sampling
    from lcad.inference.batch_runner import FolderRun, RunOptions
    from lcad.inference.output import OutputFolder
    from lcad.masks.sources import build_finder
    from lcad.masks.types import ProviderOptions
    from lcad.pipeline import LCADPipeline
    from lcad.recoloring.object_masks import build_object_finder
    from ldm.cuda_graphs import check_cuda

    if args.cuda_graphs:
        check_cuda(device)
    pipeline = LCADPipeline.from_pretrained(args.model, torch_dtype=choose_dtype(args.dtype, device)).to(device)
    pipeline = with_sampling(pipeline, args)
    pipeline.set_progress_bar_config(leave=False, disable=quiet)
    if args.cuda_graphs is not None:
        (pipeline.enable_cuda_graphs if args.cuda_graphs else pipeline.disable_cuda_graphs)()
    settings = settings_from(args, pipeline)
    options = ProviderOptions(**provider_options(args), device=str(device))
    source = "none" if settings.refinement is None else args.masks
    find_masks = build_finder(source, pipeline, args.mask_folder, args.label_names, options)
    output = OutputFolder(args.output, args.format and f".{args.format}", settings.kept, args.overwrite)
    run_options = RunOptions(args.show_masks, args.save_masks, args.num_readers)
    runner = FolderRun(pipeline, settings, output, find_masks, run_options, report=tqdm.write)
    runner.find_objects = build_object_finder(pipeline, options)
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

    places = ("RANK", "LOCAL_RANK", "NODE_RANK", "GROUP_RANK")  # of torchrun, and of what launch starts
    record = None if any(int(os.environ.get(name, 0)) for name in places) else RunRecord(args.output)
    device, rank, processes = choose_device(args.device), 0, args.devices * args.nodes
    fabric = None
    if processes > 1:
        fabric = launch(args.device.partition(":")[0], args.devices, args.nodes)
        device, rank = fabric.device, fabric.global_rank
    if record is None:
        record = RunRecord(args.output, rank)
    try:
        runner = build_runner(args, device, quiet=args.batch_size is None or len(jobs) > args.batch_size)
        if rank == 0:
            for note in notes:
                print(one_line(f"note: {note}"), file=sys.stderr)
            for line in not_read:
                runner.summary.fail(line)
        return colorize(args, runner, jobs, record, fabric, recorded)
    finally:
        record.close()


def colorize(
    args: argparse.Namespace,
    runner: "FolderRun",
    jobs: list["Job"],
    record: "RunRecord",
    fabric: "Fabric | None",
    recorded: dict | None,
) -> int:
    """The run itself, of this process's share of the jobs, and its summary."""
    import torch.distributed
    from tqdm import tqdm

    from lcad.inference.plan import shard_jobs
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
        jobs = shard_jobs(jobs, rank, fabric.world_size)
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
        record.merge_parts()
        summary = Summary.of_all(parts)
    status = tell(summary, args.output)
    return INTERRUPTED if interrupted else status


def tell(summary: "Summary", output: Path) -> int:
    """Write the contact sheet and say what came of the run -> exit status."""
    sheet = summary.try_sheet(output)
    print(f"{summary.written} colorized, {summary.kept} kept from before, {summary.failed} failed; see {output}")
    if sheet is not None and (sheet.stem != "contact_sheet" or summary.written + summary.kept > len(summary.rows)):
        print(f"{sheet.name} shows {len(summary.rows)} photos")
    for problem in summary.problems:
        print(f"problem: {problem}", file=sys.stderr)
    return summary.status


def show_plan(runner: "FolderRun", jobs: list["Job"], processes: int) -> int:
    """Say what would be done with each photo, and in about what time."""
    from collections import Counter

    from lcad.inference.estimate import seconds_per_photo
    from lcad.inference.summary import one_line

    counts: Counter[str] = Counter()
    first = None
    for job, state in runner.plan(jobs):
        counts[state] += 1
        first = first or (job if state == "new" else None)
        print(f"{state:>10}  " + one_line(f"{job.photo}  {job.caption or '(automatic)'}"))
    print(", ".join(f"{number} {state}" for state, number in counts.items()))
    if first is not None:
        each = seconds_per_photo(runner.pipeline, runner.settings, first.photo, first.caption)
        minutes = counts["new"] * each / 60 / processes
        print(f"about {minutes:.1f} min without masks, by two short runs over " + one_line(first.photo.name))
    return 0


def resume(folder: Path) -> int:
    """Run the command of the record in an output folder once more; what is done is kept."""
    from lcad.inference.run_records import RUN_RECORD, read_record

    record = read_record(folder / RUN_RECORD)
    args = args_of(record, folder)
    if "--overwrite" in record.command:  # what that run has not replaced yet is still to be
        args.overwrite = True
        args.command.append("--overwrite")
    return run(args)


def args_of(record: "RecordedRun", output: Path) -> argparse.Namespace:
    """A recorded command, into a folder where nothing is overwritten; its paths are those of the folder it ran in."""
    command, parts = [], iter(take_new_names(record.command))
    for part in parts:
        if part == "--output":
            next(parts, None)
        elif part != "--overwrite" and not part.startswith("--output="):
            command.append(part)
    args = parse(command)
    args.output, args.cwd = output, record.cwd
    for name, value in vars(args).items():
        of_folder = name in ("model", "sam_checkpoint", "text_segmenter") and value and (record.cwd / value).exists()
        if name not in ("output", "cwd") and (isinstance(value, Path) or of_folder):
            setattr(args, name, type(value)(record.cwd / value))
    return args


def replay(record: Path, output: Path) -> int:
    """Run the command of a record again, into another folder and in the same batches, and compare the pixels."""
    from lcad.inference.run_records import RUN_RECORD, differences, read_record

    before = read_record(record)
    if (output / RUN_RECORD).exists():
        raise ValueError(f"{output}: holds a run already; replay into another --output")
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
    return reporting(lambda: run(args) if args.replay is None else replay(args.replay, args.output))
