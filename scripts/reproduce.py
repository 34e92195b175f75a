#!/usr/bin/env python3
"""Table 1 in miniature: run every ablation on photos and on rendered scenes, and write docs/results.md.

python scripts/reproduce.py --model checkpoints/mini --without-slr runs/mini_128/without_slr/model \\
    --photos coco_val_145 --lpips squeeze=data/weights/squeezenet1_1_fp16.pth --output docs/

Each step is a command of this project, which is written beside its result with the time it took. Scenes are rendered
and scores kept in --work; an interrupted run goes on from there.
"""

import argparse
import json
import platform
import shlex
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

from lcad.cli.common import build_parser, reporting

SHOWN = 8  # scenes in the picture


@dataclass
class Log:
    """Runs commands and keeps what they printed and how long they took."""

    seconds: float = 0
    lines: list[str] = field(default_factory=list)

    def run(self, script: str, *options: object) -> str:
        """Run a script of this project, and note the command -> what it printed.

        Raises:
            ValueError: it failed; its own message has gone to stderr.
        """
        command = [str(option) for option in options]
        shown = f"python scripts/{script} {shlex.join(command)}"
        print(f"\n{shown}", file=sys.stderr)
        started = time.perf_counter()
        made = subprocess.run(
            [sys.executable, Path(__file__).with_name(script), *command], stdout=subprocess.PIPE, text=True
        )
        if made.returncode:
            raise ValueError(f"this step failed: {shown}")
        took = time.perf_counter() - started
        self.seconds += took
        self.lines += ["", f"`{shown}` ({took / 60:.1f} min)", ""]
        return made.stdout.strip()

    def write(self, *lines: str) -> None:
        self.lines += lines


def run(args: argparse.Namespace) -> int:
    work, log = args.work, Log()
    held_out, one_kind, tuning = work / "scenes", work / "scenes_one_kind", work / "scenes_tuning"
    ablations = ["--model", args.model, "--without-slr", args.without_slr, "--ablations", "--table", 1]
    ablations += ["--output-luminance", "decoded"]  # as in the paper: with the photo's own L there is no detail to lose
    ablations += ["--lpips", *args.lpips] if args.lpips else []
    guidance = ["--guidance", args.guidance]
    baselines = ["--baselines", "grey", "mean_chroma", "round_trip"]

    log.write("# Table 1 in miniature", "", "Written by `scripts/reproduce.py`; do not edit.")
    log.write("", "Measured [95 % interval]; the paper's number on Extended COCO-Stuff (difference).")
    log.write(
        "A star: scarce captions. L is the network's own decode, as in the paper, not the photo's.", "", "## Photos"
    )
    if args.photos:
        has_masks = (args.photos / "masks").is_dir()
        options = [*ablations, *baselines, "--masks", "files" if has_masks else "none", *guidance]
        log.run("evaluate.py", "--input", args.photos, "--output", work / "photos", *options)
        log.write((work / "photos" / "table1.md").read_text(encoding="utf-8"))
        if not has_masks:
            log.write("These photos come without instance masks, so that W/o ISS is L-CAD itself.")

    log.write("", "## Rendered scenes", "")
    log.write("Their truth is known, and so are their masks. Captions name no places; with them words alone would do.")
    plain = ["--levels", "complete_plain"]
    log.run("render_scenes.py", "--output", held_out, "--number", args.scenes, "--seed", 1, *plain)
    options = ["--size", 128, *ablations, *baselines, "--masks", "files", *guidance]
    log.run("evaluate.py", "--input", held_out, "--output", work / "scores", *options)
    log.write((work / "scores" / "table1.md").read_text(encoding="utf-8"))
    ablation_sheet(held_out, work / "scores" / "results", args.output / "ablations.jpg")
    log.write("![Grey, each ablation, and the true scene](ablations.jpg)")

    log.write("", "## Masks against words", "", "Scenes of one kind of object and captions without position words:")
    log.write('"the red cup, the blue cup". Masks alone can tell which is which.')
    options = ["--output", one_kind, "--number", 200, "--seed", 2, "--kinds", "same"]
    log.run("render_scenes.py", *options)
    alike = ["--model", args.model, "--scenes", one_kind, "--level", "complete_plain", *guidance]
    log.write(log.run("steer.py", *alike, "--masks", "none"))
    log.write(log.run("steer.py", *alike, "--masks", "files"))
    log.write("", "Strength, mode and range of steps, tuned on scenes of their own:")
    log.run("render_scenes.py", "--output", tuning, "--number", 100, "--seed", 4, "--kinds", "same")
    options = ["--model", args.model, "--scenes", tuning, "--number", 50, "--output", args.output, *guidance]
    log.write(log.run("sweep_refinement.py", *options))
    log.write("![Adherence and PSNR against strength, mode and range of steps](refinement.png)")

    log.write("", f"In all {log.seconds / 60:.0f} min on {platform.machine()}, {args.model}.", "")
    args.output.mkdir(parents=True, exist_ok=True)
    (args.output / "results.md").write_text("\n".join(log.lines), encoding="utf-8")
    print(f"wrote {args.output / 'results.md'}")
    return 0


def ablation_sheet(scenes: Path, results: Path, path: Path) -> None:
    """Grey, every ablation, and the truth of a few scenes of several objects."""
    from PIL import ImageOps

    from lcad.evaluation.runs import ABLATIONS, folder_name
    from lcad.io.contact_sheet import Row, contact_sheet
    from lcad.io.images import read_image, write_image

    listed = json.loads((scenes / "scenes.json").read_text(encoding="utf-8"))
    names = [name for name, scene in listed.items() if len(scene["objects"]) > 1][:SHOWN]
    rows = []
    for name in names:
        true = read_image(scenes / "images" / name)
        made = [(method, read_image(results / folder_name(method) / name)) for method in ABLATIONS]
        pictures = [("grey", ImageOps.grayscale(true)), *made, ("true", true)]
        rows.append(Row(pictures, listed[name]["captions"]["complete_plain"]))
    write_image(path, contact_sheet(rows, 160))


def main(argv: list[str] | None = None) -> int:
    parser = build_parser(None, __doc__)
    add = parser.add_argument
    add("--model", required=True, help="checkpoint folder")
    add("--without-slr", required=True, help="one trained with latent.sites=none, see docs/mini.md")
    add("--photos", type=Path, help="folder of captioned photos (default: scenes alone)")
    add("--scenes", type=int, default=200, help="rendered scenes for the table")
    add("--lpips", nargs="+", default=[], metavar="NET[=FILE]", help="as for scripts/evaluate.py")
    add("--guidance", type=float, default=1.5, help="default: %(default)s, as docs/results.md was measured with")
    add("--work", type=Path, default=Path("runs/results"), help="folder for scenes, results and scores")
    add("--output", type=Path, required=True, help="folder for results.md and its pictures; replaced")
    args = parser.parse_args(argv)
    return reporting(lambda: run(args))


if __name__ == "__main__":
    raise SystemExit(main())
