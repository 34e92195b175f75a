"""Colours of a result changed afterwards: exact colours of objects, and looks of the whole photo."""
