"""The command line: `lcad COMMAND`, one module for each command; importing this package loads nothing else."""
