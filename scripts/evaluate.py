#!/usr/bin/env python3
"""Score a model, or any folder of results, and write the paper's tables.

The same as `lcad evaluate`: see its --help, and lcad/cli/evaluate.py.
"""

from lcad.cli.evaluate import main

if __name__ == "__main__":
    raise SystemExit(main())
