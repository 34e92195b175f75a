"""Scoring a model on captioned photos: PSNR and colourfulness beside the grey input's, per photo."""

import csv
from collections.abc import Callable, Iterable
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from lcad.color import merge_chroma, rgb_to_hint, rgb_to_lab, rgb_to_luminance
from lcad.guided_decoder import guided_decode
from lcad.metrics import colorfulness, psnr
from lcad.pipeline import LCADPipeline
from ldm.autoencoder import encode
from ldm.images import read_image, to_tensor

METHODS = {
    "caption": "colorized with the photo's first caption",
    "scarce": "colorized with 'a colorful image'",
    "round_trip": "the true photo through the autoencoder with luminance guidance: the ceiling",
}


def evaluate(
    pipeline: LCADPipeline,
    photos: list[Path],
    captions: dict[str, list[str]],
    method: str,
    size: int = 256,
    batch_size: int = 16,
    progress: Callable[[Iterable], Iterable] = iter,
    **options,
) -> list[dict]:
    """Colorize photos resized to size x size and score them at that size, chroma resized up, the photo's own L.

    Args:
        method: a row of `METHODS`.
        options: of the pipeline's call, such as num_inference_steps.

    Returns:
        One row a photo: name, psnr, psnr_grey (dB), colorfulness, colorfulness_true.

    Raises:
        ValueError: unknown method.
    """
    if method not in METHODS:
        raise ValueError(f"unknown method {method!r}; allowed: {', '.join(METHODS)}")
    rows = []
    for start in progress(range(0, len(photos), batch_size)):
        batch = photos[start : start + batch_size]
        real = torch.stack([to_tensor(read_image(p).resize((size, size), Image.Resampling.BICUBIC)) for p in batch])
        if method == "round_trip":
            fake = _round_trip(pipeline, real)
        else:
            texts = [(captions.get(p.name) or [""])[0] if method == "caption" else "" for p in batch]
            generators = [torch.Generator().manual_seed(0) for _ in batch]
            fake = torch.stack(pipeline(list(real), texts, generator=generators, output_type="pt", **options).images)
        grey = merge_chroma(rgb_to_luminance(real), torch.zeros_like(real))
        columns = (psnr(real, fake), psnr(real, grey), colorfulness(fake), colorfulness(real))
        names = ("psnr", "psnr_grey", "colorfulness", "colorfulness_true")
        for photo, *values in zip(batch, *(column.tolist() for column in columns), strict=True):
            rows.append({"name": photo.name} | dict(zip(names, values, strict=True)))
    return rows


@torch.no_grad()
def _round_trip(pipeline: LCADPipeline, real: Tensor) -> Tensor:
    side = pipeline.config.image_size
    small = torch.nn.functional.interpolate(real, (side, side), mode="bicubic", antialias=True).clamp(0, 1)
    features = pipeline.luminance_encoder(rgb_to_hint(small, pipeline.config.hint_scale))
    decoded = guided_decode(pipeline.vae, encode(pipeline.vae, small * 2 - 1), features)
    return merge_chroma(rgb_to_luminance(real), rgb_to_lab((decoded / 2 + 0.5).clamp(0, 1)))


def means(rows: list[dict]) -> dict[str, float]:
    """The mean of every measure."""
    return {key: sum(row[key] for row in rows) / len(rows) for key in rows[0] if key != "name"}


def write_rows(path: Path, rows: list[dict]) -> None:
    """Write per-photo rows as CSV."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, rows[0].keys())
        writer.writeheader()
        writer.writerows(rows)
