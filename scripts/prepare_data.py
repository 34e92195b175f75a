#!/usr/bin/env python3
"""Make a folder of 256x256 photos, captions and a manifest: the same as `lcad prepare`; see lcad/cli/prepare_data.py, or --help."""

from lcad.cli.prepare_data import main

if __name__ == "__main__":
    raise SystemExit(main())
