"""The console script `lcad`: finds the command's module and hands its options over.

A new command is a module with `main(argv)` and a row in `COMMANDS`.
"""

import sys
from importlib import import_module
from importlib.util import find_spec

import lcad
from lcad.cli.common import build_parser

COMMANDS = {
    "sample": ("lcad.cli.sample", "colorize photographs from captions"),
    "train pixel": ("lcad.cli.train_pixel", "stage 1: the luminance encoder (Eq. 4)"),
    "train latent": ("lcad.cli.train_latent", "stage 2: the noise prediction network (Eq. 6)"),
    "train mini": ("lcad.cli.train_mini", "the whole bundled model, from packed data"),
    "distill": ("lcad.cli.distill_latent", "a trained model to a few sampling steps"),
    "evaluate": ("lcad.cli.evaluate", "score a model or a folder of results, and write the paper's tables"),
    "adjust": ("lcad.cli.adjust", "change saturation and warmth of results that are there"),
    "transfer": ("lcad.cli.transfer_colors", "bring the colours of another picture onto a photo"),
    "steer": ("lcad.cli.steer", "measure whether captions are obeyed"),
    "convert": ("lcad.cli.convert_checkpoint", "Stable Diffusion 1.5 or the published weights to a checkpoint folder"),
    "prepare": ("lcad.cli.prepare_data", "square photos, captions and a manifest from a download or your own photos"),
    "web": ("lcad.cli.web", "colorize in the browser"),
}
"""Name -> module, which is imported when the command is given, and what it does; without the module no command."""


def commands() -> dict[str, tuple[str, str]]:
    """The rows of `COMMANDS` whose modules are there."""
    return {name: row for name, row in COMMANDS.items() if find_spec(row[0]) is not None}


def main(argv: list[str] | None = None) -> int:
    """Run a command -> its exit status; 2 if there is no such command."""
    argv = sys.argv[1:] if argv is None else argv
    known = commands()
    for length in (1, 2):  # words of the name
        name = " ".join(argv[:length])
        if name in known:
            return int(import_module(known[name][0]).main(argv[length:]))

    group = argv[0] if argv and any(name.startswith(f"{argv[0]} ") for name in known) else ""
    listed = {name: row for name, row in known.items() if name.startswith(group)}
    width = max(map(len, listed)) + 2
    lines = [f"  {name:<{width}}{does}" for name, (_, does) in listed.items()]
    parser = build_parser(f"lcad {group}".strip(), "\n".join([lcad.__doc__ or "", "", "commands:", *lines]))
    parser.epilog = "lcad COMMAND --help shows the options of a command"
    parser.usage = "%(prog)s COMMAND ..."
    parser.add_argument("--version", action="version", version=f"lcad {lcad.__version__}")
    args, rest = parser.parse_known_args(argv[1:] if group else argv)
    del args
    got = f"got {rest[0]!r}" if rest else "none was given"
    parser.error(f"{got}; COMMAND is one of: {', '.join(name.removeprefix(group).strip() for name in listed)}")


if __name__ == "__main__":
    raise SystemExit(main())
