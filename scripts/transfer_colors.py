#!/usr/bin/env python3
"""Bring the colours of another picture onto photos; see `lcad.cli.transfer_colors` or --help."""

from lcad.cli.transfer_colors import main

if __name__ == "__main__":
    raise SystemExit(main())
