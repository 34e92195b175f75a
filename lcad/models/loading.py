"""Checkpoint folders read strictly: safetensors and JSON, every key accounted for, nothing executed."""

import json
from dataclasses import fields
from pathlib import Path
from typing import Any

import diffusers
import torch
from diffusers import AutoencoderKL, ModelMixin, SchedulerMixin
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from transformers import CLIPTextModel, CLIPTokenizer

from lcad.config import LatentConfig, ModelConfig
from lcad.models.channel_extended_unet import ExtendedUNet
from lcad.models.luminance_encoder import LuminanceEncoder
from ldm.checkpoint import CheckpointError, check_finite, first_line
from ldm.schedulers import check_prediction, has_zero_snr

MODELS = {
    "vae": AutoencoderKL,
    "unet": ExtendedUNet,
    "luminance_encoder": LuminanceEncoder,
    "text_encoder": CLIPTextModel,
}


def load_parts(folder: Path, torch_dtype: torch.dtype | dict[str, torch.dtype], variant: str | None = None) -> dict:
    """The parts of a checkpoint folder of this project, by their names, see `choose_memory_format`.

    Args:
        torch_dtype: of all parts, or of each by its name, with `default` for the others.
        variant: of the weights' file names, such as fp16.

    Raises:
        CheckpointError: one of them is missing, damaged or of another model.
    """
    dtypes = torch_dtype if isinstance(torch_dtype, dict) else {"default": torch_dtype}
    default = dtypes.get("default", torch.float32)
    parts = {
        name: load_strictly(model, folder / name, dtypes.get(name, default), variant) for name, model in MODELS.items()
    }
    choose_memory_format(parts["vae"], parts["unet"])
    try:
        parts["tokenizer"] = CLIPTokenizer.from_pretrained(folder / "tokenizer", local_files_only=True)
    except (OSError, ValueError, TypeError) as error:
        raise CheckpointError(f"{folder / 'tokenizer'}: cannot be read ({first_line(error)})") from error
    parts["scheduler"] = load_scheduler(folder / "scheduler")
    return parts


def choose_memory_format(*parts: ModelMixin) -> None:
    """Convolutions in float16 and bfloat16 in the format that is faster for these, channels_last; float32 stays as it
    is, and its pixels with it."""
    for part in parts:
        if part.dtype != torch.float32:
            part.to(memory_format=torch.channels_last)


def download(source: str, **options: Any) -> Path:
    """A snapshot of a hub id (`revision`, `token`, `cache_dir`, `local_files_only`: as huggingface_hub's own).

    Raises:
        CheckpointError: no such id, or it is not to be had.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    try:
        patterns = ["*.json", "*.safetensors", "*.txt"]
        return Path(snapshot_download(source, allow_patterns=patterns, **options))
    except (OSError, ValueError, HFValidationError, HfHubHTTPError) as error:
        raise CheckpointError(
            f"{source}: no such checkpoint folder, and not to be had from the hub ({first_line(error)}); "
            "see checkpoints/README.md"
        ) from error


def read_index(folder: Path, class_name: str, settings: tuple[str, ...]) -> dict:
    """`model_index.json` of a checkpoint folder; raises CheckpointError: of another class or without settings."""
    index = read_json(folder / "model_index.json")
    if index.get("_class_name") != class_name:
        raise CheckpointError(
            f"{folder}: a checkpoint of {index.get('_class_name')}, not of {class_name}; "
            "convert it with scripts/convert_checkpoint.py"
        )
    if absent := [name for name in settings if name not in index]:
        raise CheckpointError(f"{folder / 'model_index.json'}: names no {' and no '.join(absent)}; convert it again")
    return index


def read_settings(folder: Path, index: dict, names: tuple[str, ...]) -> dict:
    """Those of the settings that the index has; raises CheckpointError: one that a config could not have either."""
    settings = {name: index[name] for name in names if name in index}
    for section in (ModelConfig, LatentConfig):
        given = {own.name: settings[own.name] for own in fields(section) if own.name in settings}
        try:
            OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(section), given))
        except (OmegaConfBaseException, ValueError) as error:
            name = f"{error.full_key}: " if isinstance(error, OmegaConfBaseException) else ""
            raise CheckpointError(f"{folder / 'model_index.json'}: {name}{first_line(error)}") from error
    return settings


def read_json(path: Path) -> dict:
    """A JSON object; raises CheckpointError."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise CheckpointError(f"{path}: not a checkpoint folder of this project ({first_line(error)})") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{path}: expected a JSON object")
    return content


def load_strictly(model: Any, folder: Path, dtype: torch.dtype, variant: str | None = None) -> Any:
    """`model.from_pretrained` in eval mode, with missing, left-over or misshapen keys as an error that lists them.

    Args:
        variant: of the weights' file names, such as fp16.

    Raises:
        CheckpointError: the folder does not hold the weights of this model.
    """
    if not (folder / "config.json").is_file():
        raise CheckpointError(f"{folder}: no config.json; this is not a complete checkpoint folder")
    dtype_name = "dtype" if model is CLIPTextModel else "torch_dtype"
    try:
        loaded, report = model.from_pretrained(
            folder,
            use_safetensors=True,
            local_files_only=True,
            output_loading_info=True,
            variant=variant,
            **{dtype_name: dtype},
        )
    except Exception as error:  # diffusers and transformers raise many kinds for a damaged or foreign folder
        raise CheckpointError(f"{folder}: does not load as {model.__name__} ({first_line(error)})") from error
    wrong = {
        kind: sorted(map(str, report.get(kind) or ()))
        for kind in ("missing_keys", "unexpected_keys", "mismatched_keys", "error_msgs")
    }
    if any(wrong.values()):
        listed = "; ".join(f"{kind} {len(keys)}: {', '.join(keys[:5])}" for kind, keys in wrong.items() if keys)
        raise CheckpointError(f"{folder}: not the weights of this {model.__name__}: {listed}")
    check_finite(folder, loaded.state_dict())
    return loaded.eval()


def load_scheduler(folder: Path) -> SchedulerMixin:
    """One of diffusers' schedulers, by its saved config; raises CheckpointError."""
    config = read_json(folder / "scheduler_config.json")
    kind: Any = getattr(diffusers, str(config.get("_class_name")), None)
    known = isinstance(kind, type) and issubclass(kind, SchedulerMixin)
    if not known:
        raise CheckpointError(f"{folder}: {config.get('_class_name')!r} is not a scheduler of diffusers")
    scheduler = kind.from_config(config)
    try:
        check_prediction(config.get("prediction_type", "epsilon"), has_zero_snr(scheduler))
    except ValueError as error:
        raise CheckpointError(f"{folder}: {error}") from error
    return scheduler
