"""Colours of a similar photo: what looks alike in black and white gets like colours, as in a series of one place.

Each place of the photo is described by its luminance and by the mean and the contrast of L about it at three scales
(Welsh et al., Transferring Color to Greyscale Images, 2002, at more scales), and takes the mean chroma of the places of
the reference, weighed by likeness. Nothing is recognized: that two things are of one kind is only known by these.

Shapes: h x w the photo, h' x w' the reference, as they are compared; L in [0, 100], ab in Lab units.
"""

import cv2
import numpy as np
import torch
from PIL import Image
from torch import Tensor

from lcad.color import rgb_to_lab
from lcad.io.images import to_tensor
from lcad.recoloring.registration import WrongPair
from lcad.recoloring.transfer import GREY, Transfer, shrunk

SIDE = 96  # pixels, long side at which photo and reference are compared
SIGMAS = (1.5, 3.0, 6.0)  # pixels of that size, of the neighbourhoods
LEVEL = 15.0  # difference of L that counts as much as a difference of contrast by a factor of e
TEMPERATURE = 0.5  # of the likeness
ALIKE, UNLIKE = 1.0, 2.5  # distance of the most alike place up to which it is believed, and from which it is not
ROWS = 512  # places of the photo that are compared at once


def reference_colors(luminance: Tensor, reference: Image.Image | Tensor) -> Transfer:
    """The chroma of a reference for a photo, where there is something like it.

    Args:
        luminance: L (1, H, W) of the photo.
        reference: a photo in colour, of any size, or sRGB (3, ., .).

    Raises:
        WrongPair: the reference has no colours.
    """
    rgb = reference if isinstance(reference, Tensor) else to_tensor(reference)
    lab = rgb_to_lab(shrunk(rgb, SIDE).clamp(0, 1))  # (3, h', w')
    if float(lab[1:].norm(dim=0).mean()) < GREY:
        raise WrongPair("the reference has no colours; give a photo in colour")
    small = shrunk(luminance, SIDE)
    here, there = described(small), described(lab[:1])  # (F, h, w), (F, h', w')
    chroma, distance = _most_alike(here.flatten(1).T, there.flatten(1).T, lab[1:].flatten(1).T)
    confidence = ((UNLIKE - distance) / (UNLIKE - ALIKE)).clamp(0, 1)
    return Transfer(chroma.T.reshape(2, *small.shape[-2:]).contiguous(), confidence.reshape(small.shape[-2:]))


def described(luminance: Tensor) -> Tensor:
    """L (1, h, w) -> (F, h, w), in which distances are about 1 between what looks alike and what does not."""
    values = luminance[0].numpy().astype(np.float32)
    features = [values / LEVEL]
    for sigma in SIGMAS:
        mean = cv2.GaussianBlur(values, (0, 0), sigma, borderType=cv2.BORDER_REFLECT)
        square = cv2.GaussianBlur(values * values, (0, 0), sigma, borderType=cv2.BORDER_REFLECT)
        features += [mean / LEVEL, np.log1p(np.sqrt(np.maximum(square - mean * mean, 0)))]
    return torch.from_numpy(np.stack(features))


def _most_alike(here: Tensor, there: Tensor, chroma: Tensor) -> tuple[Tensor, Tensor]:
    """For each place here (N, F) the mean chroma of places there (M, F), (M, 2), by likeness, and the least distance.

    Returns:
        (N, 2) and (N,).
    """
    means, distances = [], []
    for places in torch.split(here, ROWS):
        distance = torch.cdist(places, there)  # (ROWS, M)
        means.append(torch.softmax(-(distance**2) / TEMPERATURE, dim=1) @ chroma)
        distances.append(distance.amin(dim=1))
    return torch.cat(means), torch.cat(distances)
