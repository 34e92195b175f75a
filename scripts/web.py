#!/usr/bin/env python3
"""A page to click on, in the browser: see `lcad.cli.web`, or --help."""

from lcad.cli.web import main

if __name__ == "__main__":
    raise SystemExit(main())
