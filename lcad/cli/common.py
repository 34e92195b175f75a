"""What the commands share: one-line errors for a user's mistakes, and the command line of a training stage."""

import argparse
import sys
from collections.abc import Callable, Collection, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lcad.config_keys import say
from lcad.defaults import PLAIN_LOOK, SAM_TYPES, SAMPLING_DTYPES

if TYPE_CHECKING:
    from lcad.config import StageConfig

USER_ERRORS = (OSError, ValueError)
"""What a user can cause: bad files and bad values. Anything else is a defect and keeps its traceback."""

REPOSITORY = Path(__file__).resolve().parents[2]
"""Holds checkpoints/, configs/ and data/ in a checkout; an installed wheel comes without them."""

INTERRUPTED = 130  # exit status, as shells have it

EXTRAS = {
    "cv2": ("masks",),
    "gradio": ("web",),
    "jinja2": ("eval",),
    "lightning_fabric": ("train", "eval"),
    "lpips": ("train", "eval"),
    "matplotlib": ("eval",),
    "open_clip": ("train", "eval"),
    "pycocotools": ("masks",),
    "pytorch_lightning": ("train", "eval"),
    "segment_anything": ("masks",),
    "tensorboard": ("tensorboard",),
    "torch_fidelity": ("eval",),
    "torchmetrics": ("eval",),
}
"""Module -> the extras of this package (pyproject.toml) that bring it."""

RENAMED = {
    "--jobs": "--num-readers",
    "--model-size": "--resolution",
    "--pick": "--best-by",
    "--refinement": "--instance-sampling",
    "--repeat": "--replay",
    "--strength": "--instance-strength",
    "--tiled-size": "--tiled-resolution",
    "--words-model": "--text-segmenter",
}
"""Options of version 0.1 -> what they are now. The old ones are taken until version 0.3."""


class Parser(argparse.ArgumentParser):
    """Takes no abbreviations, and options by their names of version 0.1, with a line that says the new one."""

    def parse_known_args(self, args: Iterable[str] | None = None, namespace: Any = None) -> Any:
        return super().parse_known_args(self.renamed(sys.argv[1:] if args is None else list(args)), namespace)

    def renamed(self, argv: Sequence[str]) -> list[str]:
        """A command line with the new names, where this command has them; both at once are an error."""
        command = take_new_names(argv, self._option_string_actions)
        for old, new in zip(argv, command, strict=True):
            if old != new:
                old, new = old.partition("=")[0], new.partition("=")[0]
                if new in (part.partition("=")[0] for part in argv):
                    self.error(f"{old} is now {new}, which is given, too; leave out {old}")
                say(f"{old} is now {new}")
        return command


def take_new_names(argv: Sequence[str], known: Collection[str] = tuple(RENAMED.values())) -> list[str]:
    """A command line with the names of now in place of those of version 0.1.

    Args:
        known: the options there are; those that are not in it keep their names.
    """
    command = list(argv)
    for place, part in enumerate(command):
        if part == "--":
            break
        name, *value = part.split("=", 1)
        if RENAMED.get(name) in known and (name not in known):
            command[place] = "=".join([RENAMED[name], *value])
    return command


def build_parser(name: str | None, description: str | None) -> Parser:
    """A parser that shows `description` as it is written.

    Args:
        name: of the command, as `lcad sample`; None: that of the script.
        description: a module's docstring.
    """
    raw = argparse.RawDescriptionHelpFormatter
    return Parser(prog=name, description=description, formatter_class=raw, allow_abbrev=False)


def add_provider_options(add: Callable[..., object]) -> None:
    """What masks are found with: the fields of `lcad.masks.types.ProviderOptions`, which `provider_options` takes.

    Args:
        add: `add_argument` of a parser or of a group.
    """
    add("--sam-checkpoint", help="weights of Segment Anything, such as sam_vit_h_4b8939.pth")
    add(
        "--sam-type",
        default=SAM_TYPES[0],
        choices=SAM_TYPES,
        help="what that checkpoint was trained as (default: %(default)s)",
    )
    add("--text-segmenter", help="folder or hub id of CLIPSeg, or of Grounding DINO, for masks from the words")


def add_look(add: Callable[..., object]) -> None:
    """The look of results, see `lcad.recoloring.looks`; `add` as above."""
    add(
        "--saturation",
        type=float,
        default=PLAIN_LOOK["saturation"],
        help="0 grey, 1 as the model made it (default), up to 2",
    )
    add(
        "--warmth",
        type=float,
        default=PLAIN_LOOK["warmth"],
        help="-1 cooler, 0 as the model made it (default), 1 warmer",
    )


def add_dtype(add: Callable[..., object]) -> None:
    """Of the weights that sample, see `ldm.devices.choose_dtype`; `add` as above."""
    add(
        "--dtype",
        default="auto",
        choices=SAMPLING_DTYPES,
        help="auto: float16 on a CUDA device, bfloat16 on a CPU that has it, else float32",
    )


def add_output(add: Callable[..., object]) -> None:
    """Where results are written, and in which format; `add` as above."""
    add("--output", type=Path, default=Path("outputs"), help="folder for results (default: %(default)s)")
    add(
        "--format",
        choices=["png", "tif", "jpg", "webp", "bmp"],
        help="of the results (default: TIFF for TIFF, PNG for all else; both keep 16 bit)",
    )


def provider_options(args: argparse.Namespace) -> dict[str, Any]:
    """Fields of `ProviderOptions`, of what `add_provider_options` has read."""
    return {"checkpoint": args.sam_checkpoint, "model_type": args.sam_type, "text_segmenter": args.text_segmenter}


def reporting(action: Callable[[], int]) -> int:
    """Run `action`; a user's mistake, or a package that is not installed, becomes one line and exit status 2."""
    for stream in (sys.stdout, sys.stderr):  # names of files need not be text that a terminal shows
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    try:
        return action()
    except ModuleNotFoundError as error:
        cure = missing_extra(error)
        if cure is None:
            raise
        print(f"error: {cure}", file=sys.stderr)
    except USER_ERRORS as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
    return 2


def missing_extra(error: ModuleNotFoundError) -> str | None:
    """What to install where an optional package is not there; None if it is none of `EXTRAS`."""
    package = (error.name or "").partition(".")[0]
    if package not in EXTRAS:
        return None
    commands = " or ".join(f'pip install "lcad[{extra}]"' for extra in EXTRAS[package])
    return f"this needs the package {package}, which is not installed: {commands}"


def run_stage(name: str, description: str | None, schema: "type[StageConfig]", argv: list[str] | None) -> int:
    """Command line of a training stage: --config FILE [--resume last] [key=value ...].

    Args:
        name: of the command.
        schema: of its configs.
    """
    parser = build_parser(name, description)
    parser.add_argument("--config", required=True, help="YAML file of configs/")
    parser.add_argument("--resume", metavar="last|FILE", help="go on from the run's last checkpoint, or from a file")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="such as trainer.batch_size=4")
    args = parser.parse_args(argv)

    def action() -> int:
        from lcad.config import load_config

        config = load_config(schema, args.config, args.overrides)
        from lcad.training.trainer import train  # Lightning takes seconds to import: the config is good by now

        folder = train(config, *stage_of(config), args.resume)
        if folder is not None:
            print(f"wrote {folder}; try: lcad sample --model {folder}")
        return 0

    return reporting(action)


def stage_of(config: "StageConfig") -> tuple[type, Any]:
    """The stage a config is of, and its section."""
    from lcad.config import DistillationStageConfig, LatentStageConfig, PixelStageConfig

    if isinstance(config, PixelStageConfig):
        from lcad.training.pixel_stage import PixelStage

        return PixelStage, config.pixel
    assert isinstance(config, LatentStageConfig)
    if isinstance(config, DistillationStageConfig):
        from lcad.training.distillation_stage import DistillationStage

        return DistillationStage, config.latent
    from lcad.training.latent_stage import LatentStage
    from lcad.training.localizer_stage import LocalizerStage

    return LocalizerStage if config.latent.train_localizer else LatentStage, config.latent
