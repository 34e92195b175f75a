"""Mask providers by name: each turns its options into a function from a photo and words to candidate regions."""

from collections.abc import Callable
from functools import partial

from lcad.masks.referring import clipseg_provider, grounding_dino_provider
from lcad.masks.sam import sam_provider
from lcad.masks.superpixels import luminance_regions
from lcad.masks.types import Provider, ProviderOptions


def referring_provider(options: ProviderOptions) -> Provider:
    """Grounding DINO and SAM where a SAM checkpoint is given, else CLIPSeg; raises what they raise."""
    return clipseg_provider(options) if options.checkpoint is None else grounding_dino_provider(options)


PROVIDERS: dict[str, Callable[[ProviderOptions], Provider]] = {
    "regions": lambda options: partial(luminance_regions, max_regions=options.max_regions),
    "sam": sam_provider,
    "referring": referring_provider,
}
"""regions needs no weights; sam a checkpoint; referring words_model, and a SAM checkpoint for Grounding DINO"""


def best_provider(options: ProviderOptions) -> Provider:
    """What `auto` uses: the row of `PROVIDERS` with the most knowledge among those whose weights are given."""
    name = "referring" if options.words_model else "sam" if options.checkpoint else "regions"
    return PROVIDERS[name](options)
