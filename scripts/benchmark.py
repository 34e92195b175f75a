#!/usr/bin/env python3
"""Time what this project adds to the bare UNet: guidance, instance-aware sampling, whole photos, a training step.

    python scripts/benchmark.py                              # full size (Stable Diffusion 1.5), random weights
    python scripts/benchmark.py --model checkpoints/mini     # a checkpoint at its own size
    python scripts/benchmark.py --json benchmark.json --repeats 7
    python scripts/benchmark.py --device cuda --dtype float16 --batch-sizes 1 8 64 --cuda-graphs --compile

All steps of one comparison are run in turn, --repeats times, and the medians are compared: run it on an
otherwise idle machine. Ratios are to the bare UNet forward at batch 2, or forward + backward at the same batch size,
each in the same way (as it is, captured, compiled); of finding masks to a guided step; of photos to the bare forwards
at twice their number that their steps take. Of photos it also says how many a second, and what one costs in bare
float32 forwards at batch 2. The training step takes the extra [train]; without it the rest is timed. Peak memory
is of tensors on a CUDA device, else of the whole process so far.
"""

import argparse
import json
import re
import sys
from functools import partial
from importlib import import_module
from pathlib import Path

import torch

from lcad.cli.common import build_parser, missing_extra, reporting
from lcad.config import ModelConfig
from lcad.evaluation import speed
from lcad.pipeline import LCADPipeline
from lcad.training.start import build_pipeline
from ldm.cuda_graphs import GraphCache, check_cuda
from ldm.devices import DTYPES, choose_device

NAME = re.compile(r"(photos|training_step|unet_all_trained|unet_forward_backward)?_?(\d*).*?(_captured|_compiled)?")


def describe(seconds: dict[str, float], steps: int) -> dict[str, dict[str, float]]:
    """name -> seconds, ratio to its yardstick, and of photos and training images how many a second."""
    rows = {}
    for name, value in seconds.items():
        kind, number, way = NAME.fullmatch(name).groups(default="")
        count = int(number or 1)
        yardstick = seconds.get(f"unet_batch_2{way}", seconds["unet_batch_2"])
        if name == "finding_masks":
            yardstick = seconds["guided_step"]
        elif kind == "photos":
            yardstick = steps * seconds[f"unet_batch_{2 * count}{way}"]
        elif kind:
            yardstick = seconds["unet_forward_backward" + name.removeprefix(kind)]
        rows[name] = {"seconds": value, "ratio": value / yardstick}
        if kind == "photos":
            bare = seconds.get(f"unet_batch_2{speed.FLOAT32}", seconds["unet_batch_2"])
            rows[name] |= {"per_second": count / value, "forwards": value / count / bare}
        elif kind:
            rows[name]["per_second"] = count / value
    return rows


def lacking_for_training() -> str | None:
    """What to install before a training step can be timed; None: it is there."""
    try:
        import_module("lcad.training.latent_stage")
    except ModuleNotFoundError as error:
        cure = missing_extra(error)
        if cure is None:
            raise
        return cure
    return None


def measure(args: argparse.Namespace, pipeline: LCADPipeline, training: bool) -> tuple[dict, dict[str, int]]:
    """Seconds of everything, and the peak memory of each part."""
    seconds, peaks, device = {}, {}, pipeline.device

    def note(part: str, found: dict[str, float]) -> None:
        seconds.update(found)
        peaks[part] = speed.peak_memory(device)
        speed.reset_peak(device)

    pipeline.disable_cuda_graphs()  # on a CUDA device there are some unasked
    graphs = GraphCache(limit=32) if args.cuda_graphs else None
    note("steps", speed.time_steps(pipeline, args.repeats, args.batch_sizes, graphs, args.compile))
    del graphs
    note("finding_masks", speed.time_masks(pipeline, args.repeats))
    for size in args.batch_sizes if args.photo_steps else ():
        photos = partial(speed.time_photos, pipeline, args.photo_steps, size, args.photo_repeats, args.photo_guidance)
        note(f"photos_{size}", photos())
        if args.cuda_graphs:
            pipeline.enable_cuda_graphs()
            note(f"photos_{size}{speed.CAPTURED}", photos(speed.CAPTURED))
            pipeline.disable_cuda_graphs()
    for size in args.batch_sizes if training else ():
        for compiled in (False, True) if args.compile else (False,):
            half = args.dtype != "float32"
            found = speed.time_training(pipeline, args.repeats, size, half, compiled)
            note(f"training_{size}" + compiled * speed.COMPILED, found)
    return seconds, peaks


def run(args: argparse.Namespace) -> int:
    device = choose_device(args.device)
    if args.cuda_graphs:
        check_cuda(device)
    lacking = lacking_for_training()
    if lacking is not None:
        print(f"the training step is left out: {lacking}", file=sys.stderr)
    pipeline = build_pipeline(ModelConfig()) if args.model is None else LCADPipeline.from_pretrained(args.model)
    pipeline.set_progress_bar_config(disable=True)
    pipeline.vae.requires_grad_(False)
    exact = {} if args.dtype == "float32" else speed.time_bare_unet(pipeline.to(device), args.repeats)
    pipeline = pipeline.to(device, DTYPES[args.dtype])
    channels_last = args.dtype != "float32" if args.channels_last is None else args.channels_last
    if channels_last:
        for part in (pipeline.unet, pipeline.vae):
            part.to(memory_format=torch.channels_last)
    seconds, peaks = measure(args, pipeline, lacking is None and not args.no_training)
    seconds |= exact
    rows = describe(seconds, args.photo_steps)
    machine = speed.machine_name(device)
    print(
        f"{args.model or 'full size, random weights'}, {args.dtype}, {args.device} ({machine}), "
        f"{torch.get_num_threads()} threads, torch {torch.__version__}"
    )
    for name, row in rows.items():
        more = "".join(f"   {key} {row[key]:.2f}" for key in ("per_second", "forwards") if key in row)
        print(f"{name:32s} {row['seconds']:9.4f} s   ratio {row['ratio']:.3f}{more}")
    for part, peak in peaks.items():
        print(f"{part:32s} {peak / 2**30:9.2f} GiB at most")
    if args.json:
        content = {"machine": machine, "torch": torch.__version__, "dtype": args.dtype, "repeats": args.repeats}
        content |= {"photo_steps": args.photo_steps, "results": rows, "peak_memory": peaks}
        args.json.write_text(json.dumps(content, indent=2))
    return 0


def main(argv: list[str] | None = None) -> int:
    parser = build_parser(None, __doc__)
    add = parser.add_argument
    add("--model", help="checkpoint folder (default: Stable Diffusion 1.5's sizes with random weights)")
    add("--device", default="cpu")
    add(
        "--dtype",
        default="float32",
        choices=DTYPES,
        help="of the weights; training then has them in float32, and autocast",
    )
    add(
        "--channels-last",
        action=argparse.BooleanOptionalAction,
        help="the weights in that memory format (default: those that are not in float32, as when they are loaded)",
    )
    add("--cuda-graphs", action="store_true", help="also captured as CUDA graphs")
    add("--compile", action="store_true", help="also compiled")
    add("--batch-sizes", type=int, nargs="+", default=[1], help="of photos and training images (default: 1)")
    add("--repeats", type=int, default=5)
    add("--photo-repeats", type=int, default=1)
    add("--photo-steps", type=int, default=speed.STEPS, help="sampling steps of whole photos; 0 leaves them out")
    add("--photo-guidance", type=float, default=speed.GUIDANCE, help="of whole photos; 1 as with `lcad sample --fast`")
    add("--no-training", action="store_true", help="leave the training step out")
    add("--json", type=Path, help="also write the numbers to this file")
    args = parser.parse_args(argv)
    return reporting(lambda: run(args))


if __name__ == "__main__":
    raise SystemExit(main())
