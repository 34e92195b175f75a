#!/usr/bin/env python3
"""Stage 2: train the noise prediction network in the latent space.

The same as `lcad train latent`: see its --help, and lcad/cli/train_latent.py.
"""

from lcad.cli.train_latent import main

if __name__ == "__main__":
    raise SystemExit(main())
