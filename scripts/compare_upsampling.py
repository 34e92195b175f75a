#!/usr/bin/env python3
"""Which way of bringing chroma to full size is best? Photos are made small, and only their chroma large again.

python scripts/compare_upsampling.py --input coco_val_145/images --size 64

For each method: PSNR of chroma (the mean square error of ab over all photos, against 100), the mean error of ab beside
edges of L (bleeding), and the mean PSNR of the photos as a whole. Edges: L changes by more than 15 from a pixel to the
next; three pixels around them count.
"""

import argparse
import math
from pathlib import Path
from statistics import mean

import torch
import torch.nn.functional as F
from tqdm import tqdm

from lcad.cli.common import build_parser, reporting
from lcad.color import lab_to_rgb, rgb_to_lab
from lcad.io.images import list_images, read_image, to_tensor
from lcad.models.perceptual import psnr
from lcad.upsampling import METHODS

EDGE = 15.0  # in L, from a pixel to the next


def run(args: argparse.Namespace) -> int:
    photos = list_images(args.input)[: args.number]
    scores = {name: [] for name in METHODS}
    for photo in tqdm(photos, "photos"):
        for name, row in score_photo(photo, args.size).items():
            scores[name].append(row)
    print("| method | chroma PSNR (dB) | error of ab at edges | PSNR (dB) |\n|---|---|---|---|")
    for name, rows in scores.items():
        error, bleeding, whole = (mean(column) for column in zip(*rows, strict=True))
        print(f"| {name} | {10 * math.log10(100**2 / error):.2f} | {bleeding:.2f} | {whole:.2f} |")
    return 0


def score_photo(photo: Path, size: int) -> dict[str, tuple[float, float, float]]:
    """method -> mean square error of ab, error at edges, PSNR; the small photo has about size^2 pixels."""
    rgb = to_tensor(read_image(photo))[None]
    shrink = size / (rgb.shape[-2] * rgb.shape[-1]) ** 0.5
    shape = tuple(max(1, round(side * shrink)) for side in rgb.shape[-2:])
    lab = rgb_to_lab(rgb)
    small = rgb_to_lab(F.interpolate(rgb, shape, mode="bicubic", antialias=True).clamp(0, 1))
    luminance = F.interpolate(lab[:, :1], shape, mode="bicubic", antialias=True)
    steps = F.pad(lab[:, :1].diff(dim=-1).abs(), (0, 1)) + F.pad(lab[:, :1].diff(dim=-2).abs(), (0, 0, 0, 1))
    edges = F.max_pool2d((steps > EDGE).float(), 7, stride=1, padding=3) > 0
    scores = {}
    for name, method in METHODS.items():
        chroma = method(small[:, 1:], luminance, lab[:, :1])
        error = chroma - lab[:, 1:]
        made = lab_to_rgb(torch.cat([lab[:, :1], chroma], dim=1))
        beside = error.square().sum(1, keepdim=True).sqrt()[edges]
        scores[name] = (
            error.square().mean().item(),
            beside.mean().item() if len(beside) else 0.0,
            psnr(rgb, made).item(),
        )
    return scores


def main(argv: list[str] | None = None) -> int:
    parser = build_parser(None, __doc__)
    parser.add_argument("--input", type=Path, required=True, help="folder of colour photos")
    parser.add_argument("--size", type=int, default=64, help="the small photos have about size^2 pixels")
    parser.add_argument("--number", type=int, help="the first so many photos (default: all)")
    args = parser.parse_args(argv)
    return reporting(lambda: run(args))


if __name__ == "__main__":
    raise SystemExit(main())
