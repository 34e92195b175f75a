"""Colorizing folders of photos: what there is to do, doing it in batches, and an account of every file."""
