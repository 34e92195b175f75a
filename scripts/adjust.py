#!/usr/bin/env python3
"""Stronger, weaker, warmer or cooler colours from results and their records: see lcad/cli/adjust.py."""

from lcad.cli.adjust import main

if __name__ == "__main__":
    raise SystemExit(main())
