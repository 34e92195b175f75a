#!/usr/bin/env python3
"""Train the whole bundled model from packed data: the same as `lcad train mini`; see lcad/cli/train_mini.py, or --help."""

from lcad.cli.train_mini import main

if __name__ == "__main__":
    raise SystemExit(main())
