#!/usr/bin/env python3
"""How well transferred colours lie on a photo: an editor's picture is made from the true photo, with a known fault.

    python scripts/studies/transfer_colors.py                                    # the bundled photos
    python scripts/studies/transfer_colors.py --input coco_val_145/images --csv transfer.csv
"""

import argparse
import csv
import io
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import torch
from PIL import Image
from torch import Tensor

from lcad.cli.common import reporting
from lcad.color import luminance_to_rgb, merge_chroma, rgb_to_lab, rgb_to_luminance
from lcad.io.images import list_images, read_image, to_tensor
from lcad.recoloring.registration import WrongPair
from lcad.recoloring.transfer import Transfer, transfer_colors
from lcad.upsampling import resize

ROOT = Path(__file__).resolve().parents[2]
KINDS = ("same", "half", "crop", "shift", "warp", "jpeg", "tones", "all")
EDGE = 20.0  # change of L over two pixels that counts as a strong edge
NEAR_EDGE = 2  # pixels of the compared size


def distorted(photo: Image.Image, kind: str, seed: int = 0) -> Image.Image:
    """What an editor might make of a photo, besides the colours: a row of `KINDS`."""
    rng = np.random.default_rng(seed)
    values = np.asarray(photo.convert("RGB"))
    height, width = values.shape[:2]
    matrix = np.eye(3, dtype=np.float64)  # from the picture's pixels to the photo's
    y, x = np.mgrid[:height, :width].astype(np.float32)
    if kind in ("crop", "all"):  # up to 12 % of each side
        left, top, right, bottom = rng.uniform(0.02, 0.12, 4)
        matrix = np.diag([1 - left - right, 1 - top - bottom, 1.0])
        matrix[:2, 2] = left * width, top * height
    if kind in ("shift", "all"):
        matrix[:2, 2] += rng.uniform(-0.03, 0.03, 2) * (width, height)
        angle = np.deg2rad(rng.uniform(-2, 2))
        turn = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
        matrix = matrix @ turn
    places = cv2.perspectiveTransform(np.dstack([x, y]).reshape(1, -1, 2), matrix).reshape(height, width, 2)
    if kind in ("warp", "all"):  # smooth, of up to about 1 % of the long side
        nodes = rng.normal(0, 0.005 * max(width, height), (5, 5, 2)).astype(np.float32)
        places = places + cv2.resize(nodes, (width, height), interpolation=cv2.INTER_CUBIC)
    if kind not in ("same", "half", "jpeg", "tones"):
        places = places.astype(np.float32)
        values = cv2.remap(values, places[..., 0], places[..., 1], cv2.INTER_LANCZOS4, borderMode=cv2.BORDER_REFLECT)
    if kind in ("half", "all"):
        factor = 0.5 if kind == "half" else rng.uniform(0.4, 0.9)
        values = cv2.resize(values, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA)
    if kind in ("tones", "all"):
        values = _other_tones(values, rng)
    picture = Image.fromarray(values)
    if kind in ("jpeg", "all"):
        buffer = io.BytesIO()
        picture.save(buffer, "JPEG", quality=int(rng.integers(75, 93)))
        picture = Image.open(buffer).convert("RGB")
    return picture


def _other_tones(values: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Another L, the same ab: what it does to what can be shown is the editor's."""
    lab = rgb_to_lab(torch.from_numpy(values).movedim(-1, 0).float() / 255)
    lightness = (lab[:1] / 100).clamp(0, 1) ** rng.uniform(0.8, 1.25) * 100
    return (merge_chroma(lightness, lab) * 255).round().byte().movedim(0, -1).numpy()


def chroma_scores(photo: Tensor, transfer: Transfer) -> dict[str, float]:
    """Colours against the true photo (3, H, W).

    `psnr` (dB): of RGB made of the photo's own L and the transferred ab, against the true photo, both brought to the
    size that the chroma was carried at (averaged over pixels, as the picture's were), where the picture shows the photo.
    `full_psnr`: the same at the photo's size. `whole_psnr`: over the whole photo, grey where nothing fits.
    `edge_ratio`: the mean error of ab near strong edges of L, to that elsewhere, at the carried size.
    """
    luminance = rgb_to_luminance(photo)
    result = torch.cat([rgb for _, rgb in transfer.strips(luminance)], dim=-2)
    size = transfer.chroma.shape[-2:]
    small, true = (resize(image[None], size)[0].clamp(0, 1) for image in (result, photo))
    shown = torch.from_numpy(cv2.resize(transfer.registration.covered_mask, size[::-1], interpolation=cv2.INTER_AREA)) > 0.99
    full = torch.from_numpy(cv2.resize(transfer.registration.covered_mask, photo.shape[:0:-1])) > 0.99
    error = (rgb_to_lab(small) - rgb_to_lab(true))[1:].norm(dim=0)  # (h, w)
    edges = strong_edges(rgb_to_luminance(true)[0].numpy())
    near, far = error[shown & edges], error[shown & ~edges]
    return {
        "psnr": _psnr(small, true, shown),
        "full_psnr": _psnr(result, photo, full),
        "whole_psnr": _psnr(result, photo, torch.ones_like(full)),
        "grey_psnr": _psnr(luminance_to_rgb(luminance), photo, torch.ones_like(full)),
        "edge_error": float(near.mean()) if len(near) else float("nan"),
        "other_error": float(far.mean()),
        "edge_ratio": float(near.mean() / far.mean().clamp_min(0.5)) if len(near) else float("nan"),
        "sure": transfer.registration.sure,
        "agreement": transfer.registration.agreement,
    }


def strong_edges(luminance: np.ndarray) -> Tensor:
    """(H, W) bool: within `NEAR_EDGE` pixels of a change of L by `EDGE` over two pixels."""
    dx, dy = cv2.Sobel(luminance, cv2.CV_32F, 1, 0) / 4, cv2.Sobel(luminance, cv2.CV_32F, 0, 1) / 4
    strong = (np.hypot(dx, dy) > EDGE).astype(np.uint8)
    return torch.from_numpy(cv2.dilate(strong, np.ones((2 * NEAR_EDGE + 1,) * 2, np.uint8)) > 0)


def _psnr(image: Tensor, true: Tensor, where: Tensor) -> float:
    return float(-10 * torch.log10(((image - true) ** 2)[:, where].mean().clamp_min(1e-10)))


def measured(paths: list[Path], kinds: tuple[str, ...]) -> Iterator[dict]:
    """A row for each photo and kind of picture, and for wrong pairs: the next photo's picture, and the mirrored one."""
    photos = [read_image(path) for path in paths]
    for number, (path, image) in enumerate(zip(paths, photos, strict=True)):
        photo = to_tensor(image)
        others = {"mirrored": distorted(image, "all", number).transpose(Image.Transpose.FLIP_LEFT_RIGHT)}
        others["another"] = distorted(photos[(number + 1) % len(photos)], "all", number)
        others["another, same size"] = others["another"].resize(image.size)
        pictures = {kind: distorted(image, kind, number) for kind in kinds}
        for kind, picture in (pictures | others).items():
            started = time.perf_counter()
            row = {"photo": path.name, "kind": kind, "right": kind in kinds, "refused": ""}
            try:
                transfer = transfer_colors(rgb_to_luminance(photo), picture)
                row |= {"seconds": time.perf_counter() - started} | chroma_scores(photo, transfer)
            except WrongPair as error:
                row |= {"seconds": time.perf_counter() - started, "refused": str(error)}
            yield row
