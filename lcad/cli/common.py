"""What the scripts share: one-line errors for a user's mistakes, and the command line of a training stage."""

import argparse
import sys
from collections.abc import Callable

from lcad.config import LatentStageConfig, PixelStageConfig, StageConfig, load_config

USER_ERRORS = (OSError, ValueError)
"""What a user can cause: bad files and bad values. Anything else is a defect and keeps its traceback."""


def reporting(action: Callable[[], int]) -> int:
    """Run `action`; a user's mistake becomes one line on stderr and exit status 2."""
    for stream in (sys.stdout, sys.stderr):  # names of files need not be text that a terminal shows
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    try:
        return action()
    except USER_ERRORS as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2


def run_stage(description: str, schema: type[StageConfig], argv: list[str] | None) -> int:
    """Command line of a training stage: --config FILE [--resume last] [key=value ...]."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--config", required=True, help="YAML file of configs/")
    parser.add_argument("--resume", metavar="last|FILE", help="go on from the run's last checkpoint, or from a file")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="such as trainer.batch_size=4")
    args = parser.parse_args(argv)

    def action() -> int:
        config = load_config(schema, args.config, args.overrides)
        from lcad.training.trainer import (
            train,  # Lightning takes seconds to import: after the config is known to be good
        )

        folder = train(config, *stage_of(config), args.resume)
        if folder is not None:
            print(f"wrote {folder}; try: python scripts/sample.py --model {folder}")
        return 0

    return reporting(action)


def stage_of(config: StageConfig) -> tuple[type, object]:
    """The stage a config is of, and its section."""
    if isinstance(config, PixelStageConfig):
        from lcad.training.pixel_stage import PixelStage

        return PixelStage, config.pixel
    assert isinstance(config, LatentStageConfig)
    from lcad.training.latent_stage import LatentStage
    from lcad.training.localizer_stage import LocalizerStage

    return LocalizerStage if config.latent.looking else LatentStage, config.latent
