"""Names and defaults that the commands, the page and the library share. Importing it loads no other module."""

DTYPES = ("float32", "float16", "bfloat16")
"""Of weights; `ldm.devices.DTYPES` has torch's."""

PLAIN_LOOK = {"saturation": 1.0, "warmth": 0.0}
"""The look that changes nothing, see `lcad.recoloring.looks`."""

SAM_TYPES = ("vit_h", "vit_l", "vit_b")
"""Of Segment Anything's published checkpoints."""
