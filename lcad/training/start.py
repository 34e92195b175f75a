"""What training starts from: random weights in a config's architecture, or a checkpoint folder's."""

from dataclasses import replace
from pathlib import Path

from lcad.config import AutoencoderConfig, ModelConfig
from lcad.models.builder import build_parts
from lcad.pipeline import LCADPipeline


def build_pipeline(model: ModelConfig, seed: int = 0) -> LCADPipeline:
    """A pipeline with random weights, see `lcad.models.builder.build_parts`; raises its errors."""
    return LCADPipeline(**build_parts(model, seed))


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
        if backbone := getattr(source, part).config.get("semantic_backbone"):
            add_semantics(pipeline, f"{backbone}=")  # its weights are the part's
        getattr(pipeline, part).load_state_dict(getattr(source, part).state_dict())
    return pipeline


def add_semantics(pipeline: LCADPipeline, backbone: str) -> None:
    """Let the UNet see a classifier's features too, at zero weight until it is trained; one that does stays as it is.

    Raises:
        ValueError, CheckpointError: see `build_backbone`; or a model whose hints are not of the scale `unit`.
    """
    if pipeline.luminance_encoder.semantics is not None:
        return
    if pipeline.config.hint_scale != "unit":
        raise ValueError(f"latent.semantic_backbone: for models with hint_scale unit, not {pipeline.config.hint_scale}")
    encoder = pipeline.luminance_encoder.with_semantics(backbone)
    unet = pipeline.unet.with_settings(semantic_channels=encoder.semantics.channels)
    pipeline.register_modules(luminance_encoder=encoder, unet=unet)


def _load(folder: str, key: str) -> LCADPipeline:
    if not Path(folder).is_dir():
        raise FileNotFoundError(
            f"{key}: {folder}: no such checkpoint folder; train or convert one first, see checkpoints/README.md"
        )
    return LCADPipeline.from_pretrained(folder)
