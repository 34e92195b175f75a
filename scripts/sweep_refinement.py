#!/usr/bin/env python3
"""Tune instance-aware sampling: colour adherence in rendered scenes against strength, mode and range of steps.

python scripts/render_scenes.py --output data/scenes_tuning --number 100 --seed 4 --kinds same
python scripts/sweep_refinement.py --model checkpoints/mini --scenes data/scenes_tuning --output docs/

The scenes' captions come without position words ("the red cup, the blue cup"), so that masks alone can tell which is
which. Writes refinement.csv (a row for each setting) and refinement.png (the curves).
"""

import argparse
from pathlib import Path

from lcad.cli.common import build_parser, reporting

STRENGTHS = (0.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0)  # 0: no refinement
RANGES = ((0.0, 0.1), (0.0, 0.25), (0.0, 0.5), (0.25, 1.0), (0.5, 1.0))


def settings() -> list:
    """What is tried: every strength in both modes, and parts of the sampling steps."""
    from lcad.instance_sampling import MODES, Refinement

    whole = [Refinement(strength, mode=mode) for mode in MODES for strength in STRENGTHS]
    return whole + [Refinement(strength, start=start, end=end) for strength in (10.0, 20.0) for start, end in RANGES]


def run(args: argparse.Namespace) -> int:
    from dataclasses import asdict
    from statistics import mean

    from tqdm import tqdm

    from lcad.evaluation.color_control import scene_color_control
    from lcad.evaluation.scoring import write_rows
    from lcad.masks.sources import build_finder
    from lcad.pipeline import LCADPipeline
    from ldm.devices import choose_device

    pipeline = LCADPipeline.from_pretrained(args.model).to(choose_device(args.device))
    pipeline.set_progress_bar_config(disable=True)
    options = {"num_inference_steps": args.steps, "guidance_scale": args.guidance, "level": "complete_plain"}
    options["find_masks"] = build_finder("files", pipeline, args.scenes / "masks")
    scored = []
    for refinement in tqdm(settings(), "settings"):
        rows, _ = scene_color_control(pipeline, args.scenes, args.number, refinement=refinement, **options)
        scored.append(asdict(refinement) | {name: mean(row[name] for row in rows) for name in ("adherent", "psnr")})
        write_rows(args.output / "refinement.csv", scored)
    draw(scored, args.output / "refinement.png")
    best = max(scored, key=lambda row: (row["adherent"], row["psnr"]))
    named = ", ".join(
        f"{name} {value:.3g}" if isinstance(value, float) else f"{name} {value}" for name, value in best.items()
    )
    print(f"The best of {len(scored)}: {named}. All of them: [refinement.csv](refinement.csv).")
    return 0


def draw(rows: list[dict], path: Path) -> None:
    """Adherence and PSNR against strength for each mode; adherence for parts of the steps."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, (left, middle, right) = pyplot.subplots(1, 3, figsize=(12, 3.6), layout="constrained")
    for mode in ("one_pass", "two_pass"):
        curve = [row for row in rows if row["mode"] == mode and (row["start"], row["end"]) == (0, 1)]
        for axes, measure in ((left, "adherent"), (middle, "psnr")):
            axes.plot([row["strength"] for row in curve], [row[measure] for row in curve], "o-", label=mode)
    for axes, title in ((left, "share of objects in the asked colour"), (middle, "PSNR of the scenes (dB)")):
        axes.set(xlabel="strength (0: no refinement)", title=title, xscale="symlog")
        axes.legend()
    parts = [row for row in rows if (row["start"], row["end"]) != (0, 1)]
    names = [f"{row['start']:.0%} to {row['end']:.0%}, strength {row['strength']:g}" for row in parts]
    right.barh(names, [row["adherent"] for row in parts])
    right.axvline(rows[0]["adherent"], color="0.5", linestyle=":")
    right.set(title="in a part of the steps (dotted: none)", xlim=(0, 1))
    right.invert_yaxis()
    figure.savefig(path, dpi=110)


def main(argv: list[str] | None = None) -> int:
    parser = build_parser(None, __doc__)
    parser.add_argument("--model", required=True, help="checkpoint folder")
    parser.add_argument("--scenes", type=Path, required=True, help="folder of rendered scenes of one kind of object")
    parser.add_argument("--number", type=int, default=100, help="scenes with several objects")
    parser.add_argument("--output", type=Path, required=True, help="folder; older files of this script are replaced")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--guidance", type=float, help="default: the model's own")
    parser.add_argument("--device", default="auto")
    args = parser.parse_args(argv)
    return reporting(lambda: run(args))


if __name__ == "__main__":
    raise SystemExit(main())
