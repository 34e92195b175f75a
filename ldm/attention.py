"""Attention of a diffusers UNet whose logits a call can read and change, fed through `cross_attention_kwargs`.

Shapes: B rows, M heads, P pixels (h * w of the layer), T tokens (the layer's own pixels in self-attention).
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from diffusers import UNet2DConditionModel
from diffusers.models.attention_processor import Attention, AttnProcessor2_0
from torch import Tensor

CROSS_ATTENTION, SELF_ATTENTION = "attn2", "attn1"
"""How diffusers calls the two kinds of layers of a transformer block."""


@dataclass(frozen=True)
class LogitTransform:
    """What one call of a UNet does to its attention logits.

    Attributes:
        function: (layer name, logits (rows, M, P, T) before softmax, float32) -> logits to go on with.
        rows: how many rows of the batch, from the first, it is for. The others (the unconditional half) take the fused
            path and are never seen.
        kinds: of layers it is for.
    """

    function: Callable[[str, Tensor], Tensor]
    rows: int
    kinds: tuple[str, ...] = (CROSS_ATTENTION,)


class LogitTransformProcessor(AttnProcessor2_0):
    """diffusers' own attention, until a call brings a `LogitTransform` for layers of this kind."""

    def __init__(self, name: str):
        super().__init__()
        self.name = name

    def __call__(
        self,
        attn: Attention,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        temb: Tensor | None = None,
        logit_transform: LogitTransform | None = None,
    ) -> Tensor:
        if logit_transform is None or not self.name.endswith(logit_transform.kinds):
            return super().__call__(attn, hidden_states, encoder_hidden_states, attention_mask, temb)
        context = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        query, key, value = (  # (B, M, P, d), (B, M, T, d), (B, M, T, d)
            layer.unflatten(-1, (attn.heads, -1)).transpose(1, 2)
            for layer in (attn.to_q(hidden_states), attn.to_k(context), attn.to_v(context))
        )
        rows = logit_transform.rows
        # (rows, M, P, T), in float32 also where the weights are in half precision
        logits = (query[:rows].float() @ key[:rows].float().transpose(-1, -2)) * attn.scale
        out = logit_transform.function(self.name, logits).softmax(-1).to(value.dtype) @ value[:rows]
        if rows < len(query):
            out = torch.cat([out, F.scaled_dot_product_attention(query[rows:], key[rows:], value[rows:])])
        out = out.transpose(1, 2).flatten(2)  # (B, P, M * d)
        return attn.to_out[1](attn.to_out[0](out))


def set_logit_transform_processors(unet: UNet2DConditionModel) -> None:
    """Give every attention layer of the UNet, for good, a processor that takes a call's `logit_transform`."""
    unet.set_attn_processor(
        {name: LogitTransformProcessor(name.removesuffix(".processor")) for name in unet.attn_processors}
    )


def check_processors(unet: UNet2DConditionModel) -> None:
    """Raises ValueError: another processor has been set, which would leave a call's `logit_transform` undone."""
    for name, processor in unet.attn_processors.items():
        if not isinstance(processor, LogitTransformProcessor):
            raise ValueError(
                f"instance masks need the UNet's own attention processors; {name} is {type(processor).__name__}; "
                "put them back with unet.set_default_attn_processor()"
            )


def layer_sizes(latent_size: tuple[int, int]) -> dict[int, tuple[int, int]]:
    """Number of pixels -> (height, width) of every resolution of the UNet."""
    sizes, (height, width) = {}, latent_size
    while height * width not in sizes:
        sizes[height * width] = (height, width)
        height, width = (height + 1) // 2, (width + 1) // 2
    return sizes


def cross_attention_sizes(unet: UNet2DConditionModel, latent_size: tuple[int, int]) -> list[tuple[int, int]]:
    """Of the UNet's layers that have cross-attention, for latents of this size."""
    sizes, kinds = list(layer_sizes(latent_size).values()), unet.config.down_block_types
    middle = sizes[: len(kinds)][-1]  # very small latents have fewer sizes than the UNet has levels
    return [size for size, kind in zip(sizes, kinds, strict=False) if "CrossAttn" in kind] + [middle]
