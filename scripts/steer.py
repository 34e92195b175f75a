#!/usr/bin/env python3
"""Does the caption steer? Colours asked for against colours obtained.

The same as `lcad steer`: see its --help, and lcad/cli/steer.py.
"""

from lcad.cli.steer import main

if __name__ == "__main__":
    raise SystemExit(main())
