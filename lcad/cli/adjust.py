"""Change how strong and how warm the colours of results are, without colorizing again.

    python scripts/adjust.py --input coloured/ --saturation 1.3 --output stronger/
    python scripts/adjust.py --input coloured/photo.png --warmth 0.3 --output warmer/

Reads results of scripts/sample.py and their JSON records, and writes both, with the new look, into another folder. A
look replaces the one that a result was made with: its record says which. Size, depth, profile, EXIF and the luminance
stay. Results that exist are kept, unless --overwrite is given.
Exit status: 0 all done, 1 some results could not be done, 2 nothing could be done.
"""

import argparse
import sys
from pathlib import Path

from lcad.cli.common import add_look, build_parser, reporting


def run(args: argparse.Namespace) -> int:
    from lcad.inference.adjusting import adjust, find_results
    from lcad.inference.summary import one_line
    from lcad.recoloring.looks import check_look

    check_look(args.saturation, args.warmth)
    results, problems = find_results(args.input)
    done = 0
    for result, record in results:
        try:
            path = adjust(result, record, (args.saturation, args.warmth), args.output, args.overwrite)
            print(one_line(f"wrote {path}"))
            done += 1
        except (OSError, ValueError) as error:
            problems.append(str(error))
    for problem in problems:
        print(one_line(f"problem: {problem}"), file=sys.stderr)
    return 0 if not problems else 1 if done else 2


def main(argv: list[str] | None = None) -> int:
    parser = build_parser("lcad adjust", __doc__)
    parser.add_argument("--input", type=Path, required=True, help="a result, its JSON record, or a folder of them")
    add_look(parser.add_argument)
    parser.add_argument("--output", type=Path, required=True, help="folder for the results")
    parser.add_argument("--overwrite", action="store_true", help="replace results that are there already")
    args = parser.parse_args(argv)
    return reporting(lambda: run(args))
