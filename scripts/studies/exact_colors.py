#!/usr/bin/env python3
"""Do objects get the exact colours that are asked for, and nothing else? (photo, object, colour) triples, seeded.

python scripts/studies/exact_colors.py --model checkpoints/mini --input coco/images --instances coco/instances.json

Objects are labelled ones whose word is in a caption of their photo; colours for each are drawn from the names of
CSS and XKCD, among those that the object's luminance and sRGB allow (as uniform colour, within 3 in Delta E). A photo
is colorized once from its caption, without masks; then each of its objects gets its colour through its labelled mask.
Measured in 8 bit: Delta E (CIEDE2000) of the mean colour inside the mask from the asked one; spill, the mean Delta E of
the pixels outside between the photo with and without the colour; and how far L has moved.
"""

import argparse
import re
import zlib
from pathlib import Path

import numpy as np
import torch
from skimage.color import deltaE_ciede2000
from torch.nn.functional import interpolate

from lcad.cli.common import build_parser, reporting
from lcad.color import mean_color, rgb_to_lab, rgb_to_luminance
from lcad.evaluation.scoring import write_rows
from lcad.io.images import read_image, read_size, to_image, to_tensor, write_image
from lcad.masks.coco import read_instances, segmentation_mask
from lcad.masks.labelled import same_object
from lcad.pipeline import LCADPipeline
from lcad.recoloring.exact_colors import apply_exact_colors, delta_e, least_delta_e, parse_color
from lcad.text.captions import read_captions
from lcad.text.color_expressions import known_colors
from lcad.upsampling import transfer_chroma
from ldm.devices import choose_device

AREA = (0.03, 0.7)  # of the photo: objects that are taken
ALLOWED = 3.0  # Delta E that an object's luminance may leave
FAR = 8.0  # difference of L that is more than `ALLOWED` at any L
TRIES = 400  # colours that are drawn for an object before it is given up


def labelled_objects(args: argparse.Namespace) -> list:
    """(photo, category, caption, mask (H, W)) of each object whose word is in a caption of its photo."""
    captions, objects = read_captions(args.input, args.captions), []
    for name, instances in sorted(read_instances(args.instances).items()):
        if not (args.input / name).is_file():
            continue
        width, height = read_size(args.input / name)
        masks: dict = {}
        for category, segmentation in instances:
            mask = segmentation_mask(segmentation, (height, width))
            masks[category] = torch.maximum(masks.get(category, mask), mask)
        for category, mask in masks.items():
            texts = [t for t in captions.get(name, ()) if any(same_object(w, category) for w in re.findall(r"\w+", t))]
            if texts and category != "person" and AREA[0] < mask.mean() < AREA[1]:
                objects.append((args.input / name, category, texts[0], mask))
    return objects


def draw_color(rng, luminance, mask):
    """A colour that the object may have: its name and value; None: none was found."""
    names = known_colors()
    mean = float((luminance * mask).sum() / mask.sum())
    luminance, mask = (interpolate(item[None], (64, 64), mode="area")[0] for item in (luminance, mask[None]))
    for _ in range(TRIES):
        name = names[rng.integers(len(names))]
        if abs(float(rgb_to_lab(torch.tensor(parse_color(name))[:, None, None])[0]) - mean) > FAR:
            continue
        if least_delta_e(luminance, mask[0], parse_color(name)) <= ALLOWED:
            return name, parse_color(name)
    return None


def decoded_once(pipeline, path: Path, rgb, caption: str, args: argparse.Namespace):
    """What the model makes of a photo, at its own size; kept in the output folder."""
    kept = args.output / f"{path.stem}_{zlib.crc32(caption.encode())}_{args.steps or 'own'}.pt"
    if kept.is_file():
        return torch.load(kept, weights_only=True)
    generator = [torch.Generator().manual_seed(0)]
    options = {"num_inference_steps": args.steps, "generator": generator, "output_type": "decoded"}
    picture = pipeline([rgb], [caption], **options).images[0]
    args.output.mkdir(parents=True, exist_ok=True)
    torch.save(picture, kept)
    return picture


def measure(rgb, decoded, mask, color) -> tuple[dict, object]:
    """A row of numbers, and the picture."""
    luminance = rgb_to_luminance(rgb)
    before = transfer_chroma(luminance[None], decoded[None])[0]
    after, (row,) = apply_exact_colors(before, mask[None], [color])
    after, before = ((255 * item).round() / 255 for item in (after, before))
    asked = rgb_to_lab(torch.tensor(color)[:, None, None])[:, 0, 0]
    change = deltaE_ciede2000(*(rgb_to_lab(item).movedim(0, -1).numpy() for item in (before, after)))
    return {
        "delta_e_before": delta_e(asked, torch.from_numpy(mean_color(before, mask))),
        "delta_e": delta_e(asked, torch.from_numpy(mean_color(after, mask))),
        "reported": row["delta_e"],
        "least": row["least_delta_e"],
        "spill": float(change[mask.numpy() < 0.5].mean()),
        "luminance": float((rgb_to_luminance(after) - luminance).abs().max()),
    }, after


def run(args: argparse.Namespace) -> int:
    objects, rng, rows = labelled_objects(args), np.random.default_rng(args.seed), []
    if not objects:
        raise ValueError(f"{args.instances}: no labelled object whose word is in a caption of its photo")
    pipeline = LCADPipeline.from_pretrained(args.model).to(choose_device(args.device))
    pipeline.set_progress_bar_config(disable=True)
    for k in rng.permutation(len(objects)):
        path, category, caption, mask = objects[k]
        rgb = to_tensor(read_image(path))
        for drawn in [draw_color(rng, rgb_to_luminance(rgb), mask) for _ in range(args.each)]:
            if drawn is None:
                print(f"{path.name} {category}: no colour fits its luminance")
                continue
            row, picture = measure(rgb, decoded_once(pipeline, path, rgb, caption, args), mask, drawn[1])
            rows.append({"photo": path.name, "object": category, "color": drawn[0], **row})
            print(" ".join(f"{v:.2f}" if isinstance(v, float) else v for v in rows[-1].values()), flush=True)
            if args.pictures:
                write_image(args.output / f"{path.stem}_{category}_{drawn[0]}.png", to_image(picture))
        if len(rows) >= args.triples:
            break
    rows = rows[: args.triples]
    write_rows(args.output / "exact_colors.csv", rows)
    values = {key: np.array([row[key] for row in rows]) for key in rows[0] if isinstance(rows[0][key], float)}
    reached, quiet = 100 * (values["delta_e"] <= 5).mean(), 100 * (values["spill"] < 1).mean()
    print(f"{len(rows)} triples: Delta E at most 5 on {reached:.0f} %, spill below 1 on {quiet:.0f} %")
    print("; ".join(f"{key}: mean {v.mean():.2f}, worst {v.max():.2f}" for key, v in values.items()))
    return 0


def main(argv: list[str] | None = None) -> int:
    parser = build_parser(None, __doc__)
    add = parser.add_argument
    add("--model", default="checkpoints/mini", help="checkpoint folder")
    add("--input", type=Path, required=True, help="folder of photos")
    add("--captions", type=Path, help="caption file (default: looked for beside the photos)")
    add("--instances", type=Path, required=True, help="masks of the photos' objects, in COCO's format")
    add("--triples", type=int, default=60)
    add("--each", type=int, default=2, help="colours for each object")
    add("--seed", type=int, default=0, help="of the order of objects and of the colours")
    add("--steps", type=int, help="sampling steps (default: the model's own)")
    add("--output", type=Path, default=Path("outputs/exact_colors"), help="rows, and the model's pictures")
    add("--pictures", action="store_true", help="write the results, too")
    add("--device", default="auto")
    args = parser.parse_args(argv)
    return reporting(lambda: run(args))


if __name__ == "__main__":
    raise SystemExit(main())
