"""What a classifier of ImageNet sees in the grey photo, beside the luminance features.

A colorizer that has seen few photos does not know what is on the next one, which decides its colours. A classifier
does: the UNet's semantic adapter gets its features (so did a network of its own for Iizuka et al., Let there be Color!,
2016; Larsson et al., Learning Representations for Automatic Colorization, 2016, began from a classifier). The paper's
models have none.

Shapes: hint (B, 3, H, W) of the scale `unit`; features (B, S, h, w).
"""

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ldm.checkpoint import first_line, load_state_dict

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet, as torchvision's weights want them
# diffusers loads models with initialisation patched away, and torch refuses to list what can be traced then; a list
# that was made before is kept
torch.overrides.get_overridable_functions()
BACKBONES = {  # the node whose features are taken, and their channels
    "squeezenet1_1": ("features.12.squeeze_activation", 64),
    "vgg16": ("features.29", 512),
}
SIDE = 256  # of the square with the photo's area that is looked at: about what classifiers have learnt at


def build_backbone(name: str, node: str, key: str) -> nn.Module:
    """A network of torchvision's up to one of its nodes, in eval mode, which gives {node: features}.

    Args:
        name: of torchvision's models, such as "vgg16", or "vgg16=<file of weights>", which may hold no more than what
            is needed; without a file torchvision's ImageNet weights are downloaded, and with "vgg16=" none are read.
        node: see torchvision's `get_graph_node_names`.
        key: of the config that names it, for errors; <key>_node names the node.

    Raises:
        ValueError: an unknown model or node, or a file of another model. CheckpointError: it cannot be read.
    """
    import torchvision  # slow to import, and most models have no such network
    from torchvision.models.feature_extraction import create_feature_extractor

    model_name, separator, file = name.partition("=")
    if model_name not in torchvision.models.list_models():
        raise ValueError(f"{key}: got {model_name!r}; allowed: names of torchvision.models.list_models()")
    model = torchvision.models.get_model(model_name, weights=None if separator else "DEFAULT")
    try:
        features = create_feature_extractor(model.eval(), [node])
    except ValueError as error:
        raise ValueError(f"{key}_node: {node!r} is not in {model_name} ({first_line(error)})") from error
    if file:
        wanted = features.state_dict()
        given = {entry: value for entry, value in load_state_dict(Path(file)).items() if entry in wanted}
        missing = sorted(wanted.keys() - given.keys())
        if missing or any(given[entry].shape != wanted[entry].shape for entry in given):
            raise ValueError(f"{key}: {file}: not the weights of {model_name}; missing {missing[:3]}")
        features.load_state_dict(given)
    return features.requires_grad_(False).eval()


def normalise(grey: Tensor) -> Tensor:
    """Grey photos (B, 3, H, W) in [0, 1], as RGB -> what torchvision's classifiers take."""
    mean, std = (grey.new_tensor(value)[:, None, None] for value in (MEAN, STD))
    return (grey - mean) / std


class SemanticFeatures(nn.Module):
    """A frozen classifier's features, with a mean square of 1 in each place.

    Args:
        name: a row of `BACKBONES`; for its weights see `build_backbone`, whose errors it raises.
    """

    def __init__(self, name: str):
        super().__init__()
        backbone = name.partition("=")[0]
        if backbone not in BACKBONES:
            raise ValueError(f"latent.semantic_backbone: got {backbone!r}; allowed: {', '.join(BACKBONES)}")
        self.node, self.channels = BACKBONES[backbone]
        self.backbone = build_backbone(name, self.node, "latent.semantic_backbone")

    def train(self, mode: bool = True) -> "SemanticFeatures":
        """Always in eval mode."""
        return super().train(False)

    @torch.no_grad()
    def forward(self, hint: Tensor, size: tuple[int, int]) -> Tensor:
        """Hint -> features at `size` (h, w), in the hint's type."""
        height, width = hint.shape[-2:]
        scale = SIDE / (height * width) ** 0.5
        seen = round(height * scale), round(width * scale)
        grey = F.interpolate(hint.float() / 2 + 0.5, seen, mode="bicubic", antialias=scale < 1)
        features = self.backbone(normalise(grey.clamp(0, 1)).to(hint.dtype))[self.node].float()
        features = features * torch.rsqrt(features.square().mean(1, keepdim=True) + 1e-6)
        return F.interpolate(features, size, mode="bilinear", antialias=True).to(hint.dtype)
