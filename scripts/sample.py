#!/usr/bin/env python3
"""Colorize photographs from captions.

The same as `lcad sample`: see its --help, and lcad/cli/sample.py.
"""

from lcad.cli.common import REPOSITORY as ROOT  # noqa: F401
from lcad.cli.sample import EXAMPLES, main, parse  # noqa: F401
from lcad.masks.providers import SOURCES  # noqa: F401

if __name__ == "__main__":
    raise SystemExit(main())
