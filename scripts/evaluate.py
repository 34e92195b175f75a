#!/usr/bin/env python3
"""Score a model, or any folder of results, and write the paper's tables: the same as `lcad evaluate`; see lcad/cli/evaluate.py, or --help."""

from lcad.cli.evaluate import main

if __name__ == "__main__":
    raise SystemExit(main())
