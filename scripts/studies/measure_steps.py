#!/usr/bin/env python3
"""How few sampling steps do? LPIPS of schedulers and their time step spacings against their calls of the UNet.

python scripts/studies/measure_steps.py --model checkpoints/mini --input data/coco_val_145 \
    --lpips alex=data/weights/alexnet_features_fp16.safetensors --output docs/

Photos are squashed to 256 x 256 and keep their own luminance; masks are found once; noise is the same for all. Writes
steps.csv (a row for each setting) and steps.png. The yardstick is 50 steps of DDIM.
"""

import argparse
from itertools import product
from pathlib import Path
from statistics import mean

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from lcad.cli.common import build_parser, reporting
from lcad.color import rgb_to_lab
from lcad.evaluation.metrics import Metric, ScoredPhoto, build_metrics
from lcad.evaluation.scoring import write_rows
from lcad.io.images import image_folder, list_images, read_image, to_image
from lcad.io.prepared_photo import PreparedPhoto
from lcad.masks.types import InstanceMasks
from lcad.pipeline import LCADPipeline
from lcad.text.captions import read_captions
from ldm.schedulers import build_scheduler

SIZE = 256
BATCH = 8
YARDSTICK = ("ddim", "leading", 50)


def colorize(
    pipeline: LCADPipeline,
    photos: list[PreparedPhoto],
    captions: list[str],
    masks: list[InstanceMasks | None],
    steps: int,
) -> list[Tensor]:
    """Results (3, H, W) in [0, 1]."""
    made = []
    for start in range(0, len(photos), BATCH):
        part = slice(start, start + BATCH)
        generators = [torch.Generator().manual_seed(0) for _ in photos[part]]
        options = {"num_inference_steps": steps, "generator": generators, "output_type": "pt"}
        made += list(pipeline(photos[part], captions[part], masks[part], **options).images)
    return made


def measure(args: argparse.Namespace, metric: Metric) -> list[dict]:
    """A row for each setting, the yardstick first: scheduler, spacing, steps, calls, lpips, change.

    `change` is the mean distance in ab from what the yardstick makes.
    """
    pipeline = LCADPipeline.from_pretrained(args.model)
    pipeline.set_progress_bar_config(disable=True)
    prediction = pipeline.scheduler.config.prediction_type
    captions = read_captions(args.input / "captions.json")
    files = [file for file in list_images(image_folder(args.input)) if captions.get(file.name)][:: args.every]
    texts = [captions[file.name][0] for file in files]
    true = [np.asarray(read_image(file).resize((SIZE, SIZE))) for file in files]
    photos = [PreparedPhoto.of(Image.fromarray(image)) for image in true]
    masks = [pipeline.find_masks([photo], [text])[0] for photo, text in zip(photos, texts, strict=True)]
    settings = [YARDSTICK, *(s for s in product(args.schedulers, args.spacings, args.steps) if s != YARDSTICK)]
    rows, wanted, calls = [], None, []
    pipeline.unet.register_forward_pre_hook(lambda *_: calls.append(1))
    for name, spacing, steps in tqdm(settings, "settings"):
        scheduler = build_scheduler(name, prediction)
        pipeline.scheduler = type(scheduler).from_config(scheduler.config, timestep_spacing=spacing)
        calls.clear()
        made = colorize(pipeline, photos, texts, masks, steps)
        chroma = [rgb_to_lab(image[None])[:, 1:] for image in made]
        wanted = wanted or chroma
        scored = [
            metric.score(ScoredPhoto(real, np.asarray(to_image(image)), text, []))
            for real, image, text in zip(true, made, texts, strict=True)
        ]
        change = mean((a - b).norm(dim=1).mean().item() for a, b in zip(chroma, wanted, strict=True))
        row = {"scheduler": name, "spacing": spacing, "steps": steps, "calls": len(calls) * BATCH / len(photos)}
        rows.append(row | {"lpips": mean(scored), "change": change})
    return rows


def draw(rows: list[dict], path: Path) -> None:
    """LPIPS against calls of the UNet, a curve for each scheduler and spacing."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7, 4.5), layout="constrained")
    for name, spacing in dict.fromkeys((row["scheduler"], row["spacing"]) for row in rows):
        curve = sorted((r["calls"], r["lpips"]) for r in rows if (r["scheduler"], r["spacing"]) == (name, spacing))
        axes.plot(*zip(*curve, strict=True), "o-", label=f"{name}, {spacing}")
    best = rows[0]["lpips"]
    axes.axhspan(best * 0.99, best * 1.01, color="0.85", label="within 1 % of 50 steps of DDIM")
    axes.set(xlabel="calls of the UNet", ylabel="LPIPS to the photo in colour", xscale="log")
    axes.legend()
    figure.savefig(path, dpi=110)


def run(args: argparse.Namespace) -> int:
    rows = measure(args, build_metrics([args.lpips], [], torch.device("cpu"))[-1])
    write_rows(args.output / "steps.csv", rows)
    draw(rows, args.output / "steps.png")
    for row in rows:
        print("{scheduler:16s}{spacing:10s}{steps:4d} steps  {calls:6.1f} calls  LPIPS {lpips:.4f}".format(**row))
    return 0


def main(argv: list[str] | None = None) -> int:
    parser = build_parser("measure_steps", __doc__)
    parser.add_argument("--model", required=True, help="checkpoint folder")
    parser.add_argument("--input", type=Path, required=True, help="folder of photos in colour with captions.json")
    parser.add_argument("--lpips", required=True, metavar="NET=FILE", help="as of evaluate.py")
    parser.add_argument("--output", type=Path, required=True, help="folder; older files of this script are replaced")
    parser.add_argument("--every", type=int, default=1, help="takes every so many-th photo")
    parser.add_argument("--schedulers", nargs="+", default=["ddim", "dpmpp", "unipc", "euler"])
    parser.add_argument("--spacings", nargs="+", default=["leading", "trailing"])
    parser.add_argument("--steps", type=int, nargs="+", default=[4, 6, 8, 10, 15, 25])
    args = parser.parse_args(argv)
    return reporting(lambda: run(args))


if __name__ == "__main__":
    raise SystemExit(main())
