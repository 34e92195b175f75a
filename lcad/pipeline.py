"""`LCADPipeline`: a photo and a sentence in, the photo in colour out.

Shapes: B photos, H x W a photo's own size, h x w the size the model works at.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL, SchedulerMixin
from PIL import Image
from torch import Tensor
from transformers import CLIPTextModel, CLIPTokenizer

from lcad.color import luminance_to_hint
from lcad.config import LatentConfig, ModelConfig
from lcad.defaults import PAPER_STEPS
from lcad.denoiser import Conditions, build_denoiser, starting_latents
from lcad.instance_sampling import Refinement
from lcad.io.prepared_photo import PreparedPhoto, luminance_features, text_embeddings
from lcad.masks.types import InstanceMasks, at_model_size
from lcad.models.channel_extended_unet import ExtendedUNet
from lcad.models.guided_decoder import decode_pictures
from lcad.models.lcm_lora import LoraWeights, read_lora, write_lora
from lcad.models.loading import download, load_parts, read_index, read_settings
from lcad.models.localizer import LocalizerWeights, read_localizer, write_localizer
from lcad.models.luminance_encoder import LuminanceEncoder
from lcad.models.variants import Variants
from lcad.pipeline_inputs import (
    CALLBACK_TENSORS,
    LCADPipelineOutput,
    check_inputs,
    common_sizes,
    in_form,
    instance_masks,
    one_each,
    step_callback,
)
from lcad.recoloring.looks import apply_look
from lcad.upsampling import finish_photos, resize
from ldm.autoencoder import latent_stride
from ldm.cuda_graphs import GraphCache
from ldm.sampling import sample, steps_taken
from ldm.text_encoder import encode_captions

LATER_STRENGTH = 0.5  # of the steps, at later sizes: they begin from the smaller result under that much noise
LONGEST_ASPECT = 8  # of photos that the model works on at its own area; longer ones keep the long side of this aspect

Photo = Image.Image | Tensor | PreparedPhoto
Masks = Tensor | np.ndarray | InstanceMasks | None
Size = tuple[int, int]


class LCADPipeline(Variants):
    """Language-based colorization (L-CAD) in diffusers' manner.

    Args:
        hint_scale: a row of `lcad.color.HINT_SCALES`; must be the one the weights were trained with.
        image_size: photos are brought to about image_size^2 pixels for the model, in their own aspect ratio.
        guidance_scale: of classifier-free guidance where a call names none; small models want less.
        num_inference_steps: where a call names none; what `scheduler` needs.
        antithetic_noise: begin from x_T and again from -x_T, and take the mean: a model of Stable Diffusion's schedule,
            which leaves a little signal at its last time step, takes the low frequencies of pure noise for the photo's
            (Lin et al. 2023), and so each seed tints large areas; from their mean the tints are gone. The paper: no.
        second_pass_size: a greater image_size, at which the result of a photo that has so many pixels is worked out
            again, as a whole; 0 is the paper's: it is not.
        unmasked_saturation: factor of the chroma of results without instance masks; 1 is the paper's.
        localizer: weights that find objects, see `with_localizer`.
        lcm_lora: weights for a few steps, see `with_lcm_lora`.

    Attributes:
        num_timesteps: steps of the call in progress, of all sizes together.
    """

    _guidance_scale: float = 1.0  # of the call in progress; diffusers would write a plain attribute into the config
    num_timesteps: int = 0

    model_cpu_offload_seq = "text_encoder->luminance_encoder->unet->vae"
    _callback_tensor_inputs = list(CALLBACK_TENSORS)

    def __init__(
        self,
        vae: AutoencoderKL,
        unet: ExtendedUNet,
        luminance_encoder: LuminanceEncoder,
        text_encoder: CLIPTextModel,
        tokenizer: CLIPTokenizer,
        scheduler: SchedulerMixin,
        hint_scale: str = ModelConfig.hint_scale,
        image_size: int = ModelConfig.image_size,
        guidance_scale: float = LatentConfig.guidance_scale,
        num_inference_steps: int = PAPER_STEPS,
        antithetic_noise: bool = LatentConfig.antithetic_noise,
        second_pass_size: int = LatentConfig.second_pass_size,
        unmasked_saturation: float = LatentConfig.unmasked_saturation,
        localizer: LocalizerWeights | None = None,
        lcm_lora: LoraWeights | None = None,
    ):
        super().__init__()
        self.localizer, self.lcm_lora = localizer, lcm_lora
        self._graphs = GraphCache(asked=False)
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
            antithetic_noise=antithetic_noise,
            second_pass_size=second_pass_size,
            unmasked_saturation=unmasked_saturation,
        )

    @classmethod
    def from_pretrained(
        cls,
        source: str | Path,
        torch_dtype: torch.dtype | dict[str, torch.dtype] = torch.float32,
        variant: str | None = None,
        device_map: str | torch.device | None = None,
        **hub_options,
    ) -> "LCADPipeline":
        """Load a checkpoint folder, or a hub id; only safetensors and JSON are read.

        Args:
            torch_dtype: of all parts, or of each by its name, with `default` for the others.
            variant: of the weights' file names, such as fp16.
            device_map: a device for all parts.
            hub_options: `revision`, `token`, `cache_dir`, `local_files_only`, as huggingface_hub's own.

        Raises:
            CheckpointError: no such folder, a checkpoint of another architecture, or keys that do not fit.
        """
        folder = Path(source)
        if not folder.is_dir():
            folder = download(str(source), **hub_options)
        index = read_index(folder, cls.__name__, cls.settings[:2])
        parts = load_parts(folder, torch_dtype, variant)
        settings = read_settings(folder, index, cls.settings)
        beside = {"localizer": read_localizer(folder, parts), "lcm_lora": read_lora(folder, parts["unet"])}
        pipeline = cls(**parts, **settings, **beside)
        pipeline.source = folder
        return pipeline if device_map is None else pipeline.to(device_map)

    def save_pretrained(self, save_directory: str | Path, **options) -> None:
        """As diffusers' own, with the localizer's weights and the LCM-LoRA if there are some."""
        super().save_pretrained(save_directory, **options)
        if self.localizer is not None:
            write_localizer(Path(save_directory), self.localizer, self.unet.dtype)
        if self.lcm_lora is not None:
            write_lora(Path(save_directory), self.lcm_lora, self.unet.dtype)

    def model_size(self, height: int, width: int, long_side: int | None = None, area_side: float | None = None) -> Size:
        """The size (h, w) the model works at, in the photo's aspect and whole strides.

        Args:
            long_side: of that size; None: about area_side^2 pixels, fewer beyond `LONGEST_ASPECT`.
            area_side: None: image_size.
        """
        stride, area_side = latent_stride(self.vae), area_side or self.config.image_size
        own = min(area_side / (height * width) ** 0.5, area_side * LONGEST_ASPECT**0.5 / max(height, width))
        scale = long_side / max(height, width) if long_side else own
        return tuple(max(2, round(side * scale / stride)) * stride for side in (height, width))

    def model_sizes(
        self, height: int, width: int, long_side: int | None = None, tiled_side: int | None = None
    ) -> tuple[Size, ...]:
        """`model_size`, the second pass's if the model has one, of no more pixels than the photo has, and that of the
        tiles together if they are asked for; each only if it is larger than the one before."""
        sizes = [self.model_size(height, width, long_side)]
        again = min(self.config.second_pass_size, (height * width) ** 0.5)
        later = [self.model_size(height, width, area_side=again)] if again else []
        later += [self.model_size(height, width, tiled_side)] if tiled_side else []
        for size in later:
            sizes += [size] if max(size) > max(sizes[-1]) else []
        return tuple(sizes)

    @property
    def guidance_scale(self) -> float:
        """Of the call in progress; a callback may change `_guidance_scale`, as in diffusers' own pipelines."""
        return self._guidance_scale

    @torch.no_grad()
    def __call__(
        self,
        image: Photo | list[Photo],
        caption: str | list[str] | None = None,
        masks: Masks | list[Masks] | str = None,
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
        *,
        prompt: str | list[str] | None = None,
        negative_prompt: str = "",
        num_images_per_prompt: int = 1,
        return_dict: bool = True,
        callback_on_step_end: Callable[["LCADPipeline", int, Tensor, dict], dict | None] | None = None,
        callback_on_step_end_tensor_inputs: tuple[str, ...] | list[str] = ("latents",),
        colors: dict | list | None = None,
    ) -> LCADPipelineOutput | tuple[list]:
        """Colorize photos.

        Args:
            image: a photo or a list: PIL, (3, H, W) in [0, 1], its L (1, H, W) in [0, 100], or a `PreparedPhoto`, for
                several calls; only the luminance is used. Photos of one call must come to the same `model_size`.
            caption: one for each photo; None or "": "a colorful image". `prompt` is diffusers' name for it.
            masks: instance masks in photo pixels, {0, 1} or soft, (phrases, H, W) for one photo or a list with
                None for photos without. The i-th mask belongs to the i-th phrase of the comma-separated
                caption; phrases without a mask are left alone. `InstanceMasks` bring their own phrases. "auto": found
                from the words of each caption, see `find_masks`. "none" and None: without.
            num_inference_steps: of the scheduler in `self.scheduler`; None: the model's own.
            guidance_scale: of classifier-free guidance; None: the model's own; 1 switches it off. The
                unconditional half keeps the hint.
            generator: for x_T; a list gives each result its own, so that results do not depend on batching.
            refinement: instance-aware sampling, used where there are masks; None switches it off.
            output_luminance: `input` keeps the photo's own L at full resolution; `decoded` is the network's decode.
            luminance_guidance: decode with the luminance features; False: as the plain autoencoder does (W/o LIC).
            latents: x_T (B, C, h / stride, w / stride) instead of a random one.
            output_type: `pil`; `pt`, (3, H, W) in [0, 1]; `np`, (H, W, 3) float in [0, 1], as one array where all are
                of one size; `latent`, (B, C, h / stride, w / stride), scaled; or `decoded`: the decoded pictures
                (3, h, w) at the model's size, for `lcad.upsampling.transfer_chroma_strips`, also to a large photo.
            long_side: see `model_size`; the model has learnt at about its image_size and finds less far from it.
            tiled_side: a greater long side, at which the result is then worked out in overlapping tiles of the size
                before, see `lcad.tiling`. All tiles begin from the colours found at that size.
            negative_prompt: what the unconditional half reads.
            num_images_per_prompt: results of each photo, one after the other.
            return_dict: False gives a tuple in place of `LCADPipelineOutput`.
            callback_on_step_end: called after each step as (pipeline, step, t, tensors); latents that it returns are
                gone on with. An exception that it raises ends the call.
            callback_on_step_end_tensor_inputs: of its tensors: `latents`, and `denoised`, what the step makes of them.
            colors: exact colours of objects, {"coat": "#8b1a1a"} or a list of `ColorTarget`, for all photos, or a list
                with one such set, or None, for each photo; see docs/exact_colors.md. Not for `decoded` and `latent`.

        Raises:
            ValueError: arguments that do not fit together, or a result that is not finite.
        """
        # 1. Check inputs
        photos = [PreparedPhoto.of(photo) for photo in ([image] if isinstance(image, Photo) else image)]
        captions, copies = one_each(caption if prompt is None else prompt, len(photos)), num_images_per_prompt
        mask_list = list(masks) if isinstance(masks, list) else [masks] * len(photos)
        check_inputs(photos, captions, mask_list, output_luminance, output_type, callback_on_step_end_tensor_inputs)
        sizes = common_sizes({self.model_sizes(photo.height, photo.width, long_side, tiled_side) for photo in photos})
        steps = self.config.num_inference_steps if num_inference_steps is None else num_inference_steps
        self._guidance_scale = self.config.guidance_scale if guidance_scale is None else guidance_scale
        if colors is not None:  # imported where they are used: they segment
            from lcad.recoloring.photo_colors import color_results, targets_of_photos

            targets = targets_of_photos(colors, len(photos), output_type)

        # 2. Luminance, masks and text, once a photo
        instances = [
            self.find_masks([photo], [text])[0] if isinstance(mask, str) and mask == "auto" and refinement is not None
            else instance_masks(mask, text, self.tokenizer, (photo.height, photo.width))
            for mask, text, photo in zip(mask_list, captions, photos, strict=True)
        ]  # fmt: skip
        text = self._encode(photos, captions, negative_prompt, copies)

        # 3. Denoise, at the model's sizes and then in tiles if they are asked for
        z, stride = None, latent_stride(self.vae)
        height, width = self.model_sizes(photos[0].height, photos[0].width, long_side)[-1]
        tile = height // stride, width // stride
        self.scheduler.set_timesteps(steps)
        timesteps = self.scheduler.timesteps
        twice, first, later = self.config.antithetic_noise, len(timesteps), steps_taken(len(timesteps), LATER_STRENGTH)
        self.num_timesteps, done = first * (2 if twice else 1) + later * (len(sizes) - 1), 0
        for number, size in enumerate(sizes):
            features = [part.repeat_interleave(copies, 0) for part in luminance_features(self, photos, size)]
            masks_here = [item and at_model_size(item, size) for item in instances for _ in range(copies)]
            conditions = Conditions(features[-1], text, masks_here, refinement)
            init = None if z is None else resize(z.float(), conditions.luminance.shape[-2:])
            if latents is None or number:
                latents = starting_latents(self, conditions.luminance, generator)
            x_T = latents.to(self._execution_device, torch.float32)
            denoise = build_denoiser(self.unet, conditions, timesteps, lambda: self._guidance_scale, tile, self._graphs)
            strength, ends = (LATER_STRENGTH if number else 1.0), []
            for noise in (x_T, -x_T) if twice and not number else (x_T,):
                call = step_callback(self, callback_on_step_end, callback_on_step_end_tensor_inputs, done)
                ends.append(
                    sample(denoise, noise, self.scheduler, steps, generator, self.progress_bar, init, strength, call)
                )
                done += later if number else first
            z = torch.stack(ends).mean(dim=0)

        # 4. Decode, bring the chroma to the photos' own luminance, and objects to their exact colours
        rows, guides = None, features if luminance_guidance else None
        results = z if output_type == "latent" else self._decode(z, guides, instances, output_type == "decoded")
        if output_type not in ("latent", "decoded"):
            own = [photo for photo in photos for _ in range(copies)]
            results = finish_photos(results, [photo.luminance for photo in own], output_luminance)
            if colors is not None:
                asked = [item for item in zip(captions, instances, targets, strict=True) for _ in range(copies)]
                results, rows = color_results(self, results, own, asked)
        results = in_form(results, output_type)
        self.maybe_free_model_hooks()
        return LCADPipelineOutput(images=results, colors=rows) if return_dict else (results,)

    def _encode(self, photos: list[PreparedPhoto], captions: list[str], negative_prompt: str, copies: int) -> Tensor:
        """Text as in `Conditions`."""
        text = text_embeddings(self, photos, captions).repeat_interleave(copies, 0)
        if self._guidance_scale == 1:
            return text
        unconditional = encode_captions(self.tokenizer, self.text_encoder, [negative_prompt])
        return torch.cat([text, unconditional.expand_as(text)])

    def _decode(self, z: Tensor, guides: list[Tensor] | None, instances: list, to_cpu: bool) -> Tensor:
        """Pictures (B, 3, h, w), those without instance masks in their own saturation."""
        pictures, saturation = decode_pictures(self.vae, z, guides, to_cpu), self.config.unmasked_saturation
        for row, item in enumerate(item for item in instances for _ in range(len(z) // len(instances))):
            if item is None:
                pictures[row] = apply_look(pictures[row], saturation)
        return pictures

    def find_masks(self, photos: list[Photo], captions: list[str]) -> list[InstanceMasks | None]:
        """Masks of the objects that captions name with a colour or a place: regions of the luminance, each given to the
        phrase whose word attends to it (docs/masks.md). None for a photo without any.

        Args:
            photos: as in a call.
        """
        from lcad.masks.from_text import masks_from_captions  # it segments: slow to import, and training does without

        return masks_from_captions(self.with_localizer(), [PreparedPhoto.of(photo) for photo in photos], captions)

    @torch.no_grad()
    def luminance_features(self, luminances: list[Tensor], size: tuple[int, int]) -> list[Tensor]:
        """The luminance encoder's features of photos at the model's size.

        Args:
            luminances: L (1, H, W) in [0, 100] of each photo.
            size: (h, w), see `model_size`.
        """
        resized = torch.cat([resize(luminance[None], size) for luminance in luminances])  # (B, 1, h, w)
        hint = luminance_to_hint(resized, self.config.hint_scale)
        return self.luminance_encoder(hint.to(self._execution_device, self.luminance_encoder.dtype))
