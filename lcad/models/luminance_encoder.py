"""The luminance encoder of luminance-guided compression (Sec. 3.2).

Shapes: B photos, H x W pixels; level i has C_i channels at H / 2^i.
"""

import torch
from diffusers import AutoencoderKL, ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from diffusers.models.autoencoders.vae import Encoder
from torch import Tensor, nn

from lcad.models.semantic_features import SemanticFeatures
from ldm.checkpoint import rebuilt


class LuminanceEncoder(ModelMixin, ConfigMixin):
    """The compression encoder's architecture, with a zero-initialised 1x1 convolution on each feature.

    The encoder's output head is left out: nothing uses it (the release carries it unused).

    Args:
        semantic_backbone: a row of `BACKBONES`, whose features the UNet sees beside the deepest one. None: the paper.
    """

    _supports_gradient_checkpointing = True

    @register_to_config
    def __init__(
        self,
        in_channels: int = 3,
        block_out_channels: tuple[int, ...] = (128, 256, 512, 512),
        layers_per_block: int = 2,
        norm_num_groups: int = 32,
        semantic_backbone: str | None = None,
    ):
        super().__init__()
        self.semantics = None
        if semantic_backbone is not None:
            self.semantics = SemanticFeatures(f"{semantic_backbone}=")  # its weights come with the others
        levels = len(block_out_channels)
        self.encoder = Encoder(
            in_channels=in_channels,
            down_block_types=("DownEncoderBlock2D",) * levels,
            block_out_channels=tuple(block_out_channels),
            layers_per_block=layers_per_block,
            norm_num_groups=norm_num_groups,
        )
        del self.encoder.conv_norm_out, self.encoder.conv_act, self.encoder.conv_out
        widths = [width for width in block_out_channels for _ in range(layers_per_block)]
        widths += [block_out_channels[-1]] * 2  # the middle
        convolutions = [nn.Conv2d(width, width, 1) for width in widths]
        self.zero_convs = nn.ModuleList(convolutions)
        for convolution in convolutions:
            assert convolution.bias is not None
            nn.init.zeros_(convolution.weight)
            nn.init.zeros_(convolution.bias)

    @classmethod
    def from_autoencoder(cls, vae: AutoencoderKL) -> "LuminanceEncoder":
        """A luminance encoder that starts from the compression encoder's weights, zero convolutions at zero."""
        config = vae.config
        model = cls(3, tuple(config.block_out_channels), config.layers_per_block, config.norm_num_groups)
        wanted = model.encoder.state_dict().keys()
        model.encoder.load_state_dict({k: v for k, v in vae.encoder.state_dict().items() if k in wanted})
        return model

    def with_semantics(self, backbone: str) -> "LuminanceEncoder":
        """This encoder with a classifier's features, see `SemanticFeatures`, whose errors it raises."""
        semantics = SemanticFeatures(backbone)
        encoder = rebuilt(self, semantic_backbone=backbone.partition("=")[0])
        encoder.load_state_dict({**semantics.state_dict(prefix="semantics."), **self.state_dict()})
        return encoder.to(self.device, self.dtype).eval()

    def forward(self, hint: Tensor) -> list[Tensor]:
        """Hint (B, 3, H, W) -> luminance features, shallow to deep: (B, C_i, H / 2^i, W / 2^i) each.

        `layers_per_block` of each level, then the two of the middle: 10 for SD's autoencoder. With semantic features
        one more follows, for the UNet alone: the deepest with these behind it.
        """
        features: list[Tensor] = []

        def keep(x: Tensor) -> Tensor:
            features.append(self.zero_convs[len(features)](x))
            return x

        def run(resnet: nn.Module, x: Tensor) -> Tensor:
            if self.encoder.gradient_checkpointing and torch.is_grad_enabled():
                return self.encoder._gradient_checkpointing_func(resnet, x, None)
            return resnet(x, None)

        x = self.encoder.conv_in(hint)
        for block in self.encoder.down_blocks:
            for resnet in block.resnets:
                x = keep(run(resnet, x))
            for downsampler in block.downsamplers or ():
                x = downsampler(x)
        middle = self.encoder.mid_block
        x = keep(run(middle.resnets[0], x))
        keep(run(middle.resnets[1], middle.attentions[0](x)))
        if self.semantics is not None:
            height, width = features[-1].shape[-2:]
            features.append(torch.cat([features[-1], self.semantics(hint, (height, width))], 1))
        return features
