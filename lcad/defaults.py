"""Names and defaults that the commands, the page and the library share. Importing it loads no other module.

Of several names the first is the default.
"""

DTYPES = ("float32", "float16", "bfloat16")
"""Of weights; `ldm.devices.DTYPES` has torch's."""

MASK_SOURCES = ("auto", "none", "files", "regions")
"""Those that need no weights of their own, see `lcad.masks.providers.SOURCES`."""

OUTPUT_LUMINANCE = ("input", "decoded")
"""The photo's own, or the network's."""

PLAIN_LOOK = {"saturation": 1.0, "warmth": 0.0}
"""The look that changes nothing, see `lcad.recoloring.looks`."""

SAM_TYPES = ("vit_h", "vit_l", "vit_b")
"""Of Segment Anything's published checkpoints."""

PAPER_STEPS = 50
"""Of DDIM (Sec. 4.1); what a checkpoint is sampled with that names no number of its own."""

SEED = 0
