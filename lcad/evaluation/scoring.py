"""Scoring a folder of results against the true photos, whichever method made them.

Images are RGB (S, S, 3) uint8 at the size they are scored at; photos of another size are resized to it. One that is
not square is *squashed* to a square, or *cropped* to its middle one.
"""

import csv
import io
import math
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from scipy.stats import bootstrap

from lcad.config import ModelConfig
from lcad.evaluation.metrics import Metric, ScoredPhoto
from lcad.io.images import list_images, read_image, write_bytes
from lcad.masks.files import read_masks
from lcad.text.color_object_pairs import asked_color
from lcad.text.phrases import comma_parts

if TYPE_CHECKING:
    from torchmetrics.image.fid import FrechetInceptionDistance

FITS = ("squash", "crop")
GREY_SPREAD = 1.0  # mean spread of the RGB channels (0-255) below which a result counts as grey


@dataclass(frozen=True)
class Sample:
    """A true photo and the caption its colorization is asked for."""

    photo: Path
    caption: str


def find_results(samples: list[Sample], folder: Path) -> list[Path]:
    """The result of each sample: the image in `folder` that has its name, or its stem with another suffix.

    Raises:
        FileNotFoundError: no such folder, or results are missing. ValueError: two images for one photo.
    """
    by_stem = defaultdict(list)
    for path in list_images(folder):
        by_stem[path.stem].append(path)
    found, missing = [], []
    for sample in samples:
        candidates = by_stem.get(sample.photo.stem, [])
        same_name = [path for path in candidates if path.name == sample.photo.name]
        if len(same_name or candidates) > 1:
            names = ", ".join(path.name for path in candidates)
            raise ValueError(f"{folder}: several results for {sample.photo.name}: {names}")
        found += same_name or candidates
        missing += [] if candidates else [sample.photo.name]
    if missing:
        raise FileNotFoundError(
            f"{folder}: {len(missing)} of {len(samples)} results are missing: {', '.join(missing[:5])}"
            f"{', ...' if len(missing) > 5 else ''}; results are named after their photos"
        )
    return found


def score(
    samples: list[Sample],
    results: Path,
    metrics: list[Metric],
    size: int = ModelConfig.image_size,
    masks: Path | None = None,
    fid: "FrechetInceptionDistance | None" = None,
    grey_is_meant: bool = False,
    progress: Callable[[Iterable], Iterable] = iter,
    fit: str = "squash",
) -> list[dict]:
    """Score the images in `results`, one for each sample.

    Args:
        size: photos are resized to size x size; results must be of that size, or of their photo's.
        fit: a row of `FITS`, of photos and of results of their photo's size.
        masks: folder of instance masks (see `lcad.masks.files`), for colour adherence.
        fid: torchmetrics' FrechetInceptionDistance, updated with all photos and results.
        grey_is_meant: do not take grey results for a mistake.

    Returns:
        One row a photo, in the order of the samples: name, caption and each metric, None where it does not apply.

    Raises:
        FileNotFoundError, ValueError: results that are missing, of another size, grey, or not numbers.
    """
    rows, grey = [], []
    for sample, path in progress(list(zip(samples, find_results(samples, results), strict=True))):
        photo, result = read_image(sample.photo), read_image(path)
        if result.size not in ((size, size), photo.size):
            raise ValueError(f"{path}: is {_shape(result)}, expected {size}x{size} or the photo's {_shape(photo)}")
        real, fake = (np.array(fitted(image, size, fit)) for image in (photo, result))
        if np.ptp(fake.astype(np.int16), axis=-1).mean() < GREY_SPREAD:
            grey.append(path.name)
        scored = ScoredPhoto(real, fake, sample.caption, _objects(sample, masks, photo, size, fit))
        row = {"name": sample.photo.name, "caption": sample.caption}
        row |= {metric.name: metric.score(scored) for metric in metrics}
        broken = [name for name, value in row.items() if isinstance(value, float) and math.isnan(value)]
        if broken:
            raise ValueError(f"{path}: {', '.join(broken)} is not a number; is the image damaged?")
        rows.append(row)
        if fid is not None:
            for image, is_real in ((real, True), (fake, False)):
                fid.update(torch.from_numpy(image).movedim(-1, 0)[None].to(fid.device), real=is_real)
    if grey and len(grey) == len(samples) and not grey_is_meant:
        raise ValueError(f"{results}: all {len(grey)} results are grey; has a step after colorizing lost the colours?")
    return rows


def summarize(
    rows: list[dict], metrics: list[Metric], fid: "FrechetInceptionDistance | None" = None, seed: int = 0
) -> dict[str, tuple[float, float, float]]:
    """Mean and bootstrap 95 % interval (percentile, 2,000 resamples) of each metric that applies to some photo.

    Two metrics are of the whole set: FID, whose interval is NaN, and colorfulness_difference, the paper's: the
    absolute difference of the two means, so that results in another order than their photos' score the same.
    """
    summary = {} if fid is None else {"fid": (fid.compute().item(), math.nan, math.nan)}
    columns = {}
    for metric in metrics:
        values = np.array([row[metric.name] for row in rows if row[metric.name] is not None], dtype=float)
        if len(values):
            columns[metric.name] = values
            summary[metric.name] = _interval((values,), np.mean, seed)
    if {"colorfulness", "colorfulness_true"} <= columns.keys():
        pair = columns["colorfulness"], columns["colorfulness_true"]
        summary["colorfulness_difference"] = _interval(pair, _difference_of_means, seed)
    return summary


def _difference_of_means(fake: np.ndarray, real: np.ndarray, axis: int = -1) -> np.ndarray:
    return np.abs(fake.mean(axis) - real.mean(axis))


def _interval(columns: tuple[np.ndarray, ...], statistic: Callable, seed: int) -> tuple[float, float, float]:
    """A statistic of columns with a value a photo, and the ends of its bootstrap 95 % interval over photos."""
    mean = low = high = float(statistic(*columns))
    if len(columns[0]) > 1 and any(np.ptp(values) > 0 for values in columns):
        interval = bootstrap(
            columns, statistic, n_resamples=2000, method="percentile", paired=True, rng=np.random.default_rng(seed)
        ).confidence_interval
        low, high = float(interval.low), float(interval.high)
    return mean, low, high


def write_rows(path: Path, rows: list[dict]) -> None:
    """Write per-photo rows as CSV; a cell that its row lacks is empty."""
    text = io.StringIO()
    writer = csv.DictWriter(text, dict.fromkeys(name for row in rows for name in row))
    writer.writeheader()
    writer.writerows(rows)
    write_bytes(path, text.getvalue().encode())


def _objects(
    sample: Sample, masks: Path | None, photo: Image.Image, size: int, fit: str
) -> list[tuple[str, torch.Tensor]]:
    """The phrases of the caption that have a mask and name one colour."""
    parts = comma_parts(sample.caption)
    found = None if masks is None else read_masks(masks, sample.photo, (photo.height, photo.width), len(parts))
    if found is None:
        return []
    whole = found if fit == "squash" else middle_square(found)
    small = F.interpolate(whole[None], (size, size), mode="area")[0]
    objects = []
    for (_, text), mask in zip(parts, small, strict=True):
        color = asked_color(text)
        if color is not None and mask.max() > 0:
            objects.append((color, mask))
    return objects


def fitted(image: Image.Image, size: int, fit: str) -> Image.Image:
    """An image at size x size; `fit` is a row of `FITS`."""
    if fit == "crop" and image.width != image.height:
        side = min(image.size)
        left, top = (image.width - side) // 2, (image.height - side) // 2
        image = image.crop((left, top, left + side, top + side))
    return image if image.size == (size, size) else image.resize((size, size), Image.Resampling.BICUBIC)


def middle_square(maps: torch.Tensor) -> torch.Tensor:
    """The middle (..., S, S) of maps (..., H, W), as `fitted` crops."""
    height, width = maps.shape[-2:]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    return maps[..., top : top + side, left : left + side]


def _shape(image: Image.Image) -> str:
    return f"{image.width}x{image.height}"
