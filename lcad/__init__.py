"""L-CAD: language-based colorization with any-level descriptions (Chang et al., NeurIPS 2023)."""

from lcad.attention_refinement import Refinement
from lcad.extended_conv import ExtendedUNet
from lcad.luminance_encoder import LuminanceEncoder
from lcad.pipeline import LCADPipeline

__all__ = ["ExtendedUNet", "LCADPipeline", "LuminanceEncoder", "Refinement"]
__version__ = "0.1.0"
