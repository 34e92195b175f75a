"""Other people's weights -> a pipeline of this project.

Three sources: a Stable Diffusion 1.5 folder in diffusers' layout, a single file in CompVis' layout, and the
published L-CAD checkpoint (CompVis' layout with the luminance encoder as `first_stage_model.g_encoder` and a
first convolution of 4 + L input channels). Every key is used or named in `DROPPED`; anything else is an error.
"""

import json
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lcad.color import HINT_SCALES
from lcad.config import LatentConfig, ModelConfig, UNetConfig
from lcad.models.channel_extended_unet import ExtendedUNet
from lcad.models.luminance_encoder import LuminanceEncoder
from lcad.pipeline import LCADPipeline
from ldm.autoencoder import build_autoencoder
from ldm.checkpoint import CheckpointError, build_with_weights, listing, load_state_dict
from ldm.conversion import compvis
from ldm.schedulers import build_scheduler
from ldm.text_encoder import build_text_encoder, build_tokenizer
from ldm.unet import unet_config

LUMINANCE_PREFIX = "first_stage_model.g_encoder."
EXTENSION = "conv_in.extension.weight"

# keys of the file (whole, as a pattern) that no part uses -> why
DROPPED = {
    r"betas|alphas_cumprod(_prev)?|(sqrt|sqrt_one_minus|log_one_minus|sqrt_recip|sqrt_recipm1)_alphas_cumprod"
    r"|posterior_(variance|log_variance_clipped|mean_coef1|mean_coef2)|logvar|lvlb_weights": (
        "noise schedule, which the scheduler computes"
    ),
    r"model_ema\..+": "averaged copy of the UNet; its plain weights are used (an 'emaonly' file has the average there)",
    r"(.+\.)?position_ids": "0, 1, 2, ..., which the text encoder counts itself",
    r"first_stage_model\.g_encoder\.(norm_out|conv_out)\..+": "unused output head of the luminance encoder",
}

# names of weight files in a folder, best first
FOLDER_FILES = (
    "diffusion_pytorch_model.safetensors",
    "model.safetensors",
    "diffusion_pytorch_model.fp16.safetensors",
    "model.fp16.safetensors",
    "diffusion_pytorch_model.bin",
    "pytorch_model.bin",
)

# where diffusers' first releases called the autoencoder's attention layers otherwise
OLD_ATTENTION = {".query.": ".to_q.", ".key.": ".to_k.", ".value.": ".to_v.", ".proj_attn.": ".to_out.0."}


@dataclass(frozen=True)
class Part:
    """The weights of one model under its own names, the names in the file, and its builder's arguments."""

    tensors: dict[str, Tensor]
    names: dict[str, str]
    config: dict


@dataclass(frozen=True)
class Source:
    """What a file or folder holds; `luminance_encoder` is None for plain Stable Diffusion."""

    kind: str
    unet: Part
    vae: Part
    text_encoder: Part
    luminance_encoder: Part | None
    dropped: dict[str, list[str]]  # reason -> keys of the file


@dataclass(frozen=True)
class Conversion:
    """A pipeline and the account of where its weights come from."""

    pipeline: LCADPipeline
    kind: str  # of the source
    used: dict[str, int]  # part -> keys of the source
    dropped: dict[str, list[str]]  # reason -> keys of the source
    untrained: list[str]  # what the source has no weights for

    def summary(self) -> str:
        """Used, dropped and initialised weights, a line each."""
        lines = [f"source: {self.kind}"]
        for name, count in self.used.items():
            parameters = sum(p.numel() for p in getattr(self.pipeline, name).parameters())
            lines.append(f"{name}: {parameters:,} parameters, {count} keys used")
        for reason, keys in self.dropped.items():
            lines.append(f"dropped: {len(keys)} keys ({reason}): {listing(keys, 3)}")
        lines += [f"initialised, has to be trained: {what}" for what in self.untrained]
        lines.append(f"hint scale: {self.pipeline.config.hint_scale}")
        return "\n".join(lines)


def convert(
    source: str | Path,
    text_heads: int | None = None,
    hint_scale: str | None = None,
    sites: str = UNetConfig.sites,
    image_size: int = ModelConfig.image_size,
    dtype: torch.dtype = torch.float32,
) -> Conversion:
    """Build a pipeline from weights made elsewhere.

    Where types agree the pipeline takes over the file's tensors without a copy: keep the file while it lives.

    Args:
        source: a Stable Diffusion 1.5 folder of diffusers, or a single file of Stable Diffusion 1.x or L-CAD.
        text_heads: attention heads of a single file's text encoder; None: one for each 64 channels, as in CLIP.
        hint_scale: a row of `lcad.color.HINT_SCALES`; None: what the weights were trained with, "unit" if none were.
        sites: a row of `lcad.models.channel_extended_unet.SITES`.
        image_size: side in pixels of the photos the pipeline works on.

    Raises:
        CheckpointError: unreadable files; missing, left over or wrongly shaped weights, listed.
        ValueError: arguments that do not fit.
    """
    path = Path(source)
    if hint_scale is not None and hint_scale not in HINT_SCALES:
        raise ValueError(f"unknown hint scale {hint_scale!r}; allowed: {', '.join(HINT_SCALES)}")
    weights = _read_folder(path, text_heads) if path.is_dir() else _read_file(path, text_heads)
    vae = _build(partial(build_autoencoder, sample_size=image_size), weights.vae, dtype)
    untrained = []
    if weights.luminance_encoder is None:
        luminance_encoder = LuminanceEncoder.from_autoencoder(vae).to(dtype).eval()
        untrained.append("luminance_encoder (a copy of the autoencoder's encoder, zero convolutions at zero)")
    else:
        luminance_encoder = _build(LuminanceEncoder, weights.luminance_encoder, dtype)

    luminance_channels = luminance_encoder.config.block_out_channels[-1]
    build_unet = partial(_build_unet, luminance_channels=luminance_channels, sites=sites)
    unet = _build(build_unet, weights.unet, dtype, zeros=".extension.weight")
    zero_sites = [site for site in unet.site_names if f"{site}.extension.weight" not in weights.unet.tensors]
    if zero_sites:
        untrained.append(f"unet extensions (at zero): {listing(zero_sites, 3)}")

    pipeline = LCADPipeline(
        vae=vae,
        unet=unet,
        luminance_encoder=luminance_encoder,
        text_encoder=_build(build_text_encoder, weights.text_encoder, dtype),
        tokenizer=build_tokenizer(),
        scheduler=build_scheduler(LatentConfig.scheduler),
        num_inference_steps=LatentConfig.num_inference_steps,
        hint_scale=hint_scale or ("unit" if weights.luminance_encoder is None else "release"),
        image_size=image_size,
    )
    parts = {name: getattr(weights, name) for name in ("vae", "luminance_encoder", "unet", "text_encoder")}
    used = {name: len(set(part.names.values())) if part else 0 for name, part in parts.items()}
    return Conversion(pipeline, weights.kind, used, weights.dropped, untrained)


def _build(build: Callable[..., nn.Module], part: Part, dtype: torch.dtype, zeros: str | None = None) -> Any:
    tensors = {key: tensor.to(dtype).contiguous() for key, tensor in part.tensors.items()}
    return build_with_weights(partial(build, **part.config), tensors, part.names, zeros)


def _build_unet(luminance_channels: int, sites: str, **config: Any) -> ExtendedUNet:
    return ExtendedUNet(**unet_config(**config), luminance_channels=luminance_channels, sites=sites)


def _read_file(path: Path, text_heads: int | None) -> Source:
    """A CompVis single file, with or without L-CAD's luminance encoder."""
    state = load_state_dict(path)
    dropped = _dropped(state)
    dropped_keys = {key for group in dropped.values() for key in group}
    keys = [key for key in state if key not in dropped_keys]

    vae_names = compvis.vae_names(keys)
    luminance_names = _luminance_names(keys)
    unet_names = compvis.unet_names(keys)
    text_names = compvis.text_names(keys)
    used = {key for names in (vae_names, luminance_names, unet_names, text_names) for key in names.values()}
    left_over = [key for key in keys if key not in used]
    if left_over:
        raise CheckpointError(f"{path}: keys that neither Stable Diffusion 1.x nor L-CAD has: {listing(left_over)}")

    vae = {new: compvis.vae_tensor(new, state[old]) for new, old in vae_names.items()}
    unet = {new: state[old] for new, old in unet_names.items()}
    text = {new: state[old] for new, old in text_names.items()}
    luminance_encoder = None
    if luminance_names:
        luminance = {new: compvis.vae_tensor(new, state[old]) for new, old in luminance_names.items()}
        luminance_encoder = Part(luminance, luminance_names, compvis.infer_encoder_config(luminance))
        _split_first_convolution(unet, luminance_encoder.config["block_out_channels"][-1])
        unet_names[EXTENSION] = unet_names["conv_in.weight"]
    return Source(
        kind="published L-CAD checkpoint" if luminance_names else "Stable Diffusion 1.x single file",
        unet=Part(unet, unet_names, compvis.infer_unet_config(unet)),
        vae=Part(vae, vae_names, compvis.infer_vae_config(vae)),
        text_encoder=Part(text, text_names, compvis.infer_text_config(text, text_heads)),
        luminance_encoder=luminance_encoder,
        dropped=dropped,
    )


def _split_first_convolution(unet: dict[str, Tensor], luminance_channels: int) -> None:
    """Take the extension (Eq. 5) out of the first convolution's weight (C, 4 + L, 3, 3), in place."""
    latent_channels = compvis.size(unet, "conv_out.weight", 0)
    channels = compvis.size(unet, "conv_in.weight", 1)
    if channels != latent_channels + luminance_channels:
        raise CheckpointError(
            f"the first convolution of the UNet takes {channels} channels; "
            f"that of L-CAD takes {latent_channels} + {luminance_channels} of its deepest luminance feature"
        )
    unet[EXTENSION] = unet["conv_in.weight"][:, latent_channels:]
    unet["conv_in.weight"] = unet["conv_in.weight"][:, :latent_channels]


def _dropped(keys: Iterable[str]) -> dict[str, list[str]]:
    keys = list(keys)
    groups = {reason: [key for key in keys if re.fullmatch(pattern, key)] for pattern, reason in DROPPED.items()}
    return {reason: group for reason, group in groups.items() if group}


def _luminance_names(keys: Iterable[str]) -> dict[str, str]:
    """LuminanceEncoder key -> key in the file: the autoencoder's names, and the zero convolutions in one list."""
    keys = list(keys)
    levels = compvis.count(keys, rf"{re.escape(LUMINANCE_PREFIX)}down\.(\d+)\.")
    layers = compvis.count(keys, rf"{re.escape(LUMINANCE_PREFIX)}down\.0\.block\.(\d+)\.")

    def rule(key: str) -> str | None:
        match = re.fullmatch(r"down\.(\d+)\.zero_conv\.(\d+)\.(weight|bias)", key)
        if match:
            return f"zero_convs.{int(match[1]) * layers + int(match[2])}.{match[3]}"
        match = re.fullmatch(r"zero_conv_mid([12])\.(weight|bias)", key)
        if match:
            return f"zero_convs.{levels * layers + int(match[1]) - 1}.{match[2]}"
        return compvis.vae_key(f"encoder.{key}", levels)

    return compvis.rename(keys, LUMINANCE_PREFIX, rule)


def _read_folder(path: Path, text_heads: int | None) -> Source:
    """A Stable Diffusion 1.5 folder in diffusers' layout: unet/, vae/ and text_encoder/ are read."""
    if (path / "luminance_encoder").is_dir():
        raise CheckpointError(f"{path}: is a checkpoint of this project already; load it as it is")
    if text_heads is not None:
        raise ValueError(f"{path}: a folder says how many text heads it has; leave them out")
    prediction = _read_json(path / "scheduler" / "scheduler_config.json").get("prediction_type", "epsilon")
    if prediction != "epsilon":
        raise CheckpointError(f"{path}: trained to predict {prediction!r}; allowed: 'epsilon' (Stable Diffusion 1.x)")

    unet, unet_names, unet_dropped = _read_part(path / "unet")
    vae, vae_names, vae_dropped = _read_part(path / "vae")
    text, text_names, text_dropped = _read_part(path / "text_encoder")
    # what shapes do not tell
    unet_json, vae_json, text_json = (
        _read_json(path / part / "config.json") for part in ("unet", "vae", "text_encoder")
    )
    unet_sizes = {"attention_heads": unet_json.get("attention_head_dim", 8)}
    unet_sizes["norm_num_groups"] = unet_json.get("norm_num_groups", 32)
    vae_sizes = {"norm_num_groups": vae_json.get("norm_num_groups", 32)}
    vae_sizes["scaling_factor"] = vae_json.get("scaling_factor", 0.18215)
    return Source(
        kind="Stable Diffusion 1.5 folder",
        unet=Part(unet, unet_names, compvis.infer_unet_config(unet) | unet_sizes),
        vae=Part(vae, vae_names, compvis.infer_vae_config(vae) | vae_sizes),
        text_encoder=Part(text, text_names, compvis.infer_text_config(text, text_json.get("num_attention_heads"))),
        luminance_encoder=None,
        dropped=_dropped([*unet_dropped, *vae_dropped, *text_dropped]),
    )


def _read_part(folder: Path) -> tuple[dict[str, Tensor], dict[str, str], list[str]]:
    """The tensors of one model under the installed libraries' names, the names in the file, and dropped keys."""
    found = [folder / name for name in FOLDER_FILES if (folder / name).is_file()]
    if not found:
        raise CheckpointError(f"{folder}: no weights; one of these has to be there: {', '.join(FOLDER_FILES)}")
    state = load_state_dict(found[0])
    dropped = [key for group in _dropped(state).values() for key in group]
    names = compvis.rename([key for key in state if key not in dropped], "", _current_name)
    left_over = set(state) - set(dropped) - set(names.values())
    if left_over:
        raise CheckpointError(f"{found[0]}: two keys for one weight: {listing(sorted(left_over))}")
    return {new: state[old] for new, old in names.items()}, names, dropped


def _current_name(key: str) -> str:
    for old, new in OLD_ATTENTION.items():
        key = key.replace(old, new)
    return key.removeprefix("text_model.")


def _read_json(path: Path) -> dict:
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise CheckpointError(f"{path}: cannot be read ({error}); a Stable Diffusion 1.5 folder has it") from error
