"""Access to the attention logits of a diffusers UNet, for the length of a `with` block.

Shapes: B rows, M heads, P pixels (h * w of the layer), T tokens (the layer's own pixels in self-attention).
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from diffusers import UNet2DConditionModel
from diffusers.models.attention_processor import Attention
from torch import Tensor

LogitTransform = Callable[[str, Tensor], Tensor]
"""(layer name, logits (B, M, P, T) before softmax) -> logits to go on with."""


CROSS_ATTENTION, SELF_ATTENTION = "attn2", "attn1"
"""How diffusers calls the two kinds of layers of a transformer block."""


class ShowingProcessor:
    """Attention that shows the logits of its first `rows` rows to `transform`.

    The other rows (the unconditional half) take the fused path and are never seen.
    """

    def __init__(self, name: str, transform: LogitTransform, rows: int):
        self.name, self.transform, self.rows = name, transform, rows

    def __call__(
        self, attn: Attention, hidden_states: Tensor, encoder_hidden_states: Tensor | None = None, **_
    ) -> Tensor:
        if encoder_hidden_states is None:
            encoder_hidden_states = hidden_states
        query, key, value = (  # (B, M, P, d), (B, M, T, d), (B, M, T, d)
            layer.unflatten(-1, (attn.heads, -1)).transpose(1, 2)
            for layer in (
                attn.to_q(hidden_states),
                attn.to_k(encoder_hidden_states),
                attn.to_v(encoder_hidden_states),
            )
        )
        seen = slice(0, self.rows)
        # (rows, M, P, T), in float32 also where the weights are in half precision
        logits = (query[seen].float() @ key[seen].float().transpose(-1, -2)) * attn.scale
        out = self.transform(self.name, logits).softmax(-1).to(value.dtype) @ value[seen]
        if self.rows < len(query):
            rest = slice(self.rows, None)
            out = torch.cat([out, F.scaled_dot_product_attention(query[rest], key[rest], value[rest])])
        out = out.transpose(1, 2).flatten(2)  # (B, P, M * d)
        return attn.to_out[1](attn.to_out[0](out))


@contextmanager
def attention_logits(
    unet: UNet2DConditionModel, transform: LogitTransform, rows: int, kinds: tuple[str, ...] = (CROSS_ATTENTION,)
) -> Iterator[None]:
    """Route the logits of rows [0, rows) of every attention layer of these kinds through `transform`.

    The processors that were there before are put back on leaving, on exceptions too.
    """
    layers = {name: module for name, module in unet.named_modules() if name.endswith(kinds)}
    before = {name: module.processor for name, module in layers.items()}
    try:
        for name, module in layers.items():
            module.set_processor(ShowingProcessor(name, transform, rows))
        yield
    finally:
        for name, module in layers.items():
            module.set_processor(before[name])


def layer_sizes(latent_size: tuple[int, int]) -> dict[int, tuple[int, int]]:
    """Number of pixels -> (height, width) of every resolution of the UNet."""
    sizes, (height, width) = {}, latent_size
    while height * width not in sizes:
        sizes[height * width] = (height, width)
        height, width = (height + 1) // 2, (width + 1) // 2
    return sizes
