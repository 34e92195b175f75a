#!/usr/bin/env python3
"""Draw the curves of training runs from their CSV logs: training loss (smoothed) and validation, resumes marked.

python scripts/plot_run.py --run runs/mini/latent --output docs/mini_latent.png
python scripts/plot_run.py --run runs/killed --beside runs/unbroken --output docs/resume.png
python scripts/plot_run.py --run runs/mini/pixel --measure chroma_psnr --output docs/mini_pixel.png
"""

import argparse
from pathlib import Path

from lcad.cli.common import build_parser, reporting


def run(args: argparse.Namespace) -> int:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    from lcad.training.curves import read_curve, resumed_steps, smooth

    figure, axes = pyplot.subplots(figsize=(7, 3.5), layout="constrained")
    steps, values = read_curve(args.run, "train/loss")
    axes.plot(steps, values, color="0.8", linewidth=0.8)
    axes.plot(steps, smooth(values), color="tab:blue", label="train/loss, mean of 20 logged steps")
    scale = axes if args.measure == "loss" else axes.twinx()
    scale.plot(*read_curve(args.run, f"validation/{args.measure}"), "o-", color="tab:red", markersize=3)
    axes.plot([], [], "o-", color="tab:red", markersize=3, label=f"validation/{args.measure}")
    if args.beside is not None:
        axes.plot(*read_curve(args.beside, "train/loss"), "k:", linewidth=1, label=f"{args.beside.name}, train/loss")
    for step in resumed_steps(args.run):
        axes.axvline(step, color="0.5", linestyle=":", linewidth=1)
    axes.set(xlabel="optimizer step (dotted: resumed)", ylabel="train/loss", title=str(args.title or args.run))
    if args.top is not None:
        axes.set_ylim(0, args.top)
    axes.legend(loc="upper right")
    args.output.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(args.output, dpi=110)
    print(f"wrote {args.output}")
    return 0


def main(argv: list[str] | None = None) -> int:
    parser = build_parser(None, __doc__)
    parser.add_argument("--run", type=Path, required=True, help="run folder, with logs/version_*/metrics.csv")
    parser.add_argument("--beside", type=Path, help="another run whose training loss is dotted over it")
    parser.add_argument("--measure", default="loss", help="validation measure, such as loss or chroma_psnr")
    parser.add_argument("--output", type=Path, required=True, help="PNG to write")
    parser.add_argument("--title")
    parser.add_argument("--top", type=float, help="upper end of the loss axis")
    args = parser.parse_args(argv)
    return reporting(lambda: run(args))


if __name__ == "__main__":
    raise SystemExit(main())
