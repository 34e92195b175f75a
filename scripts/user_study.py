#!/usr/bin/env python3
"""Ask people which colorization they prefer (Table 2): build the page they vote on, tally the votes they send back.

python scripts/user_study.py build corresponding --method "Ours=outputs/ours" --method "L-CoIns=outputs/lcoins" \\
    --captions my_photos/captions.json --output studies/corresponding
python scripts/user_study.py build reality --method "Ours*=outputs/scarce" --method "CIC=outputs/cic" \\
    --real my_photos/images --output studies/reality
python scripts/user_study.py tally --key studies/*/key.json --votes collected/ --output studies/

See docs/user_study.md.
"""

import argparse
import sys
from pathlib import Path

from lcad.cli.common import build_parser, reporting


def build(args: argparse.Namespace) -> int:
    from lcad.evaluation.user_study import build_study, parse_methods, write_study
    from lcad.text.captions import read_captions

    methods = parse_methods(args.method)
    captions = read_captions(args.captions.parent, args.captions) if args.captions else None
    page, key = build_study(args.experiment, methods, captions, args.real, args.samples, args.seed, args.dataset)
    write_study(args.output, page, key)
    print(
        f"wrote {args.output / 'study.html'} ({len(page) / 1e6:.1f} MB) to hand out, and key.json to keep to yourself"
    )
    return 0


def tally(args: argparse.Namespace) -> int:
    from lcad.evaluation.scoring import write_rows
    from lcad.evaluation.user_votes import markdown
    from lcad.evaluation.user_votes import tally as tally_votes
    from lcad.io.images import write_bytes

    rows, warnings = tally_votes(args.key, args.votes)
    for warning in warnings:
        print(f"warning: {warning}", file=sys.stderr)
    table = markdown(rows)
    print(table, end="")
    if args.output:
        write_bytes(args.output / "table2.md", table.encode())
        write_rows(args.output / "table2.csv", rows)
    return 0


def main(argv: list[str] | None = None) -> int:
    parser = build_parser(None, __doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    builder = commands.add_parser("build", help="results of several methods -> study.html and key.json")
    builder.set_defaults(action=build)
    builder.add_argument("experiment", choices=["corresponding", "reality"])
    builder.add_argument("--method", action="append", required=True, metavar="NAME=FOLDER", help="repeat for each")
    builder.add_argument("--captions", type=Path, help="caption file, for the corresponding experiment")
    builder.add_argument("--real", type=Path, help="folder of the real photos, for the reality experiment")
    builder.add_argument("--dataset", default="own photos", help="its name in the table")
    builder.add_argument("--samples", type=int, default=100, help="photos that a volunteer is asked about")
    builder.add_argument("--seed", type=int, default=0, help="of the choice of photos, their order and the places")
    builder.add_argument("--output", type=Path, required=True, help="folder for study.html and key.json")
    counter = commands.add_parser("tally", help="vote files and keys -> table, beside the paper's")
    counter.set_defaults(action=tally)
    counter.add_argument("--key", type=Path, nargs="+", required=True, help="key.json of each study")
    counter.add_argument("--votes", type=Path, nargs="+", required=True, help="vote files, or folders of votes_*.json")
    counter.add_argument("--output", type=Path, help="folder for table2.md and table2.csv")
    args = parser.parse_args(argv)
    return reporting(lambda: args.action(args))


if __name__ == "__main__":
    raise SystemExit(main())
