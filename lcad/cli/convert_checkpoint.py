"""Convert Stable Diffusion 1.5 or the published L-CAD checkpoint into a checkpoint folder of this project.

lcad convert downloads/l-cad.ckpt checkpoints/lcad
lcad convert downloads/stable-diffusion-v1-5 checkpoints/sd15 --sites down_blocks
"""

import argparse
from pathlib import Path

from lcad.cli.common import build_parser, reporting
from lcad.config import ModelConfig, UNetConfig
from lcad.conversion import convert
from lcad.models.channel_extended_unet import SITES
from ldm.devices import DTYPES


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = build_parser("lcad convert", __doc__)
    add = parser.add_argument
    add("source", type=Path, help="diffusers folder, or single .ckpt / .safetensors file")
    add("output", type=Path, help="folder to write, for LCADPipeline.from_pretrained")
    add("--text-heads", type=int, help="text attention heads of a single file (default: as CLIP)")
    add("--dtype", choices=DTYPES, default=next(iter(DTYPES)), help="of the written weights (default: %(default)s)")
    add("--sites", choices=SITES, default=UNetConfig.sites, help="channel-extended convolutions (default: %(default)s)")
    add(
        "--image-size",
        type=int,
        default=ModelConfig.image_size,
        help="photos are brought to this size squared (default: %(default)s)",
    )
    add("--overwrite", action="store_true", help="write into a folder that is not empty")
    return parser.parse_args(argv)


def check_output(source: Path, output: Path, overwrite: bool) -> None:
    """Refuse an output that would destroy something. Raises ValueError."""
    if output.exists() and not output.is_dir():
        raise ValueError(f"{output}: is a file; give a folder to write")
    if output.resolve() in (source.resolve(), *source.resolve().parents):
        raise ValueError(f"{output}: holds the source; give another folder to write")
    if output.is_dir() and any(output.iterdir()) and not overwrite:
        raise ValueError(f"{output}: is not empty; give another folder, or --overwrite")


def run(args: argparse.Namespace) -> int:
    check_output(args.source, args.output, args.overwrite)
    conversion = convert(
        args.source, text_heads=args.text_heads, sites=args.sites, image_size=args.image_size, dtype=DTYPES[args.dtype]
    )
    conversion.pipeline.save_pretrained(args.output)
    print(conversion.summary())
    print(f"written: {args.output}")
    return 0


def main(argv: list[str] | None = None) -> int:
    args = parse(argv)
    return reporting(lambda: run(args))
