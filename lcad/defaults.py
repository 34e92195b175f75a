"""Names and defaults that the commands, the page and the library share. Importing it loads no other module.

Of several names the first is the default.
"""

DTYPES = ("float32", "float16", "bfloat16")
"""Of weights; `ldm.devices.DTYPES` has torch's."""

SAMPLING_DTYPES = ("auto", *DTYPES)
"""Of the weights that sample, see `ldm.devices.choose_dtype`."""

SITES = ("none", "conv_in", "down_blocks")
"""Of channel-extended convolutions, see `lcad.models.channel_extended_unet`."""

LORA_LAYERS = (
    *("to_q", "to_k", "to_v", "to_out.0", "proj_in", "proj_out", "ff.net.0.proj", "ff.net.2"),
    *("conv1", "conv2", "conv_shortcut", "downsamplers.0.conv", "upsamplers.0.conv", "time_emb_proj"),
)
"""Those of LCM-LoRA (Luo et al. 2023)."""

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
