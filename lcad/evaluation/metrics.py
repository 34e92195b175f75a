"""Metrics of colorized photos: rows of `METRICS`, functions of a `ScoredPhoto`, RGB (H, W, 3) uint8.

Their variants are said in full, because published numbers differ by them.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from skimage.metrics import peak_signal_noise_ratio, structural_similarity
from torch import Tensor

from lcad.color import absolute_colorfulness, colorfulness, mean_color
from lcad.text.color_names import name_color


@dataclass(frozen=True)
class ScoredPhoto:
    """A photo with its result.

    Attributes:
        real, fake: RGB (H, W, 3) uint8 of one size.
        caption: what the result was asked to be.
        objects: the caption's objects with a colour word and a mask: (colour word, mask (H, W) in [0, 1]).
    """

    real: np.ndarray
    fake: np.ndarray
    caption: str = ""
    objects: list[tuple[str, Tensor]] = field(default_factory=list)


@dataclass(frozen=True)
class Metric:
    """One metric.

    Attributes:
        variant: how it is computed, for the head of a table.
        best: "higher", "lower", or "" where neither is better.
        score: of one photo; None where it does not apply to that photo.
    """

    name: str
    variant: str
    best: str
    score: Callable[[ScoredPhoto], float | None]


def to_batch(rgb: np.ndarray) -> Tensor:
    """(H, W, 3) uint8 -> (1, 3, H, W) float32 in [0, 1]."""
    return torch.from_numpy(np.ascontiguousarray(rgb)).movedim(-1, 0)[None].float() / 255


def adherence(photo: ScoredPhoto) -> float | None:
    """The share of a photo's (object, colour word) pairs whose region has the asked colour; None without any."""
    if not photo.objects:
        return None
    image = to_batch(photo.fake)[0]
    return float(np.mean([name_color(mean_color(image, mask)) == color for color, mask in photo.objects]))


def _colorfulness(rgb: np.ndarray) -> float:
    return colorfulness(to_batch(rgb)).item()


METRICS: dict[str, Metric] = {
    metric.name: metric
    for metric in (
        Metric(
            "psnr",
            "dB, over RGB in uint8, scikit-image",
            "higher",
            lambda photo: float(peak_signal_noise_ratio(photo.real, photo.fake)),
        ),
        Metric(
            "ssim",
            "mean over R, G and B in uint8, 7x7 window, scikit-image",
            "higher",
            lambda photo: float(structural_similarity(photo.real, photo.fake, channel_axis=-1)),
        ),
        Metric("colorfulness", "Hasler and Suesstrunk 2003, as published", "", lambda photo: _colorfulness(photo.fake)),
        Metric("colorfulness_true", "that of the true photo", "", lambda photo: _colorfulness(photo.real)),
        Metric(
            "colorfulness_error",
            "absolute difference of colorfulness to the true photo's, photo by photo",
            "lower",
            lambda photo: (colorfulness(to_batch(photo.fake)) - colorfulness(to_batch(photo.real))).abs().item(),
        ),
        Metric(
            "colorfulness_abs",
            "of |rg| and |yb|, as in peers' code",
            "",
            lambda photo: absolute_colorfulness(to_batch(photo.fake)).item(),
        ),
        Metric(
            "adherence", "share of (object, colour word) pairs whose region has the asked colour", "higher", adherence
        ),
    )
}
"""Metrics that need no weights; `lpips_metric` and `clip_metric` make those that do."""

SET_VARIANTS = {
    "colorfulness_difference": "|mean colorfulness of all results - that of all true photos|, as in Table 3",
    "fid": "torchmetrics, 2048 Inception features, images in uint8",
}
"""Measures of a whole set, not of a photo, and how each is computed; see `lcad.evaluation.scoring.summarize`"""


def build_metrics(lpips: list[str], clip: list[str], device: torch.device) -> list[Metric]:
    """`METRICS` and those that need weights.

    Args:
        lpips: backbones, each as "squeeze=<file of torchvision's weights>" or "squeeze" for torchvision's download.
        clip: open_clip models, each as "ViT-B-32=<file of weights, or the name of published ones>".
    """
    pairs = [text.partition("=")[::2] for text in lpips]
    metrics = [lpips_metric(net, backbone or None, device) for net, backbone in pairs]
    metrics += [clip_metric(name, weights, device) for name, weights in (text.partition("=")[::2] for text in clip)]
    return [*METRICS.values(), *metrics]


def lpips_metric(net: str, backbone: str | None, device: torch.device) -> Metric:
    """LPIPS v0.1 with one of the backbones of `lcad.models.perceptual`.

    Raises:
        ValueError, OSError: see `build_lpips`.
    """
    from lcad.models.perceptual import build_lpips

    metric = build_lpips(net, backbone).to(device)

    @torch.no_grad()
    def score(photo: ScoredPhoto) -> float:
        real, fake = (to_batch(rgb).to(device) * 2 - 1 for rgb in (photo.real, photo.fake))
        return metric(real, fake).item()

    return Metric(f"lpips_{net}", f"LPIPS v0.1, {net}, images in [-1, 1]", "lower", score)


def clip_metric(name: str, weights: str, device: torch.device) -> Metric:
    """CLIP score: 100 max(cos(image, caption), 0), through open_clip (Hessel et al. 2021, without their factor 2.5).

    Args:
        name: a model of open_clip, such as ViT-B-32.
        weights: a file of its weights, or the name of published ones, which open_clip downloads.

    Raises:
        ValueError: unknown model or weights. OSError: they cannot be had.
    """
    import open_clip
    from PIL import Image

    try:
        model, _, prepare = open_clip.create_model_and_transforms(name, pretrained=weights, device=device)
    except RuntimeError as error:
        raise ValueError(f"CLIP score: {name} with weights {weights!r} cannot be loaded ({error})") from error
    model.eval()
    tokenizer = open_clip.get_tokenizer(name)

    @torch.no_grad()
    def score(photo: ScoredPhoto) -> float:
        image = model.encode_image(prepare(Image.fromarray(photo.fake))[None].to(device), normalize=True)
        text = model.encode_text(tokenizer([photo.caption]).to(device), normalize=True)
        return max(0.0, 100 * (image @ text.T).item())

    return Metric("clip_score", f"100 max(cos, 0), open_clip {name} ({Path(weights).name})", "higher", score)


def build_fid(weights: str, device: torch.device) -> Any:
    """torchmetrics' Frechet inception distance on its 2048 Inception features, images in uint8.

    Args:
        weights: file of torch-fidelity's Inception weights, or "download".

    Raises:
        OSError: the weights are not there and cannot be downloaded. ValueError: torch-fidelity is not installed.
    """
    if weights != "download" and not Path(weights).is_file():
        raise FileNotFoundError(f"FID: {weights}: no such file of Inception weights")
    if find_spec("torch_fidelity") is None:
        raise ValueError('FID: needs the package torch-fidelity, which is not installed: pip install "lcad[eval]"')
    from torchmetrics.image.fid import FrechetInceptionDistance

    path = None if weights == "download" else weights
    try:
        return FrechetInceptionDistance(2048, feature_extractor_weights_path=path).to(device)
    except OSError as error:
        raise OSError(
            f"FID: the Inception weights cannot be downloaded ({error}); fetch pt_inception-2015-12-05-6726825d.pth "
            "from torch-fidelity's releases and give its path"
        ) from error
