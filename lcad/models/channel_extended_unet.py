"""Channel-extended convolution (Sec. 3.3, Eq. 5) and the UNet that has it.

Shapes: x (B, 4, h, w) noisy latents; luminance (B, C_l, h, w), the deepest luminance feature, with a classifier's
features behind it where the model has them: (B, C_l + S, h, w).
A *site* is a convolution of the UNet that is extended; a *response* is what its extension makes of the
luminance. A response does not depend on the time step: it is computed once per photo and added.
"""

import inspect
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, cast

import torch.nn.functional as F
from diffusers import UNet2DConditionModel
from diffusers.configuration_utils import register_to_config
from diffusers.models.unets.unet_2d_condition import UNet2DConditionOutput
from diffusers.utils.accelerate_utils import apply_forward_hook
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from lcad.config import UNetConfig
from ldm.attention import LogitTransform, set_logit_transform_processors
from ldm.checkpoint import rebuilt

SITES = {
    "none": "no extension: the plain UNet",
    "conv_in": "the first convolution alone (the release)",
    "down_blocks": "the first convolution, and the first one of every residual block of the down blocks (the paper)",
}

ADAPTER_WIDTH = 256

Pair = tuple[int, int]
Responses = dict[str, Tensor]
"""site name -> (B, C_out, h_site, w_site)"""


class ExtendedConv2d(nn.Conv2d):
    """A convolution with a second, zero-initialised one for the extended channels.

    `weight` and `bias` are the fixed part (omega_fix in Eq. 5), `extension.weight` is omega_ext.

    Attributes:
        response: extension(luminance) for the rows of a call, and only for its length; None adds nothing.
    """

    def __init__(self, base: nn.Conv2d, luminance_channels: int):
        # pairs, of which torch says only that they are tuples
        kernel, stride = cast(Pair, base.kernel_size), cast(Pair, base.stride)
        padding, device = cast("str | Pair", base.padding), base.weight.device
        super().__init__(base.in_channels, base.out_channels, kernel, stride, padding, device=device)
        self.weight, self.bias = base.weight, base.bias
        self.extension = nn.Conv2d(
            luminance_channels, base.out_channels, kernel, stride, padding, bias=False, device=device
        )
        nn.init.zeros_(self.extension.weight)
        self.response: Tensor | None = None

    def forward(self, f: Tensor) -> Tensor:
        """Eq. 5: omega_fix * f + omega_ext * luminance."""
        fixed = super().forward(f)
        return fixed if self.response is None else fixed + self.response


class SemanticAdapter(nn.Module):
    """What a classifier sees, for the sites of a UNet that may stay frozen: two convolutions at half the latents' size,
    and one for each site, zero until it is trained (as Mou et al., T2I-Adapter, 2023, add to features of down blocks).
    """

    def __init__(self, channels: int, sites: dict[str, int], width: int = ADAPTER_WIDTH):
        super().__init__()
        self.sites = sites
        self.conv1 = nn.Conv2d(channels, width, 3, padding=1)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1)
        self.head = nn.Conv2d(width, sum(sites.values()), 1)  # of all sites, one after another
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(cast(Tensor, self.head.bias))

    def forward(self, condition: Tensor) -> Responses:
        """(B, C_l + S, h, w) -> what is added to the luminance's responses, (B, C_out, ceil(h / 2), ceil(w / 2))."""
        x = F.silu(self.conv1(F.avg_pool2d(condition, 2, ceil_mode=True)))
        x = self.head(x + F.silu(self.conv2(x)))
        return dict(zip(self.sites, x.split(list(self.sites.values()), 1), strict=True))


class ExtendedUNet(UNet2DConditionModel):
    """Stable Diffusion's UNet with channel-extended convolutions at `sites` (a row of `SITES`).

    Its parameters are the base UNet's under the base UNet's names, plus `<site>.extension.weight`, and with
    `semantic_channels` those of `semantic_adapter`.
    """

    @register_to_config
    def __init__(
        self,
        sample_size: int = 32,
        in_channels: int = 4,
        out_channels: int = 4,
        down_block_types: tuple[str, ...] = ("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",),
        up_block_types: tuple[str, ...] = ("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3,
        block_out_channels: tuple[int, ...] = (320, 640, 1280, 1280),
        layers_per_block: int = 2,
        attention_head_dim: int = 8,
        cross_attention_dim: int = 768,
        norm_num_groups: int = 32,
        luminance_channels: int = 512,
        sites: str = UNetConfig.sites,
        semantic_channels: int = 0,
    ):
        if sites not in SITES:
            raise ValueError(f"unknown sites {sites!r}; allowed: {', '.join(SITES)}")
        super().__init__(
            sample_size=sample_size,
            in_channels=in_channels,
            out_channels=out_channels,
            down_block_types=down_block_types,
            up_block_types=up_block_types,
            block_out_channels=block_out_channels,
            layers_per_block=layers_per_block,
            attention_head_dim=attention_head_dim,
            cross_attention_dim=cross_attention_dim,
            norm_num_groups=norm_num_groups,
        )
        self.site_names: list[str] = []
        if sites != "none":
            self._extend(self, "conv_in", "conv_in")
        if sites == "down_blocks":
            for i, block in enumerate(self.down_blocks):
                for j, resnet in enumerate(block.resnets):
                    self._extend(resnet, "conv1", f"down_blocks.{i}.resnets.{j}.conv1")
        self.semantic_adapter = None
        if semantic_channels and self.site_names:
            widths = {site: self.get_submodule(site).out_channels for site in self.site_names}
            self.semantic_adapter = SemanticAdapter(luminance_channels + semantic_channels, widths)
        set_logit_transform_processors(self)

    @classmethod
    def extract_init_dict(cls, config_dict: dict, **kwargs: Any) -> tuple[dict, dict, dict]:
        """Leave out what a saved config holds of the base class: its defaults, which this class does not change.

        Raises:
            ValueError: a base setting this class cannot have (a UNet of another architecture).
        """
        own = inspect.signature(cls.__init__).parameters
        base = {k: v for k, v in inspect.signature(UNet2DConditionModel.__init__).parameters.items() if k not in own}
        foreign = {k: v for k, v in config_dict.items() if k in base and _plain(v) != _plain(base[k].default)}
        if foreign:
            raise ValueError(f"a UNet of another architecture: {foreign}; Stable Diffusion 1.x is supported")
        kept = {k: v for k, v in config_dict.items() if k not in base}
        return super().extract_init_dict(kept, **kwargs)

    def _extend(self, owner: nn.Module, attribute: str, site: str) -> None:
        channels = self.config.luminance_channels
        setattr(owner, attribute, ExtendedConv2d(getattr(owner, attribute), channels))
        self.site_names.append(site)

    def with_settings(self, **settings: Any) -> "ExtendedUNet":
        """This UNet's weights with other `sites` or `semantic_channels`: what is new, also an adapter for other sites,
        starts at zero, the rest is kept."""
        extended = rebuilt(self, **settings).to(self.device, self.dtype)
        own = self.state_dict()
        if extended.site_names != self.site_names:
            own = {name: value for name, value in own.items() if not name.startswith("semantic_adapter.head.")}
        kept = {name: own.get(name, value) for name, value in extended.state_dict().items()}
        extended.load_state_dict(kept)
        return extended

    @apply_forward_hook  # as for `forward`: with offloading the weights come to the device first
    def luminance_responses(self, luminance: Tensor) -> Responses:
        """extension(resized luminance) of every site: the second sum of Eq. 5; and what the semantic adapter adds.

        Args:
            luminance: (B, luminance_channels + semantic_channels, h, w), at the resolution of the latents.
        """
        added = {} if self.semantic_adapter is None else self.semantic_adapter(luminance)
        responses = {}
        seen = luminance[:, : self.config.luminance_channels]
        for site in self.site_names:
            level = int(site.split(".")[1]) if site.startswith("down_blocks") else 0
            height, width = luminance.shape[-2:]
            for _ in range(level):  # as the strided convolutions between the levels round
                height, width = (height + 1) // 2, (width + 1) // 2
            responses[site] = self.get_submodule(site).extension(_resized(seen, (height, width)))
            if site in added:
                responses[site] = responses[site] + _resized(added[site], (height, width))
        return responses

    @contextmanager
    def conditioned_on(self, responses: Responses) -> Iterator[None]:
        """Add `responses` to the outputs of their convolutions inside the `with` block."""
        sites = [self.get_submodule(site) for site in responses]
        before = [site.response for site in sites]
        try:
            for site, response in zip(sites, responses.values(), strict=True):
                site.response = response
            yield
        finally:
            for site, response in zip(sites, before, strict=True):
                site.response = response

    def forward(
        self,
        sample: Tensor,
        timestep: Tensor,
        encoder_hidden_states: Tensor,
        responses: Responses,
        logit_transform: LogitTransform | None = None,
        **kwargs: Any,
    ) -> UNet2DConditionOutput | tuple:
        """Predict the noise. As UNet2DConditionModel.forward, with the luminance responses of the batch.

        Args:
            responses: of `luminance_responses`, for these B rows; empty for the plain UNet.
            logit_transform: what is done to the attention logits of this call.
        """
        if logit_transform is not None:
            given = kwargs.get("cross_attention_kwargs") or {}
            kwargs["cross_attention_kwargs"] = {**given, "logit_transform": logit_transform}
        with self.conditioned_on(responses):
            return super().forward(sample, timestep, encoder_hidden_states, **kwargs)

    def set_default_attn_processor(self) -> None:
        """The processors this UNet is made with, which take a call's `logit_transform`."""
        set_logit_transform_processors(self)

    def enable_gradient_checkpointing(self, gradient_checkpointing_func: Callable | None = None) -> None:
        """As diffusers' own; what is computed again, after `forward` has returned, has the same responses."""
        super().enable_gradient_checkpointing(gradient_checkpointing_func or self._checkpoint)

    def _checkpoint(self, module: nn.Module, *args: Any) -> Any:
        responses = {site: self.get_submodule(site).response for site in self.site_names}

        def contexts() -> tuple[AbstractContextManager, AbstractContextManager]:
            return nullcontext(), self.conditioned_on(responses)

        return checkpoint(module, *args, use_reentrant=False, context_fn=contexts)


def _resized(x: Tensor, size: Pair) -> Tensor:
    if x.shape[-2:] == size:
        return x
    return F.interpolate(x.float(), size, mode="bilinear", antialias=True).to(x.dtype)


def _plain(value: object) -> object:
    """JSON has no tuples."""
    return list(value) if isinstance(value, tuple) else value
