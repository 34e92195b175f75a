"""From a config or a checkpoint folder to modules: the one place where sizes meet classes."""

from dataclasses import asdict

import torch
from diffusers import AutoencoderKL
from transformers import CLIPTextModel

from lcad.color import HINT_SCALES
from lcad.config import LatentConfig, ModelConfig, TextConfig
from lcad.models.channel_extended_unet import ExtendedUNet
from lcad.models.luminance_encoder import LuminanceEncoder
from ldm.autoencoder import build_autoencoder, latent_stride
from ldm.checkpoint import load_state_dict
from ldm.schedulers import build_scheduler
from ldm.text_encoder import build_text_encoder, build_tokenizer, start_token_embeddings
from ldm.unet import unet_config

TOKEN_VECTORS = "token_vectors"  # the tensor's name in a file of model.text.token_vectors: (49408, V)


def build_parts(model: ModelConfig, seed: int = 0) -> dict:
    """The arguments of LCADPipeline in the architecture of `model`: random weights, additions at zero.

    Raises:
        ValueError: sizes that do not fit together. CheckpointError: `model.text.token_vectors` cannot be read.
    """
    if model.hint_scale not in HINT_SCALES:
        raise ValueError(f"model.hint_scale: got {model.hint_scale!r}; allowed: {', '.join(HINT_SCALES)}")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        vae = build_autoencoder(**asdict(model.autoencoder), sample_size=model.image_size)
        return dict(
            vae=vae,
            unet=_build_unet(model, vae),
            luminance_encoder=LuminanceEncoder.from_autoencoder(vae),
            text_encoder=_build_text_encoder(model.text, seed),
            tokenizer=build_tokenizer(),
            scheduler=build_scheduler(LatentConfig.scheduler),
            num_inference_steps=LatentConfig.num_inference_steps,
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
    sizes, parts = asdict(model.unet), model.autoencoder
    sites = sizes.pop("sites")
    sizes |= {"latent_channels": parts.latent_channels, "sample_size": model.image_size // latent_stride(vae)}
    base = unet_config(**sizes, cross_attention_dim=model.text.hidden_size)
    return ExtendedUNet(**base, luminance_channels=parts.block_out_channels[-1], sites=sites)
