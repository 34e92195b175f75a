#!/usr/bin/env python3
"""Does the caption steer? Colours asked for against colours obtained: the same as `lcad steer`; see lcad/cli/steer.py, or --help."""

from lcad.cli.steer import main

if __name__ == "__main__":
    raise SystemExit(main())
