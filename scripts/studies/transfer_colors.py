#!/usr/bin/env python3
"""How well transferred colours lie on a photo: an editor's picture is made from the true photo, with a known fault.

python scripts/studies/transfer_colors.py                                    # the bundled photos
python scripts/studies/transfer_colors.py --input coco_val_145/images --csv transfer.csv
    python scripts/studies/transfer_colors.py --references --input coco_val_145/images
"""

import contextlib
import io
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np
import torch
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from lcad.cli.common import build_parser, reporting
from lcad.color import luminance_to_rgb, merge_chroma, rgb_to_lab, rgb_to_luminance
from lcad.evaluation.scoring import write_rows
from lcad.io.images import list_images, read_image, to_tensor
from lcad.recoloring.registration import WrongPair
from lcad.recoloring.transfer import Transfer, transfer_colors
from lcad.recoloring.transfer_reference import reference_colors
from lcad.upsampling import resize

ROOT = Path(__file__).resolve().parents[2]
KINDS = ("same", "half", "crop", "shift", "warp", "jpeg", "small jpeg", "all", "tones", "all, tones", "repainted")
WRONG = ("mirrored", "another", "another, same size")
TEXTS = ("photo", "kind", "refused")
EDGE = 20.0  # change of L over two pixels that counts as a strong edge
NEAR_EDGE = 2  # pixels of the compared size


def distorted(photo: Image.Image, kind: str, seed: int = 0) -> Image.Image:
    """What an editor might make of a photo, besides the colours: a row of `KINDS`."""
    rng = np.random.default_rng(seed)
    values = np.asarray(photo.convert("RGB"))
    height, width = values.shape[:2]
    sizes = np.random.default_rng(seed + 1_000_000)  # of "small jpeg", which "all" is without what moves pixels
    whole = kind.startswith("all")
    matrix = np.eye(3, dtype=np.float64)  # from the picture's pixels to the photo's
    y, x = np.mgrid[:height, :width].astype(np.float32)
    if "crop" in kind or whole:  # up to 12 % of each side
        left, top, right, bottom = rng.uniform(0.02, 0.12, 4)
        matrix = np.diag([1 - left - right, 1 - top - bottom, 1.0])
        matrix[:2, 2] = left * width, top * height
    if "shift" in kind or whole:
        matrix[:2, 2] += rng.uniform(-0.03, 0.03, 2) * (width, height)
        angle = np.deg2rad(rng.uniform(-2, 2))
        turn = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
        matrix = matrix @ turn
    places = cv2.perspectiveTransform(np.dstack([x, y]).reshape(1, -1, 2), matrix).reshape(height, width, 2)
    if "warp" in kind or whole:  # smooth, of up to about 1 % of the long side
        nodes = rng.normal(0, 0.005 * max(width, height), (5, 5, 2)).astype(np.float32)
        places = places + cv2.resize(nodes, (width, height), interpolation=cv2.INTER_CUBIC)
    if whole or kind in ("crop", "shift", "warp"):
        places = places.astype(np.float32)
        values = cv2.remap(values, places[..., 0], places[..., 1], cv2.INTER_LANCZOS4, borderMode=cv2.BORDER_REFLECT)
    if kind in ("half", "small jpeg") or whole:
        factor = 0.5 if kind == "half" else sizes.uniform(0.4, 0.9)
        values = cv2.resize(values, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA)
    if "tones" in kind:
        values = _other_tones(values, rng)
    picture = Image.fromarray(values)
    if "jpeg" in kind or whole:
        buffer = io.BytesIO()
        picture.save(buffer, "JPEG", quality=int(sizes.integers(75, 93)))
        picture = Image.open(buffer).convert("RGB")
    return picture


def _other_tones(values: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Another L, the same ab: what it does to what can be shown is the editor's."""
    lab = rgb_to_lab(torch.tensor(values).movedim(-1, 0).float() / 255)
    lightness = (lab[:1] / 100).clamp(0, 1) ** rng.uniform(0.8, 1.25) * 100
    return (merge_chroma(lightness, lab) * 255).round().byte().movedim(0, -1).numpy()


def chroma_scores(photo: Tensor, transfer: Transfer) -> dict[str, float]:
    """Colours against the true photo (3, H, W).

    `psnr` (dB): of RGB made of the photo's own L and the transferred ab, against the true photo, both averaged down to
    the size that the chroma was carried at, where the picture shows the photo.
    `full_psnr`: the same at the photo's size. `whole_psnr`: over the whole photo, grey where nothing fits.
    `edge_ratio`: the mean error of ab near strong edges of L, to that elsewhere, at the carried size.
    """
    luminance = rgb_to_luminance(photo)
    result = torch.cat([rgb for _, rgb in transfer.strips(luminance)], dim=-2)
    size = transfer.chroma.shape[-2:]
    small, true = (resize(image[None], size)[0].clamp(0, 1) for image in (result, photo))
    covered = transfer.registration.covered_mask
    shown = torch.from_numpy(cv2.resize(covered, size[::-1], interpolation=cv2.INTER_AREA)) > 0.99
    full = torch.from_numpy(cv2.resize(covered, photo.shape[:0:-1])) > 0.99
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


def repainted(photo: Image.Image, other: Image.Image) -> tuple[Image.Image, Tensor]:
    """The photo with an ellipse of another one in it, as where an editor made a new face -> and where, (H, W) bool."""
    height, width = photo.height, photo.width
    mask = np.zeros((height, width), np.uint8)
    cv2.ellipse(mask, (int(0.6 * width), int(0.5 * height)), (int(0.16 * width), int(0.2 * height)), 0, 0, 360, 255, -1)
    picture = photo.copy()
    picture.paste(other.resize(photo.size), mask=Image.fromarray(mask))
    return picture, torch.from_numpy(mask > 0)


def repainted_scores(transfer: Transfer, where: Tensor) -> dict[str, float]:
    """The share of a repainted place, and of all else, whose colours are believed at least by half."""
    size = transfer.confidence.shape[::-1]
    inside = torch.from_numpy(cv2.resize(where.float().numpy(), tuple(size), interpolation=cv2.INTER_AREA))
    believed = (transfer.confidence > 0.5).float()
    return {
        "believed_inside": float(believed[inside > 0.5].mean()),
        "believed_outside": float(believed[inside == 0].mean()),
    }


def measured(paths: list[Path], kinds: Sequence[str]) -> Iterator[dict]:
    """A row for each photo and kind of picture; of wrong pairs the next photo's picture, and its own mirrored."""
    photos = [read_image(path) for path in paths]
    for number, (path, image) in enumerate(zip(paths, photos, strict=True)):
        photo, other = to_tensor(image), photos[(number + 1) % len(photos)]
        for kind in kinds:
            started, where = time.perf_counter(), None
            if kind == "mirrored":
                picture = distorted(image, "all", number).transpose(Image.Transpose.FLIP_LEFT_RIGHT)
            elif kind in WRONG:
                picture = distorted(other, "all", number)
                picture = picture.resize(image.size) if kind == "another, same size" else picture
            elif kind == "repainted":
                picture, where = repainted(image, other)
            else:
                picture = distorted(image, kind, number)
            row = {"photo": path.name, "kind": kind, "refused": ""}
            try:
                transfer = transfer_colors(rgb_to_luminance(photo), picture)
                row |= {"seconds": time.perf_counter() - started} | chroma_scores(photo, transfer)
                row |= {} if where is None else repainted_scores(transfer, where)
            except WrongPair as error:
                row |= {"seconds": time.perf_counter() - started, "refused": str(error)}
            yield row


def reference_gains(paths: list[Path]) -> dict[str, dict[str, float]]:
    """PSNR of photos coloured by a reference: the other side of the same photo (a tenth is shared), or another photo.

    Beside it that of the grey photo, and of the reference's mean chroma everywhere.
    """
    photos, gains = [to_tensor(read_image(path)) for path in paths], {"same place": [], "another photo": []}
    for number, photo in enumerate(photos):
        width = photo.shape[-1]
        sides = photo[..., : int(0.55 * width)], photo[..., int(0.45 * width) :]
        for name, own, other in (("same place", *sides), ("another photo", photo, photos[(number + 1) % len(photos)])):
            luminance = rgb_to_luminance(own)
            with contextlib.suppress(WrongPair):
                transfer = reference_colors(luminance, other)
                mean = rgb_to_lab(other)[1:].mean(dim=(1, 2), keepdim=True).expand(2, *luminance.shape[-2:])
                flat = Transfer(mean, torch.ones(luminance.shape[-2:]))
                results = {"grey": luminance_to_rgb(luminance), "mean chroma": flat.recolored(luminance)}
                results["reference"] = transfer.recolored(luminance)
                everywhere = torch.ones(own.shape[-2:], dtype=torch.bool)
                scores = {kind: _psnr(result, own, everywhere) for kind, result in results.items()}
                gains[name].append(scores | {"used": float(transfer.confidence.mean())})
    return {
        name: {kind: float(np.mean([row[kind] for row in rows])) for kind in rows[0]}
        for name, rows in gains.items()
        if rows
    }


def table(rows: list[dict]) -> str:
    """Markdown: for each kind how many were taken, and mean and worst figures of those."""
    lines = ["| picture | taken | PSNR, worst | at full size | at least 32 dB | error at edges | elsewhere | sure |"]
    lines.append("|---" * 8 + "|")
    for kind in dict.fromkeys(row["kind"] for row in rows):
        own = [row for row in rows if row["kind"] == kind]
        taken = [row for row in own if not row["refused"]]
        cells = [kind, f"{len(taken)} of {len(own)}"]
        if taken:
            mean = {name: np.nanmean([row[name] for row in taken]) for name in taken[0] if name not in TEXTS}
            worst, enough = min(row["psnr"] for row in taken), sum(row["psnr"] >= 32 for row in taken)
            cells += [f"{mean['psnr']:.1f}, {worst:.1f}", f"{mean['full_psnr']:.1f}", f"{enough} of {len(taken)}"]
            cells += [f"{mean[name]:.2f}" for name in ("edge_error", "other_error", "sure")]
        lines.append("| " + " | ".join(cells + [""] * (8 - len(cells))) + " |")
    inside = [row for row in rows if "believed_inside" in row]
    if inside:
        shares = [np.mean([row[f"believed_{place}"] for row in inside]) for place in ("inside", "outside")]
        lines.append(f"\nOf repainted places {shares[0]:.1%} is believed, of all else {shares[1]:.1%}.")
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> int:
    parser = build_parser(None, __doc__)
    add = parser.add_argument
    add("--input", type=Path, default=ROOT / "data" / "examples" / "images", help="true photos in colour")
    add("--limit", type=int, help="so many of them, evenly")
    add("--kinds", default=";".join(KINDS + WRONG), help="of pictures, with ; between")
    add("--references", action="store_true", help="colours of similar photos in place of registered ones")
    add("--csv", type=Path, help="write each row there, too")
    args = parser.parse_args(argv)

    def action() -> int:
        paths = list_images(args.input)
        paths = paths[:: max(1, len(paths) // args.limit)][: args.limit] if args.limit else paths
        if args.references:
            for name, scores in reference_gains(paths).items():
                print(f"{name}: " + ", ".join(f"{kind} {score:.2f}" for kind, score in scores.items()))
            return 0
        rows = list(tqdm(measured(paths, args.kinds.split(";")), total=len(paths) * (args.kinds.count(";") + 1)))
        print(table(rows))
        if args.csv:
            write_rows(args.csv, rows)
        return 0

    return reporting(action)


if __name__ == "__main__":
    raise SystemExit(main())
