"""What the commands share: one-line errors for a user's mistakes, and the command line of a training stage."""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lcad.config import StageConfig

USER_ERRORS = (OSError, ValueError)
"""What a user can cause: bad files and bad values. Anything else is a defect and keeps its traceback."""

REPOSITORY = Path(__file__).resolve().parents[2]
"""Holds checkpoints/, configs/ and data/ in a checkout; an installed wheel comes without them."""

EXTRAS = {
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


def build_parser(name: str, description: str | None) -> argparse.ArgumentParser:
    """A parser that shows `description` as it is written and takes no abbreviations.

    Args:
        name: of the command, as `lcad sample`.
        description: a module's docstring.
    """
    raw = argparse.RawDescriptionHelpFormatter
    return argparse.ArgumentParser(prog=name, description=description, formatter_class=raw, allow_abbrev=False)


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
    from lcad.config import LatentStageConfig, PixelStageConfig

    if isinstance(config, PixelStageConfig):
        from lcad.training.pixel_stage import PixelStage

        return PixelStage, config.pixel
    assert isinstance(config, LatentStageConfig)
    from lcad.training.latent_stage import LatentStage
    from lcad.training.localizer_stage import LocalizerStage

    return LocalizerStage if config.latent.train_localizer else LatentStage, config.latent
