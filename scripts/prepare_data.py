#!/usr/bin/env python3
"""Make a folder of 256x256 photos, captions and a manifest.

The same as `lcad prepare`: see its --help, and lcad/cli/prepare_data.py.
"""

from lcad.cli.prepare_data import main

if __name__ == "__main__":
    raise SystemExit(main())
