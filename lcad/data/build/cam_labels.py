"""Label maps for photos that have none, from where a classifier sees what it names.

A class activation map (Zhou et al. 2016) says how much each place speaks for a class. The regions of the photo that fit
it best are labelled. The classifier is SqueezeNet, whose last layer makes one such map for each class of ImageNet.
Of 434 ImageNet photos with a word of probability above 0.5 it is the right one in 390. Of 158 objects that maps of
ADE20K label, and whose word has a probability above 0.3, the labels have a mean IoU of 0.27 (a box in the middle of the
photo: 0.16).

Shapes: C classes, W words, h x w the classifier's cells; photos are PIL, maps float32.
"""

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor
from torchvision.models import SqueezeNet, SqueezeNet1_1_Weights, squeezenet1_1
from torchvision.transforms.functional import normalize

from lcad.io.images import to_tensor
from lcad.io.label_maps import read_names
from lcad.masks.matching import expected_iou, in_cells, unite
from lcad.masks.superpixels import luminance_regions
from lcad.masks.types import enlarge
from ldm.checkpoint import load_state_dict

WEIGHTS = SqueezeNet1_1_Weights.IMAGENET1K_V1
CLASSES = len(WEIGHTS.meta["categories"])
SIDE = 256  # pixels the classifier sees: 15 x 15 cells
GRID = 32  # cells in which maps and regions are compared
UNASKED, ASKED = 0.5, 0.1  # least probability of a word: of photos without captions, and if a caption names it
POWER = 2  # of a map, before it stands for a probability; with 1 or 3 the IoU above is 0.21 and 0.25


@dataclass(frozen=True)
class LabelWord:
    """What a label is called ("sofa", "couch"), and the classes that are it."""

    names: list[str]
    classes: list[int]

    def is_in(self, texts: list[str]) -> bool:
        """Does any of the texts name it or one of its classes, once or in plural?"""
        names = [*self.names, *(WEIGHTS.meta["categories"][i] for i in self.classes)]
        name = re.compile(rf"\b(?:{'|'.join(map(re.escape, names))})(?:s|es)?\b", re.IGNORECASE)
        return any(name.search(text) for text in texts)


def read_words(path: Path) -> list[LabelWord]:
    """Words from lines of "<classes> <name>, <other names>", such as "281-287 cat, kitten"; # begins a comment.

    Raises:
        ValueError: missing or malformed.
    """
    words = []
    try:
        for ranges, names in read_names(path):
            ends = [[int(end) for end in part.split("-", 1)] for part in ranges.split(",")]
            if not all(0 <= end[0] <= end[-1] < CLASSES for end in ends):
                raise ValueError(f"{ranges}: classes go from 0 to {CLASSES - 1}")
            words.append(LabelWord(names, [i for end in ends for i in range(end[0], end[-1] + 1)]))
        if not 0 < len(words) < 256:
            raise ValueError(f"{len(words)} words; a label map holds 1 to 255")
    except (OSError, UnicodeDecodeError, ValueError) as error:
        raise ValueError(f"{path}: not a list of words ({error}); expected lines of '<classes> <name>'") from error
    return words


class Labeller:
    """Finds what the words name in photos.

    Args:
        weights: state-dict file of torchvision's SqueezeNet 1.1 for ImageNet; None downloads it.

    Raises:
        CheckpointError, ValueError: a file that cannot be read, or is not that network's.
    """

    def __init__(self, words: list[LabelWord], weights: Path | None, device: torch.device):
        self.words, self.device = words, device
        net = squeezenet1_1(weights=None if weights else WEIGHTS)
        if weights:
            try:
                net.load_state_dict(load_state_dict(weights))
            except RuntimeError as error:
                raise ValueError(f"{weights}: not the weights of SqueezeNet 1.1 ({error})") from error
        self.network: SqueezeNet = net.eval().to(device)
        self.classes = torch.zeros(CLASSES, len(words))  # (C, W), 1 where a class is a word's
        for column, word in zip(self.classes.T, words, strict=True):
            column[word.classes] = 1

    @torch.no_grad()
    def activations(self, photo: Image.Image) -> tuple[Tensor, Tensor]:
        """-> the probability of each word (W,), and where it is, (W, h, w): 0 nowhere."""
        rgb = to_tensor(photo.convert("RGB").resize((SIDE, SIDE), Image.Resampling.BICUBIC))
        x = normalize(rgb, WEIGHTS.transforms().mean, WEIGHTS.transforms().std).to(self.device)
        seen = self.network.features(torch.stack([x, x.flip(-1)]))
        maps, mirrored = self.network.classifier[:-1](seen).cpu()  # (C, h, w): before the mean over places
        maps = (maps + mirrored.flip(-1)) / 2
        classes = maps.mean((1, 2)).softmax(0)[:, None] * self.classes  # (C, W)
        shares = classes / classes.sum(0).clamp_min(1e-12)
        return classes.sum(0), torch.einsum("chw,cn->nhw", maps, shares)

    def label(self, photo: Image.Image, texts: list[str]) -> np.ndarray:
        """The label map of a photo, (H, W) uint8: 1 + index of the word, 0 elsewhere.

        Args:
            texts: what is known of the photo. If these name any of the words, only those are looked for.
        """
        labels = np.zeros((photo.height, photo.width), np.uint8)
        probability, maps = self.activations(photo)
        named = [i for i, word in enumerate(self.words) if word.is_in(texts)]
        allowed = torch.zeros(len(self.words), dtype=torch.bool)
        allowed[named or slice(None)] = True
        found = (allowed & (probability > (ASKED if named else UNASKED))).nonzero()[:, 0]
        if not len(found):
            return labels
        regions = luminance_regions(photo, [])
        for word in found[probability[found].argsort()].tolist():  # the surest last, over the others
            inside = F.interpolate(maps[None, [word]], (GRID, GRID), mode="bilinear")[0]  # (1, GRID, GRID)
            inside = inside - inside.amin()
            inside = (inside / inside.amax().clamp_min(1e-6)) ** POWER
            candidates = unite(inside, regions)
            fits = expected_iou(inside.flatten(1), in_cells(candidates.masks, inside))
            if fits.numel():
                mask = enlarge(candidates.masks[fits.argmax()][None], photo)[0]
                labels[mask.numpy() > 0.5] = 1 + word
        return labels
