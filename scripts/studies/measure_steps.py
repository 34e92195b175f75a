#!/usr/bin/env python3
"""How few sampling steps do? Schedulers and their time step spacings against their calls of the UNet.

python scripts/studies/measure_steps.py --model checkpoints/mini --input data/coco_val_145 --every 10 \
    --lpips alex=data/weights/alexnet_features_fp16.safetensors --output docs/
python scripts/studies/measure_steps.py --model checkpoints/mini --input data/coco_val_145 --every 1000 --photos 20 \
    --lpips alex=data/weights/alexnet_features_fp16.safetensors --output docs/ --settings ddim/trailing/10 lcm_lora/-/4

Photos are squashed to 256 x 256 and keep their own luminance; masks are found once; noise is the same for all. LPIPS
is that of photos with their captions; with --photos, so many main objects are asked for in four colours, as lcad
steer does. Writes steps.csv, a row for each setting as soon as it is measured (one that is there is kept; delete it
to measure it again), and steps.png. The yardstick is 50 steps of DDIM; lcm_lora is the weights for a few steps that
the model has.
"""

import argparse
import csv
from collections.abc import Callable
from functools import cache
from itertools import product
from pathlib import Path
from statistics import mean

import numpy as np
import torch
from PIL import Image
from tqdm import tqdm

from lcad.cli.common import build_parser, reporting
from lcad.evaluation.color_control import main_objects, photo_color_control
from lcad.evaluation.metrics import Metric, ScoredPhoto, build_metrics
from lcad.evaluation.scoring import write_rows
from lcad.io.images import image_folder, list_images, read_image, to_image
from lcad.io.prepared_photo import PreparedPhoto
from lcad.masks.sources import build_finder
from lcad.pipeline import LCADPipeline
from lcad.text.captions import read_captions
from ldm.schedulers import SCHEDULERS, scheduler_like

SIZE = 256
BATCH = 8
DISTILLED = "lcm_lora"
YARDSTICK = ("ddim", "leading", 50)

Setting = tuple[str, str, int]
"""scheduler, spacing of its time steps, steps"""


def parse_setting(text: str) -> Setting:
    """scheduler/spacing/steps, such as ddim/trailing/10 or lcm_lora/-/4."""
    name, spacing, steps = text.split("/")
    if name not in (*SCHEDULERS, DISTILLED):
        raise ValueError(f"unknown scheduler {name!r}; allowed: {', '.join(SCHEDULERS)}, {DISTILLED}")
    return name, spacing, int(steps)


def set_up(pipeline: LCADPipeline, setting: Setting) -> LCADPipeline:
    """The pipeline as a setting says."""
    name, spacing, steps = setting
    if name == DISTILLED:
        made = pipeline.with_lcm_lora()
    else:
        scheduler = scheduler_like(name, pipeline.scheduler)
        made = pipeline
        made.scheduler = type(scheduler).from_config(scheduler.config, timestep_spacing=spacing)
    made.register_to_config(num_inference_steps=steps)
    made.set_progress_bar_config(disable=True)
    return made


def build_quality(pipeline: LCADPipeline, args: argparse.Namespace, metric: Metric) -> Callable[[LCADPipeline], dict]:
    """-> what measures a pipeline: lpips, and calls of the UNet for a photo."""
    captions = read_captions(args.input / "captions.json")
    files = [file for file in list_images(image_folder(args.input)) if captions.get(file.name)][:: args.every]
    texts = [captions[file.name][0] for file in files]
    true = [np.asarray(read_image(file).resize((SIZE, SIZE))) for file in files]
    photos = [PreparedPhoto.of(Image.fromarray(image)) for image in true]
    masks = [pipeline.find_masks([photo], [text])[0] for photo, text in zip(photos, texts, strict=True)]

    def measure(made: LCADPipeline) -> dict:
        scores, calls = [], []
        hook = made.unet.register_forward_pre_hook(lambda _, given: calls.append(len(given[0])))
        for start in range(0, len(photos), BATCH):
            part = slice(start, start + BATCH)
            generators = [torch.Generator().manual_seed(0) for _ in photos[part]]
            images = made(photos[part], texts[part], masks[part], generator=generators, output_type="pt").images
            for real, image, text in zip(true[part], images, texts[part], strict=True):
                scores.append(metric.score(ScoredPhoto(real, np.asarray(to_image(image)), text, [])))
        hook.remove()
        return {"calls": sum(calls) / 2 / len(photos), "lpips": mean(scores)}

    return measure


def build_obedience(pipeline: LCADPipeline, args: argparse.Namespace) -> Callable[[LCADPipeline], dict]:
    """-> what measures a pipeline: the share of colours that come out as asked, and spill, see `lcad steer`."""
    captions = read_captions(args.input / "captions.json")
    files = list_images(image_folder(args.input))
    objects = main_objects(files, captions, args.input / "instances.json", SIZE)[: args.photos]
    find = build_finder("auto", pipeline)
    kept = cache(lambda file, text: find(file, PreparedPhoto.of(read_image(file).resize((SIZE, SIZE))), text))

    def measure(made: LCADPipeline) -> dict:
        rows, _ = photo_color_control(made, objects, lambda file, _photo, text: kept(file, text))
        return {"obeyed": mean(row["adherent"] for row in rows), "spill": mean(row["spill"] for row in rows)}

    return measure


def draw(rows: list[dict], path: Path) -> None:
    """LPIPS against calls of the UNet, a curve for each scheduler and spacing."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(9, 4.5), layout="constrained")
    rows = [row for row in rows if row["lpips"]]
    for name, spacing in dict.fromkeys((row["scheduler"], row["spacing"]) for row in rows):
        own = [row for row in rows if (row["scheduler"], row["spacing"]) == (name, spacing)]
        curve = sorted((float(row["calls"]), float(row["lpips"])) for row in own)
        axes.plot(*zip(*curve, strict=True), "o-", label=f"{name}, {spacing}")
    best = next(float(row["lpips"]) for row in rows if as_setting(row) == YARDSTICK)
    axes.axhspan(best * 0.99, best * 1.01, color="0.85", label="within 1 % of 50 steps of DDIM")
    axes.set(xlabel="calls of the UNet at batch 2", ylabel="LPIPS to the photo in colour", xscale="log")
    ticks = sorted({float(row["calls"]) for row in rows})
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.set_xticks([], minor=True)
    figure.legend(loc="outside right upper")
    figure.savefig(path, dpi=110)


def as_setting(row: dict) -> Setting:
    return row["scheduler"], row["spacing"], int(row["steps"])


def run(args: argparse.Namespace) -> int:
    given = [parse_setting(text) for text in args.settings]
    settings = given or [YARDSTICK, *product(args.schedulers, args.spacings, args.steps)]
    pipeline = LCADPipeline.from_pretrained(args.model)
    measures = [build_quality(pipeline, args, build_metrics([args.lpips], [], torch.device("cpu"))[-1])]
    if args.photos:
        measures.append(build_obedience(pipeline, args))
    table = args.output / "steps.csv"
    rows = list(csv.DictReader(table.open())) if table.is_file() else []
    known = {as_setting(row) for row in rows}
    for setting in tqdm([setting for setting in dict.fromkeys(settings) if setting not in known], "settings"):
        made = set_up(pipeline, setting)
        row = dict(zip(("scheduler", "spacing", "steps"), setting, strict=True))
        for measure in measures:
            row |= {name: round(value, 4) for name, value in measure(made).items()}
        rows.append(row)
        write_rows(table, rows)
        tqdm.write(str(row))
    if any(as_setting(row) == YARDSTICK for row in rows):
        draw(rows, args.output / "steps.png")
    return 0


def main(argv: list[str] | None = None) -> int:
    parser = build_parser("measure_steps", __doc__)
    parser.add_argument("--model", required=True, help="checkpoint folder")
    parser.add_argument("--input", type=Path, required=True, help="folder of photos in colour with captions.json")
    parser.add_argument("--lpips", required=True, metavar="NET=FILE", help="as of evaluate.py")
    parser.add_argument("--output", type=Path, required=True, help="folder")
    parser.add_argument("--every", type=int, default=1, help="takes every so many-th photo")
    parser.add_argument("--photos", type=int, default=0, help="of which objects are asked for in four colours")
    parser.add_argument("--schedulers", nargs="+", default=["ddim", "dpmpp", "unipc", "euler"])
    parser.add_argument("--spacings", nargs="+", default=["leading", "trailing"])
    parser.add_argument("--steps", type=int, nargs="+", default=[4, 6, 8, 10, 15, 25])
    parser.add_argument("--settings", nargs="+", default=[], help="scheduler/spacing/steps, in place of all of them")
    args = parser.parse_args(argv)
    return reporting(lambda: run(args))


if __name__ == "__main__":
    raise SystemExit(main())
