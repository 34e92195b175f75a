"""Convert Stable Diffusion 1.5 or the published L-CAD checkpoint into a checkpoint folder of this project."""

import argparse
import sys
from pathlib import Path

import torch

from lcad.conversion import convert

DTYPES = {"float32": torch.float32, "float16": torch.float16}
SITES = {"conv_in": "conv_in", "paper": "down_blocks"}

EXAMPLES = """examples:
  python scripts/convert_checkpoint.py downloads/l-cad.ckpt checkpoints/l-cad
  python scripts/convert_checkpoint.py downloads/stable-diffusion-v1-5 checkpoints/sd15 --sites paper
"""


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="convert_checkpoint.py",
        description=__doc__,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("source", type=Path, help="diffusers folder, or single .ckpt / .safetensors file")
    parser.add_argument("output", type=Path, help="folder to write, for LCADPipeline.from_pretrained")
    parser.add_argument("--text-heads", type=int, help="text attention heads of a single file (default: as CLIP)")
    parser.add_argument("--dtype", choices=DTYPES, default="float32", help="of the written weights (default: float32)")
    parser.add_argument(
        "--sites",
        choices=SITES,
        default="conv_in",
        help="channel-extended convolutions: the first one alone, or all of the paper's (default: conv_in)",
    )
    parser.add_argument("--overwrite", action="store_true", help="write into a folder that is not empty")
    return parser.parse_args(argv)


def check_output(source: Path, output: Path, overwrite: bool) -> None:
    """Refuse an output that would destroy something. Raises ValueError."""
    if output.exists() and not output.is_dir():
        raise ValueError(f"{output}: is a file; give a folder to write")
    if output.resolve() in (source.resolve(), *source.resolve().parents):
        raise ValueError(f"{output}: holds the source; give another folder to write")
    if output.is_dir() and any(output.iterdir()) and not overwrite:
        raise ValueError(f"{output}: is not empty; give another folder, or --overwrite")


def main(argv: list[str] | None = None) -> int:
    arguments = parse(argv)
    try:
        check_output(arguments.source, arguments.output, arguments.overwrite)
        conversion = convert(
            arguments.source,
            text_heads=arguments.text_heads,
            sites=SITES[arguments.sites],
            dtype=DTYPES[arguments.dtype],
        )
        conversion.pipeline.save_pretrained(arguments.output)
    except (ValueError, OSError) as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    print(conversion.summary())
    print(f"written: {arguments.output}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
