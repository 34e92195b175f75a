"""Instance masks from files: `<folder>/<photo's stem>/<i>_<anything>`, images or .npy, i-th phrase of the caption.

The phrases are the comma-separated parts of the caption, or what `phrases.json` beside the masks says:
{"caption": ..., "phrases": [[start, end], ...]} in characters.
"""

import json
import re
import unicodedata
from pathlib import Path

import numpy as np
import torch
from numpy.lib.format import open_memmap
from PIL import Image
from torch import Tensor

from lcad.io.images import IMAGE_SUFFIXES, ImageError, read_pixels
from lcad.io.pixels import to_8_bit

MASK_SUFFIXES = (*IMAGE_SUFFIXES, ".npy")
LABELS = 31  # the highest value of a mask that is taken for an object's number: as a strength it would do nothing
GREYISH = 24  # of 255, the spread of channels up to which a mask counts as grey: JPEG adds some colour
LOSSY = (".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".avif")
SOFT_SHARE = 0.05  # of pixels between the levels, from which on a lossy mask is soft
PHRASES = "phrases.json"


class MaskError(ValueError):
    """Masks that cannot be used; the message is one line."""


def read_masks(folder: Path, photo: Path, size: tuple[int, int], phrases: int) -> Tensor | None:
    """The masks of one photo.

    The number before the first `_` of a file name, from 0, is the phrase the mask belongs to. If those
    numbers are not distinct, as in the release (`1_0.npy, 1_2.npy`: the photo's number first), the sorted
    order of the files is taken instead.

    Args:
        folder: holds a subfolder for each photo.
        size: (H, W) of the photo in pixels.
        phrases: how many phrases the caption has.

    Returns:
        (phrases, H, W) float in [0, 1], zero for phrases without a mask; None if there is no subfolder.

    Raises:
        MaskError: a mask that is unreadable, empty, of another size, or of a phrase the caption does not have.
    """
    place = mask_place(folder, photo)
    if not place.is_dir():
        return None
    files = sorted((f for f in place.iterdir() if f.suffix.lower() in MASK_SUFFIXES), key=_natural)
    foreign = [f for f in place.iterdir() if f not in files and re.match(r"\d+[_.]", f.name)]
    if foreign:
        raise MaskError(f"{foreign[0]}: is named as a mask, but masks are images or .npy; save it as PNG")
    if not files:
        return None
    numbers = [re.match(r"(\d+)(?=[_.])", file.name) for file in files]
    indices = [int(number.group()) if number else -1 for number in numbers]
    if len(set(indices)) < len(indices):
        indices = list(range(len(files)))
    masks = torch.zeros(phrases, *size)
    for index, file in zip(indices, files, strict=True):
        if not 0 <= index < phrases:
            raise MaskError(
                f"{file}: is for phrase {index}, but the caption has the comma-separated phrases 0 to {phrases - 1}; "
                "name masks <i>_<anything>, counting from 0"
            )
        masks[index] = read_mask(file, size)
    return masks


def mask_place(folder: Path, photo: Path) -> Path:
    """Where a photo's masks lie, or would lie: in the subfolder of its stem, in any of Unicode's compositions.

    A photo like "...png", whose stem leads out of the folder, has its masks in the subfolder of its whole name.
    """
    name = photo.stem if photo.stem.strip(".") else photo.name
    place = folder / name
    if name.isascii() or place.is_dir() or not folder.is_dir():
        return place
    composed = unicodedata.normalize("NFC", name)
    return next((own for own in folder.iterdir() if unicodedata.normalize("NFC", own.name) == composed), place)


def read_spans(folder: Path, photo: Path, caption: str) -> list[tuple[int, int]] | None:
    """The phrases that `phrases.json` names for a photo's masks, characters [start, end); None without such a file.

    Raises:
        MaskError: malformed, or of another caption.
    """
    file = mask_place(folder, photo) / PHRASES
    if not file.is_file():
        return None
    try:
        content = json.loads(file.read_text(encoding="utf-8-sig"))
        listed, spans = content["caption"], [(int(start), int(end)) for start, end in content["phrases"]]
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise MaskError(f"{file}: not readable ({error!r}); delete it to count comma-separated phrases") from error
    if listed != caption:
        raise MaskError(f"{file}: is for the caption {listed!r}, not for {caption!r}; save masks again for this one")
    return spans


def read_mask(file: Path, size: tuple[int, int] | None = None) -> Tensor:
    """One mask (H, W) float in [0, 1]; an object's number counts as 1.

    Args:
        size: (H, W) that it must have; None: any.

    Raises:
        MaskError: unreadable, empty, or of another size.
    """
    values: np.ndarray
    if file.suffix.lower() == ".npy":
        try:
            values = open_memmap(file, "r")  # no pickles, nor archives
        except (OSError, ValueError, EOFError, SyntaxError, TypeError) as error:
            raise MaskError(f"{file}: not an array of numbers ({error})") from error
        if values.dtype.kind not in "biuf":
            raise MaskError(f"{file}: holds {values.dtype}, expected bool or numbers")
    else:
        values = _drawn(file)
    if values.ndim != 2 or size is not None and values.shape != size:
        shape, wanted = ("x".join(map(str, sides[::-1])) for sides in (values.shape, size or ("?", "?")))
        raise MaskError(f"{file}: is {shape}, but the photo is {wanted}; save the mask at the photo's size")
    mask = torch.from_numpy(np.array(values, dtype=np.float32))
    peak = mask.max()
    if not torch.isfinite(mask).all() or mask.min() < 0 or peak <= 0:
        raise MaskError(f"{file}: the mask is empty or has negative values; mark the object with 1 (or 255)")
    if peak > 1 and (peak <= LABELS or ((mask == 0) | (mask == peak)).all()):  # an object's number, not a strength
        return (mask > 0).float()
    return mask / (1 if peak <= 1 else 255 if peak <= 255 else 65535)


def _drawn(file: Path) -> np.ndarray:
    """The strengths (H, W) of a mask that is an image, in [0, 255]; a number of few levels may be a label.

    Where its transparency varies, that is the mask; else grey as it is; else whatever is not black.

    Raises:
        MaskError: unreadable, or in colours without black.
    """
    try:
        pixels = read_pixels(file)
    except ImageError as error:
        raise MaskError(str(error)) from error
    values = pixels.values if pixels.alpha is None or np.ptp(pixels.alpha) == 0 else pixels.alpha
    deep = values.dtype == np.uint16
    if values.ndim == 3 and np.ptp(to_8_bit(values).astype(np.int16), axis=2).max() <= GREYISH:
        values = values[..., 1]
    if values.ndim == 3:
        values = values.max(axis=2)
        if values.min() > LABELS * (257 if deep else 1):
            raise MaskError(f"{file}: a mask in colours needs a black background; draw the object in white on black")
        values = (values > LABELS * (257 if deep else 1)) * np.float32(255)
    if deep and values.max() > 255:
        values = values / np.float32(257)
    return _hardened(values) if file.suffix.lower() in LOSSY else values


def _hardened(values: np.ndarray) -> np.ndarray:
    """A mask of two levels that lossy compression has blurred, as it was; a soft one as it is."""
    between = (values > 64) & (values < 192)
    return (values >= 128) * np.float32(255) if between.mean() < SOFT_SHARE and values.max() >= 192 else values


def save_masks(folder: Path, stem: str, masks: Tensor, names: list[str]) -> None:
    """Write (phrases, H, W) in [0, 1] as PNGs that `read_masks` reads."""
    place = folder / stem
    place.mkdir(parents=True, exist_ok=True)
    for index, (mask, name) in enumerate(zip(masks, names, strict=True)):
        safe = re.sub(r"\W+", "_", name).strip("_")[:40]
        Image.fromarray((mask * 255).round().byte().numpy()).save(place / f"{index}_{safe}.png")


def save_spans(folder: Path, stem: str, caption: str, spans: list[tuple[int, int]]) -> None:
    """Write what `read_spans` reads."""
    content = json.dumps({"caption": caption, "phrases": spans}, ensure_ascii=False)
    (folder / stem / PHRASES).write_text(content, encoding="utf-8")


def _natural(path: Path) -> list:
    return [(0, int(part), "") if part.isdigit() else (1, 0, part) for part in re.split(r"(\d+)", path.name) if part]
