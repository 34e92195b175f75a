"""Colours of another picture of the same photo, such as an editor's result, on the photo's own luminance.

Shapes: H x W the photo, h x w the size its chroma is carried at; L in [0, 100], ab in Lab units, RGB in [0, 1].
"""

from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from lcad.color import lab_to_rgb_in_gamut, luminance_to_rgb, rgb_to_lab, rgb_to_luminance
from lcad.io.images import to_tensor
from lcad.recoloring.registration import LEAST_SIDE, WORKING_SIDE, Registration, WrongPair, register
from lcad.upsampling import resize, transfer_chroma_strips

CHROMA_SIDE = 2048  # pixels, greatest long side that chroma is carried at; the guided upsampling does the rest
GREY = 2.0  # mean chroma of a picture below which there is nothing to transfer
NEAR = 1 / 60  # of the long side, how far colours reach into a place that does not fit itself
SLOPE_EPS = 16.0  # variance of L below which chroma there does not follow L


@dataclass(frozen=True)
class Transfer:
    """Chroma on its way from a picture to a photo.

    Attributes:
        chroma: ab (2, h, w), 0 where nothing fits.
        confidence: (h, w) in [0, 1], how much of `chroma` is the picture's.
        registration: how the picture fits; None: it is of similar things, see `transfer_reference`.
    """

    chroma: Tensor
    confidence: Tensor
    registration: Registration | None = None

    def picture(self, luminance: Tensor, rest: Tensor | None = None) -> Tensor:
        """A picture of the photo with these colours, whose chroma `transfer_chroma_strips` brings to the photo.

        Args:
            luminance: L (1, H, W) of the photo.
            rest: sRGB (3, any size) of the whole photo, such as the model's, for what does not fit; None: grey.

        Returns:
            sRGB (3, h, w).
        """
        small = resize(luminance[None], self.chroma.shape[-2:])[0]
        chroma = self.chroma * self.confidence
        if rest is not None:
            chroma = chroma + rgb_to_lab(resize(rest[None], self.chroma.shape[-2:])[0])[1:] * (1 - self.confidence)
        return lab_to_rgb_in_gamut(torch.cat([small.clamp(0, 100), chroma]))

    def strips(self, luminance: Tensor, rest: Tensor | None = None) -> Iterator[tuple[slice, Tensor]]:
        """The photo (1, H, W) in these colours, as `transfer_chroma_strips` makes it -> rows, sRGB (3, rows, W)."""
        for rows, part in transfer_chroma_strips(luminance[None], self.picture(luminance, rest)[None]):
            yield rows, part[0]

    def recolored(self, luminance: Tensor, rest: Tensor | None = None) -> Tensor:
        """`strips` in one, sRGB (3, H, W)."""
        return torch.cat([rgb for _, rgb in self.strips(luminance, rest)], dim=-2)

    def confidence_at(self, size: tuple[int, int]) -> Tensor:
        """The confidence (H, W) at a size such as the photo's."""
        return F.interpolate(self.confidence[None, None], size, mode="bilinear")[0, 0]

    def report(self) -> dict[str, float]:
        """In numbers in [0, 1]: the share of the photo whose colours are the picture's, and of a registered picture how
        much of the photo it shows, how sure that is on average, and the correlation of their structure."""
        numbers = {"used": float(self.confidence.mean())}
        if self.registration is not None:
            found = self.registration
            numbers |= {"covered": found.covered, "sure": found.sure, "agreement": found.agreement}
        return {name: round(number, 3) for name, number in numbers.items()}

    def shown_confidence(self, luminance: Tensor) -> Image.Image:
        """The photo with what does not fit in red and what fits as it is, 8 bit RGB of the chroma's size."""
        grey = luminance_to_rgb(resize(luminance[None], self.chroma.shape[-2:])[0].clamp(0, 100))
        tint = torch.tensor([0.85, 0.15, 0.1])[:, None, None]
        shown = grey + (tint - grey) * 0.6 * (1 - self.confidence)
        return Image.fromarray((shown * 255).round().byte().movedim(0, -1).numpy())


def transfer_colors(luminance: Tensor, picture: Image.Image | Tensor) -> Transfer:
    """Register a picture with a photo and bring its chroma there.

    Args:
        luminance: L (1, H, W) of the photo.
        picture: of any size and mode, or sRGB (3, h, w).

    Raises:
        WrongPair: it does not show the photo, or has no colours.
    """
    rgb = picture if isinstance(picture, Tensor) else to_tensor(picture)  # (3, ., .)
    photo = shrunk(luminance, WORKING_SIDE)
    found = register(photo[0].numpy(), rgb_to_luminance(shrunk(rgb, WORKING_SIDE))[0].numpy())
    # pixels of the picture along the photo's long side
    fineness = found.scale * max(1.0, max(rgb.shape[-2:]) / WORKING_SIDE) * max(photo.shape[-2:])
    height, width = luminance.shape[-2:]
    size = _chroma_size((height, width), fineness)
    chroma, confidence = _carried(rgb, found, size, fineness)
    mean_chroma = (np.hypot(*chroma) * confidence).sum() / max(confidence.sum(), 1e-6)
    if mean_chroma < GREY:
        raise WrongPair("it has no colours where it shows the photo; give the coloured picture for the colours")
    small = resize(luminance[None], size)[0, 0].numpy()
    chroma, confidence = _spread(chroma, confidence, small)
    return Transfer(torch.from_numpy(chroma), torch.from_numpy(confidence), found)


def shrunk(image: Tensor, side: int) -> Tensor:
    """(C, H, W) -> at most `side` pixels on its long side, antialiased."""
    height, width = image.shape[-2:]
    factor = min(1.0, side / max(height, width))
    return resize(image[None], (max(1, round(height * factor)), max(1, round(width * factor))))[0]


def _chroma_size(photo: tuple[int, int], fineness: float) -> tuple[int, int]:
    """The photo's, or a smaller one if the picture is coarser or the photo larger than `CHROMA_SIDE`."""
    factor = min(max(photo), max(fineness, LEAST_SIDE), CHROMA_SIDE) / max(photo)
    return max(1, round(photo[0] * factor)), max(1, round(photo[1] * factor))


def _carried(rgb: Tensor, found: Registration, size: tuple[int, int], fineness: float) -> tuple[np.ndarray, np.ndarray]:
    """The picture's chroma (2, *size) where the photo has it, and the confidence (*size).

    Args:
        fineness: pixels of the picture along the photo's long side.
    """
    places = cv2.resize(found.places, size[::-1], interpolation=cv2.INTER_LINEAR)  # (h, w, 2)
    confidence = cv2.resize(found.confidence, size[::-1], interpolation=cv2.INTER_LINEAR).clip(0, 1)
    needed = max(size) / max(1e-3, fineness)
    if needed < 1:  # antialiased: the chroma is carried at a smaller size than the picture's
        rgb = resize(rgb[None], tuple(max(1, round(side * needed)) for side in rgb.shape[-2:]))[0]
    lab = rgb_to_lab(rgb.clamp(0, 1))[1:].movedim(0, -1).contiguous().numpy()
    pixels = (places * np.array(lab.shape[1::-1], np.float32) - 0.5).astype(np.float32)
    moved = cv2.remap(lab, pixels[..., 0], pixels[..., 1], cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
    return np.moveaxis(moved, -1, 0), confidence


def _spread(chroma: np.ndarray, confidence: np.ndarray, luminance: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Small places that do not fit take the colours of what fits about them, by L; large ones keep none.

    In each neighbourhood chroma is a linear function of L, as in the guided filter (He et al. 2010), found from what
    fits alone.

    Returns:
        chroma (2, h, w), confidence (h, w).
    """
    side = 2 * max(2, round(NEAR * max(luminance.shape))) + 1

    def mean(image: np.ndarray) -> np.ndarray:
        return cv2.boxFilter(image, cv2.CV_32F, (side, side), borderType=cv2.BORDER_REFLECT)

    share = mean(confidence)
    total = np.maximum(share, 1e-4)
    own = mean(confidence * luminance) / total
    variance = mean(confidence * luminance**2) / total - own**2
    known = np.clip(2 * share - 0.5, 0, 1)  # wholly where three quarters about it fit, not at all below a quarter
    spread = []
    for channel in chroma:
        average = mean(confidence * channel) / total
        slope = (mean(confidence * luminance * channel) / total - own * average) / (np.maximum(variance, 0) + SLOPE_EPS)
        guessed = average + np.clip(slope, -2, 2) * (luminance - own)
        spread.append(guessed)
    sure = np.maximum(confidence, known)
    mixed = confidence * chroma + (sure - confidence) * np.stack(spread)
    return (mixed / np.maximum(sure, 1e-4)).astype(np.float32), sure.astype(np.float32)
