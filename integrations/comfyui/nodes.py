"""The nodes: a thin skin over the library, whose results theirs are.

ComfyUI's conventions: IMAGE (B, H, W, C) and MASK (B, H, W), float32 on the CPU in [0, 1]; C is 3, or 4 with alpha,
which is left out. LCAD_MODEL is an `lcad.LCADPipeline`; LCAD_MASKS is a list, for each photo of the batch its
`lcad.masks.types.InstanceMasks` or None.
"""

from pathlib import Path

import torch
from torch import Tensor

from lcad.color import rgb_to_luminance
from lcad.io.prepared_photo import PreparedPhoto
from lcad.masks.from_text import some_masks
from lcad.masks.sources import build_finder
from lcad.masks.types import InstanceMasks, enlarge
from lcad.pipeline import LCADPipeline
from lcad.recoloring.transfer import transfer_colors
from lcad.recoloring.transfer_reference import reference_colors
from ldm.devices import DTYPES, choose_device

BUNDLED = Path(__file__).resolve().parents[2] / "checkpoints"  # of a checkout of the project
CATEGORY = "L-CAD"
OWN = 0  # of steps and guidance: what the model brings along
METHODS = {"same photo": transfer_colors, "similar photo": reference_colors}


class LoadLCAD:
    """A checkpoint folder or hub id -> model."""

    CATEGORY, FUNCTION = CATEGORY, "load"
    RETURN_TYPES, RETURN_NAMES = ("LCAD_MODEL",), ("model",)
    DESCRIPTION = "Load an L-CAD checkpoint: a folder, a hub id, or the name of one in the project's checkpoints/."

    @classmethod
    def INPUT_TYPES(cls) -> dict:
        return {
            "required": {
                "model": ("STRING", {"default": "mini"}),
                "device": (["auto", "cpu", "cuda", "mps"], {"default": "auto"}),
                "dtype": (list(DTYPES), {"default": "float32"}),
            }
        }

    def load(self, model: str, device: str = "auto", dtype: str = "float32") -> tuple[LCADPipeline]:
        bundled = BUNDLED / model.strip()
        source = str(bundled) if not Path(model).is_dir() and bundled.is_dir() else model
        pipeline = LCADPipeline.from_pretrained(source, torch_dtype=DTYPES[dtype]).to(choose_device(device))
        return (pipeline,)


class Colorize:
    """Photos and a caption -> the photos in colour, with their own luminance."""

    CATEGORY, FUNCTION = CATEGORY, "colorize"
    RETURN_TYPES, RETURN_NAMES = ("IMAGE",), ("image",)
    DESCRIPTION = (
        "Colorize photos as the caption says. Every pixel keeps its luminance; colours of the input are ignored."
    )

    @classmethod
    def INPUT_TYPES(cls) -> dict:
        return {
            "required": {
                "model": ("LCAD_MODEL",),
                "image": ("IMAGE",),
                "caption": ("STRING", {"default": "", "multiline": True}),
                "seed": ("INT", {"default": 0, "min": 0, "max": 0xFFFFFFFFFFFFFFFF}),
                "steps": ("INT", {"default": OWN, "min": OWN, "max": 1000, "tooltip": "0: the model's own"}),
                "guidance": (
                    "FLOAT",
                    {"default": OWN, "min": OWN, "max": 100.0, "step": 0.1, "tooltip": "0: the model's own; 1: none"},
                ),
            },
            "optional": {
                "masks": ("LCAD_MASKS", {"tooltip": "from Find Masks, for the same photos and caption"}),
                "mask": ("MASK", {"tooltip": "painted: the i-th for the i-th phrase between the caption's commas"}),
            },
        }

    def colorize(
        self,
        model: LCADPipeline,
        image: Tensor,
        caption: str,
        seed: int,
        steps: int = OWN,
        guidance: float = OWN,
        masks: list[InstanceMasks | None] | None = None,
        mask: Tensor | None = None,
    ) -> tuple[Tensor]:
        photos = photos_of(image)
        if masks is not None and mask is not None:
            raise ValueError("Colorize got masks and mask; connect one of them")
        if masks is not None and len(masks) != len(photos):
            raise ValueError(
                f"Colorize got masks of {len(masks)} photos and {len(photos)} photos; give both the same batch"
            )
        given: list = [None] * len(photos) if masks is None else masks
        if mask is not None:
            given = [mask.float().clamp(0, 1)] * len(photos)  # (P, H, W)
        results = model(
            photos,
            caption.strip() or None,
            given,
            num_inference_steps=steps or None,
            guidance_scale=guidance or None,
            generator=[torch.Generator().manual_seed(seed) for _ in photos],
            output_type="pt",
        ).images
        return (images_of(results),)


class FindMasks:
    """Photos and a caption -> where the objects are that the caption names with a colour or a place."""

    CATEGORY, FUNCTION = CATEGORY, "find"
    RETURN_TYPES, RETURN_NAMES = ("LCAD_MASKS", "MASK", "STRING"), ("masks", "mask", "phrases")
    DESCRIPTION = (
        "Find the objects that the caption names. masks is for Colorize; mask has one after another for all phrases of "
        "all photos, to look at, and phrases says what each of them is."
    )

    @classmethod
    def INPUT_TYPES(cls) -> dict:
        return {
            "required": {
                "model": ("LCAD_MODEL",),
                "image": ("IMAGE",),
                "caption": ("STRING", {"default": "", "multiline": True}),
            }
        }

    def find(self, model: LCADPipeline, image: Tensor, caption: str) -> tuple[list, Tensor, str]:
        finder = build_finder("auto", model)
        found, shown, lines = [], [], []
        for number, photo in enumerate(photos_of(image)):
            prepared = PreparedPhoto.of(photo)
            instances = some_masks(finder(Path(), prepared, caption)) if caption.strip() else None
            found.append(instances)
            if instances is not None:
                shown.append(enlarge(instances.masks, prepared))
                lines += [f"{number}: {phrase.text}" for phrase in instances.phrases]
        empty = torch.zeros(1, *image.shape[1:3])
        return found, torch.cat(shown).float() if shown else empty, "\n".join(lines)


class TransferColors:
    """The colours of another picture on photos, which keep their luminance."""

    CATEGORY, FUNCTION = CATEGORY, "transfer"
    RETURN_TYPES, RETURN_NAMES = ("IMAGE", "MASK", "STRING"), ("image", "confidence", "report")
    DESCRIPTION = (
        "Bring the colours of an editor's picture onto the photo at its full size. It may be smaller, cropped, shifted "
        "or slightly warped; what does not fit has the colours of rest, or stays grey."
    )

    @classmethod
    def INPUT_TYPES(cls) -> dict:
        return {
            "required": {
                "image": ("IMAGE", {"tooltip": "the photos, in black and white or colour"}),
                "colors": ("IMAGE", {"tooltip": "a picture for each photo, or one for all"}),
                "colors_show": (list(METHODS), {"default": next(iter(METHODS))}),
            },
            "optional": {"rest": ("IMAGE", {"tooltip": "the photos in other colours, as from Colorize"})},
        }

    def transfer(
        self, image: Tensor, colors: Tensor, colors_show: str = "same photo", rest: Tensor | None = None
    ) -> tuple[Tensor, Tensor, str]:
        if colors_show not in METHODS:
            raise ValueError(f"unknown colors_show {colors_show!r}; allowed: {', '.join(METHODS)}")
        photos, pictures = photos_of(image), photos_of(colors)
        others = [None] if rest is None else photos_of(rest)
        for name, batch in (("colors", pictures), ("rest", others)):
            if len(batch) not in (1, len(photos)):
                raise ValueError(
                    f"{name} has {len(batch)} pictures for {len(photos)} photos; give one, or one for each"
                )
        results, confidences, lines = [], [], []
        for number, photo in enumerate(photos):
            luminance = rgb_to_luminance(photo)
            made = METHODS[colors_show](luminance, pictures[number % len(pictures)])
            results.append(made.recolored(luminance, others[number % len(others)]))
            confidences.append(made.confidence_at(luminance.shape[-2:]))
            lines.append(f"{number}: " + ", ".join(f"{name} {value}" for name, value in made.report().items()))
        return images_of(results), torch.stack(confidences), "\n".join(lines)


def photos_of(image: Tensor) -> list[Tensor]:
    """IMAGE (B, H, W, C) -> (3, H, W) each; one channel is grey, a fourth is left out.

    Raises:
        ValueError: of another shape.
    """
    if image.ndim != 4 or image.shape[-1] not in (1, 3, 4):
        raise ValueError(f"an IMAGE of shape {tuple(image.shape)}; expected (B, H, W, 3)")
    rgb = image[..., :3].float().cpu().clamp(0, 1).movedim(-1, 1)  # (B, C, H, W)
    return list(rgb.expand(-1, 3, -1, -1).contiguous())


def images_of(photos: list[Tensor]) -> Tensor:
    """(3, H, W) each -> IMAGE (B, H, W, 3)."""
    return torch.stack(photos).movedim(1, -1).float().cpu().contiguous()


NODE_CLASS_MAPPINGS = {
    "LCADLoad": LoadLCAD,
    "LCADColorize": Colorize,
    "LCADFindMasks": FindMasks,
    "LCADTransferColors": TransferColors,
}
NODE_DISPLAY_NAME_MAPPINGS = {
    "LCADLoad": "Load L-CAD",
    "LCADColorize": "Colorize (L-CAD)",
    "LCADFindMasks": "Find Masks (L-CAD)",
    "LCADTransferColors": "Transfer Colors (L-CAD)",
}
