"""L-CAD: language-based colorization with any-level descriptions (Chang et al., NeurIPS 2023)."""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lcad.instance_sampling import Refinement as Refinement
    from lcad.models.channel_extended_unet import ExtendedUNet as ExtendedUNet
    from lcad.models.luminance_encoder import LuminanceEncoder as LuminanceEncoder
    from lcad.pipeline import LCADPipeline as LCADPipeline

__version__ = "0.1.0"

_HOMES = {
    "ExtendedUNet": "lcad.models.channel_extended_unet",
    "LCADPipeline": "lcad.pipeline",
    "LuminanceEncoder": "lcad.models.luminance_encoder",
    "Refinement": "lcad.instance_sampling",
}
__all__ = sorted(_HOMES)


def __getattr__(name: str) -> object:
    """The public classes, imported when they are first asked for (PEP 562): the package itself loads no torch."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
