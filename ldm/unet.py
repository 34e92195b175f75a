"""The noise prediction network: diffusers' UNet2DConditionModel in Stable Diffusion 1.x's layout."""


def unet_config(
    block_out_channels: list[int],
    attention_levels: list[bool],
    layers_per_block: int = 2,
    attention_heads: int = 8,
    cross_attention_dim: int = 768,
    norm_num_groups: int = 32,
    latent_channels: int = 4,
    sample_size: int = 32,
) -> dict:
    """Constructor arguments of UNet2DConditionModel.

    SD 1.x is ([320, 640, 1280, 1280], [True, True, True, False], 2, 8, 768, 32, 4, 32).

    Args:
        attention_levels: one flag a level, shallow to deep: does it have cross-attention?
    """
    down = ["CrossAttnDownBlock2D" if flag else "DownBlock2D" for flag in attention_levels]
    up = ["CrossAttnUpBlock2D" if flag else "UpBlock2D" for flag in reversed(attention_levels)]
    return dict(
        sample_size=sample_size,
        in_channels=latent_channels,
        out_channels=latent_channels,
        down_block_types=tuple(down),
        up_block_types=tuple(up),
        block_out_channels=tuple(block_out_channels),
        layers_per_block=layers_per_block,
        # diffusers reads `attention_head_dim` as the number of heads for this model (its issue 2011)
        attention_head_dim=attention_heads,
        cross_attention_dim=cross_attention_dim,
        norm_num_groups=norm_num_groups,
    )
