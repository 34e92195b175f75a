"""Scoring a folder of results against the true photos, whichever method made them.

Images are RGB (S, S, 3) uint8 at the size they are scored at; photos of another size are resized to it.
"""

import csv
import math
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from scipy.stats import bootstrap

from lcad.color_pairs import asked_color
from lcad.masks.files import read_masks
from lcad.metrics import Measure, Scored
from lcad.phrases import comma_parts
from ldm.images import list_images, read_image

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
            raise ValueError(
                f"{folder}: several results for {sample.photo.name}: {', '.join(path.name for path in candidates)}"
            )
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
    measures: list[Measure],
    size: int = 256,
    masks: Path | None = None,
    fid=None,
    grey_is_meant: bool = False,
    progress: Callable[[Iterable], Iterable] = iter,
) -> list[dict]:
    """Score the images in `results`, one for each sample.

    Args:
        size: photos are resized to size x size; results must be of that size, or of their photo's.
        masks: folder of instance masks (see `lcad.masks.files`), for colour adherence.
        fid: torchmetrics' FrechetInceptionDistance, updated with all photos and results.
        grey_is_meant: do not take grey results for a mistake.

    Returns:
        One row a photo, in the order of the samples: name, caption and each measure, None where it does not apply.

    Raises:
        FileNotFoundError, ValueError: results that are missing, of another size, grey, or not numbers.
    """
    rows, grey = [], []
    for sample, path in progress(list(zip(samples, find_results(samples, results), strict=True))):
        photo, result = read_image(sample.photo), read_image(path)
        if result.size not in ((size, size), photo.size):
            raise ValueError(f"{path}: is {_shape(result)}, expected {size}x{size} or the photo's {_shape(photo)}")
        real, fake = (np.array(_resize(image, size)) for image in (photo, result))
        if np.ptp(fake.astype(np.int16), axis=-1).mean() < GREY_SPREAD:
            grey.append(path.name)
        scored = Scored(real, fake, sample.caption, _objects(sample, masks, photo, size))
        row = {"name": sample.photo.name, "caption": sample.caption}
        row |= {measure.name: measure.score(scored) for measure in measures}
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
    rows: list[dict], measures: list[Measure], fid=None, seed: int = 0
) -> dict[str, tuple[float, float, float]]:
    """Mean and bootstrap 95 % interval (percentile, 2,000 resamples) of each measure that applies to some photo.

    FID is one number of the whole set: its interval is NaN.
    """
    summary = {} if fid is None else {"fid": (fid.compute().item(), math.nan, math.nan)}
    for measure in measures:
        values = np.array([row[measure.name] for row in rows if row[measure.name] is not None], dtype=float)
        if len(values) == 0:
            continue
        mean = low = high = float(values.mean())
        if len(values) > 1 and np.ptp(values) > 0:
            interval = bootstrap(
                (values,), np.mean, n_resamples=2000, method="percentile", rng=np.random.default_rng(seed)
            ).confidence_interval
            low, high = float(interval.low), float(interval.high)
        summary[measure.name] = (mean, low, high)
    return summary


def write_rows(path: Path, rows: list[dict]) -> None:
    """Write per-photo rows as CSV."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, rows[0].keys())
        writer.writeheader()
        writer.writerows(rows)


def _objects(sample: Sample, masks: Path | None, photo: Image.Image, size: int) -> list[tuple[str, torch.Tensor]]:
    """The phrases of the caption that have a mask and name one colour."""
    parts = comma_parts(sample.caption)
    found = None if masks is None else read_masks(masks, sample.photo, (photo.height, photo.width), len(parts))
    if found is None:
        return []
    small = F.interpolate(found[None], (size, size), mode="area")[0]
    objects = []
    for (_, text), mask in zip(parts, small, strict=True):
        color = asked_color(text)
        if color is not None and mask.max() > 0:
            objects.append((color, mask))
    return objects


def _resize(image: Image.Image, size: int) -> Image.Image:
    return image if image.size == (size, size) else image.resize((size, size), Image.Resampling.BICUBIC)


def _shape(image: Image.Image) -> str:
    return f"{image.width}x{image.height}"
