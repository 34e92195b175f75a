"""From a config or a checkpoint folder to modules: the one place where sizes meet classes."""

from dataclasses import replace
from pathlib import Path

import torch
from diffusers import AutoencoderKL
from transformers import CLIPTextModel

from lcad.color import HINT_SCALES
from lcad.config import AutoencoderConfig, ModelConfig, TextConfig
from lcad.extended_conv import ExtendedUNet
from lcad.luminance_encoder import LuminanceEncoder
from lcad.pipeline import LCADPipeline
from ldm.autoencoder import build_autoencoder, latent_stride
from ldm.checkpoint import load_state_dict
from ldm.schedulers import build_scheduler
from ldm.text_encoder import build_text_encoder, build_tokenizer, start_token_embeddings
from ldm.unet import unet_config

TOKEN_VECTORS = "token_vectors"  # the tensor's name in a file of model.text.token_vectors: (49408, V)


def build_pipeline(model: ModelConfig, seed: int = 0) -> LCADPipeline:
    """A pipeline with random weights in the architecture of `model`; additions at zero.

    Raises:
        ValueError: sizes that do not fit together. CheckpointError: `model.text.token_vectors` cannot be read.
    """
    if model.hint_scale not in HINT_SCALES:
        raise ValueError(f"model.hint_scale: got {model.hint_scale!r}; allowed: {', '.join(HINT_SCALES)}")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        parts = model.autoencoder
        vae = build_autoencoder(
            parts.block_out_channels,
            parts.layers_per_block,
            parts.latent_channels,
            parts.norm_num_groups,
            parts.scaling_factor,
            model.image_size,
        )
        return LCADPipeline(
            vae=vae,
            unet=_build_unet(model, vae),
            luminance_encoder=LuminanceEncoder.from_autoencoder(vae),
            text_encoder=_build_text_encoder(model.text, seed),
            tokenizer=build_tokenizer(),
            scheduler=build_scheduler("ddim"),
            hint_scale=model.hint_scale,
            image_size=model.image_size,
        )


def _build_text_encoder(text: TextConfig, seed: int) -> CLIPTextModel:
    encoder = build_text_encoder(text.hidden_size, text.layers, text.heads, text.intermediate_size)
    if text.token_vectors is not None:
        tensors = load_state_dict(text.token_vectors)
        if TOKEN_VECTORS not in tensors:
            raise ValueError(f"model.text.token_vectors: {text.token_vectors}: holds no tensor {TOKEN_VECTORS}")
        start_token_embeddings(encoder, tensors[TOKEN_VECTORS], seed)
    return encoder


def _build_unet(model: ModelConfig, vae: AutoencoderKL) -> ExtendedUNet:
    sizes = model.unet
    base = unet_config(
        sizes.block_out_channels,
        sizes.attention_levels,
        sizes.layers_per_block,
        sizes.attention_heads,
        model.text.hidden_size,
        sizes.norm_num_groups,
        model.autoencoder.latent_channels,
        model.image_size // latent_stride(vae),
    )
    return ExtendedUNet(**base, luminance_channels=model.autoencoder.block_out_channels[-1], sites=sizes.sites)


def start_pipeline(
    init: str | None, model: ModelConfig, seed: int = 0, init_parts: dict[str, str] | None = None
) -> LCADPipeline:
    """What a training stage starts from: the checkpoint folder `init`, or random weights as `model` says.

    Args:
        init_parts: without `init`: parts that are taken from a checkpoint folder, and their sizes with them.

    Raises:
        FileNotFoundError, ValueError: `init`, or a folder of `init_parts`, is not a checkpoint folder.
    """
    if init is not None:
        return _load(init, "init")
    kept = {part: _load(folder, f"init_parts.{part}") for part, folder in (init_parts or {}).items()}
    if foreign := kept.keys() - {"vae", "luminance_encoder"}:
        raise ValueError(f"init_parts: got {', '.join(sorted(foreign))}; allowed: vae, luminance_encoder")
    if "vae" in kept:
        config = kept["vae"].vae.config
        sizes = {name: config[name] for name in ("layers_per_block", "latent_channels", "norm_num_groups")}
        sizes |= {"block_out_channels": list(config.block_out_channels), "scaling_factor": config.scaling_factor}
        model = replace(model, autoencoder=AutoencoderConfig(**sizes), hint_scale=kept["vae"].config.hint_scale)
    pipeline = build_pipeline(model, seed)
    for part, source in kept.items():
        getattr(pipeline, part).load_state_dict(getattr(source, part).state_dict())
    return pipeline


def _load(folder: str, key: str) -> LCADPipeline:
    if not Path(folder).is_dir():
        raise FileNotFoundError(
            f"{key}: {folder}: no such checkpoint folder; train or convert one first, see checkpoints/README.md"
        )
    return LCADPipeline.from_pretrained(folder)
