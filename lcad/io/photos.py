"""Photographs as archives keep them: 8 or 16 bit, with alpha, colour profile, EXIF, XMP, IPTC and resolution.

Arrays: grey (H, W) or colour (H, W, 3), uint8 or uint16, upright; L is CIE L under D65 in [0, 100], of the colours that
LittleCMS finds in the values.
"""

import io
import math
import os
import struct
import zlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import BinaryIO

import imagecodecs
import numpy as np
import tifffile
import torch
from PIL import Image
from torch import Tensor

from lcad.color import linear_to_luminance, rgb_to_linear
from lcad.io.color_profiles import SRGB_PROFILE, ColorSpace, ProfileError, color_space, strips
from lcad.io.images import atomic_write, read_pixels
from lcad.io.metadata import (
    EXIF_IFD,
    GPS_IFD,
    IPTC,
    XMP,
    Metadata,
    exif_color_space,
    jpeg_iptc,
    metadata_of_info,
    metadata_of_tiff,
    png_chunk,
    png_iptc,
    read_exif,
    upright_exif,
    write_directory,
)
from lcad.io.pixels import Pixels, to_8_bit
from lcad.io.texts import Text, jpeg_comments, notes_on_texts
from lcad.io.tiff_files import photo_page

FORMATS = {".png": 16, ".tif": 16, ".tiff": 16, ".jpg": 8, ".jpeg": 8, ".webp": 8, ".bmp": 8}
"""suffix -> the most bits per channel that are written"""
LONGEST_SIDE = {".jpg": 65_500, ".jpeg": 65_500, ".webp": 16_383}  # pixels; the others hold all that are read
SEGMENT = 65_533  # bytes of EXIF or, with its own header, of XMP and IPTC in a JPEG
_HEADER = 40  # bytes that stand before XMP and IPTC there, at most


@dataclass
class Photo:
    """A photograph as it was in its file, upright.

    Attributes:
        values: (H, W) or (H, W, 3), uint8 or uint16.
        alpha: (H, W), uint8 or uint16; None: opaque.
        exif: as bytes, its orientation that of `values`; empty: none.
        icc: the profile of the result, which is the photo's own if it is of RGB; None: the result is sRGB.
        dpi: resolution (x, y); None: not said.
        notes: what of the file is not used, or how it was understood where that is not certain.
        xmp, iptc: as bytes; empty: none.
        space: what the values mean; None: what `icc` says.
        bits: of the result; None: as many as `values` have.
        texts: those that the file held beside all that.
    """

    values: np.ndarray
    alpha: np.ndarray | None = None
    exif: bytes = b""
    icc: bytes | None = None
    dpi: tuple[float, float] | None = None
    notes: list[str] = field(default_factory=list)
    xmp: bytes = b""
    iptc: bytes = b""
    space: ColorSpace | None = None
    bits: int | None = None
    texts: list[Text] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.exif = upright_exif(self.exif)
        if self.icc is not None and self.space is None:
            try:
                self.space = color_space(self.icc, 1 if self.values.ndim == 2 else 3)
                self.icc = self.space.icc
            except ProfileError as error:
                raise ValueError(f"the colour profile {error}") from error

    @property
    def depth(self) -> int:
        """Bits per channel of the result: 8 or 16."""
        return self.bits or 8 * self.values.itemsize

    def luminance(self) -> Tensor:
        """L (1, H, W) float32."""
        if self.values.ndim == 2:
            levels = np.arange(np.iinfo(self.values.dtype).max + 1, dtype=self.values.dtype)
            return torch.from_numpy(self._luminance_of(levels[None])[0, 0].numpy()[self.values][None])
        luminance = torch.empty(1, *self.values.shape[:2])
        for rows in strips(*self.values.shape[:2]):
            luminance[:, rows] = self._luminance_of(self.values[rows])
        return luminance

    def _luminance_of(self, values: np.ndarray) -> Tensor:
        """(h, w) or (h, w, 3) -> L (1, h, w)."""
        if self.space is not None:
            light = torch.from_numpy(self.space.linear(values)).movedim(-1, 0)
        else:
            light = torch.from_numpy(_srgb_light(values.dtype)[values])
            light = light.expand(3, *light.shape) if light.ndim == 2 else light.movedim(-1, 0)
        return linear_to_luminance(light).clamp(0, 100)

    def preview(self, side: int | None = None) -> Image.Image:
        """8 bit RGB as a viewer shows it, transparent pixels on white; `side`: see `Pixels.preview`."""
        return Pixels(self.values, self.alpha, space=self.space).preview(side)

    def encoded(self, rgb: Tensor) -> np.ndarray:
        """sRGB (3, H, W) in [0, 1] -> the values (H, W, 3) of a result, in its depth and profile."""
        if self.icc is None or self.space is None:
            return quantized(rgb, self.depth)
        return self.space.encoded(rgb.clamp(0, 1).movedim(0, -1).numpy(), self.depth)

    def encoded_strips(self, size: tuple[int, int], parts: Iterable[tuple[slice, Tensor]]) -> np.ndarray:
        """Rows with their sRGB (3, rows, W) in [0, 1] -> the values (H, W, 3) of a result of this size."""
        values = np.empty((*size, 3), np.uint16 if self.depth == 16 else np.uint8)
        for rows, rgb in parts:
            values[rows] = self.encoded(rgb)
        return values

    def shown(self, values: np.ndarray, side: int | None = None) -> Image.Image:
        """Values of a result (H, W, 3) -> 8 bit sRGB; `side`: see `Pixels.preview`."""
        return Pixels(values, space=None if self.icc is None else self.space).preview(side)


def read_photo(path: Path) -> Photo:
    """Read a photograph; of several pages the first.

    Raises:
        ImageError: see `lcad.io.images.read_image`.
    """
    pixels = read_pixels(path)
    metadata, dpi = _beside(path, pixels)
    icc = None if pixels.space is None else pixels.space.icc
    photo = Photo(pixels.values, pixels.alpha, icc=icc, dpi=dpi, notes=pixels.notes, space=pixels.space)
    photo.exif, photo.xmp, photo.iptc = metadata.exif, metadata.xmp, metadata.iptc
    photo.bits, photo.texts = pixels.depth, pixels.texts
    return photo


def _beside(path: Path, pixels: Pixels) -> tuple[Metadata, tuple[float, float] | None]:
    """What is kept of a file besides its pixels, and its resolution (x, y); a damaged part is left out with a note."""
    try:
        if pixels.info is not None:
            metadata, dpi = metadata_of_info(pixels.info), pixels.info.get("dpi")
        else:
            with path.open("rb") as file, tifffile.TiffFile(file) as tiff:
                page, _ = photo_page(tiff)
                metadata, dpi = metadata_of_tiff(page), _tiff_dpi(page)
    except Exception:  # damaged metadata, in one of the many ways there are: the photo is worth more
        pixels.notes.append("its metadata is damaged and is left out")
        return Metadata(), None
    try:
        x, y = (float(value) for value in dpi or ())
    except (TypeError, ValueError, ZeroDivisionError):
        return metadata, None
    if not (1 < x < 1e6 and 1 < y < 1e6):
        return metadata, None
    return metadata, (y, x) if pixels.turned else (x, y)


def _tiff_dpi(page: tifffile.TiffPage) -> tuple[float, float] | None:
    inch = {2: 1.0, 3: 2.54}.get(page.tags.valueof(296, 2))
    x, y = page.tags.valueof(282), page.tags.valueof(283)
    return None if None in (inch, x, y) or 0 in (x[1], y[1]) else (x[0] / x[1] * inch, y[0] / y[1] * inch)


def notes_on_writing(photo: Photo, suffix: str) -> list[str]:
    """What of a photo a file of that suffix cannot keep."""
    suffix, notes = suffix.lower(), []
    jpeg = suffix in (".jpg", ".jpeg")
    for name, content in (("EXIF", photo.exif), ("XMP", photo.xmp), ("IPTC", photo.iptc)):
        if content and suffix == ".bmp" or (content and name == "IPTC" and suffix == ".webp"):
            notes.append(f"its {name} is not kept: {suffix} has no place for it")
        elif jpeg and len(content) > SEGMENT - _HEADER:
            notes.append(f"its {name} of {len(content):,} bytes is not kept: a JPEG holds {SEGMENT - _HEADER:,}")
        elif content and name == "IPTC" and suffix == ".png":
            notes.append("its IPTC is kept in a text of the PNG, where not all programs look for it")
    if photo.alpha is not None and (jpeg or suffix == ".bmp"):
        notes.append(f"its transparency is not kept: {suffix} has no place for it")
    if photo.icc is not None and suffix == ".bmp":
        notes.append("its colour profile is not kept: .bmp has no place for it")
    return notes + notes_on_texts(photo.texts, suffix)


def write_photo(path: Path, rgb: np.ndarray, source: Photo) -> None:
    """Write a result with its source's alpha, profile, EXIF, XMP, IPTC, texts and resolution, whole or not at all.

    What a format has no place for is left out, see `notes_on_writing`. JPEG is written at quality 95 and alters L a
    little.

    Args:
        path: its suffix decides on the format, see `FORMATS`.
        rgb: (H, W, 3) uint8 or uint16 as from `Photo.encoded`; brought to 8 bit where the format has no more.

    Raises:
        ValueError: an unknown suffix. OSError: the disk, or more pixels than the format holds.
    """
    suffix = path.suffix.lower()
    if suffix not in FORMATS:
        raise ValueError(f"{path}: unknown image format; allowed: {', '.join(FORMATS)}")
    side, limit = max(rgb.shape[:2]), LONGEST_SIDE.get(suffix)
    if limit is not None and side > limit:
        raise OSError(f"{side:,} pixels on a side, a {suffix} file holds {limit:,}; choose png or tif")
    if suffix == ".bmp" and source.icc is not None:  # which has no place for it
        rgb = np.asarray(source.shown(rgb))
    rgb = rgb if FORMATS[suffix] == 16 else to_8_bit(rgb)
    if source.alpha is not None and suffix not in (".jpg", ".jpeg", ".bmp"):
        rgb = np.dstack([rgb, _in_depth(source.alpha, rgb.dtype)])
    kept = Metadata(source.exif, source.xmp, source.iptc)
    with atomic_write(path) as file:
        if suffix in (".tif", ".tiff"):
            _write_tiff(file, rgb, source, kept)
        elif suffix == ".png":
            _write_png(file, rgb, source, kept)
        else:
            _write_8(file, rgb, suffix, source, kept)


def _in_depth(values: np.ndarray, kind: np.dtype) -> np.ndarray:
    return to_8_bit(values) if kind == np.uint8 else values if values.dtype == kind else values.astype(kind) * 257


def quantized(rgb: Tensor, depth: int) -> np.ndarray:
    """(3, H, W) in [0, 1] -> (H, W, 3) uint8 or uint16."""
    peak, kind = (65535, torch.uint16) if depth == 16 else (255, torch.uint8)
    return rgb.clamp(0, 1).mul_(peak).round_().movedim(0, -1).contiguous().to(kind).numpy()


@cache
def _srgb_light(kind: np.dtype) -> np.ndarray:
    """Linear sRGB of each level, float32."""
    return rgb_to_linear(torch.linspace(0, 1, np.iinfo(kind).max + 1, dtype=torch.float64)).float().numpy()


def _profile(source: Photo) -> bytes | None:
    """What a result is tagged with; one in sRGB only where its EXIF would say that it is something else."""
    return source.icc or (SRGB_PROFILE if exif_color_space(source.exif) is not None else None)


def _write_8(file: BinaryIO, pixels: np.ndarray, suffix: str, source: Photo, kept: Metadata) -> None:
    kind = Image.registered_extensions()[suffix]
    of_kinds: dict[str, dict] = {"JPEG": {"quality": 95, "subsampling": 0}, "WEBP": {"lossless": True}}
    options = of_kinds.get(kind, {})
    options |= {"dpi": source.dpi} if source.dpi else {}
    limit = SEGMENT - _HEADER if kind == "JPEG" else math.inf
    options |= {"exif": b"Exif\0\0" + kept.exif} if 0 < len(kept.exif) <= limit else {}
    options |= {"xmp": kept.xmp} if 0 < len(kept.xmp) <= limit else {}
    options |= {"icc_profile": icc} if (icc := _profile(source)) else {}  # Pillow leaves out what a BMP cannot hold
    if kind == "JPEG":
        iptc = jpeg_iptc(kept.iptc) if 0 < len(kept.iptc) <= limit else b""
        options |= {"extra": iptc + jpeg_comments(source.texts)}
    Image.fromarray(pixels).save(file, format=kind, **options)


def _write_tiff(file: BinaryIO, pixels: np.ndarray, source: Photo, kept: Metadata) -> None:
    directory, order = read_exif(kept.exif)
    tags: list[tuple] = [(tag, *entry, True) for tag, entry in directory.items() if isinstance(entry, tuple)]
    below = {tag: entry for tag, entry in directory.items() if isinstance(entry, dict) and tag in (EXIF_IFD, GPS_IFD)}
    # where they lie is known when all else is written; and tifffile takes their numbers from nobody
    tags += [(tag - 1, "I", 1, 0, True) for tag in below]
    tags += [(XMP, 1, len(kept.xmp), kept.xmp, True)] if kept.xmp else []
    tags += [(IPTC, 7, len(kept.iptc), kept.iptc, True)] if kept.iptc else []
    buffer = io.BytesIO()
    tifffile.imwrite(
        buffer,
        pixels,
        photometric="rgb",
        extrasamples=["unassalpha"] if pixels.shape[2] == 4 else None,
        byteorder=order,
        compression="zlib",
        compressionargs={
            "level": 1
        },  # with differences of neighbours smaller than a higher one without, in half the time
        maxworkers=os.cpu_count(),
        predictor=True,
        iccprofile=_profile(source),
        resolution=source.dpi,
        resolutionunit="INCH" if source.dpi else None,
        metadata=None,
        software=False,  # the photo's own, of its EXIF
        extratags=tags,
    )
    if below:
        buffer.seek(0)
        with tifffile.TiffFile(buffer) as tiff:
            places = {tag: tiff.pages.first.tags[tag - 1] for tag in below}
        for tag, entry in below.items():
            end = buffer.seek(0, 2)
            end += buffer.write(b"\0") if end % 2 else 0
            buffer.write(write_directory(entry, order, end))
            for place, number in ((places[tag].offset, struct.pack(f"{order}H", tag)),
                                  (places[tag].valueoffset, struct.pack(f"{order}I", end))):  # fmt: skip
                buffer.seek(place)
                buffer.write(number)
    file.write(buffer.getbuffer())


def _write_png(file: BinaryIO, pixels: np.ndarray, source: Photo, kept: Metadata) -> None:
    data, chunks = memoryview(imagecodecs.png_encode(np.ascontiguousarray(pixels))), b""
    if icc := _profile(source):
        chunks += png_chunk(b"iCCP", b"ICC profile\0\0" + zlib.compress(icc))
    if source.dpi:
        x, y = (round(value / 0.0254) for value in source.dpi)  # pixels per metre
        chunks += png_chunk(b"pHYs", x.to_bytes(4, "big") + y.to_bytes(4, "big") + b"\1")
    chunks += png_chunk(b"eXIf", kept.exif) if kept.exif else b""
    chunks += png_chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + kept.xmp) if kept.xmp else b""
    chunks += png_iptc(kept.iptc) if kept.iptc else b""
    chunks += b"".join(text.as_png() for text in source.texts)
    header = 8 + 25  # signature and IHDR
    for part in (data[:header], chunks, data[header:]):
        file.write(part)
