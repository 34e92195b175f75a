#!/usr/bin/env python3
"""Distil a trained model to a few sampling steps.

The same as `lcad distill`: see its --help, and lcad/cli/distill_latent.py.
"""

from lcad.cli.distill_latent import main

if __name__ == "__main__":
    raise SystemExit(main())
