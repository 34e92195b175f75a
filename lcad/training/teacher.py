"""A frozen teacher of what things are: the UNet's features are drawn to another network's, seen in the grey photo.

Representation alignment (Yu et al., Representation Alignment for Generation, 2025): a small model learns what it paints
sooner if one of its layers has to tell what a trained classifier sees. The teacher looks at the luminance, as the
colorizer does; in sampling there is no teacher.

Shapes: images (B, 3, S, S); teacher's features (B, C_t, h_t, w_t); the UNet's (B, C, h, w).
"""

import torch
import torch.nn.functional as F
from diffusers import Transformer2DModel
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from lcad.models.semantic_features import build_backbone, normalise

HIDDEN = 512


class Teacher(nn.Module):
    """A frozen network of torchvision's up to one of its nodes, its features standardised per channel.

    Args:
        name, node: see `build_backbone`.

    Raises:
        ValueError: an unknown model or node, or a file of another model. CheckpointError: it cannot be read.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, name: str, node: str):
        super().__init__()
        self.features = build_backbone(name, node, "latent.teacher")
        self.node = node
        self.register_buffer("mean", torch.tensor(0.0))
        self.register_buffer("std", torch.tensor(1.0))
        self.requires_grad_(False).eval()

    def train(self, mode: bool = True) -> "Teacher":
        """Always in eval mode."""
        return super().train(False)

    @torch.no_grad()
    def forward(self, grey: Tensor) -> Tensor:
        """Grey photos in [0, 1] as RGB -> standardised features."""
        return (self.features(normalise(grey))[self.node].float() - self.mean) / self.std

    def standardise(self, grey: Tensor) -> None:
        """Bring the features to mean 0 and deviation 1 per channel, as they are of these photos."""
        self.mean, self.std = torch.zeros_like(self.mean), torch.ones_like(self.std)
        features = self(grey)
        self.mean = features.mean((0, 2, 3), keepdim=True)
        self.std = features.std((0, 2, 3), keepdim=True).clamp_min(1e-3)


class AlignmentHead(nn.Sequential):
    """What the UNet's features (B, C, h, w) say of the teacher's: two 1x1 convolutions, for training alone.

    Attributes:
        noted: the features of the last pass in training, see `listen`.
    """

    def __init__(self, channels: int, teacher_channels: int):
        super().__init__(nn.Conv2d(channels, HIDDEN, 1), nn.SiLU(), nn.Conv2d(HIDDEN, teacher_channels, 1))
        self.noted: list[Tensor] = []

    @classmethod
    def of(cls, unet: nn.Module, site: str, teacher: Teacher, image_size: int) -> "AlignmentHead":
        """For the module of the UNet called `site`; raises ValueError: it is no transformer of the UNet."""
        module = dict(unet.named_modules()).get(site)
        if not isinstance(module, Transformer2DModel):
            raise ValueError(
                f"latent.teacher_site: {site!r} is no transformer of the UNet, such as mid_block.attentions.0"
            )
        return cls(module.in_channels, teacher(torch.zeros(1, 3, image_size, image_size)).shape[1])

    def listen(self, module: nn.Module) -> RemovableHandle:
        """Note what the module gives in training, until the handle is removed."""

        def note(module: nn.Module, _inputs: tuple, output: Tensor | tuple) -> None:
            if module.training and torch.is_grad_enabled():
                self.noted[:] = [output if isinstance(output, Tensor) else output[0]]

        return module.register_forward_hook(note)

    def loss(self, features: Tensor, wanted: Tensor) -> Tensor:
        """1 - cosine over channels, the mean over places: a scalar in [0, 2]."""
        said = self(features).float()
        if said.shape[-2:] != wanted.shape[-2:]:
            said = F.interpolate(said, wanted.shape[-2:], mode="bilinear", antialias=True)
        return 1 - F.cosine_similarity(said, wanted.float(), dim=1).mean()
