"""Label maps, and the lists of names of their classes."""

import re
from pathlib import Path

import numpy as np
from PIL import Image

from lcad.io.images import read_image


def read_classes(path: Path) -> dict[int, list[str]]:
    """Class names from lines of "<id> <name>, <other names>"; # begins a comment.

    Raises:
        ValueError: missing or malformed.
    """
    try:
        return {int(number): names for number, names in read_names(path)}
    except (OSError, UnicodeDecodeError, ValueError) as error:
        raise ValueError(f"{path}: not a list of classes ({error}); expected lines of '<id> <name>'") from error


def read_names(path: Path) -> list[tuple[str, list[str]]]:
    """Lines of "<key> <name>, <other names>", which semicolons may part too -> (key, names); # begins a comment.

    Raises:
        OSError, ValueError: missing or malformed, or a key without a name.
    """
    rows = []
    for line in path.read_text(encoding="utf-8-sig").splitlines():
        if line.strip() and not line.startswith("#"):
            key, listed = line.split(None, 1)
            names = [name.strip() for name in re.split("[;,]", listed) if name.strip()]
            if not names:
                raise ValueError(f"{key} has no name")
            rows.append((key, names))
    return rows


def read_label_map(path: Path) -> np.ndarray:
    """Class ids (H, W) from a single-channel PNG.

    Raises:
        ImageError: unreadable. ValueError: not of one channel.
    """
    read_image(path)  # for its checks
    with Image.open(path) as image:
        labels = np.asarray(image)
    if labels.ndim != 2:
        raise ValueError(f"{path}: a label map has one channel of class ids, this one is of mode {image.mode}")
    return labels
