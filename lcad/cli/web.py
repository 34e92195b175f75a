"""A page to click on, in the browser.

    python scripts/web.py                                      # on this machine alone, with the bundled mini model
    python scripts/web.py --model checkpoints/lcad --device cuda
    python scripts/web.py --host 0.0.0.0 --auth anna:secret    # for others on the network, with a password
    python scripts/web.py --keep results/                      # results are kept; without it nothing is

Photos and captions stay on the machine that runs this, and are removed when the page is left or the server stops.
"""

import argparse
from pathlib import Path

from lcad.cli.common import REPOSITORY, add_dtype, add_provider_options, build_parser, provider_options, reporting
from lcad.web.quick_gradio import without_stubs
from lcad.web.server import Address, serve
from lcad.web.studio import Limits, Studio

EXAMPLES = REPOSITORY / "data" / "examples"


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = build_parser("lcad web", __doc__)
    add, limits = parser.add_argument, Limits()
    add(
        "--model",
        default=str(REPOSITORY / "checkpoints" / "mini"),
        help="checkpoint folder or hub id (default: the mini model)",
    )
    add("--device", default="auto", help="auto, cpu, cuda, cuda:1, mps")
    add("--fast", action="store_true", help="4 steps: with the model's LCM-LoRA (lcm_lora/)")
    add_dtype(add)
    add_provider_options(add)
    add("--host", default="127.0.0.1", help="address to listen at (default: this machine alone)")
    add("--port", type=int, help="default: the first free one from 7860 on")
    add("--auth", action="append", default=[], metavar="NAME:PASSWORD", help="who may use it; may be given again")
    add("--auth-file", type=Path, help="the same, a line each, where no other user of this machine can read it")
    add("--share", action="store_true", help="also at a public address, through Gradio's tunnel")
    add("--keep", type=Path, metavar="FOLDER", help="keep a copy of each result that is written (default: none)")
    add("--max-upload", type=int, default=limits.megabytes, help="MB of one upload (default: %(default)s)")
    add("--max-pixels", type=int, default=limits.megapixels, help="megapixels of a photo (default: %(default)s)")
    add("--max-photos", type=int, default=limits.photos, help="photos of a batch (default: %(default)s)")
    add("--max-waiting", type=int, default=limits.waiting, help="requests in the queue (default: %(default)s)")
    args = parser.parse_args(argv)
    for name in ("max_upload", "max_pixels", "max_photos", "max_waiting"):
        if getattr(args, name) < 1:
            parser.error(f"--{name.replace('_', '-')} must be at least 1, got {getattr(args, name)}")
    return args


def read_auth(pairs: list[str], file: Path | None) -> tuple[tuple[str, str], ...]:
    """NAME:PASSWORD lines -> pairs.

    Raises:
        ValueError: a line without a name or a password. OSError: no such file.
    """
    lines = pairs if file is None else [*pairs, *filter(None, file.read_text(encoding="utf-8").splitlines())]
    split = [(name, password) for name, _, password in (line.strip().partition(":") for line in lines)]
    if not all(name and password for name, password in split):
        raise ValueError("--auth: expected NAME:PASSWORD, such as anna:secret")
    return tuple(split)


def run(args: argparse.Namespace) -> int:
    auth = read_auth(args.auth, args.auth_file)
    limits = Limits(args.max_upload, args.max_pixels, args.max_photos, args.max_waiting)
    address = Address(args.host, args.port, auth, args.share)
    if not address.is_local and not auth:
        print("note: everyone who reaches this address can use it; --auth NAME:PASSWORD asks for a password")
    studio = Studio(args.model, limits, args.device, args.dtype, args.keep, provider_options(args), args.fast)
    try:
        serve(studio, address, EXAMPLES if EXAMPLES.is_dir() else None)
    except KeyboardInterrupt:
        pass
    finally:
        studio.close()
    return 0


def main(argv: list[str] | None = None) -> int:
    """Exit status: 0, or 2 with one line for what cannot be done."""
    import sys

    args = parse(argv)
    try:
        with without_stubs():
            import gradio  # noqa: F401
    except ImportError:
        print('error: the page needs Gradio; pip install -e ".[web]"', file=sys.stderr)
        return 2
    return reporting(lambda: run(args))
