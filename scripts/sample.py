#!/usr/bin/env python3
"""Colorize photographs from captions: the same as `lcad sample`; see lcad/cli/sample.py, or --help."""

from lcad.cli.sample import EXAMPLES, ROOT, SOURCES, main, parse  # noqa: F401 - for tests

if __name__ == "__main__":
    raise SystemExit(main())
