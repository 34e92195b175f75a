"""Mask providers by name: each turns its options into a function from a photo and words to candidate regions.

A new provider is one new module and one new row in `PROVIDERS`. Modules are imported when their provider is asked for:
those that need weights need packages of the extra `masks`, too.
"""

from collections.abc import Callable

from lcad.defaults import MASK_SOURCES
from lcad.masks.types import Provider, ProviderOptions


def regions_provider(options: ProviderOptions) -> Provider:
    """Segments of the luminance, without weights."""
    from functools import partial

    from lcad.masks.superpixels import luminance_regions

    return partial(luminance_regions, max_regions=options.max_regions)


def sam_provider(options: ProviderOptions) -> Provider:
    """Segment Anything's regions; raises what `lcad.masks.sam.sam_provider` raises."""
    from lcad.masks import sam

    return sam.sam_provider(options)


def referring_provider(options: ProviderOptions) -> Provider:
    """Grounding DINO and SAM where a SAM checkpoint is given, else CLIPSeg; raises what they raise."""
    from lcad.masks.referring import clipseg_provider, grounding_dino_provider

    return clipseg_provider(options) if options.checkpoint is None else grounding_dino_provider(options)


PROVIDERS: dict[str, Callable[[ProviderOptions], Provider]] = {
    "regions": regions_provider,
    "sam": sam_provider,
    "referring": referring_provider,
}
"""regions needs no weights; sam a checkpoint; referring text_segmenter, and a SAM checkpoint for Grounding DINO"""

SOURCES = tuple(dict.fromkeys((*MASK_SOURCES, *PROVIDERS)))
"""auto: what files have for a photo, else the best provider whose weights are given; none: no masks"""


def best_provider(options: ProviderOptions) -> Provider:
    """What `auto` uses: the row of `PROVIDERS` with the most knowledge among those whose weights are given."""
    name = "referring" if options.text_segmenter else "sam" if options.checkpoint else "regions"
    return PROVIDERS[name](options)
