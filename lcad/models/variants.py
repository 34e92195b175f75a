"""A pipeline with other weights of its own checkpoint, those that find objects or take a few steps; its CUDA graphs."""

from pathlib import Path
from typing import ClassVar, Self

from diffusers import DiffusionPipeline
from torch import nn

from lcad.models.channel_extended_unet import ExtendedUNet
from lcad.models.lcm_lora import GUIDANCE, STEPS, LoraWeights, with_lora
from lcad.models.localizer import LocalizerWeights, localizer_parts
from ldm.cuda_graphs import GRAPHS, Capture, GraphCache, check_cuda
from ldm.schedulers import scheduler_like


class Variants(DiffusionPipeline):
    """What `LCADPipeline` has beside its parts.

    Attributes:
        source: the folder that `from_pretrained` has read, also of a hub id; None: made in memory.
    """

    # of a checkpoint's index: its sizes, and how it is sampled best
    sampling_settings: ClassVar = (
        "guidance_scale",
        "num_inference_steps",
        "antithetic_noise",
        "second_pass_size",
        "unmasked_saturation",
    )
    settings: ClassVar = ("hint_scale", "image_size", *sampling_settings)
    source: Path | None = None
    localizer: LocalizerWeights | None = None
    lcm_lora: LoraWeights | None = None
    _graphs: GraphCache | None = None
    _localized: tuple[tuple, Self] | None = None  # with the copies that were made last, and of what
    _found_by: Self | None = None  # what finds objects in its place

    def with_localizer(self) -> Self:
        """This pipeline with its localizer's weights, in copies of their parts; itself if it has none."""
        if self._found_by is not None:
            if not hasattr(self._found_by.unet, "_hf_hook"):  # offloaded, it comes by itself
                self._found_by.unet.to(self._execution_device)
            return self._found_by.with_localizer()
        if self.localizer is None:
            return self
        key = (id(self.localizer), self._execution_device, self.unet.dtype)
        if self._localized is None or self._localized[0] != key:
            self._localized = key, self.with_parts(localizer_parts(self.components, self.localizer))
        return self._localized[1]

    def with_lcm_lora(self) -> Self:
        """This pipeline for 4 steps in place of tens: its LCM-LoRA merged into a copy of the UNet, guidance baked in.

        Objects are still found with the weights as they are here.

        Raises:
            ValueError: it has no such weights.
        """
        if self.lcm_lora is None:
            raise ValueError(
                f"{self.source or 'this pipeline'}: has no weights for a few steps (lcm_lora/); "
                "train them with scripts/distill_latent.py, or sample without --fast"
            )
        return self.for_few_steps(with_lora(self.unet, self.lcm_lora))

    def for_few_steps(self, unet: ExtendedUNet) -> Self:
        """This pipeline with a consistency model in place of its UNet, and what samples with one."""
        fast = self.with_parts({"unet": unet})
        fast.register_modules(scheduler=scheduler_like("lcm", self.scheduler))
        fast.register_to_config(guidance_scale=GUIDANCE, num_inference_steps=STEPS, unmasked_saturation=1.0)
        fast.source, fast._found_by = self.source, self
        return fast

    @property
    def few_step(self) -> bool:
        """Was it made by `for_few_steps`?"""
        return self._found_by is not None

    def enable_cuda_graphs(self, limit: int = GRAPHS, capture: Capture | None = None) -> None:
        """Capture the denoiser's steps, for each shape of photos, as CUDA graphs, and replay them, to the same pixels.

        On a CUDA device that is so without this call, where the UNet can be captured. The first call of a shape takes
        longer; `limit` graphs are kept. Raises ValueError: it is not on a CUDA device.
        """
        if capture is None:
            check_cuda(self._execution_device)
        self._graphs = GraphCache(capture, limit)

    def disable_cuda_graphs(self) -> None:
        """Forget all graphs, and capture none."""
        self._graphs = None

    def with_parts(self, parts: dict[str, nn.Module]) -> Self:
        """This pipeline with some other parts, by their names; the rest is shared. Without CUDA graphs it stays so."""
        settings = {name: self.config[name] for name in self.settings}
        other = type(self)(**self.components | parts, **settings)
        if self._graphs is None:
            other._graphs = None
        return other
