"""Data sets made: prepared, packed, rendered and labelled."""
