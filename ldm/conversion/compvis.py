"""CompVis' single-file layout of Stable Diffusion 1.x -> the names diffusers and transformers use.

The `*_names` functions only deal in names: they map each new key to the key in the file. The `infer_*`
functions read a model's sizes off its renamed tensors and return the arguments of `ldm`'s builders. Any number
of levels and of blocks per level works.
"""

import re
from collections.abc import Callable, Iterable, Mapping

from torch import Tensor

from ldm.checkpoint import CheckpointError

UNET_PREFIX = "model.diffusion_model."
VAE_PREFIX = "first_stage_model."
TEXT_PREFIX = "cond_stage_model.transformer."

# the start of a UNet key
UNET_MODULES = {
    "time_embed.0.": "time_embedding.linear_1.",
    "time_embed.2.": "time_embedding.linear_2.",
    "input_blocks.0.0.": "conv_in.",
    "middle_block.0.": "mid_block.resnets.0.",
    "middle_block.1.": "mid_block.attentions.0.",
    "middle_block.2.": "mid_block.resnets.1.",
    "out.0.": "conv_norm_out.",
    "out.2.": "conv_out.",
}
# the start of the rest of a UNet key; transformer blocks have the same names in both
UNET_LAYERS = {
    "in_layers.0.": "norm1.",
    "in_layers.2.": "conv1.",
    "emb_layers.1.": "time_emb_proj.",
    "out_layers.0.": "norm2.",
    "out_layers.3.": "conv2.",
    "skip_connection.": "conv_shortcut.",
}
# anywhere in an autoencoder key, in this order
VAE_PIECES = {
    ".down.": ".down_blocks.",
    ".block.": ".resnets.",
    ".downsample.": ".downsamplers.0.",
    ".upsample.": ".upsamplers.0.",
    ".nin_shortcut.": ".conv_shortcut.",
    ".mid.block_1.": ".mid_block.resnets.0.",
    ".mid.block_2.": ".mid_block.resnets.1.",
    ".mid.attn_1.norm.": ".mid_block.attentions.0.group_norm.",
    ".mid.attn_1.q.": ".mid_block.attentions.0.to_q.",
    ".mid.attn_1.k.": ".mid_block.attentions.0.to_k.",
    ".mid.attn_1.v.": ".mid_block.attentions.0.to_v.",
    ".mid.attn_1.proj_out.": ".mid_block.attentions.0.to_out.0.",
    ".norm_out.": ".conv_norm_out.",
}


def rename(keys: Iterable[str], prefix: str, rule: Callable[[str], str | None]) -> dict[str, str]:
    """New key -> key in the file, for each key under `prefix` that `rule` (which sees it without prefix) knows.

    Where two keys would get the same name, the second stays out: the caller finds it left over.
    """
    names: dict[str, str] = {}
    for key in keys:
        new = rule(key.removeprefix(prefix)) if key.startswith(prefix) else None
        if new is not None:
            names.setdefault(new, key)
    return names


def unet_names(keys: Iterable[str]) -> dict[str, str]:
    """UNet2DConditionModel key -> key in the file."""
    keys = list(keys)
    downsamplers = [re.match(rf"{re.escape(UNET_PREFIX)}input_blocks\.(\d+)\.0\.op\.", key) for key in keys]
    # input block 0 is the first convolution; a level is its residual blocks, then one downsampler
    layers_per_block = min((int(match[1]) for match in downsamplers if match), default=len(keys)) - 1
    return rename(keys, UNET_PREFIX, lambda key: unet_key(key, layers_per_block))


def unet_key(key: str, layers_per_block: int) -> str | None:
    """diffusers' name of a UNet key (without prefix), None if the layout has no such key."""
    for old, new in UNET_MODULES.items():
        if key.startswith(old):
            return new + _rename_start(key.removeprefix(old), UNET_LAYERS)
    match = re.fullmatch(r"(input|output)_blocks\.(\d+)\.(\d)\.(.+)", key)
    if match is None:
        return None
    number, slot, tail = int(match[2]), int(match[3]), match[4]
    first = 1 if match[1] == "input" else 0
    level, index = divmod(number - first, layers_per_block + 1)
    block = f"{'down' if match[1] == 'input' else 'up'}_blocks.{level}"
    if tail.startswith("op."):
        return f"{block}.downsamplers.0.conv.{tail.removeprefix('op.')}"
    if tail.startswith("conv."):
        return f"{block}.upsamplers.0.{tail}"
    return f"{block}.{'resnets' if slot == 0 else 'attentions'}.{index}.{_rename_start(tail, UNET_LAYERS)}"


def vae_names(keys: Iterable[str]) -> dict[str, str]:
    """AutoencoderKL key -> key in the file."""
    keys = list(keys)
    levels = count(keys, rf"{re.escape(VAE_PREFIX)}decoder\.up\.(\d+)\.")
    return rename(keys, VAE_PREFIX, lambda key: vae_key(key, levels))


def vae_key(key: str, levels: int) -> str | None:
    """diffusers' name of an autoencoder key (without prefix), None if the layout has no such key."""
    if not key.startswith(("encoder.", "decoder.", "quant_conv.", "post_quant_conv.")):
        return None
    # CompVis numbers the decoder's levels like the encoder's, diffusers in the order they run
    key = re.sub(r"^decoder\.up\.(\d+)\.", lambda match: f"decoder.up_blocks.{levels - 1 - int(match[1])}.", key)
    for old, new in VAE_PIECES.items():
        key = key.replace(old, new)
    return key


def text_names(keys: Iterable[str]) -> dict[str, str]:
    """CLIPTextModel key -> key in the file. Transformers 5 has no `text_model.` in front any more."""
    return rename(keys, TEXT_PREFIX, lambda key: key.removeprefix("text_model."))


def as_linear(weight: Tensor) -> Tensor:
    """A 1x1 convolution's weight (C, D, 1, 1) as a linear layer's (C, D), no copy; any other weight unchanged."""
    return weight.flatten(1) if weight.shape[2:] == (1, 1) else weight


def vae_tensor(name: str, tensor: Tensor) -> Tensor:
    """The tensor as AutoencoderKL wants it under its new name: its attention is linear, not convolutional."""
    return as_linear(tensor) if ".attentions." in name else tensor


def infer_unet_config(tensors: Mapping[str, Tensor]) -> dict:
    """Arguments of `ldm.unet.unet_config`; the number of heads (8 for SD 1.x) and of groups are its defaults.

    Raises:
        CheckpointError: a key that tells a size is missing or has too few dimensions.
    """
    levels = range(count(tensors, r"down_blocks\.(\d+)\."))
    return dict(
        block_out_channels=[size(tensors, f"down_blocks.{i}.resnets.0.conv1.weight", 0) for i in levels],
        attention_levels=[any(key.startswith(f"down_blocks.{i}.attentions.") for key in tensors) for i in levels],
        layers_per_block=count(tensors, r"down_blocks\.0\.resnets\.(\d+)\."),
        cross_attention_dim=size(tensors, "mid_block.attentions.0.transformer_blocks.0.attn2.to_k.weight", 1),
        latent_channels=size(tensors, "conv_out.weight", 0),
    )


def infer_encoder_config(tensors: Mapping[str, Tensor]) -> dict:
    """Channels per level and blocks per level of the autoencoder's encoder. Raises as `infer_unet_config`."""
    levels = range(count(tensors, r"encoder\.down_blocks\.(\d+)\."))
    return dict(
        block_out_channels=[size(tensors, f"encoder.down_blocks.{i}.resnets.0.conv1.weight", 0) for i in levels],
        layers_per_block=count(tensors, r"encoder\.down_blocks\.0\.resnets\.(\d+)\."),
    )


def infer_vae_config(tensors: Mapping[str, Tensor]) -> dict:
    """Arguments of `ldm.autoencoder.build_autoencoder`. Raises as `infer_unet_config`."""
    return dict(**infer_encoder_config(tensors), latent_channels=size(tensors, "post_quant_conv.weight", 0))


def infer_text_config(tensors: Mapping[str, Tensor], heads: int | None = None) -> dict:
    """Arguments of `ldm.text_encoder.build_text_encoder`.

    Args:
        heads: attention heads, which no shape tells; one for each 64 channels (CLIP's own rule) by default.

    Raises:
        ValueError: `heads` does not divide the hidden size. CheckpointError as in `infer_unet_config`.
    """
    hidden_size = size(tensors, "embeddings.token_embedding.weight", 1)
    heads = max(1, hidden_size // 64) if heads is None else heads
    if heads < 1 or hidden_size % heads:
        raise ValueError(f"{heads} text heads do not divide the hidden size {hidden_size}; give a divisor of it")
    return dict(
        hidden_size=hidden_size,
        layers=count(tensors, r"encoder\.layers\.(\d+)\."),
        heads=heads,
        intermediate_size=size(tensors, "encoder.layers.0.mlp.fc1.weight", 0),
    )


def count(keys: Iterable[str], pattern: str) -> int:
    """One more than the highest number that `pattern`'s group takes at the start of a key; 0 without a match."""
    return 1 + max((int(match[1]) for match in (re.match(pattern, key) for key in keys) if match), default=-1)


def size(tensors: Mapping[str, Tensor], key: str, dimension: int) -> int:
    """One dimension of a tensor that has to be there. Raises CheckpointError."""
    if key not in tensors:
        raise CheckpointError(f"missing key {key}, which tells the model's size; is the file complete?")
    if tensors[key].ndim <= dimension:
        raise CheckpointError(f"{key} is {tuple(tensors[key].shape)}, needs at least {dimension + 1} dimensions")
    return tensors[key].shape[dimension]


def _rename_start(key: str, table: Mapping[str, str]) -> str:
    for old, new in table.items():
        if key.startswith(old):
            return new + key.removeprefix(old)
    return key
