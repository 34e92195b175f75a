#!/usr/bin/env python3
"""Convert Stable Diffusion 1.5 or the published L-CAD checkpoint.

The same as `lcad convert`: see its --help, and lcad/cli/convert_checkpoint.py.
"""

from lcad.cli.convert_checkpoint import main

if __name__ == "__main__":
    raise SystemExit(main())
