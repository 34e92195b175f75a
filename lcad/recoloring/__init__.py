"""Chroma that comes from somewhere else than the model, brought onto a photo's own luminance."""
