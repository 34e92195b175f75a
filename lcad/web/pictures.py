"""Pictures to look at, which need not be exact to the last bit: quickly made, and no larger than they are shown.

Shapes: H x W the photo's size.
"""

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from lcad.color import luminance_to_rgb
from lcad.io.images import to_image
from lcad.io.pixels import shrunk_size
from lcad.upsampling import resize

GREY = np.asarray(to_image(luminance_to_rgb(torch.linspace(0, 100, 1 << 16)[None, None])))[0, :, 0]  # of L in [0, 100]


def grey_picture(luminance: Tensor) -> Image.Image:
    """L (1, H, W) in [0, 100] as 8 bit grey, looked up in a tenth of the time that it takes to convert it."""
    levels = luminance[0].mul((len(GREY) - 1) / 100).round_().clamp_(0, len(GREY) - 1)
    return Image.fromarray(GREY[levels.int().numpy()])


def fitted(luminance: Tensor, side: int) -> Tensor:
    """L (1, H, W) with `side` pixels at most on its long side."""
    return resize(luminance[None], shrunk_size(luminance.shape[-2:], side))[0].clamp(0, 100)


def save_shown(picture: Image.Image, path: Path, most: int) -> None:
    """A JPEG of `most` pixels at most."""
    scale = (most / (picture.width * picture.height)) ** 0.5
    if scale < 1:
        picture = picture.resize([max(1, int(side * scale)) for side in picture.size])
    picture.save(path, quality=92, subsampling=0)
