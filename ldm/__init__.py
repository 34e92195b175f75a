"""Latent diffusion building blocks; nothing here knows about colour."""
