"""What a colorization is compared with: methods that make a result from the true photo.

Each is a function of (photo (3, S, S) in [0, 1], caption) -> result of the same shape and range.
"""

from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from lcad.color import lab_to_rgb, luminance_to_rgb, rgb_to_hint, rgb_to_lab, rgb_to_luminance
from lcad.defaults import PAPER_STEPS
from lcad.inference.records import files_hash, model_hash
from lcad.io.images import to_image, to_tensor
from lcad.models.guided_decoder import decode_with_luminance
from lcad.pipeline import LCADPipeline
from lcad.upsampling import transfer_chroma
from ldm.autoencoder import encode

Method = Callable[[Tensor, str], Tensor]
STEPS = PAPER_STEPS  # of the models of others, too

BASELINES = {
    "grey": "grey input",
    "mean_chroma": "the photo's true mean chroma everywhere",
    "round_trip": "the true photo through the autoencoder with luminance guidance (the ceiling)",
    "sdedit": "SDEdit: image-to-image with Stable Diffusion, from the grey photo",
    "controlnet": "ControlNet on the grey photo",
}
"""name -> what it is; the first three need no weights of others"""


def build_baseline(
    name: str, model: str | None = None, stable_diffusion: str | None = None, control: str | None = None
) -> Method:
    """A row of `BASELINES`.

    Args:
        model: checkpoint folder of this project, for the round trip.
        stable_diffusion, control: checkpoints in diffusers' layout, for SDEdit and ControlNet.

    Raises:
        ValueError: unknown name, or a checkpoint it needs is not given. OSError: a checkpoint cannot be loaded.
    """
    if name not in BASELINES:
        raise ValueError(f"unknown baseline {name!r}; allowed: {', '.join(BASELINES)}")
    needed = {"round_trip": [model], "sdedit": [stable_diffusion], "controlnet": [stable_diffusion, control]}
    if None in needed.get(name, []):
        raise ValueError(f"baseline {name} ({BASELINES[name]}) needs the path of its checkpoint")
    match name:
        case "grey":
            return grey
        case "mean_chroma":
            return mean_chroma
        case "round_trip":
            pipeline = LCADPipeline.from_pretrained(model)
            return _made_by(round_trip(pipeline), name, model=model_hash(pipeline))
        case "sdedit":
            return _made_by(sdedit(stable_diffusion), name, stable_diffusion=_checkpoint_hash(stable_diffusion))
        case _:
            own = controlnet(stable_diffusion, control)
            weights = {"stable_diffusion": stable_diffusion, "control": control}
            return _made_by(own, name, **{part: _checkpoint_hash(source) for part, source in weights.items()})


def _checkpoint_hash(source: str) -> str:
    """SHA-256 over the configs and weights of a checkpoint of others: a folder, or a hub id as it was downloaded."""
    folder = Path(source)
    if not folder.is_dir():
        from huggingface_hub import snapshot_download

        folder = Path(snapshot_download(source, local_files_only=True))
    return files_hash(folder, folder.rglob("*"), (".json", ".txt", ".safetensors", ".bin"))


def _made_by(method: Method, name: str, **weights: str) -> Method:
    """The method, which says in `settings` by what it makes its results."""
    method.settings = {"name": name} | weights
    return method


def grey(photo: Tensor, caption: str = "") -> Tensor:
    """Luminance alone."""
    return luminance_to_rgb(rgb_to_luminance(photo))


def mean_chroma(photo: Tensor, caption: str = "") -> Tensor:
    """Luminance with the photo's true mean (a, b) everywhere."""
    lab = rgb_to_lab(photo)
    mean = lab[1:].mean(dim=(-2, -1), keepdim=True).expand_as(lab[1:])
    return lab_to_rgb(torch.cat([lab[:1], mean]))


def round_trip(pipeline: LCADPipeline) -> Method:
    """The true photo through encoder and luminance-guided decoder, with the photo's own L."""

    @torch.no_grad()
    def colorize(photo: Tensor, caption: str = "") -> Tensor:
        side = pipeline.model_size(*photo.shape[-2:])
        small = F.interpolate(photo[None], side, mode="bicubic", antialias=True).clamp(0, 1).to(pipeline.device)
        features = pipeline.luminance_encoder(rgb_to_hint(small, pipeline.config.hint_scale))
        decoded = decode_with_luminance(pipeline.vae, encode(pipeline.vae, small * 2 - 1), features)
        return transfer_chroma(rgb_to_luminance(photo[None]), (decoded.cpu() / 2 + 0.5).clamp(0, 1))[0]

    return colorize


def sdedit(model: str | Path, strength: float = 0.5, steps: int = STEPS, seed: int = 0, device: str = "cpu") -> Method:
    """SDEdit (Meng et al. 2022) through diffusers' image-to-image pipeline of a Stable Diffusion checkpoint.

    Raises:
        OSError: no such checkpoint.
    """
    from diffusers import StableDiffusionImg2ImgPipeline

    pipeline = StableDiffusionImg2ImgPipeline.from_pretrained(model, safety_checker=None).to(device)
    return _edit(pipeline, lambda picture: {"image": picture, "strength": strength}, steps, seed)


def controlnet(
    model: str | Path,
    control: str | Path,
    steps: int = STEPS,
    seed: int = 0,
    device: str = "cpu",
) -> Method:
    """ControlNet (Zhang et al. 2023) conditioned on the grey photo, through diffusers.

    Raises:
        OSError: no such checkpoint.
    """
    from diffusers import ControlNetModel, StableDiffusionControlNetPipeline

    network = ControlNetModel.from_pretrained(control)
    pipeline = StableDiffusionControlNetPipeline.from_pretrained(model, controlnet=network, safety_checker=None)
    return _edit(pipeline.to(device), lambda picture: {"image": picture}, steps, seed)


def _edit(pipeline, conditions: Callable[[Image.Image], dict], steps: int, seed: int) -> Method:
    pipeline.set_progress_bar_config(disable=True)

    def colorize(photo: Tensor, caption: str) -> Tensor:
        picture = to_image(grey(photo))
        generator = torch.Generator().manual_seed(seed)
        result = pipeline(caption, **conditions(picture), num_inference_steps=steps, generator=generator).images[0]
        return to_tensor(result.resize(picture.size, Image.Resampling.BICUBIC))

    return colorize
