#!/usr/bin/env python3
"""Stage 1: train the luminance encoder in pixel space: the same as `lcad train pixel`; see lcad/cli/train_pixel.py, or --help."""

from lcad.cli.train_pixel import main

if __name__ == "__main__":
    raise SystemExit(main())
