"""Score a model, or any folder of results, against the true photos, and write the paper's tables.

lcad evaluate --input photos/ --model checkpoints/mini --output scores/
lcad evaluate --input photos/ --results CIC=results/cic --baselines grey mean_chroma --output scores/
lcad evaluate --input photos/ --model checkpoints/mini --without-slr runs/mini_128/without_slr/model \\
    --ablations --table 1 --lpips squeeze=data/weights/squeezenet1_1_fp16.pth --output scores/

Writes <output>/<method>.csv (a row for each photo), summary.csv and, with --table, that table as .md, .csv and .tex.
What a model makes is kept in <output>/results, and masks it found in <output>/masks: photos done with the same model
and settings are not done again. With --fit crop results are in <output>/results_crop, and the cropped photos in
<output>/cropped.
"""

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from lcad.cli.common import build_parser, reporting
from lcad.cli.sampling import add_sampling, check_sampling, with_sampling
from lcad.config import ModelConfig
from lcad.defaults import MASK_SOURCES, OUTPUT_LUMINANCE, SEED

if TYPE_CHECKING:
    from lightning_fabric import Fabric

    from lcad.evaluation.scoring import Sample
    from lcad.evaluation.tables import Cell


def run(args: argparse.Namespace) -> int:
    import torch
    from tqdm import tqdm

    from lcad.evaluation import baselines, runs, scoring, tables
    from lcad.evaluation.metrics import SET_VARIANTS, build_fid, build_metrics
    from lcad.io.images import write_bytes
    from ldm.devices import launch

    dataset = tables.dataset_of(args.table, args.dataset) if args.table else ""
    args.fit = args.fit or tables.FITS.get(args.table, "squash")
    fabric = launch(args.accelerator, args.devices)
    metrics = []
    if fabric.is_global_zero:  # before hours of colorizing: is all there?
        metrics = build_metrics(args.lpips, args.clip, fabric.device)
        if args.fid:
            build_fid(args.fid, torch.device("cpu"))
    levels = {level: runs.read_samples(args.input, args.captions, level) for level in args.levels}
    samples = levels[args.levels[0]]
    masks = args.mask_folder or (args.input / "masks" if (args.input / "masks").is_dir() else None)
    made = {name: (Path(folder), args.levels[0]) for name, _, folder in (text.partition("=") for text in args.results)}
    for name in args.baselines:
        method = baselines.build_baseline(name, args.model, args.stable_diffusion, args.controlnet)
        made[name] = (results_folder(args) / name, args.levels[0])
        own = samples[fabric.global_rank :: fabric.world_size]
        progress = lambda it, title=name: tqdm(it, title)  # noqa: E731
        runs.make_baseline(method, own, made[name][0], args.size, progress, args.fit)
    if args.model:
        made |= colorize_with_model(args, levels, masks, fabric)
    if not made:
        raise ValueError("nothing to score: give --model, --results or --baselines")
    fabric.barrier()
    if not fabric.is_global_zero:
        return 0

    summaries = {}
    for name, (folder, level) in made.items():
        fid = build_fid(args.fid, fabric.device) if args.fid else None
        progress = lambda it, title=name: tqdm(it, f"scoring {title}")  # noqa: E731
        own_masks = masks if level == "complete" else None
        grey = name == "grey"
        rows = scoring.score(levels[level], folder, metrics, args.size, own_masks, fid, grey, progress, args.fit)
        scoring.write_rows(args.output / f"{runs.folder_name(name)}.csv", rows)
        summaries[name] = scoring.summarize(rows, metrics, fid)
    used = {name for summary in summaries.values() for name in summary}
    variants = {metric.name: metric.variant for metric in metrics} | SET_VARIANTS
    variants = {name: variant for name, variant in variants.items() if name in used}
    write_bytes(args.output / "summary.csv", tables.summary_csv(summaries, variants).encode())
    print(tables.summary_text(summaries, variants))
    if args.table:
        write_table(args, tables.make_table(args.table, summaries, dataset), dataset)
    return 0


def write_table(args: argparse.Namespace, table: list["Cell"], dataset: str) -> None:
    from lcad.evaluation import tables
    from lcad.io.images import write_bytes

    how = "squashed" if args.fit == "squash" else "cropped to their middle square and resized"
    note = f"At {args.size}x{args.size}, photos that are not square {how}; the paper's numbers are on {dataset}."
    markdown = tables.to_markdown(table, note)
    texts = {"md": markdown, "csv": tables.to_csv(table, args.fit), "tex": tables.to_latex(table, note)}
    for suffix, text in texts.items():
        write_bytes(args.output / f"table{args.table}.{suffix}", text.encode())
    print(markdown)


def results_folder(args: argparse.Namespace) -> Path:
    return Path(args.output, "results" if args.fit == "squash" else "results_crop")


def colorize_with_model(
    args: argparse.Namespace, levels: dict[str, list["Sample"]], masks: Path | None, fabric: "Fabric"
) -> dict[str, tuple[Path, str]]:
    """Colorize with the model and, if asked, its ablations, on all devices -> method: (results, caption level)."""
    from tqdm import tqdm

    from lcad.evaluation import runs
    from lcad.inference.plan import settings_of
    from lcad.inference.records import model_hash
    from lcad.masks.from_text import kept_masks
    from lcad.masks.sources import build_finder
    from lcad.pipeline import LCADPipeline

    made: dict[str, tuple[Path, str]] = {}
    find_masks = None
    for name in runs.ABLATIONS if args.ablations else ["L-CAD"]:
        model = args.without_slr if name == "W/o SLR" else args.model
        if model is None:
            print("W/o SLR is left out; it needs --without-slr, a model trained with latent.sites=none")
            continue
        whole = LCADPipeline.from_pretrained(model).to(fabric.device)
        pipeline = with_sampling(whole, args)
        pipeline.set_progress_bar_config(disable=True)
        if not made:  # by the first, whole model, for all of them
            find_masks = build_finder(args.masks, whole, masks)
            if find_masks is not None:
                find_masks = kept_masks(find_masks, args.output / "masks", whole.tokenizer, model_hash(whole))
        options = {"seed": args.seed, "size": args.size, "output_luminance": args.output_luminance}
        run = runs.ablation(name, model, settings_of(pipeline, args.steps, args.guidance, **options))
        for level, samples in levels.items():
            method = name + {"complete": "", "scarce": "*"}.get(level, f" ({level})")
            made[method] = (results_folder(args) / runs.folder_name(method), level)
            own = samples[fabric.global_rank :: fabric.world_size]
            progress = lambda it, title=method: tqdm(it, title, unit="batch")  # noqa: E731
            own_masks = find_masks if level == "complete" else None  # they belong to the phrases of whole captions
            if args.fit == "crop":
                own, own_masks = runs.cropped(own, args.output / "cropped", own_masks)
            runs.colorize(run, pipeline, own, made[method][0], own_masks, args.batch_size, progress)
    return made


def main(argv: list[str] | None = None) -> int:
    parser = build_parser("lcad evaluate", __doc__)
    add = parser.add_argument
    add("--input", type=Path, required=True, help="folder of photos with captions, best with a manifest (prepare_data)")
    add("--captions", type=Path, help="caption file (default: the manifest, or looked for beside the photos)")
    add(
        "--masks",
        default=MASK_SOURCES[0],
        help="their source: auto (files where there are some, else found from the caption), none, files, regions",
    )
    add("--mask-folder", type=Path, help="mask files (default: masks/ in the input folder, if it is there)")
    add("--output", type=Path, required=True, help="folder for results and scores")
    add(
        "--levels", nargs="+", default=["complete", "scarce"], help="caption levels: complete (as given) partial scarce"
    )
    add("--model", help="checkpoint folder")
    add("--ablations", action="store_true", help="also W/o LIC, W/o SLR and W/o ISS")
    add("--without-slr", help="checkpoint folder of a model trained with latent.sites=none")
    add("--results", nargs="+", default=[], metavar="METHOD=FOLDER", help="results of other methods")
    add("--baselines", nargs="+", default=[], help="grey mean_chroma round_trip sdedit controlnet")
    add("--stable-diffusion", help="Stable Diffusion in diffusers' layout, for sdedit and controlnet")
    add("--controlnet", help="a ControlNet in diffusers' layout, for controlnet")
    add("--lpips", nargs="+", default=[], metavar="NET[=FILE]", help="squeeze, alex, vgg; file: torchvision's weights")
    add("--clip", nargs="+", default=[], metavar="MODEL=WEIGHTS", help="CLIP score by these models of open_clip")
    add("--fid", metavar="FILE", help="FID with these weights of torch-fidelity's Inception, or `download`")
    add("--table", type=int, choices=[1, 3], help="write this table of the paper")
    add("--dataset", help="whose numbers of the paper stand beside (default: Extended COCO-Stuff in 1, ImageNet in 3)")
    add(
        "--size",
        type=int,
        default=ModelConfig.image_size,
        help="photos are resized to size x size (default: %(default)s)",
    )
    add("--fit", choices=["squash", "crop"], help="how they become square (default: crop for table 3, else squash)")
    add_sampling(add)
    add("--seed", type=int, default=SEED)
    add(
        "--output-luminance",
        default=OUTPUT_LUMINANCE[0],
        choices=OUTPUT_LUMINANCE,
        help="decoded: the network's own decode (default: %(default)s)",
    )
    add("--batch-size", type=int, default=16)
    add("--devices", type=int, default=1, help="the photos are shared out to so many")
    add("--accelerator", default="auto", help="Lightning's names: auto, cpu, cuda, mps")
    args = parser.parse_args(argv)
    check_sampling(args, parser)
    if Path(args.masks).is_dir():  # as it was called in version 0.1
        args.masks, args.mask_folder = "auto", Path(args.masks)
        print(f"--masks FOLDER is now --mask-folder {args.mask_folder}", file=sys.stderr)
    elif args.masks not in MASK_SOURCES:
        parser.error(f"--masks: got {args.masks!r}; allowed: {', '.join(MASK_SOURCES)}")
    return reporting(lambda: run(args))
