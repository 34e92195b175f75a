#!/usr/bin/env python3
"""Stage 1: train the luminance encoder in pixel space.

The same as `lcad train pixel`: see its --help, and lcad/cli/train_pixel.py.
"""

from lcad.cli.train_pixel import main

if __name__ == "__main__":
    raise SystemExit(main())
