"""Mask providers by name: each turns its options into a function from a photo and words to candidate regions."""

from collections.abc import Callable
from functools import partial

from lcad.masks.candidates import Provider, ProviderOptions, Regions
from lcad.masks.referring import clipseg_provider, grounding_dino_provider
from lcad.masks.regions import luminance_regions
from lcad.masks.sam import sam_provider

__all__ = ["PROVIDERS", "Provider", "ProviderOptions", "Regions"]

PROVIDERS: dict[str, Callable[[ProviderOptions], Provider]] = {
    "luminance": lambda options: partial(luminance_regions, max_regions=options.max_regions),
    "sam": sam_provider,
    "clipseg": clipseg_provider,
    "grounding_dino": grounding_dino_provider,
}
"""luminance needs no weights; sam a checkpoint; clipseg words_model; grounding_dino both."""
