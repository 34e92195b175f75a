"""`LCADPipeline`: a photo and a sentence in, the photo in colour out.

Shapes: B photos, H x W a photo's own size, h x w the size the model works at.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import diffusers
import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL, DiffusionPipeline, SchedulerMixin
from diffusers.utils import BaseOutput
from diffusers.utils.torch_utils import randn_tensor
from PIL import Image
from torch import Tensor, nn
from transformers import CLIPTextModel, CLIPTokenizer

from lcad.color import luminance_to_hint, luminance_to_rgb, rgb_to_luminance
from lcad.instance_sampling import LogitTargets, Refinement, during, refined
from lcad.io.images import to_image, to_tensor
from lcad.masks.types import InstanceMasks
from lcad.models.channel_extended_unet import ExtendedUNet
from lcad.models.guided_decoder import guided_decode
from lcad.models.localizer import Grounding, looking, read_grounding, write_grounding
from lcad.models.luminance_encoder import LuminanceEncoder
from lcad.text.captions import SCARCE_CAPTION
from lcad.text.phrases import comma_phrases
from lcad.tiling import tiled, tiles
from lcad.upsampling import recolor, resize
from ldm.autoencoder import latent_stride
from ldm.checkpoint import CheckpointError
from ldm.guidance import Denoiser, guided
from ldm.sampling import sample
from ldm.schedulers import PREDICTIONS
from ldm.text_encoder import encode_captions

TILED_SHARE = 0.5  # of the steps, for tiles: they begin from the smaller result under that much noise
OUTPUT_LUMINANCE = ("input", "decoded")
OUTPUT_TYPES = ("pil", "pt", "np", "decoded")
LONGEST_ASPECT = 8  # of photos that the model works on at its own area; longer ones keep the long side of this aspect


@dataclass
class LCADPipelineOutput(BaseOutput):
    """`images`: PIL images of the photos' own sizes, or arrays or tensors in [0, 1]; see `output_type`.

    `colors`: for each photo the rows of `lcad.recoloring.exact_colors.color_rows`; None if no colours were asked for.
    """

    images: list
    colors: list[list[dict]] | None = None


SETTINGS = ("hint_scale", "image_size", "guidance_scale", "num_inference_steps")  # of a checkpoint's index


class LCADPipeline(DiffusionPipeline):
    """Language-based colorization (L-CAD) in diffusers' manner.

    Args:
        hint_scale: a row of `lcad.color.HINT_SCALES`; must be the one the weights were trained with.
        image_size: photos are brought to about image_size^2 pixels for the model, in their own aspect ratio.
        guidance_scale: of classifier-free guidance where a call names none; small models want less.
        num_inference_steps: where a call names none; what `scheduler` needs.
        grounding: weights for finding objects, see `grounded`.

    Attributes:
        source: the folder that `from_pretrained` has read, also of a hub id; None: made in memory.
    """

    source: Path | None = None

    model_cpu_offload_seq = "text_encoder->luminance_encoder->unet->vae"

    def __init__(
        self,
        vae: AutoencoderKL,
        unet: ExtendedUNet,
        luminance_encoder: LuminanceEncoder,
        text_encoder: CLIPTextModel,
        tokenizer: CLIPTokenizer,
        scheduler: SchedulerMixin,
        hint_scale: str = "unit",
        image_size: int = 256,
        guidance_scale: float = 5.0,
        num_inference_steps: int = 50,
        grounding: Grounding | None = None,
    ):
        super().__init__()
        self.grounding = grounding
        self.register_modules(
            vae=vae,
            unet=unet,
            luminance_encoder=luminance_encoder,
            text_encoder=text_encoder,
            tokenizer=tokenizer,
            scheduler=scheduler,
        )
        self.register_to_config(
            hint_scale=hint_scale,
            image_size=image_size,
            guidance_scale=guidance_scale,
            num_inference_steps=num_inference_steps,
        )

    @classmethod
    def from_pretrained(cls, source: str | Path, torch_dtype: torch.dtype = torch.float32, revision: str | None = None):
        """Load a checkpoint folder, or a hub id; only safetensors and JSON are read.

        Raises:
            CheckpointError: no such folder, a checkpoint of another architecture, or keys that do not fit.
        """
        folder = Path(source)
        if not folder.is_dir():
            folder = _download(str(source), revision)
        index = _read_json(folder / "model_index.json")
        if index.get("_class_name") != cls.__name__:
            raise CheckpointError(
                f"{folder}: a checkpoint of {index.get('_class_name')}, not of {cls.__name__}; "
                "convert it with scripts/convert_checkpoint.py"
            )
        if absent := [name for name in SETTINGS[:2] if name not in index]:
            raise CheckpointError(
                f"{folder / 'model_index.json'}: names no {' and no '.join(absent)}; convert it again"
            )
        models = {"vae": AutoencoderKL, "unet": ExtendedUNet, "luminance_encoder": LuminanceEncoder}
        parts = {name: _load_strictly(model, folder / name, torch_dtype) for name, model in models.items()}
        parts["text_encoder"] = _load_strictly(CLIPTextModel, folder / "text_encoder", torch_dtype)
        try:
            parts["tokenizer"] = CLIPTokenizer.from_pretrained(folder / "tokenizer", local_files_only=True)
        except (OSError, ValueError, TypeError) as error:
            raise CheckpointError(f"{folder / 'tokenizer'}: cannot be read ({_first_line(error)})") from error
        parts["scheduler"] = _load_scheduler(folder / "scheduler")
        parts["grounding"] = read_grounding(folder, parts)
        pipeline = cls(**parts, **{name: index[name] for name in SETTINGS if name in index})
        pipeline.source = folder
        return pipeline

    def save_pretrained(self, save_directory: str | Path, **options) -> None:
        """As diffusers' own, with the weights for finding objects if there are some."""
        super().save_pretrained(save_directory, **options)
        if self.grounding is not None:
            write_grounding(Path(save_directory), self.grounding, self.unet.dtype)

    def grounded(self) -> "LCADPipeline":
        """This pipeline with its weights for finding objects, in copies of their parts; itself if it has none."""
        if self.grounding is None:
            return self
        return self.with_parts(looking(self.components, self.grounding))

    def with_parts(self, parts: dict[str, nn.Module]) -> "LCADPipeline":
        """This pipeline with some other parts, by their names; the rest is shared."""
        settings = {name: self.config[name] for name in SETTINGS}
        return LCADPipeline(**self.components | parts, **settings)

    def model_size(self, height: int, width: int, long_side: int | None = None) -> tuple[int, int]:
        """The size (h, w) the model works at, in the photo's aspect and whole strides.

        Args:
            long_side: of that size; None: about image_size^2 pixels, fewer beyond `LONGEST_ASPECT`.
        """
        stride, area_side = latent_stride(self.vae), self.config.image_size
        own = min(area_side / (height * width) ** 0.5, area_side * LONGEST_ASPECT**0.5 / max(height, width))
        scale = long_side / max(height, width) if long_side else own
        return tuple(max(2, round(side * scale / stride)) * stride for side in (height, width))

    def model_sizes(
        self, height: int, width: int, long_side: int | None = None, tiled_side: int | None = None
    ) -> tuple[tuple[int, int], ...]:
        """`model_size`, and the size of the tiles together if they are asked for and cover more."""
        size = self.model_size(height, width, long_side)
        covered = size if tiled_side is None else self.model_size(height, width, tiled_side)
        return (size, covered) if max(covered) > max(size) else (size,)

    @torch.no_grad()
    def __call__(
        self,
        image: Image.Image | Tensor | list[Image.Image | Tensor],
        caption: str | list[str] | None = None,
        masks: Tensor | np.ndarray | InstanceMasks | list | str | None = None,
        num_inference_steps: int | None = None,
        guidance_scale: float | None = None,
        generator: torch.Generator | list[torch.Generator] | None = None,
        refinement: Refinement | None = Refinement(),
        output_luminance: str = "input",
        luminance_guidance: bool = True,
        latents: Tensor | None = None,
        output_type: str = "pil",
        long_side: int | None = None,
        tiled_side: int | None = None,
        colors: dict | list | None = None,
    ) -> LCADPipelineOutput:
        """Colorize photos.

        Args:
            image: a photo or a list: PIL, (3, H, W) in [0, 1], or its L (1, H, W) in [0, 100]; colours are
                ignored, only the luminance is used. Photos of one call must come to the same `model_size`.
            caption: one for each photo; None or "": "a colorful image".
            masks: instance masks in photo pixels, {0, 1} or soft, (phrases, H, W) for one photo or a list with
                None for photos without. The i-th mask belongs to the i-th phrase of the comma-separated
                caption; phrases without a mask are left alone. `InstanceMasks` bring their own phrases. "auto": found
                from the words of each caption, see `find_masks`.
            num_inference_steps: of the scheduler in `self.scheduler`; None: the model's own.
            guidance_scale: of classifier-free guidance; None: the model's own; 1 switches it off. The
                unconditional half keeps the hint.
            generator: for x_T; a list gives each photo its own, so that results do not depend on batching.
            refinement: instance-aware sampling, used where there are masks; None switches it off.
            output_luminance: `input` keeps the photo's own L at full resolution; `decoded` is the network's decode.
            luminance_guidance: decode with the luminance features; False: as the plain autoencoder does (W/o LIC).
            latents: x_T (B, C, h / stride, w / stride) instead of a random one.
            output_type: `pil`; `pt`, (3, H, W) in [0, 1]; `np`, (H, W, 3) float in [0, 1]; or `decoded`: the decoded
                pictures (3, h, w) at the model's size, whose chroma `lcad.upsampling.recolored_strips` brings to a
                large photo.
            long_side: see `model_size`; the model has learnt at about its image_size and finds less far from it.
            tiled_side: a greater long side, at which the result is then worked out in overlapping tiles of the first
                size, see `lcad.tiling`. All tiles begin from the colours found at the first size.
            colors: exact colours of objects, {"coat": "#8b1a1a"} or a list of `ColorTarget`, for all photos, or a list
                with one such set, or None, for each photo; see docs/exact_colors.md. Not for `decoded`.

        Raises:
            ValueError: arguments that do not fit together, or a result that is not finite.
        """
        photos = [
            photo if isinstance(photo, Tensor) else to_tensor(photo)
            for photo in ([image] if isinstance(image, (Image.Image, Tensor)) else image)
        ]
        captions = [caption] * len(photos) if caption is None or isinstance(caption, str) else list(caption)
        captions = [text or SCARCE_CAPTION for text in captions]
        guidance_scale = self.config.guidance_scale if guidance_scale is None else guidance_scale
        steps = self.config.num_inference_steps if num_inference_steps is None else num_inference_steps
        if isinstance(masks, str) and masks != "auto":
            raise ValueError(f"unknown masks {masks!r}; allowed: arrays, InstanceMasks, 'auto' or None")
        mask_list = list(masks) if isinstance(masks, list) else [masks] * len(photos)
        if not len(photos) == len(captions) == len(mask_list):
            raise ValueError(f"got {len(photos)} photos, {len(captions)} captions and {len(mask_list)} sets of masks")
        if output_luminance not in OUTPUT_LUMINANCE:
            raise ValueError(f"unknown output_luminance {output_luminance!r}; allowed: {', '.join(OUTPUT_LUMINANCE)}")
        if output_type not in OUTPUT_TYPES:
            raise ValueError(f"unknown output_type {output_type!r}; allowed: {', '.join(OUTPUT_TYPES)}")
        sizes = {self.model_sizes(*photo.shape[-2:], long_side, tiled_side) for photo in photos}
        if len(sizes) != 1:
            raise ValueError(f"photos of one call must share a model size, got {sorted(sizes)}; call once for each")
        (sizes,) = sizes
        if colors is not None:  # imported here as in `find_masks`
            from lcad.recoloring.photo_colors import color_results, targets_of_photos

            targets = targets_of_photos(colors, len(photos), output_type)

        device, dtype = self._execution_device, self.unet.dtype
        luminances = [
            photo if len(photo) == 1 else rgb_to_luminance(photo.float().cpu()) for photo in photos
        ]  # (1, H, W) each
        if isinstance(masks, str) and refinement is not None:
            mask_list = self.find_masks(luminances, captions)
        z = None
        for size in sizes:
            features = self.luminance_features(luminances, size)
            if latents is None or z is not None:
                latent_size = (side // latent_stride(self.vae) for side in size)
                shape = (len(photos), self.vae.config.latent_channels, *latent_size)
                latents = randn_tensor(shape, generator=generator, device=_device_of(generator))
            instances = [
                None if refinement is None or mask is None else self._instances(text, mask, own.shape[-2:], size)
                for text, mask, own in zip(captions, mask_list, luminances, strict=True)
            ]
            z = self._sample(
                latents.to(device, torch.float32), features[-1], captions, instances, refinement, steps,
                guidance_scale, generator, z,
            )  # fmt: skip
        guides = features if luminance_guidance else None
        decoded = guided_decode(self.vae, z.to(dtype), guides).float().cpu()  # (B, 3, h, w)
        if not decoded.isfinite().all():
            raise ValueError("the model gave values that are not numbers; try float32 (--dtype float32)")
        decoded = (decoded / 2 + 0.5).clamp(0, 1)
        if output_type == "decoded":
            results = list(decoded)
        elif output_luminance == "decoded":
            results = [
                resize(rgb[None], own.shape[-2:])[0].clamp(0, 1) for rgb, own in zip(decoded, luminances, strict=True)
            ]
        else:
            results = [recolor(own[None], rgb[None])[0] for rgb, own in zip(decoded, luminances, strict=True)]
        rows = None
        if colors is not None:
            results, rows = color_results(self, results, luminances, captions, mask_list, targets)
        self.maybe_free_model_hooks()
        if output_type == "np":
            results = [rgb.movedim(0, -1).numpy() for rgb in results]
        images = [to_image(rgb) for rgb in results] if output_type == "pil" else results
        return LCADPipelineOutput(images=images, colors=rows)

    def find_masks(self, luminances: list[Tensor], captions: list[str]) -> list[InstanceMasks | None]:
        """Masks of the objects that captions name with a colour or a place: regions of the luminance, each given to the
        phrase whose word attends to it (docs/masks.md). None for a photo without any.

        Args:
            luminances: L (1, H, W) in [0, 100] of each photo.
        """
        # here, since they segment: slow to import, and training does without
        from lcad.masks.from_text import finder_of_regions
        from lcad.masks.superpixels import luminance_regions

        find = finder_of_regions(self.grounded(), luminance_regions)
        photos = [to_image(luminance_to_rgb(own)) for own in luminances]
        found = [find(Path(), photo, caption) for photo, caption in zip(photos, captions, strict=True)]
        return [None if item is None or not item.instances.phrases else item.instances for item in found]

    @torch.no_grad()
    def luminance_features(self, luminances: list[Tensor], size: tuple[int, int]) -> list[Tensor]:
        """The luminance encoder's features of photos at the model's size.

        Args:
            luminances: L (1, H, W) in [0, 100] of each photo.
            size: (h, w), see `model_size`.
        """
        resized = torch.cat([resize(luminance[None], size) for luminance in luminances])  # (B, 1, h, w)
        hint = luminance_to_hint(resized, self.config.hint_scale)
        return self.luminance_encoder(hint.to(self._execution_device, self.unet.dtype))

    def _sample(
        self,
        x_T: Tensor,
        luminance: Tensor,
        captions: list[str],
        instances: list[InstanceMasks | None],
        refinement: Refinement | None,
        steps: int,
        guidance_scale: float,
        generator,
        smaller: Tensor | None = None,
    ) -> Tensor:
        """Latents (B, C, h, w) from x_T, or in tiles from latents of a smaller size, which is that of the tiles.

        They and the scheduler's arithmetic are in float32, whatever the weights are in.
        """
        text = encode_captions(self.tokenizer, self.text_encoder, captions)
        if guidance_scale != 1:
            text = torch.cat([text, encode_captions(self.tokenizer, self.text_encoder, [""]).expand_as(text)])
        self.scheduler.set_timesteps(steps)
        size = x_T.shape[-2:]
        places = tiles(size, (smaller if smaller is not None else x_T).shape[-2:])
        denoisers = [
            self._denoiser(
                luminance[..., rows, columns],
                text,
                [None if item is None else item.part(rows, columns, size) for item in instances],
                refinement,
                guidance_scale,
            )
            for rows, columns in places
        ]
        start = None if smaller is None else resize(smaller.float(), size).to(x_T)
        return sample(
            tiled(denoisers, places), x_T, self.scheduler, steps, generator, self.progress_bar, start, TILED_SHARE
        )

    def _denoiser(
        self,
        luminance: Tensor,
        text: Tensor,
        instances: list[InstanceMasks | None],
        refinement: Refinement | None,
        guidance_scale: float,
    ) -> Denoiser:
        """Guided and refined, for the scheduler's time steps; what does not depend on the step is computed once."""
        rows = len(luminance)
        responses = self.unet.luminance_responses(luminance)
        if guidance_scale != 1:
            responses = {site: torch.cat([response, response]) for site, response in responses.items()}

        def predict(x: Tensor, t: Tensor) -> Tensor:
            used = {site: response[: len(x)] for site, response in responses.items()}
            return self.unet(x.to(self.unet.dtype), t, text[: len(x)], used).sample.float()

        denoise = predict
        if any(instances):
            targets = LogitTargets(instances, luminance.shape[-2:], self.unet.config.attention_head_dim)
            inside = refined(predict, self.unet, targets, rows, refinement)
            denoise = during(self.scheduler.timesteps, inside, predict, refinement.start, refinement.end)
        return denoise if guidance_scale == 1 else guided(denoise, guidance_scale)

    def _instances(
        self,
        caption: str,
        masks: Tensor | np.ndarray | InstanceMasks,
        photo: tuple[int, int],
        size: tuple[int, int],
    ) -> InstanceMasks:
        given = masks if isinstance(masks, InstanceMasks) else None
        phrases = comma_phrases(caption, self.tokenizer) if given is None else given.phrases
        masks = torch.as_tensor(np.asarray(masks if given is None else given.masks), dtype=torch.float32)
        if masks.ndim != 3 or len(masks) > len(phrases):
            raise ValueError(
                f"masks of shape {tuple(masks.shape)} for {len(phrases)} phrases in {caption!r}; "
                "expected (phrases, H, W), at most one for each comma-separated phrase"
            )
        if not ((masks >= 0) & (masks <= 1)).all():
            raise ValueError(
                f"masks with values from {masks.min():g} to {masks.max():g} for {caption!r}; allowed: 0 to 1; "
                "divide those in 0..255 by 255"
            )
        height, width = masks.shape[-2:]
        if given is None and abs(height * photo[1] - width * photo[0]) > latent_stride(self.vae) * max(photo):
            raise ValueError(
                f"masks of {width}x{height} pixels for a photo of {photo[1]}x{photo[0]}; "
                "expected (phrases, H, W) of the photo's size, or of its shape"
            )
        if tuple(masks.shape[-2:]) != size:
            masks = F.interpolate(masks[None], size, mode="area")[0]
        used = [i for i, mask in enumerate(masks) if mask.max() > 0]
        return InstanceMasks([phrases[i] for i in used], masks[used])


def _device_of(generator: torch.Generator | list[torch.Generator] | None) -> torch.device:
    """Where noise is drawn: on the CPU unless a generator is elsewhere."""
    first = generator[0] if isinstance(generator, list) and generator else generator
    return first.device if isinstance(first, torch.Generator) else torch.device("cpu")


def _download(source: str, revision: str | None) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    try:
        patterns = ["*.json", "*.safetensors", "*.txt"]
        return Path(snapshot_download(source, revision=revision, allow_patterns=patterns))
    except (OSError, ValueError, HFValidationError, HfHubHTTPError) as error:
        raise CheckpointError(
            f"{source}: no such checkpoint folder, and not to be had from the hub ({_first_line(error)}); "
            "see checkpoints/README.md"
        ) from error


def _read_json(path: Path) -> dict:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise CheckpointError(f"{path}: not a checkpoint folder of this project ({_first_line(error)})") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{path}: expected a JSON object")
    return content


def _load_strictly(model: type, folder: Path, dtype: torch.dtype):
    """`model.from_pretrained`, with missing, left-over or misshapen keys as an error that lists them."""
    if not (folder / "config.json").is_file():
        raise CheckpointError(f"{folder}: no config.json; this is not a complete checkpoint folder")
    dtype_name = "dtype" if model is CLIPTextModel else "torch_dtype"
    try:
        loaded, report = model.from_pretrained(
            folder, use_safetensors=True, local_files_only=True, output_loading_info=True, **{dtype_name: dtype}
        )
    except Exception as error:  # diffusers and transformers raise many kinds for a damaged or foreign folder
        raise CheckpointError(f"{folder}: does not load as {model.__name__} ({_first_line(error)})") from error
    wrong = {
        kind: sorted(map(str, report.get(kind) or ()))
        for kind in ("missing_keys", "unexpected_keys", "mismatched_keys", "error_msgs")
    }
    if any(wrong.values()):
        listed = "; ".join(f"{kind} {len(keys)}: {', '.join(keys[:5])}" for kind, keys in wrong.items() if keys)
        raise CheckpointError(f"{folder}: not the weights of this {model.__name__}: {listed}")
    bad = [name for name, value in loaded.state_dict().items() if not value.sum(dtype=torch.float32).isfinite()]
    if bad:
        raise CheckpointError(f"{folder}: {len(bad)} weights are not finite, such as {bad[0]}; copy or train it again")
    return loaded.eval()


def _load_scheduler(folder: Path) -> SchedulerMixin:
    config = _read_json(folder / "scheduler_config.json")
    kind = getattr(diffusers, str(config.get("_class_name")), None)
    if not (isinstance(kind, type) and issubclass(kind, SchedulerMixin)):
        raise CheckpointError(f"{folder}: {config.get('_class_name')!r} is not a scheduler of diffusers")
    if config.get("prediction_type", "epsilon") not in PREDICTIONS:
        raise CheckpointError(
            f"{folder}: prediction_type {config['prediction_type']!r}; allowed: {', '.join(PREDICTIONS)}"
        )
    return kind.from_config(config)


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
