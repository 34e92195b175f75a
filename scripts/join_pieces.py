#!/usr/bin/env python3
"""Join files that came in pieces, such as trained weights, after checking that nothing was lost or changed.

python scripts/join_pieces.py --output weights/ received/model.safetensors.pieces.json
"""

import argparse
from pathlib import Path

from lcad.cli.common import build_parser, reporting


def run(args: argparse.Namespace) -> int:
    from lcad.data.build.pieces import join_pieces

    for manifest in args.manifests:
        print(f"wrote {join_pieces(manifest, args.output)}")
    return 0


def main(argv: list[str] | None = None) -> int:
    parser = build_parser(None, __doc__)
    parser.add_argument("manifests", type=Path, nargs="+", help="<name>.pieces.json, with the pieces beside it")
    parser.add_argument("--output", type=Path, required=True, help="folder for the joined files")
    args = parser.parse_args(argv)
    return reporting(lambda: run(args))


if __name__ == "__main__":
    raise SystemExit(main())
