"""Mask providers by name: each turns its options into a function from a photo and words to candidate regions.

Those that need weights need packages of the extra `masks`, too: their modules are imported when they are asked for.
"""

from collections.abc import Callable
from functools import partial

from lcad.masks.superpixels import luminance_regions
from lcad.masks.types import Provider, ProviderOptions


def sam_provider(options: ProviderOptions) -> Provider:
    """Segment Anything's regions; raises what `lcad.masks.sam.sam_provider` raises."""
    from lcad.masks import sam

    return sam.sam_provider(options)


def referring_provider(options: ProviderOptions) -> Provider:
    """Grounding DINO and SAM where a SAM checkpoint is given, else CLIPSeg; raises what they raise."""
    from lcad.masks.referring import clipseg_provider, grounding_dino_provider

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
