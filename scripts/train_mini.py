#!/usr/bin/env python3
"""Train the whole bundled model from packed data.

The same as `lcad train mini`: see its --help, and lcad/cli/train_mini.py.
"""

from lcad.cli.train_mini import main

if __name__ == "__main__":
    raise SystemExit(main())
