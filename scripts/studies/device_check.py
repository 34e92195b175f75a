#!/usr/bin/env python3
"""The bars for speed on a GPU, measured in one go of under six minutes.

python scripts/studies/device_check.py --output device_check  # full size, random weights, float16, on an H100 or H200

Captured steps are compared with the others first. What is found is written after each part, as results.json and as
results.md, a table for docs/speed.md: a run that is cut off keeps what it has. A part that takes longer than its share
is given up, and one that fails is named; the next goes on. On a CPU nothing is captured, which the table says.
"""

import argparse
import cProfile
import json
import pstats
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import torch

from lcad.cli.common import build_parser, reporting
from lcad.config import ModelConfig
from lcad.evaluation import speed
from lcad.inference.batch_size import choose_batch_size
from lcad.inference.plan import Settings
from lcad.instance_sampling import MODES, Refinement
from lcad.models.loading import choose_memory_format
from lcad.pipeline import LCADPipeline
from lcad.training.start import build_pipeline
from ldm.cuda_graphs import GraphCache
from ldm.devices import DTYPES, choose_device

CAP = speed.CAPTURED
# value -> what it is, the bar, and is that the most or the least
BARS = {
    "difference": ("captured latents against the others, largest difference", 0.0, "most"),
    "waits": ("steps that wait for the device", 0, "most"),
    "guided": ("guided step / bare UNet at batch 2, both captured, channels_last", 1.25, "most"),
    "one_pass": ("`one_pass` / guided step", 1.15, "most"),
    "two_pass": ("`two_pass` / guided step", 2.2, "most"),
    "photo_long": ("a photo, {long} instance-aware steps (s)", 0.6, "most"),
    "photo_short": ("a photo, {short} instance-aware steps (s)", 0.25, "most"),
    "many": ("photos a second, {batch} at a time, {short} steps", 32, "least"),
    "many_masks": ("the same, instance-aware", None, "least"),
    "many_fast": ("the same in {fast} steps, guidance distilled", 90, "least"),
    "found": ("photos a second, 8 at a time, {short} steps, masks found before", None, "least"),
    "auto": ("photos at a time by `--batch-size auto`", None, "least"),
    "training_plain": ("stage 2 from cached inputs / bare UNet (rate)", None, "least"),
    "training_rate_plain": ("images a second of it", None, "least"),
    "training": ("stage 2 from cached inputs / bare UNet, compiled (rate)", 0.8, "least"),
    "training_rate": ("images a second of it", None, "least"),
}


@dataclass
class Check:
    """What is measured, and what has come of it so far."""

    pipeline: LCADPipeline
    args: argparse.Namespace
    values: dict[str, float] = field(default_factory=dict)
    parts: dict[str, dict] = field(default_factory=dict)

    @property
    def capture(self) -> Callable | None:
        """None: CUDA's own."""
        return None if self.pipeline.device.type == "cuda" else lambda function, _device: function

    def seconds(self, steps: int, batch: int, kind: str, guidance: float = speed.GUIDANCE) -> float:
        """Of a call, captured."""
        action = speed.photo_actions(self.pipeline, steps, batch, guidance)[kind]
        repeats = min(self.args.repeats, 3) if batch > 8 else self.args.repeats
        return speed.median_times({kind: action}, repeats, self.pipeline.device)[kind]


def compare(check: Check) -> None:
    """Captured steps against the others, both modes, and whether a captured one waits for the device."""
    pipeline, cuda = check.pipeline, check.pipeline.device.type == "cuda"
    masks, side = speed.fixed_masks(pipeline), pipeline.config.image_size
    photo = torch.rand(1, side, side, generator=torch.Generator().manual_seed(0)) * 100

    def latents(mode: str, watched: bool) -> torch.Tensor:
        def watch(_pipe: object, step: int, *_: object) -> None:
            if cuda:
                torch.cuda.set_sync_debug_mode("error" if watched and step < 3 else "default")

        try:
            made = pipeline(
                photo,
                speed.CAPTION,
                masks,
                4,
                generator=torch.Generator().manual_seed(0),
                refinement=Refinement(mode=mode),
                output_type="latent",
                callback_on_step_end=watch,
            )
        finally:
            if cuda:
                torch.cuda.set_sync_debug_mode("default")
        return made.images

    for mode in MODES:
        pipeline.disable_cuda_graphs()
        expected = latents(mode, False)
        pipeline.enable_cuda_graphs(capture=check.capture)
        latents(mode, False)
        difference = (latents(mode, False) - expected).abs().max().item()
        check.values["difference"] = max(difference, check.values.get("difference", 0.0))
    check.values["waits"] = 1
    latents(MODES[0], True)  # an error, where one waits
    check.values["waits"] = 0


def steps(check: Check) -> None:
    graphs = GraphCache(check.capture, limit=32)
    graph = speed.time_steps(check.pipeline, 2 * check.args.repeats, [1], graphs)
    check.parts["steps"]["timed"] = graph
    check.values["guided"] = graph["guided_step" + CAP] / graph["unet_batch_2" + CAP]
    for mode in MODES:
        check.values[mode] = graph[f"{mode}_step{CAP}"] / graph["guided_step" + CAP]


def one_photo(check: Check) -> None:
    check.values["photo_short"] = check.seconds(check.args.steps[1], 1, "_masks")
    check.values["photo_long"] = check.seconds(check.args.steps[0], 1, "_masks")


def where_time_goes(check: Check) -> None:
    """profile.txt: the functions that one photo, and many at a time, spend their time in."""
    with (check.args.output / "profile.txt").open("w") as file:
        for batch in (1, check.args.batch):
            action = speed.photo_actions(check.pipeline, check.args.steps[1], batch)["_masks"]
            action()
            with cProfile.Profile() as profile:
                action()
                speed.wait(check.pipeline.device)
            file.write(f"{batch} at a time\n")
            pstats.Stats(profile, stream=file).sort_stats("cumulative").print_stats(60)


def many_photos(check: Check) -> None:
    batch, (_, short, fast) = check.args.batch, check.args.steps
    check.values["many"] = batch / check.seconds(short, batch, "")
    check.values["many_fast"] = batch / check.seconds(fast, batch, "", guidance=1.0)
    check.values["many_masks"] = batch / check.seconds(short, batch, "_masks")


def found_masks(check: Check) -> None:
    check.values["found"] = 8 / check.seconds(check.args.steps[1], 8, "_found_masks")


def automatic(check: Check) -> None:
    check.values["auto"] = choose_batch_size(check.pipeline, Settings())


def training(check: Check) -> None:
    """As it is, then compiled, which takes most of the time; the last part, as it brings the weights to float32."""
    check.pipeline.disable_cuda_graphs()
    batch, timed = check.args.training_batch, check.parts["training"].setdefault("timed", {})
    for compiled, suffix in ((False, "_plain"), (check.pipeline.device.type == "cuda", "")):
        found = speed.time_training(check.pipeline, check.args.repeats, batch, True, compiled, all_trained=False)
        timed.update(found)
        bare, own = found.values()
        check.values |= {f"training{suffix}": bare / own, f"training_rate{suffix}": batch / own}


# seconds that each may take, the most important first; all together take no longer than --seconds
PARTS = {
    compare: 45, steps: 45, one_photo: 30, many_photos: 90, where_time_goes: 20, automatic: 15, found_masks: 20,
    training: 200,
}  # fmt: skip


@contextmanager
def at_most(seconds: float) -> Iterator[None]:
    """Raises TimeoutError in what takes longer."""

    def stop(*_: object) -> None:
        raise TimeoutError(f"given up after {seconds:.0f} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def table(check: Check, machine: str) -> str:
    """Every bar, also those that nothing was measured for."""
    args, captured = check.args, check.pipeline.device.type == "cuda"
    names = {"long": args.steps[0], "short": args.steps[1], "fast": args.steps[2], "batch": args.batch}
    lines = [f"## {machine}, {args.dtype}" + ("" if captured else " (nothing captured or compiled)"), ""]
    lines += ["| | measured | bar | |", "|---|---|---|---|"]
    for name, (what, bar, way) in BARS.items():
        value = check.values.get(name)
        met = (
            ""
            if value is None or bar is None
            else "met"
            if (value <= bar if way == "most" else value >= bar)
            else "missed"
        )
        asked = "" if bar is None else f"at {way} {bar:g}"
        lines.append(
            f"| {what.format(**names)} | {'not measured' if value is None else f'{value:.4g}'} | {asked} | {met} |"
        )
    lines += ["", *(f"- {name}: {part['outcome']}, {part['seconds']:.0f} s" for name, part in check.parts.items())]
    return "\n".join(lines) + "\n"


def save(check: Check, machine: str) -> None:
    folder = check.args.output
    content = {"machine": machine, "torch": torch.__version__, "dtype": check.args.dtype}
    content |= {"values": check.values, "parts": check.parts}
    (folder / "results.json").write_text(json.dumps(content, indent=2))
    (folder / "results.md").write_text(table(check, machine))


def run(args: argparse.Namespace) -> int:
    started, device = time.perf_counter(), choose_device(args.device)
    pipeline = build_pipeline(ModelConfig()) if args.model is None else LCADPipeline.from_pretrained(args.model)
    pipeline = pipeline.to(device, DTYPES[args.dtype])
    choose_memory_format(pipeline.vae, pipeline.unet)
    pipeline.set_progress_bar_config(disable=True)
    pipeline.vae.requires_grad_(False)
    machine = speed.machine_name(device)
    check = Check(pipeline, args)
    pipeline.enable_cuda_graphs(capture=check.capture)  # also if `compare` is not among the parts
    args.output.mkdir(parents=True, exist_ok=True)
    check.parts["model"] = {"outcome": "done", "seconds": time.perf_counter() - started}
    chosen = {part: share for part, share in PARTS.items() if not args.parts or part.__name__ in args.parts}
    for part, share in chosen.items():
        name, begun = part.__name__, time.perf_counter()
        left = args.seconds - (begun - started)
        check.parts[name] = own = {"outcome": "no time left", "seconds": 0.0}
        if left > 5:
            try:
                with at_most(min(share, left)):
                    part(check)
                own["outcome"] = "done"
            except Exception as error:  # whatever it is, the other parts go on
                own["outcome"] = f"{type(error).__name__}: {' '.join(str(error).split())}"[:300]
            own |= {"seconds": time.perf_counter() - begun, "peak_memory": speed.peak_memory(device)}
            speed.reset_peak(device)
        print(f"{name}: {own['outcome']}, {own['seconds']:.1f} s", flush=True)
        save(check, machine)
    print((args.output / "results.md").read_text())
    return 0 if all(part["outcome"] == "done" for part in check.parts.values()) else 1


def main(argv: list[str] | None = None) -> int:
    parser = build_parser("device_check", __doc__)
    add = parser.add_argument
    add("--output", type=Path, required=True, help="folder of results.json and results.md, which are replaced")
    add("--model", help="checkpoint folder (default: Stable Diffusion 1.5's sizes with random weights)")
    add("--device", default="auto")
    add("--dtype", default="float16", choices=DTYPES)
    add("--seconds", type=float, default=340, help="for all parts together (default: %(default)g)")
    add("--parts", nargs="+", choices=[part.__name__ for part in PARTS], help="only these")
    add("--repeats", type=int, default=5)
    add("--batch", type=int, default=64, help="photos at a time (default: %(default)s)")
    add("--training-batch", type=int, default=8, help="images (default: %(default)s)")
    add("--steps", type=int, nargs=3, default=[50, 15, 4], help="of a photo, fewer, and distilled")
    args = parser.parse_args(argv)
    return reporting(lambda: run(args))


if __name__ == "__main__":
    raise SystemExit(main())
