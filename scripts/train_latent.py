#!/usr/bin/env python3
"""Stage 2: train the noise prediction network in the latent space: the same as `lcad train latent`; see lcad/cli/train_latent.py, or --help."""

from lcad.cli.train_latent import main

if __name__ == "__main__":
    raise SystemExit(main())
